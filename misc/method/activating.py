"""CAM's and AMN's activations of images, from their networks."""
from collections.abc import Sequence

import numpy as np
import torch

from misc import torchutils
from misc.files import activations, label_maps
from misc.method import maps

PLANES = 8  # of AMN's softmax at full size at a time


@torch.inference_mode()
def cams_of(net: torch.nn.Module, keys: Sequence[np.ndarray], hw: tuple[int, int],
            images: list[torch.Tensor], device: torch.device,
            precision: str) -> list[activations.Activation]:
    """Compute CAM's activations of N images of one size, each for its own classes.

    keys: of each image (K,), the classes that it shows.
    hw: their size.
    images: of each scale (N, 3, h, w), as `maps.together` has them; none without a class.
    Returns an activation an image, planes as tensors on `device`, each divided by its own maximum
    (CAM; IRN's code).
    """
    sizes = maps.strided_hw(hw), maps.rounded_up(hw)
    sums = [[torch.zeros(len(present), *size, device=device) for size in sizes] for present in keys]
    for image in images:
        with torchutils.autocast(precision, device):
            plain, mirrored = maps.with_mirror(net.activations, image)
        for both, present, of_image in zip(plain + mirrored, keys, sums, strict=True):
            for total, size in zip(of_image, sizes, strict=True):
                total += maps.resize(maps.chosen_planes(both, present), size)
    return [activations.Activation(present, *(planes / (planes.amax((1, 2), keepdim=True) + 1e-5)
                                              for planes in (
        strided, high_res[:, :hw[0], :hw[1]])))
            for present, (strided, high_res) in zip(keys, sums, strict=True)]


def cam_of(net: torch.nn.Module, keys: np.ndarray, hw: tuple[int, int], images: list[torch.Tensor],
           device: torch.device, precision: str) -> activations.Activation:
    """Compute CAM's activation of one image, as arrays.

    keys: (K,).
    images: of each scale (1, 3, h, w), as `maps.together` has them.
    """
    return cams_of(net, [keys], hw, images, device, precision)[0].on_host()


@torch.inference_mode()
def amn_cams_of(net: torch.nn.Module, present: Sequence[np.ndarray],
                refined_seeds: Sequence[np.ndarray], images: list[torch.Tensor],
                device: torch.device, precision: str) -> list[activations.Activation]:
    """Compute AMN's activations of N images of one size, background plane first.

    present: of each image bool (C,), the classes that it shows.
    refined: of each image CAM's refined seed (H, W).
    images: of each scale (N, 3, h, w), as `maps.together` has them; none where no image shows a
      class: then all is background.
    Returns an activation an image, planes (K+1, ...) as tensors on `device`. Each softmax plane is
    stretched to 0..1, except where the refined seed is sure background: there it stays as it is
    (authors' code).
    """
    sizes = maps.strided_hw(refined_seeds[0].shape), refined_seeds[0].shape
    if not images:
        return [activations.Activation(np.flatnonzero(shown),
                                       *(torch.ones(1, *size) for size in sizes))
                for shown in present]
    encoded = torchutils.to_device(torch.from_numpy(np.stack(present).astype(np.float32)), device)
    logits = []
    for image in images:
        with torchutils.autocast(precision, device):
            plain, mirrored = maps.with_mirror(
                lambda x: net(x, encoded.repeat(len(x) // len(encoded), 1)), image)
        logits.append((plain + mirrored) / 2)
    found = []
    for number, (shown, refined_seed) in enumerate(zip(present, refined_seeds, strict=True)):
        keys = np.flatnonzero(shown)
        kept = np.concatenate([[0], keys + 1])
        of_image = [scale[number] for scale in logits]
        found.append(activations.Activation(keys,
                                            *(_stretched(_softmax(of_image, kept, size),
                                                         refined_seed)
                                              for size in sizes)))
    return found


def amn_cam_of(net: torch.nn.Module, present: np.ndarray, refined_seed: np.ndarray,
               images: list[torch.Tensor], device: torch.device,
               precision: str) -> activations.Activation:
    """Compute AMN's activation of one image, as arrays.

    present: bool (C,).
    refined: (H, W).
    images: of each scale (1, 3, h, w), as `maps.together` has them.
    """
    return amn_cams_of(net, [present], [refined_seed], images, device, precision)[0].on_host()


def _softmax(logits: list[torch.Tensor], kept: np.ndarray, hw: tuple[int, int]) -> torch.Tensor:
    """Of the scales' logits (C+1, h, w), each resized to (H, W), the mean; of its softmax over all
    planes those `kept`.

    A few planes at a time: all of them at full size, once a scale, would be gigabytes where there
    are many classes.
    """
    highest, total, planes = torch.full((), -torch.inf, device=logits[0].device), 0.0, []
    for first in range(0, len(logits[0]), PLANES):
        mean = maps.resize(logits[0][first:first + PLANES], hw).div_(len(logits))
        for scale in logits[1:]:
            mean += maps.resize(scale[first:first + PLANES], hw).div_(len(logits))
        here = kept[(first <= kept) & (kept < first + PLANES)] - first
        planes.append(maps.chosen_planes(mean, here))  # a copy: the mean is changed below
        higher = torch.maximum(highest, mean.amax(0))
        total = total * (highest - higher).exp() + mean.sub_(higher).exp_().sum(0)
        highest = higher
    return torch.cat(planes).sub_(highest).exp_().div_(total)


def _stretched(planes: torch.Tensor, refined_seed: np.ndarray) -> torch.Tensor:
    """Of each plane (K+1, h, w) the minimum goes to 0 and the maximum to 1 outside sure background.
    """
    low, high = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    stretched = (planes - low) / (high - low + 1e-5)
    sure_background = torch.from_numpy(label_maps.resize(refined_seed,
                                                         tuple(planes.shape[1:])) == 0)
    return torch.where(torchutils.to_device(sure_background, planes.device), planes, stretched)
