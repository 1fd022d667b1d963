"""Every stage, run through the command on the small tree, against what the authors' stages made of
it.
"""
import json
import shutil

import numpy as np
import pytest

from misc.files import activations, label_maps
from tests.conftest import GOLDEN, Command

IDS = ['2007_000001', '2007_000002', '2007_000003', '2007_000004']
EXPECTED = GOLDEN / 'expected'


@pytest.fixture(scope='module')
def made(formula_weights, tmp_path_factory):
    """All stages that need no training, with the formula's weights; 'max' apart, as the authors':
    full settings.
    """
    folder = tmp_path_factory.mktemp('made')
    command = Command(GOLDEN / 'tree', folder)
    for name in ('cam', 'amn', 'irn'):
        shutil.copy(formula_weights / f'res50_{name}.pth', folder / f'{name}.pth')
    assert command('make_cam', 'eval_cam', 'cam_to_ir_label', 'eval_ir_label', 'make_amn_cam',
                   'eval_amn_cam', 'amn_cam_to_ir_label', 'eval_amn_ir_label', 'make_sem_seg',
                   'eval_sem_seg') == 0
    return command


@pytest.mark.parametrize('image_id', IDS)
@pytest.mark.parametrize('name', ['cam', 'amn_cam'])
def test_golden_activations(made, name, image_id):
    golden = np.load(EXPECTED / f'{image_id}_activations.npz')
    ours = activations.load(made.folder / name, image_id)
    assert ours.keys.tolist() == golden[f'{name}_keys'].tolist()
    for field, theirs in (('strided', golden[name]), ('high_res', golden[f'{name}_high_res'])):
        difference = np.abs(getattr(ours, field) - theirs.astype(np.float32))
        assert difference.max() <= 1e-3 * theirs.max()


@pytest.mark.parametrize('image_id', IDS)
@pytest.mark.parametrize('name', ['ir_label', 'amn_ir_label', 'sem_seg'])
def test_golden_label_maps(made, name, image_id):
    theirs = label_maps.load(EXPECTED / name / f'{image_id}.png')
    ours = label_maps.load(made.folder / name / f'{image_id}.png')
    assert (ours != theirs).mean() <= 1e-3


@pytest.mark.parametrize(('stage', 'name'), [('eval_cam', 'cam'), ('eval_amn_cam', 'amn_cam'),
                                             ('eval_sem_seg', 'sem_seg')])
def test_golden_scores(made, stage, name):
    theirs, ours = json.loads((EXPECTED / 'scores.json').read_text())[name], made.scores()[stage]
    assert ours['miou'] == pytest.approx(theirs['miou'], abs=2e-4)
    for mine, golden in zip(ours['iou'].values(), theirs['iou'], strict=True):
        assert mine == (None if golden is None else pytest.approx(golden, abs=2e-3))
    assert ours['split'] == 'train'
    assert ours['images'] == 4
    assert ours['threshold'] == {'cam': 0.15, 'amn_cam': 0.25, 'sem_seg': 0.25}[name]
