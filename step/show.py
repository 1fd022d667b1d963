"""Draw what the stages make of one photograph: activations, masks, refined seeds, boundaries.

    python -m step.show IMAGE --labels dog,person [--out FILE] [--mask_out FILE]
        [--work_dir DIR] [flags of run_sample.py]

Not a stage but a command: it reads the three weights below --work_dir and no data set, computes in
memory, by amn.py, what the stages would write for this image, and leaves one PNG (--out) and, where
asked for, the pseudo-mask (--mask_out).
"""
import argparse
import csv
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import amn
from misc import ending, imutils
from misc.command import options
from misc.contract import sources
from misc.draw import colours, drawing
from misc.files import label_maps
from misc.method import maps
from misc.pyutils import UserError
from step.pipeline import STAGES
from voc12.dataloader import PALETTE

LONG_SIDE = 320  # of a picture on the sheet, pixels
# of the columns: CAM, AMN, pseudo-mask
INKS = [colours.rgb(colours.METHODS[name].light) for name in ('cam', 'amn_cam', 'sem_seg')]
CELL_WIDTH = 150  # at least, for the texts
SCALE_HEIGHT = 20  # of the scale of colours


class Column(NamedTuple):
    """A method's part of the sheet: its planes, the mask at its threshold, and a last picture."""

    heading: str
    planes: np.ndarray
    mask: np.ndarray
    mask_caption: str
    last: np.ndarray
    last_caption: str


def build_parser() -> argparse.ArgumentParser:
    parser = options.parser_of(
        STAGES, amn.FLAGS, usage='python -m step.show IMAGE --labels NAME,NAME ... [flags]',
        description="Draw one photograph's activations, masks, refined seeds, boundaries and "
                    "pseudo-mask from trained weights.")
    parser.add_argument('image', metavar='IMAGE',
                        help='the photograph; turned as its EXIF orientation says')
    parser.add_argument('--labels', required=True, metavar='NAME,NAME',
                        help='the classes that it shows; a name with a comma may stand in '
                             'quotation marks')
    parser.add_argument('--out', metavar='FILE',
                        help="the PNG (default: IMAGE's name and _amn.png, in the current folder)")
    parser.add_argument('--mask_out', metavar='FILE',
                        help='write the pseudo-mask there too, a palette PNG')
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse this command's flags; every other one of run_sample.py is at its default."""
    args = options.build_parser(STAGES).parse_args([], build_parser().parse_args(arguments))
    args.out = args.out or f'{Path(args.image).stem}_amn.png'
    return args


def names_in(text: str, classes: Collection[str]) -> list[str]:
    """Split 'dog,person' into names.

    Names with a comma are written in quotation marks, with a backslash
    before it, or as they are: where one is not known, the longest known one that it begins with
    what follows it.
    """
    known = set(map(sources.spelling, classes))
    try:
        cells, = csv.reader([text], skipinitialspace=True, escapechar='\\', strict=True)
    except (csv.Error, ValueError):
        cells = text.split(',')
    names, left = [], [name for name in map(sources.spelling, cells) if name]
    while left:
        longer = [(mark.join(left[:end]), end) for end in range(len(left), 1, -1)
                  for mark in (', ', ',')]
        name, used = next(((name, end) for name, end in longer if name in known
                           and left[0] not in known), (left[0], 1))
        names.append(name)
        left = left[used:]
    return names


def present_classes(text: str, classes: Sequence[str]) -> np.ndarray:
    """Turn 'dog,person' into bool (C,).

    Raises UserError for no name, and for names that are not among the classes.
    """
    return amn.present_classes(names_in(text, classes), classes, '--labels')


def check(args: argparse.Namespace) -> None:
    """Raise UserError for outputs that cannot be."""
    if args.mask_out and not amn.has_irn(args):
        raise UserError(f'{args.irn_weights_name}: no such weights; --mask_out needs them: train '
                        f'IRN, or --irn_weights_name')
    paths = [Path(path).resolve() for path in (args.image, args.out, args.mask_out) if path]
    if len(set(paths)) < len(paths):
        raise UserError('IMAGE, --out and --mask_out: one file cannot be two of them')


def draw(args: argparse.Namespace, image: np.ndarray, made: amn.Activations,
         classes: Sequence[str]) -> np.ndarray:
    """Draw the sheet: a column for the photograph and for each method.

    Its rows are masks, one for each class present, and refined seeds and boundaries.
    """
    masks = amn.masks_of(image, made, args)
    hw = imutils.scaled_hw(image.shape[:2], LONG_SIDE / max(image.shape[:2]))
    # drawn at the sheet's size, so that contours and hatching stay as they are
    image = imutils.resize(image, hw)

    def activation(plane: np.ndarray) -> np.ndarray:
        return drawing.overlay_activation(image,
                                          maps.resize(torch.from_numpy(plane)[None], hw)[0].numpy())

    def label_map(label_map_hw: np.ndarray) -> np.ndarray:
        return drawing.overlay_labels(image, label_maps.resize(label_map_hw, hw), PALETTE)

    columns = [
        Column('CAM', made.cam, masks.cam, f'mask at {args.eval_cam_thres:.2f}',
               label_map(made.cam_seed),
               f'refined seed, {args.cam_conf_fg_thres:.2f} and {args.cam_conf_bg_thres:.2f}'),
        Column('AMN', made.amn, masks.amn, f'mask at {args.eval_amn_cam_thres:.2f}',
               label_map(made.amn_seed),
               f'refined seed, {args.amn_conf_fg_thres:.2f} and {args.amn_conf_bg_thres:.2f}')]
    title, found_in, refined = '', "AMN's mask", ', CRF' if args.sem_seg_crf else ''
    if made.walked is None:
        title = f'\nno pseudo-mask: there is no {args.irn_weights_name}'
    else:
        found_in = 'the pseudo-mask'
        columns.append(Column(
            'random walk', made.walked, masks.pseudo,
            f'pseudo-mask, at {args.sem_seg_bg_thres:.2f}{refined}', activation(made.edge[0]),
            "IRN's class boundaries"))

    rows = [[image, *(label_map(column.mask) for column in columns)]]
    captions = [['', *(column.mask_caption for column in columns)]]
    for number, key in enumerate(made.keys):
        mask = columns[-1].mask
        rows.append([label_map(np.where(mask == key + 1, mask, 0)),
                     *(activation(column.planes[number]) for column in columns)])
        captions.append([f'{classes[key]} in {found_in}', *[classes[key]] * len(columns)])
    cell = max(hw[0], SCALE_HEIGHT), max(hw[1], CELL_WIDTH)
    rows.append([_scale(cell), *(column.last for column in columns)])
    captions.append(['activation, 0 to 1; hatched: ignored',
                     *(column.last_caption for column in columns)])

    names = ', '.join(classes[key] for key in made.keys)
    return drawing.contact_sheet(rows, ['photograph', *(column.heading for column in columns)],
                                 captions=captions, cell=cell,
                                 heading_inks=[None, *INKS[:len(columns)]],
                                 title=f'{Path(args.image).name}: {names}{title}')


def _scale(cell: tuple[int, int]) -> np.ndarray:
    """The colours of activations from 0 to 1, over grey, along the bottom of a cell (height,
    width).
    """
    ramp = np.tile(np.linspace(0, 1, cell[1]), (SCALE_HEIGHT, 1))
    scale = np.full((*cell, 3), drawing.PAPER, np.uint8)
    scale[-SCALE_HEIGHT:] = drawing.overlay_activation(np.full((*ramp.shape, 3), 128, np.uint8),
                                                       ramp)
    return scale


def run(args: argparse.Namespace) -> None:
    amn.resolve(args)
    check(args)
    model = amn.Model(args)
    numbers = np.flatnonzero(present_classes(args.labels, model.classes)) + 1
    image = imutils.read_image(args.image, upright=True)
    made = model.activations(image, numbers)
    drawing.save(args.out, draw(args, image, made, model.classes))
    print(f'written: {args.out}')
    if args.mask_out:
        label_maps.save(args.mask_out, amn.masks_of(image, made, args).pseudo, PALETTE)
        print(f'written: {args.mask_out}')
    if made.walked is None:
        print(f'no pseudo-mask: {args.irn_weights_name}: no such weights; run --train_irn_pass '
              f'True first, or name them '
              'with --irn_weights_name')


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    return ending.run(lambda: run(args), ending.remedy_of('show', args))


if __name__ == '__main__':
    sys.exit(main())
