"""The four examples of docs/extending.md, each one file of a user's own beside the checkout, run as
the command runs them.
"""
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from misc.files import weights
from misc.pyutils import UserError
from tests.conftest import GOLDEN
from tests.tiny import QUICK

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / 'tests' / 'extending'


def run(folder, *words, processes=1, **flags):
    """run_sample.py as its user would run it, from the folder that holds the file of one's own."""
    start = ([] if processes == 1 else ['-m', 'torch.distributed.run', '--standalone',
                                        f'--nproc_per_node={processes}', '--'])
    for name, value in (QUICK | {'num_workers': 0, 'pretrained': 'none',
                                 'work_dir': 'out'} | flags).items():
        words += (f'--{name}', *map(str, value if isinstance(value, list) else [value]))
    environment = os.environ | {'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': '1'}
    return subprocess.run([sys.executable, *start, str(ROOT / 'run_sample.py'), *words], cwd=folder,
                          capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture
def mine(tmp_path):
    """A folder with the small tree; `example` copies a user's file to it."""
    shutil.copytree(GOLDEN / 'tree', tmp_path / 'VOC2012')
    return tmp_path


def example(folder, name):
    shutil.copy(EXAMPLES / f'{name}.py', folder)


VOC = {'voc12_root': 'VOC2012', 'train_list': 'train_aug', 'val_list': 'val', 'infer_list': 'train',
       'seg_list': 'val'}


def test_a_loss(mine):
    """It is learnt by one process as by two, and it is a setting: the published loss is another
    training.
    """
    example(mine, 'equal_activations')
    for processes in (1, 2):
        done = run(mine, '--train_cam_pass', **VOC, cam_loss='equal_activations',
                   processes=processes, cam_weights_name=f'{processes}.pth')
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(mine / f'{processes}.pth', weights_only=True) for processes in (1, 2))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)
    assert json.loads((mine / '1.json').read_text())['loss'] == 'equal_activations'
    other = run(mine, '--train_cam_pass', **VOC, cam_weights_name='1.pth')
    assert other.returncode == 1
    assert 'loss: was equal_activations, now not set' in other.stderr
    (mine / 'equal_activations.py').write_text((EXAMPLES /
                                                'equal_activations.py').read_text().replace(
                                                    '0.1 *', '0.2 *'))
    changed = run(mine, '--train_cam_pass', **VOC, cam_loss='equal_activations',
                  cam_weights_name='1.pth')
    assert changed.returncode == 1
    assert 'code' in changed.stderr


def test_a_loss_with_a_denominator_of_its_own(mine):
    """One process and two learn the same, and their validation loss is of the same denominator: no
    label counts as an image.
    """
    example(mine, 'focal')
    told = []
    for processes in (1, 2):
        done = run(mine, '--train_cam_pass', **VOC, cam_loss='focal', processes=processes,
                   cam_weights_name=f'{processes}.pth', cam_learning_rate=0)
        assert done.returncode == 0, done.stderr
        told.append(float(re.search(r'validation loss (\S+) ', done.stdout)[1]))
    one, two = (torch.load(mine / f'{processes}.pth', weights_only=True) for processes in (1, 2))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)
    assert told[0] == told[1]
    # of weights that do not move
    learnt = float(re.search(r'epoch 1/1: loss (\d\S+),', done.stdout)[1])
    assert abs(told[0] - learnt) < 0.3 * learnt


def test_a_loss_or_backbone_that_is_not_there_is_told_before_the_first_stage(mine):
    for flag, wanted in (('amn_loss', 'Objective'), ('backbone', 'Backbone')):
        done = run(mine, '--stages', 'train_cam..train_amn', '--dry_run', **VOC,
                   **{flag: 'no_such'})
        assert done.returncode == 1 and f'--{flag} no_such: cannot be imported' in done.stderr
        done = run(mine, '--stages', 'train_cam..train_amn', '--dry_run', **VOC, **{flag: 'json'})
        assert f'--{flag} json: a module without a class {wanted}' in done.stderr


def test_a_backbone(mine):
    """Patches of 14 pixels do not divide crops of 64: CAM and AMN are trained, and their
    activations made, all the same.
    """
    example(mine, 'small_vit')
    done = run(mine, '--stages', 'train_cam..make_amn_cam', **VOC, backbone='small_vit',
               cam_network='net.resnet50_cam', amn_network='net.resnet50_amn')
    assert done.returncode == 0, done.stderr
    stored = np.load(next((mine / 'out' / 'result' / 'amn_cam').glob('*.npz')))
    assert np.isfinite(stored['high_res']).all()
    state = torch.load(mine / 'out' / 'sess' / 'res50_amn.pth', weights_only=True)
    assert state['resnet50.patches.weight'].shape == (32, 3, 14, 14)
    other = run(mine, '--train_cam_pass', **VOC, backbone='small_vit', cam_weights_name='other.pth')
    assert ('error: --backbone small_vit: the Net of tests.tiny.cam takes no other backbone than '
            'its own' in other.stderr)


def test_a_data_set(tmp_path):
    example(tmp_path, 'lesions')
    rng = np.random.default_rng(0)
    for folder in ('scans', 'outlines'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
    found = {'a': 'cyst', 'b': 'tumour', 'c': 'cyst tumour', 'd': ''}
    (tmp_path / 'data' / 'found.txt').write_text(''.join(f'{name} {classes}\n'
                                                         for name, classes in found.items()))
    for name, classes in found.items():
        Image.fromarray(rng.integers(0, 255, (70, 90, 3),
                                     dtype=np.uint8)).save(tmp_path / 'data' / 'scans' /
                                                           f'{name}.png')
        mask = np.zeros((70, 90), np.uint8)
        mask[20:40, 20:40], mask[45:60, 50:80] = 'cyst' in classes, 2 * ('tumour' in classes)
        Image.fromarray(mask).save(tmp_path / 'data' / 'outlines' / f'{name}.png')
    names = ['--stages', 'train_cam..eval_sem_seg']
    done = run(tmp_path, *names, dataset='lesions', data_root='data')
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / 'out' / 'result' / 'scores.jsonl').read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last['stage'], last['data'], last['images'], list(last['iou'])) == (
        'eval_sem_seg', 'lesions', 4, ['background', 'cyst', 'tumour'])
    check = run(tmp_path, '--check_data', dataset='lesions', data_root='data')
    assert check.returncode == 0, check.stdout
    assert 'lesions data: 2 classes' in check.stdout


def test_a_stage(mine):
    """Between two of the project's: in the order of the run, in its table, in the help, in the
    report.
    """
    example(mine, 'smooth')
    done = run(mine, '--stage_from', 'smooth', '--stages', 'train_cam..eval_sem_seg,report', **VOC,
               smooth_size=7)
    assert done.returncode == 0, done.stderr
    order = re.findall(r'^=== (\w+):', done.stdout, re.M)
    assert (order.index('make_sem_seg') + 1 == order.index('smooth')
            == order.index('eval_sem_seg') - 1)
    assert 'pseudo-mask, smooth' in done.stdout
    assert len(list((mine / 'out' / 'result' / 'smooth').glob('*.png'))) == 4
    assert 'Smooth mask' in (mine / 'out' / 'result' / 'report' / 'index.html').read_text()
    told = run(mine, '--stage_from', 'smooth', '--help').stdout
    assert '--smooth_pass' in told and '--smooth_size' in told and '--smooth_out_dir' in told
    other = run(mine, '--stage_from', 'smooth', '--smooth_pass', **VOC, smooth_size=5)
    assert 'size: was 7, now 5' in other.stderr
    assert re.search(r'smooth: mIoU \S+ on train, 4 images, size 7$', done.stdout, re.M)
    (mine / 'two.txt').write_text('2007_000001\n2007_000002\n')
    few = run(mine, '--stage_from', 'smooth', '--smooth_pass', **VOC | {'infer_list': 'two.txt'},
              smooth_size=7)
    assert ('smooth scores 2 images of --eval_set (first 2007_000003) that it will not make'
            in few.stderr)
    masks = mine / 'out' / 'result' / 'sem_seg'
    Image.fromarray(np.zeros_like(
        np.array(Image.open(masks / '2007_000001.png')))).save(masks / '2007_000001.png')
    again = run(mine, '--stage_from', 'smooth', '--smooth_pass', **VOC, smooth_size=7)
    assert 'mask of 1 image: 2007_000001.jpg' in again.stdout
    (mine / 'VOC2012' / 'SegmentationClass' / '2007_000003.png').unlink()
    untrue = run(mine, '--stage_from', 'smooth', '--smooth_pass', '--overwrite', **VOC,
                 smooth_size=7)
    assert ('a score needs the mask of every image of --eval_set' in untrue.stderr and '=== smooth'
            not in untrue.stdout)


def test_a_label_map_of_another_size_is_not_laid_to_the_truth(mine):
    folder = mine / 'masks'
    shutil.copytree(mine / 'VOC2012' / 'SegmentationClass', folder)
    Image.open(folder / '2007_000002.png').transpose(
        Image.Transpose.ROTATE_90).save(folder / '2007_000002.png')
    done = run(mine, '--eval_sem_seg_pass', **VOC, sem_seg_out_dir='masks')
    assert ('2007_000002: what is scored is 97 x 128, but photograph and truth are 128 x 97'
            in done.stderr)


def test_what_is_wrong_with_a_stage(mine):
    (mine / 'wrong.py').write_text('from step.make_cam import STAGE\n')
    assert 'a stage make_cam is there already' in run(mine, '--stage_from', 'wrong').stderr
    assert 'no module with a STAGE' in run(mine, '--stage_from', 'json').stderr
    assert 'no module with a class Source' in run(mine, '--check_data', dataset='json').stderr


def test_imagenet_weights_do_not_fit_a_backbone_that_names_none():
    with pytest.raises(UserError, match='no weights that fit the backbone of tests.extending'):
        weights.load_pretrained(importlib.import_module('tests.extending.small_vit').Backbone(),
                                'imagenet')


def contact_sheet(work_dir, *words):
    return subprocess.run(
        [sys.executable, ROOT / 'script' / 'contact_sheet.py', '--voc12_root', GOLDEN / 'tree',
         '--list', 'train', '--work_dir', work_dir, '--out', work_dir / 'sheet.png', *words],
        env=os.environ | {'PYTHONPATH': str(ROOT / 'tests' / 'extending')}, capture_output=True,
        text=True)


def test_a_contact_sheet_shows_what_is_there(tmp_path):
    """A stage of one's own like the project's; no column for one that has made nothing."""
    done = contact_sheet(tmp_path)
    assert done.returncode == 1
    assert 'nothing to draw: none of' in done.stderr
    assert done.stderr.rstrip().endswith('run --make_cam_pass True first')
    widths = []
    for words, name in (((), 'sem_seg'), ((), 'smooth'), (('--stage_from', 'smooth'), 'smooth')):
        folder = tmp_path / 'result' / name
        if not folder.is_dir():
            shutil.copytree(GOLDEN / 'tree' / 'SegmentationClass', folder)
        assert contact_sheet(tmp_path, *words).returncode == 0
        with Image.open(tmp_path / 'sheet.png') as picture:
            widths.append(picture.width)
    assert widths[0] == widths[1] < widths[2]
    (tmp_path / 'result' / 'sem_seg' / '2007_000001.png').unlink()  # an empty cell
    assert contact_sheet(tmp_path).returncode == 0


def test_the_page_tells_of_every_example():
    text = (ROOT / 'docs' / 'extending.md').read_text(encoding='utf-8')
    for path in EXAMPLES.glob('*.py'):
        assert f'tests/extending/{path.name}' in text
