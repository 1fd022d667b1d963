"""The report's data are the evaluator's, to the digit; names are escaped; what is missing is left
out; it is made anew.
"""
import base64
import dataclasses
import html
import importlib
import json
import re
import shlex
import shutil
import statistics
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from misc.command import provenance
from misc.contract import sources
from misc.contract.settings import WALK_FROM, Report, Walk
from misc.draw import drawing, gallery, plots
from misc.files import activations, label_maps, losses, records, weights
from misc.method import instances, seeds
from misc.pyutils import UserError, append_json_line, unlock, write_json
from misc.score import auto_threshold, results, scores
from step import report
from step.pipeline import STAGES
from tests.conftest import GOLDEN, job_of
from tests.test_plots import METHODS
from tests.tiny import QUICK
from voc12.dataloader import PALETTE

HOSTILE = '<img src=x onerror=window.hacked=1>'
CLASSES = ('cat', '<script>window.hacked=1</script>', '"dog\' onclick="window.hacked=1',
           '{{ 7 * 7 }}')
IDS = ['plain', HOSTILE, 'a b%20c#d?e.f', 'quotes"\'&amp;', 'one_pixel', 'no_class', 'ignored']
THRESHOLDS = {'cam': 0.15, 'amn_cam': 0.255}  # one of them is not on the grid


class Source(sources.Source):
    """A data set with the names that a page must fear."""

    name, classes, palette = '<b>own</b>', CLASSES, PALETTE
    lists = {'eval_set': 'val'}

    def __init__(self, root):
        self.root = root

    def names(self, list_or_split):
        return [] if list_or_split == 'empty' else IDS

    def labels(self, image_id):
        raise UserError('no labels')

    def image_path(self, image_id):
        return self.root / 'images' / f'{image_id}.png'

    def mask_path(self, image_id):
        return self.root / 'masks' / f'{image_id}.png'


def draw(folder):
    """Images, truths and what the stages make of them: smooth activations, so that masks shrink
    with the threshold.
    """
    source, rng = Source(folder), np.random.default_rng(5)
    (folder / 'images').mkdir(parents=True)
    for number, image_id in enumerate(IDS):
        hw = (1, 1) if image_id == 'one_pixel' else (40 + 8 * number, 56)
        Image.fromarray(rng.integers(0, 256, (*hw, 3), np.uint8)).save(source.image_path(image_id))
        keys = np.array([] if image_id == 'no_class' else sorted({number % 4, (number + 1) % 4}),
                        np.int64)
        y, x = np.indices(hw)
        planes = np.array([np.exp(-((y / hw[0] - 0.5) ** 2 + (x / hw[1] - 0.3 - 0.3 * place) ** 2) *
                                  8)
                           for place in range(len(keys))], np.float32).reshape(-1, *hw)
        truth = seeds.class_ids(keys)[seeds.arg_max(planes, 0.4)]
        truth[:, :2] = 255
        label_maps.save(source.mask_path(image_id), np.full(hw, 255) if image_id == 'ignored'
                        else truth, PALETTE)
        for name, power in (('cam', 2), ('amn_cam', 1)):
            noisy = np.clip(planes ** power + rng.normal(0, 0.1, planes.shape).astype(np.float32),
                            0, 1)
            noisy[:, ::3] = np.round(noisy[:, ::3], 2)  # at a threshold of the grid, and ties
            activations.save(folder / name, image_id,
                             activations.Activation(keys, noisy[:, ::4, ::4], noisy))
        seed = np.where(rng.random(hw) < 0.3, 255, truth)
        for name in ('ir_label', 'amn_ir_label'):
            label_maps.save(folder / name / f'{image_id}.png', seed, PALETTE)
        label_maps.save(folder / 'sem_seg' / f'{image_id}.png', np.where(seed == 255, 0, seed),
                        PALETTE)
    return source


def report_on(folder, images=0, lists=None, files=None, thresholds=None, **run):
    """The stage, on what lies in `folder`."""
    report.run(the_job(folder, lists, files, thresholds, **run), Report(images))


def the_job(folder, lists=None, files=None, thresholds=None, **run):
    return job_of(Source(folder), folder, lists={'eval_set': '<i>split</i>',
                                                 'infer_list': 'inferred', 'seg_list': 'val'} | (
        lists or {}), files=files, **run, thresholds={
            'eval_cam_thres': THRESHOLDS['cam'], 'eval_amn_cam_thres': THRESHOLDS['amn_cam']} |
                  (thresholds or {}))


def page(folder, name='report'):
    """index.html, and the data in it."""
    text = (folder / name / 'index.html').read_text()
    return text, json.loads(re.search(r'<script type="application/json" '
                                      r'id="report-data">(.*?)</script>', text, re.S)[1])


def planes_of(path, hw):
    """The number and the planes (P, H, W) of a data file."""
    number, text = re.fullmatch(r'amnReport\.arrived\((\d+), "([A-Za-z0-9+/=]*)"\);\n',
                                path.read_text()).groups()
    return int(number), np.frombuffer(zlib.decompress(base64.b64decode(text)),
                                      np.uint8).reshape(-1, *hw)


@pytest.fixture(autouse=True)
def unlocked():
    yield
    unlock()


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    draw(folder)
    report_on(folder)
    return folder


def test_planes_give_the_mask_of_every_threshold(made):
    source = Source(made)
    for number, image_id in enumerate(IDS):
        truth = label_maps.load(source.mask_path(image_id))
        told, planes = planes_of(made / 'report' / 'data' / f'{number}.js', truth.shape)
        assert told == number
        assert len(planes) == 8
        assert (planes[0] == truth).all()
        for name, (strongest, passed) in (('cam', planes[1:3]), ('amn_cam', planes[3:5])):
            keys, _, high_res = activations.load(made / name, image_id)
            for position, threshold in enumerate(scores.GRID):
                expected = seeds.class_ids(keys)[seeds.arg_max(high_res, threshold)]
                assert (np.where(passed > position, strongest, 0) == expected).all()
        for name, plane in zip(('sem_seg', 'ir_label', 'amn_ir_label'), planes[5:], strict=True):
            assert (plane == label_maps.load(made / name / f'{image_id}.png')).all()


def test_scores_of_each_image_are_the_evaluators(made):
    source, (_, data) = Source(made), page(made)
    assert [item['id'] for item in data['images']] == IDS
    for item in data['images']:
        def load(image_id, name):
            activation = activations.load(made / name, image_id)
            return activation.keys, activation.high_res

        if item['id'] == 'ignored':
            assert item['miou'] == {'cam': [None] * 101, 'amn_cam': [None] * 101, 'sem_seg': [None]}
            continue
        if item['id'] == 'one_pixel':  # its only pixel is 255
            continue
        for name in THRESHOLDS:
            curve = scores.score_activations(source, [item['id']], lambda image_id,
                                             name=name: load(image_id, name), 0.5, 0)
            assert [f'{value / 10:.1f}' for value
                    in item['miou'][name]] == [f'{100 * value:.1f}' for value in curve.curve()]
        mask = label_maps.load(made / 'sem_seg' / f'{item["id"]}.png')
        counts = scores.count_label_maps(source, [item['id']], lambda image_id, mask=mask: mask, 0)
        expected = scores.score(scores.ignored_as_background(counts), 1).miou
        assert item['miou']['sem_seg'] == [int(f'{100 * expected:.1f}'.replace('.', ''))]


def test_scores_of_an_image_by_hand(tmp_path):
    """Two classes, six pixels, the last one ignored."""
    source = Source(tmp_path)
    (tmp_path / 'images').mkdir()
    Image.fromarray(np.zeros((1, 6, 3), np.uint8)).save(source.image_path('x'))
    label_maps.save(source.mask_path('x'), np.array([[0, 0, 1, 1, 1, 255]]), PALETTE)
    plane = np.array([[[0.1, 0.1, 0.9, 0.1, 0.9, 0.1]], [[0.1, 0.1, 0.1, 0.9, 0.1, 0.9]]],
                     np.float32)
    activations.save(tmp_path / 'cam', 'x', activations.Activation(np.array([0, 1]), plane, plane))
    method = gallery.Method('cam', 'CAM', str(tmp_path / 'cam'), 'activation', 0.15)
    image = gallery.measure(source, 'x', [method])
    # predicted at 0.50: 0 0 1 2 1; at 0.00: 1 1 1 2 1 (the first wins a tie); at 0.95: background
    # alone
    at = dict(zip(scores.GRID, image.miou['cam'], strict=True))
    assert at[0.5] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert at[0.0] == pytest.approx((0 + 2 / 5 + 0) / 3)
    assert at[0.95] == pytest.approx((2 / 5 + 0) / 2)
    assert (image.shown, image.true) == ([1, 2], [1])


def test_scores_of_all_images_are_the_evaluators(made):
    source, (text, data) = Source(made), page(made)
    rows = {}
    for match in re.finditer(r'<tr>\s*<th scope="row" data-value="(\d+)">.*?</tr>', text, re.S):
        rows[int(match[1])] = re.findall(r'>([\d.–]+)</td>', match[0])
    assert list(rows) == list(range(5))
    for column, name in enumerate(THRESHOLDS):
        def load(image_id, name=name):
            activation = activations.load(made / name, image_id)
            return activation.keys, activation.high_res
        result = scores.score_activations(source, IDS, load, THRESHOLDS[name], 0)
        on_grid = [value for value, at in zip(result.curve(), result.thresholds, strict=True)
                   if at in scores.GRID]
        method = next(method for method in data['methods'] if method['name'] == name)
        assert method['curve'] == [int(f'{100 * value:.1f}'.replace('.', '')) for value in on_grid]
        iou = result.at(THRESHOLDS[name]).iou
        assert [row[1 + column] for row in rows.values()] == [f'{100 * value:.1f}' for value in iou]
    assert {method['name']: method['position'] for method in data['methods'] if method['kind']
            == 'activation'} == {
        'cam': 15, 'amn_cam': 25}
    truths = [label_maps.load(source.mask_path(image_id)) for image_id in IDS]
    assert [int(row[0]) for row in rows.values()] == [len(IDS)] + [
        sum(bool((truth == label).any()) for truth in truths) for label in range(1, 5)]


@pytest.mark.parametrize(('number', 'expected'), [
    (0, dict.fromkeys(range(6), '')), (6, dict.fromkeys(range(6), '')),
    (9, dict.fromkeys(range(6), '')), (1, {2: 'best'}),
    (2, {2: 'best', 4: 'worst'}), (5, {0: 'best', 2: 'best', 3: 'worst', 4: 'worst'})])
def test_choice_of_images(number, expected):
    """Of the order 2, 0, 5, 3, 4 (equals in the list's order); 1 has no score."""
    groups = gallery.choose(np.array([0.8, np.nan, 0.9, 0.3, 0.3, 0.5]), number, seed=0)
    assert {position: group for position, group in groups.items() if group != 'random'} == expected
    assert len(groups) == (number if 0 < number < 6 else 6)
    assert list(groups) == sorted(groups)


def test_choice_without_scores_is_drawn(made):
    first, again = (gallery.choose(np.full(100, np.nan), 10, seed) for seed in (3, 3))
    assert first == again
    assert set(first.values()) == {'random'}
    assert first != gallery.choose(np.full(100, np.nan), 10, 4)


def test_files_do_not_depend_on_workers_and_are_made_anew(made, tmp_path):
    def content(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*')
                if path.is_file()}

    target = tmp_path / 'report'
    report_on(made, files={'report_out_dir': str(target)}, num_workers=2)
    assert content(target) == content(made / 'report')
    report_on(made, files={'report_out_dir': str(target)}, images=2)
    assert len(list(target.glob('data/*'))) == 2
    assert len(list(target.glob('images/*'))) == 2 * 5
    report_on(made, files={'report_out_dir': str(target)})
    assert content(target) == content(made / 'report')


def test_a_folder_of_other_things_is_left_alone(made, tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'mine.jpg').write_text('mine')
    with pytest.raises(UserError,
                       match='holds other things than a report; name another --report_out_dir'):
        report_on(made, files={'report_out_dir': str(tmp_path)})
    assert [path.name for path in tmp_path.rglob('*') if path.is_file()] == ['mine.jpg']


def test_names_are_escaped(made):
    text, data = page(made)
    assert data['classes'] == ['background', *CLASSES]
    for bad in (*CLASSES[1:3], HOSTILE, '<i>split</i>', '<b>own</b>'):
        assert bad not in text
    assert '{{ 7 * 7 }}' in text
    assert '>49<' not in text
    assert not re.search(r'https?://(?!www\.w3\.org)', text)  # nothing from a network
    assert {path.name for path in (made / 'report').rglob('*')
            if path.is_file()} <= {'index.html', '_settings.json'} | {
        f'{number}{name}' for number in range(len(IDS))
        for name in ('.js', '_image.jpg', '_truth.png', '_ir_label.png', '_amn_ir_label.png',
                     '_sem_seg.png')}


def test_overlays_are_those_of_drawing(made):
    """The layer over the image is what drawing.overlay_labels makes of both, but for rounding."""
    image = np.array(Image.open(Source(made).image_path('plain')))
    layer = np.array(Image.open(made / 'report' / 'images' / '0_ir_label.png')).astype(float)
    assert layer.shape == (*image.shape[:2], 4)
    opacity = layer[..., 3:] / 255
    label_map = label_maps.load(made / 'ir_label' / 'plain.png')
    expected = drawing.overlay_labels(image, label_map, PALETTE).astype(float)
    assert np.abs(opacity * layer[..., :3] + (1 - opacity) * image - expected).max() <= 1
    assert {0, 153, 255} == set(np.unique(layer[..., 3]))


def damaged(made, folder):
    """What a report needs, in a folder of its own, to be damaged."""
    for name in ('images', 'masks', 'cam', 'ir_label', 'amn_cam', 'amn_ir_label', 'sem_seg'):
        shutil.copytree(made / name, folder / name)
    return folder


def test_what_is_missing_is_left_out(made, tmp_path):
    folder = damaged(made, tmp_path)
    for name in ('amn_cam', 'amn_ir_label'):
        shutil.rmtree(folder / name)
    (folder / 'sem_seg' / 'plain.png').unlink()
    (folder / 'masks' / 'no_class.png').unlink()
    report_on(folder)
    text, data = page(folder)
    assert [method['name'] for method in data['methods']] == ['cam', 'sem_seg', 'ir_label']
    assert '--make_amn_cam_pass' in text
    assert '--amn_cam_to_ir_label_pass' in text
    assert 'No plots. Run <code>--analyze_threshold_pass True</code>' in text
    assert 'No scores of this split' in text
    plain, no_class = (next(item for item in data['images'] if item['id'] == name)
                       for name in ('plain', 'no_class'))
    assert plain['made'] == ['cam', 'ir_label']
    assert 'sem_seg' not in plain['miou']
    assert (no_class['truth'], no_class['miou']) == (False, {})
    assert len(planes_of(folder / 'report' / 'data' / '5.js', no_class['hw'])[1]) == 4
    assert 'output: CAM at 0.15 (6 of 7), Pseudo-mask (5 of 7).' in text
    assert [(method['name'], method['scored'], method['of_images'])
            for method in data['methods']] == [
        ('cam', 6, 7), ('sem_seg', 5, 7), ('ir_label', 0, 7)]


def test_without_any_mask(made, tmp_path):
    folder = damaged(made, tmp_path)
    shutil.rmtree(folder / 'masks')
    report_on(folder, images=3)
    text, data = page(folder)
    assert '3 of 7 images, drawn at random.' in text
    for senseless in ('mIoU in %', 'class="empty">No', 'id="scores"', 'id="thresholds"',
                      'class="headline"', 'What is taken for what', 'IoU in %'):
        assert senseless not in text
    assert 'Images that show each class, by what was made of them.' in text
    assert '"truth": false' in text and '"truth": true' not in text
    assert all(item['miou'] == {} and item['group'] == 'random' for item in data['images'])
    assert {method['curve'] for method in data['methods']} == {None}


@pytest.mark.parametrize('empty', [False, True])
def test_nothing_at_all(tmp_path, empty):
    source = Source(tmp_path)
    (tmp_path / 'images').mkdir()
    for image_id in IDS:
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(source.image_path(image_id))
    if empty:
        (tmp_path / 'cam').mkdir()
    with pytest.raises(UserError, match='nothing to report on'):
        report_on(tmp_path)
    assert not (tmp_path / 'report').exists()


def test_damaged_inputs_are_named(made, tmp_path):
    folder = damaged(made, tmp_path)
    activations.save(folder / 'cam', 'plain', activations.load(folder / 'cam', 'quotes"\'&amp;'))
    with pytest.raises(UserError,
                       match=r'plain\.npz: 64 x 56, its image is 40 x 56: made from another image'):
        report_on(folder)
    small = np.zeros((1, 40, 56), np.float32)
    activations.save(folder / 'cam', 'plain', activations.Activation(np.array([4]), small, small))
    with pytest.raises(UserError, match=r'plain\.npz: holds classes above 4'):
        report_on(folder)
    (folder / 'cam' / 'plain.npz').write_bytes(b'half')
    with pytest.raises(UserError, match=r'plain\.npz: not a whole activation file'):
        report_on(folder)


def test_scores_plots_and_settings(made, tmp_path):
    folder = damaged(made, tmp_path)
    job = the_job(folder)
    line = {'split': job.lists['eval_set'], 'data': Source.name, 'version': '1', 'commit': 'abc',
            'images': 7}
    for stage, time, more in (
            ('eval_sem_seg', '2026-01-02T00:00:00', {'miou': 0.5, 'threshold': 0.25}),
            ('eval_cam', '2026-01-01T00:00:00', {'miou': 0.1, 'threshold': 0.15}),
            ('eval_cam', '2026-01-03T00:00:00',
             {'miou': 0.3894, 'threshold': 0.15, 'best_miou': 0.4, 'best_threshold': 0.16,
               'within_3_points': [0.06, 0.31]}),
            ('eval_ir_label', '2026-01-01T00:00:00',
             {'miou': 0.48, 'labelled': 0.562, 'fg_threshold': 0.3,
               'bg_threshold': 0.05}),
            ('eval_else', '2026-01-01T00:00:00', {})):
        append_json_line(job.files['scores_file'], {'stage': stage, 'time': time} | line | more)
    append_json_line(job.files['scores_file'],
                     {'stage': 'eval_cam', 'time': 'x'} | line | {'split': 'other', 'miou': 0.9})
    append_json_line(job.files['scores_file'],
                     {'stage': 'eval_cam', 'time': 'x'} | line | {'data': 'other', 'miou': 0.9})
    for stage, more in (('eval_seg', {'miou': 0.61, 'scales': [1.0]}),
                        ('eval_seg', {'miou': 0.62, 'scales': [0.5, 1.0]}),
                        ('eval_ins_seg', {'map': 0.377, 'threshold': 0.25,
                                          'split': job.lists['eval_set']})):
        append_json_line(job.files['scores_file'], {
            'stage': stage, 'time': '2026-01-02T00:00:00'} | line | {'split': 'val'} | more)
    found = results.last_lines(job.files['scores_file'], STAGES.rows(),
                               (job.lists['eval_set'], 'val'), Source.name)
    assert [row.title for row, _ in found] == [
        'CAM seed', 'CAM seed, refined', 'pseudo-mask', 'instance masks (mean AP)',
        'segmentation, one scale', 'segmentation, multi-scale', 'eval_else']
    analysed(folder, job.lists['eval_set'])
    write_json(folder / 'seg.json', {'loss': 'balanced'})
    losses.write(folder / 'seg.pth', [{'epoch': 1, 'step': 4, 'learning_rate': 0.1, 'loss': 2.0}])
    (folder / 'cam' / '_settings.json').write_text(json.dumps({'network': '<net>',
                                                               'scales': [1.0, 0.5]}))
    report.run(job, Report(0))
    text, _ = page(folder)
    table = table_of_scores(text)
    assert 'CAM seed 0.15 38.9 40.0 0.16 0.06 to 0.31 &lt;i&gt;split&lt;/i&gt; (7)' in table
    assert 'CAM seed, refined 0.30, 0.05 48.0* – – – &lt;i&gt;split&lt;/i&gt; (7)' in table
    assert 'eval_else – – – – – &lt;i&gt;split&lt;/i&gt; (7)' in table
    assert 'instance masks (mean AP) 0.25 37.7 – – – &lt;i&gt;split&lt;/i&gt; (7)' in table
    assert ('segmentation, one scale – 61.0 – – – val (7) segmentation, multi-scale – 62.0 – – – '
            'val (7)' in table)
    assert 'refined 56.2%' in table
    assert 'scored <b>2026-01-03 00:00:00</b>' in text
    assert len(re.findall('class="main">48.0', text)) == 0  # no partial score is the boldest
    assert re.findall(r'aria-label="Enlarge: ([^"]*)"', text) == [
        *report.PLOTS.values(), 'losses of the trainings']
    assert len(re.findall('<svg xmlns:xlink', text)) == 5
    assert '<h3>SEG (training)</h3>' in text
    assert '<dt>network</dt><dd>&lt;net&gt;</dd><dt>scales</dt><dd>1.0 0.5</dd>' in text
    assert ('<code>--cam_scales</code></td><td class="main">1.0 0.5</td>'
            '<td>1.0 0.5 1.5 2.0</td>' in text)
    command = ' '.join(shlex.split(html.unescape(re.search(
        '<pre id="command"[^>]*>(.*?)</pre>', text, re.S)[1].replace('\\\n', ' '))))
    assert '--stages make_cam..eval_cam,train_seg ' in command
    assert '--cam_network <net> --cam_scales 1.0 0.5' in command
    assert f'--data_root {folder}' in command


def analysed(folder, split, data=Source.name):
    (folder / 'analysis').mkdir(exist_ok=True)
    write_json(folder / 'analysis' / 'analysis.json', {'split': split, 'data': data,
                                                       'methods': METHODS})


def table_of_scores(text):
    return ' '.join(re.sub(r'<[^>]*>', ' ',
                           text[text.index('>Scores</h2>'):text.index('Classes</h2>')]).split())


@pytest.mark.parametrize(('split', 'data'), [('val', Source.name), ('<i>split</i>', 'voc12')])
def test_plots_of_another_split_or_data_set_are_left_out(made, tmp_path, split, data):
    analysed(tmp_path, split, data)
    job = the_job(made, files={'analysis_out_dir': str(tmp_path / 'analysis'),
                               'report_out_dir': str(tmp_path / 'report')})
    report.run(job, Report(0))
    text, _ = page(tmp_path)
    assert 'class="zoom"' not in text
    assert 'are left out: they are of another split or data set' in text
    (tmp_path / 'analysis' / 'analysis.json').write_text('{"split": 1}')
    with pytest.raises(UserError, match=r"analysis\.json: not an analysis \('data'\)"):
        report.run(job, Report(0))


def test_the_plots_are_those_of_the_analysis():
    assert list(report.PLOTS) == list(plots.FIGURES)


@pytest.mark.parametrize(('content', 'what'),
                         [('{"stage"', 'Expecting'), ('{"split": "val"}', "a line without 'stage'"),
                          ('7', 'int'), ('{"stage": "eval_seg"}', "a line without 'scales'"),
                          ('{"stage": "eval_cam"}', "a line without 'split'")])
def test_broken_scores_are_told(tmp_path, content, what):
    (tmp_path / 'scores.jsonl').write_text(content + '\n')
    with pytest.raises(UserError, match=rf'scores\.jsonl: not a file of scores \(.*{what}'):
        results.last_lines(tmp_path / 'scores.jsonl', STAGES.rows(), ('val',), 'voc12')


def test_auto_is_chosen_from_what_is_there(made, tmp_path):
    folder = damaged(made, tmp_path)
    (folder / 'cam' / 'plain.npz').unlink()
    shutil.rmtree(folder / 'amn_cam')
    report_on(folder, thresholds={'eval_cam_thres': 'auto', 'eval_amn_cam_thres': 'auto'})
    expected = auto_threshold.threshold_of(folder / 'cam', IDS[1:], '', 0)
    text, data = page(folder)
    assert data['methods'][0]['position'] == round(100 * expected)
    assert f'CAM at {expected:.2f} (6 of 7)' in text
    assert report.all_methods(the_job(folder, thresholds={'eval_amn_cam_thres': 'auto'}),
                              IDS)[1].threshold == 0


def test_without_an_image_to_score_it_is_of_the_masks_to_make(made, tmp_path, caplog):
    caplog.set_level('INFO')
    report_on(made, lists={'eval_set': 'empty'}, files={'report_out_dir': str(tmp_path / 'report')})
    text, data = page(tmp_path)
    assert len(data['images']) == len(IDS)
    assert 'split <b>inferred</b>' in text
    assert '(none in empty, the split to score on)' in text
    assert '--eval_set empty has no image: the report is of --infer_list inferred' in caplog.text


def test_through_the_command(command, capsys):
    """On the small tree, with a mask and labels of the split missing: only scores and trainings
    need them.
    """
    assert command('report') == 1
    assert 'nothing to report on: none of' in capsys.readouterr().err.splitlines()[-1]
    for path in ('SegmentationClass/2007_000001.png', 'Annotations/2007_000001.xml'):
        (command.tree / path).unlink()
    for name in ('cam', 'amn_cam'):
        for image_id in ('2007_000001', '2007_000002'):
            golden = np.load(GOLDEN / 'expected' / f'{image_id}_activations.npz')
            activations.save(command.folder / name, image_id, activations.Activation(
                *(golden[f'{name}{what}'] for what in ('_keys', '', '_high_res'))))
    assert command('report', report_images=2, eval_cam_thres=0.2, **QUICK) == 0
    text, data = page(command.folder)
    assert len(data['images']) == 2
    assert data['methods'][0]['position'] == 20
    assert 'voc12' in text
    assert command('eval_cam', **QUICK) == 1
    assert '1 of the 4 masks of train are missing' in capsys.readouterr().err.splitlines()[-1]


def other_run(made, folder):
    """Another run in the usual places below its --work_dir: another CAM, one pseudo-mask less."""
    for name in ('cam', 'amn_cam', 'ir_label', 'amn_ir_label', 'sem_seg'):
        shutil.copytree(made / name, folder / 'result' / name)
    for image_id in IDS[2:4]:
        keys, strided, high_res = activations.load(made / 'cam', image_id)
        activations.save(folder / 'result' / 'cam', image_id,
                         activations.Activation(keys, strided, high_res ** 2))
    (folder / 'result' / 'sem_seg' / f'{IDS[0]}.png').unlink()
    return folder


@pytest.mark.parametrize(('record', 'told'), [
    ({'bg_thres': 0.25}, 'at 0.25'),
    ({'bg_thres': 0.3, 'bg_thres_from': 'auto', 'crf': True},
     'at 0.30, chosen without masks, refined by CRF')])
def test_the_card_tells_how_masks_were_made(tmp_path, record, told):
    draw(tmp_path)
    write_json(tmp_path / 'sem_seg' / records.FOLDER_RECORD, {'stage': 'make_sem_seg', **record})
    report_on(tmp_path)
    assert page(tmp_path)[0].count(f'<li>{told}</li>') == 1


def test_two_runs(made, tmp_path):
    """Scores of both, what they differ by, and the images that changed most."""
    other = other_run(made, tmp_path / 'other')
    job = the_job(made, files={'report_out_dir': str(tmp_path / 'report')})
    write_json(made / 'cam' / '_settings.json', {'stage': 'make_cam', 'scales': [1.0]})
    write_json(other / 'result' / 'cam' / '_settings.json', {'stage': 'make_cam', 'scales': [2.0]})
    append_json_line(other / 'result' / 'scores.jsonl', {
        'stage': 'eval_cam', 'time': 'x', 'split': job.lists['eval_set'], 'data': Source.name,
        'version': '1', 'commit': 'abc', 'images': 7, 'miou': 0.25})
    append_json_line(job.files['scores_file'], {
        'stage': 'eval_cam', 'time': 'x', 'split': job.lists['eval_set'], 'data': Source.name,
        'version': '1', 'commit': 'abc', 'images': 7, 'miou': 0.375})
    try:
        report.run(job, Report(3, str(other)))
    finally:
        (made / 'cam' / '_settings.json').unlink()
        (made / 'scores.jsonl').unlink()
    text, data = page(tmp_path)
    assert '25.0</td>\n      <td>+12.5</td>' in text
    assert ('<tr><th scope="row">CAM</th><td>scales</td><td>1.0</td><td>2.0</td></tr>' in text)
    source, by_id = Source(made), {item['id']: item for item in data['images']}
    assert sum(item['group'] == 'changed' for item in data['images']) == 1
    changed = {}
    for image_id in IDS:
        masks = [seeds.class_ids(keys)[seeds.arg_max(planes, THRESHOLDS['cam'])]
                 for folder in (made, other / 'result')
                 for keys, _, planes in [activations.load(folder / 'cam', image_id)]]
        changed[image_id] = round(1000 * float((masks[0] != masks[1]).mean()))
    for image_id, item in by_id.items():
        assert item['changed']['cam'] == changed[image_id]
        assert item['changed']['amn_cam'] == 0
        assert ('sem_seg' in item['changed']) == (image_id != IDS[0])
    chosen = max((image_id for image_id in IDS if by_id.get(image_id, {}).get('group')
                  not in ('best', 'worst')), key=changed.get)
    assert by_id[chosen]['group'] == 'changed'

    def load(image_id):
        activation = activations.load(other / 'result' / 'cam', image_id)
        return activation.keys, activation.high_res
    there = scores.score_activations(source, IDS, load, THRESHOLDS['cam'], 0).at(0.15).miou
    assert f'{100 * there:.1f} in the other run' in text
    assert {method['name'] for method in data['methods'] if method['of'] == 'cam'} == {
        'against_cam'}
    assert (tmp_path / 'report' / 'images' / f'{IDS.index(chosen)}_against_ir_label.png').is_file()


@pytest.mark.parametrize(('make', 'told'), [
    (lambda folder: None, 'no run is there'),
    (lambda folder: write_json(folder / 'result' / 'cam' / '_settings.json', {'classes': ['cat']}),
     'made for 1 classes, this data set has 4')])
def test_what_is_no_other_run(made, tmp_path, make, told):
    make(tmp_path)
    with pytest.raises(UserError, match=told):
        report.check(the_job(made), ['report'], Report(0, str(tmp_path)))


def test_of_several_seeds(made, tmp_path):
    """Mean and standard deviation stand where the numbers of one run do."""
    other = other_run(made, tmp_path)
    job, files = the_job(made), {}
    for seed, folder in enumerate((made, other / 'result')):
        files[seed] = job.files | {f'{name}_out_dir': str(folder / name) for name in (
            'cam', 'amn_cam', 'ir_label', 'amn_ir_label', 'sem_seg')} | {
            'scores_file': str(tmp_path / f'{seed}.jsonl'),
            'report_out_dir': str(tmp_path / 'report')}
        append_json_line(tmp_path / f'{seed}.jsonl', {
            'stage': 'eval_cam', 'time': 'x', 'split': job.lists['eval_set'], 'data': Source.name,
            'version': '1', 'commit': 'abc', 'images': 7, 'miou': 0.3 + 0.1 * seed,
            'threshold': 0.15, 'best_miou': 0.5, 'best_threshold': 0.2 + 0.1 * seed,
            'within_3_points': [0.1, 0.3]})
    report.run(dataclasses.replace(job, files=files[0], repeats=files), Report(0))
    text, data = page(tmp_path)
    assert 'CAM seed 0.15 35.0 ± 7.1 50.0 0.25 ± 0.07 0.10 to 0.30' in table_of_scores(text)
    assert 'mean ± standard deviation of <b>2</b> runs (seeds 0, 1)' in text
    source, miou, counts = Source(made), [], 0
    for folder in (made, other / 'result'):
        def load(image_id, folder=folder):
            activation = activations.load(folder / 'cam', image_id)
            return activation.keys, activation.high_res
        result = scores.score_activations(source, IDS, load, THRESHOLDS['cam'], 0)
        miou.append(100 * result.at(0.15).miou)
        counts = counts + result.confusion(result.position(0.15))
    expected = f'{statistics.mean(miou):.1f} ± {statistics.stdev(miou):.1f}'
    assert f'<p class="value">{expected}<small>' in text
    assert '(7 of 7)' in text
    shares = 100 * counts / counts.sum(1, keepdims=True)
    assert data['confusions']['cam']['labels'] == list(range(5))
    assert np.abs(np.array(data['confusions']['cam']['shares']) / 10 - shares).max() < 0.051


def test_each_seed_has_the_threshold_that_is_chosen_for_it(made, tmp_path):
    other = other_run(made, tmp_path)
    job = the_job(made, thresholds={'eval_cam_thres': 'auto'})
    files = {seed: job.files | {'cam_out_dir': str(folder / 'cam'),
                                'report_out_dir': str(tmp_path / 'report')}
             for seed, folder in enumerate((made, other / 'result'))}
    report.run(dataclasses.replace(job, files=files[0], repeats=files), Report(0))
    miou, chosen = [], []
    for folder in (made, other / 'result'):
        def load(image_id, folder=folder):
            activation = activations.load(folder / 'cam', image_id)
            return activation.keys, activation.high_res
        chosen.append(auto_threshold.threshold_of(folder / 'cam', IDS, '', 0))
        miou.append(scores.score_activations(Source(made), IDS, load, chosen[-1], 0).at(
            chosen[-1]).miou)
    assert chosen[0] != chosen[1]
    assert f'<p class="value">{results.percent(miou)}<small>' in page(tmp_path)[0]


def test_confusions_by_hand():
    counts = np.zeros((4, 4), np.int64)
    counts[0, :3], counts[2, 2] = (6, 1, 3), 5
    assert report.confusion_data(counts) == {
        'labels': [0, 1, 2], 'shares': [[600, 100, 300], [None] * 3, [0, 0, 1000]]}


@pytest.mark.parametrize(('data', 'images', 'expected'), [
    ('voc12', 1464, '48.8'), ('voc12', 84, None), ('<b>own</b>', 1464, None)])
def test_the_published_figure_stands_where_the_images_are_the_same(data, images, expected):
    row = STAGES.named('eval_cam').rows[0]
    found = results.published(row, {'data': data, 'images': images})
    assert found is None if expected is None else results.percent(found) == expected


def test_segmentation_and_instances(made, tmp_path):
    """The network's label maps are of their own list, and scored on it; instances are a layer."""
    class TwoLists(Source):
        def names(self, list_or_split):
            return IDS[:4] if list_or_split == 'val' else IDS[2:]

    label_maps.save(tmp_path / 'seg' / f'{IDS[0]}.png',
                    label_maps.load(made / 'sem_seg' / f'{IDS[0]}.png'), PALETTE)
    hw = label_maps.load(made / 'sem_seg' / f'{IDS[2]}.png').shape
    found = np.zeros(hw, np.int32)
    found[5:20, 5:20], found[25:30, 30:40] = 1, 2
    instances.save(tmp_path / 'ins_seg', IDS[2], instances.Instances(
        np.array([1, 0]), np.array([0.9, 0.0], np.float32), found))
    job = the_job(made, files={'seg_out_dir': str(tmp_path / 'seg'),
                               'ins_seg_out_dir': str(tmp_path / 'ins_seg'),
                               'report_out_dir': str(tmp_path / 'report')})
    report.run(dataclasses.replace(job, source=TwoLists(made)), Report(0))
    text, data = page(tmp_path)
    assert 'segmentation <b>val</b>, <b>1</b> images' in text
    by_id = {item['id']: item for item in data['images']}
    assert list(by_id) == [*IDS[2:], IDS[0]]
    assert (by_id[IDS[0]]['list'], by_id[IDS[0]]['made']) == ('seg_list', ['seg'])
    assert 'seg' not in by_id[IDS[2]]['made']
    assert 2 in by_id[IDS[2]]['shown']
    network = next(method for method in data['methods'] if method['name'] == 'seg')
    assert (network['scored'], network['of_images']) == (1, 1)
    layer = np.array(Image.open(tmp_path / 'report' / 'images' / '0_ins_seg.png'))
    assert (layer[10, 10, 3], layer[27, 35, 3]) == (153, 0)  # a fragment is left out
    instances.save(tmp_path / 'ins_seg', IDS[2], instances.nothing((3, 3)))
    with pytest.raises(UserError, match='made from another image; make it anew'):
        report.run(dataclasses.replace(job, source=TwoLists(made)), Report(0))


def test_what_is_stale_is_told_of(made, tmp_path):
    folder = damaged(made, tmp_path)
    write_json(folder / 'cam' / '_settings.json', {'stage': 'make_cam', 'scales': [1.0]})
    seed = {'stage': 'cam_to_ir_label', 'activations': records.made_by(folder / 'cam')}
    write_json(folder / 'ir_label' / '_settings.json', seed)
    report_on(folder)
    assert 'Not up to date' not in page(folder)[0]
    write_json(folder / 'cam' / '_settings.json', {'stage': 'make_cam', 'scales': [2.0]})
    report_on(folder)
    assert (f'<li>{folder}/ir_label was made from another {folder}/cam than is there now; run '
            f'--cam_to_ir_label_pass True --overwrite True</li>') in page(folder)[0]
    write_json(folder / 'ir_label' / '_settings.json', seed | {'activations': 'unknown'})
    inputs_of = folder / 'amn_cam' / '_inputs.jsonl'
    inputs_of.write_text(json.dumps({'image': 'plain', 'photograph': 'another'}) + '\n')
    write_json(folder / 'amn_cam' / '_settings.json', {'stage': 'make_amn_cam'})
    report_on(folder)
    text = page(folder)[0]
    assert '/ir_label was made' not in text
    assert (f'{folder}/amn_cam was made from other inputs (photographs of 1 image: plain.png)'
            in text)


def test_weights_trained_anew_make_a_folder_stale(made, tmp_path):
    folder = damaged(made, tmp_path)
    job = the_job(folder)
    torch.save({'a': torch.ones(2)}, job.files['cam_weights_name'])
    write_json(folder / 'cam.json', {'stage': 'train_cam'})
    digest = weights.digest({'a': torch.ones(2)})
    write_json(folder / 'cam' / '_settings.json', {'stage': 'make_cam', 'weights': digest})
    assert provenance.stale(job, IDS) == []
    torch.save({'a': torch.zeros(2)}, job.files['cam_weights_name'])
    assert provenance.stale(job, IDS) == [
        f'{folder}/cam was made from another {folder}/cam.pth than is there now; run '
        f'--make_cam_pass True --overwrite True']


def test_what_a_folder_was_not_made_from_does_not_make_it_stale(made, tmp_path):
    """The walk reads CAM only where it is told so."""
    folder = damaged(made, tmp_path)
    job = the_job(folder)
    for name in ('cam', 'amn_cam'):
        write_json(folder / name / '_settings.json', {'stage': f'make_{name}'})
    record = {'stage': 'make_sem_seg', 'activations': records.made_by(folder / 'amn_cam')}
    write_json(folder / 'sem_seg' / '_settings.json', record)
    assert provenance.stale(job, IDS) == []
    start = next(name for name, flag in Walk.flags().items() if flag == 'sem_seg_from')
    other = next(each for each in WALK_FROM if each != 'amn')
    write_json(folder / 'sem_seg' / '_settings.json', record | {start: other})
    stale, = provenance.stale(job, IDS)
    assert stale.startswith(f'{folder}/sem_seg was made from another {folder}/cam than')


def test_a_stage_of_ones_own_is_told_of_like_the_others(made, tmp_path):
    """Its rows, whose published figures cannot be hashed, are in nobody's way."""
    more = STAGES.with_more([importlib.import_module('tests.extending.smooth').STAGE])
    job = dataclasses.replace(the_job(made), stages=more)
    files = {name: {'smooth_out_dir': str(tmp_path / name)} for name in ('here', 'there')}
    for name, size in (('here', 7), ('there', 9)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / '_settings.json', {'stage': 'smooth', 'size': size})
    job = dataclasses.replace(job, files=job.files | files['here'])
    assert provenance.differences(job, files['there']) == [('Smooth mask', 'size', '7', '9')]
    words = provenance.command(job)
    assert words[words.index('--smooth_size') + 1] == '7'
    assert 'smooth' in words[words.index('--stages') + 1]


def test_the_report_reads_what_every_stage_shows():
    stage = importlib.import_module('tests.extending.smooth').STAGE
    shown = {'cam_out_dir', 'ir_label_out_dir', 'amn_cam_out_dir', 'amn_ir_label_out_dir',
             'sem_seg_out_dir', 'ins_seg_out_dir', 'seg_out_dir'}
    assert {read.flag for read in STAGES.named('report').reads} == shown
    more = STAGES.with_more([stage])
    assert {read.flag for read in more.named('report').reads} == shown | {'smooth_out_dir'}
    assert not any(read.needed for read in more.named('report').reads)


def test_the_report_of_a_repeated_run(command):
    """One for each seed, and one over all of them where a single run's lies."""
    assert command('train_cam', 'make_cam', 'eval_cam', 'report', repeat=2, report_images=1,
                   **QUICK) == 0
    each = [json.loads((command.folder / f'seed_{seed}' / 'scores.jsonl').read_text())
            for seed in (0, 1)]
    expected = results.percent([line['miou'] for line in each])
    assert '±' in expected
    assert expected in page(command.folder)[0]
    assert 'runs (seeds 0, 1)' in page(command.folder)[0]
    for seed, line in enumerate(each):
        alone = page(command.folder / f'seed_{seed}')[0]
        assert f'<p class="value">{results.percent(line["miou"])}<small>' in alone
        assert 'losses of the trainings' in alone
