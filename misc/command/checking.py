"""What `--check_data` prints: on one page what a data set holds, what is wrong, and the remedy."""
import argparse
import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from misc import imutils, torchutils
from misc.contract.sources import Check, Source, some
from misc.data import datasets
from misc.pyutils import UserError
from misc.score import masks, scores

# image and mask files that are opened where nothing is decoded; of more, this many drawn evenly
LOOKED_AT = 5000
NAMED = 20  # problems; of more, their number
TIMES = 10  # as many pixels as the median photograph: such a one is told of
LARGE = 1024  # long side in pixels, twice that of the photographs that the defaults were chosen for
WIDE = 110  # characters of the table of classes, where there are too many for one column
LONG = 40  # its rows


def page(source: Source, lists: dict[str, str], num_workers: int, decode: bool = False,
         estimate: Callable[[tuple[int, int]], str] | None = None) -> tuple[str, bool]:
    """Return the text of the page, and whether stages can run.

    lists: flag -> list or split.
    num_workers: processes that open files.
    decode: whether every photograph is decoded; else headers are read.
    estimate: makes the line on memory from the size (H, W) of the largest photograph.
    """
    found, wrong = _checks(source, lists)
    whole = source.check(())
    wrong = [*whole.wrong, *wrong]
    ids = list(dict.fromkeys(image_id for listed, _ in found.values() for image_id in listed))
    files = _look_at_files(source, ids, num_workers, decode)
    wrong += _problems(files)
    notes = _notes_on_files(files, source.upright)
    odd = masks.odd(source.classes, [file.mask for file in files if file.mask is not None])
    wrong, notes = wrong + odd[0], notes + odd[1]
    if source.name != 'folder' and found and not any(check.per_class.any()
                                                     for _, check in found.values()):
        wrong.append(f'no image of any list shows one of the {source.n_classes} classes of '
                     f'{source.name}; for classes of your '
                     'own take --dataset folder, with images/ and labels.csv')
    scored = found.get(lists['eval_set'])
    if scored and not scored[0]:
        notes.append(f'no image of {lists["eval_set"]} has a mask: nothing can be scored; every '
                     f'other stage goes without')
    shown = found.get(lists['train_list'])
    if shown and not shown[1].per_class.all():
        notes.append(f'no image of {lists["train_list"]} shows '
                     + some([name for name, count in zip(source.classes, shown[1].per_class,
                                                         strict=True) if count == 0]))
    parts = [f'{source.name} {source.root}: {source.n_classes} classes',
             _table_of_lists(lists, found), _sizes(files, len(ids)),
             _table_of_classes(source, found),
             'Training needs images and their labels; only the images of --eval_set need masks.',
             estimate(max((file.hw for file in files if file.hw), key=_pixels, default=(0, 0)))
             if estimate else '', _lines('Worth knowing', [*whole.notes, *notes]),
             _lines('To be mended', wrong) or 'Nothing needs mending.']
    return '\n\n'.join(part for part in parts if part), not wrong


def _checks(source: Source, lists: dict[str, str]) -> tuple[dict[str, tuple[list[str], Check]],
                                                            list[str]]:
    """list -> (ids, what a check of them found), each list once; and what is wrong with lists,
    labels and masks.
    """
    found: dict[str, tuple[list[str], Check]] = {}
    wrong = []
    for flag, name in lists.items():
        try:
            ids = source.ids(name)
        except UserError as error:
            wrong.append(f'--{flag}: {error}')
            continue
        if name not in found:
            found[name] = ids, source.check(ids)
        check = found[name][1]
        if check.missing_annotation:
            other = (f'; for other classes than those of {source.name} take --dataset folder'
                     if source.name != 'folder' and 2 * len(check.missing_annotation) > len(ids)
                     else '')
            wrong.append(f'--{flag} {name}: {_first_error(source, check.missing_annotation[0])} '
                         f'({len(check.missing_annotation)} of {len(ids)} images){other}')
        if flag == 'eval_set' and check.missing_mask:
            wrong.append(f'--{flag} {name}: {source.mask_path(check.missing_mask[0])}: missing; a '
                         f'score needs the mask of '
                         f'every image ({len(check.missing_mask)} of {len(ids)} images)')
    return found, wrong


def _first_error(source: Source, image_id: str) -> str:
    try:
        source.labels(image_id)
    except UserError as error:
        return str(error)
    return f'{image_id}: no labels'


@dataclasses.dataclass
class _File:
    """What an image's file and mask hold: size (H, W), None where it cannot be read; whether
    viewers turn it; what is wrong, and the kind of it, of which one is told for all; which of
    imutils.REMARKS there are; the mask.
    """

    image_id: str
    hw: tuple[int, int] | None
    turned: bool = False
    problem: str = ''
    kind: str = ''
    remarks: Sequence[str] = ()
    mask: masks.Seen | None = None


def _look_at_files(source: Source, ids: list[str], num_workers: int, decode: bool) -> list[_File]:
    """Images, and their masks where there are some; where images are not decoded, of many those
    drawn.
    """
    if len(ids) > LOOKED_AT and not decode:
        ids = [ids[position] for position in np.sort(
            np.random.default_rng(0).choice(len(ids), LOOKED_AT, replace=False))]

    def look(image_id: str) -> _File:
        file = _File(image_id, None)
        try:
            path, upright = source.image_path(image_id), source.upright
            file.hw, file.turned = imutils.read_header(path, upright)
            if decode:
                file.remarks = imutils.photograph(path, upright)[1]
            if source.mask_path(image_id).is_file():
                file.kind = 'mask'
                file.mask = masks.look(source, image_id,
                                       scores.read_values(source, image_id, file.hw))
        except UserError as error:
            file.problem = str(error)
        return file

    return [datasets.checked(file)
            for file in torchutils.progress(datasets.read_ahead(look, ids, num_workers),
                                            total=len(ids), unit='image')]


def _problems(files: list[_File]) -> list[str]:
    """A line for each photograph; of masks with one fault, which are rarely alone, one line."""
    lines = [file.problem for file in files if file.problem and file.kind != 'mask']
    faults: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for file in files:
        if file.problem and file.kind == 'mask':
            fault = re.sub(rf'\b{re.escape(file.image_id)}\b|\d+', '#',
                           file.problem.partition('.png: ')[2])
            faults.setdefault(fault, []).append(file.image_id)
            first.setdefault(fault, file.problem)
    return lines + [first[fault] + (f'; so are {len(ids) - 1} more masks ({some(ids[1:])})'
                                    if ids[1:] else '')
                    for fault, ids in faults.items()]


def _pixels(hw: tuple[int, int]) -> int:
    return hw[0] * hw[1]


def _sizes(files: list[_File], images: int) -> str:
    """One line. images: their number, of which these files are all or a part."""
    sizes = sorted((file.hw for file in files if file.hw), key=_pixels)
    if not sizes:
        return ''
    smallest, median, largest = (f'{sizes[position][1]} x {sizes[position][0]}'
                                 for position in (0, len(sizes) // 2, -1))
    which = (f'all {images} images' if len(files) == images
             else f'{len(files)} of {images} images, drawn evenly')
    return (f'Width x height of {which}: smallest {smallest}, median {median}, largest {largest} '
            f'(by area).')


def _notes_on_files(files: list[_File], upright: bool) -> list[str]:
    notes = []
    turned = [file.image_id for file in files if file.turned]
    if turned and upright:
        notes.append(f'{len(turned)} photographs carry an orientation (EXIF), which is followed, '
                     f'as viewers do '
                     f'({some(turned)}): a mask of theirs lies over the photograph as viewers show '
                     f'it')
    elif turned:
        notes.append(f'{len(turned)} photographs carry an orientation (EXIF) that viewers follow '
                     f'and this program does not, as '
                     f'masks do not ({some(turned)}): turn the pixels themselves, for example by '
                     f'mogrify -auto-orient')
    pixels = sorted(_pixels(file.hw) for file in files if file.hw)
    huge = [file for file in files if file.hw
            and _pixels(file.hw) >= TIMES * pixels[len(pixels) // 2]]
    if huge:
        largest = max(huge, key=lambda file: _pixels(file.hw))
        notes.append(f'{len(huge)} photographs have {TIMES} times the pixels of the median one, or '
                     f'more '
                     f'({some([file.image_id for file in huge])}; {largest.image_id} is '
                     f'{largest.hw[1]} x {largest.hw[0]}): '
                     'time and memory grow with pixels; shrink them, and their masks by nearest, '
                     'or take them out of the lists')
    for remark, text in imutils.REMARKS.items():
        if found := [file.image_id for file in files if remark in file.remarks]:
            notes.append(f'{len(found)} {text} ({some(found)})')
    large = [file.image_id for file in files if file.hw and max(file.hw) > LARGE]
    if 2 * len(large) > len(files):
        notes.append(f'most photographs are longer than {LARGE} pixels; time and memory grow with '
                     f'their pixels, and the '
                     'defaults suit about 500: make copies of that size, for example by mogrify '
                     '-resize 512x512')
    return notes


def _table_of_lists(lists: dict[str, str], found: dict[str, tuple[list[str], Check]]) -> str:
    rows = [(f'--{flag} {name}', len(found[name][0]), len(found[name][1].missing_annotation),
             len(found[name][1].no_class),
             len(found[name][1].missing_mask)) for flag, name in lists.items() if name in found]
    return (scores.table(('list', 'images', 'without labels', 'without class', 'without mask'),
                         rows) if rows else '')


def _table_of_classes(source: Source, found: dict[str, tuple[list[str], Check]]) -> str:
    """How many images of each list show each class; many classes side by side."""
    if not found:
        return ''
    headings = ('images that show', *(Path(name).stem for name in found))
    rows = [(name if len(name) <= 24 else name[:23] + '…',
             *(int(check.per_class[number]) for _, check in found.values()))
            for number, name in enumerate(source.classes)]
    width = max(map(len, scores.table(headings, rows).splitlines())) + 4
    columns = min(-(-len(rows) // LONG), max(1, WIDE // width))
    length = -(-len(rows) // columns)
    blocks = [scores.table(headings, rows[first:first + length]).splitlines()
              for first in range(0, len(rows), length)]
    return '\n'.join(''.join(block[line].ljust(width) for block in blocks
                             if line < len(block)).rstrip()
                     for line in range(length + 2))


def _lines(heading: str, lines: Sequence[str]) -> str:
    if not lines:
        return ''
    rest = [f'  ... and {len(lines) - NAMED} more'] if len(lines) > NAMED else []
    return '\n'.join([f'{heading} ({len(lines)}):', *(f'- {line}' for line in lines[:NAMED]),
                      *rest])


def memory(args: argparse.Namespace, hw: tuple[int, int]) -> str:
    """Estimate in one line what memory the networks take.

    Extrapolated from what was measured with ResNet-50 in float32 on a CPU (README, "Time and
    memory").
    hw: size of the largest photograph.
    """
    start = 0.7  # GB of a process before its first image
    # GB, pixels of a batch
    measured = {'cam': (3.7, 16 * 512 ** 2), 'amn': (8.7, 16 * 512 ** 2),
                'irn': (8.7, 32 * 512 ** 2)}
    trainings = [f'train_{name} {start + (gigabytes - start) * _batch(args, name) / pixels:.1f}'
                 for name, (gigabytes, pixels) in measured.items()]
    # 1.6 and 4.0 GB of make_amn_cam, which takes the most: 500 x 375 and 2048 x 1536, at scale 2
    # and below
    least, most, small, large = 1.6, 4.0, 500 * 375, 2048 * 1536
    pixels = _pixels(hw) * (max(args.cam_scales) / 2) ** 2
    making = max(start, least + (most - least) * (pixels - small) / (large - small))
    return (f'Memory with these flags, estimated for ResNet-50 in float32: '
            f'{" GB, ".join(trainings)} GB; make_cam and '
            f'make_amn_cam {making:.1f} GB for the largest photograph ({hw[1]} x {hw[0]}).')


def _batch(args: argparse.Namespace, name: str) -> float:
    """Pixels of a training batch, or of the part of it that is taken at once."""
    return -(-getattr(
        args, f'{name}_batch_size') // args.accumulate) * getattr(args, f'{name}_crop_size') ** 2
