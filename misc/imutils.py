"""Pixels: decode, resize, flip, crop, normalise. Pure functions of arrays and a random generator.

Images are uint8 (H, W, 3) RGB until they are normalised.
"""
import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image

from misc.pyutils import UserError


class UnreadableImage(UserError):
    """A photograph that cannot be decoded."""


MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # ImageNet's
STD = np.array((0.229, 0.224, 0.225), np.float32)

# endings, in any case
PHOTOGRAPHS = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp')
# a photograph of which less than this share of values reaches DARK shows next to nothing
DARK, SOME = 16, 0.01
REMARKS = {  # on photographs: what there is about them, and what to do
    'dark': f'photographs are nearly black (99% of their values below {DARK} of 255): look at '
            f'them; scale their values before',
    'transparent': 'photographs have transparent parts, whose hidden colours are seen here: lay '
                   'them over a background, for '
                   'example by mogrify -background white -alpha remove',
    'pages': 'files hold several pictures, of which the first is read: store each in a file of its '
             'own'}
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
         4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}  # EXIF orientation -> what makes it upright

CAFFE_MEAN = np.array((104.008, 116.669, 122.675), np.float32)  # BGR, of 0..255


def read_image(path: str | os.PathLike, upright: bool = False) -> np.ndarray:
    """Decode a photograph to uint8 (H, W, 3): `photograph` without its remarks."""
    return photograph(path, upright)[0]


def read_of(source: Any, image_id: str) -> np.ndarray:
    """Read the photograph of an id as every stage sees it, upright where the source's are."""
    return read_image(source.image_path(image_id), source.upright)


def photograph(path: str | os.PathLike, upright: bool = False) -> tuple[np.ndarray, list[str]]:
    """A photograph as uint8 (H, W, 3) RGB, and which of REMARKS there are on it.

    Grey, palette, CMYK and alpha become RGB; what has more than 8 bits a channel is brought to 8 by
    `to_8_bits`; of several pictures in a file the first is read. upright: EXIF orientation is
    applied, as viewers do; not for VOC and COCO, whose masks do not follow it. Raises UserError for
    a missing, truncated or unreadable file.
    """
    with _opened(path) as picture:
        # a phone's preview
        remarks = (['pages'] if getattr(picture, 'n_frames', 1) > 1 and picture.format != 'MPO'
                   else [])
        deep = ';16' in str(picture.tile) and picture.format in ('PNG', 'TIFF')
        image = pixels_of(picture, upright,
                          _read_deep(path) if deep and picture.mode[0] not in 'IF' else None)
        if picture.has_transparency_data and picture.convert('RGBA').getextrema()[3][0] < 128:
            remarks.append('transparent')
    light = np.count_nonzero(image >= DARK)
    if light < SOME * image.size and image.max() > image.min():
        remarks.append('dark')
    return image, remarks


def pixels_of(picture: Image.Image, upright: bool, deep: np.ndarray | None = None) -> np.ndarray:
    """Return a PIL picture as `photograph` reads a file: uint8 (H, W, 3) RGB.

    deep: its numbers, where they have more bits a channel than PIL keeps.
    """
    if deep is None and picture.mode[0] in 'IF':
        deep = np.asarray(picture)
    image = np.array(picture.convert('RGB')) if deep is None else to_8_bits(deep)
    turn = TURNS.get(_orientation(picture)) if upright or picture.format == 'TIFF' else None
    return image if turn is None else np.array(Image.fromarray(image).transpose(turn))


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Bring numbers of any kind, (H, W) or (H, W, 3), to uint8 (H, W, 3).

    Integers from 0 to 255 stay. Others are divided by the power of two that makes the highest fit,
    and no lower one: 12 bits in 16 lose 4, all 16 lose 8, and of 0..1 the highest becomes 255.
    Where there are negative ones, the lowest is 0 first. NaN counts as the lowest.
    """
    fractions = values.dtype.kind == 'f'
    if fractions:
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
        values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    elif values.max(initial=0) <= 255 and values.min(initial=0) >= 0:
        return _three_channels(values.astype(np.uint8))
    values = values.astype(np.float64)
    values -= min(values.min(initial=0), 0)
    high = values.max(initial=0)
    power = (math.ceil(math.log2(high)) if fractions else int(high).bit_length()) if high > 0 else 0
    return _three_channels(np.minimum(np.floor(values * 2.0 ** (8 - power)), 255).astype(np.uint8))


def _three_channels(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2) if values.ndim == 2 else values


def _read_deep(path: str | os.PathLike) -> np.ndarray:
    """A file of 16 bits in several channels, of which PIL keeps 8: uint16 (H, W) or (H, W, 3),
    without alpha.
    """
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise OSError('16 bits a channel that OpenCV cannot read')
    return values if values.ndim == 2 else values[:, :, 2::-1]


def read_header(path: str | os.PathLike, upright: bool = False) -> tuple[tuple[int, int], bool]:
    """Return the size (H, W) of a photograph, and whether viewers turn it (EXIF orientation).

    The size is that of `read_image`; nothing is decoded. Raises UserError as `read_image` does.
    """
    with _opened(path) as picture:
        turn = _orientation(picture)
        swap = turn in (5, 6, 7, 8) and upright and picture.format != 'TIFF'
        return ((picture.width, picture.height) if swap else (picture.height,
                                                              picture.width)), turn in TURNS


def _orientation(picture: Image.Image) -> int:
    """EXIF's; of TIFF files PIL tells the upright size, and turns most itself, which leaves 1 here.
    """
    return picture.getexif().get(ExifTags.Base.Orientation, 1)


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such image') from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f'{path}: cannot be decoded ({error}); replace it or take it out of '
                              f'the list') from error


def resize(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Resize to (H, W) as PIL's bicubic, on 8 bits; it smooths where it shrinks.

    The same array where the size stays.
    """
    if image.shape[:2] == tuple(hw):
        return image
    return np.asarray(Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BICUBIC))


def resize_bilinear(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Resize to (H, W), bilinear, float32 and not rounded; it does not smooth where it shrinks."""
    return cv2.resize(image.astype(np.float32), (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR)


def scaled_hw(hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (round(H*s), round(W*s)), half to even, at least 1."""
    return max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale))


def rescale(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize an image to `scaled_hw`."""
    return resize(image, scaled_hw(image.shape[:2], scale))


def normalize(image: np.ndarray) -> np.ndarray:
    """Return (v/255 - mean) / std, float32 (H, W, 3)."""
    return (image / np.float32(255) - MEAN) / STD


def subtract_caffe_mean(image: np.ndarray) -> np.ndarray:
    """Return BGR, 0..255, minus Caffe's mean, float32 (H, W, 3): for weights made with Caffe."""
    return image[:, :, ::-1] - CAFFE_MEAN


# what weights are named by -> how their input is made
INPUTS = {'torchvision': normalize, 'caffe': subtract_caffe_mean}


def to_chw(image: np.ndarray) -> np.ndarray:
    """Turn (H, W, 3) into contiguous (3, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def crop_window(hw: tuple[int, int], size: int,
                rng: np.random.Generator) -> tuple[tuple[slice, slice],
                                                   tuple[slice, slice]]:
    """Draw a random crop of size x size.

    Each side apart: a longer side gives a window that starts anywhere in it, a shorter one is
      placed whole, anywhere on the canvas.
    Returns (rows, columns) to take from the image, and (rows, columns) to put them on the canvas.
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
