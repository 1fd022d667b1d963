"""All stages one after the other: what they leave, running again, going on, images and class lists
of every kind.
"""
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import run_sample
from misc import inference, torchutils, training
from misc.command import options
from misc.contract.settings import IrnTraining
from misc.data import datasets
from misc.files import activations, label_maps, weights
from misc.method import maps, objectives
from misc.method.objectives import Learner, Objective
from misc.pyutils import UserError
from misc.score.scores import read_scores
from net import resnet50_amn
from step import train_amn, train_cam, train_irn
from step.pipeline import STAGES
from tests.conftest import GOLDEN, Command, job_of, told
from tests.tiny import QUICK
from voc12.dataloader import VOC12

# has tests of its own
ALL = [stage.name for stage in STAGES if not stage.name.startswith('analyze')]
IDS = [f'2007_00000{number}' for number in range(1, 5)]


def files(folder):
    """Content of every file that a run leaves, but the log and the times in the scores and in the
    report's page.
    """
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*'))
            if path.is_file() and path.name not in ('run.log', 'scores.jsonl', 'index.html')
            and not path.name.endswith('.lock')}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Every stage through one command, from random weights."""
    command = Command(GOLDEN / 'tree', tmp_path_factory.mktemp('whole'))
    assert command(*ALL, **QUICK) == 0
    return command


def copy_of(command, folder, tree=None):
    """A run that a test may go on with."""
    return Command(tree or command.tree, Path(shutil.copytree(command.folder, folder)))


def test_all_stages_leave_all_files(whole):
    expected = {f'{name}.{ending}' for name in ('cam', 'amn', 'irn', 'seg')
                for ending in ('pth', 'json', 'inputs.jsonl', 'losses.jsonl')}
    for folder, ending in (('cam', 'npz'), ('ir_label', 'png'), ('amn_cam', 'npz'),
                           ('amn_ir_label', 'png'), ('sem_seg', 'png'), ('ins_seg', 'npz'),
                           ('seg', 'png')):
        expected |= {f'{folder}/{image_id}.{ending}' for image_id in IDS} | {
            f'{folder}/_{name}' for name in ('settings.json', 'inputs.jsonl')}
        if 'cam' not in folder:
            expected.add(f'{folder}/classes.txt')
    expected |= {'sheet.png', 'report/_settings.json'}
    expected |= {f'report/data/{number}.js' for number in range(4)} | {
        f'report/images/{number}_{name}' for number in range(4)
        for name in ('image.jpg', 'truth.png', 'ir_label.png', 'amn_ir_label.png', 'sem_seg.png',
                     'seg.png', 'ins_seg.png')}
    assert files(whole.folder).keys() == expected
    assert list(whole.scores()) == ['eval_cam', 'eval_ir_label', 'eval_amn_cam',
                                    'eval_amn_ir_label', 'eval_sem_seg', 'eval_ins_seg', 'eval_seg']
    for image_id in IDS:
        with Image.open(whole.tree / 'JPEGImages' / f'{image_id}.jpg') as picture:
            hw = picture.height, picture.width
        present = np.flatnonzero(VOC12(whole.tree).labels(image_id))
        for folder, extra in (('cam', 0), ('amn_cam', 1)):
            stored = activations.load(whole.folder / folder, image_id)
            assert stored.keys.tolist() == present.tolist()
            assert stored.high_res.shape == (len(present) + extra, *hw)
            assert stored.strided.shape == (len(present) + extra, *maps.strided_hw(hw))
        for folder in ('ir_label', 'amn_ir_label', 'sem_seg'):
            label_map = label_maps.load(whole.folder / folder / f'{image_id}.png')
            assert label_map.shape == hw
            assert set(np.unique(label_map)) <= {0, 255, *(present + 1)}


def test_the_same_seed_gives_the_same_files_with_workers_too(whole, tmp_path):
    again = Command(whole.tree, tmp_path / 'again')
    assert again(*ALL, num_workers=2, **QUICK) == 0
    ours, theirs = files(whole.folder), files(again.folder)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    without_time = [{stage: {key: value for key, value in score.items() if key != 'time'}
                     for stage, score in command.scores().items()} for command in (whole, again)]
    assert without_time[0] == without_time[1]


def test_work_without_a_network_takes_all_cores(whole, tmp_path, monkeypatch):
    command, asked, read_ahead = copy_of(whole, tmp_path / 'copy'), [], datasets.read_ahead
    monkeypatch.setattr(torchutils, 'cores', lambda: 6)
    monkeypatch.setattr(datasets, 'read_ahead', lambda read, requests, workers, **options:
                        asked.append(workers) or read_ahead(read, requests, 0, **options))
    words = command.words(**QUICK, overwrite=True, seg_crf=True,
                          sem_seg_bg_thres='auto', walked_out_dir=command.folder / 'walked')
    del words[(place := words.index('--num_workers')):place + 2]
    seen = {}
    for stage in STAGES:
        assert run_sample.main([*words, f'--{stage.name}_pass']) == 0
        seen[stage.name], asked = set(asked), asked[:0]
    with_network = {'train_cam', 'train_amn', 'train_irn', 'train_seg', 'make_cam', 'make_amn_cam',
                    'make_ins_seg'}
    assert seen == {name: {3, 6} if name in ('make_sem_seg', 'make_seg') else
                    {3} if name in with_network else set() if name == 'draw_sheet' else {6}
                    for name in seen}


def test_another_seed_gives_other_weights(whole, tmp_path):
    other = Command(whole.tree, tmp_path / 'other')
    assert other('train_cam', seed=1, **QUICK) == 0
    assert (other.folder / 'cam.pth').read_bytes() != (whole.folder / 'cam.pth').read_bytes()


def test_a_second_run_makes_nothing_anew(whole, tmp_path):
    command = copy_of(whole, tmp_path / 'copy')
    before = {path: path.stat().st_mtime_ns for path in command.folder.rglob('*') if path.is_file()}
    assert command(*ALL, **QUICK) == 0
    changed = {path.name for path in command.folder.rglob('*') if path.is_file()
               and not {'report', 'sheet.png'} & {*path.parts}
               and path.suffix != '.lock' and path.stat().st_mtime_ns != before.get(path)}
    assert changed == {'run.log', 'scores.jsonl'}


@pytest.mark.parametrize(('stage', 'flags', 'told'), [
    ('train_cam', {'cam_learning_rate': 0.2}, 'learning_rate: was 0.1, now 0.2'),
    ('train_amn', {'eps': 0.1}, 'eps: was 0.4, now 0.1'), ('train_irn', {'seed': 3}, 'seed: was 0, '
                                                                                     'now 3'),
    ('train_seg', {'seg_loss': 'ce'}, 'loss: was balanced, now ce'),
    ('make_seg', {'seg_flip': True}, 'flip: was False, now True'),
    ('make_cam', {'cam_scales': [1.0]}, r'scales: was [1.0, 0.5], now [1.0]'),
    ('cam_to_ir_label', {'conf_fg_thres': 0.5}, 'fg_thres: was 0.3, now 0.5'),
    ('make_sem_seg', {'beta': 3}, 'beta: was 10.0, now 3.0')])
def test_other_settings_are_refused_by_name(whole, tmp_path, capsys, stage, flags, told):
    command = copy_of(whole, tmp_path / 'copy')
    before = files(command.folder)
    assert command(stage, **{**QUICK, **flags}) == 1
    assert told in (line := capsys.readouterr().err.splitlines()[-1])
    assert '--overwrite' in line
    assert files(command.folder) == before


def test_amn_without_its_parts(whole, tmp_path, capsys):
    """Trained and used without conditioning and balance; the flag must be the same in both stages.
    """
    command = copy_of(whole, tmp_path / 'copy')
    less = QUICK | {'amn_label_conditioning': False, 'amn_balanced': False, 'eps': 0,
                    'overwrite': True}
    assert command('train_amn', 'make_amn_cam', 'eval_amn_cam', **less) == 0
    assert not any(key.startswith('label_enc')
                   for key in weights.read_state(command.folder / 'amn.pth'))
    assert activations.load(command.folder / 'amn_cam', IDS[0]).high_res.max() > 0
    assert command('make_amn_cam', **QUICK, overwrite=True) == 1
    assert 'label_enc.weight' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('batch', [2, 3])
def test_images_in_batches_of_like_size(odd_tree, whole, tmp_path, batch):
    """Odd images (several sizes, one without a class): the same to rounding as one after the other.
    """
    made = {}
    for size in (1, batch):
        command = made[size] = Command(odd_tree, tmp_path / f'by_{size}')
        command.folder.mkdir()
        for name in ('cam', 'amn'):
            shutil.copy(whole.folder / f'{name}.pth', command.folder / f'{name}.pth')
        assert command('make_cam', 'cam_to_ir_label', 'make_amn_cam', **QUICK,
                       inference_batch_size=size) == 0
    for path in sorted(made[1].folder.glob('*cam/*.npz')):
        one, many = (activations.load(command.folder / path.parent.name, path.stem)
                     for command in made.values())
        assert one.keys.tolist() == many.keys.tolist()
        for ours, theirs in zip(one[1:], many[1:], strict=True):
            assert np.abs(ours - theirs).max(initial=0) <= 1e-5


def test_batches_wait_for_their_like_but_not_for_long():
    items = [(str(number), kind) for number, kind in enumerate('abacabaddddddddddddef')]
    batches = list(inference._batches(iter(items), 2, lambda kind: kind))
    assert sorted(sum(batches, [])) == sorted(items)
    assert all(len({kind for _, kind in batch}) == 1 and len(batch) <= 2 for batch in batches)
    assert [[name for name, _ in batch] for batch in batches[:3]] == [['0', '2'], ['1', '5'],
                                                                      ['4', '6']]
    waited = [number for number, batch in enumerate(batches) if batch == [('3', 'c')]]
    assert waited == [len(batches) - 3]  # nothing was in its way: with what is left at the end
    many = [(str(number), number) for number in range(20)]
    assert [batch for batch in inference._batches(iter(many), 2,
                                                  lambda kind: kind)][0] == [('0', 0)]


def test_repeats_with_other_seeds(whole, tmp_path, capsys):
    """Outputs of the chosen stages in a folder a seed, inputs from where they are; the same as runs
    of their own.
    """
    command = copy_of(whole, tmp_path / 'copy')
    stages = ['train_irn', 'make_sem_seg', 'eval_sem_seg', 'eval_cam']
    before = files(command.folder)
    assert command(*stages, **QUICK, repeat=2, seed=4, work_dir=command.folder) == 0
    out = capsys.readouterr().out
    after = files(command.folder)
    assert {name for name in after if name not in before} >= {
        f'seed_{seed}/{name}' for seed in (4, 5) for name in ('irn.pth', 'sem_seg/_settings.json',
                                                              f'sem_seg/{IDS[0]}.png')}
    assert {name: after[name] for name in before} == before
    assert after['seed_4/irn.pth'] != after['seed_5/irn.pth']
    scores = [read_scores(command.folder / f'seed_{seed}' / 'scores.jsonl') for seed in (4, 5)]
    values = [100 * score['eval_sem_seg']['miou'] for score in scores]
    cam, row = ([line.split() for line in out.splitlines() if line.startswith(title)][-1]
                for title in ('CAM seed  ', 'pseudo-mask  '))
    assert row[3] == '±'
    assert [float(row[cell]) for cell in (2, 4, -2, -1)] == pytest.approx(
        [sum(values) / 2, abs(values[0] - values[1]) / 2 ** 0.5, *values], abs=0.051)
    assert '±' not in cam  # the same activations, scored twice

    alone = copy_of(whole, tmp_path / 'alone')
    assert alone(*stages, **QUICK, seed=5, overwrite=True) == 0
    assert files(alone.folder)['irn.pth'] == after['seed_5/irn.pth']


def test_what_does_not_change_the_files_may_change(whole, tmp_path):
    """Lists of inference stages, workers, paths."""
    command = copy_of(whole, tmp_path / 'copy')
    (tmp_path / 'two.txt').write_text('\n'.join(IDS[:2]))
    assert command('make_cam', 'make_sem_seg', train_list=tmp_path / 'two.txt',
                   infer_list=tmp_path / 'two.txt', **QUICK) == 0


def test_overwrite_trains_anew(whole, tmp_path):
    command = copy_of(whole, tmp_path / 'copy')
    assert command('train_cam', seed=3, overwrite=True, **QUICK) == 0
    assert (command.folder / 'cam.pth').read_bytes() != (whole.folder / 'cam.pth').read_bytes()
    assert json.loads((command.folder / 'cam.json').read_text())['seed'] == 3


# going on

class Stop(Exception):
    pass


@pytest.mark.parametrize(('stage', 'module', 'hook'), [
    ('train_cam', train_cam, 'log_validation_loss'), ('train_amn', train_amn, 'log_score'),
    ('train_irn', train_irn, 'store_mean_displacement')])
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(
        whole, tmp_path, monkeypatch, stage, module, hook):
    flags = QUICK | {f'{name}_num_epoches': 2 for name in ('cam', 'amn', 'irn')}
    name = stage.removeprefix('train_')
    runs = [copy_of(whole, tmp_path / which) for which in ('undisturbed', 'interrupted')]
    for command in runs:
        for ending in ('pth', 'json'):
            (command.folder / f'{name}.{ending}').unlink()
    assert runs[0](stage, **flags) == 0

    def stop(*arguments):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(module, hook, stop)
        with pytest.raises(Stop):
            runs[1](stage, **flags)
    folder = runs[1].folder
    assert not (folder / f'{name}.pth').exists()
    stored = torch.load(folder / f'{name}.ckpt', weights_only=True)
    assert stored['step'] == {'train_irn': 4}.get(stage, 2)  # IRN's hook runs after the last epoch
    assert runs[1](stage, **flags) == 0
    assert 'going on from' in (folder / 'run.log').read_text()
    assert not (folder / f'{name}.ckpt').exists()
    assert (folder / f'{name}.pth').read_bytes() == (runs[0].folder / f'{name}.pth').read_bytes()


def test_an_unfinished_training_with_other_settings_is_refused(tmp_path, capsys, monkeypatch):
    def stop(*arguments):
        raise Stop

    command = Command(GOLDEN / 'tree', tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train_cam, 'log_validation_loss', stop)
        with pytest.raises(Stop):
            command('train_cam', **QUICK)
    assert command('train_cam', **QUICK, momentum=0.9) == 1
    assert ('cam.ckpt: an unfinished training with other settings (momentum: was 0.0001, now 0.9)'
            in capsys.readouterr().err)
    (tmp_path / 'cam.ckpt').write_bytes(b'broken')
    assert command('train_cam', **QUICK) == 1
    assert 'cam.ckpt: not a readable checkpoint' in capsys.readouterr().err
    assert command('train_cam', **QUICK, overwrite=True) == 0


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch,
                                                                       capsys):
    command = Command(GOLDEN / 'tree', tmp_path)
    real, images = objectives.losses.classification_loss, []

    def nan_in_the_second_epoch(logits, *targets):
        images.append(len(logits) if logits.requires_grad else 0)
        # the last of two epochs of two steps of two images, whatever the threads' shares of a batch
        return real(logits, *targets) * (float('nan') if sum(images) == 8 else 1)

    monkeypatch.setattr(objectives.losses, 'classification_loss', nan_in_the_second_epoch)
    assert command('train_cam', **QUICK | {'cam_num_epoches': 2}) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    batch = [IDS[index] for _, index in list(datasets.Batches(4, 2, 0, 0, 4))[3]]
    assert f'error: train_cam: the loss is nan at step 4 of 4 (images {", ".join(batch)})' in line
    assert not (tmp_path / 'cam.pth').exists()
    stored = torch.load(tmp_path / 'cam.ckpt', weights_only=True)
    assert stored['step'] == 2
    assert all(value.isfinite().all() for value in stored['net'].values())


def test_batches_without_a_labelled_pixel_are_skipped_and_counted(whole, tmp_path, capsys):
    command = copy_of(whole, tmp_path / 'copy')
    for image_id in IDS:
        path = command.folder / 'ir_label' / f'{image_id}.png'
        label_maps.save(path, np.full_like(label_maps.load(path), 255), VOC12.palette)
    assert command('train_amn', **QUICK, overwrite=True) == 0
    assert '2 batches without a labelled pixel were skipped' in capsys.readouterr().out
    torch.manual_seed(0)
    untrained = importlib.import_module('tests.tiny.amn').Net(20).state_dict()
    trained = weights.read_state(command.folder / 'amn.pth')
    assert all(torch.equal(trained[key], value) for key, value in untrained.items())


def test_seeds_without_a_labelled_pixel_are_scored(whole, tmp_path, capsys):
    command = copy_of(whole, tmp_path / 'copy')
    for image_id in IDS:
        path = command.folder / 'ir_label' / f'{image_id}.png'
        label_maps.save(path, np.full_like(label_maps.load(path), 255), VOC12.palette)
    assert command('eval_ir_label', **QUICK) == 0
    score = command.scores()['eval_ir_label']
    assert (score['labelled'], score['miou'], score['precision']['background']) == (0, None, None)
    assert score['recall']['background'] == 0


# networks in training and out of it

def test_train_and_eval_switch_dropout():
    dropout = resnet50_amn.SeededDropout(0.1)
    net = torch.nn.Sequential(dropout, resnet50_amn.ASPP(32, 3))
    x, seeds = torch.ones(2, 32, 10, 10), torch.tensor([5, 6])
    net.train()
    dropped = dropout(x, seeds)
    assert 0.05 < (dropped == 0).float().mean() < 0.15
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert torch.equal(dropout(x, seeds), dropped)  # the mask comes from the seeds
    assert not torch.equal(dropped[0], dropped[1])
    assert torch.equal(dropout(x[1:], seeds[1:])[0], dropped[1])  # whatever the batch
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(dropout(x, seeds), x)
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


def test_train_and_eval_reach_the_dropout_of_amn():
    with torch.device('meta'):
        net = resnet50_amn.Net(20)
    dropout = net.classifier[0]
    assert dropout.p == 0.1
    assert net.train().classifier[0].training
    assert not net.eval().classifier[0].training
    assert net.train() is net
    assert dropout.training


def test_stages_make_activations_with_dropout_off(whole, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(resnet50_amn.SeededDropout, 'forward',
                        lambda self, x, seeds=None: seen.append(self.training) or x)
    command = copy_of(whole, tmp_path / 'copy')
    assert command('make_amn_cam', **QUICK, overwrite=True) == 0
    assert seen
    assert not any(seen)


# images of every kind

def add_image(tree, image_id, hw, names):
    """A photograph of noise with its mask (all of the first class) and XML."""
    noise = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tree / 'JPEGImages' / f'{image_id}.jpg')
    objects = ''.join(f'<object><name>{name}</name></object>' for name in names)
    (tree / 'Annotations' / f'{image_id}.xml').write_text(f'<annotation>{objects}</annotation>')
    label = VOC12.classes.index(names[0]) + 1 if names else 0
    for folder, value in (('SegmentationClass', label), ('SegmentationObject', min(label, 1))):
        label_maps.save(tree / folder / f'{image_id}.png', np.full(hw, value, np.uint8),
                        VOC12.palette)


ODD = {'one_pixel': ((1, 1), ['cat']), 'a_strip': ((7, 900), ['dog', 'sofa']),
       'a_column': ((300, 3), ['bus']),
       'five_classes': ((40, 50), ['bird', 'cat', 'dog', 'person', 'tvmonitor']),
       'no_class': ((33, 47), [])}


@pytest.fixture
def odd_tree(tree):
    for image_id, (hw, names) in ODD.items():
        add_image(tree, image_id, hw, names)
    for split in ('train', 'train_aug', 'val'):
        path = tree / 'ImageSets' / 'Segmentation' / f'{split}.txt'
        path.unlink()
        path.write_text('\n'.join(ODD))
    return tree


def check_odd(folder):
    for image_id, (hw, names) in ODD.items():
        keys = [VOC12.classes.index(name) for name in names]
        for where in ('cam', 'amn_cam'):
            stored = activations.load(folder / where, image_id).without_background()
            assert stored.keys.tolist() == keys
            assert stored.high_res.shape == (len(keys), *hw)
            assert np.isfinite(stored.high_res).all()
            assert np.isfinite(stored.strided).all()
        for where in ('ir_label', 'amn_ir_label', 'sem_seg'):
            label_map = label_maps.load(folder / where / f'{image_id}.png')
            assert label_map.shape == hw
            assert set(np.unique(label_map)) <= {0, 255, *(key + 1 for key in keys)}
            if not names:
                assert not label_map.any()  # all background


def test_odd_images_go_through_every_stage(odd_tree, tmp_path):
    command = Command(odd_tree, tmp_path / 'out')
    assert command(*ALL, **QUICK) == 0
    check_odd(command.folder)
    assert command.scores()['eval_sem_seg']['images'] == len(ODD)


def test_odd_images_with_the_real_networks(odd_tree, tmp_path, formula_weights):
    """One image of a kind is enough here; a small canvas is: its size is the golden tests' matter.
    """
    command = Command(odd_tree, tmp_path / 'out')
    assert command('make_cam', 'cam_to_ir_label', 'make_amn_cam', 'amn_cam_to_ir_label',
                   'make_sem_seg', 'eval_sem_seg', cam_scales=[1.0, 0.5], sem_seg_canvas=64,
                   **{f'{name}_weights_name': formula_weights / f'res50_{name}.pth'
                      for name in ('cam', 'amn', 'irn')}) == 0
    check_odd(command.folder)


@pytest.mark.parametrize('n_classes', [1, 3, 30])
def test_class_lists_of_other_sizes(tree, tmp_path, monkeypatch, n_classes):
    """The small tree's own classes first, as many as fit; the XML's other objects are left out."""
    shown = sorted({VOC12.classes[key] for image_id in IDS
                    for key in np.flatnonzero(VOC12(tree).labels(image_id))})
    names = (shown + [f'class {number}' for number in range(30)])[:n_classes]

    class Other(VOC12):
        name = 'other'
        classes = tuple(names)

        def labels(self, image_id):
            present = {VOC12.classes[key] for key in np.flatnonzero(real.labels(image_id))}
            return np.array([name in present for name in names])

        def mask_path(self, image_id):
            return tmp_path / 'masks' / f'{image_id}.png'

        object_mask_path = mask_path  # an object of each class

    real = VOC12(tree)
    for image_id in IDS:
        mask, renamed = label_maps.load(real.mask_path(image_id)), np.zeros(256, np.uint8)
        renamed[255] = 255
        for number, name in enumerate(names, start=1):
            if name in VOC12.classes:
                renamed[VOC12.classes.index(name) + 1] = number
        label_maps.save(tmp_path / 'masks' / f'{image_id}.png', renamed[mask], VOC12.palette)
    monkeypatch.setitem(options.DATASETS, 'voc12', Other)
    command = Command(tree, tmp_path / 'out')
    assert command(*ALL, **QUICK) == 0
    scores = command.scores()
    assert scores['eval_sem_seg']['data'] == 'other'
    assert list(scores['eval_sem_seg']['iou']) == ['background', *names]
    for path in (command.folder / 'sem_seg').glob('*.png'):
        assert label_maps.load(path).max() <= n_classes


def test_a_training_with_the_real_networks(formula_weights, tmp_path, monkeypatch):
    """The stage's own code around a real network: one step of AMN, its score, its file."""
    command = Command(GOLDEN / 'tree', tmp_path)
    (tmp_path / 'two.txt').write_text('\n'.join(IDS[:2]))
    shutil.copytree(GOLDEN / 'expected' / 'ir_label', tmp_path / 'ir_label')
    monkeypatch.setattr(train_amn, 'log_score', lambda job, told, net: None)
    assert command('train_amn', train_list=tmp_path / 'two.txt', amn_batch_size=2, amn_crop_size=32,
                   amn_num_epoches=1) == 0
    trained = weights.read_state(tmp_path / 'amn.pth')
    torch.manual_seed(0)
    untrained = resnet50_amn.Net(20).state_dict()
    assert trained.keys() == untrained.keys()
    moved = {key for key in trained if not torch.equal(trained[key], untrained[key])}
    assert {'label_enc.weight', 'resnet50.layer1.0.conv1.weight'} <= moved
    assert not any(key.startswith(('resnet50.conv1', 'resnet50.bn1')) or 'running' in key
                   for key in moved)


# the loop

def test_steps_and_schedules():
    assert training.steps_of(10, 3, 5, 'x') == 15
    with pytest.raises(UserError, match='train_x: a batch of 4 is larger than the list of 3 '
                                        'images: give --x_batch_size 3'):
        training.steps_of(3, 4, 5, 'train_x')
    assert [training.polynomial(step, 4) for step in (0, 2)] == [1, pytest.approx(0.5358867)]
    assert training.constant(3, 4) == 1


def test_sgd_gives_the_second_group_ten_times_the_rate():
    first, second, frozen = (torch.nn.Parameter(torch.ones(1), requires_grad=flag)
                             for flag in (True, True, False))
    groups = training.sgd(([first, frozen], [second]), 0.1, 1e-4, 0.9).param_groups
    assert [(group['lr'], group['params'], group['weight_decay'], group['momentum'])
            for group in groups] == [
        (0.1, [first], 1e-4, 0.9), (1.0, [second], 1e-4, 0.9)]


def test_layers_without_a_gradient_are_not_moved_by_weight_decay():
    net = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    before = net[1].weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.5)

    class Sum(Objective):
        def mean(self, net, part):
            return net[0](torch.ones(1, 2)).sum()

    objective = Sum(None, torch.device('cpu'))
    job = training.Training('test', 'unused.pth', {}, 1, 1, 0, torch.device('cpu'), 'fp32', 0,
                            False)
    training.step(Learner(net, objective), optimizer, torch.amp.GradScaler('cpu', enabled=False),
                  {'index': torch.zeros(1)}, objective, job)
    assert torch.equal(net[1].weight, before)
    assert net[1].weight.grad is None


def test_mean_displacement_of_less_than_a_batch(whole, tmp_path):
    """Four images and batches of 32: the short batch is used."""
    trained = weights.read_state(whole.folder / 'irn.pth')
    job = job_of(VOC12(whole.tree), tmp_path)
    net = importlib.import_module('tests.tiny.irn').Net()
    net.load_state_dict(trained)
    net.eval()
    train_irn.store_mean_displacement(job, told(IrnTraining, batch_size=32, crop_size=64), net)
    images = torch.stack([torch.from_numpy(
        datasets.top_left_crop(job.source, image_id, 64)['image']) for image_id in IDS])
    with torch.no_grad():
        raw = net.train()(images)[1].mean((0, 2, 3))
    torch.testing.assert_close(net.mean_shift.running_mean, raw)
    assert raw.abs().min() > 0


@pytest.mark.parametrize('stage', ['train_cam', 'train_amn', 'train_irn'])
def test_tensorboard_gets_losses_rates_and_pictures(whole, tmp_path, stage):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    command = copy_of(whole, tmp_path / 'copy')
    assert command(stage, **QUICK, overwrite=True, tensorboard=tmp_path / 'events') == 0
    events = EventAccumulator(str(tmp_path / 'events'))
    events.Reload()
    assert [event.step for event in events.Scalars(f'{stage}/loss')] == [1, 2]
    assert [event.step for event in events.Scalars(f'{stage}/learning rate')] == [2]
    assert events.Tags()['images'] == [f'{stage}/{image_id}' for image_id in IDS]
