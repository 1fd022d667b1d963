"""The threshold analysis against numbers worked out by hand, written-out loops, and separate
evaluations; kept walks.
"""
import csv
import fcntl
import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from misc.draw import plots
from misc.files import activations, records, weights
from misc.method import maps, seeds, walking
from misc.pyutils import UserError, write_json
from misc.score import analysis, scores
from tests.conftest import GOLDEN, Command
from tests.test_scores import confusion_of, random_activations, source_of
from tests.tiny import NETWORKS, irn
from voc12.dataloader import VOC12

IDS = [f'2007_00000{number}' for number in range(1, 5)]
GRID = np.array(scores.GRID)


def analysed(folder, masks, maps, threshold=0.15, workers=0, n_classes=3):
    return analysis.analyse(source_of(folder, masks, n_classes), list(maps), maps.__getitem__,
                            threshold, workers)


def planes_of(*rows):
    """One row of pixels a class: (K, 1, W)."""
    return np.array(rows, np.float32)[:, None]


# by hand

def test_imbalance_by_hand():
    cv, ratio = analysis.imbalance(np.arange(1, 11, dtype=np.float32))
    assert (cv, ratio) == (pytest.approx(math.sqrt(8.25) / 5.5), pytest.approx(10 / 5))
    # 11: the highest two
    cv, ratio = analysis.imbalance(np.array([3, 1, 1, 5, 1, 1, 1, 1, 1, 1, 1], np.float32))
    assert (cv, ratio) == (pytest.approx(np.std([3, 5] + [1] * 9) / (17 / 11)), pytest.approx(4))
    assert analysis.imbalance(np.full(5, 0.5)) == (0, 1)
    assert analysis.imbalance(np.array([0.0, 0.0, 1.0])) == (pytest.approx(math.sqrt(2)), math.inf)
    for nothing in ([], [0.7], [0.0, 0.0]):
        assert np.isnan(analysis.imbalance(np.array(nothing))).all()


def test_area_under_the_roc_curve_by_hand():
    assert analysis.roc_area(np.array([0, 1, 1]), np.array([1, 1, 0])) == (1 + 0.5 + 2) / 4
    assert analysis.roc_area(np.array([0, 3]), np.array([2, 0])) == 1
    assert analysis.roc_area(np.array([4]), np.array([7])) == 0.5
    assert np.isnan(analysis.roc_area(np.array([0, 0]), np.array([1, 0])))
    many = 10 ** 12  # no overflow
    assert analysis.roc_area(np.array([0, many]), np.array([many, 0])) == 1


def test_two_images_by_hand(tmp_path):
    masks = {'a': np.array([[1, 1, 0, 0, 255]], np.uint8), 'b': np.array([[2, 2, 1, 0]], np.uint8)}
    maps = {'a': (np.array([0]), planes_of([0.6, 0.2, 0.4, 0.1, 0.9])),
            'b': (np.array([0, 1]), planes_of([0.3, 0.1, 0.8, 0.2], [0.5, 0.7, 0.6, 0.4]))}
    result = analysed(tmp_path, masks, maps)
    # a: from 0.10 to 0.19 one background pixel is taken for x (IoU 1/2 and 2/3), from 0.40 to 0.59
    # one of x is not (2/3 and 1/2): the lowest of equals; b: from 0.40 to 0.49 all right
    assert result.own_thresholds().tolist() == [0.10, 0.40]
    assert result.image_miou().max(1).tolist() == [pytest.approx((1 / 2 + 2 / 3) / 2), 1]
    assert result.own.tolist() == [[2, 1, 0, 0], [0, 3, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]

    summary = analysis.summary(result, 'some', 0.15, ('x', 'y', 'z'))
    assert (summary['objects'], summary['classes']['x']['objects']) == (2, 1)  # x in b is one pixel
    assert summary['cv'] == pytest.approx((0.5 + 1 / 6) / 2)
    assert summary['top_tenth_ratio'] == pytest.approx((3 + 7 / 5) / 2)
    assert summary['foreground_mean'] == pytest.approx((0.6 + 0.2 + 0.8 + 0.5 + 0.7) / 5)
    # of the strongest plane
    assert summary['background_mean'] == pytest.approx((0.4 + 0.1 + 0.4) / 3)
    assert summary['auc'] == pytest.approx((3 + 1 + 3 + 3 + 3) / 15)
    x, y, z = (summary['classes'][name] for name in 'xyz')
    assert x['gap'] == pytest.approx(1.6 / 3 - 0.7 / 3)  # background of x: x's plane
    assert x['auc'] == pytest.approx((3 + 1.5 + 3) / 9)  # 0.2 against 0.4, 0.1, 0.2
    assert y['gap'] == pytest.approx(0.6 - 0.4)
    assert y['cv'] == pytest.approx(0.1 / 0.6)
    assert (z['objects'], x['iou_used']) == (0, pytest.approx(3 / 4))
    assert all(np.isnan(z[key]) for key in ('iou_used', 'own_best_threshold', 'cv',
                                            'top_tenth_ratio', 'gap', 'auc'))
    assert 'cv' not in summary['classes']['background']
    # at 0.15: a gives x to 3 pixels, b x to 1 and y to 3; 5 of these 7 rightly, of 5
    assert (summary['precision'][15], summary['recall'][15]) == (pytest.approx(5 / 7), 1)
    assert (summary['precision'][100],
            summary['recall'][100]) == (pytest.approx(math.nan, nan_ok=True), 0)
    assert (y['precision_used'], y['recall_used']) == (pytest.approx(2 / 3), 1)
    found = summary['own_thresholds']
    assert [found['mean'], found['std'], found['images'],
            found['quantiles']['50']] == pytest.approx([0.25, 0.15, 2, 0.25])
    assert found['twentieths'] == [int(number in (2, 8)) for number in range(20)]


def test_histograms_hold_the_ends(tmp_path):
    masks = {'a': np.array([[1, 1, 1, 0, 0, 0]], np.uint8)}
    result = analysed(tmp_path, masks,
                      {'a': (np.array([0]), planes_of([0, 1, 1.5, -1, 0.5, 0.0199]))})
    found = analysis.histograms(result)
    assert {number: count for number, count in enumerate(found['foreground'])
            if count} == {0: 1, 49: 2}
    assert {number: count for number, count in enumerate(found['background'])
            if count} == {0: 2, 25: 1}
    assert result.histograms[:, [0, 19, 500, 999]].tolist() == [
        [1, 0, 0, 2], [0] * 4, [0] * 4, [1, 1, 1, 0], [0] * 4, [0] * 4, [1, 1, 1, 0]]


# against loops

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('workers', [0, 2])
def test_one_pass_equals_separate_evaluations(tmp_path, seed, workers):
    masks, maps = random_activations(np.random.default_rng(seed))
    result = analysed(tmp_path, masks, maps, 0.333, workers)
    thresholds = result.curve.thresholds
    assert len(thresholds) == 102
    apart = {image_id: [confusion_of(masks[image_id],
                                     seeds.class_ids(keys)[seeds.arg_max(planes, threshold)], 3)
                        for threshold in thresholds] for image_id, (keys, planes) in maps.items()}
    curve = [scores.score(sum(matrices[position] for matrices in apart.values()), 4).miou
             for position in range(102)]
    assert result.curve.curve().tolist() == curve
    summary = analysis.summary(result, 'some', 0.333, ('x', 'y', 'z'))
    assert summary['curve'] == [value for value, threshold in zip(curve, thresholds, strict=True)
                                if threshold != 0.333]
    assert (summary['best_miou'],
            summary['best_threshold']) == (max(curve), thresholds[curve.index(max(curve))])
    assert summary['loss_used'] == max(curve) - curve[thresholds.tolist().index(0.333)]

    own = np.zeros((4, 4), np.int64)
    for image_id, row, threshold in zip(maps, result.rows, result.own_thresholds(), strict=True):
        miou = [scores.score(matrix, 1).miou for matrix in apart[image_id]]
        assert row.miou.tolist() == pytest.approx(miou)
        position = miou.index(max(miou))
        assert threshold == thresholds[position]
        own += apart[image_id][position]
    assert np.array_equal(result.own, own)
    for number in range(4):
        ious = [scores.score(result.curve.confusion(position), 4).iou[number]
                for position in range(102)]
        name = ('background', 'x', 'y', 'z')[number]
        assert summary['classes'][name]['own_best_iou'] == max(ious)
        assert summary['classes'][name]['own_best_threshold'] == thresholds[ious.index(max(ious))]


@pytest.mark.parametrize('seed', range(3))
def test_conditions_equal_loops_over_pixels(tmp_path, seed):
    masks, maps = random_activations(np.random.default_rng(seed))
    # a value a bin at most
    maps = {image_id: (keys, np.round(planes, 2)) for image_id, (keys, planes) in maps.items()}
    summary = analysis.summary(analysed(tmp_path, masks, maps), 'some', 0.15, ('x', 'y', 'z'))
    inside, outside, spread = ({key: [] for key in range(3)} for _ in range(3))
    strongest = []
    for image_id, (keys, planes) in maps.items():
        truth = masks[image_id]
        for key, plane in zip(keys, planes, strict=True):
            inside[key] += plane[truth == key + 1].tolist()
            outside[key] += plane[truth == 0].tolist()
            spread[key] += [plane[truth == key + 1]]
        strongest += [float(max(plane[place] for plane in planes))
                      for place in zip(*np.nonzero(truth == 0), strict=True)
                      if len(keys)]

    def area(high, low):
        return np.mean([(one > two) + 0.5 * (one == two) for one in high for two in low])

    for key, name in enumerate('xyz'):
        found = summary['classes'][name]
        assert found['auc'] == pytest.approx(area(inside[key], outside[key]))
        assert found['gap'] == pytest.approx(np.mean(inside[key]) - np.mean(outside[key]))
        known = [values.astype(float) for values in spread[key] if len(values) > 1 and values.any()]
        assert found['objects'] == len(known)
        assert found['cv'] == pytest.approx(np.mean([values.std() / values.mean()
                                                     for values in known]))
    everything = sum(inside.values(), [])
    assert summary['auc'] == pytest.approx(area(everything, strongest))
    assert summary['gap'] == pytest.approx(np.mean(everything) - np.mean(strongest))


@pytest.mark.parametrize('seed', range(30))
def test_the_oracle_is_never_below_the_best_global_threshold(tmp_path, seed):
    masks, maps = random_activations(np.random.default_rng(seed))
    result = analysed(tmp_path, masks, maps)
    found = analysis.oracle(result)
    assert found['image_mean_own'] >= found['image_mean_single']
    assert found['image_mean_single'] == result.image_miou().mean(0).max()
    assert (found['image_mean_single_threshold']
            == result.curve.thresholds[result.image_miou().mean(0).argmax()])
    assert (found['dataset_single'],
            found['dataset_own']) == (result.curve.best()[1], scores.score(result.own, 4).miou)


def test_for_one_image_the_oracle_is_the_best_global_threshold(tmp_path):
    masks, maps = random_activations(np.random.default_rng(5))
    result = analysed(tmp_path, {'d': masks['d']}, {'d': maps['d']})
    found = analysis.oracle(result)
    assert found['image_mean_own'] == found['image_mean_single']
    assert found['dataset_own'] == found['dataset_single'] == pytest.approx(found['image_mean_own'])


def test_the_score_of_the_data_set_may_fall_with_own_thresholds(tmp_path):
    """Each image's mean is not the data set's: the docstring says so, and this is an instance."""
    lower = 0
    for seed in range(10):
        masks, maps = random_activations(np.random.default_rng(seed))
        found = analysis.oracle(analysed(tmp_path, masks, maps))
        lower += found['dataset_own'] < found['dataset_single']
    assert 0 < lower < 10


# edge cases

def test_images_of_one_pixel_without_class_and_without_a_known_pixel(tmp_path):
    masks = {'one': np.array([[1]], np.uint8), 'none': np.array([[0, 2]], np.uint8),
             'ignored': np.full((2, 2), 255, np.uint8)}
    maps = {'one': (np.array([0]), np.full((1, 1, 1), 0.5, np.float32)),
            'none': (np.zeros(0, np.int64), np.zeros((0, 1, 2), np.float32)),
            'ignored': (np.array([0, 2]), np.ones((2, 2, 2), np.float32))}
    result = analysed(tmp_path, masks, maps)
    assert result.own_thresholds().tolist() == [0, 0, pytest.approx(math.nan, nan_ok=True)]
    summary = analysis.summary(result, 'some', 0.15, ('x', 'y', 'z'))
    assert summary['objects'] == 0
    assert summary['own_thresholds']['images'] == 2
    assert summary['oracle']['image_mean_own'] == pytest.approx((1 + 0.25) / 2)
    assert all(np.isnan(summary[key]) for key in ('cv', 'top_tenth_ratio', 'background_mean', 'gap',
                                                  'auc'))


@pytest.mark.parametrize('n_classes', [1, 30, 80])
def test_other_numbers_of_classes(tmp_path, n_classes):
    rng = np.random.default_rng(n_classes)
    keys = np.arange(min(n_classes, 30))
    masks = {'a': rng.integers(0, n_classes + 1, (9, 9)).astype(np.uint8)}
    maps = {'a': (keys, rng.random((len(keys), 9, 9)).astype(np.float32))}
    result = analysed(tmp_path, masks, maps, n_classes=n_classes)
    best = result.own_thresholds()[0]
    own = confusion_of(masks['a'], seeds.class_ids(keys)[seeds.arg_max(maps['a'][1], best)],
                       n_classes)
    assert np.array_equal(result.own, own)
    summary = analysis.summary(result, 'some', 0.15,
                               tuple(f'class {key}' for key in range(n_classes)))
    assert len(summary['classes']) == n_classes + 1


@pytest.mark.parametrize(('keys', 'value', 'told'), [
    ([3], 0.5, 'of class 3, counted from 0; this data set has 3'), ([0], np.nan, 'not finite'),
    ([0], np.inf, 'not finite')])
def test_activations_that_do_not_fit_are_refused(tmp_path, keys, value, told):
    masks = {'a': np.zeros((2, 2), np.uint8)}
    with pytest.raises(UserError, match=f'activation of a .*{told}'):
        analysed(tmp_path, masks, {'a': (np.array(keys), np.full((1, 2, 2), value, np.float32))})


# the stage

def blob(rng, hw):
    """A smooth bump, at most 1: (H, W)."""
    y, x = np.mgrid[:hw[0], :hw[1]] / np.array(hw)[:, None, None]
    centre = rng.random(2)
    return np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) /
                  rng.uniform(0.02, 0.2)).astype(np.float32)


def draw_activations(tree, folder, seed, background=False):
    source, rng = VOC12(tree), np.random.default_rng(seed)
    for number, image_id in enumerate(IDS):
        # the first one has no class
        keys = np.flatnonzero(source.labels(image_id)) if number else np.zeros(0, np.int64)
        with Image.open(source.image_path(image_id)) as picture:
            hw = picture.height, picture.width
        planes = len(keys) + background
        strided, high_res = (np.array([blob(rng, size) for _ in range(planes)],
                                      np.float32).reshape(planes, *size)
                             for size in (maps.strided_hw(hw), hw))
        activations.save(folder, image_id, activations.Activation(keys, strided, high_res))
    write_json(folder / records.FOLDER_RECORD, {'drawn': seed})


def draw_run(folder):
    """Drawn activations of CAM and AMN of the same classes, and weights of a small IRN."""
    command = Command(GOLDEN / 'tree', folder)
    draw_activations(command.tree, command.folder / 'cam', 0)
    draw_activations(command.tree, command.folder / 'amn_cam', 1, background=True)
    torch.manual_seed(0)
    net = irn.Net()
    torch.nn.init.normal_(net.to_edge.weight, std=3)
    weights.save_state(net, command.folder / 'irn.pth')
    return command


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return draw_run(tmp_path_factory.mktemp('drawn'))


@pytest.fixture
def fresh(drawn, tmp_path):
    return Command(drawn.tree, shutil.copytree(drawn.folder, tmp_path / 'copy'))


@pytest.fixture
def unplotted(monkeypatch):
    """Plots have tests of their own."""
    monkeypatch.setattr(plots, 'save_all', lambda methods, folder: None)


def walked(command, *stages, **flags):
    flags = {**NETWORKS, 'exp_times': 3, 'sem_seg_canvas': 0,
             'walked_out_dir': command.folder / 'walked', **flags}
    return command(*stages, **flags)


def analysis_of(command):
    return json.loads((command.folder / 'analysis' / 'analysis.json').read_text())


def lines_of(command, name):
    with open(command.folder / 'analysis' / name, encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope='module')
def made(drawn, tmp_path_factory):
    """The whole stage, with pseudo-masks and a further folder."""
    command = Command(drawn.tree,
                      shutil.copytree(drawn.folder, tmp_path_factory.mktemp('made') / 'out'))
    assert walked(command, 'make_sem_seg', 'eval_cam', 'eval_sem_seg', 'analyze_threshold',
                  analyze_dirs=f'again={command.folder / "cam"}') == 0
    return command


def test_all_files_are_there(made):
    pictures = {f'{name}.{ending}' for name in plots.FIGURES for ending in ('png', 'svg')}
    assert {path.name for path in (made.folder / 'analysis').iterdir()} == pictures | {
        'analysis.json', 'curves.csv', 'images.csv', 'classes.csv'}
    found = analysis_of(made)
    assert (found['split'], found['images'], found['data']) == ('train', 4, 'voc12')
    assert found['thresholds'] == list(scores.GRID)
    assert {name: (method['title'], method['threshold_used'])
            for name, method in found['methods'].items()} == {
        'cam': ('CAM', 0.15), 'amn_cam': ('AMN', 0.25), 'again': ('again', 0.15),
        'sem_seg': ('pseudo-mask', 0.25)}
    cam = dict(found['methods']['cam'])
    assert (cam.pop('threshold_published'), cam.pop('loss_published')) == (0.15, cam['loss_used'])
    assert cam | {'title': 'again'} == found['methods']['again']  # nothing is published of it


def test_the_analysis_agrees_with_the_eval_stages(made):
    found, evaluated = analysis_of(made)['methods'], made.scores()
    cam, stage = found['cam'], evaluated['eval_cam']
    assert cam['miou_used'] == cam['curve'][15] == stage['miou']
    assert (cam['best_threshold'], cam['best_miou']) == (stage['best_threshold'],
                                                         round(stage['best_miou'], 6))
    assert {name: values['iou_used'] for name, values in cam['classes'].items()} == stage['iou']
    assert (found['sem_seg']['miou_used'] == found['sem_seg']['curve'][25]
            == evaluated['eval_sem_seg']['miou'])


def test_tables_for_machines(made):
    methods = analysis_of(made)['methods']
    curves = lines_of(made, 'curves.csv')
    assert len(curves) == 4 * 101
    assert {**curves[101 + 25]} == {'method': 'amn_cam', 'threshold': '0.25', **{
        name: str(methods['amn_cam'][key][25])
        for name, key in (('miou', 'curve'), ('precision', 'precision'),
                         ('recall', 'recall'))}}
    images = [line for line in lines_of(made, 'images.csv') if line['method'] == 'cam']
    assert [line['image'] for line in images] == IDS
    assert np.mean([float(line['miou_there']) for line in images]) == pytest.approx(
        methods['cam']['oracle']['image_mean_own'], abs=1e-6)
    assert all(float(line['miou_there']) >= float(line['miou_at_global_best']) for line in images)
    classes = [line for line in lines_of(made, 'classes.csv') if line['method'] == 'sem_seg']
    assert [line['class'] for line in classes] == ['background', *VOC12.classes]
    for line in classes:
        found = methods['sem_seg']['classes'][line['class']]
        assert all(value == ('' if found.get(name) is None else str(found[name]))
                   for name, value in line.items() if name not in ('method', 'class'))


def test_the_files_do_not_depend_on_workers(made, tmp_path, unplotted):
    command = Command(made.tree, made.folder)
    assert walked(command, 'analyze_threshold', analyze_dirs=f'again={made.folder / "cam"}',
                  num_workers=2, analysis_out_dir=tmp_path / 'again') == 0
    # what the plots are drawn from
    for name in ('analysis.json', 'curves.csv', 'images.csv', 'classes.csv'):
        assert (tmp_path / 'again' / name).read_bytes() == (made.folder / 'analysis' /
                                                            name).read_bytes(), name


def test_what_is_not_there_is_left_out(fresh, unplotted, capsys):
    shutil.rmtree(fresh.folder / 'amn_cam')
    assert fresh('analyze_threshold') == 0
    assert (f'AMN is left out: there is no {fresh.folder / "amn_cam"} (--make_amn_cam_pass'
            in capsys.readouterr().out)
    assert list(analysis_of(fresh)['methods']) == ['cam']
    shutil.rmtree(fresh.folder / 'cam')
    assert fresh('analyze_threshold') == 1
    assert 'error: there is nothing to analyse: neither' in capsys.readouterr().err


@pytest.mark.parametrize(('given', 'told'), [
    ('cam=.', 'the name cam is taken'), ('other=nowhere', 'other=nowhere: no such folder'),
    ('x=. x=.', 'the name x is taken')])
def test_further_folders_are_checked_before_the_first_stage(fresh, capsys, given, told):
    assert fresh('analyze_threshold', analyze_dirs=given.split()) == 1
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not (fresh.folder / 'run.log').exists()


@pytest.mark.parametrize('given', ['folder', '=folder', 'name=', '_name=folder', '$x$=folder'])
def test_a_further_folder_needs_a_name(fresh, capsys, given):
    with pytest.raises(SystemExit):
        fresh('analyze_threshold', analyze_dirs=given)
    assert 'is not NAME=DIR' in capsys.readouterr().err


def test_a_missing_activation_is_named(fresh, capsys):
    (fresh.folder / 'amn_cam' / f'{IDS[2]}.npz').unlink()
    assert fresh('analyze_threshold') == 1
    assert f'{IDS[2]}.npz: no such activation; run --make_amn_cam_pass' in capsys.readouterr().err
    assert not (fresh.folder / 'analysis').exists()


# kept walks

def masks_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob('*.png'))}


@pytest.fixture
def counted(monkeypatch):
    """Walks that are really done."""
    calls, real = [], walking.walk
    monkeypatch.setattr(walking, 'walk', lambda *given: calls.append(1) or real(*given))
    return calls


def test_masks_do_not_depend_on_whether_the_walk_is_kept(made, fresh):
    assert fresh('make_sem_seg', **NETWORKS, exp_times=3, sem_seg_canvas=0) == 0
    assert masks_of(fresh.folder / 'sem_seg') == masks_of(made.folder / 'sem_seg')
    assert len(masks_of(made.folder / 'sem_seg')) == 4
    record = json.loads((made.folder / 'walked' / '_settings.json').read_text())
    assert 'bg_thres' not in record
    assert record == {key: value for key, value in json.loads(
        (made.folder / 'sem_seg' / '_settings.json').read_text()).items() if key
                      != 'bg_thres'} | {'stage': 'walk'}


def test_another_threshold_costs_no_walk_and_is_what_the_analysis_says(made, fresh, counted):
    curve = analysis_of(made)['methods']['sem_seg']['curve']
    assert len(set(curve)) > 20
    shutil.copytree(made.folder / 'walked', fresh.folder / 'walked')
    for number, threshold in enumerate((0.0, 0.1, 0.37, 1.0)):
        assert walked(fresh, 'make_sem_seg', 'eval_sem_seg', sem_seg_bg_thres=threshold,
                      overwrite=number > 0) == 0
        assert fresh.scores()['eval_sem_seg']['miou'] == curve[int(100 * threshold)]
    assert not counted
    assert fresh('make_sem_seg', **NETWORKS, exp_times=3, sem_seg_canvas=0, sem_seg_bg_thres=0.1,
                 sem_seg_out_dir=fresh.folder / 'apart') == 0
    assert len(counted) == 3  # one image has no class
    assert walked(fresh, 'make_sem_seg', sem_seg_bg_thres=0.1, overwrite=True) == 0
    assert masks_of(fresh.folder / 'sem_seg') == masks_of(fresh.folder / 'apart')


def test_an_image_is_done_when_mask_and_walk_are_there(made, fresh, counted):
    for name in ('walked', 'sem_seg'):
        shutil.copytree(made.folder / name, fresh.folder / name)
    assert walked(fresh, 'make_sem_seg') == 0
    assert not counted
    (fresh.folder / 'sem_seg' / f'{IDS[1]}.png').unlink()
    assert walked(fresh, 'make_sem_seg') == 0
    assert not counted
    for image_id in IDS[:2]:
        (fresh.folder / 'walked' / f'{image_id}.npz').unlink()
    assert walked(fresh, 'make_sem_seg') == 0
    assert len(counted) == 1  # the other has no class
    assert masks_of(fresh.folder / 'sem_seg') == masks_of(made.folder / 'sem_seg')
    for path in (made.folder / 'walked').glob('*.npz'):
        assert (fresh.folder / 'walked' / path.name).read_bytes() == path.read_bytes()


def test_a_walk_of_other_settings_is_refused_or_made_anew(made, fresh, counted, capsys):
    shutil.copytree(made.folder / 'walked', fresh.folder / 'walked')
    assert walked(fresh, 'make_sem_seg', beta=3) == 1
    assert ('walked was made with other settings (beta: was 10.0, now 3.0)'
            in capsys.readouterr().err)
    assert not counted
    assert walked(fresh, 'make_sem_seg', beta=3, overwrite=True) == 0
    assert len(counted) == 3


def test_a_walk_over_activations_made_elsewhere_is_made_anew_with_the_masks(fresh, counted):
    """Nothing tells whether they are still the same."""
    (fresh.folder / 'amn_cam' / records.FOLDER_RECORD).unlink()
    for number in range(2):
        assert walked(fresh, 'make_sem_seg', overwrite=number > 0) == 0
        assert len(counted) == 3 * (number + 1)


def test_the_analysis_needs_every_walk_whole(made, fresh, capsys):
    shutil.copytree(made.folder / 'walked', fresh.folder / 'walked')
    broken, missing = (fresh.folder / 'walked' / f'{image_id}.npz' for image_id in IDS[2:])
    missing.unlink()
    assert walked(fresh, 'analyze_threshold') == 1
    assert (f'{missing}: 1 of the 4 walks of train are missing; run --make_sem_seg_pass'
            in capsys.readouterr().err)
    shutil.copy(made.folder / 'walked' / missing.name, missing)
    broken.write_bytes(broken.read_bytes()[:200])
    assert walked(fresh, 'analyze_threshold') == 1
    assert f'{broken}: not a whole activation file' in capsys.readouterr().err


def test_a_walk_of_another_image_is_refused(made, fresh, capsys):
    shutil.copytree(made.folder / 'walked', fresh.folder / 'walked')
    activations.save_walked(fresh.folder / 'walked', IDS[1], activations.Walked(
        np.array([0]), np.ones((1, 2, 2), np.float32), np.array([5, 8])))
    assert walked(fresh, 'make_sem_seg') == 1
    assert f'the walk of {IDS[1]} has another size than its image' in capsys.readouterr().err


def test_the_walk_needs_a_folder_of_its_own(fresh, capsys):
    (fresh.folder / 'link').symlink_to(fresh.folder / 'amn_cam')
    further = shutil.copytree(fresh.folder / 'cam', fresh.folder / 'further')
    for folder, flag in (('amn_cam', 'amn_cam_out_dir'), ('link', 'amn_cam_out_dir'),
                         ('cam/../amn_cam', 'amn_cam_out_dir'), ('further', 'analyze_dirs x')):
        assert walked(fresh, 'make_sem_seg', walked_out_dir=fresh.folder / folder, overwrite=True,
                      analyze_dirs=f'x={further}') == 1
        assert (f'{folder} is --{flag}, too: the walk needs a folder of its own'
                in capsys.readouterr().err)
    assert not (fresh.folder / 'run.log').exists()


@pytest.mark.parametrize(('stage', 'told'), [
    (None, 'holds 4 files without a record of their settings (made elsewhere), which --overwrite '
           'would delete'),
    ('make_cam', 'holds what make_cam made: name another folder')])
def test_a_walk_deletes_nothing_but_walks(made, fresh, capsys, stage, told):
    folder = shutil.copytree(fresh.folder / 'cam', fresh.folder / 'photos')
    (folder / records.FOLDER_RECORD).unlink()
    if stage:
        write_json(folder / records.FOLDER_RECORD, {'stage': stage})
    shutil.copytree(made.folder / 'sem_seg', fresh.folder / 'sem_seg')
    assert walked(fresh, 'make_sem_seg', walked_out_dir=folder, overwrite=True) == 1
    assert f'{folder} {told}' in capsys.readouterr().err
    assert len(list(folder.glob('*.npz'))) == len(list((fresh.folder /
                                                        'sem_seg').glob('*.png'))) == 4


def test_what_the_analysis_reads_is_checked_before_the_first_stage(fresh, capsys):
    assert walked(fresh, 'eval_cam', 'analyze_threshold') == 1
    assert (f'{fresh.folder / "walked"}: no such folder; run --make_sem_seg_pass True'
            in capsys.readouterr().err)
    other = shutil.copytree(fresh.folder / 'cam', fresh.folder / 'other')
    for folder, stage in (('other', 'analyze_threshold'), ('amn_cam', 'analyze_threshold'),
                          ('amn_cam', 'report')):
        write_json(fresh.folder / folder / records.FOLDER_RECORD, {'classes': ['cat']})
        assert fresh('eval_cam', stage, analyze_dirs=f'x={other}') == 1
        assert (f'{fresh.folder / folder}: made for 1 classes, this data set has 20'
                in capsys.readouterr().err)
        (fresh.folder / folder / records.FOLDER_RECORD).unlink()
    assert not (fresh.folder / 'run.log').exists()


def test_what_auto_and_published_thresholds_cost(made, fresh, unplotted):
    assert walked(fresh, 'analyze_threshold', walked_out_dir=made.folder / 'walked',
                  cam_eval_thres='auto', sem_seg_bg_thres=0.4) == 0
    found = analysis_of(fresh)['methods']
    assert [found[name].get('threshold_from') for name in ('cam', 'amn_cam',
                                                           'sem_seg')] == ['auto', 'auto', None]
    for name, threshold in (('cam', 0.15), ('amn_cam', 0.25), ('sem_seg', 0.25)):
        assert found[name]['threshold_published'] == threshold
        assert found[name]['loss_published'] == pytest.approx(
            found[name]['best_miou'] - found[name]['curve'][round(100 * threshold)], abs=2e-6)
    assert found['sem_seg']['threshold_used'] == 0.4


def test_a_second_analysis_waits(fresh, unplotted, capsys):
    path = fresh.folder / '.analysis.lock'
    with open(path, 'a') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert fresh('analyze_threshold') == 1
    assert f'{fresh.folder / "analysis"} is in use by another run' in capsys.readouterr().err
    assert not (fresh.folder / 'analysis').exists()


def test_walks_are_read_as_they_were_written(tmp_path):
    drawn = np.random.default_rng(0).random((2, 2, 3)).astype(np.float32)
    walk = activations.Walked(np.array([1, 4]), drawn, np.array([7, 12]))
    activations.save_walked(tmp_path, 'a', walk)
    read = activations.load_walked(tmp_path, 'a')
    assert all(np.array_equal(*pair) for pair in zip(read, walk, strict=True))
    assert read.walked.dtype == np.float32
    planes = walking.planes_of(read)
    assert planes.shape == (2, 7, 12)
    assert planes.max() == 1
    for keys, planes, hw in (([1], (2, 2, 3), [7, 12]), ([1, 4], (2, 2, 3), [7, 13]),
                             ([1, 4], (2, 2, 3), [7])):
        activations.save_walked(tmp_path, 'b',
                                activations.Walked(np.array(keys), np.zeros(planes, np.float32),
                                                   np.array(hw)))
        with pytest.raises(UserError, match='b.npz: its arrays do not fit each other'):
            activations.load_walked(tmp_path, 'b')
    np.savez(tmp_path / 'c.npz', keys=np.array([None], object), walked=np.zeros(1), hw=np.zeros(2))
    with pytest.raises(UserError, match='c.npz: not a whole activation file'):
        activations.load_walked(tmp_path, 'c')
    with pytest.raises(UserError, match='d.npz: no such activation; make it'):
        activations.load_walked(tmp_path, 'd', 'make it')


def test_nothing_left_of_the_walk_is_background():
    empty = activations.Walked(np.array([2]), np.zeros((1, 2, 2), np.float32), np.array([6, 7]))
    assert walking.planes_of(empty).tolist() == np.zeros((1, 6, 7)).tolist()
    none = activations.Walked(np.zeros(0, np.int64), np.zeros((0, 2, 2), np.float32),
                              np.array([6, 7]))
    assert walking.planes_of(none).shape == (0, 6, 7)
