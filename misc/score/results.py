"""How every score is shown: a table on the screen, a line of JSON; and the table of all of them."""
import statistics
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
WITHIN = 'within 3 points of the best'  # thresholds whose mIoU is
PUBLISHED_OF = {'voc12': 'VOC train, 1,464 images', 'coco14': 'COCO train2014, 82,783 images'}
# of the published figures: images of train, and of val, which the segmentation network is scored on
PUBLISHED_ON = {'voc12': (1464, 1449), 'coco14': (82783, 40504)}
MISSING = '–'


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


def published(row: Row, line: dict[str, Any]) -> float | None:
    """The published figure beside a score, where it is of as many images of the same data set."""
    comparable = line.get('images') in PUBLISHED_ON.get(line['data'], ())
    return row.published.get(line['data']) if comparable else None


def main_score(line: dict[str, Any]) -> str:
    """Return the name of a line's score: mean AP of instances, else mIoU."""
    return 'map' if 'map' in line else 'miou'


def written(lines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A score as the tables write it.

    lines: its line in the scores file of each run; of several the mean and standard deviation.
    Returns threshold, miou, best, at, within, where: a text each.
    """
    def each(name: str, place: int | None = None) -> list[float]:
        found = [line[name] for line in lines if line.get(name) is not None]
        if len(found) < len(lines):  # a mean over some of the runs would pass for one over all
            return []
        return found if place is None else [value[place] for value in found]

    thresholds = [name for name in ('threshold', 'fg_threshold', 'bg_threshold')
                  if name in lines[0]]
    within = [each('within_3_points', place) for place in (0, 1)]
    return {
        'threshold': ', '.join(two(each(name)) for name in thresholds) or MISSING,
        'miou': percent(each(main_score(lines[0]))), 'best': percent(each('best_miou')),
        'at': two(each('best_threshold')),
        'within': ' to '.join(map(two, within)) if within[0] else MISSING,
        'where': f'{lines[0]["split"]} ({lines[0].get("images", MISSING)})'}


def percent(value: float | Sequence[float | None] | None, sign: str = '') -> str:
    """Write a share as the evaluator prints it; of runs that differ mean and standard deviation.

    sign: '+' for differences.
    """
    values = [each for each in (value if isinstance(value, Iterable) else [value])
              if each is not None and not np.isnan(each)]
    if not values:
        return MISSING
    mean = f'{100 * statistics.mean(values):{sign}.1f}'.replace('-', '−')
    return mean if len({*values}) == 1 else f'{mean} ± {100 * statistics.stdev(values):.1f}'


def two(value: float | Sequence[float]) -> str:
    """Write a threshold with two digits.

    Of several runs mean and standard deviation, where they differ.
    """
    values = list(value) if isinstance(value, Iterable) else [value]
    mean = f'{statistics.mean(values):.2f}' if values else MISSING
    return mean if len(set(values)) < 2 else f'{mean} ± {statistics.stdev(values):.2f}'


def table(path: str | dict[str, str], rows: Sequence[Row], published: bool = False,
          others: bool = True) -> str:
    """Return the last score of each row of the scores file, as text.

    path: of the file, or of several by the names of their runs (seeds): then each number is the
    mean over the runs and, after a ±, the standard deviation of single runs (n - 1), and a column a
    run has its mIoU; rows that a run lacks are left out. published: whether the published figures
    stand beside them; others: whether those of lines of no row have one, too.
    """
    files = path if isinstance(path, dict) else {'': path}
    found = [{row.title: (row, line) for row, line in last_lines(each, rows)}
             for each in files.values()]
    titles = [title for title in found[0] if all(title in each for each in found)
              and (others or title in {row.title for row in rows})]
    cells = []
    for title in titles:
        row, lines = found[0][title][0], [each[title][1] for each in found]
        scored = [line.get(main_score(line)) for line in lines]
        text = {name: value.replace(MISSING, '-') for name, value in written(lines).items()}
        cells.append([
            title, *(text[name] for name in ('threshold', 'miou', 'best', 'at', 'within', 'where')),
            *([row.published.get(lines[0]['data'], '-')] if published else []),
            *(scored if len(files) > 1 else [])])
    headings = ['mIoU in %', 'threshold', 'mIoU', 'best', 'at', WITHIN, 'split (images)',
                *(['published'] if published else []), *(files if len(files) > 1 else [])]
    notes = [f'mean ± standard deviation of {len(files)} runs'] if len(files) > 1 else []
    lines = [each[title][1] for each in found for title in titles]
    data = sorted({line['data'] for line in lines} & PUBLISHED_OF.keys()) if published else []
    notes += (['refined seeds: of the labelled pixels alone']
              if any('labelled' in line for line in lines) else [])
    notes += [f'published: {PUBLISHED_OF[name]}, the seeds at their best threshold (LPCAM paper, '
              'table 2); segmentation: val, ResNet-101 (tables 3, 4)' for name in data]
    return '\n'.join([scores.table(headings, cells), *notes])


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
                f'{WITHIN} from {low:.2f} to {high:.2f}')
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
