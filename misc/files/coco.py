"""COCO's annotation files: masks as run lengths, and the parts of such a file."""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return what photographs are called: their paths below the folder that holds them all."""
    folder = os.path.commonpath([path.parent for path in paths]) if paths else ''
    return [path.relative_to(folder).as_posix() for path in paths]


def image(number: int, name: str, hw: tuple[int, int]) -> dict[str, Any]:
    """Return the entry of `images` whose id is `number`."""
    return {'id': number, 'file_name': name, 'height': hw[0], 'width': hw[1], 'license': 1}


def annotation(label: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """Return the entry of `annotations` of a mask, bool (H, W), without ids.

    It holds the area, the box (x, y, width, height), the mask as compressed run lengths.
    label: the class from 1, its category_id.
    more: keys that are added, or take the place of another.
    """
    # quick where the mask's columns lie in one piece, as those of a transposed map do
    encoded = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
    return {'category_id': label, 'iscrowd': 0, 'area': int(coco_mask.area(encoded)),
            'bbox': coco_mask.toBbox(encoded).tolist(),
            'segmentation': {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')},
            **more}


def content(classes: Sequence[str], description: str, images: list[dict[str, Any]],
            annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the whole file together; the classes are its categories, from 1."""
    categories = [{'id': number, 'name': name, 'supercategory': 'object'}
                  for number, name in enumerate(classes, start=1)]
    return {'info': {'description': description, 'version': '1.0'},
            # pycocotools and trainers read these, whatever they hold
            'licenses': [{'id': 1, 'name': 'unknown', 'url': ''}],
            'images': images, 'annotations': annotations, 'categories': categories}
