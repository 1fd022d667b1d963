"""Make MS-COCO 2014 ready: image-level labels, lists of ids and label maps from the official annotations.

  python -m coco14.prepare --coco_root DIR [--annotations DIR]

Reads instances_{train,val}2014.json (in DIR/annotations, where COCO's archive unpacks) and, for their names alone, the
images. Writes below the root, for each split: ImageSets/train2014.txt (82,783 ids; val2014 40,504), ImageSets/train2014.npz
(labels) and SegmentationClass/train2014/ID.png: 0 background, 1..80 the categories as their ids ascend, 255 crowd
regions; where objects overlap, the smaller is on top, and any object is on top of a crowd region. A crowd region counts
as its class among the image-level labels: train2014 then has 702 images without any.

Stopped, the same command goes on with the label maps that are missing. Of the JSON only a piece is in memory; each worker
reads the annotations of its images where they stand in the file. Says which images lack their JPEG. Exit code 0 when all
is as it should be, 1 when not, 2 for a wrong flag.
"""
import argparse
import dataclasses
import hashlib
import json
import logging
import os
import re
import sys
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from coco14.dataloader import (
    CATEGORY_IDS,
    CLASSES,
    COCO14,
    SPLITS,
    id_of,
    image_folder,
    image_name,
    labels_path,
    list_path,
    mask_folder,
    save_labels,
)
from misc import command, inference, labels, records, torchutils
from misc.pyutils import UserError, atomic_path
from voc12.prepare import counted, named

EXPECTED = {'train2014': 82783, 'val2014': 40504}
PIECE = 1 << 20  # bytes of the JSON read at a time
VERSION = 1  # of the way label maps are made: raise it when that changes, so that older ones are refused, not mixed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code; errors are one line on stderr."""
    args = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    return command.run(lambda: _run(args), lambda want: f'--num_workers below {args.num_workers}', '; the same command goes on')


# ---- a JSON file of any size ----

class _Reader:
    """The text of a JSON file, a piece at a time. Bytes are read as Latin-1, so that a place in the text is one in the
    file. Raises ValueError where the text is not JSON or ends too early."""

    _SPACE, _ENDS = re.compile(r'[ \t\r\n]*'), tuple(' \t\r\n:,]}')
    _decode = staticmethod(json.JSONDecoder().raw_decode)

    def __init__(self, stream: BinaryIO):
        self._stream, self._text, self._start, self._at = stream, '', 0, 0  # _start: place of the text's first character

    def place(self) -> int:
        """Of the next character that is not white space, in bytes."""
        self.peek()
        return self._start + self._at

    def peek(self) -> str:
        """That character; '' at the end."""
        while True:
            self._at = self._SPACE.match(self._text, self._at).end()
            if self._at < len(self._text) or not self._more(PIECE):
                return self._text[self._at:self._at + 1]

    def take(self, choice: str) -> str:
        found = self.peek()
        if not found or found not in choice:
            raise ValueError(f'{found or "the end"} at byte {self._start + self._at} instead of {" or ".join(choice)}')
        self._at += 1
        return found

    def value(self) -> Any:
        start, size = self.place(), PIECE
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if self._text[end:end + 1] in self._ENDS:  # else a number may go on
                    break
            except json.JSONDecodeError:
                pass  # most likely it goes on in the next piece
            if not self._more(size):
                raise ValueError(f'the value at byte {start} is broken or ends too early')
            size *= 2
        self._at = end
        return value

    def _more(self, size: int) -> bool:
        piece = self._stream.read(size).decode('latin-1')
        self._text, self._start, self._at = self._text[self._at:] + piece, self._start + self._at, 0
        return bool(piece)


def entries(stream: BinaryIO, names: Collection[str]) -> Iterator[tuple[str, Any, int, int]]:
    """The entries of the arrays `names` of a JSON object: (name, entry, its first byte, the byte after its last).

    One entry at a time is in memory. Raises ValueError for what is not JSON of that form.
    """
    reader = _Reader(stream)
    reader.take('{')
    while True:
        name = reader.value()
        reader.take(':')
        if name not in names:
            reader.value()
        else:
            reader.take('[')
            if reader.peek() == ']':
                reader.take(']')
            else:
                while True:
                    start = reader.place()
                    entry = reader.value()
                    yield name, entry, start, reader.place()
                    if reader.take(',]') == ']':
                        break
        if reader.take(',}') == '}':
            return


# ---- one split ----

@dataclasses.dataclass(frozen=True)
class Instances:
    """The images of instances_SPLIT.json, and where in the file their annotations stand.

    numbers, heights, widths: int64 (N,), numbers ascending. present: bool (N, C), the classes annotated. crowd: bool (N,),
    images with crowd regions. places: int64 (M, 2), first byte and the byte after the last of each annotation, in the order
    of the images; those of image n are first[n]..first[n + 1]. digest: of the file.
    """

    path: Path
    digest: str
    numbers: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    present: np.ndarray
    crowd: np.ndarray
    places: np.ndarray
    first: np.ndarray

    def ids(self) -> list[str]:
        return [id_of(number) for number in self.numbers]


def read_instances(path: Path, split: str) -> Instances:
    """Raises UserError for a file that is missing, broken, or not MS-COCO 2014's of that split."""
    images, found, categories = array('q'), array('q'), {}
    try:
        with open(path, 'rb') as stream:
            digest = hashlib.sha256()
            while piece := stream.read(PIECE):
                digest.update(piece)
            stream.seek(0)
            for name, entry, start, end in entries(stream, ('images', 'annotations', 'categories')):
                if name == 'images':
                    if entry['file_name'] != image_name(split, id_of(entry['id'])):
                        raise UserError(f'{path}: holds {entry["file_name"]}, not images of {split}; give the folder of '
                                        "COCO's 2014 annotations as --annotations")
                    images.extend((entry['id'], entry['height'], entry['width']))
                elif name == 'annotations':
                    found.extend((entry['image_id'], entry['category_id'], entry['iscrowd'], start, end))
                else:
                    categories[entry['id']] = entry['name']
    except FileNotFoundError as error:
        raise UserError(f'{path}: missing; unpack annotations_trainval2014.zip of COCO, and give its folder as '
                        '--annotations where it is not in the root') from error
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: not whole JSON ({error}); fetch it again') from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a file of COCO's instances (an entry without {error})") from error
    if categories != dict(zip(CATEGORY_IDS, CLASSES, strict=True)):
        raise UserError(f"{path}: its categories are not the {len(CLASSES)} of MS-COCO 2014")
    return _by_image(path, digest.hexdigest()[:16], np.frombuffer(images, np.int64).reshape(-1, 3),
                     np.frombuffer(found, np.int64).reshape(-1, 5))


def _by_image(path: Path, digest: str, images: np.ndarray, found: np.ndarray) -> Instances:
    """images: (N, 3) number, height, width; found: (M, 5) image, category, crowd, first byte, byte after the last."""
    images = images[images[:, 0].argsort()]
    numbers = images[:, 0]
    if len(numbers) == 0 or (np.diff(numbers) == 0).any():
        raise UserError(f'{path}: {"an image is listed twice" if len(numbers) else "no images"}; fetch it again')
    rows = numbers.searchsorted(found[:, 0]).clip(max=len(numbers) - 1)
    keys = np.searchsorted(CATEGORY_IDS, found[:, 1]).clip(max=len(CLASSES) - 1)
    if (numbers[rows] != found[:, 0]).any() or (np.array(CATEGORY_IDS)[keys] != found[:, 1]).any():
        raise UserError(f'{path}: annotations of an image or a category that it does not list; fetch it again')
    present, crowd = np.zeros((len(numbers), len(CLASSES)), bool), np.zeros(len(numbers), bool)
    present[rows, keys] = True
    crowd[rows[found[:, 2] != 0]] = True
    return Instances(path, digest, numbers, images[:, 1], images[:, 2], present, crowd,
                     found[rows.argsort(kind='stable'), 3:], np.searchsorted(np.sort(rows), np.arange(len(numbers) + 1)))


# ---- label maps ----

def label_map(annotations: list[dict[str, Any]], hw: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W): labels 1..C of the categories, the smaller of two objects on top; below all of them, 255 where a crowd
    region is. Of equal areas the later one is on top.

    annotations: COCO's, with segmentation (polygons, or run lengths), category_id, iscrowd. Raises UserError for a
    segmentation that is not one of these.
    """
    mask = _pycocotools()
    encoded = [_encoded(mask, annotation, hw) for annotation in annotations]
    areas = [int(area) for area in mask.area(encoded)] if encoded else []
    result = np.zeros(hw, np.uint8, order='F')  # as pycocotools decodes
    for number in sorted(range(len(encoded)), key=lambda number: (not annotations[number]['iscrowd'], -areas[number])):
        annotation = annotations[number]
        label = labels.IGNORE if annotation['iscrowd'] else CATEGORY_IDS.index(annotation['category_id']) + 1
        result[mask.decode(encoded[number]).view(bool)] = label
    return result


def _encoded(mask: Any, annotation: dict[str, Any], hw: tuple[int, int]) -> dict[str, Any]:
    """A segmentation as pycocotools' run lengths."""
    segmentation = annotation['segmentation']
    try:
        if isinstance(segmentation, list):
            outlines = [outline for outline in segmentation if len(outline) >= 6]  # shorter ones would be read as boxes
            return mask.merge(mask.frPyObjects(outlines, *hw)) if outlines else mask.encode(np.zeros(hw, np.uint8, order='F'))
        encoded = segmentation if isinstance(segmentation['counts'], str) else mask.frPyObjects(segmentation, *hw)
        if tuple(encoded['size']) != hw or (isinstance(segmentation['counts'], list)
                                            and sum(segmentation['counts']) != hw[0] * hw[1]):
            raise ValueError('run lengths of another size than the image')
        return encoded
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'annotation {annotation.get("id")}: not a segmentation of COCO ({error}); fetch the annotations '
                        'again') from error


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError('label maps of MS-COCO need pycocotools: pip install pycocotools') from error
    return mask


def make_label_maps(instances: Instances, folder: Path, num_workers: int, overwrite: bool) -> None:
    """SegmentationClass/SPLIT/ID.png for every image that has none yet, by worker processes."""
    _pycocotools()
    records.open_folder(folder, {'stage': 'coco14.prepare', 'version': VERSION, 'annotations': instances.digest}, ('.png',),
                        overwrite)
    with open(instances.path, 'rb') as stream:
        def make(image_id: str) -> None:
            row = int(instances.numbers.searchsorted(int(image_id)))
            places = instances.places[instances.first[row]:instances.first[row + 1]]
            annotations = [json.loads(os.pread(stream.fileno(), end - start, start)) for start, end in places]
            made = label_map(annotations, (int(instances.heights[row]), int(instances.widths[row])))
            labels.save(labels.label_path(folder, image_id), made, COCO14.palette)

        inference.for_each_image(instances.ids(), lambda image_id: labels.exists(folder, image_id), make, num_workers)


# ---- the command ----

def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m coco14.prepare', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--coco_root', type=Path, required=True, metavar='DIR',
                        help='the folder that holds JPEGImages/train2014 (or train2014)')
    parser.add_argument('--annotations', type=Path, metavar='DIR',
                        help='the folder of instances_train2014.json and instances_val2014.json (default: annotations in '
                             'the root)')
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS), help='make these alone (default: both)')
    parser.add_argument('--num_workers', type=int, default=torchutils.cores(), metavar='N',
                        help='processes that make label maps (default: one a core)')
    parser.add_argument('--overwrite', action='store_true', help='make label maps anew that were made of other annotations')
    parser.add_argument('--allow_other_counts', action='store_true',
                        help='accept numbers of images other than '
                             + ', '.join(f'{count} ({split})' for split, count in EXPECTED.items())
                             + ': for a part of the data set')
    args = parser.parse_args(arguments)
    if args.num_workers < 0:
        parser.error('--num_workers is at least 0')
    return args


def _run(args: argparse.Namespace) -> int:
    root, annotations = args.coco_root, args.annotations or args.coco_root / 'annotations'
    if not root.is_dir():
        raise UserError(f'{root}: no such folder; --coco_root is the one that holds JPEGImages/train2014')
    _pycocotools()
    problems, made = [], {}
    for split in args.splits:
        made[split] = instances = read_instances(annotations / f'instances_{split}.json', split)
        print(f'{split}: {counted(instances.numbers)}, {len(instances.places)} annotations; '
              f'{counted(np.flatnonzero(~instances.present.any(1)))} without a class, '
              f'{counted(np.flatnonzero(instances.crowd))} with crowd regions', flush=True)
        if len(instances.numbers) != EXPECTED[split] and not args.allow_other_counts:
            problems.append(f'{split}: {len(instances.numbers)} images, not {EXPECTED[split]}')
    if problems:
        raise UserError('; '.join(problems) + ': nothing written; fetch the annotations again, or for a part of the data '
                        'set add --allow_other_counts')
    for split, instances in made.items():
        with atomic_path(list_path(root, split)) as temporary:
            temporary.write_text(''.join(f'{image_id}\n' for image_id in instances.ids()), encoding='utf-8')
        save_labels(labels_path(root, split), instances.numbers, instances.present)
        make_label_maps(instances, mask_folder(root, split), args.num_workers, args.overwrite)
    source = COCO14(root)
    for split, instances in made.items():
        missing = source.check(instances.ids()).missing_image
        if missing:
            problems.append(f'{counted(missing)} without JPEG in {image_folder(root, split)}: {named(missing)}')
    for problem in problems:
        print(problem)
    done = ', '.join(f'{split} {len(instances.numbers)}' for split, instances in made.items())
    print(f'prepared {root} ({done}): {"with the problems named above" if problems else "complete"}')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
