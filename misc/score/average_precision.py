"""VOC's average precision of instance masks, as chainercv's eval_instance_segmentation_voc has it.

Ours, because the libraries that are kept up (pycocotools, torchmetrics) average the precision at
COCO's 101 recalls; VOC's is the area under the whole envelope. Only scores and whether they match
are kept of an image.
"""
import dataclasses
from collections.abc import Callable

import numpy as np

from misc import torchutils
from misc.contract.sources import Source
from misc.data import datasets
from misc.files import label_maps
from misc.method.instances import Instances
from misc.pyutils import UserError
from misc.score import scores

IOU = 0.5  # from which a prediction matches an object


@dataclasses.dataclass
class InstanceScore:
    """The score of instance masks.

    ap: of the C classes; nan: no object of it.
    mean: over the others.
    objects: the number of each class's.
    """

    ap: np.ndarray
    mean: float
    objects: np.ndarray
    images: int


def read_objects(source: Source, image_id: str, hw: tuple[int, int]) -> Instances:
    """Read the true objects, each with the class of its pixels in the true label map.

    Their scores are 1. Pixels 255 belong to no object. Raises UserError where a mask is missing or
    of another size than (H, W), or an object has no class.
    """
    truth = scores.read_truth(source, image_id, hw)
    path = source.object_mask_path(image_id)
    objects = label_maps.load(path, 'instance masks are scored with the objects of every image')
    if objects.shape != truth.shape:
        raise UserError(f'{path}: {objects.shape}, the label map of {image_id} is {truth.shape}')
    numbers = np.setdiff1d(objects, (0, label_maps.IGNORE))
    classes = np.empty(len(numbers), np.int64)
    for position, number in enumerate(numbers):
        counts = np.bincount(truth[objects == number],
                             minlength=label_maps.IGNORE + 1)[1:label_maps.IGNORE]
        if not counts.any():
            raise UserError(f'{path}: object {number} has no class in {source.mask_path(image_id)}')
        classes[position] = counts.argmax()
    consecutive = np.zeros(256, np.int32)
    consecutive[numbers] = np.arange(1, len(numbers) + 1)
    return Instances(classes, np.ones(len(numbers), np.float32), consecutive[objects])


def matches(found: Instances, truth: Instances) -> np.ndarray:
    """Return which of the instances found match an object, bool (M,).

    By score, the highest first, each takes the object of its class that it overlaps most, if the
    IoU is at least 0.5 and no instance before it took that object.
    """
    m, objects = len(found.classes), len(truth.classes)
    matched, taken = np.zeros(m, bool), np.zeros(objects, bool)
    if not m or not objects:
        return matched
    pairs = found.instance_map.astype(np.int64) * (objects + 1) + truth.instance_map
    counts = np.bincount(pairs.ravel(),
                         minlength=(m + 1) * (objects + 1)).reshape(m + 1, objects + 1)
    common = counts[1:, 1:]
    iou = common / (counts.sum(1)[1:, None] + counts.sum(0)[1:] - common)
    iou[found.classes[:, None] != truth.classes] = 0
    for number in np.argsort(-found.scores, kind='stable'):
        best = iou[number].argmax()
        if iou[number, best] >= IOU and not taken[best]:
            matched[number] = taken[best] = True
    return matched


def average_precision(found_scores: np.ndarray, matched: np.ndarray, objects: int) -> float:
    """Return the area under the envelope of precision against recall; nan without objects.

    found_scores, matched: (M,) of one class over all images.
    Equal scores, which are common (the best of each image has 1), keep their order; chainercv
    leaves it open.
    """
    if not objects:
        return float('nan')
    true = np.cumsum(matched[np.argsort(-found_scores, kind='stable')])
    precision = true / np.arange(1, len(true) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(true, prepend=0) / objects * envelope).sum())


def score(source: Source, ids: list[str], load: Callable[[str], Instances],
          num_workers: int) -> InstanceScore:
    """Score the instances of `ids`, read in parallel, by all processes.

    load(id) gives the instances found.
    Raises the first image's UserError, and one where the images hold no object.
    """
    def compare(image_id: str) -> tuple[np.ndarray, ...]:
        found = load(image_id)
        truth = read_objects(source, image_id, found.instance_map.shape)
        if found.classes.max(initial=0) >= source.n_classes:
            raise UserError(f'the instance masks of {image_id} hold classes above '
                            f'{source.n_classes}, their number')
        return found.classes, found.scores, matches(found, truth), truth.classes

    mine = torchutils.shard(ids)
    compared = datasets.read_ahead(compare, mine, num_workers)
    results = [datasets.checked(result)
               for result in torchutils.progress(compared, total=len(mine), unit='image')]
    classes, found_scores, matched, true_classes = map(
        np.concatenate, zip(*torchutils.gather(results), strict=True))
    if not len(true_classes):
        raise UserError(f'the masks of the {len(ids)} images hold no object: there is nothing to '
                        f'score')
    objects = np.bincount(true_classes, minlength=source.n_classes)
    ap = np.array([average_precision(found_scores[classes == number], matched[classes == number],
                                     int(objects[number]))
                   for number in range(source.n_classes)])
    return InstanceScore(ap, float(np.nanmean(ap)), objects, len(ids))
