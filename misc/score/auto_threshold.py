"""A global threshold chosen without ground truth: from images, image-level labels and activations.

All ways but the CRF's are functions of one histogram: of each pixel's strongest activation among
the classes present, over all pixels of all images. Its bin 0 counts the pixels that pass no
threshold of `scores.GRID` (activation 0), bin k those that pass k of them: (k-1)/100 < activation
<= k/100. So the foreground at GRID[t] is the bins above t, exactly.

Which way `auto` is, CHOSEN, was decided on two sets of images (docs/thresholds.md);
script/compare_thresholds.py measures all of them on one's own. No constant of it was fitted.
"""
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from misc import torchutils
from misc.contract.settings import AUTO
from misc.files import activations, records
from misc.method import seeds
from misc.method.crf import dense_crf
from misc.pyutils import UserError, log
from misc.score import scores

Load = Callable[[str], tuple[np.ndarray, np.ndarray]]  # id -> keys (K,), planes (K, H, W)

LARGEST_SAMPLE = 1000  # images that a threshold is chosen from; on our data any 100 gave it to 0.02
STEP = 5  # the stability compares masks at t - 0.05 and t + 0.05
CRF_GRID = tuple(number / 20 for number in range(1, 16))  # 0.05 to 0.75

# of the bins
_MIDDLES = np.array([0, *(2 * number - 1 for number in range(1, len(scores.GRID) + 1))]) / 200


def sample(ids: list[str], at_most: int = LARGEST_SAMPLE) -> list[str]:
    """Draw `at_most` of `ids` by a hash of each, whatever the order of the list and --seed."""
    return sorted(ids, key=lambda image_id: (torchutils.image_seed(0, 0, image_id, 'threshold'),
                                             image_id))[:at_most]


def histogram(planes: np.ndarray) -> np.ndarray:
    """Count one image's pixels by how many thresholds their strongest activation passes.

    planes: (K, H, W) without background.
    Returns int64 (T+1,). All 0 for K = 0: without a class there is nothing to tell apart.
    """
    thresholds = np.array(scores.GRID, planes.dtype)
    passed = np.searchsorted(thresholds, planes.max(0).ravel() if len(planes) else planes.ravel(),
                             side='left')
    return np.bincount(passed, minlength=len(thresholds) + 1)


def pooled_histogram(folder: str | os.PathLike, ids: list[str], remedy: str,
                     num_workers: int) -> np.ndarray:
    """Add up the images' histograms (T+1,), by all processes.

    Raises UserError, with `remedy`, for the first image without an activation: what is chosen from
    a folder must not depend on how far it was made.
    """
    return histograms_of(functools.partial(activations.class_planes, folder, remedy=remedy), ids,
                         num_workers)


def histograms_of(load: Load, ids: list[str], num_workers: int) -> np.ndarray:
    """Add up the histograms (T+1,) of what load(id) gives, by all processes."""
    def count(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        # and the image itself, so that a sum of 0 is no error
        counts = np.append(histogram(load(image_id)[1]), 1)
        return np.arange(len(counts)), counts

    return scores.add_up(ids, count, len(scores.GRID) + 2, num_workers)[:-1]


# the ways: histogram (T+1,) -> how good each threshold of the grid is (T,), nan where nothing can
# be said

def cross_entropy(counts: np.ndarray) -> np.ndarray:
    """Rate by the cross entropy between the activation and the means of the two sides.

    The less the better. Li and Lee, Pattern Recognition 1993.
    """
    below, above = _sides(counts)
    return _level(*below) + _level(*above)


def otsu(counts: np.ndarray) -> np.ndarray:
    """Rate by the variance between the two sides.

    Otsu, IEEE Transactions on Systems, Man, and Cybernetics 1979.
    """
    (low, low_sum), (high, high_sum) = _sides(counts)
    with np.errstate(divide='ignore', invalid='ignore'):
        return low * high * (low_sum / low - high_sum / high) ** 2  # 0 / 0 where a side is empty


def triangle(counts: np.ndarray) -> np.ndarray:
    """Rate by the depth below the line from the histogram's peak to the end of its longer tail.

    Zack, Rogers and Latt, 1977.
    """
    first, peak, last = np.flatnonzero(counts)[0], np.argmax(counts), np.flatnonzero(counts)[-1]
    low, high = (peak, last) if last - peak >= peak - first else (first, peak)
    depth = np.full(len(counts) - 1, np.nan)
    depth[low:high] = (np.linspace(counts[low], counts[high],
                                   high - low + 1) - counts[low:high + 1])[:-1]
    return depth


def stability(counts: np.ndarray) -> np.ndarray:
    """Rate by the IoU of the foreground at t - 0.05 and at t + 0.05, all images together (ours).

    The one lies within the other, so it is the quotient of their areas.
    """
    area = _sides(counts)[1][0]
    iou = np.full(len(area), np.nan)
    with np.errstate(divide='ignore', invalid='ignore'):
        iou[STEP:-STEP] = area[2 * STEP:] / area[:-2 * STEP]
    return iou


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'cross entropy': cross_entropy, 'Otsu': otsu, 'triangle': triangle, 'stability': stability}
CHOSEN = 'cross entropy'


def choose(counts: np.ndarray, way: str = CHOSEN) -> float:
    """Return the best threshold of a pooled histogram; the middle one of equals.

    Raises UserError where there is none to choose.
    """
    if np.count_nonzero(counts) < 2:
        what = 'all activations are the same' if counts.any() else 'no image shows a class'
        raise UserError(f'a threshold cannot be chosen from these activations ({what}): give a '
                        f'number instead of {AUTO}')
    return best(WAYS[way](counts), np.array(scores.GRID))


def best(values: np.ndarray, thresholds: np.ndarray) -> float:
    """Return the threshold of the largest value, the middle one of equals."""
    largest = np.flatnonzero(values == np.nanmax(values))
    return float(thresholds[largest[(len(largest) - 1) // 2]])


def seed_thresholds(counts: np.ndarray) -> tuple[float, float]:
    """Choose (fg, bg) of refined seeds from a pooled histogram (ours).

    They part the pixels into background, unsure and foreground with the least cross entropy, as
    `cross_entropy` parts them in two. The middle ones of equals. Raises UserError where there are
    not three levels to part.
    """
    if np.count_nonzero(counts) == 2:
        raise UserError(f'two seed thresholds cannot be chosen from activations of two levels: '
                        f'give numbers instead of {AUTO}')
    choose(counts)  # raises for fewer
    (pixels, activation), above = _sides(counts)
    # rows bg, columns fg
    unsure = _level(pixels[None] - pixels[:, None], activation[None] - activation[:, None])
    values = _level(pixels, activation)[:, None] + unsure + _level(*above)
    grid = np.array(scores.GRID)
    bg_thres = best(np.where(np.isnan(values), -np.inf, values).max(1), grid)
    return best(values[scores.GRID.index(bg_thres)], grid), bg_thres


def crf_agreement(image: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Return mIoU of an image's label map and its own CRF refinement, at each of CRF_GRID (ours).

    image: uint8 (H, W, 3).
    planes: (K, H, W) without background, K at least 1.
    About 0.1 s a threshold for 500 x 375.
    """
    labelings = [seeds.arg_max(planes, threshold) for threshold in CRF_GRID]
    n_labels = len(planes) + 1
    return np.array([scores.score(np.bincount(before.ravel() * n_labels + after.ravel(),
                                              minlength=n_labels ** 2)
                                  .reshape(n_labels, n_labels), 1).miou
                     for before, after in zip(labelings, dense_crf(image, labelings, n_labels),
                                              strict=True)])


def threshold_of(folder: str | os.PathLike, ids: list[str], remedy: str, num_workers: int) -> float:
    """Choose and log what `auto` means for the score of a folder of activations over `ids`."""
    return threshold_for(functools.partial(activations.class_planes, folder, remedy=remedy), ids,
                         num_workers)


def threshold_for(load: Load, ids: list[str], num_workers: int) -> float:
    """Choose and log what `auto` means for what load(id) gives of `ids`."""
    chosen_from = sample(ids)
    threshold = choose(histograms_of(load, chosen_from, num_workers))
    log.info('threshold %.2f: chosen without ground truth (%s, %d images)', threshold, CHOSEN,
             len(chosen_from))
    return threshold


def seed_thresholds_of(folder: str | os.PathLike, ids: list[str], remedy: str,
                       num_workers: int) -> tuple[float, float]:
    """Choose and log what `auto` means for (fg, bg) of the seeds of a folder of activations."""
    chosen_from = sample(ids)
    fg_thres, bg_thres = seed_thresholds(pooled_histogram(folder, chosen_from, remedy, num_workers))
    log.info('seed thresholds %.2f and %.2f: chosen without ground truth (cross entropy of three '
             'levels, %d images)',
             fg_thres, bg_thres, len(chosen_from))
    return fg_thres, bg_thres


def begun_with(folder: str | os.PathLike, names: Sequence[str], **same: Any) -> dict[str, float]:
    """Read the numbers that `auto` stood for when `folder` was begun, by the names of the settings.

    There are none where it was begun otherwise, or its record differs from `same`. The log says
    where they stay.
    """
    wanted = {f'{name}_from': AUTO for name in names} | same
    if any(records.recorded(folder, name, None) != value for name, value in wanted.items()):
        return {}
    log.info('%s was begun with chosen thresholds, which stay', folder)
    return {name: records.recorded(folder, name, None) for name in names}


def as_recorded(numbers: dict[str, float]) -> dict[str, Any]:
    """Return what a record tells of settings for which `auto` chose: numbers, and where from."""
    return numbers | {f'{name}_from': AUTO for name in numbers}


def _level(pixels: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """What a level of so many pixels with this sum of activation adds to minus the cross entropy;
    nan where it is empty.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(pixels > 0, np.where(activation > 0,
                                             activation * np.log(activation / pixels), 0), np.nan)


def _sides(counts: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray],
                                        tuple[np.ndarray, np.ndarray]]:
    """((pixels, sum of their activation) that do not pass each threshold (T,), the same of those
    that do).
    """
    pixels, activation = np.cumsum(counts), np.cumsum(counts * _MIDDLES)
    return (pixels[:-1], activation[:-1]), (pixels[-1] - pixels[:-1],
                                            activation[-1] - activation[:-1])
