"""Files that other tools read: what each format makes of an image, and of all of them.

A photograph's name is its path below the folder that holds all of them ('x.jpg', 'dog/x.jpg'), and
lies at images/NAME. Polygons are those of `outlines`; classes are numbered as in label maps.
"""
import base64
import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np

from misc.draw import drawing
from misc.export.outlines import outlines
from misc.files import coco, label_maps
from misc.pyutils import atomic_path, write_json, write_text, writing

RLE, POLYGONS = 'rle', 'polygons'
IMAGES = 'images'  # the folder of photographs
LABELME = '5.5.0'  # version of the files


class Object(NamedTuple):
    """A class in a label map, or an instance.

    number: its number in the map; label: its class from 1; score: None of label maps.
    """

    number: int
    label: int
    score: float | None = None


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is exported of an image.

    name: as above; photograph: its file.
    numbers: (H, W), at each pixel the number of an object, or of none (0; 255 where a label map
    ignores it).
    objects: in the order of their numbers.
    read: gives the photograph, uint8 (H, W, 3).
    """

    image_id: str
    name: str
    photograph: Path
    numbers: np.ndarray
    objects: list[Object]
    read: Callable[[], np.ndarray]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return stem_of(self.name)

    def masks(self) -> Iterable[tuple[Object, np.ndarray]]:
        """Yield each object and its pixels, bool (H, W), whose columns lie in one piece."""
        turned = np.ascontiguousarray(self.numbers.T)
        return ((one, (turned == one.number).T) for one in self.objects)


@dataclasses.dataclass(frozen=True)
class Export:
    """What a format must know of an export.

    out: where its files go; classes, palette: as of the data set.
    segments: how masks are written; tolerance: of `outlines`.
    with_images: whether photographs are there; instances: whether the objects are instances.
    """

    out: Path
    classes: Sequence[str]
    palette: np.ndarray
    segments: str | None = None
    tolerance: float = 0.0
    with_images: bool = True
    instances: bool = False

    def polygons(self, mask: np.ndarray) -> list[np.ndarray]:
        """Return the polygons of a mask, bool (H, W)."""
        return outlines(np.ascontiguousarray(mask), self.tolerance)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format: how it writes an image, and what comes when all are written.

    image(export, picture): writes the image's own files; returns its entry, where it has one.
    finish(export, entries): writes the files of all images; entries in the order of the list.
    segments: how it can write masks, the usual way first.
    own: (folder, ending) of the file that tells that an image is done, in formats without entries.
    folders, files: everything that it makes.
    needs_images: whether photographs must lie with it; None where they never do.
    """

    about: str
    image: Callable[[Export, Picture], Any]
    finish: Callable[[Export, list], None]
    segments: tuple[str, ...] = ()
    own: tuple[str, str] | None = None
    folders: tuple[str, ...] = (IMAGES,)
    files: tuple[str, ...] = ()
    needs_images: bool | None = False


def stem_of(name: str) -> str:
    """Return a name without its ending: 'dog/x.jpg' -> 'dog/x'."""
    return str(PurePosixPath(name).with_suffix(''))


def _nothing(export: Export, entries: list) -> None:
    """A format that is done when its images are."""


# COCO

def _coco_image(export: Export, picture: Picture) -> dict[str, Any]:
    found = []
    for one, mask in picture.masks():
        more = {} if one.score is None else {'score': one.score}
        if export.segments == POLYGONS:
            more['segmentation'] = [ring.ravel().tolist() for ring in export.polygons(mask)]
        found.append(coco.annotation(one.label, mask, **more))
    return {'name': picture.name, 'hw': picture.numbers.shape, 'annotations': found}


def _coco_finish(export: Export, entries: list[dict[str, Any]]) -> None:
    images, annotations = [], []
    for number, entry in enumerate(entries, start=1):
        images.append(coco.image(number, entry['name'], tuple(entry['hw'])))
        for one in entry['annotations']:
            annotations.append(one | {'id': len(annotations) + 1, 'image_id': number})
    content = coco.content(export.classes, 'masks made from image-level labels by AMN', images,
                           annotations)
    write_text(export.out / 'annotations.json', json.dumps(content) + '\n')


# YOLO, as Ultralytics reads it

def _yolo_image(export: Export, picture: Picture) -> None:
    h, w = picture.numbers.shape
    lines = [f'{one.label - 1} ' + ' '.join(f'{x / w:.6f} {y / h:.6f}' for x, y in ring)
             for one, mask in picture.masks() for ring in export.polygons(mask)]
    write_text(export.out / 'labels' / f'{picture.stem}.txt', ''.join(f'{x}\n' for x in lines))


def _yolo_finish(export: Export, entries: list) -> None:
    # a name in JSON is one in YAML
    names = ''.join(f'  {number}: {json.dumps(name, ensure_ascii=False)}\n'
                    for number, name in enumerate(export.classes))
    write_text(export.out / 'data.yaml', '# all images are in both: name other folders or lists '
               f'where you have a split\ntrain: {IMAGES}\nval: {IMAGES}\nnames:\n{names}')


# CVAT's "CVAT for images 1.1"

def _cvat_image(export: Export, picture: Picture) -> str:
    h, w = picture.numbers.shape
    image = ElementTree.Element('image', {'name': picture.name, 'width': str(w), 'height': str(h)})
    for one, mask in picture.masks():
        about = {'label': export.classes[one.label - 1], 'source': 'auto', 'occluded': '0',
                 'z_order': '0'}
        if export.segments == RLE:
            left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
            piece = mask[top:top + height, left:left + width]
            ElementTree.SubElement(image, 'mask', about | {
                'rle': ', '.join(map(str, _run_lengths(piece.ravel()))), 'left': str(left),
                'top': str(top), 'width': str(width), 'height': str(height)})
            continue
        rings = export.polygons(mask)
        if len(rings) > 1:
            about['group_id'] = str(one.number)
        for ring in rings:
            points = ';'.join(f'{x}.00,{y}.00' for x, y in ring)
            ElementTree.SubElement(image, 'polygon', about | {'points': points})
    return ElementTree.tostring(image, encoding='unicode')


def _run_lengths(pixels: np.ndarray) -> list[int]:
    """Lengths of the runs of pixels, bool (n,), that are not set, are set, are not set, ..."""
    turns = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff(turns, prepend=0, append=len(pixels)).tolist()
    return [0, *lengths] if pixels[0] else lengths


def _cvat_finish(export: Export, entries: list[str]) -> None:
    colours = ['#' + bytes(colour).hex() for colour in export.palette[1:len(export.classes) + 1]]
    meta = ElementTree.Element('meta')
    task = ElementTree.SubElement(meta, 'task')
    ElementTree.SubElement(task, 'size').text = str(len(entries))
    listed = ElementTree.SubElement(task, 'labels')
    for name, colour in zip(export.classes, colours, strict=True):
        label = ElementTree.SubElement(listed, 'label')
        ElementTree.SubElement(label, 'name').text = name
        ElementTree.SubElement(label, 'color').text = colour
        ElementTree.SubElement(label, 'attributes')
    images = [text.replace('<image ', f'<image id="{number}" ', 1)
              for number, text in enumerate(entries)]
    write_text(export.out / 'annotations.xml', '\n'.join([
        '<?xml version="1.0" encoding="utf-8"?>', '<annotations>', '<version>1.1</version>',
        ElementTree.tostring(meta, encoding='unicode'), *images, '</annotations>', '']))
    # what the form for a task's labels takes ("Raw")
    write_json(export.out / 'labels.json', [
        {'name': name, 'color': colour, 'attributes': []}
        for name, colour in zip(export.classes, colours, strict=True)])


# LabelMe

def _labelme_image(export: Export, picture: Picture) -> None:
    h, w = picture.numbers.shape
    shapes = []
    for one, mask in picture.masks():
        about = {'label': export.classes[one.label - 1], 'group_id': None, 'description': '',
                 'flags': {}, 'mask': None}
        if export.segments == RLE:
            left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
            piece = mask[top:top + height, left:left + width].astype(np.uint8) * 255
            shapes.append(about | {
                'shape_type': 'mask', 'mask': base64.b64encode(
                    cv2.imencode('.png', piece)[1].tobytes()).decode('ascii'),
                'points': [[left, top], [left + width - 1, top + height - 1]]})
            continue
        rings = export.polygons(mask)
        shapes += [about | {'shape_type': 'polygon', 'points': ring.tolist(),
                            'group_id': one.number if len(rings) > 1 else None} for ring in rings]
    path = export.out / IMAGES / picture.name
    shown = path.name if export.with_images else str(picture.photograph.resolve())
    write_json(export.out / IMAGES / f'{picture.stem}.json', {
        'version': LABELME, 'flags': {}, 'shapes': shapes, 'imagePath': shown, 'imageData': None,
        'imageHeight': h, 'imageWidth': w})


# PNG: cut-outs and overlays

def _png_image(export: Export, picture: Picture) -> None:
    image, folder = picture.read(), export.out / 'cutouts' / picture.stem
    if folder.is_dir():  # of another label map there may be others
        with writing(folder):
            shutil.rmtree(folder)
    for one, mask in picture.masks():
        name = re.sub(r'[^\w.-]+', '_', export.classes[one.label - 1])
        drawing.save(folder / f'{one.number}_{name}.png',
                     np.dstack([image, np.where(mask, np.uint8(255), np.uint8(0))]))
    if export.instances:
        names = [export.classes[one.label - 1] for one in picture.objects]
        overlay = drawing.overlay_instances(image, picture.numbers, names)
    else:
        overlay = drawing.overlay_labels(image, picture.numbers, export.palette)
    # the last of them: it tells that all are there
    drawing.save(export.out / 'overlays' / f'{picture.stem}.png', overlay)


# Hugging Face: a folder for `load_dataset('imagefolder', data_dir=...)`

def _hf_image(export: Export, picture: Picture) -> dict[str, Any]:
    label_map, entry = picture.numbers, {'file_name': f'{IMAGES}/{picture.name}',
                                         'mask_file_name': f'masks/{picture.stem}.png',
                                         'image_id': picture.image_id}
    if export.instances:
        to_label = np.zeros(len(picture.objects) + 1, np.uint8)
        to_label[1:] = [one.label for one in picture.objects]
        label_map = to_label[picture.numbers]
        entry |= {'instances_file_name': f'instances/{picture.stem}.png',
                  'instance_labels': [one.label for one in picture.objects],
                  'instance_scores': [one.score for one in picture.objects]}
        with atomic_path(export.out / entry['instances_file_name']) as temporary:
            temporary.write_bytes(
                cv2.imencode('.png', picture.numbers.astype(np.uint16))[1].tobytes())
    label_maps.save(export.out / entry['mask_file_name'], label_map, export.palette)
    return entry | {'labels': sorted({one.label for one in picture.objects})}


def _hf_finish(export: Export, entries: list[dict[str, Any]]) -> None:
    write_text(export.out / 'metadata.jsonl',
               ''.join(f'{json.dumps(entry)}\n' for entry in entries))
    write_text(export.out / label_maps.LEGEND, label_maps.legend(export.classes))


FORMATS = {
    'coco': Format("COCO's annotations.json", _coco_image, _coco_finish, (RLE, POLYGONS),
                   files=('annotations.json',)),
    'yolo': Format('text files for YOLO (segment), data.yaml', _yolo_image, _yolo_finish,
                   (POLYGONS,), ('labels', '.txt'), (IMAGES, 'labels'), ('data.yaml',)),
    'cvat': Format("annotations.xml, 'CVAT for images 1.1'", _cvat_image, _cvat_finish,
                   (POLYGONS, RLE), files=('annotations.xml', 'labels.json')),
    'labelme': Format('a JSON file for LabelMe beside each photograph', _labelme_image, _nothing,
                      (POLYGONS, RLE), (IMAGES, '.json')),
    'png': Format('cut-outs on a transparent ground, overlays', _png_image, _nothing,
                  own=('overlays', '.png'), folders=('overlays', 'cutouts'), needs_images=None),
    'hf': Format('a folder for datasets.load_dataset: photographs, masks, metadata.jsonl',
                 _hf_image, _hf_finish, folders=(IMAGES, 'masks', 'instances'),
                 files=('metadata.jsonl', label_maps.LEGEND), needs_images=True)}
