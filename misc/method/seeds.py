"""Activation -> label map: by one global threshold, and as the refined seed that the next network
learns from.
"""
import numpy as np

from misc.files.labels import IGNORE
from misc.method.crf import dense_crf


def arg_max(planes: np.ndarray, threshold: float) -> np.ndarray:
    """Arg max over (constant threshold, planes (K, H, W)): 0 for the threshold, k+1 for plane k;
    the first wins a tie.

    Works for K = 0 (all 0). Compared in the planes' own precision, as the authors' padding with a
    constant does.
    """
    best = np.zeros(planes.shape[1:], np.int64)
    value = np.full(planes.shape[1:], threshold, planes.dtype)
    for number, plane in enumerate(planes, start=1):
        higher = plane > value
        best[higher] = number
        value[higher] = plane[higher]
    return best


def class_ids(keys: np.ndarray) -> np.ndarray:
    """Position in (background, classes present) -> label: uint8 (K+1,)."""
    return np.concatenate([[0], keys + 1]).astype(np.uint8)


def refined_seed(image: np.ndarray, keys: np.ndarray, high_res: np.ndarray, fg_thres: float,
                 bg_thres: float) -> np.ndarray:
    """Sure foreground, sure background, ignored between: label map uint8 (H, W) (IRN's inter-pixel
    labels).

    image: uint8 (H, W, 3); keys (K,) from 0; high_res (K, H, W) without background; fg_thres: above
    it a pixel may be sure foreground; bg_thres: below it sure background. Both labelings go through
    a dense CRF.
    """
    if len(keys) == 0:  # no class: an all-background map
        return np.zeros(image.shape[:2], np.uint8)
    labelings = [arg_max(high_res, threshold) for threshold in (fg_thres, bg_thres)]
    sure, likely = (class_ids(keys)[refined]
                    for refined in dense_crf(image, labelings, len(keys) + 1))
    seed = sure.copy()
    seed[sure == 0] = IGNORE
    seed[(sure == 0) & (likely == 0)] = 0
    return seed
