"""A small data set in VOC's layout, drawn in seconds and always alike: for tests and first runs.

What makes weak supervision hard is drawn in on purpose. An object has a *telling part* (a face, a
wheel, a striped sail) by which its class is known, and a larger *plain part* in colours that all
classes share: a classifier looks at the first, a segmentation must cover both. Classes like some
places (boats are at sea or on the beach) and co-occur with them; no place has one class alone, or
its ground would tell the class as well as the object does.

writes: ROOT/JPEGImages/ID.jpg, Annotations/ID.xml, SegmentationClass/ID.png,
        SegmentationObject/ID.png, ImageSets/Segmentation/{train,train_aug,val}.txt, sample.json
        (the parameters)
command: python -m voc12.sample ROOT
"""
import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from misc import ending
from misc.files import label_maps
from misc.parsing import Parser
from misc.pyutils import UserError, write_json
from voc12.dataloader import CLASSES, PALETTE

VERSION = 2  # raise it when the drawing changes: samples drawn before are then refused, not mixed
SUPERSAMPLING = 4  # outlines are drawn this much larger and averaged, for smooth borders
# pixels of an object and, a quarter of it, of its telling part that must be seen at size 112
VISIBLE = 24
# the classes in the scenes; all are VOC's
NAMES = ('aeroplane', 'bird', 'boat', 'car', 'cat', 'cow', 'train')
# further classes of the crops: features should not know the scenes only
DISTRACTORS = ('ball', 'flower', 'house')
# Every class wears any of these: the colour of a body says nothing about its class.
BODY_COLOURS = ((232, 226, 212), (150, 92, 58), (186, 62, 52), (62, 66, 84), (208, 160, 92),
                (134, 138, 146), (236, 184, 58))


class Part(NamedTuple):
    """One polygon of an object.

    outline: (n, 2), x right, y down, the object in about -1..1.
    colour: RGB 0..255.
    """
    outline: np.ndarray
    colour: tuple[float, float, float]
    telling: bool = False


class Scene(NamedTuple):
    """A drawn image with what is known of it.

    image: uint8 (H, W, 3).
    objects: uint8 (H, W), 0 background, 1.. the objects, 255 their borders.
    telling: bool (H, W), the telling parts.
    classes: the class name of each object.
    difficult: one flag an object.
    """
    image: np.ndarray
    objects: np.ndarray
    telling: np.ndarray
    classes: tuple[str, ...]
    difficult: tuple[bool, ...]


# ---- outlines ----

def _ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([rx * np.cos(turn), ry * np.sin(turn)], 1)
    return points @ _rotation(degrees).T + (x, y)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, dtype=float)


def _rounded(*points: tuple[float, float]) -> np.ndarray:
    """The polygon with its corners cut three times (Chaikin)."""
    outline = np.array(points, dtype=float)
    for _ in range(3):
        following = np.roll(outline, -1, 0)
        outline = np.stack([0.8 * outline + 0.2 * following, 0.2 * outline + 0.8 * following],
                           1).reshape(-1, 2)
    return outline


def _strips(start: tuple, end: tuple, other_start: tuple, other_end: tuple,
            n: int) -> list[np.ndarray]:
    """n quadrilaterals side by side between the line start-end and the line other_start-other_end.
    """
    steps = np.linspace(0, 1, n + 1)[:, None]
    one = np.array(start) + steps * (np.array(end, dtype=float) - start)
    two = np.array(other_start) + steps * (np.array(other_end, dtype=float) - other_start)
    return [np.stack([one[i], one[i + 1], two[i + 1], two[i]]) for i in range(n)]


def _rotation(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([(cos, -sin), (sin, cos)])


def _shade(colour: tuple, factor: float) -> tuple:
    return tuple(min(255.0, channel * factor) for channel in colour)


# ---- the objects: plain parts first, then the telling part; all look to the right ----

BLACK, WHITE, INK = (28, 28, 32), (246, 244, 238), (44, 40, 48)


def _aeroplane(body: tuple) -> list[Part]:
    """Plain: fuselage, wings, tail. Telling: the ringed nose with its propeller."""
    parts = [Part(_polygon((0.15, -0.05), (-0.2, -0.46), (-0.02, -0.46), (0.42, -0.05)),
                  _shade(body, 0.72)),
             Part(_polygon((-0.95, 0.0), (-1.08, -0.46), (-0.84, -0.46), (-0.5, -0.08)),
                  _shade(body, 0.85)),
             Part(_rounded((-1.1, -0.06), (0.5, -0.2), (0.62, 0.2), (-0.4, 0.22)), body),
             Part(_polygon((0.02, 0.08), (-0.42, 0.56), (-0.14, 0.56), (0.4, 0.08)),
                  _shade(body, 0.9))]
    rings = _strips((0.44, -0.2), (0.98, -0.1), (0.44, 0.2), (0.98, 0.1), 5)
    parts += [Part(ring, ((204, 38, 48), WHITE)[i % 2], True) for i, ring in enumerate(rings)]
    yellow = (250, 206, 40)
    return parts + [Part(_ellipse(1.02, 0, 0.05, 0.4), (36, 40, 52), True),
                    Part(_ellipse(1.02, 0, 0.09, 0.1), yellow, True),
                    Part(_box(0.975, -0.4, 1.065, -0.28), yellow, True),
                    Part(_box(0.975, 0.28, 1.065, 0.4), yellow, True)]


def _bird(body: tuple) -> list[Part]:
    """Plain: body, wing, tail. Telling: the crested head with its beak and eye."""
    parts = [Part(_polygon((-0.45, 0.05), (-1.0, 0.22), (-0.92, 0.48), (-0.35, 0.32)),
                  _shade(body, 0.8)),
             Part(_polygon((-0.02, 0.3), (0.06, 0.3), (0.0, 0.66), (-0.06, 0.66)), INK),
             Part(_polygon((0.16, 0.26), (0.24, 0.26), (0.2, 0.64), (0.14, 0.64)), INK),
             Part(_ellipse(-0.06, 0.1, 0.6, 0.32, -18), body),
             Part(_ellipse(-0.2, 0.08, 0.42, 0.19, -4), _shade(body, 0.78))]
    for x, y, degrees in ((0.36, -0.52, -60), (0.46, -0.58, -85), (0.57, -0.56, -110)):
        parts.append(Part(_ellipse(x, y, 0.17, 0.05, degrees), (226, 44, 60), True))
    return parts + [Part(_polygon((0.6, -0.4), (1.04, -0.22), (0.6, -0.12)), (250, 148, 24), True),
                    Part(_ellipse(0.48, -0.26, 0.25, 0.24), (34, 92, 150), True),
                    Part(_ellipse(0.55, -0.3, 0.12, 0.12), WHITE, True),
                    Part(_ellipse(0.57, -0.3, 0.06, 0.06), BLACK, True)]


def _boat(body: tuple) -> list[Part]:
    """Plain: hull and cabin. Telling: two striped sails."""
    parts = [Part(_box(-0.04, -0.85, 0.02, 0.3), (96, 66, 44)),
             Part(_box(-0.78, 0.06, -0.2, 0.3), _shade(body, 0.82)),
             Part(_rounded((-1.0, 0.22), (1.05, 0.16), (0.74, 0.66), (-0.7, 0.66)), body)]
    stripes = ((36, 84, 168), WHITE)
    for i, strip in enumerate(_strips((-0.06, -0.8), (-0.06, 0.02), (-0.08, -0.8), (-0.62, 0.02),
                                      6)):
        parts.append(Part(strip, stripes[i % 2], True))
    for i, strip in enumerate(_strips((0.04, -0.72), (0.04, 0.12), (0.06, -0.72), (0.6, 0.12), 6)):
        parts.append(Part(strip, stripes[(i + 1) % 2], True))
    return parts


def _car(body: tuple) -> list[Part]:
    """Plain: body, roof and windows. Telling: the spoked wheels."""
    parts = [Part(_rounded((-0.62, 0.0), (-0.4, -0.46), (0.3, -0.46), (0.66, 0.0)),
                  _shade(body, 0.86)),
             Part(_polygon((-0.42, -0.06), (-0.3, -0.34), (-0.06, -0.34), (-0.06, -0.06)),
                  (150, 172, 184)),
             Part(_polygon((0.02, -0.06), (0.02, -0.34), (0.24, -0.34), (0.46, -0.06)),
                  (150, 172, 184)),
             Part(_rounded((-1.04, -0.1), (0.7, -0.12), (1.06, 0.06), (1.04, 0.42), (-1.04, 0.42)),
                  body)]
    for x in (-0.56, 0.56):
        parts += [Part(_ellipse(x, 0.36, 0.27, 0.27), BLACK, True),
                  Part(_ellipse(x, 0.36, 0.18, 0.18), (222, 226, 230), True)]
        parts += [Part(_ellipse(x + 0.09 * np.cos(a), 0.36 + 0.09 * np.sin(a), 0.09, 0.028,
                                np.rad2deg(a)), INK, True)
                  for a in np.arange(5) * 2 * np.pi / 5]
    return parts


def _legs(xs: tuple, top: float, bottom: float, width: float, body: tuple) -> list[Part]:
    return [Part(_box(x - width, top, x + width, bottom), _shade(body, 0.7 if i % 2 else 0.92))
            for i, x in enumerate(xs)]


def _cat(body: tuple) -> list[Part]:
    """Plain: body, legs, tail. Telling: the face."""
    parts = [Part(_rounded((-0.62, 0.02), (-1.02, -0.5), (-0.86, -0.66), (-0.42, 0.0)),
                  _shade(body, 0.85)),
             *_legs((-0.56, -0.36, 0.22, 0.4), 0.2, 0.68, 0.075, body),
             Part(_ellipse(-0.1, 0.14, 0.64, 0.3), body)]
    for side in (-1, 1):
        x = 0.5 + side * 0.2
        parts += [Part(_polygon((x - 0.14, -0.36), (x + side * 0.06, -0.76), (x + 0.14, -0.36)),
                       INK, True),
                  Part(_polygon((x - 0.07, -0.4), (x + side * 0.04, -0.64), (x + 0.07, -0.4)),
                       (240, 150, 160), True)]
    parts.append(Part(_ellipse(0.5, -0.2, 0.36, 0.31), (226, 138, 60), True))
    parts += [Part(_box(x - 0.025, -0.52, x + 0.025, -0.34), INK, True) for x in (0.38, 0.5, 0.62)]
    parts.append(Part(_ellipse(0.5, -0.05, 0.2, 0.13), WHITE, True))
    for x in (0.34, 0.66):
        parts += [Part(_ellipse(x, -0.22, 0.1, 0.09), (140, 214, 70), True),
                  Part(_ellipse(x, -0.22, 0.03, 0.085), BLACK, True)]
    return parts + [Part(_polygon((0.44, -0.12), (0.56, -0.12), (0.5, -0.04)), (232, 96, 116),
                         True)]


def _cow(body: tuple) -> list[Part]:
    """Plain: body, legs, tail. Telling: the horned head."""
    parts = [Part(_polygon((-0.86, -0.2), (-0.8, -0.2), (-0.94, 0.4), (-1.02, 0.4)),
                  _shade(body, 0.75)),
             *_legs((-0.66, -0.46, 0.16, 0.36), 0.2, 0.7, 0.09, body),
             Part(_rounded((-0.92, -0.28), (0.5, -0.3), (0.56, 0.3), (-0.9, 0.34)), body)]
    for side in (-1, 1):
        parts += [Part(_rounded((0.68 + side * 0.12, -0.42), (0.68 + side * 0.38, -0.5),
                                (0.68 + side * 0.32, -0.84), (0.68 + side * 0.22, -0.56)),
                       (244, 232, 190), True),
                  Part(_ellipse(0.68 + side * 0.34, -0.3, 0.16, 0.08, side * 20), INK, True)]
    parts += [Part(_rounded((0.42, -0.52), (0.94, -0.52), (0.9, 0.16), (0.46, 0.16)), WHITE, True),
              Part(_ellipse(0.56, -0.28, 0.11, 0.17), INK, True),
              Part(_ellipse(0.56, -0.27, 0.04, 0.05), WHITE, True),
              Part(_ellipse(0.8, -0.27, 0.05, 0.06), BLACK, True),
              Part(_ellipse(0.68, 0.08, 0.27, 0.16), (236, 152, 158), True)]
    return parts + [Part(_ellipse(x, 0.08, 0.05, 0.06), (120, 50, 60), True) for x in (0.57, 0.79)]


def _train(body: tuple) -> list[Part]:
    """Plain: the carriage with its windows. Telling: the front with its warning stripes and lamps.
    """
    parts = [Part(_box(x - 0.16, 0.36, x + 0.16, 0.52), INK) for x in (-0.82, -0.1, 0.5)]
    parts += [Part(_rounded((-1.12, -0.46), (0.7, -0.46), (0.78, 0.42), (-1.12, 0.42)), body)]
    parts += [Part(_box(x, -0.28, x + 0.24, -0.02), (150, 172, 184))
              for x in (-0.96, -0.6, -0.24, 0.12)]
    parts += [Part(_rounded((0.44, -0.48), (0.92, -0.48), (1.12, 0.46), (0.44, 0.46)),
                   (250, 204, 30), True),
              Part(_polygon((0.52, -0.36), (0.86, -0.36), (0.92, -0.1), (0.52, -0.1)), (30, 44, 70),
                   True)]
    warning = _strips((0.5, -0.02), (1.3, -0.02), (0.3, 0.3), (1.1, 0.3), 7)[1:6:2]
    parts += [Part(strip, BLACK, True) for strip in warning]
    return parts + [Part(_ellipse(x, 0.36, 0.07, 0.07), WHITE, True) for x in (0.58, 0.98)]


def _ball(body: tuple) -> list[Part]:
    turn = np.linspace(0, 2 * np.pi, 9)
    return [Part(np.concatenate([[(0.0, 0.0)], 0.8 * np.stack([np.cos(t), np.sin(t)], 1)]),
                 (body, WHITE)[i % 2], True)
            for i, t in enumerate(np.linspace(a, b, 9)
                                  for a, b in zip(turn, turn[1:], strict=False))]


def _flower(body: tuple) -> list[Part]:
    green = (60, 128, 56)
    parts = [Part(_box(-0.04, -0.2, 0.04, 0.9), green),
             Part(_ellipse(0.2, 0.5, 0.24, 0.09, -30), green)]
    parts += [Part(_ellipse(0.34 * np.cos(a), -0.3 + 0.34 * np.sin(a), 0.3, 0.16, np.rad2deg(a)),
                   body, True)
              for a in np.arange(7) * 2 * np.pi / 7]
    return parts + [Part(_ellipse(0, -0.3, 0.18, 0.18), (96, 56, 28), True)]


def _house(body: tuple) -> list[Part]:
    parts = [Part(_box(-0.7, -0.15, 0.7, 0.75), body),
             Part(_box(-0.1, 0.25, 0.2, 0.75), (110, 70, 44))]
    parts += [Part(_box(x, 0.05, x + 0.26, 0.36), (150, 172, 184)) for x in (-0.5, 0.34)]
    return parts + [Part(strip, ((176, 62, 44), (130, 40, 30))[i % 2], True)
                    for i, strip in enumerate(_strips((-0.2, -0.7), (-0.9, -0.12), (0.2, -0.7),
                                                      (0.9, -0.12), 6))]


SHAPES: dict[str, Callable[[tuple], list[Part]]] = {
    'aeroplane': _aeroplane, 'bird': _bird, 'boat': _boat, 'car': _car, 'cat': _cat, 'cow': _cow,
    'train': _train, 'ball': _ball, 'flower': _flower, 'house': _house}


# ---- the places ----

def _noise(rng: np.random.Generator, h: int, w: int, *cells: tuple[float, float]) -> np.ndarray:
    """Smooth noise (h, w, 1) of about unit variance: one layer for each cell size (height, width)
    in pixels.
    """
    total = np.zeros((h, w), dtype=np.float32)
    for cell_h, cell_w in cells:
        grid = rng.standard_normal((int(h / cell_h) + 2, int(w / cell_w) + 2)).astype(np.float32)
        layer = cv2.resize(grid, None, fx=cell_w, fy=cell_h, interpolation=cv2.INTER_CUBIC)
        total += layer[:h, :w]
    return total[..., None] / np.sqrt(len(cells))


def _mixed(rng: np.random.Generator, low: tuple, high: tuple, share: np.ndarray) -> np.ndarray:
    """From colour `low` where `share` (h, w, 1) is 0 to `high` where it is 1; both colours vary
    from scene to scene.
    """
    low, high = (np.array(colour, dtype=np.float32) + rng.uniform(-12, 12, 3)
                 for colour in (low, high))
    share = np.clip(share, 0, 1)
    return (low * (1 - share) + high * share).astype(np.float32)


def _ramp(h: int, w: int) -> np.ndarray:
    return np.broadcast_to(np.linspace(0, 1, h, dtype=np.float32)[:, None, None], (h, w, 1))


def _sky(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    blue = _mixed(rng, (86, 144, 210), (190, 216, 238), _ramp(h, w))
    clouds = np.clip(0.55 * _noise(rng, h, w, (14, 30), (7, 14), (3.5, 6)) - 0.1, 0, 0.85)
    return blue * (1 - clouds) + 247 * clouds


def _water(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    waves = _noise(rng, h, w, (1.6, 9), (3, 18))
    return _mixed(rng, (110, 164, 176), (24, 82, 112), _ramp(h, w) + 0.22 * waves)


def _meadow(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    blades = _noise(rng, h, w, (4, 1.5), (9, 14))
    return _mixed(rng, (142, 172, 78), (58, 112, 40), 0.5 * _ramp(h, w) + 0.25 + 0.26 * blades)


def _road(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    asphalt = _mixed(rng, (128, 126, 126), (88, 88, 94),
                     _ramp(h, w) + 0.3 * _noise(rng, h, w, (1.2, 1.2), (5, 16)))
    line = int(h * rng.uniform(0.3, 0.7))
    asphalt[line:line + max(1, h // 24), (np.arange(w) // 12) % 2 == 0] = (226, 222, 206)
    return asphalt


def _rails(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    gravel = _mixed(rng, (146, 128, 112), (92, 78, 70),
                    0.5 + 0.4 * _noise(rng, h, w, (1.5, 1.5), (2.5, 3)))
    for at in (0.62, 0.8):
        row, thick = int(h * at), max(1, h // 26)
        gravel[row:row + thick] = (178, 180, 186)
        gravel[row + thick:row + 2 * thick] *= 0.6
    return gravel


def _floor(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    boards = _mixed(rng, (184, 134, 88), (132, 84, 50),
                    0.5 + 0.25 * _noise(rng, h, w, (1.5, 18), (4, 40)))
    boards[::max(4, h // 5)] *= 0.72
    return boards


def _wall(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    wall = _mixed(rng, (206, 196, 178), (176, 190, 188),
                  0.5 + 0.12 * _noise(rng, h, w, (20, 20), (2, 2)))
    wall[:, (np.arange(w) // 6) % 3 == 0] *= 0.93
    wall[-2:] = (236, 230, 218)
    return wall


def _forest(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    leaves = _mixed(rng, (112, 146, 70), (26, 60, 34),
                    0.5 + 0.3 * _noise(rng, h, w, (3, 3), (7, 7), (14, 12)))
    for _ in range(rng.integers(2, 5)):
        x = int(rng.integers(0, w))
        leaves[:, x:x + int(rng.integers(2, 5))] = np.array((78, 58, 42)) + rng.uniform(-10, 10)
    return leaves


def _sand(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    return _mixed(rng, (228, 206, 160), (190, 160, 114),
                  0.5 + 0.25 * _noise(rng, h, w, (1.3, 1.3), (3, 12), (9, 30)))


# place: (what is above the horizon, what is below; None: no horizon), the classes found there (a
# train in a room is a toy)
PLACES: dict[str, tuple[Callable | None, Callable, tuple[str, ...]]] = {
    'sky': (None, _sky, ('aeroplane', 'bird')),
    'sea': (_sky, _water, ('boat', 'bird')),
    'street': (_forest, _road, ('car', 'cat', 'aeroplane')),
    'railway': (_sky, _rails, ('train', 'car', 'cow')),
    'room': (_wall, _floor, ('cat', 'train', 'bird')),
    'pasture': (_sky, _meadow, ('cow', 'aeroplane', 'cat')),
    'wood': (_forest, _meadow, ('bird', 'cow', 'car')),
    'beach': (_water, _sand, ('boat', 'car', 'bird')),
}
AT_HOME = 0.7  # how often the place is one where the first object's class is found


def _place(rng: np.random.Generator, name: str, h: int, w: int) -> tuple[np.ndarray, int]:
    """The empty place, float32 (h, w, 3), and the row of its horizon (0: objects may be anywhere).
    """
    above, below, _ = PLACES[name]
    if above is None:
        return below(rng, h, w), 0
    horizon = int(h * rng.uniform(0.22, 0.45))
    ground = below(rng, h, w)[:h - horizon]
    return np.concatenate([above(rng, max(horizon, 4), w)[:horizon], ground]), horizon


# ---- putting objects into a place ----

class _Drawn(NamedTuple):
    """One object on the canvas. colour: float32 (h, w, 3), already times alpha; alpha, telling:
    float32 (h, w); body: which of BODY_COLOURS.
    """
    colour: np.ndarray
    alpha: np.ndarray
    telling: np.ndarray
    body: int


def _render(rng: np.random.Generator, name: str, x: float, y: float, half: float, h: int,
            w: int) -> _Drawn:
    """The object `name` around (x, y), about 2 * `half` pixels long: its colours, direction, tilt
    and shape vary.
    """
    number = int(rng.integers(len(BODY_COLOURS)))
    body = BODY_COLOURS[number] + rng.uniform(-10, 10, 3)
    stretch = np.array((rng.choice((-1.0, 1.0)), 1.0)) * rng.uniform(0.88, 1.12, 2)
    matrix = _rotation(rng.uniform(-8, 8)) @ np.diag(stretch) * half
    canvas = np.zeros((h * SUPERSAMPLING, w * SUPERSAMPLING, 3), dtype=np.uint8)
    # the object, its telling part
    covers = np.zeros((h * SUPERSAMPLING, w * SUPERSAMPLING, 2), dtype=np.uint8)
    tint = rng.uniform(0.94, 1.06, 3)
    for part in SHAPES[name](tuple(body)):
        points = np.rint((part.outline @ matrix.T + (x, y)) * SUPERSAMPLING).astype(np.int32)
        cv2.fillPoly(canvas, [points], np.clip(part.colour * tint, 1, 255).tolist())
        cv2.fillPoly(covers, [points], (255, 255 if part.telling else 0))
    colour = cv2.resize(canvas, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
    covers = cv2.resize(covers, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    light = 1.08 - 0.2 * np.clip((np.arange(h, dtype=np.float32) - y) / half, -1, 1)[:, None, None]
    colour = colour * (light + 0.025 * _noise(rng, h, w, (2, 2), (8, 8)))
    return _Drawn(colour, covers[..., 0], covers[..., 1], number)


def _shadow(image: np.ndarray, alpha: np.ndarray) -> None:
    """Darken the ground under an object, in place."""
    rows, columns = np.nonzero(alpha > 0.5)
    if not len(rows):
        return
    dark = np.zeros(alpha.shape, dtype=np.float32)
    width = columns.max() - columns.min() + 1
    centre = (int(columns.mean()), int(rows.max()))
    cv2.ellipse(dark, centre, (max(1, int(0.48 * width)), max(1, width // 12)), 0, 0, 360, 1.0, -1)
    image *= 1 - 0.38 * cv2.GaussianBlur(dark, (0, 0), max(0.8, width / 24))[..., None]


def _visible(objects: list[_Drawn], area: float) -> bool:
    """Whether each object, with the later ones in front of it, keeps most of itself and shows its
    telling part.
    """
    for i, drawn in enumerate(objects):
        seen = np.ones(drawn.alpha.shape, dtype=bool)
        for later in objects[i + 1:]:
            seen &= later.alpha < 0.5
        solid, telling = drawn.alpha > 0.5, drawn.telling > 0.5
        if (solid & seen).sum() < max(area,
                                      0.8 * solid.sum()) or (
                                          telling & seen).sum() < max(area / 4,
                                                                      0.7 * telling.sum()):
            return False
    return True


def _borders(index: np.ndarray, wide: bool) -> np.ndarray:
    """Object numbers with 255 along every border: 1 pixel just outside, or 2 pixels astride of it
    where `wide`.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    border = cv2.dilate(index, cross) != index
    if wide:
        border |= cv2.erode(index, cross) != index
    return np.where(border, 255, index).astype(np.uint8)


def _compose(image: np.ndarray, objects: list[_Drawn], shadows: bool,
             wide: bool) -> tuple[np.ndarray, ...]:
    """Paint the objects from back to front -> image uint8, object numbers with borders, telling
    parts.
    """
    index = np.zeros(image.shape[:2], dtype=np.uint8)
    telling = np.zeros(image.shape[:2], dtype=bool)
    for number, drawn in enumerate(objects, start=1):
        if shadows:
            _shadow(image, drawn.alpha)
        image = image * (1 - drawn.alpha[..., None]) + drawn.colour
        solid = drawn.alpha > 0.5
        index[solid] = number
        telling[solid] = drawn.telling[solid] > 0.5
    image = cv2.GaussianBlur(image, (0, 0), 0.45)  # a lens is not perfectly sharp
    index = _borders(index, wide)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), index, telling & (index != 255)


def _cast(rng: np.random.Generator, first: str) -> tuple[str, list[str]]:
    """The place and the one to three classes in it: where `first` is, others like the place too, or
    stray in.
    """
    home = [place for place in sorted(PLACES) if first in PLACES[place][2]]
    anywhere = [place for place in sorted(PLACES) if place in home or place not in ('sky', 'sea')]
    place = str(rng.choice(home if rng.random() < AT_HOME else anywhere))
    names = [first]
    for _ in range(int(rng.choice((0, 1, 2), p=(0.5, 0.35, 0.15)))):
        at_ease = place in ('sky', 'sea') or rng.random() < 0.6
        names.append(str(rng.choice(PLACES[place][2] if at_ease else NAMES)))
    return place, names


def scene(number: int, size: int = 112, seed: int = 0) -> Scene:
    """Draw scene `number` (0, 1, ...) of the sample; its first object is NAMES[number % 7].

    size: the longer side, about, in pixels.
    seed: of the sample. Each number has a random stream of its own: scenes do not depend on how
      many are drawn.
    """
    rng = np.random.default_rng([seed, number])
    first = NAMES[number % len(NAMES)]
    long, short = round(size * rng.uniform(0.96, 1.04)), round(size * rng.uniform(0.72, 0.86))
    h, w = (long, short) if rng.random() < 0.3 else (short, long)
    place, names = _cast(rng, first)
    image, horizon = _place(rng, place, h, w)
    area = VISIBLE * (size / 112) ** 2
    objects: list[_Drawn] = []
    classes: list[str] = []
    for name in names:
        for _ in range(40):
            half = min(h, w) * (rng.uniform(0.3, 0.46) if len(names) == 1
                                else rng.uniform(0.2, 0.34))
            x = rng.uniform(half * 0.9, max(half, w - half * 0.9))
            y = rng.uniform(max(half * 0.7, horizon - half * 0.4), h - half * 0.75)
            drawn = _render(rng, name, x, y, half, h, w)
            if _visible([*objects, drawn], area):
                objects.append(drawn)
                classes.append(name)
                break
    image, index, telling = _compose(image, objects, place not in ('sky', 'sea'), size >= 224)
    seen = [int((index == number).sum()) for number in range(1, len(classes) + 1)]
    difficult = tuple(count < 0.02 * h * w for count in seen)
    return Scene(image, index, telling, tuple(classes), difficult)


def object_crops(n: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw crops with a single object, as ImageNet has them.

    Returns images uint8 (n, size, size, 3), labels int64 (n, 2). The first label is the class, 0..6
    of NAMES, then DISTRACTORS, evenly; the second its body's colour (BODY_COLOURS), as ImageNet
    tells breeds and makes apart: who names both must look at the whole object. Any class may be in
    any place. The object is as large as in scenes of 112 pixels; every crop is drawn at a size of
    its own and resized, as activations are made at several scales.
    """
    names = NAMES + DISTRACTORS
    images = np.empty((n, size, size, 3), dtype=np.uint8)
    targets = np.stack([np.arange(n, dtype=np.int64) % len(names), np.empty(n, np.int64)], axis=1)
    for i, label in enumerate(targets[:, 0]):
        rng = np.random.default_rng([seed, i, 1])  # never a scene's stream
        drawn_size = round(size * 2 ** rng.uniform(-0.6, 0.8))
        image, _ = _place(rng, str(rng.choice(sorted(PLACES))), drawn_size, drawn_size)
        half = drawn_size * rng.uniform(0.3, 0.48)
        x, y = rng.uniform(half * 0.85, drawn_size - half * 0.85, 2)
        drawn = _render(rng, names[label], x, y, half, drawn_size, drawn_size)
        targets[i, 1] = drawn.body
        image = _compose(image, [drawn], bool(rng.random() < 0.5), False)[0]
        images[i] = np.asarray(Image.fromarray(image).resize((size, size),
                                                             Image.Resampling.BICUBIC))
    return images, targets


# ---- writing ----

def _xml(name: str, drawn: Scene) -> str:
    """The annotation as VOC writes it; boxes count pixels from 1, both ends included."""
    h, w = drawn.objects.shape
    root = ElementTree.Element('annotation')
    for tag, text in (('folder', 'VOC2012'), ('filename', f'{name}.jpg')):
        ElementTree.SubElement(root, tag).text = text
    sizes = ElementTree.SubElement(root, 'size')
    for tag, value in (('width', w), ('height', h), ('depth', 3)):
        ElementTree.SubElement(sizes, tag).text = str(value)
    ElementTree.SubElement(root, 'segmented').text = '1'
    for number, (class_name, difficult) in enumerate(zip(drawn.classes, drawn.difficult,
                                                         strict=True), start=1):
        rows, columns = np.nonzero(drawn.objects == number)
        item = ElementTree.SubElement(root, 'object')
        ElementTree.SubElement(item, 'name').text = class_name
        ElementTree.SubElement(item, 'difficult').text = str(int(difficult))
        box = ElementTree.SubElement(item, 'bndbox')
        for tag, at in (('xmin', columns.min()), ('ymin', rows.min()), ('xmax', columns.max()),
                        ('ymax', rows.max())):
            ElementTree.SubElement(box, tag).text = str(int(at) + 1)
    ElementTree.indent(root, '\t')
    return ElementTree.tostring(root, encoding='unicode') + '\n'


def _class_map(drawn: Scene) -> np.ndarray:
    """Object numbers -> VOC's class numbers, uint8 (H, W); 0 and 255 stay."""
    table = np.arange(256, dtype=np.uint8)
    for number, name in enumerate(drawn.classes, start=1):
        table[number] = CLASSES.index(name) + 1
    return table[drawn.objects]


def _write_scene(root: Path, name: str, drawn: Scene) -> None:
    Image.fromarray(drawn.image).save(root / 'JPEGImages' / f'{name}.jpg', quality=95,
                                      subsampling=0)
    (root / 'Annotations' / f'{name}.xml').write_text(_xml(name, drawn), encoding='utf-8')
    label_maps.save(root / 'SegmentationClass' / f'{name}.png', _class_map(drawn), PALETTE)
    label_maps.save(root / 'SegmentationObject' / f'{name}.png', drawn.objects, PALETTE)


def _write_sample(root: Path, parameters: dict) -> None:
    for folder in ('JPEGImages', 'Annotations', 'SegmentationClass', 'SegmentationObject',
                   'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    train_aug = [f'2012_{number:06d}' for number in range(1, parameters['n_train_aug'] + 1)]
    val = [f'2012_{number:06d}' for number in range(500001, 500001 + parameters['n_val'])]
    for name in train_aug + val:
        _write_scene(root, name, scene(int(name[5:]) - 1, parameters['size'], parameters['seed']))
    for split, names in (('train', train_aug[:parameters['n_train']]), ('train_aug', train_aug),
                         ('val', val)):
        (root / 'ImageSets' / 'Segmentation' /
         f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))


def _is_there(root: Path, parameters: dict) -> bool:
    """Whether `root` holds this very sample. Raises UserError where it holds anything else."""
    try:
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        found = json.loads((root / 'sample.json').read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{root} is there and is not a drawn sample; name a folder that does not '
                        f'exist yet') from error
    if found != parameters:
        raise UserError(f'{root} holds a sample drawn with other parameters '
                        f'({root / "sample.json"}); '
                        'remove the folder or name another')
    return True


def draw(root: str | os.PathLike, n_train: int = 84, n_train_aug: int = 168, n_val: int = 42,
         size: int = 112, seed: int = 0) -> Path:
    """Draw the sample into `root`, or leave it where the same one is there already; returns `root`.

    n_train_aug counts train's images too: train_aug begins with train. The folder appears under its
    name only when it is whole. Raises UserError where `root` holds something else or cannot be
    written, and for senseless numbers.
    """
    root = Path(root)
    parameters = {'version': VERSION, 'n_train': n_train, 'n_train_aug': n_train_aug,
                  'n_val': n_val, 'size': size, 'seed': seed}
    if not 1 <= n_train <= n_train_aug <= 500000 or n_val < 1:
        raise UserError(f'cannot draw {n_train} train, {n_train_aug} train_aug and {n_val} val '
                        f'images: '
                        'at least 1 each, and train_aug contains train')
    if size < 64 or seed < 0:
        raise UserError(f'cannot draw scenes of size {size} with seed {seed}: size is at least 64, '
                        f'seed at least 0')
    return make_folder(root, parameters, lambda folder: _write_sample(folder, parameters))


def make_folder(root: Path, parameters: dict, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder that appears as `root` only when it is whole.

    parameters: kept in its sample.json. Left alone where the same parameters are there.
    Raises UserError where `root` holds something else or cannot be written.
    """
    if _is_there(root, parameters):
        return root
    unfinished = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        print(f'drawing the sample {root}', file=sys.stderr)
        unfinished = Path(tempfile.mkdtemp(prefix=f'.{root.name}.', suffix='.part',
                                           dir=root.parent))
        write(unfinished)
        write_json(unfinished / 'sample.json', parameters)
        with contextlib.suppress(OSError):  # not every file system lets rights be changed
            os.chmod(unfinished, 0o755)  # mkdtemp's folders are private
        os.replace(unfinished, root)
    except OSError as error:
        raise UserError(f'cannot write the sample {root}: {error.strerror or error}') from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    return root


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog='python -m voc12.sample',
                    description="Draw a small data set in VOC's layout.",
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('root', metavar='ROOT',
                        help='folder to make; left alone where the same sample is there')
    parser.add_argument('--n_train', type=int, default=84, help='images by which seeds are scored')
    parser.add_argument('--n_train_aug', type=int, default=168,
                        help='images to train on, train among them')
    parser.add_argument('--n_val', type=int, default=42, help='images kept apart')
    parser.add_argument('--size', type=int, default=112, help='longer side, about, in pixels')
    parser.add_argument('--seed', type=int, default=0, help='another number draws other scenes')
    args = parser.parse_args(arguments)
    return ending.run(lambda: print(draw(**vars(args))), lambda want: 'a smaller --size')


if __name__ == '__main__':
    sys.exit(main())
