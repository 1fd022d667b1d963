"""How every eval stage tells its result: a table on the screen, a line of JSON in result/scores.jsonl. Not a stage."""
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from misc import average_precision, inputs, scores, torchutils
from misc.pyutils import append_json_line, log

TITLES = {'eval_cam': 'CAM seed', 'eval_ir_label': 'CAM seed, refined', 'eval_amn_cam': 'AMN seed',
          'eval_amn_ir_label': 'AMN seed, refined', 'eval_sem_seg': 'pseudo-mask',
          'eval_ins_seg': 'instance masks (mean AP)', 'eval_seg, one scale': 'segmentation, one scale',
          'eval_seg': 'segmentation, multi-scale', 'eval_seg_crf': 'segmentation, CRF'}


def row_of(line: dict[str, Any]) -> str:
    """The row that a score belongs to: its stage, and for the segmentation network the number of scales."""
    return line['stage'] + (', one scale' if line['stage'] == 'eval_seg' and len(line['scales']) == 1 else '')


def title_of(line: dict[str, Any]) -> str:
    """For people; the row itself where nothing better is known."""
    return TITLES.get(row_of(line), row_of(line))


def last_lines(path: str, splits: Sequence[str], data: str) -> list[dict[str, Any]]:
    """The last line of each row on each of `splits`, in pipeline order; none where nothing was scored.

    Raises UserError where the file is broken.
    """
    if not Path(path).exists():
        return []
    last = scores.read_scores(path, lambda line: (row_of(line), line['split'], line['data']))
    rows = [*TITLES, *sorted({row for row, _, _ in last} - TITLES.keys())]
    return [last[row, split, data] for row in rows for split in dict.fromkeys(splits) if (row, split, data) in last]


def tell_changes(args: Namespace, folder: str | Path, ids: Sequence[str]) -> None:
    """Log whether labels or photographs have changed since what is scored was made."""
    told = inputs.changes(folder, args.source, ids) if torchutils.is_main() else ''
    if told:
        log.info('%s was made from other inputs (%s): what follows tells of these', folder, told)


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
    chosen = ' (auto)' if 'threshold_from' in details else ''
    log.info('%s: mIoU %.1f%% on %s, %d images, %s%s%s', stage, 100 * score.miou, split or args.eval_set, score.images,
             settings, chosen, best)
    iou = {name: value for name, value in zip(names, _rounded(score.iou), strict=True)}
    _write(args, stage, {'miou': _rounded([score.miou])[0], 'images': score.images, 'iou': iou} | details, split)


def report_seeds(args: Namespace, stage: str, score: scores.SeedScore, thresholds: tuple[float, float],
                 **details: Any) -> None:
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
        'recall': dict(zip(names, _rounded(score.recall), strict=True)), **details})


def report_instances(args: Namespace, stage: str, score: average_precision.InstanceScore, threshold: float) -> None:
    """The same for instance masks: average precision for each class that has objects, and its mean."""
    names = args.source.classes
    log.info('%s', scores.table(('class', 'AP %', 'objects'), zip(names, map(float, score.ap), score.objects, strict=True)))
    log.info('%s: mean AP %.1f%% at IoU %.1f on %s, %d images, threshold %.2f', stage, 100 * score.mean,
             average_precision.IOU, args.eval_set, score.images, threshold)
    _write(args, stage, {
        'map': _rounded([score.mean])[0], 'iou_threshold': average_precision.IOU, 'images': score.images,
        'ap': dict(zip(names, _rounded(score.ap), strict=True)),
        'objects': dict(zip(names, map(int, score.objects), strict=True)), 'threshold': threshold})


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
