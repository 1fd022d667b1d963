"""The command line: flags and defaults, what it checks first, how it tells of errors."""
import contextlib
import dataclasses
import importlib
import json
import logging
import re
import resource
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import run_sample
from misc.command import options
from misc.contract import settings
from misc.contract.stages import Stages
from misc.files import activations, weights
from misc.pyutils import UserError, log
from step.pipeline import STAGES
from tests.conftest import Command
from tests.tiny import NETWORKS, QUICK
from voc12.dataloader import VOC12

NAMES = [stage.name for stage in STAGES]
IDS = [f'2007_00000{number}' for number in range(1, 5)]

# issue 6: every flag and its default
DEFAULTS = {
    'dataset': 'voc12', 'data_root': None, 'voc12_root': None,
    'cam_network': 'net.resnet50_cam', 'cam_crop_size': 512, 'cam_batch_size': 16,
    'cam_num_epoches': 5,
    'cam_learning_rate': 0.1, 'cam_weight_decay': 1e-4, 'cam_scales': [1.0, 0.5, 1.5, 2.0],
    'cam_resize_long': [320, 640], 'cam_eval_thres': None,
    'amn_network': 'net.resnet50_amn', 'amn_crop_size': 512, 'amn_batch_size': 16,
    'amn_num_epoches': 5, 'eps': 0.4,
    'amn_learning_rate': [5e-6, 1e-4], 'conf_fg_thres': None, 'conf_bg_thres': None,
    'irn_network': 'net.resnet50_irn', 'irn_crop_size': 512, 'irn_batch_size': 32,
    'irn_num_epoches': 3, 'irn_learning_rate': 0.1, 'irn_weight_decay': 1e-4,
    'beta': 10.0, 'exp_times': 8, 'sem_seg_bg_thres': 0.25, 'sem_seg_power': 1.3,
    'ins_seg_bg_thres': 0.25,
    'log_name': 'sample_train_eval', 'work_dir': '.', 'report_images': 60, 'report_pass': False,
    'seg_recipe': 'advcam', 'seg_network': 'net.resnet101_deeplab', 'seg_label_dir': None,
    'seg_pretrained': None,
    'seg_input': None, 'seg_stride': None, 'seg_ceil_mode': None, 'seg_steps': None,
    'seg_loss': None, 'seg_resize': None,
    'seg_crop_size': 321, 'seg_batch_size': 10, 'seg_learning_rate': 2.5e-4,
    'seg_weight_decay': 5e-4, 'seg_momentum': 0.9,
    'seg_train_scales': [1.0, 0.75, 0.5], 'seg_scales': [1.0, 0.75, 0.5], 'seg_flip': False,
    'seg_crf': False,
    'train_seg_pass': False, 'make_seg_pass': False, 'eval_seg_pass': False,
    'device': 'auto', 'seed': 0, 'precision': 'fp32', 'pretrained': 'imagenet', 'momentum': 1e-4,
    'overwrite': False, 'check_data': False, 'ins_seg_coco_json': None, 'deterministic': False,
    **{f'{name}_pass': False for name in (
        'train_cam', 'make_cam', 'eval_cam', 'cam_to_ir_label', 'eval_ir_label', 'train_amn',
        'make_amn_cam', 'eval_amn_cam', 'amn_cam_to_ir_label', 'eval_amn_ir_label', 'train_irn',
        'make_sem_seg', 'eval_sem_seg', 'make_ins_seg', 'eval_ins_seg')}}


# those that depend on --dataset and --work_dir
RESOLVED = {
    'train_list': 'voc12/train_aug.txt', 'val_list': 'voc12/val.txt',
    'infer_list': 'voc12/train.txt', 'eval_set': 'train',
    'cam_weights_name': 'sess/res50_cam.pth', 'amn_weights_name': 'sess/res50_amn.pth',
    'irn_weights_name': 'sess/res50_irn.pth', 'cam_out_dir': 'result/cam',
    'ir_label_out_dir': 'result/ir_label',
    'amn_cam_out_dir': 'result/amn_cam', 'amn_ir_label_out_dir': 'result/amn_ir_label',
    'sem_seg_out_dir': 'result/sem_seg', 'ins_seg_out_dir': 'result/ins_seg',
    'scores_file': 'result/scores.jsonl',
    'seg_list': 'voc12/val.txt', 'seg_weights_name': 'sess/seg.pth', 'seg_out_dir': 'result/seg',
    'seg_crf_out_dir': 'result/seg_crf', 'analysis_out_dir': 'result/analysis',
    'report_out_dir': 'result/report'}


def parse(*words):
    return options.build_parser(STAGES).parse_args(words)


def the_error(capsys):
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith('error: ')
    return lines[0]


def last_error(capsys):
    """The last line on stderr, after progress bars; never a traceback."""
    text = capsys.readouterr().err
    assert 'Traceback' not in text
    assert text.count('error: ') == 1, text
    assert text.splitlines()[-1].startswith('error: ')
    return text.splitlines()[-1]


@pytest.mark.parametrize(('name', 'default'), DEFAULTS.items())
def test_defaults(name, default):
    value = getattr(parse(), name)
    assert value == default
    assert type(value) is type(default)


@pytest.mark.parametrize(('name', 'default'), RESOLVED.items())
def test_defaults_of_lists_and_files(name, default):
    args = parse()
    options.resolve_lists(args)
    options.resolve_files(STAGES, args)
    assert getattr(args, name) == default
    shown = ' '.join(options.build_parser(STAGES).format_help().split())
    # Python 3.13 writes the metavar once, after all names of a flag
    described = re.search(rf'--{name}(, --\w+)? {name.upper()}', shown)
    assert default in shown[described.start():][:400]


@pytest.mark.parametrize(('dataset', 'lists'),
                         [('coco14', ['train2014', 'val2014', 'train2014', 'train2014']),
                          ('folder', ['all', 'some', 'all', 'masked'])])
def test_lists_of_other_data_sets(dataset, lists):
    args = parse('--dataset', dataset)
    options.resolve_lists(args)
    assert [getattr(args, name) for name in options.CHECKED_LISTS] == lists
    args = parse('--dataset', dataset, '--val_list', 'mine')
    options.resolve_lists(args)
    assert [getattr(args, name) for name in options.CHECKED_LISTS] == [lists[0], 'mine', *lists[2:]]


@pytest.mark.parametrize(('words', 'cores', 'processes', 'workers', 'readers'), [
    ((), 8, 1, 8, 4), ((), 1, 1, 1, 1), ((), 8, 2, 4, 2), ((), 2, 4, 1, 1),
    (('--num_workers', '4'), 8, 2, 4, 4), (('--num_workers', '0'), 8, 1, 0, 0)])
def test_all_cores_by_default_and_half_of_them_beside_a_network(monkeypatch, words, cores,
                                                                processes, workers, readers):
    monkeypatch.setattr('misc.torchutils.cores', lambda: cores)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    run = settings.Run.of(parse(*words))
    assert (run.workers, run.readers) == (workers, readers)


def test_every_flag_has_a_help_text_and_a_group():
    parser = options.build_parser(STAGES)
    titled = {group.title for group in parser._action_groups}
    assert {'stages', 'data', 'machine and run', 'CAM', 'refined seeds', 'AMN', 'IRN',
            'random walk', 'segmentation network', 'files'} <= titled
    assert all(action.help for action in parser._actions)
    shown = ' '.join(parser.format_help().split())
    assert all(flag in shown for flag in ('--train_cam_pass', '--chainer_eval_set', '[512]',
                                          '[1.0 0.5 1.5 2.0]'))


@pytest.mark.parametrize(('words', 'expected'), [
    ((), True), (('True',), True), (('true',), True), (('1',), True), (('yes',), True),
    (('on',), True),
    (('False',), False), (('false',), False), (('0',), False), (('no',), False), (('off',), False)])
def test_spellings_of_a_stage(words, expected):
    assert parse('--make_cam_pass', *words).make_cam_pass is expected
    assert parse('--make_cam_pass', *words, '--seed', '3').make_cam_pass is expected


@pytest.mark.parametrize('words', [
    '--nonsense 1', '--make_cam', '--make_cam_pass maybe', '--seed one', '--seed -1',
    '--seed 99999999999999999999',
    '--beta ten', '--beta 0', '--beta nan', '--beta inf', '--exp_times 1.5', '--exp_times 40',
    '--cam_scales',
    '--cam_scales 1 0', '--cam_batch_size 0', '--eps 1.5', '--conf_fg_thres -0.1',
    '--precision fp8', '--cam_resize_long 320',
    '--amn_learning_rate 1e-4', '--num_workers -2', 'stray'])
def test_wrong_flags_are_told_of_in_one_line(words, capsys):
    with pytest.raises(SystemExit) as ended:
        run_sample.main(['--make_cam_pass', *words.split()])
    assert ended.value.code == 2
    assert words.split()[0].split('=')[0] in the_error(capsys)


def test_numbers_are_numbers():
    words = ('--beta 8 --exp_times 6 --cam_scales 1 0.5 --sem_seg_bg_thres 0.3 --amn_learning_rate '
             '1e-6 2e-4')
    args = parse(*words.split())
    assert (args.beta, args.exp_times, args.sem_seg_bg_thres) == (8.0, 6, 0.3)
    assert args.cam_scales == [1.0, 0.5]
    assert args.amn_learning_rate == [1e-6, 2e-4]
    assert all(isinstance(value, float) for value in (*args.cam_scales, args.beta))


def test_the_split_to_score_on_has_two_names():
    assert parse('--chainer_eval_set',
                 'val').eval_set == parse('--eval_set', 'val').eval_set == 'val'


@pytest.mark.parametrize(('words', 'cam', 'amn'), [
    ('', (0.15, 0.30, 0.05), (0.25, 0.45, 0.15)),
    ('--cam_eval_thres 0.2 --conf_fg_thres 0.5 --conf_bg_thres 0.1', (0.2, 0.5, 0.1),
     (0.2, 0.5, 0.1)),
    ('--conf_fg_thres 0.5 --cam_conf_fg_thres 0.35', (0.15, 0.35, 0.05), (0.25, 0.5, 0.15)),
    ('--cam_eval_thres 0.2 --eval_amn_cam_thres 0 --amn_conf_bg_thres 0', (0.2, 0.30, 0.05),
     (0.0, 0.45, 0.0))])
def test_thresholds_own_then_shared_then_published(words, cam, amn):
    args = parse(*words.split())
    options.resolve_settings(STAGES, args)
    assert (args.eval_cam_thres, args.cam_conf_fg_thres, args.cam_conf_bg_thres) == cam
    assert (args.eval_amn_cam_thres, args.amn_conf_fg_thres, args.amn_conf_bg_thres) == amn


def test_background_above_foreground_is_refused():
    with pytest.raises(UserError, match='AMN seeds: the background threshold 0.5 is above the '
                                        'foreground threshold 0.45'):
        options.resolve_settings(STAGES, parse('--amn_conf_bg_thres', '0.5'))


def test_no_stage_lists_the_stages(capsys):
    assert run_sample.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'no stage is named' in captured.err
    assert re.findall(r'--(\w+)_pass', captured.err) == NAMES


# the root

def test_where_the_root_comes_from(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('VOC12_ROOT', raising=False)
    with pytest.raises(UserError, match='where is voc12.*--voc12_root.*VOC12_ROOT'):
        options.find_root(None)
    (tmp_path / 'VOCdevkit' / 'VOC2012').mkdir(parents=True)
    assert options.find_root(None) == 'VOCdevkit/VOC2012'
    monkeypatch.setenv('VOC12_ROOT', '/data/VOC2012')
    assert options.find_root(None) == '/data/VOC2012'
    assert options.find_root('/given') == '/given'


def test_the_root_has_two_names_for_voc_alone(tree):
    for words in (['--voc12_root', str(tree)], ['--data_root', str(tree)],
                  ['--data_root', str(tree), '--voc12_root', str(tree)]):
        args = parse(*words)
        assert options.open_source(args).name == 'voc12'
        assert args.data_root == str(tree)
    for words in (['--voc12_root', 'a', '--data_root', 'b'],
                  ['--voc12_root', 'a', '--dataset', 'folder']):
        with pytest.raises(UserError,
                           match='--voc12_root a beside --dataset .*: give --data_root alone'):
            options.open_source(parse(*words))


def test_roots_of_other_data_sets(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('COCO14_ROOT', raising=False)
    with pytest.raises(UserError,
                       match=r'where is coco14\? Give --data_root FOLDER: .*; or set COCO14_ROOT'):
        options.find_root(None, 'coco14')
    monkeypatch.setenv('COCO14_ROOT', '/data/coco')
    assert options.find_root(None, 'coco14') == '/data/coco'
    with pytest.raises(UserError, match=r'where is folder\? Give --data_root FOLDER: .* images/ '
                                        r'and labels.csv, or a folder of .* a class$'):
        options.find_root(None, 'folder')


def test_root_of_the_environment(monkeypatch, tree, capsys):
    monkeypatch.setenv('VOC12_ROOT', str(tree))
    lists = [word for name in ('train_list', 'val_list', 'infer_list')
             for word in (f'--{name}', 'train')]
    assert run_sample.main(['--check_data', *lists]) == 0
    assert '--train_list train' in capsys.readouterr().out


@pytest.mark.parametrize(('wrong', 'told'), [
    ('nowhere', 'no such folder'), ('above', 'too high a level: give --voc12_root {tree}'),
    ('far above', 'too high a level: give --voc12_root {tree}'),
    ('JPEGImages', 'too low a level: give --voc12_root {tree}'),
    ('ImageSets/Segmentation', 'too low a level: give --voc12_root {tree}'),
    ('empty', 'has no JPEGImages, Annotations')])
def test_a_root_at_the_wrong_level(wrong, told, tree, tmp_path, capsys):
    devkit = tmp_path / 'data' / 'VOCdevkit'
    devkit.mkdir(parents=True)
    root = tree.rename(devkit / 'VOC2012')
    (tmp_path / 'empty').mkdir()
    given = {'nowhere': tmp_path / 'nowhere', 'above': devkit, 'far above': tmp_path / 'data',
             'empty': tmp_path / 'empty'}.get(wrong, root / wrong)
    assert Command(given, tmp_path)('make_cam') == 1
    line = the_error(capsys)
    assert str(given) in line
    assert told.format(tree=root) in line


# checks before the first stage

@pytest.fixture
def tiny(command):
    """The command with small networks, and random weights for all three."""
    for name, path in NETWORKS.items():
        net = importlib.import_module(path).Net(20)
        weights.save_state(net, command.folder / f'{name.removesuffix("_network")}.pth')
    return lambda *stages, **flags: command(*stages, **{**QUICK, **flags})


@pytest.mark.parametrize(('stage', 'maker'), [
    ('make_cam', 'train_cam'), ('eval_cam', 'make_cam'), ('cam_to_ir_label', 'make_cam'),
    ('eval_ir_label', 'cam_to_ir_label'), ('train_amn', 'cam_to_ir_label'),
    ('make_amn_cam', 'train_amn'),
    ('eval_amn_cam', 'make_amn_cam'), ('amn_cam_to_ir_label', 'make_amn_cam'),
    ('eval_amn_ir_label', 'amn_cam_to_ir_label'), ('train_irn', 'amn_cam_to_ir_label'),
    ('make_sem_seg', 'train_irn'),
    ('eval_sem_seg', 'make_sem_seg'), ('train_seg', 'make_sem_seg'), ('make_seg', 'train_seg'),
    ('eval_seg', 'make_seg')])
def test_a_missing_input_names_the_stage_that_makes_it(stage, maker, command, capsys):
    assert command(stage, **QUICK) == 1
    assert f'{stage} needs {command.folder}' in (line := the_error(capsys))
    assert f'run --{maker}_pass True first' in line


def test_an_earlier_stage_of_the_same_command_is_an_input(command, monkeypatch):
    order = []
    monkeypatch.setattr(run_sample, 'STAGES', Stages(dataclasses.replace(
        stage, run=lambda job, *told, name=stage.name: order.append(name)) for stage in STAGES))
    assert command(*reversed(NAMES), **QUICK) == 0
    assert order == NAMES


def test_images_that_the_root_lacks_are_counted_and_named(command, capsys):
    path = command.tree / 'mine.txt'
    path.write_text('2007_000001\n' + ''.join(f'2008_00000{number}\n' for number in range(7)))
    assert command('train_cam', train_list=path, **QUICK) == 1
    line = the_error(capsys)
    assert f'{path}: 7 of its 8 images are not in {command.tree}/JPEGImages' in line
    assert '2008_000000, 2008_000001, 2008_000002, 2008_000003, 2008_000004 ...' in line


@pytest.mark.parametrize(('damage', 'told'), [
    (lambda tree: (tree / 'JPEGImages/2007_000003.jpg').unlink(), '1 of its 4 images are not in '
                                                                  '.*2007_000003'),
    (lambda tree: (tree / 'Annotations/2007_000002.xml').unlink(), '2007_000002.xml: missing; '
                                                                   'image-level labels'),
    (lambda tree: (tree / 'Annotations/2007_000002.xml').write_text('<annotation>'), '000002.xml: '
                                                                                     'not readable '
                                                                                     'as XML'),
    (lambda tree: (tree / 'Annotations/2007_000002.xml').write_text(
        '<annotation><object><name>unicorn</name></object></annotation>'), "'unicorn' is not one "
                                                                           "of the 20 classes"),
    (lambda tree: (tree / 'SegmentationClass/2007_000004.png').unlink(),
     '2007_000004.png: 1 of the 4 masks of train are missing'),
    (lambda tree: (tree / 'ImageSets/Segmentation/train_aug.txt').unlink(),
     'train_aug: neither a list file nor a split'),
    (lambda tree: (tree / 'ImageSets/Segmentation/train_aug.txt').write_text('\n \n'),
     'train_aug.txt: an empty list'),
    (lambda tree: (
        tree / 'ImageSets/Segmentation/train_aug.txt').write_text('2007_000001\n2007_000001\n'),
     '2007_000001 is listed twice')],
    ids=['image', 'XML', 'broken XML', 'unknown class', 'mask', 'list', 'empty list', 'twice'])
def test_damaged_data(damage, told, tree, command, capsys):
    for path in ('ImageSets/Segmentation/train_aug.txt', 'Annotations/2007_000002.xml'):
        (tree / path).chmod(0o644)
    damage(tree)
    assert command('train_cam', 'make_cam', 'eval_cam', **QUICK) == 1
    assert re.search(told, the_error(capsys))
    assert not command.folder.exists()  # nothing was begun


def test_training_needs_no_mask(tree, command):
    for path in (tree / 'SegmentationClass').iterdir():
        path.unlink()
    assert command('train_cam', 'make_cam', **QUICK) == 0


@pytest.mark.parametrize(('flags', 'told'), [
    ({'cam_batch_size': 5}, 'train_cam: a batch of 5 is larger than the list of 4 images'),
    ({'precision': 'fp16'}, '--precision fp16 needs a GPU'),
    ({'device': 'quantum'}, '--device quantum'),
    ({'device': 'meta'}, '--device meta: only cpu and cuda'),
    ({'cam_resize_long': [9, 8]}, 'LOW is above HIGH'),
    ({'pretrained': 'nowhere.pth'}, '--pretrained nowhere.pth'),
    ({'cam_network': 'net.nothing'}, '--cam_network net.nothing'),
    ({'irn_network': 'json'}, '--irn_network json')])
def test_choices_are_checked_before_the_first_stage(flags, told, command, capsys, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert command('train_cam', **{**QUICK, **flags}) == 1
    assert told in the_error(capsys)
    assert not command.folder.exists()


def test_labels_that_a_later_training_reads_are_checked_first(tree, command, capsys):
    """train_amn scores on the infer list, which need not lie within the train list."""
    (tree / 'ImageSets/Segmentation/most.txt').write_text('\n'.join(IDS[:3]))
    (tree / 'Annotations/2007_000004.xml').unlink()
    assert command('train_cam', 'make_cam', 'cam_to_ir_label', 'train_amn', train_list='most',
                   val_list='most', **QUICK) == 1
    assert '2007_000004.xml: missing' in the_error(capsys)


def test_check_data(tree, command, capsys):
    assert command(check_data=True) == 0
    rows = capsys.readouterr().out.splitlines()
    assert next(row.split() for row in rows if row.startswith('--train_list')) == [
        '--train_list', 'train_aug', '4', '0', '0', '0']
    counts = dict((row.split()[0], row.split()[1:]) for row in rows if row
                  and row.split()[0] in ('person', 'sofa', 'cat'))
    assert counts == expected_counts(tree, ('person', 'sofa', 'cat'))
    (tree / 'SegmentationClass/2007_000001.png').unlink()
    (tree / 'Annotations/2007_000002.xml').unlink()
    (tree / 'Annotations/2007_000003.xml').chmod(0o644)
    (tree / 'Annotations/2007_000003.xml').write_text('<annotation/>')
    assert command(check_data=True) == 1
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith('--eval_set'))
    assert row.split() == ['--eval_set', 'train', '4', '1', '1', '1']
    assert not command.folder.exists()


def expected_counts(tree, names):
    texts = [path.read_text() for path in (tree / 'Annotations').iterdir()]
    return {name: [str(sum(f'<name>{name}</name>' in text for text in texts))] * 3
            for name in names}


# errors while a stage runs

def truncate(path):
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:len(whole) // 2])


@pytest.mark.parametrize('workers', [0, 2])
def test_a_truncated_jpeg_does_not_lose_the_others(tiny, command, capsys, workers):
    truncate(command.tree / 'JPEGImages/2007_000002.jpg')
    assert tiny('make_cam', 'cam_to_ir_label', num_workers=workers) == 1
    line = last_error(capsys)
    assert '1 of 4 images failed, the others are done; first 2007_000002' in line
    assert '2007_000002.jpg: cannot be decoded' in line
    assert sorted(path.name for path in (command.folder / 'cam').iterdir()) == [
        '2007_000001.npz', '2007_000003.npz', '2007_000004.npz', '_inputs.jsonl', '_settings.json']
    assert 'failed: 2007_000002:' in (command.folder / 'run.log').read_text()
    assert not (command.folder / 'ir_label').exists()


def test_a_broken_activation_does_not_lose_the_others(tiny, command, capsys):
    assert tiny('make_cam') == 0
    truncate(command.folder / 'cam' / '2007_000003.npz')
    (command.folder / 'cam' / '2007_000001.npz').unlink()
    assert tiny('cam_to_ir_label') == 1
    assert ('2 of 4 images failed, the others are done; first 2007_000001'
            in (line := last_error(capsys)))
    assert 'run --make_cam_pass True first' in line
    assert sorted(path.name for path in (command.folder / 'ir_label').iterdir()) == [
        '2007_000002.png', '2007_000004.png', '_inputs.jsonl', '_settings.json', 'classes.txt']
    assert tiny('eval_cam') == 1
    assert '2007_000001.npz: no such activation' in last_error(capsys)
    assert not (command.folder / 'scores.jsonl').exists()


def test_a_truncated_jpeg_ends_a_training(tiny, command, capsys):
    truncate(command.tree / 'JPEGImages/2007_000002.jpg')
    (command.folder / 'cam.pth').unlink()
    assert tiny('train_cam') == 1
    assert '2007_000002.jpg: cannot be decoded' in last_error(capsys)
    assert not (command.folder / 'cam.pth').exists()


def test_a_checkpoint_of_another_class_count(tiny, command, capsys):
    weights.save_state(importlib.import_module('tests.tiny.cam').Net(5), command.folder / 'cam.pth')
    assert tiny('make_cam') == 1
    assert 'cam.pth: trained for 5 classes, this data set has 20' in the_error(capsys)


def test_what_was_made_for_other_classes_of_the_same_number(tiny, command, capsys):
    assert tiny('make_cam') == 0
    renamed = [*VOC12.classes[:-1], 'television']
    for path, told in ((command.folder / 'cam.json', 'cam.pth: trained for other classes: number '
                                                     '20 of 20'),
                       (command.folder / 'cam' / '_settings.json',
                        'cam: made for other classes: number 20 of 20')):
        path.write_text(json.dumps({'classes': renamed}))
        capsys.readouterr()
        assert tiny('make_cam' if path.name == 'cam.json' else 'eval_cam') == 1
        assert f"{told} is 'television' there and 'tvmonitor' in this data set" in the_error(capsys)


def test_a_checkpoint_that_is_none(tiny, command, capsys):
    (command.folder / 'cam.pth').write_text('<html>not found</html>')
    assert tiny('make_cam') == 1
    assert 'cam.pth: not a readable state dict' in the_error(capsys)


def test_weights_without_a_record_are_not_trained_over(tiny, command, capsys):
    before = (command.folder / 'cam.pth').read_bytes()
    assert tiny('train_cam') == 0
    assert ('cam.pth is there, without a record of its settings (made elsewhere), and is used'
            in capsys.readouterr().out)
    assert (command.folder / 'cam.pth').read_bytes() == before


@contextlib.contextmanager
def largest_file(size):
    """A disk that refuses larger files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_refuses_an_activation(tiny, command, capsys):
    with largest_file(9000):
        assert tiny('make_cam') == 1
    assert 'cannot write' in (line := last_error(capsys))
    assert '.npz: File too large' in line
    assert [path.name for path in (command.folder / 'cam').glob('[!.]*')] == ['_settings.json']
    assert tiny('make_cam') == 0


def test_a_disk_that_refuses_a_label_map_of_a_worker(tiny, command, capsys):
    assert tiny('make_cam') == 0
    with largest_file(500):
        assert tiny('cam_to_ir_label', num_workers=1, log_name=command.folder / 'other') == 1
    assert 'cannot write' in (line := last_error(capsys))
    assert '.png: File too large' in line
    assert all((path.suffix in ('.png', '.json') or path.name == 'classes.txt')
               and not path.name.startswith('.')
               for path in (command.folder / 'ir_label').iterdir())


def test_a_disk_that_refuses_weights(tiny, command, capsys):
    (command.folder / 'cam.pth').unlink()
    with largest_file(9000):
        assert tiny('train_cam') == 1
    assert 'cannot write' in (line := last_error(capsys))
    assert 'cam.ckpt: File too large' in line
    left = sorted(path.name for path in command.folder.iterdir() if path.suffix != '.lock')
    assert left == ['amn.pth', 'irn.pth', 'run.log', 'seg.pth']


@pytest.mark.parametrize('flag', ['cam_out_dir', 'log_name', 'scores_file'])
def test_a_file_where_a_folder_should_be(flag, tiny, command, capsys):
    (command.folder / 'a_file').write_text('here')
    value = command.folder / 'a_file' / ('' if flag == 'cam_out_dir' else 'x')
    assert tiny('make_cam', 'eval_cam', **{flag: value}) == 1
    assert 'a_file' in last_error(capsys)


def test_ctrl_c(tiny, capsys, monkeypatch):
    def stop(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr('misc.networks.load', stop)
    assert tiny('make_cam') == 130
    assert capsys.readouterr().err == 'stopped by Ctrl-C; the same command goes on\n'


# what a run tells

def test_log_and_score_tell_where_they_come_from(tiny, command, capsys):
    assert tiny('make_cam', 'eval_cam', seed=5, eval_cam_thres=0.123) == 0
    lines = (command.folder / 'run.log').read_text().splitlines()
    assert re.search(rf'AMN {run_sample.VERSION}, commit (\w+\+?), Python 3\.\S+, torch \S+, '
                     rf'cpu.*, seed 5$', lines[0])
    assert 'cam_scales=[1.0, 0.5]' in lines[1]
    assert lines[2].endswith('stages: make_cam, eval_cam')
    assert '=== make_cam' in lines[3]
    out = capsys.readouterr().out
    screen = out[:out.index('=== make_cam')]
    for told in (f'data: voc12 {command.tree}, 20 classes (aeroplane, ', '--cam_scales 1.0 0.5',
                 '4 images of train_aug (--train_list)', f'-> {command.folder}/cam\n', '--seed 5',
                 f'log, with every setting: {command.folder}/run.log'):
        assert told in screen
    assert 'settings' not in screen.replace('every setting', '') and 'beta' not in screen
    *_, where, scores, following = out.splitlines()
    assert where == f"{command.folder}/cam: CAM's activations"
    assert scores == f'{command.folder}/scores.jsonl: the scores'
    assert following.startswith("next (refine CAM's seeds by CRF): python run_sample.py --voc12_roo"
                                f't {command.tree} ')
    assert following.endswith('--seed 5 --eval_cam_thres 0.123 --stages cam_to_ir_label')
    assert re.search(r'eval_cam: mIoU \d+\.\d% on train, 4 images, threshold 0.12; best .* within '
                     r'3 points', out)
    assert re.search(r'=== make_cam took 0:00:\d\d', out)
    assert not any(isinstance(handler, logging.FileHandler) for handler in log.handlers)
    line = json.loads((command.folder / 'scores.jsonl').read_text())
    assert (line['stage'], line['split'], line['images'],
            line['threshold']) == ('eval_cam', 'train', 4, 0.123)
    assert line['version'] == run_sample.VERSION
    assert set(line['iou']) == {'background', *VOC12.classes}
    assert 0 <= line['miou'] <= line['best_miou'] <= 1
    assert line['best_threshold'] in [number / 100 for number in range(101)] + [0.123]


def test_an_error_is_in_the_log_and_once_on_the_screen(tiny, command, capsys):
    truncate(command.tree / 'JPEGImages/2007_000002.jpg')
    assert tiny('make_cam') == 1
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count('error: ') == 1
    assert 'error: 1 of 4 images failed' in (command.folder /
                                             'run.log').read_text().splitlines()[-1]


def test_finished_images_are_kept_and_overwrite_makes_them_anew(tiny, command, capsys):
    assert tiny('make_cam') == 0
    path = command.folder / 'cam' / '2007_000001.npz'
    stored = activations.load(command.folder / 'cam', '2007_000001')
    activations.save(command.folder / 'cam', '2007_000001',
                     stored._replace(high_res=stored.high_res * 0))
    assert tiny('make_cam') == 0
    assert '4 of 4 images are already done' in capsys.readouterr().out
    assert not np.load(path)['high_res'].any()
    assert tiny('make_cam', cam_scales=[1.0]) == 1
    assert 'made with other settings (scales: was [1.0, 0.5], now [1.0])' in last_error(capsys)
    assert tiny('make_cam', overwrite=True) == 0
    assert np.load(path)['high_res'].any()


def test_photographs_that_are_not_plain_rgb(tiny, command):
    for image_id, mode in zip(IDS, ('L', 'CMYK', 'YCbCr', 'RGB'), strict=True):
        path = command.tree / 'JPEGImages' / f'{image_id}.jpg'
        picture = Image.open(path).convert(mode)
        path.unlink()
        picture.save(path, 'JPEG')
    assert tiny('make_cam', 'eval_cam') == 0


def test_work_dir_holds_what_is_not_named():
    args = parse('--work_dir', 'first', '--cam_out_dir', 'elsewhere/cam')
    options.resolve_files(STAGES, args)
    assert args.cam_out_dir == 'elsewhere/cam'
    assert (args.cam_weights_name, args.amn_cam_out_dir) == ('first/sess/res50_cam.pth',
                                                             'first/result/amn_cam')
    assert args.scores_file == 'first/result/scores.jsonl'
    args = parse('--work_dir', 'first',
                 *(word for name, path in STAGES.files().items() for word in (f'--{name}', path)))
    options.resolve_files(STAGES, args)
    # a named path stays
    assert {name: getattr(args, name) for name in STAGES.files()} == STAGES.files()


# --repeat

def chosen_stages(*names):
    return [stage for stage in STAGES if stage.name in names]


def test_repeat_needs_what_depends_on_the_seed(tiny, command, capsys):
    assert tiny('make_cam', 'eval_cam', repeat=2) == 1
    assert '--repeat 2: none of the chosen stages depends on the seed' in the_error(capsys)
    assert not (command.folder / 'cam').exists()


def test_repeat_of_a_training_alone(command):
    assert command('train_cam', **QUICK, repeat=2, work_dir=command.folder) == 0
    assert all((command.folder / f'seed_{seed}' / 'cam.pth').is_file() for seed in (0, 1))


def seeded(*stages, **flags):
    args = parse(*(word for name, value in flags.items() for word in (f'--{name}', str(value))))
    options.resolve_files(STAGES, args)
    options.resolve_settings(STAGES, args)
    return run_sample.seeded(args, chosen_stages(*stages), 7)


def test_everything_that_a_repeat_writes_moves(tmp_path):
    flags = {'work_dir': tmp_path, 'ins_seg_coco_json': tmp_path / 'all.json',
             'tensorboard': tmp_path / 'board'}
    one = seeded('train_irn', 'make_ins_seg', **flags)
    assert (one.ins_seg_coco_json, one.tensorboard) == (f'{tmp_path}/seed_7/all.json',
                                                        f'{tmp_path}/seed_7/board')
    other = seeded('eval_cam', **flags)
    assert (other.ins_seg_coco_json, other.tensorboard) == (f'{tmp_path}/all.json',
                                                            f'{tmp_path}/board')


@pytest.mark.parametrize(('work_dir', 'given', 'moved'), [
    ('work', 'work/../cam.pth', 'seed_7/cam.pth'),
    ('work', 'elsewhere/cam.pth', 'elsewhere/seed_7/cam.pth'),
    ('work/.', 'other/../work/a/cam.pth', 'work/seed_7/a/cam.pth'),
    ('.', 'a/cam.pth', 'seed_7/a/cam.pth'), ('.', '../cam.pth', '../seed_7/cam.pth')])
def test_where_a_repeat_writes(tmp_path, monkeypatch, work_dir, given, moved):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert seeded('train_cam', work_dir=work_dir, cam_weights_name=given).cam_weights_name == str(
        (tmp_path / 'here' / moved).resolve())


def test_the_spread_of_every_score(tmp_path, monkeypatch):
    """Of two stages not run now, one was scored long ago; one score is not defined for a seed."""
    told = []
    monkeypatch.setattr(run_sample.log, 'info', lambda text, *values: told.append(text % values))
    repeats = []
    for seed, value in enumerate((0.25, 0.75)):
        path = tmp_path / f'{seed}.jsonl'
        lines = [{'stage': 'eval_seg', 'miou': value, 'scales': [1.0, 0.5]},
                 {'stage': 'eval_seg_crf', 'miou': value / 2},
                 {'stage': 'eval_ins_seg', 'map': value / 4, 'threshold': 0.25},
                 {'stage': 'eval_cam', 'miou': 1.0},
                 {'stage': 'eval_amn_cam', 'miou': value, 'threshold': 0.25, 'best_miou': value,
                  'best_threshold': value, 'within_3_points': [0.2, value]},
                 {'stage': 'eval_sem_seg', 'miou': None if seed else 0.5}]
        path.write_text(''.join(json.dumps({'split': 'val', 'data': 'voc12', 'images': 4} | line)
                                + '\n' for line in lines))
        repeats.append(SimpleNamespace(seed=seed, scores_file=path, seg_crf=True))
    run_sample.report_spread(repeats, chosen_stages('train_seg', 'eval_amn_cam', 'eval_sem_seg',
                                                    'eval_ins_seg', 'eval_seg'))
    heading, _, *rows, note, published = [line.split('  ') for line in told[0].splitlines()]
    cells = [[cell.strip() for cell in row if cell] for row in (heading, *rows)]
    at = 'within 3 points of the best'
    assert cells == [
        ['mIoU in %', 'threshold', 'mIoU', 'best', 'at', at, 'split (images)', 'published',
         'seed 0', 'seed 1'],
        ['AMN seed', '0.25', '50.0 ± 35.4', '50.0 ± 35.4', '0.50 ± 0.35', '0.20 to 0.50 ± 0.35',
         'val (4)', '62.1', '25.0', '75.0'],
        ['pseudo-mask', '-', '-', '-', '-', '-', 'val (4)', '72.2', '50.0', '-'],
        ['instance masks (mean AP)', '0.25', '12.5 ± 8.8', '-', '-', '-', 'val (4)', '-', '6.2',
         '18.8'],
        ['segmentation, multi-scale', '-', '50.0 ± 35.4', '-', '-', '-', 'val (4)', '69.5', '25.0',
         '75.0'],
        ['segmentation, CRF', '-', '25.0 ± 17.7', '-', '-', '-', 'val (4)', '-', '12.5', '37.5']]
    assert note == ['mean ± standard deviation of 2 runs']
    run_sample.report_spread([SimpleNamespace(scores_file=tmp_path / 'none')] * 2,
                             chosen_stages('train_cam', 'report'))
    assert len(told) == 1
