"""Two processes against one, through torchrun and gloo: the same weights to rounding, the same
files to the byte.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from misc.files import weights
from tests.conftest import GOLDEN

ROOT = Path(__file__).resolve().parent.parent
TRAININGS = {'cam': 'train_cam', 'amn': 'train_amn', 'irn': 'train_irn'}
FOLDERS = ('cam', 'ir_label', 'amn_cam', 'amn_ir_label', 'sem_seg', 'ins_seg')


def run(processes, inputs, outputs, stages, *flags, tree=GOLDEN / 'tree'):
    """run_sample.py with `processes` processes; weights and folders that a stage only reads come
    from `inputs`.
    """
    words = ['run_sample.py'] if processes == 1 else ['-m', 'torch.distributed.run',
                                                      f'--nproc_per_node={processes}',
                                                      '--standalone', '--', 'run_sample.py']
    words += ['--voc12_root', tree, '--train_list', 'train_aug', '--val_list', 'val',
              '--infer_list', 'train',
              '--num_workers', 0, '--device', 'cpu', '--pretrained', inputs / 'resnet50.pth',
              '--log_name', outputs / 'run', '--scores_file', outputs / 'scores.jsonl',
              '--cam_scales', '1.0', '0.5']
    for name, stage in TRAININGS.items():
        made_here = stage in stages
        words += [f'--{name}_weights_name', (outputs if made_here else inputs) / f'{name}.pth',
                  f'--{name}_crop_size', 96, f'--{name}_batch_size', 4, f'--{name}_num_epoches', 3]
    for name in FOLDERS:
        words += [f'--{name}_out_dir',
                  (outputs if any(stage.startswith(('make', 'cam_to', 'amn_cam_to'))
                                  for stage in stages)
                   else inputs) / name]
    words += [f'--{stage}_pass' for stage in stages] + list(flags)
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True,
                          text=True, timeout=300, env=os.environ | {'OMP_NUM_THREADS': '1'})


@pytest.fixture(scope='module')
def alone(formula_weights, tmp_path_factory):
    """Everything made by one process: three steps of each training, every file."""
    folder = tmp_path_factory.mktemp('alone')
    state = torch.load(formula_weights / 'res50_cam.pth', weights_only=True)
    torch.save({key.removeprefix('resnet50.'): value for key, value in state.items()
                if key.startswith('resnet50.')},
               folder / 'resnet50.pth')
    done = run(1, folder, folder, ['train_cam', 'make_cam', 'cam_to_ir_label', 'train_amn',
                                   'make_amn_cam',
                                   'amn_cam_to_ir_label', 'train_irn', 'make_sem_seg',
                                   'make_ins_seg', 'eval_cam', 'eval_sem_seg', 'eval_ins_seg'],
               '--cam_learning_rate', '0.001', '--irn_learning_rate', '0.01')
    assert done.returncode == 0, done.stderr
    return folder


def test_three_training_steps_are_the_same(alone, tmp_path):
    done = run(2, alone, tmp_path, list(TRAININGS.values()), '--cam_learning_rate', '0.001',
               '--irn_learning_rate', '0.01')
    assert done.returncode == 0, done.stderr
    for name in TRAININGS:
        one, two = (weights.read_state(folder / f'{name}.pth') for folder in (alone, tmp_path))
        for key, value in one.items():
            assert (value.double() - two[key].double()).abs().max() <= 1e-5, (name, key)


def test_every_file_is_identical(alone, tmp_path):
    done = run(2, alone, tmp_path, ['make_cam', 'cam_to_ir_label', 'make_amn_cam',
                                    'amn_cam_to_ir_label', 'make_sem_seg',
                                    'eval_cam', 'eval_sem_seg', 'make_ins_seg', 'eval_ins_seg'])
    assert done.returncode == 0, done.stderr
    for name in FOLDERS:
        ours = {path.name: path.read_bytes() for path in (alone / name).iterdir()
                if path.name != '.lock'}
        theirs = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()
                  if path.name != '.lock'}
        # four images, the record and what they were made from; classes.txt beside label maps
        assert len(ours.keys() - {'classes.txt'}) == 6
        assert ours == theirs, name
    scores = [[json.loads(line) | {'time': '', 'commit': ''}
               for line in (folder / 'scores.jsonl').read_text().splitlines()]
              for folder in (alone, tmp_path)]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 3


def test_the_analysis_is_identical(alone, tmp_path):
    for processes in (1, 2):
        done = run(processes, alone, tmp_path, ['analyze_threshold'], '--analysis_out_dir',
                   tmp_path / f'{processes}')
        assert done.returncode == 0, done.stderr
    ours, theirs = ({path.name: path.read_bytes() for path in (tmp_path / which).iterdir()}
                    for which in '12')
    assert len(ours) == 12
    assert ours == theirs


def test_the_report_is_identical(alone, tmp_path):
    made = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        done = run(processes, alone, folder, ['report'], '--report_out_dir', folder / 'report')
        assert done.returncode == 0, done.stderr
        made.append({str(path.relative_to(folder)): path.read_bytes()
                     for path in (folder / 'report').rglob('*')
                     if path.is_file()})
    assert len(made[0]) == 2 + 4 * 7
    assert made[0] == made[1]


@pytest.mark.parametrize('image_id', [f'2007_00000{number}' for number in (1, 2)])
def test_a_process_that_fails_ends_all(alone, tree, tmp_path, image_id):
    """Whichever process meets the image, stderr and the log say so."""
    (tree / 'JPEGImages' / f'{image_id}.jpg').write_bytes(b'no photograph')
    done = run(2, alone, tmp_path, ['train_cam'], tree=tree)
    assert done.returncode != 0
    assert f'{image_id}.jpg' in done.stderr
    assert f'{image_id}.jpg' in (tmp_path / 'run.log').read_text()
    assert not (tmp_path / 'cam.pth').exists()
