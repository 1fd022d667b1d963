"""Dense CRF (Kraehenbuehl and Koltun, NIPS 2011) of one image under several labelings.

The mean field itself is misc/method/permutohedral.py, which numba compiles: imported when a CRF is
wanted, not before.
"""
import bisect
import contextlib
import dataclasses
import functools
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import numpy as np

from misc.pyutils import UserError, WriteError, log

CERTAINTY = 0.7  # of each pixel's label (authors' code)
FLOOR = 1e-5  # below which no probability falls (kazuto1011/deeplab-pytorch)


@dataclasses.dataclass(frozen=True)
class Terms:
    """The pairwise terms: standard deviations in pixels and grey values, and weights."""

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float


SEEDS = Terms(3, 3, 50, 5, 10)  # authors' code
SEGMENTATION = Terms(1, 3, 67, 3, 4)  # kazuto1011/deeplab-pytorch


def dense_crf(image: np.ndarray, labelings: Sequence[np.ndarray], n_labels: int,
              iterations: int = 10) -> list[np.ndarray]:
    """Refine each labeling of an image by a dense CRF.

    image: uint8 (H, W, 3).
    labelings: each (H, W) in 0..n_labels-1.
    n_labels: at least 2.
    Returns the arg max of each, (H, W). The lattices are built once for all, with the result of
    separate calls.
    Raises UserError for an image that is too large.
    """
    _check_size(*image.shape[:2], SEEDS)
    gain = np.float32(np.log(CERTAINTY) - np.log((1 - CERTAINTY) / (n_labels - 1)))
    flat = np.stack(labelings).reshape(len(labelings), 1, -1)
    log_odds = gain * (flat == np.arange(1, n_labels)[:, None]) - gain * (flat == 0)
    return _refined(image, log_odds, SEEDS, iterations)


def refine_probabilities(image: np.ndarray, probabilities: np.ndarray,
                         iterations: int = 10) -> np.ndarray:
    """Refine the probabilities of an image's pixels by a dense CRF.

    image: uint8 (H, W, 3).
    probabilities: (n, H, W), n at least 2.
    Returns the arg max, (H, W).
    Raises UserError for an image that is too large.
    """
    _check_size(*image.shape[:2], SEGMENTATION)
    return _refined(image, _log_odds(probabilities), SEGMENTATION, iterations)[0]


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    """float32 (1, n-1, H*W), of each label against label 0."""
    log_p = np.log(np.maximum(probabilities.reshape(len(probabilities), -1).astype(np.float32),
                              np.float32(FLOOR)))
    return (log_p[1:] - log_p[0])[None]


def _refined(image: np.ndarray, log_odds: np.ndarray, terms: Terms,
             iterations: int) -> list[np.ndarray]:
    """log_odds: float32 (labelings, K, H*W), of each label against label 0 -> the arg max of each
    labeling, (H, W).
    """
    prepare()
    return _mean_field(image, log_odds, terms, iterations)


def _mean_field(image: np.ndarray, log_odds: np.ndarray, terms: Terms,
                iterations: int) -> list[np.ndarray]:
    from misc.method import permutohedral
    height, width = image.shape[:2]
    colours = (image.reshape(-1, 3) / np.float32(terms.bilateral_srgb)).T.copy()
    near = permutohedral.gaussian(height, width, terms.gaussian_sxy, terms.gaussian_compat)
    alike = permutohedral.lattice((*permutohedral.positions(height, width, terms.bilateral_sxy),
                                   *colours),
                                  terms.bilateral_compat)
    n_labelings, n_classes, n = log_odds.shape
    found = permutohedral.mean_field(near, alike, log_odds.reshape(n_labelings * n_classes, n),
                                     n_classes, iterations)
    return list(found.reshape(n_labelings, height, width))


def _check_size(height: int, width: int, terms: Terms) -> None:
    """Raises UserError where the lattice has no room for an image of this size, whatever its
    colours.
    """
    prepare()
    from misc.method import permutohedral

    def fits(height: int, width: int) -> bool:
        return permutohedral.fits([(width - 1) / terms.bilateral_sxy,
                                   (height - 1) / terms.bilateral_sxy,
                                   *[255 / terms.bilateral_srgb] * 3])

    if not fits(height, width):
        side = bisect.bisect_left(range(1 << 20), True, lo=1,
                                  key=lambda side: not fits(side, side)) - 1
        raise UserError(f'an image of {width} x {height} pixels is too large for the dense CRF, '
                        f'which takes up to '
                        f'{side} x {side}: make it smaller')


@functools.cache
def prepare() -> None:
    """Compile the mean field, or load what was compiled before; nothing where that is done.

    Called before worker processes start, so that they inherit it. Of several processes one
    compiles, the others wait and load. Raises UserError where numba is missing or its cache is
    damaged, WriteError where the cache cannot be written.
    """
    try:
        from misc.method import permutohedral
    except ImportError as error:
        raise UserError(f'the dense CRF needs numba ({error}): pip install numba') from error
    folder = permutohedral.cache_folder()
    kept = f'kept in {folder}' if folder else (
        'not kept, because neither misc/method/__pycache__ nor the home folder can be written; '
        'set NUMBA_CACHE_DIR')
    try:
        with _one_at_a_time(folder), permutohedral.compiling(
                lambda: log.info('compiling the dense CRF, about 20 s; %s', kept)):
            _mean_field(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 1), np.float32), SEEDS, 1)
    except OSError as error:
        raise WriteError(f'{folder}: the compiled CRF cannot be kept there '
                         f'({error.strerror or error}); make room, or set '
                         'NUMBA_CACHE_DIR to another folder') from error
    except (EOFError, pickle.UnpicklingError) as error:
        raise UserError(f'{folder}: what was compiled is damaged ({error}); delete permutohedral* '
                        f'there') from error


@contextlib.contextmanager
def _one_at_a_time(folder: str | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    with open(Path(folder) / 'permutohedral.lock', 'a', encoding='utf-8') as lock:
        # a file system without locks: then each compiles for itself
        with contextlib.suppress(OSError):
            filelock.lock_descriptor(lock.fileno())
        yield
