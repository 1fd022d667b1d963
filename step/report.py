"""One page on a run.

Its scores, a gallery whose slider moves the threshold, IoU per class, what is taken for what, the
plots of the analysis, losses, settings.

Reads whatever is there of what the stages show (activations, seeds, masks, instances), of
--analysis_out_dir, --scores_file, the weights' records and losses, and of the masks of --eval_set
(for the segmentation network those of --seg_list); what is not there is left out, and the page says
so. Where --eval_set has no image (a folder without masks) the report is of --infer_list. With
--report_against DIR the run of another --work_dir stands beside this one. Writes --report_out_dir
anew: images/, data/ and, last, index.html, to be opened from disk.
Only this stage: python run_sample.py --report_pass True
"""
import dataclasses
import functools
import json
import shlex
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib
import numpy as np
import torch
from markupsafe import Markup

from misc import inference, torchutils
from misc.command import options, provenance
from misc.contract.settings import AUTO, Report
from misc.contract.sources import Source
from misc.contract.stages import Job, Output, Row, Stage
from misc.data import datasets
from misc.draw import colours, gallery, plots
from misc.draw.colours import Pair
from misc.draw.gallery import Measured, Method
from misc.files import activations, losses, records
from misc.pyutils import UserError, atomic_path, log, writing
from misc.score import auto_threshold, results, scores
from misc.score.results import MISSING, percent, two
from step.make_seg import server_folder

TEMPLATES = Path(gallery.__file__).parent / 'templates'
# the first that is there tells the best images from the worst
RANKING = ('amn_cam', 'cam', 'sem_seg')
KINDS = ('activation', 'mask', 'seed', 'instances')  # in this order they are shown
PLOTS = {'curves': 'mIoU against the global threshold',
         'best_thresholds': 'Best threshold of each image',
         'histograms': 'Activation of foreground and background',
         'precision_recall': 'Precision and recall'}
AGAINST = 'against_'  # before the names of the methods of the run that is compared with

Counts = dict[str, np.ndarray]  # by method, of all images


class Run(NamedTuple):
    """The methods of this run, or of one of its seeds, and their counts, both by name.

    A threshold `auto` differs from seed to seed.
    """

    methods: dict[str, Method]
    counts: Counts


@dataclasses.dataclass
class Shown:
    """What the page is made from.

    ids: every image, those of --seg_list last; listed: flag of a list -> its ids; measured: each on
    its own, in this order; there: the methods that made something of one; runs: this run, or that
    of each seed; against: those of the run that is compared with.
    """

    ids: list[str]
    listed: dict[str, dict[str, None]]
    measured: list[Measured]
    there: list[Method]
    runs: list[Run]
    against: Counts

    @property
    def own(self) -> list[Method]:
        """The methods of this run."""
        return [method for method in self.there if not method.of]

    @property
    def scored(self) -> list[Method]:
        """Those of them that have scores."""
        return [method for method in self.own if method.name in self.runs[0].counts]

    def number_scored(self, method: Method) -> int:
        return sum(method.name in image.miou for image in self.measured)


def run(job: Job, told: Report) -> None:
    split = 'eval_set'
    if not job.ids(split):
        split = 'infer_list'
        if job.lists['eval_set'] != job.source.lists['eval_set']:  # else nobody asked for it
            log.info('--eval_set %s has no image: the report is of --infer_list %s',
                     job.lists['eval_set'], job.lists[split])
    methods = all_methods(job, job.ids(split))
    if not any(Path(method.folder).is_dir() for method in methods):
        raise UserError(f'nothing to report on: none of '
                        f'{", ".join(method.folder for method in methods)} is there; '
                        + job.remedy('cam_out_dir'))
    shown = look(job, told, split, methods)
    if not shown.there:
        raise UserError(f'nothing to report on: no output of any stage is of an image of '
                        f'{job.lists[split]}')
    ranking = next((method for name in RANKING for method in shown.scored if method.name == name),
                   None)
    groups = choose(shown, ranking, told, job.run.seed)

    folder = Path(job.files['report_out_dir'])
    open_folder(folder, {'stage': 'report', 'split': job.lists[split], **told.record(),
                         'seed': job.run.seed})
    numbers = {shown.ids[position]: position for position in groups}
    with inference.Images(list(numbers), lambda image_id: False, job.run.workers) as images:
        images.make(lambda image_id: gallery.write_image(
            folder, numbers[image_id], job.source, image_id, methods_of(shown, image_id)))
    if torchutils.is_main():
        page = render(**content(job, told, split, shown, ranking, groups),
                      absent=[method for method in methods if method not in shown.there])
        with atomic_path(folder / 'index.html') as temporary:
            temporary.write_text(page, encoding='utf-8')
        log.info('report of %d of %d images: %s', len(groups), len(shown.ids),
                 folder / 'index.html')


def check(job: Job, chosen: Sequence[str], told: Report) -> None:
    """Raises UserError where --report_against is no run, or one of other classes."""
    if told.against is None:
        return
    folders = [path for flag, path in files_against(job, told).items()
               if path is not None and flag.endswith('_dir') and Path(path).is_dir()]
    if not folders:
        raise UserError(f'--report_against {told.against}: no run is there; name the --work_dir of '
                        f'one')
    for path in folders:
        records.check_classes(path, job.source.classes)


def files_against(job: Job, told: Report) -> dict[str, str | None]:
    """What the run that is compared with left in its --work_dir."""
    folder = Path(told.against)
    return {flag: str(folder / path) for flag, path in job.stages.files().items()} | {
        'scores_file': str(folder / options.SCORES)}


# What is measured

def look(job: Job, told: Report, split: str, methods: list[Method]) -> Shown:
    """Measure every image of the split.

    And those of --seg_list that the segmentation network made a label map of.
    """
    listed = {'eval_set': dict.fromkeys(job.ids(split))}
    of_network = [method for method in methods if method.listed == 'seg_list'
                  and Path(method.folder).is_dir()]
    listed['seg_list'] = {} if not of_network else dict.fromkeys(
        image_id for image_id in job.ids('seg_list')
        if any(gallery.exists(method, image_id) for method in of_network))
    ids = list(listed['eval_set'] | listed['seg_list'])
    other = []
    if told.against is not None:
        other = [dataclasses.replace(method, name=AGAINST + method.name, of=method.name)
                 for method in all_methods(job, list(listed['eval_set']), files_against(job, told))]
    measured, totals = measure(job, ids, methods + other, listed)
    there = [method for method in methods + other
             if any(method.name in image.made for image in measured)]
    runs = [Run({method.name: method for method in methods}, {
        name: counts for name, counts in totals.items() if not name.startswith(AGAINST)})]
    for files in list(job.repeats.values())[1:]:
        of_seed = all_methods(job, list(listed['eval_set']), files)
        runs.append(Run({method.name: method for method in of_seed},
                        measure(job, ids, of_seed, listed)[1]))
    return Shown(ids, listed, measured, there, runs,
                 {name.removeprefix(AGAINST): counts for name, counts in totals.items()
                  if name.startswith(AGAINST)})


def all_methods(job: Job, ids: list[str],
                files: dict[str, str | None] | None = None) -> list[Method]:
    """Return everything that the gallery can show, by kind.

    Of the files of this run or of another. A threshold `auto` is chosen from what there is of
    `ids`.
    """
    def threshold(folder: str, given: float | str) -> float:
        if given != AUTO:
            return given
        made = [image_id for image_id in ids if activations.exists(folder, image_id)]
        return (auto_threshold.threshold_of(folder, made, 'it was there before',
                                            job.run.workers) if made else 0.0)

    found = []
    for stage in job.stages:
        if stage.shown is not None:
            flag, at = stage.writes[0].flag, stage.shown.threshold
            folder = (files or job.files)[flag]
            listed = 'seg_list' if stage.lists[0] == 'seg_list' else 'eval_set'
            if listed == 'seg_list' and Path(folder).is_dir():
                folder = str(server_folder(job, folder))
            found.append(Method(flag.removesuffix('_out_dir'), stage.shown.title, folder,
                                stage.shown.kind,
                                None if at is None else threshold(folder, job.thresholds[at]),
                                stage.name, listed))
    return sorted(found, key=lambda method: KINDS.index(method.kind))


def measure(job: Job, ids: list[str], methods: list[Method],
            listed: dict[str, dict[str, None]]) -> tuple[list[Measured], Counts]:
    """Measure every image on its own, in the order of `ids`.

    And by method the counts of all of them, where there are any.
    """
    n_classes = job.source.n_classes
    totals = {method.name: np.zeros(gallery.shape(method, n_classes), np.int64)
              for method in methods if method.is_scored}
    mine, part = torchutils.shard(ids), []

    def look_at(image_id: str) -> Measured:
        return gallery.measure(job.source, image_id, [
            method for method in methods if image_id in listed[method.listed]])

    results = datasets.read_ahead(look_at, mine, job.run.workers)
    for result in torchutils.progress(results, total=len(mine), unit='image'):
        result = datasets.checked(result)
        for name, (index, counts) in result.counts.items():
            totals[name].flat[index] += counts
        result.counts.clear()
        part.append(result)
    totals = {name: torchutils.sum_over_processes(torch.from_numpy(counts)).numpy()
              for name, counts in totals.items()}
    return torchutils.gather(part), {name: counts for name, counts in totals.items()
                                     if counts.any()}


def methods_of(shown: Shown, image_id: str) -> list[Method]:
    """Those that are of the list that the image stands in."""
    return [method for method in shown.there if image_id in shown.listed[method.listed]]


def choose(shown: Shown, ranking: Method | None, told: Report, seed: int) -> dict[int, str]:
    """Which images to show, of each list: position -> why."""
    groups: dict[int, str] = {}
    first = len(shown.listed['eval_set'])
    network = next((method for method in shown.scored if method.listed == 'seg_list'), None)
    for start, part, by in ((0, shown.measured[:first], ranking),
                            (first, shown.measured[first:], network)):
        changed = np.array([max(image.changed.values(), default=np.nan) for image in part])
        chosen = gallery.choose(np.array([own_miou(image, by) for image in part]), told.images,
                                seed, None if told.against is None else changed)
        groups |= {start + position: why for position, why in chosen.items()}
    return groups


def own_miou(image: Measured, method: Method | None) -> float:
    """Return the mIoU of an image at the method's own threshold; nan where there is none."""
    if method is None or method.name not in image.miou:
        return float('nan')
    miou = image.miou[method.name]
    return float(miou[0] if method.kind == 'mask'
                 else miou[method.thresholds == method.threshold][0])


def open_folder(folder: Path, record: dict[str, Any]) -> None:
    """Remove the report that was there, the page first.

    Raises UserError where other things lie there.
    """
    if torchutils.is_main() and folder.is_dir() and any(folder.iterdir()) and \
            (records.read_folder(folder) or {}).get('stage') != 'report':
        raise UserError(f'{folder}: holds other things than a report; name another '
                        f'--report_out_dir')
    records.open_folder(folder, record, ('.html',), overwrite=True)
    if torchutils.is_main():
        for path in [*folder.glob('images/*'), *folder.glob('data/*')]:
            with writing(path):
                path.unlink()
    torchutils.wait_for_all()


# What the page says

def content(job: Job, told: Report, split: str, shown: Shown, ranking: Method | None,
            groups: dict[int, str]) -> dict[str, Any]:
    """Everything that the template names."""
    lines, versions = score_lines(job, job.lists[split], shown, told)
    figures, analysed = analysis_plots(Path(job.files['analysis_out_dir']), job.lists[split],
                                       job.source.name)
    hues = colours.of_methods([*dict.fromkeys(method.base for method in shown.there), *figures])
    variables = {variable(name): pair for name, pair in hues.items()}
    trained = losses_of(job)
    drawn = {name: functools.partial(draw, figures) for name, draw in plots.FIGURES.items()
             if figures}
    if trained:
        drawn['losses'] = functools.partial(plots.losses, trained)
    return {
        'about': {'data': job.source.name, 'split': job.lists[split],
                  'images': len(shown.listed['eval_set']),
                  'seg_list': job.lists['seg_list'], 'seg_images': len(shown.listed['seg_list']),
                  'instead': None if split == 'eval_set' else job.lists['eval_set'],
                  'seeds': list(job.repeats), 'against': told.against,
                  'truth': any(image.truth for image in shown.measured)},
        'theme': Markup(colours.variables(colours.THEME | variables | {
            f'error-{name}': Pair(colour, colour) for name, colour in colours.ERRORS.items()})),
        'cards': cards(job, shown), 'lines': lines, 'versions': versions,
        'has_published': any(row['published'] != MISSING for row in lines),
        'stale': provenance.stale(job, list(shown.listed['eval_set'])),
        'settings': provenance.recorded(job),
        'command': [shlex.quote(word) for word in provenance.command(job)],
        'differences': [] if told.against is None else provenance.differences(
            job, files_against(job, told)),
        'plots': [(PLOTS[name], Markup(plots.for_page(name, drawn[name], variables)))
                  for name in drawn if name in PLOTS],
        'losses': Markup(plots.for_page('losses', drawn['losses'], variables))
        if trained else None,
        'analysed': analysed,
        'numbers': {method.name: shown.number_scored(method) for method in shown.there},
        'classes': class_rows(job.source, shown), 'scored': shown.scored, 'ranking': ranking,
        'columns': [('change' if method is None else method.title, method)
                    for method, _ in class_columns(shown)],
        'data': page_data(job, shown, [(position, groups[position]) for position in groups])}


def variable(name: str) -> str:
    """The CSS variable of a method's colour."""
    return 'of-' + ''.join(letter if letter.isascii() and letter.isalnum() or letter in '_-'
                           else '_' for letter in name)


def score_of(method: Method, counts: np.ndarray) -> scores.Score:
    """Of all images together, at the method's own threshold."""
    return scores.score(confusion(method, counts), 0)


def confusion(method: Method, counts: np.ndarray) -> np.ndarray:
    """Return (C+1 truths, C+1 predictions), at the method's own threshold."""
    if method.kind == 'mask':
        return scores.ignored_as_background(counts)
    of_all = scores.ThresholdScores(counts, method.thresholds, 0)
    return of_all.confusion(of_all.position(method.threshold))


def over_runs(shown: Shown, name: str, value: Callable[[Method, np.ndarray], Any]) -> list[Any]:
    """A value of a method and its counts, of each run."""
    return [value(run.methods[name], run.counts[name]) for run in shown.runs if name in run.counts]


def miou_of(method: Method, counts: np.ndarray) -> float:
    return score_of(method, counts).miou


def best_of(method: Method, counts: np.ndarray) -> tuple[float, float]:
    """The best threshold of activations, and the mIoU there."""
    return scores.ThresholdScores(counts, method.thresholds, 0).best()


def cards(job: Job, shown: Shown) -> list[dict[str, Any]]:
    """Return the headline of the page.

    That is the mIoU of each scored method, what it gains over the one before it, its best
    threshold, the published figure where the images are the same, the other run's.
    """
    found: list[dict[str, Any]] = []
    for method in shown.scored:
        values = over_runs(shown, method.name, miou_of)
        card = {'method': method, 'value': values, 'images': shown.number_scored(method),
                'gain': None, 'best': None, 'published': published(job, method, shown),
                'against': None, 'made': how_made(method)}
        before = next((other for other in reversed(found)
                       if other['method'].listed == method.listed), None)
        if before is not None and before['images'] == card['images'] \
                and len(before['value']) == len(values):
            card |= {'gain': [one - two for one, two in zip(values, before['value'], strict=True)],
                     'over': before['method'].title}
        if method.kind == 'activation':
            at, highest = zip(*over_runs(shown, method.name, best_of), strict=True)
            card |= {'best': list(highest), 'at': list(at)}
        if method.name in shown.against:
            counterpart = next(other for other in shown.there if other.of == method.name)
            card['against'] = miou_of(counterpart, shown.against[method.name])
            card['change'] = change(values, card['against'])
        found.append(card)
    return found


def how_made(method: Method) -> str:
    """Return the threshold of recorded pseudo-masks and what came after it; '' of anything else."""
    record = functools.partial(records.recorded, method.folder)
    threshold = record('bg_thres', None) if method.kind == 'mask' else None
    if threshold is None:
        return ''
    return (f'at {threshold:.2f}{", chosen without masks" if record("bg_thres_from", None) else ""}'
            f'{", refined by CRF" if record("crf", False) else ""}')


def published(job: Job, method: Method, shown: Shown) -> float | None:
    """The published mIoU, where the very images are scored that it was measured on."""
    row = row_of(job, method)
    return None if row is None else results.published(row, {
        'data': job.source.name, 'images': shown.number_scored(method)})


def row_of(job: Job, method: Method) -> Row | None:
    """The line of the table of scores that a method's score is."""
    flag = job.stages.named(method.maker).writes[0].flag
    stage = job.stages.reader(flag, lambda stage: bool(stage.rows))
    return stage.rows[0] if stage is not None else None


def score_lines(job: Job, split: str, shown: Shown,
                told: Report) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the table of scores, and every line that it was made from.

    A row for each score in the scores file, its values a list with one for each seed.
    """
    splits = (split, job.lists['seg_list'])

    def read(path: str) -> dict[tuple[str, str], tuple[Row, dict[str, Any]]]:
        return {(row.title, line['split']): (row, line) for row, line in results.last_lines(
            path, job.stages.rows(), splits, job.source.name)}

    files = [each['scores_file'] for each in job.repeats.values()] or [job.files['scores_file']]
    runs = [read(path) for path in files]
    other = {} if told.against is None else read(files_against(job, told)['scores_file'])
    methods = {row.title: method for method in shown.own
               if (row := row_of(job, method)) is not None}
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run):
        row = next(run[key][0] for run in runs if key in run)
        lines = [run[key][1] for run in runs if key in run]
        rows.append(score_row(row, lines, other[key][1] if key in other else {})
                    | {'method': methods.get(row.title)})
    return rows, [line for run in runs for _, line in run.values()]


def score_row(row: Row, lines: Sequence[dict[str, Any]], other: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table of scores as it is written.

    lines: the score of each seed; other: that of the run that is compared with.
    """
    written = results.written(lines)
    labelled = [line['labelled'] for line in lines if 'labelled' in line]
    if labelled and written['miou'] != MISSING:
        written['miou'] += '*'
    key = results.main_score(lines[0])
    values = [line[key] for line in lines if line.get(key) is not None]
    return written | {
        'title': row.title, 'partial': bool(labelled),
        'labelled': percent(labelled) if labelled else '',
        'published': percent(results.published(row, lines[0])), 'against': percent(other.get(key)),
        'change': percent(change(values, other.get(key)), '+')}


def change(values: Sequence[float], other: float | None) -> float | None:
    """From another run's value to the mean of this one's."""
    known = [value for value in values if not np.isnan(value)]
    return statistics.mean(known) - other if known and other is not None else None


def losses_of(job: Job) -> list[tuple[str, Pair | None, list[dict[str, float]]]]:
    """Title, colour (of what is made with the weights first) and epochs of each training."""
    found = []
    for stage in job.stages:
        lines = losses.read(job.files[stage.writes[0].flag]) if stage.trains else []
        if lines:
            maker = job.stages.reader(stage.writes[0].flag, lambda each: each.shown is not None)
            name = maker.writes[0].flag.removesuffix('_out_dir') if maker is not None else None
            found.append((provenance.name_of(stage), None if name is None
                          else colours.of_methods([name])[name], lines))
    return found


def analysis_plots(folder: Path, split: str, data: str) -> tuple[plots.Methods, str]:
    """Return the methods of the analysis of `split`.

    Where there is one of another split or data set, none, but what it is of. Raises UserError where
    it is broken.
    """
    path = folder / 'analysis.json'
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        of, methods = (found['data'], found['split']), found['methods']
    except FileNotFoundError:
        return {}, ''
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: not an analysis ({error}); run --analyze_threshold_pass True '
                        f'again, or name another --analysis_out_dir') from error
    if of != (data, split):
        return {}, ', '.join(map(str, of))
    order = [*colours.METHODS, *methods]  # JSON has lost it
    return {name: methods[name] for name in sorted(methods, key=order.index)}, ''


def class_rows(source: Source, shown: Shown) -> list[dict[str, Any]]:
    """Return the rows of the table of classes.

    Label, name, colour, number of images whose truth shows it (of which something was made that
    does, where there is no truth), and the cells of `class_columns`, of background and each class
    that occurs.
    """
    iou = {method.name: np.array(over_runs(  # (runs, C+1)
        shown, method.name, lambda method, counts: score_of(method, counts).iou))
        for method in shown.scored}
    other = {method.of: score_of(method, shown.against[method.of]).iou
             for method in shown.there if method.of in shown.against}
    counted = [image.true if image.truth else image.shown for image in shown.measured]
    rows = []
    for label, name in enumerate(('background', *source.classes)):
        images = len(counted) if label == 0 else sum(label in labels for labels in counted)
        if not images and all(np.isnan(values[:, label]).all() for values in iou.values()):
            continue
        cells = []
        for method, of in class_columns(shown):
            values = iou[(method or of).name][:, label].tolist()
            value = statistics.mean(values) if method else change(values, other[of.name][label])
            known = value is not None and not np.isnan(value)
            cells.append({'value': value if known else '', 'hue': variable(method.base)
                          if method and known else None, 'share': 100 * value if known else 0,
                          'text': percent(values) if method else percent(value, '+')})
        rows.append({'label': label, 'name': name, 'colour': source.palette[label].tolist(),
                     'images': images, 'cells': cells})
    return rows


def class_columns(shown: Shown) -> list[tuple[Method | None, Method]]:
    """Return (method, method) for its IoU, (None, method) for the difference to the other run."""
    return [column for method in shown.scored
            for column in ((method, method), *([(None, method)] if method.name in shown.against
                                               else []))]


def page_data(job: Job, shown: Shown, images: list[tuple[int, str]]) -> dict[str, Any]:
    """Return what the page's script reads.

    Scores are in tenths of a percent, rounded as the evaluator prints them.
    """
    source = job.source
    on_grid = {method.name: np.isin(method.thresholds, gallery.GRID) for method in shown.there
               if method.kind == 'activation'}
    totals = shown.runs[0].counts | {
        AGAINST + name: counts for name, counts in shown.against.items()}

    def on_page(method: Method) -> dict[str, Any]:
        about = {'name': method.name, 'title': method.title, 'kind': method.kind,
                 'of': method.of, 'hue': variable(method.base),
                 'list': method.listed, 'position': None, 'curve': None, 'miou': None, 'scored': 0,
                 'of_images': len(shown.listed[method.listed])}
        if method.name in on_grid:
            about['position'] = method.position
        if method.name in totals:
            counts = totals[method.name]
            about |= {'scored': shown.number_scored(method),
                      'miou': tenths([score_of(method, counts).miou])[0]}
            if method.name in on_grid:
                about['curve'] = tenths(scores.ThresholdScores(
                    counts, method.thresholds, 0).curve()[on_grid[method.name]])
        return about

    return {
        'methods': [on_page(method) for method in shown.there],
        'classes': ['background', *source.classes],
        'palette': source.palette[:source.n_classes + 1].tolist(),
        'plasma': np.rint(matplotlib.colormaps['plasma'](np.linspace(0, 1, 101))[:, :3]
                          * 255).astype(int).tolist(),
        'errors': {name: colours.rgb(colour) for name, colour in colours.ERRORS.items()},
        'confusions': {method.name: confusion_data(sum(over_runs(shown, method.name, confusion)))
                       for method in shown.scored},
        'images': [{
            'number': number, 'id': shown.ids[number], 'group': group, 'hw': image.hw,
            'list': next(flag for flag, ids in shown.listed.items() if shown.ids[number] in ids),
            'truth': image.truth, 'shown': image.shown, 'made': image.made,
            'changed': {name: round(1000 * share) for name, share in image.changed.items()},
            'miou': {name: tenths(values[on_grid[name]] if name in on_grid else values)
                     for name, values in image.miou.items()}}
            for number, group in images for image in [shown.measured[number]]]}


def confusion_data(counts: np.ndarray) -> dict[str, Any]:
    """Return what the pixels of each label were taken for.

    labels: those that occur in truth or prediction; shares: of the pixels of each label's truth
    (row) what they were taken for (column), in tenths of a percent.
    """
    occurring = np.flatnonzero(counts.sum(0) + counts.sum(1))
    shares = scores.ratio(counts, np.broadcast_to(counts.sum(1, keepdims=True), counts.shape))
    return {'labels': occurring.tolist(),
            'shares': [tenths(row) for row in shares[np.ix_(occurring, occurring)]]}


# How numbers are written

def tenths(values: Iterable[float]) -> list[int | None]:
    """Shares -> tenths of a percent with `percent`'s digits."""
    return [None if np.isnan(value) else int(percent(value).replace('.', '')) for value in values]


def render(**content: Any) -> str:
    """The page, with its style and its script in it. `content`: what the template names."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {'percent': percent, 'two': two, 'variable': variable}
    style, script = (Markup((TEMPLATES / f'report.{kind}').read_text(encoding='utf-8'))
                     for kind in ('css', 'js'))
    return environment.get_template('report.html').render(style=style, script=script, **content)


STAGE = Stage(
    'report', 'a page with scores, plots and a gallery of all that is there', run, (Report,),
    writes=(Output('report_out_dir', 'result/report', opens='index.html'),),
    lists=('eval_set',), labelled=False, may_be_empty=True, overview=True, check=check)
