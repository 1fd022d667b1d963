"""Draw what the stages make of one photograph: activations, masks, refined seeds, boundaries.

    python -m step.show IMAGE --labels dog,person [--out FILE] [--mask_out FILE]
        [--work_dir DIR] [flags of run_sample.py]

Not a stage but a command: it reads the three weights below --work_dir and no data set, computes in
  memory, with the stages' functions, what they would write for this image, and leaves one PNG
  (--out) and, where asked for, the pseudo-mask (--mask_out).
"""
import argparse
import csv
import difflib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from misc import ending, imutils, networks, torchutils
from misc.command import options
from misc.contract import sources
from misc.contract.settings import (
    AUTO,
    AmnActivations,
    AmnScore,
    AmnSeeds,
    CamActivations,
    CamScore,
    CamSeeds,
    PseudoMasks,
    SharedThresholds,
    Walk,
)
from misc.data import datasets
from misc.draw import drawing
from misc.files import activations, label_maps, records, weights
from misc.method import activating, maps, seeds, walking
from misc.pyutils import UserError
from step.pipeline import STAGES
from voc12.dataloader import CLASSES, PALETTE

THRESHOLDS = tuple(flag for cls in (CamScore, CamSeeds, AmnScore, AmnSeeds)
                   for flag in cls.flags().values())
FLAGS = ('device', 'precision', 'work_dir', 'cam_weights_name', 'amn_weights_name',
         'irn_weights_name', *THRESHOLDS,
         *SharedThresholds.flags().values(),
         *(flag for cls in (CamActivations, AmnActivations, Walk, PseudoMasks)
           for name, flag in cls.flags().items() if name != 'dtype'))
LONG_SIDE = 320  # of a picture on the sheet, pixels
CELL_WIDTH = 150  # at least, for the texts
SCALE_HEIGHT = 20  # of the scale of colours


class Made(NamedTuple):
    """What the stages make of one image.

    keys: (K,), the classes present.
    cam, amn: planes (K, H, W).
    cam_seed, amn_seed: label maps (H, W).
    edge: (1, h, w) at stride 4; None without IRN's weights.
    walked: (K, H, W); None without IRN's weights.
    """

    keys: np.ndarray
    cam: np.ndarray
    cam_seed: np.ndarray
    amn: np.ndarray
    amn_seed: np.ndarray
    edge: torch.Tensor | None
    walked: np.ndarray | None


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
        STAGES, FLAGS, usage='python -m step.show IMAGE --labels NAME,NAME ... [flags]',
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


def class_names(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the classes that CAM's and AMN's weights were trained for.

    The records beside them tell; VOC's where there is none (the authors' files). Raises UserError
    where the two differ.
    """
    found = {}
    for path in (args.cam_weights_name, args.amn_weights_name):
        record = records.read_weights_record(path) or {}
        if 'classes' in record:
            found[path] = tuple(record['classes'])
    if len(set(found.values())) > 1:
        raise UserError(f'{" and ".join(found)} were trained for different classes; name weights '
                        f'of the same run')
    return next(iter(found.values()), CLASSES)


def present_classes(text: str, classes: Sequence[str]) -> np.ndarray:
    """Turn 'dog,person' into bool (C,).

    Names with a comma are written in quotation marks, with a backslash before it, or as they are.
    Raises UserError for no name, and for names that are not among the classes.
    """
    by_spelling = {sources.spelling(name): name for name in classes}
    names = [by_spelling.get(name, name) for name in _names_in(text, by_spelling)]
    unknown = [_with_matches(name, classes) for name in names if name not in classes]
    if unknown or not names:
        message = f'{", ".join(unknown)}: not among' if unknown else 'names none of'
        raise UserError(f'--labels {message} the {len(classes)} classes of these weights: '
                        f'{", ".join(classes)}')
    return np.isin(classes, names)


def _names_in(text: str, classes: Collection[str]) -> list[str]:
    """The names between commas; where one is not known, the longest known one that it begins with
    what follows it.
    """
    try:
        cells, = csv.reader([text], skipinitialspace=True, escapechar='\\', strict=True)
    except (csv.Error, ValueError):
        cells = text.split(',')
    names, left = [], [name for name in map(sources.spelling, cells) if name]
    while left:
        longer = [(mark.join(left[:end]), end) for end in range(len(left), 1, -1)
                  for mark in (', ', ',')]
        name, used = next(((name, end) for name, end in longer if name in classes
                           and left[0] not in classes), (left[0], 1))
        names.append(name)
        left = left[used:]
    return names


def _with_matches(name: str, classes: Sequence[str]) -> str:
    """The name, and those that may be meant."""
    by_lower = {name.lower(): name for name in classes}
    matches = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower)]
    return f'{name!r} ({" or ".join(matches)}?)' if matches else repr(name)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what can be known to be wrong before anything is computed."""
    for flag in ('cam_network', 'amn_network', 'irn_network'):
        networks.module_of(getattr(args, flag), flag)
    chosen = [f'--{flag}' for flag in (*THRESHOLDS, *PseudoMasks.flags().values())
              if getattr(args, flag) == AUTO]
    if chosen:
        raise UserError(f'{", ".join(chosen)}: {AUTO} takes the activations of many images; give a '
                        f'number')
    missing = [name for name in ('cam_weights_name', 'amn_weights_name')
               if weights.existing(getattr(args, name)) is None]
    if missing:
        raise UserError(f'{", ".join(getattr(args, name) for name in missing)}: no such weights; '
                        f'train them with '
                        f'run_sample.py, or name others: --work_dir, '
                        f'{", ".join(f"--{name}" for name in missing)}')
    if args.mask_out and not has_irn(args):
        raise UserError(f'{args.irn_weights_name}: no such weights; --mask_out needs them: train '
                        f'IRN, or --irn_weights_name')
    paths = [Path(path).resolve() for path in (args.image, args.out, args.mask_out) if path]
    if len(set(paths)) < len(paths):
        raise UserError('IMAGE, --out and --mask_out: one file cannot be two of them')


def has_irn(args: argparse.Namespace) -> bool:
    return weights.existing(args.irn_weights_name) is not None


def compute(args: argparse.Namespace, image: np.ndarray, present: np.ndarray) -> Made:
    """Compute what the stages make of an image.

    image: uint8 (H, W, 3).
    present: bool (C,), the classes that it shows.
    """
    cam_settings, amn_settings, walk_settings = (cls.of(args)
                                                 for cls in (CamActivations, AmnActivations, Walk))
    device, hw, images = args.device, image.shape[:2], datasets.scaled_images(image,
                                                                              cam_settings.scales)

    def trained(name: str, settings: CamActivations | AmnActivations | Walk, *n_classes: int,
                **options: Any) -> torch.nn.Module:
        return networks.load(settings.network, *n_classes,
                             path=getattr(args, f'{name}_weights_name'), device=device,
                             remedy=f'run --train_{name}_pass True first',
                             precision=settings.precision, **options)[0]

    cam = activating.cam_of(trained('cam', cam_settings, len(present),
                                    backbone=cam_settings.backbone),
                            np.flatnonzero(present), hw,
                            images, device, cam_settings.precision)
    cam_seed = seeds.refined_seed(image, cam.keys, cam.high_res, args.cam_conf_fg_thres,
                                  args.cam_conf_bg_thres)
    amn_net = trained('amn', amn_settings, len(present), backbone=amn_settings.backbone,
                      label_conditioning=amn_settings.label_conditioning)
    whole_amn = activating.amn_cam_of(amn_net, present, cam_seed, images, device,
                                      amn_settings.precision)
    amn = whole_amn.without_background()
    amn_seed = seeds.refined_seed(image, amn.keys, amn.high_res, args.amn_conf_fg_thres,
                                  args.amn_conf_bg_thres)
    edge = walked = None
    if has_irn(args):
        whole = datasets.scaled_images(image, [1.0])[0].to(device)
        edge = walking.edge_of(trained('irn', walk_settings), whole, walk_settings.precision,
                               walk_settings.canvas)
        start = walking.start(walk_settings.foreground, walk_settings.background, whole_amn, cam)
        strided = walking.class_scores(
            walking.walk(start.to(device), edge, walk_settings.power, walk_settings.beta,
                         walk_settings.exp_times), walk_settings.background).cpu().numpy()
        walked = walking.planes_of(activations.Walked(amn.keys, strided, np.array(hw)),
                                   walk_settings.background)
    return Made(cam.keys, cam.high_res, cam_seed, amn.high_res, amn_seed, edge, walked)


def mask_of(made: Made, planes: np.ndarray, threshold: float) -> np.ndarray:
    """Return the label map (H, W) of planes (K, H, W) at a threshold."""
    return seeds.class_ids(made.keys)[seeds.arg_max(planes, threshold)]


def draw(args: argparse.Namespace, image: np.ndarray, made: Made,
         classes: Sequence[str]) -> np.ndarray:
    """Draw the sheet: a column for the photograph and for each method.

    Its rows are masks, one for each class present, and refined seeds and boundaries.
    """
    hw = imutils.scaled_hw(image.shape[:2], LONG_SIDE / max(image.shape[:2]))
    # drawn at the sheet's size, so that contours and hatching stay as they are
    image = imutils.resize(image, hw)

    def activation(plane: np.ndarray) -> np.ndarray:
        return drawing.overlay_activation(image,
                                          maps.resize(torch.from_numpy(plane)[None], hw)[0].numpy())

    def label_map(label_map_hw: np.ndarray) -> np.ndarray:
        return drawing.overlay_labels(image, label_maps.resize(label_map_hw, hw), PALETTE)

    def seed_column(heading: str, planes: np.ndarray, seed: np.ndarray, at: float, fg: float,
                    bg: float) -> Column:
        return Column(heading, planes, mask_of(made, planes, at), f'mask at {at:.2f}',
                      label_map(seed), f'refined seed, {fg:.2f} and {bg:.2f}')

    columns = [
        seed_column('CAM', made.cam, made.cam_seed, args.eval_cam_thres, args.cam_conf_fg_thres,
                    args.cam_conf_bg_thres),
        seed_column('AMN', made.amn, made.amn_seed, args.eval_amn_cam_thres, args.amn_conf_fg_thres,
                    args.amn_conf_bg_thres)]
    title, found_in = '', "AMN's mask"
    if made.walked is None:
        title = f'\nno pseudo-mask: there is no {args.irn_weights_name}'
    else:
        found_in = 'the pseudo-mask'
        columns.append(Column(
            'random walk', made.walked, mask_of(made, made.walked, args.sem_seg_bg_thres),
            f'pseudo-mask, at {args.sem_seg_bg_thres:.2f}', activation(made.edge[0].cpu().numpy()),
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
    options.resolve_settings(STAGES, args)
    options.resolve_files(STAGES, args)
    args.device = torchutils.choose_device(args.device)
    torchutils.check_precision(args.precision, args.device)
    check(args)
    classes = class_names(args)
    present = present_classes(args.labels, classes)
    image = imutils.read_image(args.image, upright=True)
    made = compute(args, image, present)
    drawing.save(args.out, draw(args, image, made, classes))
    print(f'written: {args.out}')
    if args.mask_out:
        label_maps.save(args.mask_out, mask_of(made, made.walked, args.sem_seg_bg_thres), PALETTE)
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
