"""A small data set in MS-COCO 2014's layout, drawn and always alike: for tests and trials.

The scenes of misc.data.drawn.voc12 at COCO's usual 640 x 480, upright too, with what COCO adds, in
turns of eight: outlines that overlap, a larger image, a crowd region, a grey JPEG, an image without
any class, an object given by run lengths, a ball on top of an object. Outlines are coarse, as a
person draws them.

writes: ROOT/JPEGImages/{train,val}2014/COCO_{train,val}2014_ID.jpg,
        annotations/instances_{train,val}2014.json, sample.json (the parameters); coco14.prepare
        makes the rest, with --allow_other_counts
command: python -m coco14.sample ROOT
"""
import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from coco14.dataloader import CATEGORY_IDS, CLASSES, id_of, image_name
from misc import ending, imutils
from misc.data.drawn import voc12 as sample
from misc.files import label_maps
from misc.parsing import Parser
from misc.pyutils import UserError

VERSION = 1  # raise it when the drawing changes: samples drawn before are then refused, not mixed
NAMES = {'aeroplane': 'airplane', 'ball': 'sports ball'}  # COCO's, where they are not VOC's
KINDS = ('plain', 'larger', 'crowd', 'plain', 'grey', 'empty', 'run lengths', 'ball')
LARGER = 1.1  # 704 x 528 where the others have 640 x 480
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def picture(number: int, size: int = 640, seed: int = 0) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draw image `number` (0, 1, ...), and its annotations, without ids.

    Returns uint8 (H, W, 3) or, grey, (H, W), and the annotations.
    """
    # never a scene's stream
    kind, rng = KINDS[number % len(KINDS)], np.random.default_rng([seed, number, 2])
    long = round(size * (LARGER if kind == 'larger' else 1))
    if kind == 'empty':
        below = sample.PLACES[str(rng.choice(sorted(sample.PLACES)))][1]
        return _eight_bits(below(rng, long * 3 // 4, long)), []
    drawn = sample.scene(number, long, seed)
    upright = drawn.image.shape[0] > drawn.image.shape[1]
    hw = (long, long * 3 // 4) if upright else (long * 3 // 4, long)
    image, objects = imutils.resize(drawn.image, hw).copy(), label_maps.resize(drawn.objects, hw)
    annotations = []
    for index, name in enumerate(drawn.classes, start=1):
        # over its border, onto its neighbours
        mask = cv2.dilate((objects == index).astype(np.uint8), CROSS, iterations=2)
        annotations.append(_annotation(name, mask, by_runs=kind == 'run lengths'))
        if kind == 'ball' and index == 1:
            y, x = np.argwhere(mask).mean(0)
            ball = _put(image, 'ball', x, y, 0.3 * np.sqrt(mask.sum()), np.ones(hw, bool))
            annotations.append(_annotation('ball', ball))
    if kind == 'crowd':
        flock = np.zeros(hw, np.uint8)
        for x, y in rng.uniform(0.1, 0.5, (6, 2)) * (hw[1], hw[0]):
            flock |= _put(image, 'bird', x, y, long / 20, objects == 0)  # behind the objects
        annotations.append(_annotation('bird', cv2.dilate(flock, CROSS, iterations=4), by_runs=True,
                                       crowd=True))
    return (np.asarray(Image.fromarray(image).convert('L')) if kind == 'grey'
            else image), annotations


def draw(root: str | os.PathLike, n_train: int = 24, n_val: int = 8, size: int = 640,
         seed: int = 0) -> Path:
    """Draw the sample into `root`, or leave it where the same one is there already; returns `root`.

    Raises UserError where `root` holds something else or cannot be written, and for senseless
    numbers.
    """
    parameters = {'version': VERSION, 'scenes': sample.VERSION, 'data': 'coco14',
                  'n_train': n_train, 'n_val': n_val, 'size': size, 'seed': seed}
    if n_train < 1 or n_val < 1 or size < 64 or seed < 0:
        raise UserError(f'cannot draw {n_train} train and {n_val} val images of size {size} with '
                        f'seed {seed}: at least 1 '
                        'each, size at least 64, seed at least 0')
    return sample.make_folder(Path(root), parameters, lambda folder: _write(folder, parameters))


def _write(root: Path, parameters: dict) -> None:
    n_train, n_val = parameters['n_train'], parameters['n_val']
    for split, numbers in (('train2014', range(n_train)),
                           ('val2014', range(n_train, n_train + n_val))):
        folder = root / 'JPEGImages' / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for number in numbers:
            image, found = picture(number, parameters['size'], parameters['seed'])
            image_id = 7 * number + 9  # with gaps, as COCO's
            name = image_name(split, id_of(image_id))
            Image.fromarray(image).save(folder / name, quality=95)
            images.append({'license': 1, 'file_name': name, 'height': image.shape[0],
                           'width': image.shape[1], 'id': image_id})
            annotations += [annotation | {'image_id': image_id} for annotation in found]
        # COCO's are in no order of images
        mixed = np.random.default_rng(len(annotations)).permutation(len(annotations))
        annotations = [annotations[index] | {'id': number}
                       for number, index in enumerate(mixed, start=1)]
        categories = [{'id': number, 'name': name}
                      for number, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
        path = root / 'annotations' / f'instances_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({'info': {'description': 'drawn'}, 'images': images,
                                    'licenses': [],
                                    'annotations': annotations, 'categories': categories}),
                        encoding='utf-8')


def _put(image: np.ndarray, name: str, x: float, y: float, half: float,
         free: np.ndarray) -> np.ndarray:
    """Draw an object into `image` around (x, y), where it is `free` (H, W); returns its mask, uint8
    (H, W).
    """
    canvas, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    for part in sample.SHAPES[name](sample.BODY_COLOURS[0]):
        points = [np.rint(part.outline * half + (x, y)).astype(np.int32)]
        cv2.fillPoly(canvas, points, part.colour)
        cv2.fillPoly(mask, points, 1)
    mask &= free
    image[mask > 0] = canvas[mask > 0]
    return mask


def _annotation(name: str, mask: np.ndarray, by_runs: bool = False,
                crowd: bool = False) -> dict[str, Any]:
    """As COCO writes it, but for the ids."""
    x, y, w, h = cv2.boundingRect(mask)
    return {'segmentation': _run_lengths(mask) if by_runs else _polygons(mask),
            'area': int(mask.sum()),
            'iscrowd': int(crowd), 'bbox': [x, y, w, h],
            'category_id': CATEGORY_IDS[CLASSES.index(NAMES.get(name, name))]}


def _polygons(mask: np.ndarray) -> list[list[int]]:
    """[x0, y0, x1, y1, ...] for each piece."""
    outlines = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    outlines = [cv2.approxPolyDP(outline, 1.0, True) for outline in outlines]
    return [outline.ravel().tolist() for outline in outlines if len(outline) >= 3]


def _run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Column by column, the number of 0, then of 1, then of 0, ..."""
    # the first may be at 0: then no pixel is 0 yet
    changes = np.flatnonzero(np.diff(mask.ravel('F'), prepend=0, append=2))
    return {'counts': np.diff(changes, prepend=0).tolist(), 'size': list(mask.shape)}


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog='python -m coco14.sample',
                    description="Draw a small data set in MS-COCO 2014's layout.",
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('root', metavar='ROOT',
                        help='folder to make; left alone where the same sample is there')
    parser.add_argument('--n_train', type=int, default=24, help='images of train2014')
    parser.add_argument('--n_val', type=int, default=8, help='images of val2014')
    parser.add_argument('--size', type=int, default=640,
                        help='longer side of most images, in pixels')
    parser.add_argument('--seed', type=int, default=0, help='another number draws other scenes')
    args = parser.parse_args(arguments)
    return ending.run(lambda: print(draw(**vars(args))), lambda want: 'a smaller --size')


if __name__ == '__main__':
    sys.exit(main())
