"""Label maps: uint8 (H, W), 0 background, 1..C classes, 255 ignore; 8-bit palette PNGs on disk."""
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from misc.pyutils import UserError, atomic_path, is_whole

IGNORE = 255
LEGEND = 'classes.txt'  # beside label maps: what their values mean


def _palette() -> np.ndarray:
    """VOC's colour map, uint8 (256, 3): the bits of the class spread over the three channels
    (devkit, VOClabelcolormap).
    """
    colours = np.zeros((256, 3), np.uint8)
    for label in range(256):
        for bit in range(8):
            for channel in range(3):
                colours[label, channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
    return colours


PALETTE = _palette()


def legend(classes: Sequence[str], first: int = 1) -> str:
    """Return the text of `LEGEND`, a line for each value of label maps with these classes.

    It is '0 background', '1 aeroplane', ..., '255 ignored'.
    first: the value of the first class; where it is 0 (instance masks) there are classes alone.
    """
    values = {first + number: name for number, name in enumerate(classes)}
    if first:
        values = {0: 'background', **values, IGNORE: 'ignored'}
    return ''.join(f'{value} {name}\n' for value, name in values.items())


def label_path(folder: str | os.PathLike, image_id: str) -> Path:
    return Path(folder) / f'{image_id}.png'


def exists(folder: str | os.PathLike, image_id: str) -> bool:
    return is_whole(label_path(folder, image_id))


def save(path: str | os.PathLike, label_map: np.ndarray, palette: np.ndarray) -> None:
    """Write (H, W) as a palette PNG (palette uint8 (256, 3)), so that any viewer shows colours."""
    picture = Image.fromarray(np.asarray(label_map, np.uint8))
    picture.putpalette(palette.tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, format='PNG')


def load(path: str | os.PathLike, remedy: str = 'it is needed here') -> np.ndarray:
    """Read a label map, uint8 (H, W).

    Raises UserError, with `remedy`, where the file is missing, and where it is not an 8-bit map.
    """
    try:
        with Image.open(path) as picture:
            values = np.array(picture)
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such label map; {remedy}') from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f'{path}: cannot be decoded ({error}); make it anew') from error
    if values.ndim != 2 or values.dtype != np.uint8:
        colours = 'colours, where the numbers of classes are needed: ' if values.ndim == 3 else ''
        raise UserError(f'{colours}{path}: not a label map (one channel, 8 bits)')
    return values


@functools.lru_cache
def nearest(side: int, target: int) -> np.ndarray:
    """The positions in 0..side-1 that `resize` takes where it makes `target` of them."""
    positions = Image.fromarray(np.arange(side, dtype=np.int32)[None])
    return np.array(positions.resize((target, 1), Image.Resampling.NEAREST))[0].astype(np.int64)


def resize(label_map: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """PIL nearest to (H, W): output pixel i is input pixel floor((i + 0.5) * in/out)."""
    if label_map.shape == tuple(hw):
        return label_map
    return np.asarray(Image.fromarray(label_map).resize((hw[1], hw[0]), Image.Resampling.NEAREST))
