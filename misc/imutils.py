"""Pixels: decode, resize, flip, crop, normalise. Pure functions of arrays and a random generator.

Images are uint8 (H, W, 3) RGB until they are normalised.
"""
import contextlib
import os
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import ExifTags, Image

from misc.pyutils import UserError


class UnreadableImage(UserError):
    """A photograph that cannot be decoded."""


MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # ImageNet's
STD = np.array((0.229, 0.224, 0.225), np.float32)

CAFFE_MEAN = np.array((104.008, 116.669, 122.675), np.float32)  # BGR, of 0..255


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode a photograph to uint8 (H, W, 3). Grey, palette, CMYK, alpha and 16-bit files become 8-bit RGB.

    EXIF orientation is not applied, because VOC's masks do not follow it. Raises UserError for a missing, truncated or
    unreadable file.
    """
    with _opened(path) as picture:
        if picture.mode.startswith('I'):  # 16 bits a pixel; PIL's own conversion would clip at 255
            values = np.asarray(picture)
            grey = (values >> 8 if values.max(initial=0) > 255 else values).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        return np.array(picture.convert('RGB'))


def read_header(path: str | os.PathLike) -> tuple[tuple[int, int], bool]:
    """Size (H, W) of a photograph, and whether viewers turn it (EXIF orientation); nothing is decoded. Raises UserError as
    `read_image` does."""
    with _opened(path) as picture:
        return (picture.height, picture.width), picture.getexif().get(ExifTags.Base.Orientation, 1) != 1


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such image') from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f'{path}: cannot be decoded ({error}); replace it or take it out of the list') from error


def resize(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """PIL bicubic, on 8 bits, to (H, W); it smooths where it shrinks. The same array where the size stays."""
    if image.shape[:2] == tuple(hw):
        return image
    return np.asarray(Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BICUBIC))


def resize_bilinear(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Bilinear to (H, W), float32 and not rounded to 8 bits; it does not smooth where it shrinks (OpenCV's)."""
    return cv2.resize(image.astype(np.float32), (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR)


def scaled_hw(hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """(round(H*s), round(W*s)), half to even, at least 1."""
    return max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale))


def rescale(image: np.ndarray, scale: float) -> np.ndarray:
    """`resize` to `scaled_hw`."""
    return resize(image, scaled_hw(image.shape[:2], scale))


def normalize(image: np.ndarray) -> np.ndarray:
    """(v/255 - mean) / std, float32 (H, W, 3)."""
    return (image / np.float32(255) - MEAN) / STD


def subtract_caffe_mean(image: np.ndarray) -> np.ndarray:
    """BGR, 0..255, minus Caffe's mean, float32 (H, W, 3): what weights made with Caffe want."""
    return image[:, :, ::-1] - CAFFE_MEAN


INPUTS = {'torchvision': normalize, 'caffe': subtract_caffe_mean}  # what weights are named by -> how their input is made


def to_chw(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> contiguous (3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def crop_window(hw: tuple[int, int], size: int, rng: np.random.Generator) -> tuple[tuple[slice, slice],
                                                                                   tuple[slice, slice]]:
    """Draw a random crop: (rows, columns) to take from the image, (rows, columns) to put them on a size x size canvas.

    Each side apart: a longer side gives a window that starts anywhere in it, a shorter one is placed whole, anywhere on
    the canvas.
    """
    taken, placed = [], []
    for side in hw:
        length = min(side, size)
        start = int(rng.integers(0, max(side - size, 0) + 1))
        offset = int(rng.integers(0, max(size - side, 0) + 1))
        taken.append(slice(start, start + length))
        placed.append(slice(offset, offset + length))
    return (taken[0], taken[1]), (placed[0], placed[1])


def place(piece: np.ndarray, where: tuple[slice, slice], size: int, fill: float) -> np.ndarray:
    """Put `piece` on a canvas (size, size, ...) of `fill`, contiguous."""
    canvas = np.full((size, size, *piece.shape[2:]), fill, piece.dtype)
    canvas[where] = piece
    return canvas


def top_left(image: np.ndarray, size: int, fill: float) -> np.ndarray:
    """The top-left size x size window, padded with `fill` at the right and bottom."""
    piece = image[:size, :size]
    return place(piece, (slice(0, piece.shape[0]), slice(0, piece.shape[1])), size, fill)
