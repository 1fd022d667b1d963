"""Measure every way of misc/score/auto_threshold.py to choose a threshold without ground truth, on
images that have it.

    python script/compare_thresholds.py [--dataset NAME] --data_root ROOT [--work_dir DIR]
    [--activations FOLDER ...]

For each folder of activations: way, threshold, mIoU there, points lost against the best threshold,
seconds. The masks of --eval_set are read for the mIoU alone, never for a threshold.
"""
import argparse
import functools
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc import ending, imutils, torchutils  # noqa: E402
from misc.command import options  # noqa: E402
from misc.contract.sources import Source
from misc.data import datasets  # noqa: E402
from misc.files import activations  # noqa: E402
from misc.method import crf  # noqa: E402
from misc.parsing import Parser  # noqa: E402
from misc.pyutils import UserError  # noqa: E402
from misc.score import auto_threshold, scores  # noqa: E402

REMEDY = 'run --make_cam_pass True, --make_amn_cam_pass True first'


def crf_threshold(source: Source, folder: Path, ids: list[str], num_workers: int) -> float:
    """The threshold at which label maps and their CRF refinements agree best, by the mean of the
    images' mIoU.
    """
    def agreement(image_id: str) -> np.ndarray | None:
        _, planes = activations.class_planes(folder, image_id, REMEDY)
        image = imutils.read_of(source, image_id)
        return auto_threshold.crf_agreement(image, planes) if len(planes) else None

    crf.prepare()
    found = (datasets.checked(item) for item in datasets.read_ahead(agreement, ids, num_workers))
    values = [item for item in torchutils.progress(found, total=len(ids), unit='image')
              if item is not None]
    if not values:
        raise UserError(
            f'{folder}: none of {len(ids)} images shows a class; give --crf_images more')
    return auto_threshold.best(np.mean(values, axis=0), np.array(auto_threshold.CRF_GRID))


def compare(source: Source, folder: Path, args: argparse.Namespace) -> str:
    """The table of one folder."""
    ids = source.names(args.eval_set)
    load = functools.partial(activations.class_planes, folder, remedy=REMEDY)
    result = scores.score_activations(source, ids, load, scores.GRID[0], args.num_workers)
    best, best_miou = result.best()
    rows = [('best, by the masks', f'{best:.2f}', best_miou, 0.0, '')]

    def add(way: str, threshold: float, seconds: float) -> None:
        miou = result.at(threshold).miou
        rows.append((way, f'{threshold:.2f}', miou, best_miou - miou, f'{seconds:.1f}'))

    since = time.monotonic()
    counts = auto_threshold.pooled_histogram(folder,
                                             auto_threshold.sample(
                                                 source.names(args.list or args.eval_set)), REMEDY,
                                             args.num_workers)
    seconds = time.monotonic() - since
    for way in auto_threshold.WAYS:
        add(way + (' (auto)' if way == auto_threshold.CHOSEN else ''),
            auto_threshold.choose(counts, way), seconds)
    if args.crf_images:
        since = time.monotonic()
        chosen = crf_threshold(source, folder, auto_threshold.sample(ids, args.crf_images),
                               args.num_workers)
        add('CRF agreement', chosen, time.monotonic() - since)
    fg_thres, bg_thres = auto_threshold.seed_thresholds(counts)
    return (scores.table((f'{folder}', 'threshold', 'mIoU', 'lost', 'seconds'), rows)
            + f'\n{len(ids)} images; seed thresholds by auto: {fg_thres:.2f} and {bg_thres:.2f}')


def main() -> int:
    parser = Parser(description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_data_flags(parser.add_argument)
    parser.add_argument('--work_dir', type=Path, default=Path('.'),
                        help='as given to run_sample.py')
    parser.add_argument('--activations', type=Path, nargs='+', metavar='FOLDER',
                        help='folders of activations (default: result/cam and result/amn_cam of '
                             '--work_dir)')
    parser.add_argument('--eval_set', help="a split of the root or a list file; its masks are "
                                           "needed (default: run_sample.py's "
                        '--eval_set)')
    parser.add_argument('--list', help='the images that thresholds are chosen from, where these '
                                       'are others than --eval_set: '
                        'a split or a list file')
    parser.add_argument('--crf_images', type=int, default=60,
                        help='images of the CRF way, about 2 s each; 0 leaves it out')
    parser.add_argument('--num_workers', type=int, default=torchutils.cores())
    args = parser.parse_args()
    return ending.run(lambda: run(args), ending.fewer_workers(args.num_workers))


def run(args: argparse.Namespace) -> None:
    source = options.open_source(args)
    args.eval_set = args.eval_set or options.source_class(args.dataset).lists['eval_set']
    for folder in args.activations or [args.work_dir / 'result' / name
                                       for name in ('cam', 'amn_cam')]:
        print(compare(source, folder, args) + '\n')


if __name__ == '__main__':
    sys.exit(main())
