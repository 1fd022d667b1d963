"""What networks take of images, and the maps that they make of an image and its mirror."""
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from misc import imutils, torchutils

# pixels above which an image and its mirror go through the network one after the other
MIRRORED_APART = 3_000_000
# of `imutils.INPUTS`, in the order in which they are used
CONSTANTS = {'torchvision': (np.full(3, 255, np.float32), imutils.MEAN, imutils.STD),
             'caffe': (imutils.CAFFE_MEAN,)}


@functools.lru_cache(maxsize=128)
def _constants(form: str, width: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """CONSTANTS for a row of pixels: (3, 1, width) each, channels last. A CPU computes with whole
    rows several times as fast as with three numbers.
    """
    rows = np.stack([np.tile(values, (1, width, 1)) for values in CONSTANTS[form]])
    return torchutils.to_device(torch.from_numpy(rows).permute(0, 3, 1, 2), device).unbind()


def normalized(images: torch.Tensor, form: str = 'torchvision') -> torch.Tensor:
    """Make of images what a network takes, on their device, so that bytes are copied to it.

    images: uint8 (N, 3, H, W), channels last, as `torchutils.to_device` has them there.
    form: of `imutils.INPUTS`, whose numbers these are, to the bit.
    Returns float32 (N, 3, H, W), channels last.
    """
    constants = _constants(form, images.shape[3], images.device)
    if form == 'caffe':
        return images.flip(1) - constants[0]
    scale, mean, std = constants
    # by a tensor: by a number a GPU would multiply with its reciprocal, which rounds otherwise
    return (images / scale).sub_(mean).div_(std)


def with_mirror(forward: Callable[[torch.Tensor], torch.Tensor],
                images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Call `forward` on N images and their left-right mirrors as one batch.

    images: (N, 3, H, W).
    Returns both results, (N, ..., h, w), the mirrors' flipped back. Large images and their mirrors
    are taken one after the other, which halves the memory.
    """
    result = torch.cat([forward(part).float() for part in mirrored(images)])
    number = len(images)
    return result[:number], result[number:].flip(-1)


def mirrored(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return N images and then their mirrors, as one batch, or as two where the images are large.

    images: (N, 3, H, W).
    Returns (2N, 3, H, W), or twice (N, 3, H, W), channels last.
    """
    both = torch.cat([images, images.flip(-1)]).contiguous(memory_format=torch.channels_last)
    return (both.split(len(images)) if images.shape[2] * images.shape[3] > MIRRORED_APART
            else (both,))


def together(images: Sequence[Sequence[torch.Tensor]], device: torch.device) -> list[torch.Tensor]:
    """Join the scales of N images of one size to a normalised batch a scale, on `device`.

    images: of each image its scales, uint8 (1, 3, h_s, w_s).
    Returns of each scale (N, 3, h_s, w_s). Each is copied as it was read: to put them together on
    the host would undo its pinned memory.
    """
    scales = [[torchutils.to_device(image, device) for image in scale]
              for scale in zip(*images, strict=True)]
    return [normalized(torch.cat(scale) if len(scale) > 1 else scale[0]) for scale in scales]


def chosen_planes(planes: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    """Return planes[numbers] without an index that would be copied to a GPU and waited for.

    planes: (C, h, w).
    numbers: (K,).
    Returns (K, h, w).
    """
    return torch.stack([planes[number] for number in numbers]) if len(numbers) else planes[:0]


def resize(planes: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Resize planes bilinearly.

    planes: (K, h, w).
    Returns (K, H, W).
    """
    return F.interpolate(planes[None], hw, mode='bilinear', align_corners=False)[0]


def strided_hw(hw: tuple[int, int]) -> tuple[int, int]:
    """Return the stride-4 size of (H, W)."""
    return (hw[0] - 1) // 4 + 1, (hw[1] - 1) // 4 + 1


def rounded_up(hw: tuple[int, int], stride: int = 16) -> tuple[int, int]:
    """Return the size (H, W) rounded up to a multiple of `stride`."""
    return ((hw[0] - 1) // stride + 1) * stride, ((hw[1] - 1) // stride + 1) * stride


