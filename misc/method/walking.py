"""IRN's boundaries and displacements of an image, and the walk of activations to the boundaries."""
import numpy as np
import torch
from torch.nn import functional as F

from misc import indexing, torchutils
from misc.files import activations
from misc.method import maps


def edge_of(net: torch.nn.Module, image: torch.Tensor, precision: str,
            canvas_side: int) -> torch.Tensor:
    """Return the boundaries of `edge_and_displacement` alone.

    image: (1, 3, H, W), normalised.
    Returns (1, h, w).
    """
    return edge_and_displacement(net, image, precision, canvas_side, displaced=False)[0]


@torch.inference_mode()
def edge_and_displacement(net: torch.nn.Module, image: torch.Tensor, precision: str,
                          canvas_side: int, displaced: bool = True) -> tuple[torch.Tensor,
                                                                             torch.Tensor | None]:
    """Return boundary probability and displacement of an image at stride 4.

    image: (1, 3, H, W), normalised.
    canvas_side: image and mirror are each padded with 0 at their own right and bottom to it, or to
      a multiple of 16 where they are larger; not at all for 0. GroupNorm averages over the canvas,
      so it is part of the result.
    displaced: whether the displacement is wanted.
    Returns the probability (1, h, w), the mean with the mirror's, and the displacement (2, h, w) of
    the image without its mirror, its stored mean subtracted, or None.
    """
    hw = image.shape[2:]
    canvas = [max(canvas_side, side) for side in maps.rounded_up(tuple(hw))] if canvas_side else hw
    h, w = maps.strided_hw(tuple(hw))
    edges, displacement = [], None
    with torchutils.autocast(precision, image.device):
        for x in maps.mirrored(image):
            padded = F.pad(x, (0, canvas[1] - hw[1], 0, canvas[0] - hw[0]))
            stages = net.stages(padded.contiguous(memory_format=torch.channels_last))
            edges.append(net.edge(stages)[..., :h, :w].float())
            # the image comes first, its mirror with it or after it
            if displaced and displacement is None:
                displacement = net.displacement([stage[:1] for stage in stages])[0].float()[:, :h,
                                                                                            :w]
    plain, mirror = torch.cat(edges)
    return (plain / 2 + mirror.flip(-1) / 2).sigmoid(), displacement


@torch.inference_mode()
def walk(strided: torch.Tensor, edge: torch.Tensor, power: float, beta: float,
         exp_times: int) -> torch.Tensor:
    """Spread activations, to the given power, along T^(2^exp_times).

    strided: (K, h, w).
    edge: (1, h, w).
    Returns (K, h, w).
    """
    return indexing.propagate_to_edge(strided ** power, edge, beta=beta, exp_times=exp_times)[:, 0]


@torch.inference_mode()
def planes_of(walked: activations.Walked) -> np.ndarray:
    """Return the walk at full size, divided by its overall maximum.

    Returns (K, H, W), which --sem_seg_bg_thres is compared with: resized x4 and cut. All 0 where
    nothing is left of the activation.
    """
    height, width = walked.hw
    if len(walked.keys) == 0:
        return np.zeros((0, height, width), np.float32)
    planes = torch.from_numpy(walked.walked)
    planes = maps.resize(planes, (planes.shape[1] * 4, planes.shape[2] * 4))[:, :height, :width]
    highest = planes.max()
    return torch.where(highest > 0, planes / highest, torch.zeros_like(planes)).numpy()
