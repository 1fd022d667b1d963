"""Instance masks: positions whose displacements lead to one centre are one object (IRN, 5).

ID.npz holds what was found in an image: `class` int64 (M,), from 0; `score` float32 (M,), 0..1;
  `instances` int32 (H, W), 0 where there is none, m + 1 on the pixels of the m-th (each pixel has
  one winner, so instances do not overlap). M may be 0.

Shapes: h w are stride 4; K classes present; M clusters, later instances.
"""
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from misc import indexing
from misc.contract.sources import Source
from misc.files import coco
from misc.method import maps
from misc.pyutils import UserError, atomic_path, is_whole

ROUNDS = 300  # of following the displacement (authors)
WEAK = 2.5  # positions of stride 4; where the displacement is shorter, centres lie (authors)
FRAGMENT = 0.01  # fraction of the image below which an instance gets score 0 (authors)
PLANES_AT_ONCE = 8  # in one walk: more take no less time each, only more memory


class Instances(NamedTuple):
    """The instances of an image.

    classes: (M,), from 0.
    scores: (M,).
    instance_map: (H, W): 0 for none, else the number of an instance, from 1.
    """

    classes: np.ndarray
    scores: np.ndarray
    instance_map: np.ndarray


@torch.no_grad()
def centroids(displacement: torch.Tensor, rounds: int = ROUNDS) -> torch.Tensor:
    """Return where each position ends that follows the displacement.

    displacement: (2, h, w), rows then columns.
    Returns int64 (2, h, w).
    Each round adds the displacement, read bilinearly at the place reached, and clips to the map;
    the last place is rounded, half to even. The sums are in the authors' order: float32 gives their
    numbers to the bit.
    """
    _, h, w = displacement.shape
    start = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')).flatten(1)
    last = torch.tensor([[h - 1], [w - 1]])
    (down, right), (row, column) = (start + 1).minimum(last), start
    corners = torch.stack([torch.stack([y * w + right, y * w + column]) for y in (down, row)])
    # the four values around each position, of both channels, so that a round reads once: (down?,
    # right?, channel, h * w)
    around = displacement.flatten(1)[:, corners].permute(1, 2, 0, 3).flatten(0, 2).contiguous()
    place, last = start.to(displacement.dtype), last.to(displacement.dtype)
    for _ in range(rounds):
        corner = place.floor()
        fraction = place - corner
        fractions = torch.stack([fraction, 1 - fraction])  # (next or this, rows or columns, h * w)
        corner = corner.long()
        values = around.index_select(1, corner[0] * w + corner[1]).view(2, 2, 2, -1)
        values *= fractions[:, 0, None, None]
        values *= fractions[:, 1, None]
        values = values.flatten(0, 1)
        place = (place + (values[0] + values[1] + values[2] +
                          values[3])).clamp_(min=0).minimum(last)
    return place.round().long().view(2, h, w)


def clusters(displacement: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return which positions belong to one object.

    displacement: (2, h, w).
    centres: its `centroids`, (2, h, w).
    Returns int64 (h, w), numbers 0..M-1, all in use. Positions whose centroids lie in one
    4-connected region of weak displacement are a cluster; those whose centroids lie in none are one
    too.
    """
    weak = (displacement[0] ** 2 + displacement[1] ** 2).sqrt() < WEAK
    regions = torch.from_numpy(_components(weak.numpy()))
    return torch.unique(regions[centres[0], centres[1]], return_inverse=True)[1]


def _components(mask: np.ndarray) -> np.ndarray:
    """bool (h, w) -> int32 (h, w): its 4-connected components, numbered from 1 in the order of
    their first pixels.
    """
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]


@torch.inference_mode()
def find(keys: np.ndarray, strided: torch.Tensor, edge: torch.Tensor, displacement: torch.Tensor,
         threshold: float, beta: float, exp_times: int, hw: tuple[int, int]) -> Instances:
    """Find the instances of an image, on the host: the work is in many small steps.

    keys: (K,), from 0.
    strided: activations (K, h, w).
    edge: (1, h, w) after the sigmoid.
    displacement: (2, h, w), its mean subtracted.
    threshold: below this fraction of the overall maximum a pixel is background.
    hw: size of the image.
    """
    cluster_map = clusters(displacement, centroids(displacement))
    winner, value = _winners(strided, cluster_map,
                             indexing.RandomWalk(edge, beta=beta, exp_times=exp_times), threshold,
                             hw)
    return _separate(keys, winner.numpy(), value.numpy(), int(cluster_map.max()) + 1)


def _winners(strided: torch.Tensor, cluster_map: torch.Tensor, walk: indexing.RandomWalk,
             threshold: float, hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Arg max over (threshold, the walks of every class within every cluster), resized x4 and
    divided by the overall
    maximum: int64 (H, W), k * M + m, or -1 for the threshold; and the winner's value, float32 (H,
    W).

    One plane is held at full size at a time. Those with the most activation come first: a plane
    that has fallen to the threshold times the highest value found so far can win nowhere, and most
    are given up after a few steps.
    """
    m = int(cluster_map.max()) + 1
    size = (cluster_map.shape[0] * 4, cluster_map.shape[1] * 4)
    value = strided.new_zeros(hw)
    winner = torch.full(hw, -1)
    sums = torch.zeros(len(strided), m).index_add_(1, cluster_map.flatten(),
                                                   strided.flatten(1)).flatten()
    order = sums.argsort(descending=True, stable=True)[:int((sums > 0).sum())].tolist()
    for first in range(0, len(order), PLANES_AT_ONCE):
        group = order[first:first + PLANES_AT_ONCE]
        least = threshold * value.max().item()
        planes = torch.stack([strided[plane // m] * (cluster_map == plane % m) for plane in group])
        for plane, walked in zip(group, walk(planes, least), strict=True):
            if walked.max() <= least:
                continue
            full = maps.resize(walked, size)[0, :hw[0], :hw[1]]
            higher = full > value
            value[higher], winner[higher] = full[higher], plane
    highest = value.max()
    value = torch.where(highest > 0, value / highest, value)
    return torch.where(value > threshold, winner, -1), value


def _separate(keys: np.ndarray, winner: np.ndarray, value: np.ndarray, m: int) -> Instances:
    """Every 4-connected component of every plane's area is an instance; its score is its highest
    value, 0 for a
    fragment. winner: (H, W), k * M + m or -1."""
    classes, scores, instance_map = [np.empty(0,
                                              np.int64)], [np.empty(
                                                  0, np.float32)], np.zeros(winner.shape, np.int32)
    found = 0
    for plane in np.unique(winner[winner >= 0]):
        won = winner == plane
        component = _components(won)[won]
        areas = np.bincount(component)[1:]
        score = np.zeros(len(areas), np.float32)
        np.maximum.at(score, component - 1, value[won])
        score[areas < FRAGMENT * winner.size] = 0
        classes.append(np.full(len(areas), keys[plane // m], np.int64))
        scores.append(score)
        instance_map[won] = found + component
        found += len(areas)
    return Instances(np.concatenate(classes), np.concatenate(scores), instance_map)


def nothing(hw: tuple[int, int]) -> Instances:
    """Return the instances of an image without a class."""
    return Instances(np.empty(0, np.int64), np.empty(0, np.float32), np.zeros(hw, np.int32))


def without_fragments(found: Instances) -> Instances:
    """Those of a score above 0."""
    kept = found.scores > 0
    numbers = np.concatenate([[0], np.where(kept, kept.cumsum(), 0)]).astype(np.int32)
    return Instances(found.classes[kept], found.scores[kept], numbers[found.instance_map])


def instances_path(folder: str | os.PathLike, image_id: str) -> Path:
    return Path(folder) / f'{image_id}.npz'


def exists(folder: str | os.PathLike, image_id: str) -> bool:
    return is_whole(instances_path(folder, image_id))


def save(folder: str | os.PathLike, image_id: str, found: Instances) -> None:
    """Write ID.npz."""
    with atomic_path(instances_path(folder, image_id)) as temporary, open(temporary,
                                                                          'wb') as stream:
        np.savez_compressed(stream, **{'class': found.classes, 'score': found.scores,
                                       'instances': found.instance_map})


def load(folder: str | os.PathLike, image_id: str, remedy: str = 'it is needed here') -> Instances:
    """Read ID.npz. Raises UserError, with `remedy`, where there is none, and where it is broken."""
    path = instances_path(folder, image_id)
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = Instances(stored['class'], stored['score'], stored['instances'])
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such instance masks; {remedy}') from error
    except (OSError, ValueError, TypeError, AttributeError, KeyError, EOFError,
            zipfile.BadZipFile) as error:
        raise UserError(f'{path}: not a whole file of instance masks ({error}); delete it and make '
                        f'it anew') from error
    if not (found.instance_map.ndim == 2 and found.instance_map.dtype.kind in 'iu'
            and found.classes.shape == found.scores.shape == (found.instance_map.max(initial=0),)):
        raise UserError(f'{path}: classes, scores and map of the instances do not fit together; '
                        f'make it anew')
    return found


def to_coco(source: Source, ids: Iterable[str], load: Callable[[str], Instances]) -> dict[str, Any]:
    """Return the instances of `ids` as a COCO annotation file, to train an instance network on.

    load(id) gives an image's instances. Images are numbered from 1 in the order of `ids`;
    category_id is the class from 1; segmentation is a compressed RLE, bbox (x, y, width, height),
    area in pixels, and `score` comes on top. Instances of score 0 (fragments) are left out.
    file_name is below the folder that holds all these images.
    """
    ids = list(ids)
    names = coco.names_of([Path(source.image_path(image_id)) for image_id in ids])
    images, annotations = [], []
    for image_number, (image_id, name) in enumerate(zip(ids, names, strict=True), start=1):
        classes, scores, instance_map = load(image_id)
        images.append(coco.image(image_number, name, instance_map.shape))
        for number in np.flatnonzero(scores > 0):
            annotations.append(coco.annotation(
                int(classes[number]) + 1, instance_map == number + 1, id=len(annotations) + 1,
                image_id=image_number, score=float(scores[number])))
    return coco.content(source.classes, 'instance masks made from image-level labels by AMN and '
                        'IRN', images, annotations)
