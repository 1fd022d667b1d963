"""Make MS-COCO 2014 ready: labels, lists of ids and label maps from the official annotations.

  python -m coco14.prepare --coco_root DIR [--annotations DIR] [--out DIR]

Reads instances_{train,val}2014.json (in DIR/annotations, where COCO's archive unpacks) and, for
their names alone, the images. Writes below the root, for each split: ImageSets/train2014.txt
(82,783 ids; val2014 40,504), ImageSets/train2014.npz (labels) and
SegmentationClass/train2014/ID.png: 0 background, 1..80 the categories as their ids ascend, 255
crowd regions; where objects overlap, the smaller is on top, and any object is on top of a crowd
region. A crowd region counts as its class among the image-level labels: train2014 then has 702
images without any.

Stopped, the same command goes on with the label maps that are missing. Of the JSON only a piece is
in memory; each worker reads the annotations of its images where they stand in the file. Says which
images lack their JPEG and which entries are broken, by their id: all else is made. Exit code 0 when
all is as it should be, 1 when not, 2 for a wrong flag.
"""
import argparse
import dataclasses
import hashlib
import json
import logging
import math
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
    DIGITS,
    SPLITS,
    id_of,
    image_folder,
    image_name,
    labels_path,
    list_path,
    mask_folder,
    save_labels,
)
from misc import ending, inference, torchutils
from misc.files import label_maps, records
from misc.parsing import Parser
from misc.pyutils import UserError, atomic_path, writing
from voc12.prepare import counted, named

EXPECTED = {'train2014': 82783, 'val2014': 40504}
LONGEST = 1 << 14  # side of an image in pixels; a larger one is no photograph of COCO
NAMED = 100  # broken entries of a split; of more, their number
PIECE = 1 << 20  # bytes of the JSON read at a time
# of the way label maps are made: raise it when that changes, so that older ones are refused, not
# mixed
VERSION = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code; errors are one line on stderr."""
    args = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    return ending.run(lambda: _run(args), ending.fewer_workers(args.num_workers),
                      '; the same command goes on')


# ---- a JSON file of any size ----

class _Reader:
    """The text of a JSON file, a piece at a time. Bytes are read as Latin-1, so that a place in the
    text is one in the file. Raises ValueError where the text is not JSON or ends too early.
    """

    _SPACE, _ENDS = re.compile(r'[ \t\r\n]*'), tuple(' \t\r\n:,]}')
    _decode = staticmethod(json.JSONDecoder().raw_decode)

    def __init__(self, stream: BinaryIO):
        # _start: place of the text's first character
        self._stream, self._text, self._start, self._at = stream, '', 0, 0

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
            raise ValueError(f'{found or "the end"} at byte {self._start + self._at} instead of '
                             f'{" or ".join(choice)}')
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
    """Yield (name, entry, its first byte, the byte after its last) of arrays of a JSON object.

    names: of the arrays.
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

    numbers, heights, widths: int64 (N,), numbers ascending. present: bool (N, C), the classes
    annotated. crowd: bool (N,),
    images with crowd regions. places: int64 (M, 2), first byte and the byte after the last of each
    annotation, in the order of the images; those of image n are first[n]..first[n + 1]. digest: of
    the file. broken: entries that are left out, or that cannot be drawn, a line each; notes: what
    else there is about some.
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
    broken: list[str]
    notes: list[str]

    def ids(self) -> list[str]:
        return [id_of(number) for number in self.numbers]


def read_instances(path: Path, split: str) -> Instances:
    """Raises UserError for a file that is missing, broken, or not MS-COCO 2014's of that split.
    Single entries that are broken are told in `broken`.
    """
    sizes: dict[int, tuple[int, int]] = {}
    # found: image, category, crowd, first byte, byte after the last of each annotation
    found, ids = array('q'), array('q')
    broken, notes, categories = [], [], {}
    early: list[int] = []  # rows of `found` whose image had not come yet
    try:
        with open(path, 'rb') as stream:
            digest = hashlib.sha256()
            while piece := stream.read(PIECE):
                digest.update(piece)
            stream.seek(0)
            for name, entry, start, end in entries(stream, ('images', 'annotations', 'categories')):
                try:
                    if name == 'images':
                        number, hw = _image(path, entry, split)
                        if number in sizes:
                            raise UserError(f'{path}: an image is listed twice ({number}); fetch '
                                            f'it again')
                        sizes[number] = hw
                    elif name == 'annotations':
                        image, category, crowd = _numbers_of(entry)
                        if isinstance(entry.get('id'), int) and abs(entry['id']) < 10 ** DIGITS:
                            ids.append(entry['id'])
                        if image not in sizes:
                            early.append(len(found))
                        elif problem := _not_drawn(entry, sizes[image], notes):
                            broken.append(problem)
                            start = -1
                        found.extend((image, category, crowd, start, end))
                    else:
                        categories[whole(entry, 'id')] = entry['name']
                except ValueError as error:
                    broken.append(f'{name.removesuffix("s")} {_id_in(entry)}: {error}; left out')
            for row in early:
                image, start, end = found[row], found[row + 3], found[row + 4]
                entry = json.loads(os.pread(stream.fileno(), end - start, start))
                if image not in sizes:
                    broken.append(f'annotation {_id_in(entry)}: image {image} is not listed; left '
                                  f'out')
                    found[row] = -1
                elif problem := _not_drawn(entry, sizes[image], notes):
                    broken.append(problem)
                    found[row + 3] = -1
    except FileNotFoundError as error:
        raise UserError(f'{path}: missing; unpack annotations_trainval2014.zip of COCO, and give '
                        f'its folder as '
                        '--annotations where it is not in the root') from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path}: not whole JSON ({error}); fetch it again') from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a file of COCO's instances (an entry without {error})") from error
    if categories != dict(zip(CATEGORY_IDS, CLASSES, strict=True)):
        raise UserError(f"{path}: its categories are not the {len(CLASSES)} of MS-COCO 2014")
    if not sizes:
        raise UserError(f'{path}: no images; fetch it again')
    numbers, times = np.unique(np.frombuffer(ids, np.int64), return_counts=True)
    notes += [f'annotation {number}: {count} of this id, all are drawn'
              for number, count in zip(numbers[times > 1], times[times > 1], strict=True)]
    rows = np.frombuffer(found, np.int64).reshape(-1, 5)
    images = np.array([(number, *hw) for number, hw in sizes.items()], np.int64)
    return _by_image(path, digest.hexdigest()[:16], images, rows[rows[:, 0] >= 0], broken, notes)


def _image(path: Path, entry: Any, split: str) -> tuple[int, tuple[int, int]]:
    """Number and size (H, W). Raises ValueError for an entry that is broken, UserError for one of
    another split.
    """
    number = whole(entry, 'id')
    if not isinstance(entry.get('file_name'), str):
        raise ValueError('without file_name')
    if entry['file_name'] != image_name(split, id_of(number)):
        raise UserError(f'{path}: holds {entry["file_name"]}, not images of {split}; give the '
                        f'folder of '
                        "COCO's 2014 annotations as --annotations")
    hw = whole(entry, 'height'), whole(entry, 'width')
    if min(hw) < 1 or max(hw) > LONGEST:
        raise ValueError(f'a size of {hw[1]} x {hw[0]}')
    return number, hw


def _numbers_of(annotation: Any) -> tuple[int, int, int]:
    """Image, category, crowd or not. Raises ValueError."""
    image, category = whole(annotation, 'image_id'), whole(annotation, 'category_id')
    if category not in CATEGORY_IDS:
        raise ValueError(f'category {category} is none of MS-COCO 2014')
    if image < 0:
        raise ValueError(f'image {image} is not listed')
    return image, category, whole({'iscrowd': 0} | annotation, 'iscrowd')


def _not_drawn(annotation: dict[str, Any], hw: tuple[int, int], notes: list[str]) -> str:
    """What is wrong with its segmentation; nothing where it can be drawn. A part that cannot goes
    to `notes`.
    """
    try:
        found = outlines_or_runs(annotation, hw)
        short = sum(len(outline) < 6 for outline in found) if isinstance(found, list) else 0
        if short == len(found):
            raise ValueError('its outlines have fewer than 3 points' if found
                             else 'its segmentation is empty')
    except ValueError as error:
        return (f'annotation {_id_in(annotation)}: {error}; not drawn, its class stays among the '
                f'labels of its image')
    if short:
        notes.append(f'annotation {_id_in(annotation)}: {short} of its {len(found)} outlines have '
                     f'fewer than 3 points and are '
                     'not drawn')
    return ''


def whole(entry: Any, key: str) -> int:
    """Return a whole number of an entry, which tools also write as 9.0 or "9".

    Raises ValueError, which names it.
    """
    if not isinstance(entry, dict):
        raise ValueError(f'not an entry of COCO ({_shown(entry)})')
    if key not in entry:
        raise ValueError(f'without {key}')
    value = entry[key]
    if isinstance(value, str) and re.fullmatch(r'-?[0-9]+', value.strip()) and len(value) <= DIGITS:
        value = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or abs(value) >= 10 ** DIGITS:
        raise ValueError(f'{key} {_shown(value)} is not a whole number')
    return value


def _id_in(entry: Any) -> str:
    return (_shown(entry['id']).strip('"') if isinstance(entry, dict) and 'id' in entry
            else f'without id {_shown(entry)}')


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + '...'


def _by_image(path: Path, digest: str, images: np.ndarray, found: np.ndarray, broken: list[str],
              notes: list[str]) -> Instances:
    """images: (N, 3) number, height, width; found: (M, 5) image, category, crowd, first byte (-1:
    not to be drawn), byte after the last.
    """
    images = images[images[:, 0].argsort()]
    numbers = images[:, 0]
    rows, keys = numbers.searchsorted(found[:, 0]), np.searchsorted(CATEGORY_IDS, found[:, 1])
    present, crowd = np.zeros((len(numbers), len(CLASSES)), bool), np.zeros(len(numbers), bool)
    present[rows, keys] = True
    crowd[rows[found[:, 2] != 0]] = True
    drawn = found[:, 3] >= 0
    rows, places = rows[drawn], found[drawn, 3:]
    return Instances(path, digest, numbers, images[:, 1], images[:, 2], present, crowd,
                     places[rows.argsort(kind='stable')],
                     np.searchsorted(np.sort(rows), np.arange(len(numbers) + 1)), broken, notes)


# ---- label maps ----

def label_map(annotations: list[dict[str, Any]], hw: tuple[int, int]) -> np.ndarray:
    """Draw the label map of an image, uint8 (H, W), labels 1..C of the categories.

    The smaller of two objects is on top, of equal areas the later one; below all of them, 255 where
    a crowd region is.

    annotations: COCO's, with segmentation (polygons, or run lengths), category_id, iscrowd.
    Raises UserError for a segmentation that is not one of these.
    """
    mask = _pycocotools()
    encoded = [_encoded(mask, annotation, hw) for annotation in annotations]
    areas = [int(area) for area in mask.area(encoded)] if encoded else []
    numbers = [_numbers_of(annotation) for annotation in annotations]
    result = np.zeros(hw, np.uint8, order='F')  # as pycocotools decodes
    for number in sorted(range(len(encoded)),
                         key=lambda number: (not numbers[number][2], -areas[number])):
        _, category, crowd = numbers[number]
        result[mask.decode(encoded[number]).view(bool)] = (label_maps.IGNORE if crowd
                                                           else CATEGORY_IDS.index(category) + 1)
    return result


def _encoded(mask: Any, annotation: dict[str, Any], hw: tuple[int, int]) -> dict[str, Any]:
    """A segmentation as pycocotools' run lengths."""
    try:
        found = outlines_or_runs(annotation, hw)
    except ValueError as error:
        raise UserError(f'annotation {_id_in(annotation)}: not a segmentation of COCO ({error}); '
                        f'fetch the annotations '
                        'again') from error
    if isinstance(found, dict):
        return found if isinstance(found['counts'], str) else mask.frPyObjects(found, *hw)
    # shorter ones would be read as boxes
    outlines = [outline for outline in found if len(outline) >= 6]
    return (mask.merge(mask.frPyObjects(outlines, *hw)) if outlines
            else mask.encode(np.zeros(hw, np.uint8, order='F')))


def outlines_or_runs(annotation: dict[str, Any],
                     hw: tuple[int, int]) -> list[list[float]] | dict[str, Any]:
    """Return the segmentation of an annotation: outlines [x, y, x, y, ...], or run lengths.

    hw: size of the image.
    Outlines may also be lists of [x, y], or a single one. Raises ValueError, which says why, for
    everything that pycocotools would not draw as it is meant, or that would crash it.
    """
    found = annotation.get('segmentation')
    if found is None:
        raise ValueError('without segmentation')
    if isinstance(found, dict):
        return _checked_runs(found, hw)
    if not isinstance(found, list):
        raise ValueError('its segmentation is neither a list of outlines nor run lengths')
    if found and not isinstance(found[0], list):
        found = [found]  # one outline, without the list around it
    elif len(found) > 2 and all(map(_is_point, found)):
        found = [found]
    return [_checked_outline(outline, hw) for outline in found]


def _checked_outline(outline: Any, hw: tuple[int, int]) -> list[float]:
    if isinstance(outline, list) and outline and all(map(_is_point, outline)):
        outline = [value for point in outline for value in point]
    try:
        total, low, high = sum(outline), min(outline, default=0), max(outline, default=0)
    except (TypeError, OverflowError):
        raise ValueError('an outline that is not a list of numbers') from None
    if isinstance(total, float) and not math.isfinite(total):
        raise ValueError('an outline with NaN or infinite numbers')
    if low < -max(hw) or high > 2 * max(hw):
        raise ValueError(f'an outline far outside its image of {hw[1]} x {hw[0]} ({_shown(low)} to '
                         f'{_shown(high)})')
    if len(outline) % 2:
        raise ValueError(f'an outline of {len(outline)} numbers, an x without its y')
    return outline


def _is_point(value: Any) -> bool:
    return (isinstance(value, list) and len(value) == 2
            and not any(isinstance(number, list) for number in value))


def _checked_runs(runs: dict[str, Any], hw: tuple[int, int]) -> dict[str, Any]:
    size, counts = runs.get('size'), runs.get('counts')
    if size != list(hw):
        raise ValueError(f'run lengths of the size {_shown(size)}, its image is {list(hw)}')
    numbers = _decompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(numbers, list) or not all(type(count) is int for count in numbers):
        raise ValueError('run lengths that are not whole numbers')
    if min(numbers, default=0) < 0:
        raise ValueError('run lengths below 0')
    if sum(numbers) != hw[0] * hw[1]:
        raise ValueError(f'run lengths of {sum(numbers)} pixels, its image has {hw[0] * hw[1]}')
    return {'size': list(hw), 'counts': counts}


def _decompressed(counts: str) -> list[int]:
    """The run lengths in COCO's compressed form: 5 bits a character, from '0' on, the lowest first,
    the sixth for more to come; from the fourth run on, the difference from the run before the last.
    """
    numbers: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f'compressed run lengths with {character!r}')
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        numbers.append(value + numbers[-2] if len(numbers) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError('compressed run lengths that end within a number')
    return numbers


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            'label maps of MS-COCO need pycocotools: pip install pycocotools') from error
    return mask


def make_label_maps(instances: Instances, folder: Path, num_workers: int, overwrite: bool) -> None:
    """SegmentationClass/SPLIT/ID.png for every image that has none yet, by worker processes."""
    _pycocotools()
    records.open_folder(folder, {'stage': 'coco14.prepare', 'version': VERSION,
                                 'annotations': instances.digest}, ('.png',),
                        overwrite)
    with open(instances.path, 'rb') as stream:
        def make(image_id: str) -> None:
            row = int(instances.numbers.searchsorted(int(image_id)))
            places = instances.places[instances.first[row]:instances.first[row + 1]]
            annotations = [json.loads(os.pread(stream.fileno(), end - start, start))
                           for start, end in places]
            made = label_map(annotations, (int(instances.heights[row]), int(instances.widths[row])))
            label_maps.save(label_maps.label_path(folder, image_id), made, COCO14.palette)

        with inference.Images(instances.ids(), lambda image_id: label_maps.exists(folder, image_id),
                              num_workers) as images:
            images.make(make)


# ---- the command ----

def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog='python -m coco14.prepare', description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--coco_root', type=Path, required=True, metavar='DIR',
                        help='the folder that holds JPEGImages/train2014 (or train2014)')
    parser.add_argument('--annotations', type=Path, metavar='DIR',
                        help='the folder of instances_train2014.json and instances_val2014.json '
                             '(default: annotations in '
                             'the root)')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='write there instead of into the root, with links to the images: DIR '
                             'is then what --data_root '
                             'names')
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS),
                        help='make these alone (default: both)')
    parser.add_argument('--num_workers', type=int, default=torchutils.cores(), metavar='N',
                        help='processes that make label maps (default: one a core)')
    parser.add_argument('--overwrite', action='store_true',
                        help='make label maps anew that were made of other annotations')
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
    out = args.out or root
    if not root.is_dir():
        raise UserError(f'{root}: no such folder; --coco_root is the one that holds '
                        f'JPEGImages/train2014')
    _pycocotools()
    problems, shown, made = [], [], {}
    for split in args.splits:
        made[split] = instances = read_instances(annotations / f'instances_{split}.json', split)
        print(f'{split}: {counted(instances.numbers)}, {len(instances.places)} annotations; '
              f'{counted(np.flatnonzero(~instances.present.any(1)))} without a class, '
              f'{counted(np.flatnonzero(instances.crowd))} with crowd regions', flush=True)
        shown += [*_first(instances.broken), *_first(instances.notes)]
        if instances.broken:
            problems.append(f'{split}: {len(instances.broken)} broken entries in {instances.path}')
    print(*shown, sep='\n', end='\n' if shown else '', flush=True)
    others = [f'{split}: {len(instances.numbers)} images, not {EXPECTED[split]}'
              for split, instances in made.items()
              if len(instances.numbers) != EXPECTED[split]]
    if others and not args.allow_other_counts:
        raise UserError('; '.join(others) + ': nothing written; fetch the annotations again, or '
                                            'for a part of the data '
                        'set add --allow_other_counts')
    for split, instances in made.items():
        with atomic_path(list_path(out, split)) as temporary:
            temporary.write_text(''.join(f'{image_id}\n' for image_id in instances.ids()),
                                 encoding='utf-8')
        save_labels(labels_path(out, split), instances.numbers, instances.present)
        make_label_maps(instances, mask_folder(out, split), args.num_workers, args.overwrite)
    if out.resolve() != root.resolve():
        _link_images(root, out, args.splits)
    source = COCO14(out)
    for split, instances in made.items():
        missing = source.check(instances.ids()).missing_image
        if missing:
            problems.append(f'{counted(missing)} without JPEG in {image_folder(root, split)}: '
                            f'{named(missing)}')
    for problem in problems:
        print(problem)
    done = ', '.join(f'{split} {len(instances.numbers)}' for split, instances in made.items())
    print(f'prepared {out} ({done}): {"with the problems named above" if problems else "complete"}')
    return 1 if problems else 0


def _first(lines: list[str]) -> list[str]:
    return lines[:NAMED] + ([f'... and {len(lines) - NAMED} more'] if len(lines) > NAMED else [])


def _link_images(root: Path, out: Path, splits: list[str]) -> None:
    """Makes the images of `root` those of `out`, too."""
    for split in splits:
        link, target = out / 'JPEGImages' / split, image_folder(root, split).resolve()
        if link.is_symlink() or not link.exists():
            with writing(link):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        elif link.resolve() != target:
            raise UserError(f'{link}: other images are there; name another --out')


if __name__ == '__main__':
    sys.exit(main())
