"""Hand masks on to other tools: COCO, YOLO, CVAT, LabelMe, PNG, Hugging Face datasets.

    python -m step.export --format coco|yolo|cvat|labelme|png|hf DIR [--what sem_seg|ins_seg|seg]
        [flags of run_sample.py: --dataset, --data_root, --work_dir, ...]

Not a stage but a command: it reads what stages left in --work_dir and the photographs, and writes
DIR, which docs/export.md shows. An export that was begun is gone on with.
"""
import argparse
import functools
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from misc import ending, imutils, inference, torchutils
from misc.command import options
from misc.contract.settings import workers
from misc.contract.sources import Source
from misc.contract.stages import Output, Stage, Stages
from misc.data import datasets
from misc.export import formats
from misc.export.formats import FORMATS, POLYGONS, Export, Object, Picture
from misc.files import coco, inputs, label_maps, records
from misc.files.inputs import Inputs, Made, Part
from misc.method import instances
from misc.pyutils import UserError, atomic_path, is_whole, start_log, write_json, writing
from step.pipeline import STAGES
from step.segment import Photographs

LISTS = ('train_list', 'infer_list', 'mask_list', 'seg_list')
DATA = ('preset', 'dataset', 'data_root', 'voc12_root', 'work_dir', 'num_workers', 'overwrite',
        'stage_from')
TOLERANCE = 1.0  # pixels that a polygon may leave its pixels' edges by


class Masks(NamedTuple):
    """What is exported: a folder of label maps or of instances, and the stage that writes it."""

    stage: Stage
    output: Output

    @property
    def instances(self) -> bool:
        """Whether these are instances."""
        return self.output.exists is instances.exists

    def path(self, folder: str, image_id: str) -> Path:
        """Return where the masks of an image lie."""
        where = instances.instances_path if self.instances else label_maps.label_path
        return where(folder, image_id)


def kinds(stages: Stages) -> dict[str, Masks]:
    """Return what can be exported: each folder of label maps or instances that a stage writes.

    Its name is that of its flag without _out_dir.
    """
    return {flag.removesuffix('_out_dir'): Masks(stage, output)
            for flag, (stage, output) in stages.outputs().items()
            if output.exists in (label_maps.exists, instances.exists)}


def build_parser(stages: Stages) -> argparse.ArgumentParser:
    known = kinds(stages)
    of_stage = {masks.stage.name: name for name, masks in reversed(known.items())}

    def kind(word: str) -> str:
        if of_stage.get(word, word) in known:
            return of_stage.get(word, word)
        raise argparse.ArgumentTypeError(f'invalid choice: {word!r}{options.nearest(word, known)} '
                                         f'(choose from {", ".join(known)}, or their stages)')

    parser = options.parser_of(
        stages, (*DATA, *LISTS, *(masks.output.flag for masks in known.values())),
        usage='python -m step.export --format FORMAT DIR [flags]',
        description='Hand masks on to other tools. The images are those of the list that the stage '
                    'goes over, by the flags below, or of --list.')
    add = parser.add_argument
    add('out', metavar='DIR', help='a new folder, or one that the same export began')
    add('--format', required=True, choices=tuple(FORMATS),
        help='; '.join(f'{name}: {each.about}' for name, each in FORMATS.items()))
    add('--what', type=kind, default='sem_seg', metavar='|'.join(known),
        help='which masks, by their folder or their stage; '
        + '; '.join(f'{name}: {masks.stage.title}' for name, masks in known.items()))
    add('--list', metavar='LIST', help='these images: a list file or a split of the data set')
    add('--segments', choices=(formats.RLE, POLYGONS), help='how masks are written: run lengths, '
        'which are exact (in LabelMe: masks), or polygons (default: rle for coco, else polygons)')
    add('--tolerance', type=_tolerance, metavar='PIXELS', help='polygons leave the edges of their '
        f'pixels by so much at most; 0: their area is the number of pixels [{TOLERANCE:g}]')
    add('--images', choices=('copy', 'link', 'none'), help='how photographs come into DIR/images; '
        'links (symbolic) take no room on the disk, but some tools follow none [copy]')
    return parser


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < 100:
        raise argparse.ArgumentTypeError(f'{text} is not a number of pixels from 0 to 100')
    return value


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Stages]:
    """Parse this command's flags, and the stages with those of --stage_from.

    Every other flag of run_sample.py is there at its default, or as --preset has it.
    """
    words = sys.argv[1:] if arguments is None else arguments
    stages = options.with_stages_of(STAGES, words)
    parser = build_parser(stages)
    preset = parser.parse_args(words).preset
    others = options.build_parser(stages).parse_args(
        options.with_preset(['--preset', preset] if preset else []))
    return parser.parse_args(words, others), stages


def check_flags(args: argparse.Namespace) -> None:
    """Fill in what the format stands for. Raises UserError for a flag that it has no use for."""
    form = FORMATS[args.format]
    if args.segments is not None and args.segments not in form.segments:
        able = [name for name, each in FORMATS.items() if args.segments in each.segments]
        raise UserError(f'--format {args.format} has no {args.segments}: leave out --segments, or '
                        f'take --format {" or ".join(able)}')
    args.segments = args.segments or next(iter(form.segments), None)
    if args.tolerance is not None and args.segments != POLYGONS:
        raise UserError(f'--tolerance {args.tolerance:g} is for polygons: add --segments polygons '
                        'where the format has them, or leave it out')
    args.tolerance = TOLERANCE if args.tolerance is None else args.tolerance
    if form.needs_images is None and args.images not in (None, 'none'):
        raise UserError(f'--format {args.format} makes pictures of its own: leave out --images')
    args.images = 'none' if form.needs_images is None else args.images or 'copy'
    if form.needs_images and args.images == 'none':
        raise UserError(f'--format {args.format} needs the photographs: --images copy or link')


def run(args: argparse.Namespace, stages: Stages) -> None:
    check_flags(args)
    options.resolve(stages, args)
    source, masks, form = options.open_source(args), kinds(stages)[args.what], FORMATS[args.format]
    listed = args.list or getattr(args, masks.stage.lists[0])
    ids, folder = source.ids(listed), folder_of(args, masks, source, listed)
    remedy = f'run {masks.stage.flag} True first'
    check_masks(masks, folder, source, ids, listed, remedy)
    paths = {image_id: source.image_path(image_id) for image_id in ids}
    names = dict(zip(ids, coco.names_of(list(paths.values())), strict=True))
    check_names([*source.classes, *names.values()])
    export = Export(Path(args.out), source.classes, source.palette, args.segments, args.tolerance,
                    args.images != 'none', masks.instances)
    # what an image is called here: its own file, where it has one, without the ending
    keys = {f'{form.own[0]}/{formats.stem_of(names[image_id])}' if form.own else image_id: image_id
            for image_id in ids}
    if len({formats.stem_of(name) for name in names.values()}) < len(ids):
        raise UserError(f'{source.root}: two of these photographs differ by their ending alone; '
                        'give them other names')
    start_log(None)
    made = open_folder(args, export.out, {
        'masks': records.made_by(folder), 'classes': source.classes,
        'list': f'{len(ids)} images, {records.fingerprint(names)}'}, Inputs(
            Photographs({key: paths[image_id] for key, image_id in keys.items()}), labelled=False,
            masks=Part(folder, lambda folder, key: masks.path(folder, keys[key]), remedy)),
        list(keys))
    if args.images != 'none':
        for image_id in torchutils.progress(ids, 'photographs', unit='image'):
            place(paths[image_id], export.out / formats.IMAGES / names[image_id], args.images)

    def make(key: str) -> Any:
        image_id = keys[key]
        return form.image(export, picture_of(source, masks, folder, remedy, image_id,
                                             names[image_id]))

    def is_done(key: str) -> bool:
        return form.own is not None and is_whole(export.out / f'{key}{form.own[1]}')

    with inference.Images(list(keys), is_done, workers(args.num_workers), made=made) as images:
        entries = [entry for _, entry in images.todo(make)]
    form.finish(export, entries)
    print(f'written: {export.out}, {len(ids)} images ({form.about}); docs/export.md: how to load '
          'it')


def folder_of(args: argparse.Namespace, masks: Masks, source: Source, listed: str) -> str:
    """Return where the masks of a list lie."""
    folder = getattr(args, masks.output.flag) or Path(args.work_dir) / masks.output.path
    below = source.server_layout.get(Path(listed).stem, '')
    return str(Path(folder) / below if masks.stage.lists[0] == 'seg_list' else folder)


def check_masks(masks: Masks, folder: str, source: Source, ids: Sequence[str], listed: str,
                remedy: str) -> None:
    """Raise UserError for masks that are missing, or made for other classes or from other inputs.
    """
    if wrong := source.check(()).wrong:
        raise UserError(f'{source.root}: {wrong[0]}')
    if not ids:
        raise UserError(f'{listed}: no image in it')
    missing = [image_id for image_id in ids if not masks.output.exists(folder, image_id)]
    if missing:
        raise UserError(f'{masks.path(folder, missing[0])}: {len(missing)} of the {len(ids)} masks '
                        f'of {listed} are missing: {remedy}, or choose other images by --list, '
                        'other masks by --what')
    records.check_classes(folder, source.classes)
    inputs.check_parts(Inputs(source, masks=Part(folder, masks.path, remedy)), ids)


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for a name of a class or photograph that not every format can hold."""
    for name in names:
        if any(ord(letter) < 32 or '\ud800' <= letter <= '\udfff' for letter in name):
            raise UserError(f'{name!a}: a name with signs that are no text (UTF-8): rename it')


def open_folder(args: argparse.Namespace, out: Path, more: dict[str, Any], made_from: Inputs,
                keys: list[str]) -> list[Made]:
    """Make DIR ready for this export.

    more: what the record holds beside the flags; keys: what images are called.
    Returns what was made of each image, in formats that have a file for each.
    Raises UserError where DIR holds something else, or an export with other settings, which
    --overwrite removes.
    """
    record = records.as_stored({'stage': 'export', **{flag: getattr(args, flag) for flag in (
        'format', 'what', 'segments', 'tolerance', 'images')}, **more})
    if out.exists() and not out.is_dir():
        raise UserError(f'{out}: a file stands where the folder should be')
    form, old = FORMATS[args.format], records.read_folder(out)
    if old is None and out.is_dir() and any(out.iterdir()):
        raise UserError(f'{out} is not empty, and no export: name a new folder')
    if old is not None and old.get('stage') != 'export':
        raise UserError(f'{out} holds what {old.get("stage")} made: name another folder')
    records.lock_folder(out)
    made = Made(out, made_from, keys, form.own[1:] if form.own else ())
    if old is not None and args.overwrite:
        clear(out, FORMATS[old['format']])
        made.remove()
    elif old not in (None, record):
        raise UserError(f'{out} is another export ({records.difference(old, record)}): '
                        '--overwrite makes it anew, or name another folder')
    for folder in form.folders:
        for path in (out / folder).rglob('.*.part'):  # of a run that was killed
            with writing(path):
                path.unlink()
    write_json(out / records.FOLDER_RECORD, record)
    if not form.own:
        return []
    made.open(recorded=True)
    return [made]


def clear(out: Path, form: formats.Format) -> None:
    """Remove what an export of this format made."""
    for folder in form.folders:
        with writing(out / folder):
            if (out / folder).is_dir():
                shutil.rmtree(out / folder)
    for name in form.files:
        with writing(out / name):
            (out / name).unlink(missing_ok=True)


def place(photograph: Path, target: Path, how: str) -> None:
    """Put a copy of the photograph, or a link to it, where it is not there yet.

    A copy has the time of its photograph, which tells whether it is one of today's.
    """
    wanted = os.path.abspath(photograph)
    if how == 'copy':
        stat = os.stat(wanted)
        if target.is_file() and _dated(target.stat()) == _dated(stat):
            return
        with atomic_path(target) as temporary:
            shutil.copyfile(wanted, temporary)
            os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif how == 'link' and not (target.is_symlink() and os.readlink(target) == wanted):
        with atomic_path(target) as temporary:
            temporary.unlink()
            temporary.symlink_to(wanted)


def _dated(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def picture_of(source: Source, masks: Masks, folder: str, remedy: str, image_id: str,
               name: str) -> Picture:
    """Read the masks of an image.

    Raises UserError where they do not fit the photograph or the classes.
    """
    path = source.image_path(image_id)
    hw, _ = imutils.read_header(path, source.upright)
    if masks.instances:
        found = instances.load(folder, image_id, remedy)
        if found.instance_map.shape != hw or found.classes.max(initial=0) >= source.n_classes:
            raise UserError(f'{masks.path(folder, image_id)}: made from another image or for other '
                            'classes; make it anew')
        kept = np.flatnonzero(found.scores > 0)  # no fragments
        numbers = np.zeros(len(found.scores) + 1, np.int32)
        numbers[kept + 1] = np.arange(1, len(kept) + 1)
        objects = [Object(number, int(found.classes[at]) + 1, float(found.scores[at]))
                   for number, at in enumerate(kept, start=1)]
        number_map = numbers[found.instance_map]
    else:
        number_map = datasets.read_refined_seed(folder, image_id, hw, source.n_classes, remedy)
        there = np.flatnonzero(np.bincount(number_map.ravel(), minlength=label_maps.IGNORE + 1))
        objects = [Object(label, label) for label in there.tolist()
                   if label not in (0, label_maps.IGNORE)]
    return Picture(image_id, name, path, number_map, objects,
                   functools.partial(imutils.read_of, source, image_id))


def main(arguments: Sequence[str] | None = None) -> int:
    def work() -> None:
        run(*parse(arguments))

    return ending.run(work, lambda want: 'a smaller --num_workers, or smaller photographs',
                      '; the same command goes on')


if __name__ == '__main__':
    sys.exit(main())
