"""What a global threshold costs: CAM, AMN's activations, pseudo-masks and further activations side by side.

Reads --cam_out_dir, --amn_cam_out_dir (where they are there), --walked_out_dir and --analyze_dirs (where they are given) and
the masks of --eval_set. Writes to --analysis_out_dir: analysis.json, curves.csv, images.csv, classes.csv, and the figures
curves, best_thresholds, histograms and precision_recall, each as .png and .svg. Prints a table.
Only this stage: python run_sample.py --analyze_threshold_pass True

analysis.json: "split", "data", "images" (their number), "version", "commit", "thresholds" (scores.GRID) and "methods", an
object for each of "cam", "amn_cam", "sem_seg" and the names of --analyze_dirs. Scores are shares (0.45), null: not defined.
How each is defined: misc/analysis.py. Of a method:
  title, images, made_by      for people; number of images; fingerprint of the folder's settings
  threshold_used, miou_used   the threshold of the stage (--eval_cam_thres, for further folders too, --eval_amn_cam_thres,
                              --sem_seg_bg_thres), and the mIoU there
  threshold_from              'auto', where the threshold in use was chosen from the activations; else not there
  threshold_published,        of "cam", "amn_cam" and "sem_seg" alone: the threshold published for VOC 2012, and
  loss_published              best_miou - the mIoU there
  best_threshold, best_miou   the best global threshold, the lowest of equals; loss_used: best_miou - miou_used
  within_1_point,             [lowest, highest] threshold of the stretch around the best that comes within 0.01
  within_5_points             and 0.05 of it
  curve, precision, recall    at each of "thresholds": mIoU; precision and recall of the foreground's pixels
  oracle                      image_mean_single (at image_mean_single_threshold) and image_mean_own: mean over images of
                              the image's mIoU, at the one threshold that is best for it, and at each image's own;
                              dataset_single and dataset_own: mIoU of the data set, likewise
  own_thresholds              of the images' own best thresholds: mean, std, quantiles (in %), twentieths (images in [0, 0.05),
                              ... [0.95, 1]), images (those with a known pixel)
  objects                     pairs of an image and a class in it, of two pixels or more and some activation
  cv, top_tenth_ratio         imbalance within objects: mean and median over them
  foreground_mean,            the gap between foreground and background; gap is the difference of both means, auc the area
  background_mean, gap, auc   under the ROC curve
  histograms                  foreground, background: pixels in 50 even bins of activation
  classes                     for background and each class iou, precision and recall at the used and the best threshold
                              (iou_used, iou_best, ...), own_best_threshold and own_best_iou; for classes objects ... auc, too
"""
import csv
import dataclasses
import functools
import math
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from misc import activations, analysis, auto_threshold, options, plots, records, scores, torchutils
from misc.pyutils import UserError, atomic_path, log, write_json
from step import make_sem_seg, scoring

_OF_FLAGS = {own: value for own, _, value in options.THRESHOLDS}
PUBLISHED = {'cam': _OF_FLAGS['eval_cam_thres'], 'amn_cam': _OF_FLAGS['eval_amn_cam_thres'],
             'sem_seg': 0.25}  # the default of --sem_seg_bg_thres


@dataclasses.dataclass
class Method:
    """A folder of activations: load(id) gives keys (K,) and planes (K, H, W). is_auto: its threshold was chosen from them."""

    title: str
    folder: str
    threshold: float
    load: Callable[[str], tuple[np.ndarray, np.ndarray]]
    is_auto: bool = False


def run(args: Namespace) -> None:
    if torchutils.is_main():
        records.lock_folder(Path(args.analysis_out_dir))
    torchutils.wait_for_all()
    ids = args.source.names(args.eval_set)
    summaries, images = {}, []
    for name, method in methods_of(args, ids).items():
        log.info('%s: %s', method.title, method.folder)
        scoring.tell_changes(args, method.folder, ids)
        result = analysis.analyse(args.source, ids, method.load, method.threshold, args.num_workers)
        summary = analysis.summary(result, method.title, method.threshold, args.source.classes)
        chosen = {'threshold_from': auto_threshold.AUTO} if method.is_auto else {}
        summaries[name] = _rounded(summary | published(name, result) | chosen | {'made_by': records.made_by(method.folder)})
        images += image_rows(name, result)
    if torchutils.is_main():
        write(args, len(ids), summaries, images)
    for summary in summaries.values():
        log.info('%s, IoU and the rest of each class in %%\n%s\n', summary['title'], class_table(summary))
    log.info('%s, %d images; what each line is: misc/analysis.py\n%s', args.eval_set, len(ids), table(summaries))
    log.info('analysis: %s', args.analysis_out_dir)


def methods_of(args: Namespace, ids: list[str]) -> dict[str, Method]:
    """What is analysed. The log says what is left out; raises UserError where nothing is left, or the walk is not whole."""
    folders = {'cam': ('CAM', args.cam_out_dir, args.eval_cam_thres, 'make_cam'),
               'amn_cam': ('AMN', args.amn_cam_out_dir, args.eval_amn_cam_thres, 'make_amn_cam')}
    methods = {}
    for name, (title, folder, threshold, maker) in folders.items():
        if not Path(folder).is_dir():
            log.info('%s is left out: there is no %s (--%s_pass True makes it)', title, folder, maker)
            continue
        methods[name] = _method(args, ids, title, folder, threshold,
                                f'run --{maker}_pass True with a --train_list that holds it')
    if args.walked_out_dir is not None:
        methods['sem_seg'] = _pseudo_masks(args, ids)
    for name, folder in args.analyze_dirs:
        methods[name] = _method(args, ids, name, folder, args.eval_cam_thres, 'an analysis needs every image of --eval_set')
    if not methods:
        raise UserError(f'there is nothing to analyse: neither {args.cam_out_dir} nor {args.amn_cam_out_dir}; run '
                        '--make_cam_pass True first, or name other folders (--cam_out_dir, --amn_cam_out_dir, --analyze_dirs)')
    return methods


def _method(args: Namespace, ids: list[str], title: str, folder: str, threshold: float | str, remedy: str) -> Method:
    is_auto = threshold == auto_threshold.AUTO
    if is_auto:
        threshold = auto_threshold.threshold_of(folder, ids, remedy, args.num_workers)
    return Method(title, folder, threshold, functools.partial(activations.class_planes, folder, remedy=remedy), is_auto)


def published(name: str, result: analysis.Analysis) -> dict[str, float]:
    """What the published threshold costs; nothing for further folders."""
    if name not in PUBLISHED:
        return {}
    return {'threshold_published': PUBLISHED[name],
            'loss_published': result.curve.best()[1] - result.curve.at(PUBLISHED[name]).miou}


def _pseudo_masks(args: Namespace, ids: list[str]) -> Method:
    missing = [image_id for image_id in ids if not activations.exists(args.walked_out_dir, image_id)]
    if missing:
        raise UserError(f'{activations.activation_path(args.walked_out_dir, missing[0])}: {len(missing)} of the {len(ids)} '
                        f'walks of {args.eval_set} are missing; run --make_sem_seg_pass True with the same --walked_out_dir '
                        'and an --infer_list that holds them')

    def load(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        walked = activations.load_walked(args.walked_out_dir, image_id)
        return walked.keys, make_sem_seg.planes_of(walked)

    return Method('pseudo-mask', args.walked_out_dir, args.sem_seg_bg_thres, load)


def image_rows(name: str, result: analysis.Analysis) -> list[tuple]:
    """Lines of images.csv."""
    miou, own = result.image_miou(), result.own_thresholds()
    at_best = miou[:, result.curve.position(result.curve.best()[0])]
    return [(name, image_id, *_rounded([threshold, np.nan if np.isnan(threshold) else values.max(), best]))
            for image_id, threshold, values, best in zip(result.ids, own.tolist(), miou, at_best.tolist(), strict=True)]


def write(args: Namespace, images: int, summaries: dict[str, dict[str, Any]], image_lines: list[tuple]) -> None:
    """All files of the stage."""
    folder = Path(args.analysis_out_dir)
    write_json(folder / 'analysis.json', {
        'split': args.eval_set, 'data': args.source.name, 'images': images, 'version': args.version, 'commit': args.commit,
        'thresholds': scores.GRID, 'methods': summaries})
    write_csv(folder / 'curves.csv', ('method', 'threshold', 'miou', 'precision', 'recall'), (
        (name, *line) for name, method in summaries.items()
        for line in zip(scores.GRID, method['curve'], method['precision'], method['recall'], strict=True)))
    write_csv(folder / 'images.csv', ('method', 'image', 'own_best_threshold', 'miou_there', 'miou_at_global_best'),
              image_lines)
    columns = ('iou_used', 'iou_best', 'own_best_threshold', 'own_best_iou', 'precision_used', 'recall_used', 'precision_best',
               'recall_best', 'objects', 'cv', 'top_tenth_ratio', 'gap', 'auc')
    write_csv(folder / 'classes.csv', ('method', 'class', *columns), (
        (name, class_name, *(values.get(column) for column in columns))
        for name, method in summaries.items() for class_name, values in method['classes'].items()))
    plots.save_all(summaries, folder)


def write_csv(path: Path, headings: Iterable[str], lines: Iterable[Iterable[Any]]) -> None:
    """Atomically; None is an empty cell."""
    with atomic_path(path) as temporary, open(temporary, 'w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream, lineterminator='\n')
        writer.writerow(headings)
        writer.writerows(lines)


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """A column for each method."""
    def span(key: str) -> Callable[[dict], str]:
        return lambda method: '{:.2f} to {:.2f}'.format(*method[key])

    def two(key: str, *outer: str) -> Callable[[dict], str]:
        return lambda method: _two(functools.reduce(dict.__getitem__, outer, method)[key])

    def share(key: str, *outer: str) -> Callable[[dict], float]:
        return lambda method: _share(functools.reduce(dict.__getitem__, outer, method)[key])

    rows = (('threshold in use', two('threshold_used')), ('  mIoU %', share('miou_used')),
            ('best threshold for all images', two('best_threshold')), ('  mIoU %', share('best_miou')),
            ('  points lost by the one in use', share('loss_used')), ('  within 1 point of the best', span('within_1_point')),
            ('  within 5 points', span('within_5_points')),
            ('each image its own best threshold', lambda method: '{:.2f} +- {:.2f}'.format(
                method['own_thresholds']['mean'], method['own_thresholds']['std'])),
            ('  mIoU % of the data set', share('dataset_own', 'oracle')),
            ("  mean of the images' mIoU %", share('image_mean_own', 'oracle')),
            ('  the same at one threshold', share('image_mean_single', 'oracle')),
            ('objects: coefficient of variation', two('cv')), ('  top tenth / rest (median)', two('top_tenth_ratio')),
            ('mean activation of foreground', two('foreground_mean')), ('  of background', two('background_mean')),
            ('  gap', two('gap')), ('  area under the ROC curve', two('auc')))
    return scores.table(('', *(method['title'] for method in summaries.values())),
                        ((name, *(cell(method) for method in summaries.values())) for name, cell in rows))


def class_table(summary: dict[str, Any]) -> str:
    """A line for each class that is in truth or prediction."""
    rows = ((name, _share(values['iou_used']), _share(values['iou_best']), _share(values['own_best_iou']),
             _two(values['own_best_threshold']), _share(values['precision_used']), _share(values['recall_used']),
             *(_two(values.get(key)) for key in ('cv', 'top_tenth_ratio', 'gap', 'auc')))
            for name, values in summary['classes'].items() if values['own_best_iou'] is not None)
    return scores.table(('class', 'IoU', 'at best', 'at own', 'own', 'precision', 'recall', 'CV', 'top/rest', 'gap',
                         'ROC area'), rows)


def _two(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


def _share(value: float | None) -> float:
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
