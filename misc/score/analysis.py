"""What a global threshold costs: curve, own best thresholds, the paper's two conditions.

The paper (AMN) names two conditions under which one threshold serves all: activation spread evenly
over the object, and a gap between the activation of foreground and background. It gives no formula;
the measures here are ours:

- imbalance: over the pixels of one class in one image (an object, below), taken from that class's
  plane, the coefficient of variation (standard deviation / mean) and the ratio of the mean of the
  highest tenth to the mean of the rest.
- gap: the difference of the means of foreground and background activation, and the area under the
  ROC curve (how often a foreground pixel is above a background pixel, ties counted half), over the
  pixels of all images.

Which pixels count: foreground of class c are those whose truth is c, in images labelled c, with c's
  plane; background of class c those whose truth is 0 in the same images, with c's plane. Over all
  classes, foreground is the foreground of every class together, background the pixels with truth 0
  with the strongest plane of their image (an image without a class has none). Pixels whose truth is
  255 are left out everywhere.

Shapes: N images, C classes, K present classes, T thresholds. Memory is that of the counts, and
  about 1 kB an image.
"""
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from misc.contract.sources import Source
from misc.pyutils import UserError
from misc.score import masks, scores

BINS = 1000  # of activation, even from 0 to 1
NAN = float('nan')
NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64))  # sparse counts of nothing


class Pixels(NamedTuple):
    """The activation of some pixels: how many, its sum."""

    number: int
    total: float


class ObjectRow(NamedTuple):
    """One class (from 0) in one image that is labelled with it."""

    key: int
    foreground: Pixels
    background: Pixels
    cv: float
    top_tenth_ratio: float


class ImageRow(NamedTuple):
    """What is kept of an image.

    miou: at each threshold, (T,).
    objects: a row each.
    background: its strongest activation.
    """

    miou: np.ndarray
    objects: list[ObjectRow]
    background: Pixels


@dataclasses.dataclass
class Analysis:
    """The analysis of one folder of activations, with the images in the order of `ids`.

    curve: at every threshold.
    own: counts (C+1 truths, C+1 predictions) with each image at its own best threshold.
    histograms: pixels (2C+1, BINS): foreground of each class, background of each class, background
      of the strongest.
    """

    ids: list[str]
    curve: scores.ThresholdScores
    own: np.ndarray
    histograms: np.ndarray
    rows: list[ImageRow]

    def image_miou(self) -> np.ndarray:
        """Return mIoU of each image at each threshold (N, T); nan without a valid pixel."""
        return np.stack([row.miou for row in self.rows])

    def own_thresholds(self) -> np.ndarray:
        """Return each image's best threshold (N,), the lowest of equals; nan without any."""
        return np.array([NAN if np.isnan(row.miou).all()
                         else self.curve.thresholds[own_position(row.miou)]
                         for row in self.rows])


def analyse(source: Source, ids: list[str], load: Callable[[str], tuple[np.ndarray, np.ndarray]],
            threshold: float, num_workers: int) -> Analysis:
    """Analyse the activations of `ids` in one pass.

    load(id) gives keys (K,) and planes (K, H, W). `threshold` joins scores.GRID.
    Raises UserError for what is missing or does not fit.
    """
    thresholds = np.array(sorted({*scores.GRID, threshold}))
    square = (source.n_classes + 1,) * 2
    shapes = ((*square, len(thresholds) + 1), square, (2 * source.n_classes + 1, BINS))
    starts = np.cumsum([0, *map(np.prod, shapes)])

    def count(image_id: str) -> tuple[np.ndarray, np.ndarray, tuple[ImageRow, masks.Seen]]:
        keys, planes = load(image_id)
        true = scores.read_truth(source, image_id, planes.shape[1:])
        check(image_id, keys, planes, source.n_classes)
        parts, row = measure(true, keys, planes, source.n_classes, thresholds)
        return *_joined([(index + start, counts)
                         for (index, counts), start in zip(parts, starts[:-1], strict=True)]), (
            row, masks.look(source, image_id, true))

    total, kept = scores.add_up_and_keep(ids, count, int(starts[-1]), num_workers)
    rows, seen = map(list, zip(*kept, strict=True))
    scores.tell_odd(source, seen)
    curve, own, histograms = (part.reshape(shape)
                              for part, shape in zip(np.split(total, starts[1:-1]), shapes,
                                                     strict=True))
    return Analysis(ids, scores.ThresholdScores(curve, thresholds, len(ids)), own, histograms, rows)


def check(image_id: str, keys: np.ndarray, planes: np.ndarray, n_classes: int) -> None:
    """Raise UserError for activations of another data set, and for numbers that are none."""
    if len(keys) and not 0 <= keys.min() <= keys.max() < n_classes:
        raise UserError(f'the activation of {image_id} is of class {keys.max()}, counted from 0; '
                        f'this data set has {n_classes}')
    if not np.isfinite(planes).all():
        raise UserError(f'the activation of {image_id} holds numbers that are not finite; make it '
                        f'anew')


def measure(truth: np.ndarray, keys: np.ndarray, planes: np.ndarray, n_classes: int,
            thresholds: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray]], ImageRow]:
    """Count one image: for `Analysis.curve`, `own` and `histograms`, and its row.

    truth: (H, W).
    planes: (K, H, W) without background.
    Returns the counts as (flat positions, counts) each, and the row.
    """
    curve = scores.truth_and_activation(truth, keys, planes, n_classes, thresholds)
    miou, own = own_best(*curve, n_classes, thresholds)
    background, strongest = truth == 0, np.zeros(0, planes.dtype)
    objects, histograms = [], [NOTHING]
    for key, plane in zip(keys.tolist(), planes, strict=True):
        inside, outside = plane[truth == key + 1], plane[background]
        objects.append(ObjectRow(key, _pixels(inside), _pixels(outside), *imbalance(inside)))
        histograms += [_histogram(inside, key), _histogram(outside, n_classes + key)]
    if len(keys):
        strongest = planes[:, background].max(0)
        histograms.append(_histogram(strongest, 2 * n_classes))
    return [curve, own, _joined(histograms)], ImageRow(miou, objects, _pixels(strongest))


def own_best(index: np.ndarray, counts: np.ndarray, n_classes: int,
             thresholds: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return an image's mIoU at each threshold (T,), and its confusion at its own best one.

    index, counts: of `scores.truth_and_activation`.
    The confusion is (flat positions, counts).
    """
    here, of_image = scores.of_one_image(index, counts, n_classes, thresholds)
    confusions = of_image.confusions()
    miou = scores.nan_mean(scores.iou(confusions))
    if not counts.size:  # no valid pixel
        return miou, NOTHING
    best = confusions[own_position(miou)]
    rows, columns = np.nonzero(best)
    return miou, (here[rows] * (n_classes + 1) + here[columns], best[rows, columns])


def own_position(miou: np.ndarray) -> int:
    """The best of an image's mIoU (T,), the lowest of equals."""
    return int(np.nanargmax(miou))


def imbalance(values: np.ndarray) -> tuple[float, float]:
    """Measure how unevenly the activation (n,) of an object is spread (ours).

    Returns the coefficient of variation, and the mean of the highest tenth / mean of the rest. A
    tenth is rounded up. nan for less than two pixels, and where the activation is 0; the ratio is
    inf where only the rest is.
    """
    values = values.astype(np.float64)
    mean = values.mean() if len(values) > 1 else 0.0
    if mean <= 0:
        return NAN, NAN
    rest = len(values) - -(-len(values) // 10)
    ordered = np.partition(values, rest)
    low = ordered[:rest].mean()
    return (float(values.std() / mean), float(ordered[rest:].mean() / low) if low > 0
            else float('inf'))


def roc_area(foreground: np.ndarray, background: np.ndarray) -> float:
    """Return the area under the ROC curve from two histograms over the same bins.

    Pixels of the same bin count half. nan where one histogram is empty.
    """
    foreground, background = foreground.astype(np.float64), background.astype(np.float64)
    pairs = foreground.sum() * background.sum()
    below = background.cumsum() - background
    return float((foreground * (below + background / 2)).sum() / pairs) if pairs else NAN


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    index, counts = zip(*parts, strict=True)
    return np.concatenate(index), np.concatenate(counts)


def _pixels(values: np.ndarray) -> Pixels:
    return Pixels(len(values), float(values.sum(dtype=np.float64)))


def _histogram(values: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """(flat positions, counts) in row `row` of (_, BINS); values are cut to 0..1."""
    bins = np.minimum((np.clip(values, 0, 1) * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = np.flatnonzero(counts)
    return row * BINS + filled, counts[filled]


def summary(result: Analysis, title: str, threshold: float,
            classes: tuple[str, ...]) -> dict[str, Any]:
    """Return an `Analysis` without its images, for JSON.

    step/analyze_threshold.py says what each key is.
    """
    curve = result.curve.curve()
    best, best_miou = result.curve.best()
    used = float(curve[result.curve.position(threshold)])
    return {'title': title, 'images': len(result.ids), 'threshold_used': threshold,
            'miou_used': used,
            'loss_used': best_miou - used, 'best_threshold': best, 'best_miou': best_miou,
            'within_1_point': result.curve.within(0.01),
            'within_5_points': result.curve.within(0.05),
            'curve': on_grid(result, curve), **overall_precision_recall(result),
            'oracle': oracle(result),
            'own_thresholds': distribution(result), **conditions(result, None),
            'histograms': histograms(result), 'classes': per_class(result, threshold, classes)}


def on_grid(result: Analysis, values: np.ndarray) -> list[float]:
    """Return the values (T,) at scores.GRID alone."""
    return values[[result.curve.position(threshold) for threshold in scores.GRID]].tolist()


def precision_recall(result: Analysis) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall of the foreground at each threshold, (T,) each.

    Precision: of the pixels given a class the fraction whose truth is that class; recall: of the
      pixels with a class the fraction given it.
    """
    confusions = result.curve.confusions()
    right = np.diagonal(confusions, axis1=1, axis2=2)[:, 1:].sum(1)
    return scores.ratio(right,
                        confusions[:, :, 1:].sum(
                            (1, 2))), scores.ratio(right, confusions[:, 1:].sum((1, 2)))


def overall_precision_recall(result: Analysis) -> dict[str, list[float]]:
    precision, recall = precision_recall(result)
    return {'precision': on_grid(result, precision), 'recall': on_grid(result, recall)}


def oracle(result: Analysis) -> dict[str, float]:
    """What it brings if every image uses its own best threshold, in two ways (ours).

    image_mean_*: the mean over images of each image's mIoU, at the threshold that is best for this
    mean and at each
    image's own: the second is never lower. dataset_*: mIoU of the data set at the best global
    threshold, and of the confusion added up with each image at its own: usually higher, not always,
    because the sum is not the mean.
    """
    image_miou = result.image_miou()
    image_miou = image_miou[~np.isnan(image_miou).all(1)]
    mean = image_miou.mean(0)
    single = int(mean.argmax())
    return {'image_mean_single': float(mean[single]),
            'image_mean_single_threshold': float(result.curve.thresholds[single]),
            'image_mean_own': float(image_miou.max(1).mean()),
            'dataset_single': result.curve.best()[1],
            'dataset_own': scores.score(result.own, len(result.ids)).miou}


def distribution(result: Analysis) -> dict[str, Any]:
    """Summarise the images' own best thresholds."""
    values = result.own_thresholds()
    values = values[~np.isnan(values)]
    return {'mean': float(values.mean()), 'std': float(values.std()), 'images': len(values),
            'quantiles': dict(zip(('10', '25', '50', '75', '90'),
                                  np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9)).tolist(),
                                  strict=True)),
            'twentieths': np.histogram(values, np.arange(21) / 20)[0].tolist()}


def conditions(result: Analysis, key: int | None) -> dict[str, Any]:
    """Return imbalance and gap of class `key`, or of all.

    The coefficient of variation is the mean over objects, the ratio the median: a few objects whose
    rest is nearly 0 would make its mean.
    """
    n_classes = len(result.own) - 1
    objects = [found for row in result.rows for found in row.objects if key in (None, found.key)]
    foreground = [found.foreground for found in objects]
    if key is None:
        background, counts = [row.background
                              for row in result.rows], result.histograms[2 * n_classes]
        inside = result.histograms[:n_classes].sum(0)
    else:
        background, counts = [found.background
                              for found in objects], result.histograms[n_classes + key]
        inside = result.histograms[key]
    spread = np.array([(found.cv, found.top_tenth_ratio) for found in objects
                       if not np.isnan(found.cv)]).reshape(-1, 2)
    means = [_mean(foreground), _mean(background)]
    return {'objects': len(spread), 'cv': float(spread[:, 0].mean()) if len(spread) else NAN,
            'top_tenth_ratio': float(np.median(spread[:, 1])) if len(spread) else NAN,
            'foreground_mean': means[0], 'background_mean': means[1], 'gap': means[0] - means[1],
            'auc': roc_area(inside, counts)}


def _mean(pixels: list[Pixels]) -> float:
    number = sum(part.number for part in pixels)
    return sum(part.total for part in pixels) / number if number else NAN


def histograms(result: Analysis) -> dict[str, list[int]]:
    """Count pixels in 50 even bins of activation: foreground of all classes, background."""
    n_classes = len(result.own) - 1
    return {name: rows.reshape(50, -1).sum(1).tolist()
            for name, rows in (('foreground', result.histograms[:n_classes].sum(0)),
                               ('background', result.histograms[-1]))}


def per_class(result: Analysis, threshold: float,
              classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return background and each class at the used, the best global and its own best threshold.

    With precision and recall, and, for classes, imbalance and gap.
    """
    iou, confusions = result.curve.iou(), result.curve.confusions()
    diagonal = np.diagonal(confusions, axis1=1, axis2=2)
    precision, recall = scores.ratio(diagonal,
                                     confusions.sum(1)), scores.ratio(diagonal, confusions.sum(2))
    places = {'used': result.curve.position(threshold),
              'best': result.curve.position(result.curve.best()[0])}
    rows = {}
    for number, name in enumerate(('background', *classes)):
        occurs = not np.isnan(iou[:, number]).all()
        own = int(np.nanargmax(iou[:, number])) if occurs else 0
        rows[name] = {f'{what}_{when}': float(values[place, number])
                      for when, place in places.items()
                      for what, values in (('iou', iou), ('precision', precision),
                                           ('recall', recall))}
        rows[name] |= {'own_best_threshold': float(result.curve.thresholds[own]) if occurs else NAN,
                       'own_best_iou': float(iou[own, number])}
        rows[name] |= conditions(result, number - 1) if number else {}
    return rows
