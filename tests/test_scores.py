"""Scores against matrices worked out by hand, and the curve against separate evaluations."""
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from misc.files import label_maps
from misc.method import seeds
from misc.pyutils import UserError
from misc.score import scores
from voc12.dataloader import PALETTE

NAN = float('nan')


def confusion_of(truth, prediction, n_classes):
    """Pixel by pixel: 255 in the truth is left out, in the prediction it is background."""
    matrix = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    for true, predicted in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true != 255:
            matrix[true, 0 if predicted == 255 else predicted] += 1
    return matrix


def test_iou_by_hand():
    matrix = np.array([[5, 1, 0, 0], [2, 3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    result = scores.score(matrix, 2)
    # class 2: nowhere; class 3: in the truth only
    np.testing.assert_allclose(result.iou, [5 / 9, 3 / 6, NAN, 0])
    assert result.miou == pytest.approx((5 / 9 + 0.5 + 0) / 3)
    assert result.images == 2


def test_a_class_that_is_predicted_only_counts_as_0():
    assert scores.score(np.array([[4, 1], [0, 0]]), 1).iou.tolist() == [0.8, 0]
    empty = scores.score(np.zeros((2, 2), np.int64), 1)
    assert np.isnan(empty.iou).all()
    assert np.isnan(empty.miou)


def source_of(tmp_path, masks, n_classes=3):
    for image_id, mask in masks.items():
        label_maps.save(tmp_path / f'{image_id}.png', mask, PALETTE)
    return SimpleNamespace(n_classes=n_classes, upright=False,
                           mask_path=lambda image_id: tmp_path / f'{image_id}.png',
                           image_path=lambda image_id: tmp_path / f'{image_id}.jpg')


@pytest.mark.parametrize('workers', [0, 2])
def test_255_is_left_out_of_the_truth_and_background_in_a_prediction(tmp_path, workers):
    truth = np.array([[0, 1, 1, 255], [2, 2, 255, 0]], np.uint8)
    prediction = np.array([[0, 1, 255, 1], [2, 1, 255, 255]], np.uint8)
    source = source_of(tmp_path, {'a': truth, 'b': truth})
    counts = scores.count_label_maps(source, ['a', 'b'], lambda image_id: prediction, workers)
    assert (counts / 2).tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 1, 1, 0, 0],
                                     [0, 0, 0, 0, 0]]
    assert (scores.ignored_as_background(counts) / 2).tolist() == [[2, 0, 0, 0], [1, 1, 0, 0],
                                                                   [0, 1, 1, 0], [0] * 4]
    assert np.array_equal(scores.ignored_as_background(counts),
                          2 * confusion_of(truth, prediction, 3))


def test_seeds_by_hand():
    # two classes; last column ignored
    counts = np.array([[6, 0, 0, 4], [1, 3, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]])[:3]
    result = scores.score_seeds(counts, 5)
    assert result.labelled == pytest.approx(10 / 16)
    np.testing.assert_allclose(result.precision, [6 / 7, 1, NAN])
    np.testing.assert_allclose(result.recall, [6 / 10, 3 / 4, 0])
    assert result.miou == pytest.approx((6 / 7 + 3 / 4) / 2)  # class 2 has no labelled pixel
    assert result.images == 5


def random_activations(rng, n_classes=3):
    """Maps with many ties: between planes, and of values with the grid's thresholds."""
    masks, maps = {}, {}
    for number, image_id in enumerate('abcd'):
        hw = (int(rng.integers(3, 9)), int(rng.integers(3, 9)))
        keys = np.sort(rng.permutation(n_classes)[:number])  # a: no class
        planes = (rng.integers(0, 101, (len(keys), *hw)) / 100).astype(np.float32)
        planes[rng.random(planes.shape) < 0.3] = np.float32(0.25)
        planes[rng.random(planes.shape) < 0.1] = rng.random()
        planes[rng.random(planes.shape) < 0.1] = 1.0
        masks[image_id] = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), hw)
        maps[image_id] = (keys, planes)
    return masks, maps


@pytest.mark.parametrize('seed', range(4))
def test_the_curve_equals_separate_evaluations_at_every_threshold(tmp_path, seed):
    masks, maps = random_activations(np.random.default_rng(seed))
    source = source_of(tmp_path, masks)
    curve = scores.score_activations(source, list(maps), maps.__getitem__, 0.333, 0)
    assert len(curve.thresholds) == 102  # the grid and the one asked for
    assert curve.images == 4
    for position, threshold in enumerate(curve.thresholds):
        apart = sum(confusion_of(masks[image_id],
                                 seeds.class_ids(keys)[seeds.arg_max(planes, threshold)], 3)
                    for image_id, (keys, planes) in maps.items())
        assert np.array_equal(curve.confusion(position), apart), threshold
        assert curve.at(threshold).miou == scores.score(apart, 4).miou == curve.curve()[position]
    assert curve.thresholds[25] == 0.25


def curve_with(values):
    """ThresholdScores whose curve is `values`."""
    result = scores.ThresholdScores(np.zeros((2, 2, len(values) + 1), np.int64),
                                    np.arange(len(values)) / 10, 1)
    result.curve = lambda: np.array(values)
    return result


def test_best_and_within_by_hand():
    curve = curve_with([0.50, 0.30, 0.47, 0.50, 0.49, 0.46, 0.48])
    assert curve.best() == (0.0, 0.5)  # the lowest of equals
    assert curve.within(0.03) == (0.0, 0.0)
    curve = curve_with([0.48, 0.30, 0.47, 0.50, 0.49, 0.46, 0.48])
    assert curve.best() == (pytest.approx(0.3), 0.5)
    # one stretch around the best
    assert curve.within(0.035) == (pytest.approx(0.2), pytest.approx(0.4))
    assert curve.within(1) == (0.0, pytest.approx(0.6))
    assert curve_with([NAN, 0.2, NAN]).best() == (pytest.approx(0.1), 0.2)


def test_read_truth_tells_what_is_wrong(tmp_path):
    source = source_of(tmp_path, {'a': np.array([[0, 3, 255]], np.uint8),
                                  'b': np.array([[0, 4, 255]], np.uint8)})
    assert scores.read_truth(source, 'a', (1, 3)).tolist() == [[0, 3, 255]]
    with pytest.raises(UserError,
                       match=r'a.png: 1 x 3, but a is 1 x 4: a mask has the size of its image'):
        scores.read_truth(source, 'a', (1, 4))
    with pytest.raises(UserError, match='b.png: holds labels above 3'):
        scores.read_truth(source, 'b', (1, 3))
    with pytest.raises(UserError, match='c.png: no such label map; a score needs the mask'):
        scores.read_truth(source, 'c', (1, 3))


def test_a_prediction_of_a_class_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match='labels above 3'):
        scores.truth_and_map(np.zeros((1, 2), np.uint8), np.array([[0, 5]], np.uint8), 3)


def test_a_split_without_a_known_pixel_is_refused(tmp_path):
    source = source_of(tmp_path, {'a': np.full((2, 2), 255, np.uint8)})
    with pytest.raises(UserError, match='nothing to score'):
        scores.count_label_maps(source, ['a'], lambda image_id: np.zeros((2, 2), np.uint8), 0)
    with pytest.raises(UserError, match='nothing to score'):
        scores.score_activations(source, ['a'],
                                 lambda image_id: (np.arange(1), np.ones((1, 2, 2), np.float32)),
                                 0.1, 0)


@pytest.mark.parametrize('workers', [0, 2])
def test_the_first_broken_image_ends_a_score(tmp_path, workers):
    source = source_of(tmp_path, {'a': np.zeros((2, 2), np.uint8)})
    with pytest.raises(UserError, match='b.png'):
        scores.count_label_maps(source, ['a', 'b'], lambda image_id: np.zeros((2, 2), np.uint8),
                                workers)


def test_printed_table():
    assert scores.table(('class', 'IoU %', 'images'),
                        [('background', 0.71234, 3), ('cat', NAN, 12)]) == (
        'class       IoU %  images\n'
        '-------------------------\n'
        'background   71.2       3\n'
        'cat             -      12')


def test_masks_of_other_values(tmp_path):
    """As Cityscapes': values that the source names stand for labels, others are ignored."""
    Image.fromarray(np.array([[7, 24, 26, 0]], np.uint8)).save(tmp_path / 'a.png')
    source = SimpleNamespace(n_classes=2, mask_values={7: 0, 24: 1, 26: 2},
                             mask_path=lambda image_id: tmp_path / f'{image_id}.png')
    assert scores.read_truth(source, 'a', (1, 4)).tolist() == [[0, 1, 2, 255]]
    source.mask_values = None
    with pytest.raises(UserError, match='holds labels above 2'):
        scores.read_truth(source, 'a', (1, 4))
