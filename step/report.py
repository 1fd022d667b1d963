"""One page on a run: its scores, the plots of the analysis, IoU per class, and a gallery whose
slider moves the threshold.

Reads whatever is there of --cam_out_dir, --ir_label_out_dir, --amn_cam_out_dir,
--amn_ir_label_out_dir, --sem_seg_out_dir, --analysis_out_dir, --scores_file and the masks of
--eval_set; what is not there is left out, and the page says so. Where --eval_set has no image (a
folder without masks) the report is of --infer_list. Writes --report_out_dir anew: images/, data/
and, last, index.html, to be opened from disk.
Only this stage: python run_sample.py --report_pass True
"""
import base64
import json
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
import torch
from markupsafe import Markup

from misc import inference, torchutils
from misc.contract.settings import AUTO, Report
from misc.contract.sources import Source
from misc.contract.stages import Input, Job, Output, Stage
from misc.data import datasets
from misc.draw import gallery
from misc.draw.gallery import Measured, Method
from misc.files import activations, records
from misc.pyutils import UserError, atomic_path, log, writing
from misc.score import auto_threshold, results, scores

TEMPLATES = Path(gallery.__file__).parent / 'templates'
# the first that is there tells the best images from the worst
RANKING = ('amn_cam', 'cam', 'sem_seg')
PLOTS = {'curves': 'mIoU against the global threshold',
         'best_thresholds': 'Best threshold of each image',
         'histograms': 'Activation of foreground and background',
         'precision_recall': 'Precision and recall'}


def run(job: Job, told: Report) -> None:
    split = 'eval_set'
    if not job.ids(split):
        split = 'infer_list'
        if job.lists['eval_set'] != job.source.lists['eval_set']:  # else nobody asked for it
            log.info('--eval_set %s has no image: the report is of --infer_list %s',
                     job.lists['eval_set'], job.lists[split])
    ids = job.ids(split)
    methods = all_methods(job, ids)
    if not any(Path(method.folder).is_dir() for method in methods):
        raise UserError(f'nothing to report on: none of '
                        f'{", ".join(method.folder for method in methods)} is there; '
                        + job.remedy('cam_out_dir'))
    lines = [line | {'title': row.title} for row, line in results.last_lines(
        job.files['scores_file'], job.stages.rows(), (job.lists[split], job.lists['seg_list']),
        job.source.name)]
    measured, totals = measure(job, ids, methods)
    there = [method for method in methods if any(method.name in image.made for image in measured)]
    if not there:
        raise UserError(f'nothing to report on: no output of any stage is of an image of '
                        f'{job.lists[split]}')
    ranking = next((method for name in RANKING for method in there if method.name == name
                    and name in totals), None)
    groups = gallery.choose(np.array([own_miou(image, ranking) for image in measured]), told.images,
                            job.run.seed)

    folder = Path(job.files['report_out_dir'])
    open_folder(folder, {'stage': 'report', 'split': job.lists[split], **told.record(),
                         'seed': job.run.seed})
    numbers = {ids[position]: position for position in groups}
    with inference.Images(list(numbers), lambda image_id: False, job.run.num_workers) as images:
        images.make(lambda image_id: gallery.write_image(folder, numbers[image_id], job.source,
                                                         image_id, there))
    if torchutils.is_main():
        shown = [(position, ids[position], group, measured[position])
                 for position, group in groups.items()]
        embedded, analysed = plots(Path(job.files['analysis_out_dir']), job.lists[split],
                                   job.source.name)
        number_scored = {method.name: sum(method.name in image.miou for image in measured)
                         for method in there}
        page = render(
            about={'data': job.source.name, 'split': job.lists[split], 'images': len(ids),
                   'instead': None if split == 'eval_set' else job.lists['eval_set']}, lines=lines,
            settings=settings(job, methods), plots=embedded, analysed=analysed,
            numbers=number_scored, classes=class_rows(job.source, measured, there, totals),
            data=page_data(job.source, there, totals,
                           shown) | {'total': len(ids), 'scored': number_scored},
            scored=[method for method in there if method.name in totals], ranking=ranking,
            absent=[method for method in methods if method not in there])
        with atomic_path(folder / 'index.html') as temporary:
            temporary.write_text(page, encoding='utf-8')
        log.info('report of %d of %d images: %s', len(groups), len(ids), folder / 'index.html')


def all_methods(job: Job, ids: list[str]) -> list[Method]:
    """Everything that the gallery can show, activations first. A threshold `auto` is chosen from
    what there is of `ids`.
    """
    def threshold(folder: str, given: float | str) -> float:
        if given != AUTO:
            return given
        made = [image_id for image_id in ids if activations.exists(folder, image_id)]
        return (auto_threshold.threshold_of(folder, made, 'it was there before',
                                            job.run.num_workers) if made else 0.0)

    found = []
    for stage in job.stages:
        if stage.shown is not None:
            flag = stage.writes[0].flag
            folder, at = job.files[flag], stage.shown.threshold
            found.append(Method(flag.removesuffix('_out_dir'), stage.shown.title, folder,
                                stage.shown.kind, None if at is None
                                else threshold(folder, job.thresholds[at]), stage.name))
    return sorted(found, key=lambda method: method.kind != 'activation')


def measure(job: Job, ids: list[str],
            methods: list[Method]) -> tuple[list[Measured], dict[str, np.ndarray]]:
    """Every image on its own, in the order of `ids`, and by method the counts of all of them, where
    there are any.
    """
    n_classes = job.source.n_classes
    totals = {method.name: np.zeros(gallery.shape(method, n_classes), np.int64)
              for method in methods
              if method.kind != 'seed'}
    mine, part = torchutils.shard(ids), []
    results = datasets.read_ahead(lambda image_id: gallery.measure(job.source, image_id, methods),
                                  mine, job.run.num_workers)
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


def own_miou(image: Measured, method: Method | None) -> float:
    """mIoU of an image at the method's own threshold; nan where there is none."""
    if method is None or method.name not in image.miou:
        return float('nan')
    miou = image.miou[method.name]
    return float(miou[0] if method.kind == 'mask'
                 else miou[method.thresholds == method.threshold][0])


def open_folder(folder: Path, record: dict[str, Any]) -> None:
    """Remove the report that was there, the page first. Raises UserError where other things lie
    there.
    """
    if torchutils.is_main() and folder.is_dir() and any(folder.iterdir()) and \
            (records.read_folder(folder) or {}).get('stage') != 'report':
        raise UserError(
            f'{folder}: holds other things than a report; name another --report_out_dir')
    records.open_folder(folder, record, ('.html',), overwrite=True)
    if torchutils.is_main():
        for path in [*folder.glob('images/*'), *folder.glob('data/*')]:
            with writing(path):
                path.unlink()
    torchutils.wait_for_all()


def settings(job: Job, methods: list[Method]) -> list[tuple[str, dict[str, str]]]:
    """(what, name -> value) for each training and each folder that has a record of its settings."""
    found = [(f'{stage.name.removeprefix("train_").upper()} (training)',
              records.read_weights_record(
        job.files[stage.writes[0].flag])) for stage in job.stages if stage.trains]
    found += [(method.title, records.read_folder(method.folder)) for method in methods]
    return [(title, {name: _text(value) for name, value in sorted(record.items())})
            for title, record in found if record]


def _text(value: Any) -> str:
    return ', '.join(map(str, value)) if isinstance(value, list) else str(value)


def plots(folder: Path, split: str, data: str) -> tuple[list[tuple[str, str]], str]:
    """(caption, data URI) of each SVG that the analysis of `split` left; where there is one of
    another split or data set, no plots, but what it is of. Raises UserError where it is broken.
    """
    path = folder / 'analysis.json'
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        of = found['data'], found['split']
    except FileNotFoundError:
        return [], ''
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: not an analysis ({error}); run --analyze_threshold_pass True '
                        f'again, or name another '
                        '--analysis_out_dir') from error
    if of != (data, split):
        return [], ', '.join(map(str, of))
    paths = {caption: folder / f'{name}.svg' for name, caption in PLOTS.items()}
    return [(caption, 'data:image/svg+xml;base64,' + base64.b64encode(path.read_bytes()).decode())
            for caption, path in paths.items() if path.is_file()], ''


def score_of(method: Method, counts: np.ndarray) -> scores.Score:
    """Of all images together, at the method's own threshold."""
    if method.kind == 'mask':
        return scores.score(scores.ignored_as_background(counts), 0)
    return scores.ThresholdScores(counts, method.thresholds, 0).at(method.threshold)


def class_rows(source: Source, measured: list[Measured], methods: list[Method],
               totals: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Name, colour, number of images whose truth shows it, and IoU by method, of background and
    each class.
    """
    iou = {method.name: score_of(method, totals[method.name]).iou for method in methods
           if method.name in totals}
    return [{'name': name, 'colour': source.palette[label].tolist(),
             'images': sum(image.truth if label == 0 else label in image.true
                           for image in measured),
             'iou': {method: float(values[label]) for method, values in iou.items()}}
            for label, name in enumerate(('background', *source.classes))]


def page_data(source: Source, methods: list[Method], totals: dict[str, np.ndarray],
              images: list[tuple[int, str, str, Measured]]) -> dict[str, Any]:
    """What the page's script reads. Scores are in tenths of a percent, rounded as the evaluator
    prints them.
    """
    on_grid = {method.name: np.isin(method.thresholds, gallery.GRID) for method in methods
               if method.kind == 'activation'}
    return {
        'methods': [{
            'name': method.name, 'title': method.title, 'kind': method.kind,
            'position': method.position if method.name in on_grid else None,
            'curve': tenths(scores.ThresholdScores(totals[method.name], method.thresholds,
                                                   0).curve()[on_grid[method.name]])
            if method.name in on_grid and method.name in totals else None} for method in methods],
        'classes': ['background', *source.classes],
        'palette': source.palette[:source.n_classes + 1].tolist(),
        'plasma': np.rint(matplotlib.colormaps['plasma'](np.linspace(0, 1, 101))[:, :3] *
                          255).astype(int).tolist(),
        'images': [{
            'number': number, 'id': image_id, 'group': group, 'hw': image.hw, 'truth': image.truth,
            'shown': image.shown, 'made': image.made,
            'miou': {name: tenths(values[on_grid[name]] if name in on_grid else values)
                     for name, values in image.miou.items()}}
            for number, image_id, group, image in images]}


def percent(value: float | None) -> str:
    """As the evaluator prints it."""
    return '–' if value is None or np.isnan(value) else f'{100 * value:.1f}'


def tenths(values: np.ndarray) -> list[int | None]:
    """Shares -> tenths of a percent with `percent`'s digits."""
    return [None if np.isnan(value) else int(percent(value).replace('.', '')) for value in values]


def render(**content: Any) -> str:
    """The page, with its style and its script in it. `content`: what the template names."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters |= {'percent': percent}
    style, script = (Markup((TEMPLATES / f'report.{kind}').read_text(encoding='utf-8'))
                     for kind in ('css', 'js'))
    return environment.get_template('report.html').render(style=style, script=script, **content)


STAGE = Stage(
    'report', 'a page with scores, plots and a gallery of all that is there', run, (Report,),
    reads=tuple(Input(flag, needed=False) for flag in ('cam_out_dir', 'ir_label_out_dir',
                                                       'amn_cam_out_dir', 'amn_ir_label_out_dir',
                                                       'sem_seg_out_dir')),
    writes=(Output('report_out_dir', 'result/report', opens='index.html'),),
    lists=('eval_set',), labelled=False, may_be_empty=True)
