"""Dense CRF (Kraehenbuehl and Koltun, NIPS 2011) of one image under several labelings, by pydensecrf."""
from collections.abc import Sequence

import numpy as np

from misc.pyutils import UserError

CERTAINTY = 0.7  # of each pixel's label (authors' code)


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
    Gaussian term sxy=3, compat=3; bilateral term sxy=50, srgb=5, compat=10 (authors' code).
    """
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise UserError('the dense CRF needs pydensecrf: pip install pydensecrf2') from error
    height, width = image.shape[:2]
    field = densecrf.DenseCRF2D(width, height, n_labels)
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.require(image, np.uint8, 'CW'), compat=10)
    refined = []
    for labels in labelings:
        field.setUnaryEnergy(label_energy(labels, n_labels))
        refined.append(np.argmax(field.inference(iterations), axis=0).reshape(height, width))
    return refined
