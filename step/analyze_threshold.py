"""What a global threshold costs: CAM, AMN, pseudo-masks and further activations side by side.

Reads --cam_out_dir, --amn_cam_out_dir (where they are there), --walked_out_dir and --analyze_dirs
(where they are given) and the masks of --eval_set. Writes to --analysis_out_dir: analysis.json,
curves.csv, images.csv, classes.csv, and the figures curves, best_thresholds, histograms and
precision_recall, each as .png and .svg. Prints a table.
Only this stage: python run_sample.py --analyze_threshold_pass True

analysis.json: "split", "data", "images" (their number), "version", "commit", "thresholds"
  (scores.GRID) and "methods", an object for each of "cam", "amn_cam", "sem_seg" and the names of
  --analyze_dirs. Scores are fractions (0.45), null: not defined.
How each is defined: misc/score/analysis.py. Of a method:
  title, images, made_by      for people; number of images; fingerprint of the folder's record
  threshold_used, miou_used   the threshold of the stage (--eval_cam_thres, for further folders too,
                              --eval_amn_cam_thres, --sem_seg_bg_thres), and the mIoU there
  threshold_from              'auto', where the threshold in use was chosen from the activations;
                              else not there
  threshold_published,        of "cam", "amn_cam" and "sem_seg" alone: the threshold published for
  loss_published              VOC 2012, and best_miou - the mIoU there; not of a walk that is not
                              as published (--sem_seg_from, --sem_seg_background)
  best_threshold, best_miou   the best global threshold, the lowest of equals;
                              loss_used: best_miou - miou_used
  within_1_point,             [lowest, highest] threshold of the stretch around the best that comes
  within_5_points             within 0.01 and 0.05 of it
  curve, precision, recall    at each of "thresholds": mIoU; precision and recall of the
                              foreground's pixels
  oracle                      image_mean_single (at image_mean_single_threshold) and image_mean_own:
                              mean over images of the image's mIoU, at the one threshold that is
                              best for it, and at each image's own; dataset_single and dataset_own:
                              mIoU of the data set, likewise
  own_thresholds              of the images' own best thresholds: mean, std, quantiles (in %),
                              twentieths (images in [0, 0.05), ... [0.95, 1]), images (those with a
                              valid pixel)
  objects                     pairs of an image and a class in it, of two pixels or more and some
                              activation
  cv, top_tenth_ratio         imbalance within objects: mean and median over them
  foreground_mean,            the gap between foreground and background; gap is the difference of
  background_mean, gap, auc   both means, auc the area under the ROC curve
  histograms                  foreground, background: pixels in 50 even bins of activation
  classes                     for background and each class iou, precision and recall at the used
                              and the best threshold (iou_used, iou_best, ...), own_best_threshold
                              and own_best_iou; for classes objects ... auc, too
"""
import csv
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from misc import torchutils
from misc.contract.settings import AUTO, AmnScore, Analysis, CamScore, PseudoMasks, Walk
from misc.contract.stages import Input, Job, Output, Stage
from misc.draw import plots
from misc.files import activations, records
from misc.method import walking
from misc.pyutils import UserError, atomic_path, log, write_json
from misc.score import analysis, auto_threshold, results, scores

# the defaults
PUBLISHED = {'cam': CamScore.threshold, 'amn_cam': AmnScore.threshold,
             'sem_seg': PseudoMasks.bg_thres}


@dataclasses.dataclass
class Method:
    """A folder of activations.

    load: id -> keys (K,) and planes (K, H, W).
    is_auto: whether its threshold was chosen from them.
    is_published: whether they are made as published, where anything is published of them.
    """

    title: str
    folder: str
    threshold: float
    load: Callable[[str], tuple[np.ndarray, np.ndarray]]
    is_auto: bool = False
    is_published: bool = True


def run(job: Job, settings: Analysis, cam: CamScore, amn: AmnScore, masks: PseudoMasks) -> None:
    if torchutils.is_main():
        records.lock_folder(Path(job.files['analysis_out_dir']))
    torchutils.wait_for_all()
    ids, split = job.ids('eval_set'), job.lists['eval_set']
    summaries, images = {}, []
    for name, method in methods_of(job, ids, settings, cam, amn, masks).items():
        log.info('%s: %s', method.title, method.folder)
        results.tell_changes(job, method.folder, ids)
        result = analysis.analyse(job.source, ids, method.load, method.threshold,
                                  job.run.workers)
        summary = analysis.summary(result, method.title, method.threshold, job.source.classes)
        more = {'made_by': records.made_by(method.folder)}
        if method.is_auto:
            more['threshold_from'] = AUTO
        if method.is_published:
            more |= published(name, result)
        summaries[name] = _rounded(summary | more)
        images += image_rows(name, result)
    if torchutils.is_main():
        write(job, len(ids), summaries, images)
    for summary in summaries.values():
        log.info('%s, IoU and the rest of each class in %%\n%s\n', summary['title'],
                 class_table(summary))
    log.info('%s, %d images; what each line is: misc/score/analysis.py\n%s', split, len(ids),
             table(summaries))
    log.info('analysis: %s', job.files['analysis_out_dir'])


def methods_of(job: Job, ids: list[str], settings: Analysis, cam: CamScore, amn: AmnScore,
               masks: PseudoMasks) -> dict[str, Method]:
    """Return what is analysed; the log says what is left out.

    Raises UserError where nothing is left, or the walk is not whole.
    """
    methods = {}
    for name, title, flag, threshold in (('cam', 'CAM', 'cam_out_dir', cam.threshold),
                                         ('amn_cam', 'AMN', 'amn_cam_out_dir', amn.threshold)):
        folder = job.files[flag]
        if not Path(folder).is_dir():
            log.info('%s is left out: there is no %s (%s)', title, folder,
                     job.remedy(flag, 'makes it').removeprefix('run '))
            continue
        methods[name] = _method(job, ids, title, folder, threshold,
                                job.remedy(flag, 'with a --train_list that holds it'))
    if job.files['walked_out_dir'] is not None:
        methods['sem_seg'] = _pseudo_masks(job, ids, masks)
    for name, folder in settings.dirs:
        methods[name] = _method(job, ids, name, folder, cam.threshold,
                                'an analysis needs every image of --eval_set')
    if not methods:
        raise UserError(f'there is nothing to analyse: neither {job.files["cam_out_dir"]} nor '
                        f'{job.files["amn_cam_out_dir"]}; '
                        f'{job.remedy("cam_out_dir")}, or name other folders (--cam_out_dir, '
                        f'--amn_cam_out_dir, '
                        '--analyze_dirs)')
    return methods


def _method(job: Job, ids: list[str], title: str, folder: str, threshold: float | str,
            remedy: str) -> Method:
    is_auto = threshold == AUTO
    if is_auto:
        threshold = auto_threshold.threshold_of(folder, ids, remedy, job.run.workers)
    return Method(title, folder, threshold, functools.partial(activations.class_planes, folder,
                                                              remedy=remedy), is_auto)


def check(job: Job, chosen: Sequence[str], settings: Analysis,
          *scored: CamScore | AmnScore | PseudoMasks) -> None:
    """Raise UserError where a name of --analyze_dirs is taken, or a folder does not fit.

    That is: it is missing, or was made for other classes.
    """
    taken = set(PUBLISHED)
    for name, folder in settings.dirs:
        if name in taken:
            raise UserError(f'--analyze_dirs {name}={folder}: the name {name} is taken; give '
                            f'another one')
        if not Path(folder).is_dir():
            raise UserError(f'--analyze_dirs {name}={folder}: no such folder')
        records.check_classes(folder, job.source.classes)
        taken.add(name)
    walked = job.files['walked_out_dir']
    if 'make_sem_seg' not in chosen and walked is not None and not Path(walked).is_dir():
        raise UserError(f'--walked_out_dir {walked}: no such folder; '
                        f'{job.remedy("sem_seg_out_dir", "with it, too")}')


def published(name: str, result: analysis.Analysis) -> dict[str, float]:
    """Return what the published threshold costs; nothing for further folders."""
    if name not in PUBLISHED:
        return {}
    return {'threshold_published': PUBLISHED[name],
            'loss_published': result.curve.best()[1] - result.curve.at(PUBLISHED[name]).miou}


def _pseudo_masks(job: Job, ids: list[str], masks: PseudoMasks) -> Method:
    folder = job.files['walked_out_dir']
    missing = [image_id for image_id in ids if not activations.exists(folder, image_id)]
    if missing:
        remedy = job.remedy('sem_seg_out_dir',
                            'with the same --walked_out_dir and an --infer_list that holds them')
        raise UserError(f'{activations.activation_path(folder, missing[0])}: {len(missing)} of the '
                        f'{len(ids)} walks of '
                        f'{job.lists["eval_set"]} are missing; {remedy}')

    record = records.read_folder(folder) or {}
    walk = Walk(**{name: record[name] for name in ('foreground', 'background') if name in record})
    load = functools.partial(walking.class_planes, folder, background=walk.background)
    threshold, is_auto = masks.bg_thres, masks.bg_thres == AUTO
    if is_auto:  # the masks' own, where they were cut from these walks
        same = {name: value for name, value in record.items() if name != 'stage'}
        numbers = auto_threshold.begun_with(job.files['sem_seg_out_dir'], ['bg_thres'], **same)
        threshold = numbers['bg_thres'] if numbers else auto_threshold.threshold_for(
            load, ids, job.run.workers)
    return Method('pseudo-mask', folder, threshold, load, is_auto, walk.is_published)


def image_rows(name: str, result: analysis.Analysis) -> list[tuple]:
    """Lines of images.csv."""
    miou, own = result.image_miou(), result.own_thresholds()
    at_best = miou[:, result.curve.position(result.curve.best()[0])]
    return [(name, image_id, *_rounded([threshold, np.nan if np.isnan(threshold) else values.max(),
                                        best]))
            for image_id, threshold, values, best in zip(result.ids, own.tolist(), miou,
                                                         at_best.tolist(), strict=True)]


def write(job: Job, images: int, summaries: dict[str, dict[str, Any]],
          image_lines: list[tuple]) -> None:
    """All files of the stage."""
    folder = Path(job.files['analysis_out_dir'])
    write_json(folder / 'analysis.json', {
        'split': job.lists['eval_set'], 'data': job.source.name, 'images': images,
        'version': job.version, 'commit': job.commit,
        'thresholds': scores.GRID, 'methods': summaries})
    write_csv(folder / 'curves.csv', ('method', 'threshold', 'miou', 'precision', 'recall'), (
        (name, *line) for name, method in summaries.items()
        for line in zip(scores.GRID, method['curve'], method['precision'], method['recall'],
                        strict=True)))
    write_csv(folder / 'images.csv', ('method', 'image', 'own_best_threshold', 'miou_there',
                                      'miou_at_global_best'),
              image_lines)
    columns = ('iou_used', 'iou_best', 'own_best_threshold', 'own_best_iou', 'precision_used',
               'recall_used', 'precision_best',
               'recall_best', 'objects', 'cv', 'top_tenth_ratio', 'gap', 'auc')
    write_csv(folder / 'classes.csv', ('method', 'class', *columns), (
        (name, class_name, *(values.get(column) for column in columns))
        for name, method in summaries.items() for class_name, values in method['classes'].items()))
    plots.save_all(summaries, folder)


def write_csv(path: Path, headings: Iterable[str], lines: Iterable[Iterable[Any]]) -> None:
    """Atomically; None is an empty cell."""
    with atomic_path(path) as temporary, open(temporary, 'w', newline='',
                                              encoding='utf-8') as stream:
        writer = csv.writer(stream, lineterminator='\n')
        writer.writerow(headings)
        writer.writerows(lines)


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """A column for each method."""
    def span(key: str) -> Callable[[dict], str]:
        return lambda method: '{:.2f} to {:.2f}'.format(*method[key])

    def two(key: str, *outer: str) -> Callable[[dict], str]:
        return lambda method: _two(functools.reduce(dict.__getitem__, outer, method)[key])

    def percent(key: str, *outer: str) -> Callable[[dict], float]:
        return lambda method: _fraction(functools.reduce(dict.__getitem__, outer, method)[key])

    rows = (('threshold in use', two('threshold_used')), ('  mIoU %', percent('miou_used')),
            ('best threshold for all images', two('best_threshold')),
            ('  mIoU %', percent('best_miou')),
            ('  points lost by the one in use', percent('loss_used')),
            ('  within 1 point of the best', span('within_1_point')),
            ('  within 5 points of the best', span('within_5_points')),
            ('each image its own best threshold', lambda method: '{:.2f} +- {:.2f}'.format(
                method['own_thresholds']['mean'], method['own_thresholds']['std'])),
            ('  mIoU % of the data set', percent('dataset_own', 'oracle')),
            ("  mean of the images' mIoU %", percent('image_mean_own', 'oracle')),
            ('  the same at one threshold', percent('image_mean_single', 'oracle')),
            ('objects: coefficient of variation', two('cv')),
            ('  top tenth / rest (median)', two('top_tenth_ratio')),
            ('mean activation of foreground', two('foreground_mean')),
            ('  of background', two('background_mean')),
            ('  gap', two('gap')), ('  area under the ROC curve', two('auc')))
    return scores.table(('', *(method['title'] for method in summaries.values())),
                        ((name, *(cell(method) for method in summaries.values()))
                         for name, cell in rows))


def class_table(summary: dict[str, Any]) -> str:
    """A line for each class that is in truth or prediction."""
    rows = ((name, _fraction(values['iou_used']), _fraction(values['iou_best']),
             _fraction(values['own_best_iou']),
             _two(values['own_best_threshold']), _fraction(values['precision_used']),
             _fraction(values['recall_used']),
             *(_two(values.get(key)) for key in ('cv', 'top_tenth_ratio', 'gap', 'auc')))
            for name, values in summary['classes'].items() if values['own_best_iou'] is not None)
    return scores.table(('class', 'IoU', 'at best', 'at own', 'own', 'precision', 'recall', 'CV',
                         'top/rest', 'gap', 'ROC area'), rows)


def _two(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


def _fraction(value: float | None) -> float:
    return math.nan if value is None else value


def _rounded(content: Any) -> Any:
    """For JSON: six digits, None where a number is not finite."""
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    if isinstance(content, float):
        return round(content, 6) if math.isfinite(content) else None
    return content


STAGE = Stage(
    'analyze_threshold', 'what a global threshold costs CAM, AMN and pseudo-masks, with plots', run,
    (Analysis, CamScore, AmnScore, PseudoMasks),
    reads=(Input('cam_out_dir', needed=False), Input('amn_cam_out_dir', needed=False),
           Input('walked_out_dir', needed=False)),
    writes=(Output('analysis_out_dir', 'result/analysis'),), lists=('eval_set',), masks=True,
    check=check)
