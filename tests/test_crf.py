"""The dense CRF: against a mean field in plain numpy, pydensecrf, golden label maps; its cache, its
limits.
"""
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from misc import imutils
from misc.files import label_maps
from misc.method import crf, seeds
from misc.pyutils import UserError, WriteError
from script.benchmark import by_pydensecrf, label_energy
from tests.conftest import GOLDEN

ROOT = Path(__file__).resolve().parent.parent


def smooth(rng, hw, planes):
    """Noise of a few pixels, enlarged: (planes, H, W)."""
    return np.stack([cv2.resize(rng.random((5, 6)).astype(np.float32), hw[::-1],
                                interpolation=cv2.INTER_CUBIC)
                     for _ in range(planes)])


def photograph(rng, hw, noise=12):
    """Smooth colours with noise: uint8 (H, W, 3)."""
    clean = smooth(rng, hw, 3).transpose(1, 2, 0) * 255
    return np.clip(clean + rng.normal(0, noise, (*hw, 3)), 0, 255).astype(np.uint8)


def softmax(logits):
    exp = np.exp(logits - logits.max(0))
    return exp / exp.sum(0)


# a plain mean field: the filters as matrices, from the definition of the lattice (Adams, Baek and
# Davis, 2010), in float64

def filter_matrix(features):
    """What a permutohedral lattice makes of N pixels with d features (N, d), normalised on both
    sides: (N, N).
    """
    n, d = features.shape
    scaled = features * np.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) *
                                                           np.arange(2, d + 2))
    elevated = scaled @ np.array([[float(axis < column) or -axis * float(axis == column)
                                   for axis in range(d + 1)]
                                  for column in range(1, d + 1)])
    corner = np.rint(elevated / (d + 1)).astype(int) * (d + 1)
    order = np.argsort(-(elevated - corner), axis=1, kind='stable')
    rank = np.argsort(order, axis=1) + corner.sum(1, keepdims=True) // (d + 1)
    turn = (rank < 0).astype(int) - (rank > d)
    rank, corner = rank + turn * (d + 1), corner + turn * (d + 1)
    offset = (elevated - corner) / (d + 1)
    points, splat = {}, []
    for i in range(n):
        falling = offset[i, np.argsort(rank[i])]
        shares = [1 - falling[0] + falling[d],
                  *(falling[d - vertex] - falling[d - vertex + 1] for vertex in range(1, d + 1))]
        for vertex, share in enumerate(shares):
            key = tuple(corner[i] + np.where(rank[i] <= d - vertex, vertex, vertex - d - 1))
            splat.append((i, points.setdefault(key, len(points)), share))
    matrix = np.zeros((n, len(points)))
    for i, point, share in splat:
        matrix[i, point] = share
    blurred = matrix.T
    for axis in range(d + 1):
        step = np.where(np.arange(d + 1) == axis, d, -1)
        blur = np.eye(len(points))
        for key, point in points.items():
            for neighbour in (tuple(key + step), tuple(key - step)):
                if neighbour in points:
                    blur[point, points[neighbour]] = 0.5
        blurred = blur @ blurred
    whole = matrix @ blurred / (1 + 2.0 ** -d)
    norm = 1 / np.sqrt(whole.sum(1))
    return norm[:, None] * whole * norm


def plain_mean_field(image, energy, terms, iterations=10):
    """energy (n, N) -> the arg max (H, W), every label worked with."""
    rows, columns = np.indices(image.shape[:2]).reshape(2, -1)
    place = np.stack([columns, rows], 1)
    near = filter_matrix(place / terms.gaussian_sxy)
    alike = filter_matrix(np.hstack([place / terms.bilateral_sxy,
                                     image.reshape(-1, 3) / terms.bilateral_srgb]))
    pairwise = terms.gaussian_compat * near + terms.bilateral_compat * alike
    q = softmax(-energy)
    for _ in range(iterations):
        q = softmax(-energy + q @ pairwise.T)
    return q.argmax(0).reshape(image.shape[:2])


@pytest.mark.parametrize('n_labels', [2, 3, 6, 12])
def test_labelings_come_out_as_from_a_plain_mean_field(n_labels):
    rng = np.random.default_rng(n_labels)
    image = photograph(rng, (17, 22), noise=4)
    planes = smooth(rng, (17, 22), n_labels)
    label_map = np.where(rng.random((17, 22)) < 0.2, rng.integers(0, n_labels, (17, 22)),
                         planes.argmax(0))
    refined, = crf.dense_crf(image, [label_map], n_labels)
    assert np.array_equal(refined, plain_mean_field(image, label_energy(label_map, n_labels),
                                                    crf.SEEDS))
    assert (refined != label_map).any()


@pytest.mark.parametrize('n_labels', [2, 5, 21])
def test_probabilities_come_out_as_from_a_plain_mean_field(n_labels):
    rng = np.random.default_rng(n_labels)
    image = photograph(rng, (16, 19))
    probabilities = softmax(4 * smooth(rng, (16, 19),
                                       n_labels) + rng.normal(0, 0.5, (n_labels, 16, 19)))
    probabilities[:, :2] = 0
    probabilities[1, :2] = 1
    refined = crf.refine_probabilities(image, probabilities)
    energy = -np.log(np.maximum(probabilities, crf.FLOOR)).reshape(n_labels, -1)
    assert np.array_equal(refined, plain_mean_field(image, energy, crf.SEGMENTATION))
    assert (refined != probabilities.argmax(0)).any()


def test_fewer_iterations_are_not_the_same():
    rng = np.random.default_rng(0)
    image = photograph(rng, (40, 50))
    label_map = rng.integers(0, 3, (40, 50))
    ten, one = (crf.dense_crf(image, [label_map], 3, iterations)[0] for iterations in (10, 1))
    assert (ten != one).any()
    assert np.array_equal(crf.dense_crf(image, [label_map], 3, 0)[0], label_map)


@pytest.mark.parametrize('n_labels', [2, 3, 4, 8])
def test_several_labelings_are_separate_refinements(n_labels):
    rng = np.random.default_rng(n_labels)
    image = photograph(rng, (33, 46))
    labelings = [rng.integers(0, n_labels, (33, 46)) for _ in range(5)]
    together = crf.dense_crf(image, labelings, n_labels)
    assert len(together) == 5
    for label_map, refined in zip(labelings, together, strict=True):
        assert np.array_equal(crf.dense_crf(image, [label_map], n_labels)[0], refined)


@pytest.mark.parametrize('image_id', [f'2007_00000{number}' for number in (1, 2, 3, 4)])
@pytest.mark.parametrize(('name', 'folder', 'thresholds'), [('cam', 'ir_label', (0.30, 0.05)),
                                                            ('amn_cam', 'amn_ir_label',
                                                             (0.45, 0.15))])
def test_golden_label_maps(image_id, name, folder, thresholds):
    golden = np.load(GOLDEN / 'expected' / f'{image_id}_activations.npz')
    keys, high_res = golden[f'{name}_keys'], golden[f'{name}_high_res'].astype(np.float32)
    if len(high_res) > len(keys):  # AMN's begins with the background
        high_res = high_res[1:]
    image = imutils.read_image(GOLDEN / 'tree' / 'JPEGImages' / f'{image_id}.jpg')
    ours = seeds.refined_seed(image, keys, high_res, *thresholds)
    assert (ours != label_maps.load(GOLDEN / 'expected' / folder /
                                    f'{image_id}.png')).mean() <= 1e-3


# against pydensecrf, where it can be installed

needs_pydensecrf = pytest.mark.skipif(importlib.util.find_spec('pydensecrf') is None,
                                      reason='pydensecrf2 is not installed '
                                      '(it builds up to Python 3.12, with g++)')


def kinds_of_image(rng, hw):
    yield photograph(rng, hw)
    yield rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
    yield np.full((*hw, 3), 90, np.uint8)


@needs_pydensecrf
@pytest.mark.parametrize('n_labels', [2, 3, 4, 5, 8, 21, 81])
@pytest.mark.parametrize('hw', [(60, 81), (1, 1), (1, 37), (23, 1)])
def test_every_pixel_is_pydensecrfs(n_labels, hw):
    rng = np.random.default_rng(n_labels)
    for image in kinds_of_image(rng, hw):
        planes = 4 * smooth(rng, hw, n_labels)
        labelings = [planes.argmax(0), rng.integers(0, n_labels, hw)]
        expected = by_pydensecrf(image, [label_energy(label_map, n_labels)
                                         for label_map in labelings], crf.SEEDS)
        for refined, other in zip(crf.dense_crf(image, labelings, n_labels), expected, strict=True):
            assert np.array_equal(refined, other)
        probabilities = softmax(planes).astype(np.float32)
        energy = -np.log(np.maximum(probabilities, np.float32(crf.FLOOR))).reshape(n_labels, -1)
        expected, = by_pydensecrf(image, [energy], crf.SEGMENTATION)
        assert np.array_equal(crf.refine_probabilities(image, probabilities), expected)


# limits, cache, imports

@pytest.mark.parametrize(('hw', 'side'), [((20_000, 20_000), 17_043), ((4, 30_000), 17_043)])
def test_too_large_an_image_is_refused_before_memory_is_taken(hw, side):
    image = np.broadcast_to(np.zeros(3, np.uint8), (*hw, 3))
    with pytest.raises(UserError, match=rf'{hw[1]} x {hw[0]} pixels .* up to {side} x {side}'):
        crf.dense_crf(image, [np.broadcast_to(np.int64(0), hw)], 2)
    with pytest.raises(UserError, match='too large'):
        crf.refine_probabilities(np.broadcast_to(np.zeros(3, np.uint8), (40_000, 40_000, 3)),
                                 np.broadcast_to(np.float32(0.5), (2, 40_000, 40_000)))


@needs_pydensecrf
@pytest.mark.slow
@pytest.mark.parametrize('hw', [(3, 26_800), (25_300, 3)])
def test_the_largest_images_are_pydensecrfs(hw):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
    image[:2, :2], image[-2:, -2:] = 0, 255  # the corners of the lattice
    label_map = rng.integers(0, 3, (-(-hw[0] // 100),
                                    -(-hw[1] // 100))).repeat(100, 0).repeat(100, 1)[:hw[0], :hw[1]]
    label_map = np.ascontiguousarray(label_map)
    refined, = crf.dense_crf(image, [label_map], 3)
    assert np.array_equal(refined, by_pydensecrf(image, [label_energy(label_map, 3)], crf.SEEDS)[0])


def test_commands_without_a_crf_do_not_import_numba():
    code = ("import sys, run_sample, step.show, step.cam_to_ir_label, step.eval_cam; "
            "sys.exit('numba' in sys.modules)")
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_numba_missing_is_told_with_the_remedy():
    code = ("import sys; sys.modules['numba'] = None\nfrom misc.method import crf\nfrom "
            "misc.pyutils import UserError\n"
            "try:\n    crf.prepare()\nexcept UserError as error:\n    print(error)")
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith('the dense CRF needs numba (')
    assert done.stdout.endswith('pip install numba\n')


def test_a_full_disk_is_told_with_the_remedy(monkeypatch):
    def refuse(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(crf, '_mean_field', refuse)
    with pytest.raises(WriteError,
                       match=r'kept there \(No space left on device\).*NUMBA_CACHE_DIR'):
        crf.prepare.__wrapped__()


REFINE = """
import logging, sys
logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
import numpy as np
from misc.method import crf
crf.prepare()
print(crf.dense_crf(np.zeros((2, 3, 3), np.uint8), [np.ones((2, 3), int)], 2)[0].tolist())
"""
REFINED = '[[1, 1, 1], [1, 1, 1]]'


def read_only_copy(folder):
    """The CRF alone, where __pycache__ cannot be made: a file has its name."""
    method = folder / 'misc' / 'method'
    method.mkdir(parents=True)
    for name in ('__init__', 'pyutils', 'method/__init__', 'method/crf', 'method/permutohedral'):
        shutil.copy(ROOT / 'misc' / f'{name}.py', folder / 'misc' / f'{name}.py')
    (method / '__pycache__').touch()


def refining(folder, cache):
    environment = {name: value for name, value in os.environ.items() if name != 'NUMBA_CACHE_DIR'}
    return subprocess.Popen([sys.executable, '-c', REFINE], cwd=folder, stdout=subprocess.PIPE,
                            text=True, env=environment | {'XDG_CACHE_HOME': str(cache)})


@pytest.mark.slow
def test_a_read_only_package_is_compiled_once_into_the_users_cache(tmp_path):
    read_only_copy(tmp_path)
    at_once = [refining(tmp_path, tmp_path / 'cache') for _ in range(2)]
    told = [process.communicate()[0].splitlines() for process in at_once]
    assert [lines[-1] for lines in told] == [REFINED] * 2
    compiled = [line for lines in told for line in lines[:-1]]
    assert len(compiled) == 1  # the other one waited
    assert compiled[0].startswith('compiling the dense CRF')
    assert f'kept in {tmp_path / "cache"}' in compiled[0]
    assert refining(tmp_path, tmp_path / 'cache').communicate()[0].splitlines() == [REFINED]
    data, = (tmp_path / 'cache').rglob('permutohedral.mean_field*.nbc')
    data.write_bytes(b'')
    code = REFINE.replace('crf.prepare()', 'from misc.pyutils import UserError\n'
                          'try:\n    crf.prepare()\nexcept UserError as error:\n    '
                          'sys.exit(str(error))')
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True,
                          text=True, env=os.environ | {'XDG_CACHE_HOME': str(tmp_path / 'cache')})
    assert 'damaged' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_where_nothing_can_be_kept_it_compiles_and_says_so(tmp_path):
    read_only_copy(tmp_path)
    (tmp_path / 'file').touch()
    told = refining(tmp_path, tmp_path / 'file' / 'cache').communicate()[0].splitlines()
    assert len(told) == 2
    assert 'not kept' in told[0]
    assert told[1] == REFINED
