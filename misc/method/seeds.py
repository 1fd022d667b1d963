"""Label maps of an activation: by one global threshold, and as the refined seed.

The next network learns from the latter.
"""
import numpy as np

from misc.files.label_maps import IGNORE
from misc.method.crf import FLOOR, dense_crf, refine_probabilities


def arg_max(planes: np.ndarray, threshold: float) -> np.ndarray:
    """Return the arg max over (constant threshold, planes): 0 for the threshold, k+1 for plane k.

    planes: (K, H, W); K may be 0.
    Returns int64 (H, W); the first wins a tie. Compared in the planes' own precision, as the
    authors' padding with a constant does.
    """
    best = np.zeros(planes.shape[1:], np.int64)
    value = np.full(planes.shape[1:], threshold, planes.dtype)
    for number, plane in enumerate(planes, start=1):
        higher = plane > value
        best[higher] = number
        value[higher] = plane[higher]
    return best


def class_ids(keys: np.ndarray) -> np.ndarray:
    """Return the label of each position in (background, classes present).

    keys: (K,).
    Returns uint8 (K+1,).
    """
    return np.concatenate([[0], keys + 1]).astype(np.uint8)


def mask_of(keys: np.ndarray, planes: np.ndarray, threshold: float) -> np.ndarray:
    """Return the label map of planes (K, H, W) of the classes `keys` at a threshold, uint8 (H, W).
    """
    return class_ids(keys)[arg_max(planes, threshold)]


def refined_seed(image: np.ndarray, keys: np.ndarray, high_res: np.ndarray, fg_thres: float,
                 bg_thres: float) -> np.ndarray:
    """Return sure foreground, sure background, ignored between (IRN's inter-pixel labels).

    image: uint8 (H, W, 3).
    keys: (K,), from 0.
    high_res: (K, H, W) without background.
    fg_thres: above it a pixel may be sure foreground.
    bg_thres: below it sure background.
    Returns a label map, uint8 (H, W). Both labelings go through a dense CRF.
    """
    if len(keys) == 0:  # no class: an all-background map
        return np.zeros(image.shape[:2], np.uint8)
    labelings = [arg_max(high_res, threshold) for threshold in (fg_thres, bg_thres)]
    sure, likely = (class_ids(keys)[refined]
                    for refined in dense_crf(image, labelings, len(keys) + 1))
    result = sure.copy()
    result[sure == 0] = IGNORE
    result[(sure == 0) & (likely == 0)] = 0
    return result


def pseudo_mask(image: np.ndarray | None, keys: np.ndarray, planes: np.ndarray,
                threshold: float) -> np.ndarray:
    """Return the label map of the walked scores at a threshold, uint8 (H, W).

    image: uint8 (H, W, 3), along whose colours a dense CRF refines it; None: as it is.
    keys: (K,), from 0.
    planes: (K, H, W), from 0 to 1.
    The CRF is that of segmentation networks. A score s is taken for the odds s / (1 - s) of its
    class, the threshold for those of the background, so that without neighbours the CRF gives the
    label map as it is.
    """
    if image is None or len(keys) == 0:
        return mask_of(keys, planes, threshold)
    background = np.full((1, *planes.shape[1:]), threshold, planes.dtype)
    scores = np.clip(np.concatenate([background, planes]), FLOOR, 1 - FLOOR)
    odds = scores / (1 - scores)
    return class_ids(keys)[refine_probabilities(image, odds / odds.sum(0))]
