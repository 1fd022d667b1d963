"""Dense CRF (Kraehenbuehl and Koltun, NIPS 2011) of one image under several labelings, by pydensecrf."""
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from misc.pyutils import UserError

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


def label_energy(labels: np.ndarray, n_labels: int, certainty: float = CERTAINTY) -> np.ndarray:
    """Unary energy float32 (n_labels, H*W): -log(certainty) at the pixel's label, -log((1-certainty)/(n-1)) elsewhere.

    labels: (H, W) in 0..n_labels-1; none is special. n_labels at least 2.
    """
    flat = labels.reshape(-1)
    energy = np.full((n_labels, flat.size), -np.log((1 - certainty) / (n_labels - 1)), np.float32)
    energy[flat, np.arange(flat.size)] = -np.log(certainty)
    return energy


def dense_crf(image: np.ndarray, labelings: Sequence[np.ndarray], n_labels: int, iterations: int = 10) -> list[np.ndarray]:
    """Refine each labeling of an image; the lattices are built once for all, with the result of separate calls.

    image: uint8 (H, W, 3); labelings: each (H, W) in 0..n_labels-1. Returns the arg max of each, (H, W).
    """
    return _refined(image, (label_energy(labels, n_labels) for labels in labelings), n_labels, SEEDS, iterations)


def refine_probabilities(image: np.ndarray, probabilities: np.ndarray, iterations: int = 10) -> np.ndarray:
    """uint8 image (H, W, 3) and probabilities (n, H, W), n at least 2 -> arg max after the CRF, (H, W)."""
    n_labels = len(probabilities)
    flat = np.require(probabilities.reshape(n_labels, -1), np.float32, 'C')
    energy = -np.log(np.maximum(flat, np.float32(FLOOR)))
    return _refined(image, [energy], n_labels, SEGMENTATION, iterations)[0]


def _refined(image: np.ndarray, energies: Iterable[np.ndarray], n_labels: int, terms: Terms,
             iterations: int) -> list[np.ndarray]:
    """The arg max (H, W) for each unary energy (n_labels, H*W)."""
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise UserError('the dense CRF needs pydensecrf: pip install pydensecrf2') from error
    height, width = image.shape[:2]
    field = densecrf.DenseCRF2D(width, height, n_labels)
    field.addPairwiseGaussian(sxy=terms.gaussian_sxy, compat=terms.gaussian_compat)
    field.addPairwiseBilateral(sxy=terms.bilateral_sxy, srgb=terms.bilateral_srgb, rgbim=np.require(image, np.uint8, 'CW'),
                               compat=terms.bilateral_compat)
    refined = []
    for energy in energies:
        field.setUnaryEnergy(energy)
        refined.append(np.argmax(field.inference(iterations), axis=0).reshape(height, width))
    return refined
