"""How every score is shown: a table on the screen, a line of JSON; and the table of all of them."""
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from misc import torchutils
from misc.contract.stages import Job, Row
from misc.files import inputs
from misc.pyutils import append_json_line, log
from misc.score import average_precision, scores

# details with words of their own
SHOWN_APART = ('threshold_from', 'best_threshold', 'best_miou', 'within_3_points')
PUBLISHED_OF = {'voc12': 'VOC train, 1,464 images', 'coco14': 'COCO train2014, 82,783 images'}


def row_of(line: dict[str, Any], rows: Sequence[Row]) -> Row:
    """Return the row of a line of the scores file; one of its own for an unknown score."""
    return next((row for row in rows if row.stage == line['stage'] and row.matches(line)),
                Row(line['stage'], line['stage']))


def last_lines(path: str, rows: Sequence[Row], splits: Sequence[str] | None = None,
               data: str | None = None) -> list[tuple[Row, dict[str, Any]]]:
    """Return the last line of each row, in the order of `rows`.

    splits, data: on each of the splits of a data set; none where nothing was scored.
    Raises UserError where the file is broken.
    """
    if splits is not None and not Path(path).exists():
        return []
    last = scores.read_scores(path,
                              lambda line: (row_of(line, rows).title,
                                            *((line['split'], line['data']) if splits else ())))
    by_title = {row.title: row for row in rows}
    found = []
    for title in [*by_title, *sorted({key[0] for key in last} - by_title.keys())]:
        for key in [(title, split, data)
                    for split in dict.fromkeys(splits)] if splits else [(title,)]:
            if key in last:
                found.append((by_title.get(title, Row(title, title)), last[key]))
    return found


def table(path: str, rows: Sequence[Row], published: bool = False) -> str:
    """Return the last score of each row of the scores file, as text.

    published: whether the published figures stand beside them.
    """
    lines = last_lines(path, rows)
    data = sorted({line['data'] for _, line in lines} & PUBLISHED_OF.keys()) if published else []
    cells = []
    for row, line in lines:
        within = line.get('within_3_points')
        cell = [row.title, _thresholds(line), line.get('miou', line.get('map')),
                line.get('best_miou', '-'),
                f'{line["best_threshold"]:.2f}' if 'best_threshold' in line else '-',
                f'{within[0]:.2f} to {within[1]:.2f}' if within else '-',
                f'{line["split"]} ({line["images"]})']
        cells.append(cell + ([row.published.get(line['data'], '-')] if published else []))
    headings = ['mIoU in %', 'threshold', 'mIoU', 'best', 'at', 'best less 3 points',
                'split (images)']
    notes = (['refined seeds: of the labelled pixels alone']
             if any('labelled' in line for _, line in lines) else [])
    notes += [f'published: {PUBLISHED_OF[name]}, the seeds at their best threshold (LPCAM paper, '
              f'table 2); segmentation: val, '
              'ResNet-101 (tables 3, 4)' for name in data]
    return '\n'.join([scores.table(headings + (['published'] if published else []), cells), *notes])


def _thresholds(line: dict[str, Any]) -> str:
    names = [name for name in ('threshold', 'fg_threshold', 'bg_threshold') if name in line]
    return ', '.join(f'{line[name]:.2f}' for name in names) or '-'


def tell_changes(job: Job, folder: str | Path, ids: Sequence[str]) -> None:
    """Log whether labels or photographs have changed since what is scored was made."""
    changes = inputs.changes(folder, job.source, ids) if torchutils.is_main() else ''
    if changes:
        log.info('%s was made from other inputs (%s): what follows tells of these', folder, changes)


def report(job: Job, stage: str, score: scores.Score, split: str = 'eval_set',
           **details: Any) -> None:
    """Print IoU per class and mIoU, and write them down.

    split: the flag of the list.
    details: what else is logged and written (a threshold, if there is one).
    """
    names = ('background', *job.source.classes)
    log.info('%s', scores.table(('class', 'IoU %'), zip(names, map(float, score.iou), strict=True)))
    best = ''
    if 'best_threshold' in details:
        low, high = details['within_3_points']
        best = (f'; best {100 * details["best_miou"]:.1f} at {details["best_threshold"]:.2f}, '
                f'within 3 points of it from '
                f'{low:.2f} to {high:.2f}')
    settings = ''.join(f', {name} {_shown(value)}' for name, value in details.items()
                       if name not in SHOWN_APART)
    chosen = ' (auto)' if 'threshold_from' in details else ''
    log.info('%s: mIoU %.1f%% on %s, %d images%s%s%s', stage, 100 * score.miou, job.lists[split],
             score.images, settings, chosen, best)
    iou = {name: value for name, value in zip(names, _rounded(score.iou), strict=True)}
    _write(job, stage, {'miou': _rounded([score.miou])[0], 'images': score.images,
                        'iou': iou} | details, split)


def report_seeds(job: Job, stage: str, score: scores.SeedScore, thresholds: tuple[float, float],
                 **details: Any) -> None:
    """Print precision and recall per class of refined seeds, and write them down."""
    names = ('background', *job.source.classes)
    rows = zip(names, map(float, score.precision), map(float, score.recall), strict=True)
    log.info('%s', scores.table(('class', 'precision %', 'recall %'), rows))
    log.info('%s: %.1f%% of the pixels labelled, mIoU of these %.1f%%, on %s, %d images, '
             'thresholds %.2f and %.2f',
             stage, 100 * score.labelled, 100 * score.miou, job.lists['eval_set'], score.images,
             *thresholds)
    _write(job, stage, {
        'labelled': round(score.labelled, 6), 'miou': _rounded([score.miou])[0],
        'images': score.images, 'fg_threshold': thresholds[0], 'bg_threshold': thresholds[1],
        'precision': dict(zip(names, _rounded(score.precision), strict=True)),
        'recall': dict(zip(names, _rounded(score.recall), strict=True)), **details})


def report_instances(job: Job, stage: str, score: average_precision.InstanceScore,
                     threshold: float) -> None:
    """Print average precision per class of instance masks, and its mean, and write them down."""
    names = job.source.classes
    log.info('%s', scores.table(('class', 'AP %', 'objects'),
                                zip(names, map(float, score.ap), score.objects, strict=True)))
    log.info('%s: mean AP %.1f%% at IoU %.1f on %s, %d images, threshold %.2f', stage,
             100 * score.mean, average_precision.IOU, job.lists['eval_set'], score.images,
             threshold)
    _write(job, stage, {
        'map': _rounded([score.mean])[0], 'iou_threshold': average_precision.IOU,
        'images': score.images, 'ap': dict(zip(names, _rounded(score.ap), strict=True)),
        'objects': dict(zip(names, map(int, score.objects), strict=True)), 'threshold': threshold})


def _shown(value: Any) -> str:
    return (f'{value:.2f}' if isinstance(value, float) else ' '.join(map(str, value))
            if isinstance(value, list) else str(value))


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]


def _write(job: Job, stage: str, content: dict[str, Any], split: str = 'eval_set') -> None:
    if not torchutils.is_main():
        return
    append_json_line(job.files['scores_file'], {
        'stage': stage, 'time': time.strftime('%Y-%m-%dT%H:%M:%S'), 'split': job.lists[split],
        'data': job.source.name, 'version': job.version, 'commit': job.commit, **content})
