"""Every stage through the command on the drawn COCO-shaped set, and what grows with the number of
classes.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import run_sample
from coco14 import prepare, sample
from coco14.dataloader import CLASSES, COCO14
from misc.files import activations, label_maps
from misc.method import activating, maps
from misc.score.scores import read_scores
from step.pipeline import STAGES
from tests.conftest import Command
from tests.tiny import QUICK

# pycocotools under numpy 2
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation')

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {**QUICK, 'sem_seg_canvas': 0, 'sem_seg_bg_thres': 0.22, 'cam_dtype': 'uint8'}


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    root = sample.draw(tmp_path_factory.mktemp('drawn') / 'coco', n_train=8, n_val=2, size=80)
    assert prepare.main(['--coco_root', str(root), '--num_workers', '0',
                         '--allow_other_counts']) == 0
    return root


def test_every_stage(drawn, tmp_path):
    words = Command(None, tmp_path).words(*(stage.name for stage in STAGES
                                            if stage.name != 'eval_ins_seg'), **{
        **FLAGS, 'dataset': 'coco14', 'data_root': drawn, 'train_list': 'train2014',
        'val_list': 'val2014',
        'infer_list': 'train2014', 'eval_set': 'train2014', 'seg_list': 'val2014'})
    words = words[:words.index('--voc12_root')] + words[words.index('--voc12_root') + 2:]
    assert run_sample.main(words) == 0
    source = COCO14(drawn)
    for image_id in source.names('train2014'):
        with Image.open(source.image_path(image_id)) as picture:
            hw = picture.height, picture.width
        keys = np.flatnonzero(source.labels(image_id))
        for folder, extra in (('cam', 0), ('amn_cam', 1)):
            stored = activations.load(tmp_path / folder, image_id)
            assert stored.keys.tolist() == keys.tolist()
            assert stored.high_res.shape == (len(keys) + extra, *hw)
            assert stored.strided.shape == (len(keys) + extra, *maps.strided_hw(hw))
            assert np.isfinite(stored.high_res).all()
        for folder in ('ir_label', 'amn_ir_label', 'sem_seg'):
            label_map = label_maps.load(tmp_path / folder / f'{image_id}.png')
            assert label_map.shape == hw
            assert set(np.unique(label_map)) <= {0, 255, *(keys + 1)}
            if len(keys) == 0:
                assert not label_map.any()  # all background
    scores = read_scores(tmp_path / 'scores.jsonl')
    for stage in ('eval_cam', 'eval_ir_label', 'eval_amn_cam', 'eval_amn_ir_label', 'eval_sem_seg'):
        assert [scores[stage][name] for name in ('data', 'split', 'images')] == ['coco14',
                                                                                 'train2014', 8]
    assert list(scores['eval_sem_seg']['iou']) == ['background', *CLASSES]
    assert scores['eval_sem_seg']['threshold'] == 0.22
    assert scores['eval_sem_seg']['iou']['person'] is None  # in no mask and in no pseudo-mask


def test_images_without_a_class_are_scored_as_all_background(drawn, tmp_path):
    """A split of such images alone: every known pixel is right."""
    source = COCO14(drawn)
    empty = [image_id for image_id in source.names('train2014')
             if not source.labels(image_id).any()]
    (tmp_path / 'empty.txt').write_text('\n'.join(empty))
    for image_id in empty:
        hw = label_maps.load(source.mask_path(image_id)).shape
        activations.save(tmp_path / 'cam', image_id, activations.Activation(
            np.zeros(0, np.int64), np.zeros((0, *maps.strided_hw(hw)), np.float32),
            np.zeros((0, *hw), np.float32)))
    assert run_sample.main(['--dataset', 'coco14', '--data_root', str(drawn), '--work_dir',
                            str(tmp_path), '--num_workers', '0',
                            '--eval_set', str(tmp_path / 'empty.txt'), '--cam_out_dir',
                            str(tmp_path / 'cam'), '--eval_cam_pass']) == 0
    line = json.loads((tmp_path / 'result' / 'scores.jsonl').read_text())
    assert (line['miou'], line['iou']['background'], line['images']) == (1.0, 1.0, len(empty))


def test_check_data(drawn, capsys):
    assert run_sample.main(['--dataset', 'coco14', '--data_root', str(drawn), '--check_data']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line.split()[1:] for line in lines
                if line.startswith('--train_list')) == ['train2014', '8', '0', '1', '0']
    assert any('airplane' in line for line in lines)


def script(*words):
    return subprocess.run(['bash', 'script/generate_pseudo_mask_coco.sh', *map(str, words)],
                          cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=os.environ | {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'})


def test_script(drawn, tmp_path):
    words = [drawn, '--work_dir', tmp_path, '--pretrained', 'none', '--num_workers', 0]
    for name, value in QUICK.items():
        words += [f'--{name}', *(value if isinstance(value, list) else [value])]
    done = script(*words)
    assert done.returncode == 0, done.stderr
    ids = COCO14(drawn).names('train2014')
    log = (tmp_path / 'sess' / 'sample_train_eval.log').read_text(encoding='utf-8')
    assert 'infer_list=train2014::100 ' in log
    assert len(list((tmp_path / 'result' / 'sem_seg').glob('*.png'))) == len(ids)
    settings = json.loads((tmp_path / 'result' / 'sem_seg' / '_settings.json').read_text())
    assert (settings['bg_thres'], settings['canvas'], settings['power']) == (0.22, 0, 1.3)
    assert json.loads((tmp_path / 'result' / 'cam' /
                       '_settings.json').read_text())['dtype'] == 'uint8'
    analysis = json.loads((tmp_path / 'result' / 'analysis' / 'analysis.json').read_text())
    assert (analysis['images'], analysis['methods'].keys()) == (8, {'cam', 'amn_cam'})
    assert (tmp_path / 'result' / 'report' / 'index.html').is_file()
    table = done.stdout[done.stdout.index('mIoU in %'):]
    for title, published in (('CAM seed', '33.1'), ('AMN seed', '40.3'), ('pseudo-mask', '46.7')):
        assert any(line.startswith(title) and line.endswith(f'train2014 (8)       {published}')
                   for line in table.splitlines())
    again = script(*words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count('is already trained with these settings') == 3
    assert again.stdout.count('8 of 8 images are already done') == 5


@pytest.mark.parametrize(('words', 'code', 'told'), [
    ([], 1, 'error: where is coco14? Give --data_root FOLDER'),
    (['nowhere'], 1, 'error: nowhere: no such folder')])
def test_script_tells_how_it_is_used(words, code, told):
    done = script(*words)
    assert done.returncode == code
    assert told in done.stderr


@pytest.mark.parametrize('planes', [1, 8, 100])
def test_softmax_in_parts(monkeypatch, planes):
    """Against softmax of all planes at once; logits so large that exp would overflow."""
    monkeypatch.setattr(activating, 'PLANES', planes)
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(81, *hw, generator=generator) * 60 for hw in ((5, 7), (3, 4), (10, 13))]
    kept = np.array([0, 7, 8, 40, 80])
    whole = torch.stack([maps.resize(scale, (20, 26)) for scale in logits]).mean(0)
    assert whole.max() > 89
    made = activating._softmax(logits, kept, (20, 26))
    torch.testing.assert_close(made, whole.softmax(0)[kept], atol=1e-6, rtol=1e-4)
