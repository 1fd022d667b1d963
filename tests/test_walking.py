"""What may walk, and beside what background: formulas by hand, the stage against them, thresholds
chosen without masks, and the script that compares.
"""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from misc import imutils, indexing
from misc.command import options
from misc.contract.settings import WALK_BACKGROUNDS, WALK_FROM
from misc.files import activations, label_maps, records, weights
from misc.method import crf, seeds, walking
from misc.pyutils import UserError
from misc.score import auto_threshold, scores
from script import compare_walks
from step.pipeline import STAGES
from tests.conftest import GOLDEN, Command
from tests.test_analysis import IDS, draw_run
from tests.tiny import NETWORKS, irn
from voc12.dataloader import VOC12

ROOT = Path(__file__).resolve().parent.parent
WALK = {**NETWORKS, 'exp_times': 3, 'sem_seg_canvas': 0}


def activation(*planes, keys=(0, 2)):
    """Planes of one row at stride 4; the full size plays no part."""
    strided = np.array(planes, np.float32)[:, None]
    return activations.Activation(np.array(keys), strided, strided)


AMN = activation([0.5, 0.1, 0.0], [0.25, 0.0, 1.0], [0.0, 0.75, 0.5])  # background first
CAM = activation([0.75, 0.0, 0.25], [1.0, 0.25, 0.5])


# by hand

@pytest.mark.parametrize(('foreground', 'expected'), [
    ('amn', [[0.25, 0, 1], [0, 0.75, 0.5]]), ('cam', [[0.75, 0, 0.25], [1, 0.25, 0.5]]),
    ('mean', [[0.5, 0, 0.625], [0.5, 0.5, 0.5]]),
    ('geometric', [[0.1875 ** 0.5, 0, 0.5], [0, 0.1875 ** 0.5, 0.5]])])
def test_what_walks_by_hand(foreground, expected):
    found = walking.start(foreground, 'none', AMN, CAM)
    assert found[:, 0].numpy() == pytest.approx(np.array(expected))
    for background, last in (('inverse', [0.75, 0.25, 0]), ('amn', [0.5, 0.1, 0]),
                             ('constant', [1, 1, 1])):
        beside = walking.start(foreground, background, AMN, CAM)
        assert torch.equal(beside[:2], found)
        assert beside[2:, 0].numpy() == pytest.approx(np.array([last]))


def test_cam_is_not_needed_where_it_does_not_walk():
    assert torch.equal(walking.start('amn', 'inverse', AMN, None),
                       walking.start('amn', 'inverse', AMN, CAM))


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r'CAM are of the classes \[0, 1\], those of AMN'):
        walking.start('mean', 'none', AMN, CAM._replace(keys=np.array([0, 1])))
    with pytest.raises(UserError, match='no background plane, which --sem_seg_background amn'):
        walking.start('amn', 'amn', AMN.without_background(), None)


def test_scores_by_hand():
    walked = torch.tensor([[0.0, 0.0, 0.2, 3.0], [0.0, 0.5, 0.2, 0.0], [0.0, 0.0, 0.6, 4.0]])
    for background in ('inverse', 'amn'):
        assert walking.class_scores(walked, background).numpy() == pytest.approx(np.array(
            [[0, 0, 0.25, 3 / 7], [0, 1, 0.25, 0]]))
    walked[2, 1] = 1
    assert walking.class_scores(walked, 'constant').numpy() == pytest.approx(np.array(
        [[0, 0, 1 / 3, 0.75], [0, 0.5, 1 / 3, 0]]))
    assert walking.class_scores(walked, 'none') is walked


def test_scores_are_resized_but_not_divided():
    score = np.full((1, 2, 3), 0.25, np.float32)
    walked = activations.Walked(np.array([4]), score, np.array([6, 10]))
    assert (walking.planes_of(walked, 'inverse') == np.full((1, 6, 10), 0.25, np.float32)).all()
    assert (walking.planes_of(walked) == 1).all()


def walked_share(planes, background, edge):
    return walking.class_scores(walking.walk(planes, edge, 1.0, 10, 3), background)


def test_of_one_class_the_inverse_is_the_constant():
    rng = torch.Generator().manual_seed(0)
    edge = torch.rand(1, 9, 12, generator=rng)
    amn = activations.Activation(np.array([3]), torch.rand(2, 9, 12, generator=rng).numpy(),
                                 np.zeros((2, 36, 48), np.float32))
    inverse, constant = (walked_share(walking.start('amn', background, amn, None), background, edge)
                         for background in ('inverse', 'constant'))
    assert inverse.numpy() == pytest.approx(constant.numpy(), abs=1e-6)
    assert inverse.numpy().std() > 0.01


def test_an_even_activation_has_an_even_score_wherever_the_walk_gathers():
    edge = torch.zeros(1, 9, 12)
    edge[0, :, 6] = 0.9
    planes = torch.full((1, 9, 12), 0.3)
    alone = walking.walk(planes, edge, 1.0, 10, 6)
    assert alone.max() > 1.2 * alone.min()  # the walk alone is uneven
    beside = walked_share(torch.cat([planes, torch.ones(1, 9, 12)]), 'constant', edge)
    assert beside.numpy() == pytest.approx(np.full((1, 9, 12), 0.3))


# the stage

@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return draw_run(tmp_path_factory.mktemp('drawn'))


@pytest.fixture
def made(drawn, tmp_path):
    """The command on a copy; what it keeps lies in the folder walked."""
    command = Command(drawn.tree, shutil.copytree(drawn.folder, tmp_path / 'copy'))

    def run(*stages, **flags):
        return command(*stages, **WALK | {'walked_out_dir': command.folder / 'walked'} | flags)

    run.folder, run.command, run.scores = command.folder, command, command.scores
    return run


@pytest.fixture
def counted(monkeypatch):
    """Walks that are really done."""
    calls, real = [], walking.walk
    monkeypatch.setattr(walking, 'walk', lambda *given: calls.append(1) or real(*given))
    return calls


def masks_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob('*.png'))}


def record(folder):
    return json.loads((folder / records.FOLDER_RECORD).read_text())


def expected_planes(folder, image_id, foreground, background, power=1.3):
    """Without the functions of the stage: keys, planes (K, H, W)."""
    amn, cam = (activations.load(folder / name, image_id) for name in ('amn_cam', 'cam'))
    net = irn.Net()
    weights.load_checkpoint(net, folder / 'irn.pth', '')
    photograph = imutils.read_of(VOC12(GOLDEN / 'tree'), image_id)
    image = torch.from_numpy(imutils.to_chw(imutils.normalize(photograph)))[None]
    edge = walking.edge_of(net.eval(), image, 'fp32', 0)
    a, c = amn.strided[1:].astype(np.float64), cam.strided.astype(np.float64)
    f = {'amn': a, 'cam': c, 'mean': (a + c) / 2, 'geometric': np.sqrt(a * c)}[foreground]
    b = {'none': a[:0], 'inverse': 1 - a.max(0, keepdims=True), 'amn': amn.strided[:1],
         'constant': np.ones((1, *a.shape[1:]))}[background]
    walked = indexing.propagate_to_edge(torch.from_numpy(np.concatenate([f, b]) ** power), edge,
                                        beta=10, exp_times=3)[:, 0].numpy()
    if background == 'constant':
        walked = walked[:-1] / walked[-1:]
    elif background != 'none':
        walked = walked[:-1] / (walked[:-1] + walked[-1:])
    size = (walked.shape[1] * 4, walked.shape[2] * 4)
    planes = torch.nn.functional.interpolate(torch.from_numpy(walked)[None], size, mode='bilinear')
    planes = planes[0, :, :amn.high_res.shape[1], :amn.high_res.shape[2]].numpy()
    return amn.keys, planes / planes.max() if background == 'none' else planes


@pytest.mark.parametrize(('foreground', 'background'), [
    ('amn', 'none'), ('amn', 'amn'), ('amn', 'constant'), ('cam', 'none'), ('mean', 'inverse'),
    ('geometric', 'inverse')])
def test_the_stage_walks_what_the_formulas_say(made, foreground, background):
    assert made('make_sem_seg', sem_seg_from=foreground, sem_seg_background=background,
                sem_seg_bg_thres=0.4) == 0
    for image_id in IDS[1:]:
        keys, planes = expected_planes(made.folder, image_id, foreground, background)
        expected = seeds.class_ids(keys)[seeds.arg_max(planes, 0.4)]
        found = label_maps.load(label_maps.label_path(made.folder / 'sem_seg', image_id))
        assert (found != expected).mean() < 1e-3
        assert 0 < (expected > 0).mean() < 1
        kept = walking.class_planes(made.folder / 'walked', image_id, background)
        assert kept[1] == pytest.approx(planes, abs=1e-5)
    no_class = label_maps.load(label_maps.label_path(made.folder / 'sem_seg', IDS[0]))
    assert not no_class.any()


def test_records_tell_what_is_not_published_and_nothing_else(made):
    assert made('make_sem_seg') == 0
    for name in ('sem_seg', 'walked'):
        assert not {'foreground', 'background', 'cam_activations'} & record(
            made.folder / name).keys()
    assert made('make_sem_seg', sem_seg_from='mean', sem_seg_background='inverse',
                sem_seg_out_dir=made.folder / 'better', walked_out_dir=made.folder / 'kept') == 0
    for name in ('better', 'kept'):
        found = record(made.folder / name)
        assert (found['foreground'], found['background']) == ('mean', 'inverse')
        assert found['cam_activations'] == records.made_by(made.folder / 'cam')
    assert masks_of(made.folder / 'better') != masks_of(made.folder / 'sem_seg')


def test_other_walks_are_not_taken_for_the_same(made, capsys):
    assert made('make_sem_seg') == 0
    assert made('make_sem_seg', sem_seg_background='constant') == 1
    assert 'other settings (background: was not set, now constant)' in capsys.readouterr().err


def test_another_activation_of_cam_is_walked_anew(made, counted, capsys):
    flags = {'sem_seg_from': 'mean', 'sem_seg_background': 'inverse'}
    assert made('make_sem_seg', **flags) == 0
    assert len(counted) == 3
    cam = activations.load(made.folder / 'cam', IDS[1])
    activations.save(made.folder / 'cam', IDS[1], cam._replace(strided=cam.strided / 2))
    assert made('make_sem_seg', **flags) == 0
    assert len(counted) == 4
    assert 'activations of CAM of 1 image' in capsys.readouterr().out


def test_cam_is_asked_for_where_it_walks(made, capsys):
    shutil.rmtree(made.folder / 'cam')
    assert made('make_sem_seg', sem_seg_background='inverse') == 0
    assert made('make_sem_seg', sem_seg_from='mean', overwrite=True) == 1
    told = capsys.readouterr().err
    assert f'make_sem_seg needs {made.folder / "cam"}: run --make_cam_pass True first' in told


def test_the_analysis_reads_the_walks_as_they_were_made(made):
    flags = {'sem_seg_from': 'mean', 'sem_seg_background': 'inverse', 'sem_seg_bg_thres': 0.4}
    assert made('make_sem_seg', 'eval_sem_seg', **flags) == 0
    assert made('analyze_threshold', sem_seg_bg_thres=0.4) == 0  # the record tells the rest
    found = json.loads((made.folder / 'analysis' / 'analysis.json').read_text())['methods']
    assert found['sem_seg']['miou_used'] == made.scores()['eval_sem_seg']['miou']
    assert 'threshold_published' not in found['sem_seg']
    assert found['cam']['threshold_published'] == 0.15


# refined by the dense CRF

@pytest.mark.parametrize('workers', [0, 2])
def test_masks_are_refined_along_the_colours(made, workers, counted):
    flags = {'num_workers': workers, 'sem_seg_bg_thres': 0.4}
    assert made('make_sem_seg', sem_seg_crf=True, **flags) == 0
    assert len(counted) == 3
    assert record(made.folder / 'sem_seg')['crf'] is True
    assert 'crf' not in record(made.folder / 'walked')
    source, changed = VOC12(GOLDEN / 'tree'), 0
    for image_id in IDS:
        image = imutils.read_of(source, image_id)
        keys, planes = walking.class_planes(made.folder / 'walked', image_id, 'none')
        refined = plain = seeds.class_ids(keys)[seeds.arg_max(planes, 0.4)]
        if len(keys):
            odds = np.stack([np.full(planes[0].shape, 0.4 / 0.6), *(planes / (1 - planes + 1e-5))])
            refined = seeds.class_ids(keys)[crf.refine_probabilities(image, odds / odds.sum(0))]
        found = label_maps.load(label_maps.label_path(made.folder / 'sem_seg', image_id))
        assert (found != refined).mean() < 1e-3
        changed += (refined != plain).sum()
    assert changed > 0
    assert made('make_sem_seg', **flags) == 1  # without it they are others


def test_refining_goes_on_where_it_was_stopped(made, counted):
    flags = {'sem_seg_crf': True, 'sem_seg_bg_thres': 'auto'}
    assert made('make_sem_seg', **flags) == 0
    whole = masks_of(made.folder / 'sem_seg')
    label_maps.label_path(made.folder / 'sem_seg', IDS[1]).unlink()
    assert made('make_sem_seg', **flags) == 0
    assert masks_of(made.folder / 'sem_seg') == whole
    assert len(counted) == 3  # no walk again


def test_an_image_that_cannot_be_walked_loses_no_refined_mask(made, capsys):
    activations.activation_path(made.folder / 'amn_cam', IDS[1]).write_bytes(b'damaged')
    assert made('make_sem_seg', sem_seg_crf=True) == 1
    assert '1 of 4 images failed, the others are done' in capsys.readouterr().err
    assert sorted(masks_of(made.folder / 'sem_seg')) == sorted(
        f'{image_id}.png' for image_id in IDS if image_id != IDS[1])


# a threshold chosen without masks

def chosen_by_hand(folder, ids=IDS, background='none'):
    counts = sum(auto_threshold.histogram(walking.class_planes(folder, image_id, background)[1])
                 for image_id in ids)
    return auto_threshold.choose(counts)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('flags', [
    {}, {'sem_seg_from': 'mean', 'sem_seg_background': 'inverse'}], ids=['published', 'better'])
def test_masks_at_auto(made, flags, workers, counted, capsys):
    assert made('make_sem_seg', 'eval_sem_seg', 'analyze_threshold', sem_seg_bg_thres='auto',
                num_workers=workers, **flags) == 0
    threshold = chosen_by_hand(made.folder / 'walked',
                               background=flags.get('sem_seg_background', 'none'))
    assert 0 < threshold < 1
    assert threshold != 0.25
    assert len(counted) == 3  # each image once
    out = capsys.readouterr().out
    assert f'threshold {threshold:.2f}: chosen without ground truth (cross entropy, 4' in out
    stored = record(made.folder / 'sem_seg')
    assert (stored['bg_thres'], stored['bg_thres_from']) == (threshold, 'auto')
    assert not {'bg_thres', 'bg_thres_from'} & record(made.folder / 'walked').keys()
    line = made.scores()['eval_sem_seg']
    assert (line['threshold'], line['threshold_from']) == (threshold, 'auto')
    found = json.loads((made.folder / 'analysis' / 'analysis.json').read_text())['methods']
    assert found['sem_seg']['threshold_from'] == 'auto'
    assert found['sem_seg']['miou_used'] == line['miou']
    assert made('make_sem_seg', sem_seg_bg_thres=threshold, sem_seg_out_dir=made.folder / 'number',
                **flags) == 0
    assert 'bg_thres_from' not in record(made.folder / 'number')
    assert masks_of(made.folder / 'number') == masks_of(made.folder / 'sem_seg')


def test_true_masks_play_no_part_in_the_threshold(made, tmp_path):
    assert made('make_sem_seg', sem_seg_bg_thres='auto') == 0
    tree = shutil.copytree(GOLDEN / 'tree', tmp_path / 'tree')
    shutil.rmtree(tree / 'SegmentationClass')
    assert made('make_sem_seg', sem_seg_bg_thres='auto', voc12_root=tree,
                sem_seg_out_dir=made.folder / 'apart', walked_out_dir=made.folder / 'kept') == 0
    assert masks_of(made.folder / 'apart') == masks_of(made.folder / 'sem_seg')


def test_a_threshold_is_chosen_from_at_most_a_sample(made, monkeypatch, counted):
    monkeypatch.setattr(auto_threshold.sample, '__defaults__', (2,))
    assert made('make_sem_seg', sem_seg_bg_thres='auto') == 0
    assert record(made.folder / 'sem_seg')['bg_thres'] == chosen_by_hand(
        made.folder / 'walked', auto_threshold.sample(IDS))
    assert len(counted) == 3
    assert len(masks_of(made.folder / 'sem_seg')) == 4


def test_masks_go_on_with_their_threshold(made, tmp_path, capsys):
    """Begun with a short list: the same number, although the longer list gives another."""
    tree = shutil.copytree(GOLDEN / 'tree', tmp_path / 'tree')
    (tree / 'ImageSets/Segmentation/one.txt').write_text(IDS[1] + '\n')
    auto = {'sem_seg_bg_thres': 'auto', 'voc12_root': tree}
    assert made('make_sem_seg', infer_list='one', **auto) == 0
    begun = record(made.folder / 'sem_seg')
    assert made('make_sem_seg', **auto) == 0
    assert record(made.folder / 'sem_seg') == begun
    assert 'was begun with chosen thresholds, which stay' in capsys.readouterr().out
    assert begun['bg_thres'] != chosen_by_hand(made.folder / 'walked')
    assert len(masks_of(made.folder / 'sem_seg')) == 4
    assert made('analyze_threshold', **auto) == 0  # the masks' own
    found = json.loads((made.folder / 'analysis' / 'analysis.json').read_text())['methods']
    assert found['sem_seg']['threshold_used'] == begun['bg_thres']
    assert made('make_sem_seg', overwrite=True, **auto) == 0
    assert record(made.folder / 'sem_seg')['bg_thres'] == chosen_by_hand(made.folder / 'walked')
    assert made('make_sem_seg') == 1
    assert 'bg_thres_from: was auto, now not set' in capsys.readouterr().err


def test_a_run_that_was_stopped_while_it_walked_the_sample_goes_on(made, counted):
    assert made('make_sem_seg') == 0  # walks of the same settings, as such a run leaves them
    shutil.rmtree(made.folder / 'sem_seg')
    (made.folder / 'walked' / f'{IDS[2]}.npz').unlink()
    counted.clear()
    assert made('make_sem_seg', sem_seg_bg_thres='auto') == 0
    assert len(counted) == 1


def test_auto_keeps_the_walks_in_their_usual_place():
    args = options.build_parser(STAGES).parse_args(['--work_dir', 'there', '--sem_seg_bg_thres',
                                                    'auto'])
    options.resolve(STAGES, args)
    assert args.walked_out_dir == str(Path('there/result/walked'))
    args = options.build_parser(STAGES).parse_args(['--work_dir', 'there'])
    options.resolve(STAGES, args)
    assert args.walked_out_dir is None


def test_masks_made_elsewhere_have_no_threshold_to_tell(made, capsys):
    masks = GOLDEN / 'expected' / 'sem_seg'
    (made.folder / 'walked').mkdir()
    assert made('eval_sem_seg', sem_seg_out_dir=masks, sem_seg_bg_thres='auto') == 1
    assert f'{masks} has no record of its threshold, and auto does not tell it' in \
        capsys.readouterr().err


def test_two_processes_choose_as_one_does(made, tmp_path):
    flags = {'sem_seg_from': 'mean', 'sem_seg_background': 'inverse', 'sem_seg_bg_thres': 'auto'}
    assert made('make_sem_seg', **flags) == 0
    words = made.command.words('make_sem_seg', **WALK, **flags, walked_out_dir=tmp_path / 'walked')
    words[words.index('--sem_seg_out_dir') + 1] = str(tmp_path / 'two')
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
                           '--standalone', '--', 'run_sample.py', *words], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / 'two') == record(made.folder / 'sem_seg')
    assert masks_of(tmp_path / 'two') == masks_of(made.folder / 'sem_seg')


# the preset

def test_the_preset_differs_from_the_published_one_by_the_walk_alone():
    def told(name):
        args = options.build_parser(STAGES).parse_args(options.with_preset(['--preset', name]))
        options.resolve(STAGES, args)
        return vars(args) | {'preset': None}

    better, published = told('better_masks'), told('published')
    assert {name for name in better if better[name] != published[name]} == {
        'sem_seg_from', 'sem_seg_background', 'sem_seg_power', 'sem_seg_canvas', 'sem_seg_bg_thres'}
    assert better['sem_seg_bg_thres'] == 'auto'


# the script that compares

def compare(made, *words):
    compare_walks.run(compare_walks.parse(list(map(str, (
        *made.command.words(**WALK), '--cache', made.folder / 'cache', '--eval_set', 'train',
        '--resamples', 20, *words)))))
    rows = json.loads((made.folder / 'cache/compare_walks.json').read_text())['rows']
    return {tuple(row[name] for name in compare_walks.Combination._fields
                  if name != 'crf' or row[name]): row for row in rows}


def test_the_rows_of_the_comparison_are_what_the_stages_score(made, capsys):
    rows = compare(made, '--canvas', 0, 48)
    assert len(rows) == 1 + 2 * len(WALK_FROM) * len(WALK_BACKGROUNDS)
    assert next(iter(rows)) == ('amn', 'none', 0, 1.3)
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 3
    for key, name, threshold in ((('amn', 'none', 0, 1.3), 'at_threshold', 0.25),
                                 (('mean', 'inverse', 48, 1.0), 'auto', 'auto'),
                                 (('mean', 'inverse', 48, 1.0), 'best', None)):
        flags = dict(zip(('sem_seg_from', 'sem_seg_background', 'sem_seg_canvas',
                          'sem_seg_power'), key, strict=True))
        assert made('make_sem_seg', 'eval_sem_seg', overwrite=True, **flags,
                    sem_seg_bg_thres=threshold or rows[key]['best_threshold']) == 0
        line = made.scores()['eval_sem_seg']
        assert rows[key][name] == pytest.approx(line['miou'], abs=1e-6)
        if threshold == 'auto':
            assert rows[key]['auto_threshold'] == line['threshold']


def test_refined_rows_are_what_the_stage_refines(made):
    rows = compare(made, '--canvas', 0, '--crf')
    flags = {'sem_seg_from': 'mean', 'sem_seg_background': 'inverse', 'sem_seg_canvas': 0,
             'sem_seg_power': 1.0, 'sem_seg_bg_thres': 'auto'}
    for key, more in ((('mean', 'inverse', 0, 1.0), {}),
                      (('mean', 'inverse', 0, 1.0, True), {'sem_seg_crf': True})):
        assert made('make_sem_seg', 'eval_sem_seg', overwrite=True, **flags, **more) == 0
        assert rows[key]['auto'] == pytest.approx(made.scores()['eval_sem_seg']['miou'], abs=1e-6)
    assert rows[key]['auto'] != rows[key[:4]]['auto']
    assert len(rows) == 2 * (1 + len(WALK_FROM) * len(WALK_BACKGROUNDS))


def test_the_comparison_walks_nothing_twice(made, counted):
    first = compare(made, '--canvas', 0)
    assert len(counted) == 4
    assert compare(made, '--canvas', 0) == first
    assert len(counted) == 4
    assert len(compare(made, '--canvas', 0, '--power', 1, 2)) == 2 * len(first) - 1
    assert len(counted) == 8  # the new power alone


def test_halves_and_intervals_by_hand():
    """Two images to confirm on, one right and one wrong: every draw holds them 2, 1 or 0 times."""
    def image(true, strongest, activation):
        return compare_walks.Counted(*scores.truth_and_activation(
            np.array([true], np.uint8), np.array([strongest]),
            np.array([[activation]], np.float32), 2, compare_walks.GRID), None)

    right, wrong = image([1, 0], 0, [0.9, 0.1]), image([1, 0], 0, [0.1, 0.9])
    at_half = compare_walks.confusions_at([right, wrong], 0.5, 2).reshape(2, 3, 3)
    assert at_half[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert at_half[1].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    measured = [compare_walks.Measured([right, wrong], 0.5)]
    draws = np.array([[2, 0], [0, 2], [1, 1]])
    found = compare_walks.confirmed(measured, [0.5], np.array([True, True]), draws, 2)
    assert found.tolist() == pytest.approx([1 / 3, 1, 0, 1 / 3])
    row = compare_walks.row_of(compare_walks.Combination('amn', 'none', 0, 1.0), measured, 0.0,
                               np.array([False, True]), np.array([[1], [1]]), np.zeros(3), 2)
    assert (row['choose'], row['confirm'], row['gain']) == (1, 0, 0)
    assert row['best'] == pytest.approx(1 / 3)
    assert row['at_threshold'] == pytest.approx(0.25)  # all foreground
    assert row['deviation'] is None
