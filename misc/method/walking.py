"""IRN's boundaries and displacements of an image, and the walk of activations to the boundaries."""
import os

import numpy as np
import torch
from torch.nn import functional as F

from misc import indexing, torchutils
from misc.files import activations
from misc.method import maps
from misc.pyutils import UserError


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


def start(foreground: str, background: str, amn: activations.Activation,
          cam: activations.Activation | None) -> torch.Tensor:
    """Return what walks of an image, from its activations at stride 4.

    That is a plane of each class (K, h, w), and where there is a `background` its plane after them,
    (K+1, h, w). Values lie between 0 and 1.

    foreground: a class's plane. amn: a, AMN's activation of it; cam: c, CAM's; mean: (a + c) / 2;
        geometric: sqrt(a c).
    background: inverse: 1 - the largest a of the classes; amn: AMN's own background plane;
        constant: 1; none: no plane.
    amn: with its background plane, where `background` is amn.
    cam: None where it is not read.

    Raises UserError where CAM's classes are not AMN's, or the background plane is missing.
    """
    if cam is not None and not np.array_equal(cam.keys, amn.keys):
        raise UserError(f'the activations of CAM are of the classes {cam.keys.tolist()}, those of '
                        f'AMN of {amn.keys.tolist()} (from 0): make both anew')
    a = torch.from_numpy(amn.without_background().strided)
    if foreground == 'amn':
        planes = a
    elif foreground == 'cam':
        planes = torch.from_numpy(cam.strided)
    else:
        c = torch.from_numpy(cam.strided)
        planes = (a + c) / 2 if foreground == 'mean' else (a * c).sqrt()
    if background == 'none':
        return planes
    if background == 'amn':
        if len(amn.strided) == len(amn.keys):
            raise UserError("the activation of AMN has no background plane, which "
                            '--sem_seg_background amn needs: make it anew, or take inverse')
        last = torch.from_numpy(amn.strided[:1])
    else:
        last = a.new_ones(1, *a.shape[1:])
        if background == 'inverse' and len(a):
            last = last - a.amax(0, keepdim=True)
    return torch.cat([planes, last])


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
def class_scores(walked: torch.Tensor, background: str) -> torch.Tensor:
    """Return the score of each class, (K, h, w), from the walk of what `start` gave.

    Without a background it is the walk itself, which `planes_of` divides by its maximum. Else, f
    and b being the walks of class and background, it is the share f / (f + b), or with the
    background `constant` f / b: the mean of the activations that come together in a position,
    weighted as the walk does. Both lie between 0 and 1; 0 where f is 0, whatever b is.
    """
    if background == 'none':
        return walked
    classes, last = walked[:-1], walked[-1:]
    whole = last if background == 'constant' else classes + last
    return torch.where(classes > 0, classes / whole, torch.zeros_like(classes))


@torch.inference_mode()
def planes_of(walked: activations.Walked, background: str = 'none') -> np.ndarray:
    """Return the `class_scores` at full size; without a background divided by their maximum.

    Returns (K, H, W), which --sem_seg_bg_thres is compared with: resized x4 and cut. All 0 where
    nothing is left of the activation.
    """
    height, width = walked.hw
    if len(walked.keys) == 0:
        return np.zeros((0, height, width), np.float32)
    planes = torch.from_numpy(walked.walked)
    planes = maps.resize(planes, (planes.shape[1] * 4, planes.shape[2] * 4))[:, :height, :width]
    if background != 'none':
        return planes.numpy()
    highest = planes.max()
    return torch.where(highest > 0, planes / highest, torch.zeros_like(planes)).numpy()


def class_planes(folder: str | os.PathLike, image_id: str,
                 background: str) -> tuple[np.ndarray, np.ndarray]:
    """Read what is scored of a kept walk: keys (K,) and planes (K, H, W)."""
    walked = activations.load_walked(folder, image_id)
    return walked.keys, planes_of(walked, background)
