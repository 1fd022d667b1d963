"""How every eval stage tells its result: a table on the screen, a line of JSON in result/scores.jsonl. Not a stage."""
import time
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import numpy as np

from misc import scores, torchutils
from misc.pyutils import append_json_line, log


def report(args: Namespace, stage: str, score: scores.Score, split: str | None = None, **details: Any) -> None:
    """Print IoU per class and mIoU with split (--eval_set unless given), number of images and what else is told in
    `details` (a threshold, if there is one), and write them down."""
    names = ('background', *args.source.classes)
    log.info('%s', scores.table(('class', 'IoU %'), zip(names, map(float, score.iou), strict=True)))
    best = ''
    if 'best_threshold' in details:
        low, high = details['within_3_points']
        best = (f'; best {100 * details["best_miou"]:.1f} at {details["best_threshold"]:.2f}, within 3 points of it from '
                f'{low:.2f} to {high:.2f}')
    settings = ', '.join(f'{name} {_shown(details[name])}' for name in ('threshold', 'scales', 'flip') if name in details)
    log.info('%s: mIoU %.1f%% on %s, %d images, %s%s', stage, 100 * score.miou, split or args.eval_set, score.images, settings,
             best)
    iou = {name: value for name, value in zip(names, _rounded(score.iou), strict=True)}
    _write(args, stage, {'miou': _rounded([score.miou])[0], 'images': score.images, 'iou': iou} | details, split)


def report_seeds(args: Namespace, stage: str, score: scores.SeedScore, thresholds: tuple[float, float]) -> None:
    """The same for refined seeds."""
    names = ('background', *args.source.classes)
    rows = zip(names, map(float, score.precision), map(float, score.recall), strict=True)
    log.info('%s', scores.table(('class', 'precision %', 'recall %'), rows))
    log.info('%s: %.1f%% of the pixels labelled, mIoU of these %.1f%%, on %s, %d images, thresholds %.2f and %.2f',
             stage, 100 * score.labelled, 100 * score.miou, args.eval_set, score.images, *thresholds)
    _write(args, stage, {
        'labelled': round(score.labelled, 6), 'miou': _rounded([score.miou])[0], 'images': score.images,
        'fg_threshold': thresholds[0], 'bg_threshold': thresholds[1],
        'precision': dict(zip(names, _rounded(score.precision), strict=True)),
        'recall': dict(zip(names, _rounded(score.recall), strict=True))})


def _shown(value: Any) -> str:
    return f'{value:.2f}' if isinstance(value, float) else ' '.join(map(str, value)) if isinstance(value, list) else str(value)


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]


def _write(args: Namespace, stage: str, content: dict[str, Any], split: str | None = None) -> None:
    if not torchutils.is_main():
        return
    append_json_line(args.scores_file, {
        'stage': stage, 'time': time.strftime('%Y-%m-%dT%H:%M:%S'), 'split': split or args.eval_set, 'data': args.source.name,
        'version': args.version, 'commit': args.commit, **content})
