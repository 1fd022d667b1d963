"""Scores: confusion matrix, IoU, mIoU against a global threshold, precision and recall, tables.

All counts are added image by image, so memory does not grow with their number. Pixels whose truth
is 255 are left out; 255 in a prediction counts as background, except where refined seeds are
scored.
"""
import dataclasses
import json
import os
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from misc import imutils, torchutils
from misc.contract.sources import Source, renumbered
from misc.data import datasets
from misc.files import label_maps
from misc.pyutils import UserError, log
from misc.score import masks

GRID = tuple(number / 100 for number in range(101))  # thresholds of the curve


@dataclasses.dataclass
class Score:
    """The IoU of background and the C classes, and their mean.

    iou: nan for a class in neither truth nor prediction.
    miou: over the others.
    """

    iou: np.ndarray
    miou: float
    images: int


def score(confusion: np.ndarray, images: int) -> Score:
    """Score a confusion matrix: IoU = diag / (row + column - diag).

    confusion: counts (C+1, C+1), rows truth, columns prediction.
    """
    each = iou(confusion)
    return Score(each, float(nan_mean(each)), images)


def iou(confusions: np.ndarray) -> np.ndarray:
    """Turn counts (..., C+1, C+1) into IoU (..., C+1); nan for a class in neither."""
    diagonal = np.diagonal(confusions, axis1=-2, axis2=-1)
    return ratio(diagonal, confusions.sum(-2) + confusions.sum(-1) - diagonal)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, nan where there is no whole."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is not nan; nan where all is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))


def sparse_counts(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what one image adds to a count array: (flat positions, counts)."""
    counts = np.bincount(index)  # far faster than to sort the pixels
    positions = np.flatnonzero(counts)
    return positions, counts[positions]


def read_truth(source: Source, image_id: str, hw: tuple[int, int]) -> np.ndarray:
    """Read the true label map of an image of size `hw`.

    Raises UserError where it is missing, of another size, or holds other classes.
    """
    truth = read_values(source, image_id, hw)
    if truth[truth != label_maps.IGNORE].max(initial=0) > source.n_classes:
        raise UserError(f'{source.mask_path(image_id)}: holds labels above {source.n_classes}, the '
                        f'number of classes (but '
                        f'{label_maps.IGNORE}, which is left out); --check_data says what they '
                        f'seem to '
                        f'stand for')
    return truth


def read_values(source: Source, image_id: str, hw: tuple[int, int]) -> np.ndarray:
    """Read the true label map, whatever its labels; of a source with `mask_values` by these.

    Raises UserError where it is missing or of another size.
    """
    path = source.mask_path(image_id)
    truth = renumbered(source, label_maps.load(path, 'a score needs the mask of every image of '
                                                     'the split'))
    if truth.shape != tuple(hw):
        if truth.shape == _size_of(source, image_id):
            raise UserError(f'{image_id}: what is scored is {hw[0]} x {hw[1]}, but photograph and '
                            f'truth are {truth.shape[0]} x {truth.shape[1]}: a label map has the '
                            f'size of its image; make it anew')
        raise UserError(f'{path}: {truth.shape[0]} x {truth.shape[1]}, but {image_id} is {hw[0]} x '
                        f'{hw[1]}: a mask has the '
                        'size of its image')
    return truth


def _size_of(source: Source, image_id: str) -> tuple[int, int] | None:
    """(H, W) of the photograph; None where it cannot be read."""
    try:
        return imutils.read_header(source.image_path(image_id), source.upright)[0]
    except UserError:
        return None


def tell_odd(source: datasets.Source, seen: list[masks.Seen]) -> None:
    """Log what can hardly be meant of the masks that were scored on."""
    if any(mask.labelled is not None for mask in seen):
        for line in sum(masks.odd(source.classes, seen), []):
            log.info('Look at the truth: %s', line)


def truth_and_map(truth: np.ndarray, label_map: np.ndarray,
                  n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Count an image's pixels by (C+1 truths, C+2 predictions), the last column being 255."""
    valid = truth != label_maps.IGNORE
    predicted = label_map[valid].astype(np.int64)
    predicted[predicted == label_maps.IGNORE] = n_classes + 1
    if predicted.max(initial=0) > n_classes + 1:
        raise UserError(f'a label map holds labels above {n_classes}, the number of classes')
    return sparse_counts(truth[valid].astype(np.int64) * (n_classes + 2) + predicted)


def strongest_and_passed(keys: np.ndarray, planes: np.ndarray,
                         thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the label of each pixel's strongest class, and how many thresholds it passes.

    planes: (K, ...) without background; the first wins a tie.
    thresholds: (T,), ascending.
    Returns two arrays (...), 0 where K = 0.
    """
    if len(keys) == 0:
        return np.zeros(planes.shape[1:], np.int64), np.zeros(planes.shape[1:], np.int64)
    position = planes.argmax(0)
    highest = np.take_along_axis(planes, position[None], 0)[0]
    return keys[position] + 1, np.searchsorted(thresholds.astype(planes.dtype), highest,
                                               side='left')


def truth_and_activation(truth: np.ndarray, keys: np.ndarray, planes: np.ndarray, n_classes: int,
                         thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count an image's pixels by (C+1 truths, C+1 strongest classes, T+1 thresholds passed).

    planes: (K, H, W) without background.
    thresholds: (T,), ascending.
    A pixel takes its strongest class (the first wins a tie) at every threshold that the class's
    activation exceeds; this is what an arg max over (threshold, planes) gives at each threshold, in
    one pass.
    """
    valid = truth != label_maps.IGNORE
    true = truth[valid].astype(np.int64)
    strongest, passed = strongest_and_passed(keys, planes[:, valid], thresholds)
    return sparse_counts((true * (n_classes + 1) + strongest) * (len(thresholds) + 1) + passed)


def of_one_image(index: np.ndarray, counts: np.ndarray, n_classes: int,
                 thresholds: np.ndarray) -> tuple[np.ndarray, 'ThresholdScores']:
    """Reduce the counts of `truth_and_activation` of one image to its own labels.

    Returns these labels, background first (L,), and the counts over them alone: those over all
    classes would take a second. An image's mIoU is that of a data set of this image alone: the mean
    IoU of background and of the classes which are in its truth or in its prediction at that
    threshold.
    """
    rest, passed = np.divmod(index, len(thresholds) + 1)
    true, strongest = np.divmod(rest, n_classes + 1)
    here = np.unique(np.concatenate([[0], true, strongest]))
    local = np.zeros((len(here), len(here), len(thresholds) + 1), np.int64)
    local[np.searchsorted(here, true), np.searchsorted(here, strongest), passed] = counts
    return here, ThresholdScores(local, thresholds, 1)


def add_up(ids: list[str], count: Callable[[str], tuple[np.ndarray, np.ndarray]], size: int,
           num_workers: int) -> np.ndarray:
    """Add up the counts of all images, in parallel, by all processes.

    count(id): (flat positions, counts) of an image.
    Returns int64 (size,). Raises the first image's UserError.
    """
    return add_up_and_keep(ids, lambda image_id: (*count(image_id), None), size, num_workers)[0]


def add_up_and_keep(ids: list[str], count: Callable[[str], tuple[np.ndarray, np.ndarray, Any]],
                    size: int, num_workers: int) -> tuple[np.ndarray, list[Any]]:
    """Add up the counts of all images as `add_up` does, and keep a value of each image.

    count(id): (flat positions, counts, value) of an image.
    Returns the sum, int64 (size,), and the values in the order of `ids`.
    """
    total, kept = np.zeros(size, np.int64), []
    mine = torchutils.shard(ids)
    results = datasets.read_ahead(count, mine, num_workers)
    for result in torchutils.progress(results, total=len(mine), unit='image'):
        index, counts, third = datasets.checked(result)
        total[index] += counts
        kept.append(third)
    total = torchutils.sum_over_processes(torch.from_numpy(total)).numpy()
    if not total.any():
        raise UserError(f'every pixel of the {len(ids)} masks is {label_maps.IGNORE} (ignored): '
                        f'there '
                        f'is nothing to score')
    return total, torchutils.gather(kept)


@dataclasses.dataclass
class ThresholdScores:
    """The scores at every threshold of a grid, from one pass over the images.

    counts: (C+1 truths, C+1 strongest classes, T+1 numbers of thresholds passed).
    """

    counts: np.ndarray
    thresholds: np.ndarray
    images: int

    def confusion(self, position: int) -> np.ndarray:
        """Return (C+1, C+1) at thresholds[position]: pixels that do not pass it are background."""
        above = self.counts[:, :, position + 1:].sum(2)
        matrix = above.copy()
        matrix[:, 0] += self.counts.sum((1, 2)) - above.sum(1)
        return matrix

    def confusions(self) -> np.ndarray:
        """Return `confusion` at every threshold: (T, C+1, C+1)."""
        above = self.counts[:, :, :0:-1].cumsum(2)[:, :, ::-1]
        matrices = np.ascontiguousarray(np.moveaxis(above, 2, 0))
        matrices[:, :, 0] += self.counts.sum((1, 2)) - matrices.sum(2)
        return matrices

    def position(self, threshold: float) -> int:
        """Return the place of a threshold of the grid."""
        return int(np.flatnonzero(self.thresholds == threshold)[0])

    def at(self, threshold: float) -> Score:
        return score(self.confusion(self.position(threshold)), self.images)

    def iou(self) -> np.ndarray:
        """Return IoU of background and the classes at each threshold (T, C+1)."""
        return iou(self.confusions())

    def curve(self) -> np.ndarray:
        """Return mIoU at each threshold (T,)."""
        return nan_mean(self.iou())

    def best(self) -> tuple[float, float]:
        """Return (threshold, mIoU) of the best global threshold; the lowest of equals."""
        curve = self.curve()
        position = int(np.nanargmax(curve))
        return float(self.thresholds[position]), float(curve[position])

    def within(self, points: float) -> tuple[float, float]:
        """Return the lowest and highest threshold whose mIoU is within `points` of the best.

        points: a fraction, 0.03. Only thresholds without a lower one between them and the best
          count.
        """
        curve = self.curve()
        low = high = int(np.nanargmax(curve))
        enough = curve >= curve[low] - points
        while low > 0 and enough[low - 1]:
            low -= 1
        while high < len(curve) - 1 and enough[high + 1]:
            high += 1
        return float(self.thresholds[low]), float(self.thresholds[high])


def score_activations(source: Source, ids: list[str], load: Callable[[str], Any], threshold: float,
                      num_workers: int) -> ThresholdScores:
    """Count activations over `ids`.

    load(id) gives keys (K,) and planes (K, H, W). `threshold` joins the grid.
    """
    thresholds = np.array(sorted({*GRID, threshold}))

    def count(image_id: str) -> tuple[np.ndarray, np.ndarray, masks.Seen]:
        keys, planes = load(image_id)
        true = read_truth(source, image_id, planes.shape[1:])
        return *truth_and_activation(true, keys, planes, source.n_classes,
                                     thresholds), masks.look(source, image_id, true)

    shape = (source.n_classes + 1, source.n_classes + 1, len(thresholds) + 1)
    counts, seen = add_up_and_keep(ids, count, int(np.prod(shape)), num_workers)
    tell_odd(source, seen)
    return ThresholdScores(counts.reshape(shape), thresholds, len(ids))


def count_label_maps(source: Source, ids: list[str], load: Callable[[str], np.ndarray],
                     num_workers: int) -> np.ndarray:
    """Count label maps over `ids`: (C+1 truths, C+2 predictions), the last column 255.

    load(id) gives (H, W).
    """
    def count(image_id: str) -> tuple[np.ndarray, np.ndarray, masks.Seen]:
        label_map = load(image_id)
        true = read_truth(source, image_id, label_map.shape)
        return *truth_and_map(true, label_map, source.n_classes), masks.look(source, image_id, true)

    shape = (source.n_classes + 1, source.n_classes + 2)
    counts, seen = add_up_and_keep(ids, count, int(np.prod(shape)), num_workers)
    tell_odd(source, seen)
    return counts.reshape(shape)


def ignored_as_background(counts: np.ndarray) -> np.ndarray:
    """Turn (C+1, C+2) into (C+1, C+1): 255 in a prediction counts as 0 (authors' code)."""
    confusion = counts[:, :-1].copy()
    confusion[:, 0] += counts[:, -1]
    return confusion


@dataclasses.dataclass
class SeedScore:
    """The score of refined seeds.

    labelled: the fraction of labelled pixels.
    miou: of the labelled pixels.
    precision, recall: of background and each class, (C+1,).
    """

    labelled: float
    miou: float
    precision: np.ndarray
    recall: np.ndarray
    images: int


def score_seeds(counts: np.ndarray, images: int) -> SeedScore:
    """Score refined seeds. Recall is over all true pixels, ignored ones included.

    counts: (C+1, C+2), the last column ignored pixels.
    """
    confusion = counts[:, :-1]
    diagonal = np.diag(confusion)
    return SeedScore(float(confusion.sum() / max(counts.sum(), 1)), score(confusion, images).miou,
                     ratio(diagonal, confusion.sum(0)), ratio(diagonal, counts.sum(1)), images)


def read_scores(path: str | os.PathLike,
                row_of: Callable[[dict[str, Any]],
                                 Hashable] = lambda line: line['stage']) -> dict[Any,
                                                                                 dict[str, Any]]:
    """Return the last score of each stage (of each `row_of` its line) in a file of scores.

    Raises UserError where there is none, and where the file holds anything else.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
        return {row_of(line): line for line in map(json.loads, lines)}
    except OSError as error:
        raise UserError(f'{path}: no scores ({error}); run an eval stage first') from error
    except (ValueError, KeyError, TypeError) as error:
        what = f'a line without {error}' if isinstance(error, KeyError) else error
        raise UserError(f'{path}: not a file of scores ({what}); mend it, or name another '
                        f'--scores_file') from error


def table(headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as plain text: first column to the left, the others to the right.

    Numbers are in % with one digit, nan and None '-'.
    """
    cells = [list(headings)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ['  '.join(cell.ljust(width) if column == 0 else cell.rjust(width)
                       for column, (cell, width) in enumerate(
                           zip(row, widths, strict=True))).rstrip() for row in cells]
    lines.insert(1, '-' * max(map(len, lines)))
    return '\n'.join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return '-' if np.isnan(value) else f'{100 * value:.1f}'
    return '-' if value is None else str(value)
