"""Maps that networks make of an image and its mirror: their sizes, and resizing."""
from collections.abc import Callable

import torch
from torch.nn import functional as F

MIRRORED_APART = 3_000_000  # pixels above which an image and its mirror go through the network one after the other


def with_mirror(forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """forward on N images (N, 3, H, W) and their left-right mirrors as one batch: both results, (N, ..., h, w), the mirrors'
    flipped back.

    Large images and their mirrors are taken one after the other, which halves the memory.
    """
    both = torch.cat([images, images.flip(-1)]).contiguous(memory_format=torch.channels_last)
    number = len(images)
    parts = both.split(number) if images.shape[2] * images.shape[3] > MIRRORED_APART else (both,)
    result = torch.cat([forward(part).float() for part in parts])
    return result[:number], result[number:].flip(-1)


def resize(planes: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Bilinear, (K, h, w) -> (K, H, W)."""
    return F.interpolate(planes[None], hw, mode='bilinear', align_corners=False)[0]


def strided_hw(hw: tuple[int, int]) -> tuple[int, int]:
    """Stride-4 size."""
    return (hw[0] - 1) // 4 + 1, (hw[1] - 1) // 4 + 1


def rounded_up(hw: tuple[int, int], stride: int = 16) -> tuple[int, int]:
    """The size rounded up to a multiple of `stride`."""
    return ((hw[0] - 1) // stride + 1) * stride, ((hw[1] - 1) // stride + 1) * stride


