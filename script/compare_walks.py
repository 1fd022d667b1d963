"""Measure what makes the better pseudo-masks, on a finished run and without a training: every
activation that may walk (--sem_seg_from), every background (--sem_seg_background), several
canvases.

    python script/compare_walks.py [flags of the run: --preset, --data_root, --work_dir ...]
        [--irn_weights FILE ...] [--canvas SIDE ...] [--power POWER ...] [--cache DIR]

Takes the flags of run_sample.py; give those of the run. Reads CAM's and AMN's activations, IRN's
weights, photographs and masks of --eval_set; the masks for scores alone. The first row is the
published walk (the flags' own canvas and power) at the threshold --sem_seg_bg_thres. Of each row:

at T        mIoU at that threshold
best, at    mIoU at the best threshold, which takes masks to find; and that threshold
auto, at    mIoU at the threshold `auto`, chosen without masks; and that threshold
deviation   of auto, over several IRN weights (of single ones, n - 1)
choose, confirm     auto on the two halves of the images, split by a hash of their ids: choose a
            row by the first, and believe the second
gain, interval      auto less the published walk at T, on the half to confirm on; 95% interval of
            it, from --resamples draws of as many images with replacement, the same for all rows

With --crf each row comes once more: its masks at `auto`, refined by the dense CRF (--sem_seg_crf).

Several weights (IRN trained with other seeds) are averaged. Walks are kept in --cache: another
--power or --resamples, or a run that was stopped, costs no walk again. compare_walks.json there has
the table, and each of the weights on its own.
"""
import argparse
import itertools
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import run_sample  # noqa: E402 -- before torch

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402

from misc import ending, imutils, inference, networks, torchutils  # noqa: E402
from misc.command import options  # noqa: E402
from misc.contract.settings import (  # noqa: E402
    AUTO,
    COUNT,
    POSITIVE,
    WALK_BACKGROUNDS,
    WALK_FROM,
    WHOLE,
    PseudoMasks,
    Walk,
)
from misc.contract.stages import Job  # noqa: E402
from misc.data import datasets  # noqa: E402
from misc.files import activations, records  # noqa: E402
from misc.files.inputs import Inputs, Part  # noqa: E402
from misc.method import crf, maps, seeds, walking  # noqa: E402
from misc.pyutils import UserError, atomic_path, is_whole, write_json  # noqa: E402
from misc.score import auto_threshold, scores  # noqa: E402
from step.pipeline import STAGES  # noqa: E402

GRID = np.array(scores.GRID)


class Combination(NamedTuple):
    """What walks, along boundaries found on which canvas, to which power; and whether masks are
    refined.
    """

    foreground: str
    background: str
    canvas: int
    power: float
    crf: bool = False

    def planes(self) -> list[str]:
        """The names of the walks that it is made of."""
        names = [f'from_{self.foreground}_{self.power:g}']
        if self.background != 'none':
            names.append(f'background_{self.background}_{self.power:g}')
        return names


class Counted(NamedTuple):
    """One image: its counts as scores.truth_and_activation gives them, and its histogram."""

    positions: np.ndarray
    counts: np.ndarray
    histogram: np.ndarray


class Measured(NamedTuple):
    """A combination along the boundaries of one of the weights: its images, in the order of the
    list, and the threshold that is chosen without masks.
    """

    images: list[Counted]
    auto: float


def combinations(settings: Walk, canvases: Iterable[int], powers: Iterable[float],
                 crf: bool) -> list[Combination]:
    """The published one first; the refined ones last."""
    plain = list(dict.fromkeys([
        Combination('amn', 'none', settings.canvas, settings.power),
        *itertools.starmap(Combination, itertools.product(WALK_FROM, WALK_BACKGROUNDS, canvases,
                                                          powers))]))
    return plain + [each._replace(crf=True) for each in plain if crf]


def start_of(name: str, amn: activations.Activation, cam: activations.Activation) -> torch.Tensor:
    """The planes of a name of `Combination.planes`, as they start to walk."""
    kind, which, power = name.split('_')
    if kind == 'from':
        return walking.start(which, 'none', amn, cam) ** float(power)
    return walking.start('amn', which, amn, cam)[len(amn.keys):] ** float(power)


def cached_path(folder: Path, image_id: str) -> Path:
    return activations.activation_path(folder, image_id)


def load_cached(folder: Path, image_id: str) -> dict[str, np.ndarray]:
    """The boundaries and the walks of an image that are there; nothing where there are none."""
    path = cached_path(folder, image_id)
    if not is_whole(path):
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def walk_all(job: Job, settings: Walk, weights: str, canvas: int, names: Sequence[str],
             cache: Path) -> Path:
    """Walk what is not in the cache yet. Returns the folder of these weights and this canvas."""
    source, ids = job.source, job.ids('eval_set')
    net, digest = networks.load(settings.network, path=weights,
                                remedy=job.remedy('irn_weights_name'), device=job.device,
                                precision=settings.precision)
    folders = {'activation': 'amn_cam_out_dir', 'cam_activation': 'cam_out_dir'}
    record = {'stage': 'compare_walks', 'network': settings.network, 'weights': digest,
              'code': networks.code_of(*settings.modules()), 'precision': settings.precision,
              'beta': settings.beta, 'exp_times': settings.exp_times, 'canvas': canvas,
              'classes': source.classes,
              **{name: records.made_by(job.files[flag]) for name, flag in folders.items()}}
    folder = cache / records.fingerprint(records.as_stored(record))
    made = records.open_folder(folder, record, ('.npz',), False, ids=ids, inputs=Inputs(source, **{
        name: Part(job.files[flag], activations.existing_path, job.remedy(flag))
        for name, flag in folders.items()}))

    def is_done(image_id: str) -> bool:
        return set(names) <= load_cached(folder, image_id).keys()

    def read(image_id: str) -> tuple:
        image = imutils.read_of(source, image_id)
        hw = image.shape[:2]
        amn, cam = (activations.of_image(job.files[flag], image_id, hw, job.remedy(flag),
                                         background=flag == 'amn_cam_out_dir')
                    for flag in folders.values())
        there = load_cached(folder, image_id)
        starts = {name: start_of(name, amn, cam) for name in names if name not in there}
        return there, amn.keys, starts, hw, datasets.scaled_images(image, [1.0])[0]

    def save(image_id: str, arrays: dict[str, np.ndarray]) -> None:
        with atomic_path(cached_path(folder, image_id)) as temporary, open(temporary, 'wb') as file:
            np.savez(file, **arrays)

    with inference.Images(ids, is_done, job.run.readers, job.device, (made,)) as images:
        for image_id, (there, keys, starts, hw, image) in images.todo(read):
            with images.enough([image_id]):
                arrays = {'keys': keys, 'hw': np.array(hw)} | there
                if 'edge' not in arrays:
                    arrays['edge'] = walking.edge_of(
                        net, maps.normalized(torchutils.to_device(image, job.device)),
                        settings.precision, canvas).cpu().numpy()
                edge = torch.from_numpy(arrays['edge']).to(job.device)
                walked = walking.walk(torch.cat(list(starts.values())).to(job.device), edge, 1.0,
                                      settings.beta, settings.exp_times)
                parts = walked.cpu().split([len(start) for start in starts.values()])
                arrays |= {name: part.numpy() for name, part in zip(starts, parts, strict=True)}
                images.save(image_id, save, image_id, arrays)
    return folder


def measure(job: Job, folder: Path, wanted: Sequence[Combination]) -> list[Measured]:
    """The scores of combinations from the walks in a folder of the cache."""
    plain = [each for each in wanted if not each.crf]
    found = _measured(job, folder, plain, [None] * len(plain))
    autos = dict(zip(plain, (each.auto for each in found), strict=True))
    refined = [each for each in wanted if each.crf]
    if refined:
        crf.prepare()
        at = [autos[each._replace(crf=False)] for each in refined]
        found += [one._replace(auto=threshold) for one, threshold in zip(
            _measured(job, folder, refined, at), at, strict=True)]
    return found


def _measured(job: Job, folder: Path, wanted: Sequence[Combination],
              refine_at: Sequence[float | None]) -> list[Measured]:
    """refine_at: the thresholds of masks to refine, which then are the planes, 0 or 1, that are
    scored; None: the walked scores are.
    """
    ids, n_classes = job.ids('eval_set'), job.source.n_classes

    def count(image_id: str) -> list[Counted]:
        stored = load_cached(folder, image_id)
        hw, keys = stored['hw'], stored['keys']
        truth = scores.read_truth(job.source, image_id, tuple(hw))
        found = []
        for each, threshold in zip(wanted, refine_at, strict=True):
            walked = torch.cat([torch.from_numpy(stored[name]) for name in each.planes()])
            score = walking.class_scores(walked, each.background).numpy()
            planes = walking.planes_of(activations.Walked(keys, score, hw), each.background)
            if threshold is not None:
                mask = seeds.pseudo_mask(imutils.read_of(job.source, image_id), keys, planes,
                                         threshold)
                planes = (mask == (keys + 1)[:, None, None]).astype(np.float32)
            found.append(Counted(*scores.truth_and_activation(truth, keys, planes, n_classes,
                                                              GRID),
                                 auto_threshold.histogram(planes)))
        return found

    items = torchutils.progress(datasets.read_ahead(count, ids, job.run.workers),
                                total=len(ids), unit='image')
    by_image = [datasets.checked(item) for item in items]
    sampled = set(auto_threshold.sample(ids))
    results = []
    for images in zip(*by_image, strict=True):
        histogram = sum(image.histogram for image, image_id in zip(images, ids, strict=True)
                        if image_id in sampled)
        results.append(Measured(list(images), auto_threshold.choose(histogram)))
    return results


def curve_of(images: Sequence[Counted], n_classes: int) -> scores.ThresholdScores:
    """Of these images together."""
    shape = (n_classes + 1, n_classes + 1, len(GRID) + 1)
    total = np.zeros(shape, np.int64)
    for image in images:
        total.flat[image.positions] += image.counts
    return scores.ThresholdScores(total, GRID, len(images))


def confusions_at(images: Sequence[Counted], threshold: float, n_classes: int) -> np.ndarray:
    """Of each image at one threshold of the grid: (N, (C+1)^2)."""
    position = int(np.flatnonzero(threshold == GRID)[0])
    result = np.zeros((len(images), (n_classes + 1) ** 2), np.int64)
    for row, image in zip(result, images, strict=True):
        pair, passed = np.divmod(image.positions, len(GRID) + 1)
        is_foreground = passed > position
        np.add.at(row, np.where(is_foreground, pair, pair - pair % (n_classes + 1)), image.counts)
    return result


def resampled(confusions: Sequence[np.ndarray], draws: np.ndarray, n_classes: int) -> np.ndarray:
    """mIoU of each draw (R,), the mean over the weights. draws: how often each image, (R, N)."""
    side = n_classes + 1
    return np.mean([scores.nan_mean(scores.iou((draws @ each).reshape(-1, side, side)))
                    for each in confusions], axis=0)


def row_of(each: Combination, measured: Sequence[Measured], threshold: float, halves: np.ndarray,
           draws: np.ndarray, base: np.ndarray, n_classes: int) -> dict[str, Any]:
    """A row of the table. halves: which images (N,) are to confirm on; draws: of these, (R, n);
    base: mIoU of the published walk, of all of these and of each draw, (1 + R,).
    """
    single = []
    for one in measured:
        whole = curve_of(one.images, n_classes)
        best, best_miou = whole.best()
        parts = [curve_of([image for image, mine in zip(one.images, halves == half, strict=True)
                           if mine], n_classes).at(one.auto).miou for half in (False, True)]
        single.append({'at_threshold': whole.at(threshold).miou, 'best': best_miou,
                       'best_threshold': best, 'auto': whole.at(one.auto).miou,
                       'auto_threshold': one.auto, 'choose': parts[0], 'confirm': parts[1]})
    gains = confirmed(measured, [one.auto for one in measured], halves, draws, n_classes) - base
    mean = {name: statistics.mean(one[name] for one in single) for name in single[0]}
    deviation = statistics.stdev(one['auto'] for one in single) if len(single) > 1 else None
    return {**each._asdict(), **mean, 'deviation': deviation, 'gain': float(gains[0]),
            'interval': np.quantile(gains[1:], (0.025, 0.975)).tolist(), 'weights': single}


def confirmed(measured: Sequence[Measured], thresholds: Sequence[float], halves: np.ndarray,
              draws: np.ndarray, n_classes: int) -> np.ndarray:
    """mIoU on the half to confirm on, of all its images and of each draw: (1 + R,)."""
    confusions = [confusions_at(one.images, threshold, n_classes)[halves]
                  for one, threshold in zip(measured, thresholds, strict=True)]
    return resampled(confusions, np.concatenate([np.ones_like(draws[:1]), draws]), n_classes)


def table(rows: Sequence[dict[str, Any]], threshold: float) -> str:
    """The published walk, then the best on the half to choose on first."""
    def two(value: float) -> str:
        return f'{value:.2f}'

    rows = [rows[0], *sorted(rows[1:], key=lambda row: -row['choose'])]
    several = len(rows[0]['weights']) > 1
    headings = ['from', 'background', 'canvas', 'power', 'CRF', f'at {threshold:.2f}', 'best', 'at',
                'auto', 'at', *(['deviation'] if several else []), 'choose', 'confirm', 'gain',
                'interval']
    return scores.table(headings, ((
        row['foreground'], row['background'], str(row['canvas']), f'{row["power"]:g}',
        *(('yes', '', '', '') if row['crf'] else
          ('no', row['at_threshold'], row['best'], two(row['best_threshold']))), row['auto'],
        two(row['auto_threshold']), *([row['deviation']] if several else []), row['choose'],
        row['confirm'], f'{100 * row["gain"]:+.1f}',
        '{:+.1f} to {:+.1f}'.format(*(100 * end for end in row['interval']))) for row in rows))


def is_to_confirm(image_id: str) -> bool:
    """Which half an image belongs to, by a hash of its id."""
    return torchutils.image_seed(0, 0, image_id, 'half') % 2 == 1


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = options.build_parser(STAGES)
    parser.description, parser.usage = __doc__, None
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    group = parser.add_argument_group('comparison').add_argument
    group('--irn_weights', nargs='+', metavar='FILE', help='weights of IRN, of one seed or of '
          'several [as --irn_weights_name]')
    group('--canvas', nargs='+', type=WHOLE, metavar='SIDE', help="canvases of IRN's images; 0 "
          'for none [0 and --sem_seg_canvas]')
    group('--power', nargs='+', type=POSITIVE, default=[1.0], help='powers of what walks')
    group('--crf', action='store_true', help='refine the masks at auto, too')
    group('--resamples', type=COUNT, default=1000, help='draws of the interval')
    group('--cache', type=Path, help='keeps the walks [result/compare_walks in --work_dir]')
    return parser.parse_args(options.with_preset(words))


def run(args: argparse.Namespace) -> None:
    options.resolve(STAGES, args)
    args.device = torchutils.choose_device(args.device)
    args.precision = torchutils.choose_precision(args.precision, args.device)
    job, settings = run_sample.job_of(args, STAGES), Walk.of(args)
    cache = args.cache or Path(args.work_dir) / 'result' / 'compare_walks'
    canvases = dict.fromkeys(args.canvas or (0, settings.canvas))
    threshold = args.sem_seg_bg_thres
    threshold = PseudoMasks.bg_thres if threshold == AUTO else round(threshold, 2)
    wanted = combinations(settings, canvases, args.power, args.crf)
    ids = job.ids('eval_set')
    halves = np.array([is_to_confirm(image_id) for image_id in ids])
    if halves.all() or not halves.any():
        raise UserError(f'{job.lists["eval_set"]}: {len(ids)} images are too few for two halves')
    measured: dict[Combination, list[Measured]] = {each: [] for each in wanted}
    for weights in args.irn_weights or [args.irn_weights_name]:
        for canvas in dict.fromkeys(each.canvas for each in wanted):
            here = [each for each in wanted if each.canvas == canvas]
            names = list(dict.fromkeys(name for each in here for name in each.planes()))
            print(f'{weights}, canvas {canvas}', file=sys.stderr)
            folder = walk_all(job, settings, weights, canvas, names, cache)
            for each, result in zip(here, measure(job, folder, here), strict=True):
                measured[each].append(result)
    n_classes, number = job.source.n_classes, int(halves.sum())
    draws = np.random.default_rng(job.run.seed).multinomial(
        number, np.full(number, 1 / number), size=args.resamples)
    published = measured[wanted[0]]
    base = confirmed(published, [threshold] * len(published), halves, draws, n_classes)
    rows = [row_of(each, measured[each], threshold, halves, draws, base, n_classes)
            for each in wanted]
    write_json(cache / 'compare_walks.json', {
        'split': job.lists['eval_set'], 'data': job.source.name, 'images': len(ids),
        'confirm': number, 'threshold': threshold, 'resamples': args.resamples,
        'commit': job.commit, 'rows': rows})
    print(f'{table(rows, threshold)}\n{len(ids)} images, {number} of them to confirm on; '
          f'{len(published)} weights of IRN')


def main() -> int:
    args = parse(sys.argv[1:])
    return ending.run(lambda: run(args), ending.fewer_workers(args.num_workers))


if __name__ == '__main__':
    sys.exit(main())
