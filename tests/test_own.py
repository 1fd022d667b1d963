"""One's own photographs in one command: --preset own; ranges of stages without masks."""
import json
import shutil

import numpy as np
import pytest

import run_sample
from misc.command import fitting, options
from step import export
from step.pipeline import STAGES
from tests.conftest import GOLDEN
from tests.tiny import QUICK
from voc12.dataloader import VOC12

SETTINGS = {name: value for name, value in QUICK.items()
            if not name.endswith(('batch_size', 'epoches'))}
NO_WEIGHTS = ['--pretrained', 'none', '--num_workers', '0']


def words(**flags):
    return [word for name, value in flags.items()
            for word in (f'--{name}', *map(str, value if isinstance(value, list) else [value]))]


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder `mine` with a folder a class, in the current one; neither labels.csv nor masks."""
    monkeypatch.chdir(tmp_path)
    source = VOC12(GOLDEN / 'tree')
    for image_id in source.names('train'):
        name = source.classes[np.flatnonzero(source.labels(image_id))[0]]
        (tmp_path / 'mine' / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(source.image_path(image_id), tmp_path / 'mine' / name)
    return tmp_path / 'mine'


def test_own_photographs_in_one_command(photographs, capsys, monkeypatch):
    monkeypatch.setattr(fitting, 'STEPS', dict.fromkeys(fitting.STEPS, 2))
    monkeypatch.setattr(fitting, 'BATCH', 2)
    command = ['--preset', 'own', '--data_root', 'mine', *NO_WEIGHTS, *words(**SETTINGS)]
    assert run_sample.main(command) == 0
    out = capsys.readouterr()
    assert out.err == ''
    work = photographs.parent / 'result' / 'mine'
    assert len(list((work / 'result' / 'sem_seg').glob('*.png'))) == 4
    assert (work / 'result' / 'sheet.png').is_file()
    assert [path.name for path in photographs.parent.iterdir() if path.name != 'mine'] == ['result']
    masks, sheet, page, tools, following = out.out.splitlines()[-5:]
    assert masks.startswith('result/mine/result/sem_seg: pseudo-masks')
    assert sheet.startswith('result/mine/result/sheet.png: the contact sheet')
    assert page.startswith('result/mine/result/report/index.html: a page')
    assert tools.endswith(' python -m step.export --format coco DIR --what make_sem_seg --dataset '
                          'folder --data_root mine --work_dir result/mine')
    export.main([*tools[tools.index('--format'):].replace('DIR', 'exported').split(), '--images',
                 'none'])
    assert len(json.loads((photographs.parent / 'exported' / 'annotations.json').read_text())[
        'images']) == 4
    assert following.endswith(' --stages train_seg')
    told = out.out.replace('pseudo-masks', '').replace('activations and masks', '')
    for word in ('validation', 'no mask', 'score of AMN', 'eval_set', 'mIoU', 'labels.csv'):
        assert word not in told
    assert ('for 4 images (a flag changes it): CAM 5 epochs of 2 steps of 2 images, learning rate '
            '0.1;' in told)
    assert not (work / 'result' / 'scores.jsonl').exists()


def test_a_dry_run_of_ones_own_tells_the_settings(photographs, capsys):
    assert run_sample.main(['--preset', 'own', '--data_root', str(photographs), *NO_WEIGHTS,
                            '--dry_run', '--amn_num_epoches', '3']) == 0
    out = capsys.readouterr().out
    assert ['train_irn', '4', '250', 'no'] in [line.split() for line in out.splitlines()]
    assert 'AMN 3 epochs of 1 steps of 4 images' in out
    assert 'masked' not in out
    assert not (photographs.parent / 'result').exists()


@pytest.mark.parametrize(('images', 'batches', 'epochs'), [
    (3, (3, 3, 3), (100, 100, 250)), (40, (8, 8, 8), (20, 20, 50)), (300, (8, 8, 8), (5, 5, 7)),
    (1000, (16, 16, 32), (5, 5, 9)), (10582, (16, 16, 32), (5, 5, 3))])
def test_settings_by_the_number_of_images(images, batches, epochs):
    """Tens, hundreds, thousands; as published for ten thousand."""
    args = options.build_parser(STAGES).parse_args([])
    fitting.fit(args, images, frozenset())
    names = ('cam', 'amn', 'irn')
    assert tuple(getattr(args, f'{name}_batch_size') for name in names) == batches
    assert tuple(getattr(args, f'{name}_num_epoches') for name in names) == epochs
    assert args.irn_learning_rate == 0.1
    assert args.amn_learning_rate == ([5e-6, 1e-4] if images >= 1000 else [5e-5, 1e-3])


def test_flags_win_over_the_rule():
    args = options.build_parser(STAGES).parse_args([])
    args.irn_batch_size, args.amn_learning_rate = 4, [1.0, 2.0]
    told = fitting.fit(args, 40, {'irn_batch_size', 'amn_learning_rate'})
    assert (args.irn_batch_size, args.irn_num_epoches) == (4, 25)
    assert args.amn_learning_rate == [1.0, 2.0]
    assert 'IRN 25 epochs of 10 steps of 4 images, learning rate 0.1' in told
    assert 'AMN 20 epochs of 5 steps of 8 images, learning rate 1 and 2' in told


def test_the_work_folder_has_the_name_of_the_data(photographs, monkeypatch):
    """Of the folder that the path means, whatever its spelling."""
    for folder, root in ((photographs.parent, 'mine/'), (photographs, '.'),
                         (photographs.parent, 'mine/../mine')):
        monkeypatch.chdir(folder)
        args = options.build_parser(STAGES).parse_args(
            options.with_preset(['--preset=own', '--data-root', root]))
        options.resolve_files(STAGES, args)
        assert args.sem_seg_out_dir == 'result/mine/result/sem_seg'


@pytest.mark.parametrize(('words', 'kept'), [
    ('--preset own --stages a..b --seed 1', '--preset own --seed 1'),
    ('--stages=a --make_cam_pass --eval_cam_pass True --seed 1', '--seed 1'),
    ('--train-cam-pass=True --data_root make_cam_pass', '--data_root make_cam_pass')])
def test_the_words_without_stages(words, kept):
    assert options.without_stages(words.split()) == kept.split()


def test_a_range_leaves_out_scores_where_there_are_no_masks(photographs, capsys):
    command = ['--dataset', 'folder', '--data_root', 'mine', *NO_WEIGHTS, *words(**QUICK)]
    whole = 'train_cam..eval_sem_seg,report'
    assert run_sample.main([*command, '--dry_run', '--stages', whole]) == 0
    out = capsys.readouterr().out
    assert 'left out, because there are no masks: eval_cam, eval_ir_label, eval_amn_cam, ' \
           'eval_amn_ir_label, eval_sem_seg' in out
    assert '\neval_cam' not in out
    for stages in ('train_cam..make_cam,eval_cam', 'eval_cam'):  # it is asked for by its name
        assert run_sample.main([*command, '--dry_run', '--stages', stages]) == 1
        assert 'a score needs masks, every other stage goes without: leave out eval_cam' in \
            capsys.readouterr().err


def test_names_of_stages_and_early_flags_may_have_dashes(capsys):
    words = options.with_preset(['--stage-from', 'tests.extending.smooth', '--from-released'])
    stages = options.with_stages_of(STAGES, words)
    args = options.build_parser(stages).parse_args([*words, '--stages', 'smooth,eval-cam'])
    assert (args.preset, args.smooth_pass, args.eval_cam_pass) == ('released', True, True)


def test_a_range_keeps_scores_where_there_are_masks(tmp_path, capsys):
    assert run_sample.main(['--voc12_root', str(GOLDEN / 'tree'), *NO_WEIGHTS, *words(**QUICK),
                            *words(train_list='train_aug', val_list='val', infer_list='train'),
                            '--dry_run', '--stages', 'train_cam..eval_cam']) == 0
    out = capsys.readouterr().out
    assert '\neval_cam' in out
    assert 'left out' not in out
