"""From activations to label maps."""
import numpy as np
import pytest

from misc.method import seeds
from misc.method.crf import dense_crf

RNG = np.random.default_rng(0)
# 24 x 30, patches
IMAGE = np.kron(RNG.integers(0, 256, (4, 5, 3)), np.ones((6, 6, 1), int)).astype(np.uint8)


def test_arg_max_by_hand():
    planes = np.array([[[0.25, 0.3, 0.3, 0.0]], [[0.25, 0.3, 0.4, 0.26]]], np.float32)
    # ties: the threshold, then the first plane
    assert seeds.arg_max(planes, 0.25).tolist() == [[0, 1, 2, 2]]
    assert seeds.arg_max(planes, 0.0).tolist() == [[1, 1, 2, 2]]
    assert seeds.arg_max(planes, 0.3).tolist() == [[0, 0, 2, 0]]
    assert seeds.arg_max(planes[:0], 0.25).tolist() == [[0, 0, 0, 0]]
    assert seeds.arg_max(planes[:0], 0.25).shape == (1, 4)


def test_arg_max_is_that_of_the_stacked_planes():
    planes = (RNG.integers(0, 11, (4, 20, 30)) / 10).astype(np.float32)
    for threshold in (0.0, 0.1, 0.3, 0.7, 1.0):
        padded = np.concatenate([np.full((1, 20, 30), threshold, np.float32), planes])
        assert np.array_equal(seeds.arg_max(planes, threshold), padded.argmax(0))


def test_class_ids():
    ids = seeds.class_ids(np.array([0, 7, 79]))
    assert ids.tolist() == [0, 1, 8, 80]
    assert ids.dtype == np.uint8
    assert seeds.class_ids(np.zeros(0, np.int64)).tolist() == [0]


def activation(count):
    """Smooth planes, one blob each."""
    rows, columns = np.indices(IMAGE.shape[:2])
    centres = RNG.random((count, 2)) * IMAGE.shape[:2]
    return np.stack([np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 60)
                     for y, x in centres]).astype(np.float32)


@pytest.mark.parametrize(('keys', 'n_classes'),
                         [([3], 20), ([0, 19], 20), ([0, 1, 2], 3), ([1, 40, 60, 79], 80),
                          ([2, 5, 7, 11, 13], 20), ([0], 1), ([250], 251)])
def test_refined_seed_is_two_separate_refinements(keys, n_classes):
    high_res, names = activation(len(keys)), np.array([0, *(key + 1 for key in keys)])
    sure, likely = (names[dense_crf(IMAGE, [seeds.arg_max(high_res, threshold)], len(keys) + 1)[0]]
                    for threshold in (0.6, 0.2))
    expected = np.where(sure != 0, sure, np.where(likely == 0, 0, 255))
    ours = seeds.refined_seed(IMAGE, np.array(keys), high_res, 0.6, 0.2)
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, expected)
    assert set(np.unique(ours)) <= {0, 255, *names}


def test_sure_foreground_sure_background_ignored_between(monkeypatch):
    high_res = np.array([[[0.9, 0.5, 0.1, 0.1]], [[0.1, 0.1, 0.4, 0.05]]], np.float32)
    seen = []

    def no_crf(image, labelings, n_labels):
        seen.append(n_labels)
        return labelings

    monkeypatch.setattr(seeds, 'dense_crf', no_crf)
    image = np.zeros((1, 4, 3), np.uint8)
    assert seeds.refined_seed(image, np.array([4, 9]), high_res, 0.6,
                              0.2).tolist() == [[5, 255, 255, 0]]
    assert seeds.refined_seed(image, np.array([4, 9]), high_res, 0.3,
                              0.3).tolist() == [[5, 5, 10, 0]]
    assert seen == [3, 3]
    monkeypatch.setattr(seeds, 'dense_crf', lambda image, labelings,
                        n: [labelings[0], labelings[1] * 0])
    # fg wins
    assert seeds.refined_seed(image, np.array([4, 9]), high_res, 0.6,
                              0.2).tolist() == [[5, 0, 0, 0]]


def test_without_a_class_all_is_background():
    ours = seeds.refined_seed(IMAGE, np.zeros(0, np.int64), np.zeros((0, 24, 30), np.float32), 0.3,
                              0.05)
    assert ours.shape == (24, 30)
    assert ours.dtype == np.uint8
    assert not ours.any()


@pytest.mark.parametrize('hw', [(1, 1), (7, 900)])
def test_any_size(hw):
    image = RNG.integers(0, 256, (*hw, 3), dtype=np.uint8)
    ours = seeds.refined_seed(image, np.array([2]), np.ones((1, *hw), np.float32), 0.3, 0.05)
    assert ours.tolist() == np.full(hw, 3).tolist()
