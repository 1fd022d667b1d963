"""Make train_aug, the list of images to train on, from VOC 2012 and SBD; or check lists and data.

  check the lists in voc12/ against the data:
    python -m voc12.prepare --voc12_root VOCdevkit/VOC2012
  make train_aug.txt anew, in either of two ways:
    python -m voc12.prepare --voc12_root VOCdevkit/VOC2012 --sbd benchmark_RELEASE
    python -m voc12.prepare --voc12_root VOCdevkit/VOC2012 --segmentation_class_aug DIR

Reads VOC's ImageSets/Segmentation/{train,val}.txt and either SBD's {train,val}.txt (the Semantic
Boundaries Dataset, unpacked) or the names of the PNGs in SegmentationClassAug. Writes --out: 10,582
ids, sorted, one a line; nothing when the numbers of images are not the known ones. Says which
images lack their JPEG, XML, class or (train and val) mask.
Exit code 0 when all is as it should be, 1 when not, 2 for a wrong flag.
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from misc import ending
from misc.parsing import Parser
from misc.pyutils import UserError, atomic_path
from voc12.dataloader import VOC12, read_list

LISTS = Path(__file__).resolve().parent
EXPECTED = {'train': 1464, 'val': 1449, 'train_aug': 10582}
NAMED = 20  # of the images with a problem; the others are only counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors are one line on stderr."""
    args = _parse(arguments)
    return ending.run(lambda: _run(args))


def train_aug_of_sbd(source: VOC12, sbd: Path) -> list[str]:
    """Join VOC's train with SBD's train and val, without VOC's val; sorted ids.

    sbd: SBD's folder, its benchmark_RELEASE or the dataset folder in it.
    Raises UserError where a list is missing.
    """
    folders = [sbd, sbd / 'dataset', sbd / 'benchmark_RELEASE' / 'dataset']
    dataset = next((folder for folder in folders if all((folder / f'{split}.txt').is_file()
                                                        for split in ('train', 'val'))), None)
    if dataset is None:
        raise UserError(f'{sbd}: no train.txt and val.txt there, in dataset/ or in '
                        f'benchmark_RELEASE/dataset/; '
                        'give the folder that SBD unpacks to')
    if dataset.resolve() == _voc_list(source, 'train').parent.resolve():
        raise UserError(
            f"{sbd}: these are VOC's own lists; --sbd is the folder that SBD unpacks to")
    sbd_ids = {*read_list(dataset / 'train.txt'), *read_list(dataset / 'val.txt')}
    return sorted({*read_list(_voc_list(source, 'train')),
                   *sbd_ids} - {*read_list(_voc_list(source, 'val'))})


def train_aug_of_masks(source: VOC12, folder: Path) -> list[str]:
    """Return the ids of all PNGs in `folder` (SegmentationClassAug), without VOC's val; sorted.

    Raises UserError where it has none.
    """
    try:
        ids = {path.stem for path in folder.iterdir() if path.suffix == '.png'
               and not path.name.startswith('.')}
    except OSError as error:
        raise UserError(f'{folder}: cannot be read as a folder: {error.strerror}') from error
    if not ids:
        raise UserError(f'{folder}: no PNG there; --segmentation_class_aug is the folder that '
                        f'holds 2007_000032.png')
    return sorted(ids - {*read_list(_voc_list(source, 'val'))})


def wrong_lists(lists: dict[str, list[str]], allow_other_counts: bool) -> list[str]:
    """Return what is wrong with the lists train, val and train_aug, a line each."""
    problems = []
    if not allow_other_counts:
        problems += [f'{split}: {len(ids)} images, not {EXPECTED[split]}'
                     for split, ids in lists.items()
                     if len(ids) != EXPECTED[split]]
    train_aug = {*lists['train_aug']}
    shared = [image_id for image_id in lists['val'] if image_id in train_aug]
    absent = [image_id for image_id in lists['train'] if image_id not in train_aug]
    if shared:
        problems.append(f'{counted(shared)} of val in train_aug too: {named(shared)}')
    if absent:
        problems.append(f'{counted(absent)} of train not in train_aug: {named(absent)}')
    return problems


def missing_data(source: VOC12, lists: dict[str, list[str]]) -> list[str]:
    """Return what the images of all lists lack, a line for each kind.

    Kinds are JPEG, readable XML, class; masks for train and val.
    """
    found = source.check(sorted({image_id for ids in lists.values() for image_id in ids}))
    scored = {*lists['train'], *lists['val']}
    kinds = ((found.missing_image, 'without JPEG in JPEGImages'),
             (found.missing_annotation, 'without a valid XML in Annotations'),
             (found.no_class, 'without a class in their XML'),
             ([image_id for image_id in found.missing_mask if image_id in scored],
              'of train and val without mask in SegmentationClass'))
    return [f'{counted(ids)} {text}: {named(ids)}' for ids, text in kinds if ids]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog='python -m voc12.prepare', description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--voc12_root', type=Path, required=True, metavar='DIR',
                        help='the folder VOC2012 of the devkit, which holds JPEGImages')
    made_of = parser.add_mutually_exclusive_group()
    made_of.add_argument('--sbd', type=Path, metavar='DIR',
                         help='make train_aug of the lists of SBD, unpacked here')
    made_of.add_argument('--segmentation_class_aug', type=Path, metavar='DIR',
                         help='make train_aug of the PNGs in this folder')
    parser.add_argument('--out', type=Path, metavar='FILE',
                        help=f'list to write (default: {LISTS / "train_aug.txt"})')
    parser.add_argument('--allow_other_counts', action='store_true',
                        help='accept numbers of images other than '
                             + ', '.join(f'{count} ({split})' for split, count in EXPECTED.items())
                             + ': for a part of the data set')
    args = parser.parse_args(arguments)
    if args.out and not (args.sbd or args.segmentation_class_aug):
        parser.error('--out needs --sbd or --segmentation_class_aug: without them nothing is '
                     'written')
    return args


def _run(args: argparse.Namespace) -> int:
    source = VOC12(args.voc12_root)
    makes = bool(args.sbd or args.segmentation_class_aug)
    if makes:
        lists = {split: read_list(_voc_list(source, split)) for split in ('train', 'val')}
        lists['train_aug'] = (train_aug_of_sbd(source, args.sbd) if args.sbd
                              else train_aug_of_masks(source, args.segmentation_class_aug))
    else:
        lists = {split: read_list(LISTS / f'{split}.txt') for split in EXPECTED}
    wrong = wrong_lists(lists, args.allow_other_counts)
    missing = missing_data(source, lists)
    for problem in [*wrong, *missing]:
        print(problem)
    counts = ', '.join(f'{split} {len(ids)}' for split, ids in lists.items())
    if wrong and makes:
        remedy = ('' if args.allow_other_counts else ', or for a part of the data set add '
                                                     '--allow_other_counts')
        raise UserError(f'{counts}: nothing written; mend what is named above{remedy}')
    if makes:
        out = args.out or LISTS / 'train_aug.txt'
        with atomic_path(out) as temporary:
            temporary.write_text(''.join(f'{image_id}\n' for image_id in lists['train_aug']),
                                 encoding='utf-8')
    done = f'wrote {out} ({counts})' if makes else f'checked the lists in {LISTS} ({counts})'
    print(f'{done}: {"complete" if not (wrong or missing) else "with the problems named above"}')
    return 1 if wrong or missing else 0


def _voc_list(source: VOC12, split: str) -> Path:
    return source.root / 'ImageSets' / 'Segmentation' / f'{split}.txt'


def counted(ids: Sequence[str]) -> str:
    return f'{len(ids)} image' + ('' if len(ids) == 1 else 's')


def named(ids: Sequence[str]) -> str:
    rest = f' and {len(ids) - NAMED} more' if len(ids) > NAMED else ''
    return ', '.join(ids[:NAMED]) + rest


if __name__ == '__main__':
    sys.exit(main())
