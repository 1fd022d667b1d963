"""Thresholds chosen without ground truth: each way on histograms worked out by hand, then through
the command.
"""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import run_sample
from misc.command import options
from misc.files import activations, label_maps
from misc.pyutils import UserError
from misc.score import auto_threshold, scores
from step.pipeline import STAGES
from tests.conftest import GOLDEN, Command
from tests.test_folder import lay_out
from tests.tiny import QUICK
from voc12.dataloader import PALETTE

IDS = ['2007_000001', '2007_000002', '2007_000003', '2007_000004']
ROOT = Path(__file__).resolve().parent.parent


def counts_of(**bins):
    """A histogram from b10=300: 300 pixels of activation 0.09 to 0.10."""
    counts = np.zeros(102, np.int64)
    for name, pixels in bins.items():
        counts[int(name[1:])] = pixels
    return counts


@pytest.mark.parametrize(('way', 'threshold'), [
    ('cross entropy', 0.49),  # 0.10 to 0.89 part the modes equally well; the middle of these
    ('Otsu', 0.49),
    # the line falls from 300 at 0.10 to 100 at 0.90; the histogram is 0 between
    ('triangle', 0.11),
    ('stability', 0.49)])  # 0.15 to 0.84 change nothing when moved by 0.05
def test_two_modes(way, threshold):
    assert auto_threshold.choose(counts_of(b10=300, b90=100), way) == threshold


def test_cross_entropy_by_hand():
    """Activations 0, 0.195 and 0.795; cut below 0.195 or above it."""
    counts = counts_of(b0=60, b20=30, b80=10)
    low, high = (30 * 0.195 + 10 * 0.795) / 40, (30 * 0.195) / 90
    values = auto_threshold.cross_entropy(counts)
    assert values[0] == pytest.approx(40 * low * np.log(low))  # the side below is 0 throughout
    assert values[20] == pytest.approx(90 * high * np.log(high) + 10 * 0.795 * np.log(0.795))
    assert np.isnan(values[80:]).all()
    assert len(set(values[20:80])) == 1


def test_otsu_by_hand():
    values = auto_threshold.otsu(counts_of(b0=60, b20=30, b80=10))
    assert values[0] == pytest.approx(60 * 40 * ((30 * 0.195 + 10 * 0.795) / 40) ** 2)
    assert values[20] == pytest.approx(90 * 10 * (0.795 - 30 * 0.195 / 90) ** 2)
    assert np.isnan(values[80:]).all()


def test_criteria_are_those_of_the_pixels():
    """Written out over pixels, whose activations are the bins' middles."""
    pixels = (np.random.default_rng(0).beta(0.5, 2, 5000) * 100).astype(int) / 100 + 0.005
    counts = auto_threshold.histogram(pixels.reshape(1, 50, 100))
    for position in (3, 16, 40, 77):
        below, above = pixels[pixels <= position / 100], pixels[pixels > position / 100]
        entropy = -sum(side.sum() * np.log(side.mean()) for side in (below, above))
        assert -auto_threshold.cross_entropy(counts)[position] == pytest.approx(entropy)
        between = len(below) * len(above) * (above.mean() - below.mean()) ** 2
        assert auto_threshold.otsu(counts)[position] == pytest.approx(between)
        wide, narrow = (pixels > (position + step) / 100 for step in (-5, 5))
        if position >= 5:
            assert (auto_threshold.stability(counts)[position]
                    == pytest.approx((wide & narrow).sum() / (wide | narrow).sum()))


def test_triangle_takes_the_longer_tail():
    assert auto_threshold.choose(counts_of(b5=1, b60=10, b80=100, b85=60), 'triangle') == 0.79
    assert auto_threshold.choose(counts_of(b50=1, b51=1), 'triangle') == 0.50


def test_seed_thresholds_part_three_levels():
    # middles of 30..79, 10..29
    assert auto_threshold.seed_thresholds(counts_of(b10=30, b30=20, b80=10)) == (0.54, 0.19)
    assert auto_threshold.seed_thresholds(counts_of(b0=30, b1=20, b2=10)) == (0.01, 0.0)


def test_seed_thresholds_are_the_best_of_all_pairs():
    pixels = (np.random.default_rng(1).beta(0.5, 2, 300) * 100).astype(int) / 100 + 0.005

    def entropy(low, high):
        sides = [pixels[pixels <= low], pixels[(pixels > low) & (pixels <= high)],
                 pixels[pixels > high]]
        return (-sum(side.sum() * np.log(side.mean()) for side in sides) if all(map(len, sides))
                else np.inf)

    fg_thres, bg_thres = auto_threshold.seed_thresholds(
        auto_threshold.histogram(pixels.reshape(1, 1, -1)))
    least = min(entropy(low, high) for low in scores.GRID for high in scores.GRID if low < high)
    assert entropy(bg_thres, fg_thres) == pytest.approx(least)


@pytest.mark.parametrize(('counts', 'told'), [
    (counts_of(b1=4, b90=9), 'two levels'), (counts_of(b0=9), 'all activations are the same'),
    (counts_of(), 'no image shows a class')])
def test_no_seed_thresholds_to_choose(counts, told):
    with pytest.raises(UserError, match=told):
        auto_threshold.seed_thresholds(counts)


def test_histogram_counts_thresholds_passed_by_the_strongest():
    planes = np.array([[[0.0, 0.01, 0.25, 1.0]], [[0.0, 0.02, 0.2501, 0.3]]], np.float32)
    counts = auto_threshold.histogram(planes)
    assert {int(k): int(counts[k]) for k in np.flatnonzero(counts)} == {0: 1, 2: 1, 26: 1, 100: 1}
    for position in (0, 1, 2, 25, 99, 100):
        assert counts[position + 1:].sum() == (planes.max(0)
                                               > np.float32(scores.GRID[position])).sum()
    assert not auto_threshold.histogram(planes[:0]).any()


@pytest.mark.parametrize(('counts', 'told'), [
    (counts_of(), 'no image shows a class'), (counts_of(b0=9), 'all activations are the same'),
    (counts_of(b100=9), 'all activations are the same')])
def test_nothing_to_choose(counts, told):
    for way in auto_threshold.WAYS:
        with pytest.raises(UserError, match=told):
            auto_threshold.choose(counts, way)


@pytest.mark.parametrize('way', auto_threshold.WAYS)
def test_any_two_levels_can_be_parted(way):
    for low, high in ((0, 1), (0, 100), (0, 101), (99, 100), (100, 101)):
        threshold = round(100 * auto_threshold.choose(counts_of(**{f'b{low}': 3, f'b{high}': 2}),
                                                      way))
        assert low <= threshold <= high - 1 or (way == 'stability' and high - low
                                                < 2 * auto_threshold.STEP)


def test_sample_is_of_the_images_not_of_the_list():
    ids = [f'{number:06d}' for number in range(3000)]
    chosen = auto_threshold.sample(ids)
    assert len(set(chosen)) == auto_threshold.LARGEST_SAMPLE
    assert auto_threshold.sample(ids[::-1]) == chosen
    assert 400 < sum(int(image_id) < 1500 for image_id in chosen) < 600
    # more images push some out, no more
    assert set(auto_threshold.sample(ids[:2000], 10)) - set(chosen) == set()
    assert sorted(auto_threshold.sample(IDS)) == IDS


def test_crf_agreement(monkeypatch):
    planes = np.array([[[0.9, 0.5, 0.12, 0.0]]], np.float32)
    seen = {}

    def crf(image, labelings, n_labels):
        seen['labelings'], seen['n_labels'] = labelings, n_labels
        return [np.array([[1, 1, 0, 0]])] * len(labelings)

    monkeypatch.setattr(auto_threshold, 'dense_crf', crf)
    values = auto_threshold.crf_agreement(np.zeros((1, 4, 3), np.uint8), planes)
    assert seen['n_labels'] == 2
    assert len(seen['labelings']) == len(auto_threshold.CRF_GRID)
    three_one, same, one = (1 / 2 + 2 / 3) / 2, 1.0, (2 / 3 + 1 / 2) / 2
    # below 0.12, below 0.5, above
    assert values == pytest.approx([three_one] * 2 + [same] * 7 + [one] * 6)
    assert auto_threshold.best(values, np.array(auto_threshold.CRF_GRID)) == 0.3  # of 0.15 to 0.45


# through the command

@pytest.fixture
def made(command, monkeypatch):
    """The golden activations of the authors' code in the folders of the command; seeds without a
    CRF, which is slow.
    """
    monkeypatch.setattr('misc.method.seeds.dense_crf', lambda image, labelings, n_labels: labelings)
    for name in ('cam', 'amn_cam'):
        for image_id in IDS:
            golden = np.load(GOLDEN / 'expected' / f'{image_id}_activations.npz')
            activations.save(command.folder / name, image_id, activations.Activation(
                *(golden[f'{name}{part}'].astype(kind) for part, kind in (
                    ('_keys', np.int64), ('', np.float32), ('_high_res', np.float32)))))
    return command


def expected_counts(folder, ids=IDS):
    """Pixel by pixel, of the images with a class."""
    values = [activations.load(folder, image_id).without_background() for image_id in ids]
    values = np.concatenate([value.high_res.max(0).ravel() for value in values if len(value.keys)])
    return np.array([(np.sum([values > np.float32(t) for t in scores.GRID], axis=0) == k).sum()
                     for k in range(102)])


def record(folder):
    return json.loads((folder / '_settings.json').read_text())


@pytest.mark.parametrize('workers', [0, 2])
def test_scores_at_auto(made, workers, capsys):
    expected = {stage: auto_threshold.choose(expected_counts(made.folder / name))
                for stage, name in (('eval_cam', 'cam'), ('eval_amn_cam', 'amn_cam'))}
    assert made('eval_cam', 'eval_amn_cam', cam_eval_thres='auto', num_workers=workers) == 0
    for stage, threshold in expected.items():
        line = made.scores()[stage]
        assert (line['threshold'], line['threshold_from']) == (threshold, 'auto')
    out = capsys.readouterr().out
    assert (f'threshold {expected["eval_cam"]:.2f}: chosen without ground truth (cross entropy, 4 '
            f'images)' in out)
    assert f'threshold {expected["eval_amn_cam"]:.2f} (auto); best' in out
    assert made('eval_cam', eval_cam_thres=expected['eval_cam']) == 0
    by_number = made.scores()['eval_cam']
    assert 'threshold_from' not in by_number
    assert made('eval_cam', eval_cam_thres='auto') == 0
    assert made.scores()['eval_cam']['miou'] == by_number['miou']


def test_masks_play_no_part(made, tree):
    assert made('eval_cam', cam_eval_thres='auto') == 0
    first = made.scores()['eval_cam']['threshold']
    for path in (tree / 'SegmentationClass').iterdir():
        path.chmod(0o644)
        label_maps.save(path, label_maps.load(path)[::-1, ::-1], PALETTE)
    assert made('eval_cam', cam_eval_thres='auto') == 0
    assert made.scores()['eval_cam']['threshold'] == first


def test_order_of_the_list_does_not_matter(made):
    first = auto_threshold.pooled_histogram(made.folder / 'cam', IDS, '', 0)
    assert np.array_equal(auto_threshold.pooled_histogram(made.folder / 'cam', IDS[::-1], '', 2),
                          first)
    assert np.array_equal(first, expected_counts(made.folder / 'cam'))
    with_class = [image_id for image_id in IDS
                  if len(activations.load(made.folder / 'cam', image_id).keys)]
    assert np.array_equal(auto_threshold.pooled_histogram(made.folder / 'cam', with_class[:1], '',
                                                          0),
                          expected_counts(made.folder / 'cam', with_class[:1]))


@pytest.mark.parametrize('workers', [0, 2])
def test_seeds_at_auto(made, workers):
    assert made('cam_to_ir_label', 'eval_ir_label', 'amn_cam_to_ir_label', conf_fg_thres='auto',
                conf_bg_thres='auto', num_workers=workers) == 0
    for name, source in (('ir_label', 'cam'), ('amn_ir_label', 'amn_cam')):
        fg_thres, bg_thres = auto_threshold.seed_thresholds(expected_counts(made.folder / source))
        stored = record(made.folder / name)
        assert (stored['fg_thres'], stored['bg_thres']) == (fg_thres, bg_thres)
        assert stored['fg_thres_from'] == stored['bg_thres_from'] == 'auto'
    stored, line = record(made.folder / 'ir_label'), made.scores()['eval_ir_label']
    assert (line['fg_threshold'], line['bg_threshold']) == (stored['fg_thres'], stored['bg_thres'])
    assert line['fg_threshold_from'] == line['bg_threshold_from'] == 'auto'
    by_number = Command(made.tree, made.folder.parent / 'by_number')
    assert by_number('cam_to_ir_label', cam_out_dir=made.folder / 'cam',
                     conf_fg_thres=stored['fg_thres'], conf_bg_thres=stored['bg_thres']) == 0
    assert 'fg_thres_from' not in record(by_number.folder / 'ir_label')
    for image_id in IDS:
        assert (made.folder / 'ir_label' / f'{image_id}.png').read_bytes() == \
            (by_number.folder / 'ir_label' / f'{image_id}.png').read_bytes()


@pytest.mark.parametrize(('flags', 'given', 'chosen'), [
    ({'cam_conf_fg_thres': 'auto', 'conf_bg_thres': 0.01}, ('bg', 0.01), 'fg'),
    ({'conf_fg_thres': 0.9, 'cam_conf_bg_thres': 'auto'}, ('fg', 0.9), 'bg')])
def test_one_seed_threshold_at_auto(made, flags, given, chosen):
    assert made('cam_to_ir_label', 'eval_ir_label', **flags) == 0
    stored, line = record(made.folder / 'ir_label'), made.scores()['eval_ir_label']
    assert stored[f'{given[0]}_thres'] == given[1]
    assert f'{given[0]}_thres_from' not in stored
    expected = dict(zip(('fg', 'bg'),
                        auto_threshold.seed_thresholds(expected_counts(made.folder / 'cam')),
                        strict=True))
    assert stored[f'{chosen}_thres'] == line[f'{chosen}_threshold'] == expected[chosen]
    assert line[f'{chosen}_threshold_from'] == 'auto'
    assert f'{given[0]}_threshold_from' not in line


def test_a_number_above_what_is_chosen_is_refused(made, capsys):
    assert made('cam_to_ir_label', conf_fg_thres='auto', conf_bg_thres=0.99) == 1
    assert ('ir_label: the background threshold 0.99 is above the foreground threshold'
            in capsys.readouterr().err)
    assert not (made.folder / 'ir_label').exists()


def test_a_folder_goes_on_with_its_thresholds(made, tree, capsys):
    """Stopped on the way, with a longer list later: the same numbers, although the longer list
    alone gives others.
    """
    auto = {'conf_fg_thres': 'auto', 'conf_bg_thres': 'auto'}
    (tree / 'ImageSets/Segmentation/one.txt').write_text(IDS[0] + '\n')
    assert made('cam_to_ir_label', train_list='one', **auto) == 0
    begun = record(made.folder / 'ir_label')
    assert (begun['fg_thres'],
            begun['bg_thres']) != auto_threshold.seed_thresholds(expected_counts(made.folder /
                                                                                 'cam'))
    assert made('cam_to_ir_label', **auto) == 0
    assert record(made.folder / 'ir_label') == begun
    assert 'was begun with chosen thresholds, which stay' in capsys.readouterr().out
    assert made('cam_to_ir_label', overwrite=True, **auto) == 0
    anew = record(made.folder / 'ir_label')
    assert (anew['fg_thres'],
            anew['bg_thres']) == auto_threshold.seed_thresholds(expected_counts(made.folder /
                                                                                'cam'))
    assert made('cam_to_ir_label') == 1
    assert (f'fg_thres: was {anew["fg_thres"]}, now 0.3; fg_thres_from: was auto, now not set'
            in capsys.readouterr().err)


def test_other_activations_are_not_taken_for_the_same(made, capsys):
    auto = {'conf_fg_thres': 'auto', 'conf_bg_thres': 'auto'}
    assert made('cam_to_ir_label', **auto) == 0
    (made.folder / 'cam' / '_settings.json').write_text('{"stage": "make_cam"}')
    assert made('cam_to_ir_label', **auto) == 1
    assert 'activations: was unknown, now' in capsys.readouterr().err


def test_activations_that_are_not_all_there_give_no_threshold(made, capsys):
    (made.folder / 'cam' / f'{IDS[2]}.npz').unlink()
    assert made('eval_cam', cam_eval_thres='auto') == 1
    assert (f'{IDS[2]}.npz: no such activation; run --make_cam_pass True first'
            in capsys.readouterr().err)
    assert made('cam_to_ir_label', conf_fg_thres='auto') == 1
    assert (f'{IDS[2]}.npz: no such activation; run --make_cam_pass True first'
            in capsys.readouterr().err)
    assert not (made.folder / 'ir_label').exists()


def test_seeds_made_elsewhere_have_no_thresholds_to_tell(made, capsys):
    seeds = GOLDEN / 'expected' / 'ir_label'
    assert made('eval_ir_label', ir_label_out_dir=seeds, conf_fg_thres='auto') == 1
    assert (f'{seeds} has no record of its thresholds, and auto does not tell them'
            in capsys.readouterr().err)


def test_small_network_from_training_to_seeds(command):
    assert command('train_cam', 'make_cam', 'eval_cam', 'cam_to_ir_label', 'eval_ir_label',
                   'train_amn', cam_eval_thres='auto', conf_fg_thres='auto', conf_bg_thres='auto',
                   **QUICK) == 0
    lines = command.scores()
    assert lines['eval_cam']['threshold_from'] == 'auto'
    assert 0 <= lines['eval_ir_label']['bg_threshold'] < lines['eval_ir_label']['fg_threshold'] < 1


def test_two_processes_choose_as_one_does(made, tmp_path):
    flags = {'conf_fg_thres': 'auto', 'conf_bg_thres': 'auto', 'cam_eval_thres': 'auto'}
    assert made('eval_cam', 'cam_to_ir_label', **flags) == 0
    apart = Command(made.tree, tmp_path / 'two')
    words = apart.words('eval_cam', 'cam_to_ir_label', cam_out_dir=made.folder / 'cam', **flags)
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
                           '--standalone', '--',
                           'run_sample.py', *words], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    assert record(apart.folder / 'ir_label') == record(made.folder / 'ir_label')
    assert {**apart.scores()['eval_cam'], 'time': ''} == {**made.scores()['eval_cam'], 'time': ''}


@pytest.mark.parametrize('word', ['Auto', 'otsu', '1.5', 'nan', '-0.1'])
def test_what_a_threshold_may_not_be(word, capsys):
    with pytest.raises(SystemExit):
        run_sample.main(['--eval_cam_pass', '--cam_eval_thres', word])
    assert '--cam_eval_thres' in capsys.readouterr().err


def test_own_flag_before_auto():
    args = options.build_parser(STAGES).parse_args(
        ['--conf_fg_thres', 'auto', '--cam_conf_fg_thres', '0.3', '--conf_bg_thres', '0.6'])
    with pytest.raises(UserError, match='CAM seeds: the background threshold 0.6 is above the '
                                        'foreground threshold 0.3'):
        options.resolve_settings(STAGES, args)
    args = options.build_parser(STAGES).parse_args(['--cam_eval_thres', 'auto',
                                                    '--eval_amn_cam_thres', '0.2'])
    options.resolve_settings(STAGES, args)
    assert (args.eval_cam_thres, args.eval_amn_cam_thres) == ('auto', 0.2)


def test_compare_thresholds(made):
    done = subprocess.run([sys.executable, 'script/compare_thresholds.py', '--voc12_root',
                           made.tree, '--activations',
                           made.folder / 'cam', '--num_workers', '0', '--crf_images', '1'],
                          cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    ways = ('best,', 'cross', 'Otsu', 'triangle', 'stability', 'CRF')
    assert [row[0] for row in rows if row and row[0] in ways] == list(ways)
    assert made('eval_cam', cam_eval_thres='auto') == 0
    line = made.scores()['eval_cam']
    row = next(row for row in rows if row and row[0] == 'cross')
    assert row[3:6] == [f'{line["threshold"]:.2f}', f'{100 * line["miou"]:.1f}',
                        f'{100 * (line["best_miou"] - line["miou"]):.1f}']


def test_compare_thresholds_on_ones_own_photographs(tmp_path):
    root = lay_out(tmp_path / 'own', 'a,cat\n', masks=['a'])
    plane = np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 6, 8)
    activations.save(tmp_path / 'cam', 'a',
                     activations.Activation(np.array([0]), plane[:, :2, :2], plane))
    done = subprocess.run([sys.executable, 'script/compare_thresholds.py', '--dataset', 'folder',
                           '--data_root', root,
                           '--activations', tmp_path / 'cam', '--num_workers', '0', '--crf_images',
                           '0'],
                          cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    best = next(line.split() for line in done.stdout.splitlines()
                if line.startswith('best, by the masks'))
    assert best[4:] == ['1.00', '100.0', '0.0']  # its mask is all background
