"""The CRF beside the stage that feeds it: the same files, records and failures as after it."""
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from misc import inference
from misc.files import inputs
from misc.method import seeds
from misc.pyutils import UserError
from tests import pretend_cuda
from tests.conftest import GOLDEN, Command
from tests.test_pipeline import IDS, files
from tests.tiny import QUICK

ROOT = Path(__file__).resolve().parent.parent
PAIRS = {'make_cam': 'cam_to_ir_label', 'make_amn_cam': 'amn_cam_to_ir_label'}
STAGES = [stage for pair in PAIRS.items() for stage in pair]
FOLDERS = ('cam', 'ir_label', 'amn_cam', 'amn_ir_label')
BESIDE = QUICK | {'crf_beside': True, 'num_workers': 2}


@pytest.fixture(scope='module')
def after(tmp_path_factory):
    """Each stage after the one that feeds it, without workers."""
    command = Command(GOLDEN / 'tree', tmp_path_factory.mktemp('after'))
    assert command('train_cam', 'make_cam', 'cam_to_ir_label', 'train_amn', 'make_amn_cam',
                   'amn_cam_to_ir_label', **QUICK, crf_beside=False) == 0
    assert 'beside it' not in told(command)
    return command


@pytest.fixture
def run(after, tmp_path):
    """The trained networks, and nothing made by them."""
    command = Command(after.tree, Path(shutil.copytree(after.folder, tmp_path / 'run')))
    for name in FOLDERS:
        shutil.rmtree(command.folder / name)
        (command.folder / f'.{name}.lock').unlink()
    (command.folder / 'run.log').unlink()
    return command


@pytest.fixture
def to_the_end(monkeypatch):
    """A feeding stage waits for what runs beside it: how far that comes depends on no time."""
    def end(self):
        self._ids.put(None)
        self._thread.join()
    monkeypatch.setattr(inference._Beside, 'end', end)
    monkeypatch.setattr(os, 'nice', lambda by: 0)  # nor on what else the machine computes


def told(command):
    return re.sub(r'^\S+ \S+ ', '', (command.folder / 'run.log').read_text(), flags=re.MULTILINE)


def check_same(run, after):
    ours, theirs = files(run.folder), files(after.folder)
    assert {name for name in ours.keys() | theirs.keys() if ours.get(name)
            != theirs.get(name)} == set()


# the same files

def test_both_pairs_beside_leave_the_same_files(run, after, to_the_end):
    assert run(*STAGES, **BESIDE) == 0
    check_same(run, after)
    log = told(run)
    for feeding, fed in PAIRS.items():
        assert f'beside it, on the cores that it leaves idle: {fed}\n' in log
        assert f'{fed}: 4 of 4 images are done beside {feeding}\n' in log
        assert re.search(rf'=== {fed} took 0:00:\d\d after 4 images beside {feeding}\n', log)
    assert log.count('4 of 4 images are already done\n') == 2
    before = {path: path.stat().st_mtime_ns for path in run.folder.glob('*/*') if path.is_file()}
    assert run(*STAGES, **BESIDE) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert told(run).count(': 0 of 4 images are done beside') == 2


def test_what_is_not_done_beside_is_done_after(run, after):
    assert run(*STAGES, **BESIDE) == 0
    check_same(run, after)


def test_on_a_gpu_by_default(run, after, to_the_end):
    with pretend_cuda.device() as gpu:
        assert run(*STAGES, device='cuda', num_workers=2, **QUICK) == 0
    check_same(run, after)
    assert told(run).count('4 of 4 images are done beside') == 2
    assert gpu.total('copy') == 0


def test_on_the_cpu_not_by_default(run, after):
    assert run(*STAGES, num_workers=2, device='cpu', **QUICK) == 0
    check_same(run, after)
    assert 'beside it' not in told(run)


def test_not_where_there_is_no_worker(run, after):
    assert run(*STAGES, **BESIDE | {'num_workers': 0}) == 0
    check_same(run, after)
    assert 'cam_to_ir_label runs after it, not beside: --num_workers is 0\n' in told(run)


def test_not_where_thresholds_need_all_activations(run, tmp_path):
    flags = {'conf_fg_thres': 'auto', 'conf_bg_thres': 'auto'}
    assert run('make_cam', 'cam_to_ir_label', **BESIDE | flags) == 0
    assert ('cam_to_ir_label runs after it, not beside: its thresholds are chosen from all '
            'activations\n') in told(run)
    one = {name: content for name, content in files(run.folder).items() if 'ir_label/' in name}
    shutil.rmtree(run.folder / 'ir_label')
    assert run('cam_to_ir_label', **QUICK | flags) == 0
    assert one == {name: content for name, content in files(run.folder).items()
                   if 'ir_label/' in name}


@pytest.mark.slow
def test_two_processes_share_both(run, after):
    words = run.words('make_cam', 'cam_to_ir_label', device='cpu', **BESIDE)
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
                           '--standalone', '--', 'run_sample.py', *words], cwd=ROOT, timeout=300,
                          capture_output=True, text=True,
                          # as many as here: how sums round depends on them
                          env=os.environ | {'OMP_NUM_THREADS': str(torch.get_num_threads())})
    assert done.returncode == 0, done.stderr
    for name, content in files(run.folder).items():
        assert content == files(after.folder)[name], name
    assert re.search(r'cam_to_ir_label: \d of 4 images are done beside make_cam\n', told(run))


# going on

@pytest.mark.slow
@pytest.mark.parametrize(('what', 'number'), [('file', 4), ('half', 7)])
def test_killed_and_resumed(run, after, what, number):
    words = run.words(*STAGES, **BESIDE)
    ended = subprocess.run([sys.executable, '-m', 'tests.killed', what, str(number), *words],
                           cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert run(*STAGES, **BESIDE) == 0
    for left in run.folder.rglob('.*.part'):
        left.unlink()  # of a worker that outlived its run for a moment
    check_same(run, after)


def test_a_worker_that_is_killed_ends_the_stage_and_the_same_command_goes_on(
        run, after, monkeypatch, capsys, to_the_end):
    real, here = seeds.refined_seed, os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(seeds, 'refined_seed', lambda *values: os.kill(os.getpid(), signal.SIGKILL)
                      if os.getpid() != here else real(*values))
        assert run('make_cam', 'cam_to_ir_label', **BESIDE) == 1
    assert 'a worker process was ended by the system' in told(run)
    assert run(*STAGES, **BESIDE) == 0
    check_same(run, after)


def test_what_is_there_is_fed_first_and_not_made_again(run, after, to_the_end):
    assert run('make_cam', **QUICK) == 0
    before = {path: path.stat().st_mtime_ns for path in (run.folder / 'cam').glob('*.npz')}
    assert run(*STAGES, **BESIDE) == 0
    assert 'cam_to_ir_label: 4 of 4 images are done beside make_cam\n' in told(run)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    check_same(run, after)


def test_overwrite_is_obeyed_once(run, after, to_the_end):
    assert run(*STAGES, **QUICK) == 0
    for path in run.folder.glob('*ir_label/*.png'):
        path.write_bytes(b'old')
    assert run(*STAGES, **BESIDE, overwrite=True) == 0
    assert told(run).count('4 of 4 images are done beside') == 2
    assert told(run).count('4 of 4 images are already done\n') == 2
    check_same(run, after)


def test_other_settings_are_refused_before_the_network_computes(run, after, capsys):
    assert run(*STAGES, **QUICK) == 0
    (run.folder / 'cam' / f'{IDS[0]}.npz').unlink()
    assert run('make_cam', 'cam_to_ir_label', **BESIDE, cam_conf_fg_thres=0.6) == 1
    assert 'fg_thres: was 0.3, now 0.6' in capsys.readouterr().err.splitlines()[-1]
    assert not (run.folder / 'cam' / f'{IDS[0]}.npz').exists()


def test_what_has_changed_is_made_anew_in_both(run, tree, to_the_end):
    """And nothing from an activation that is still the old one."""
    command = Command(tree, run.folder)
    assert command(*STAGES, **QUICK) == 0
    path = tree / 'Annotations' / f'{IDS[0]}.xml'
    text = path.read_text()
    path.unlink()
    path.write_text(text.replace('<object>', '<object><name>sofa</name></object><object>', 1))
    beside = Command(tree, Path(shutil.copytree(run.folder, run.folder.parent / 'beside')))
    assert command(*STAGES, **QUICK) == 0
    assert beside(*STAGES, **BESIDE) == 0
    check_same(beside, command)
    assert 'is made anew' in (log := told(beside)) or 'are made anew' in log


def test_an_activation_is_looked_at_when_it_can_be_known_again(run, monkeypatch, to_the_end):
    """A file that has changed just now may change again, unseen: its time would not be kept."""
    seen = []
    monkeypatch.setattr(inference.time, 'sleep', seen.append)
    assert run('make_cam', 'cam_to_ir_label', **BESIDE) == 0
    assert len(seen) == 4
    assert max(seen) > 0.5 * inputs.RACY / 1e9


# failures

@pytest.mark.parametrize('flags', [QUICK | {'crf_beside': False}, BESIDE], ids=['after', 'beside'])
def test_an_image_that_cannot_be_refined_is_told_by_its_stage(run, after, monkeypatch, capsys,
                                                              flags, to_the_end):
    real = seeds.refined_seed
    bad = np.asarray(inference.datasets.imutils.read_image(
        run.tree / 'JPEGImages' / f'{IDS[1]}.jpg'))

    def refined_seed(image, *values):
        if image.shape == bad.shape and (image == bad).all():
            raise UserError('no such luck')
        return real(image, *values)

    with monkeypatch.context() as patch:
        patch.setattr(seeds, 'refined_seed', refined_seed)
        assert run('make_cam', 'cam_to_ir_label', **flags) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f'error: 1 of 4 images failed, the others are done; first {IDS[1]}: no such luck')
    log = told(run)
    assert log.count(f'failed: {IDS[1]}: no such luck\n') == 1
    assert log.index('=== cam_to_ir_label: ') < log.index('failed: ')
    assert run(*STAGES, **flags) == 0
    check_same(run, after)


def test_an_image_without_an_activation_is_told_by_the_feeding_stage(run, tree, after, capsys,
                                                                     to_the_end):
    path = tree / 'JPEGImages' / f'{IDS[2]}.jpg'
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:len(whole) // 2])
    command = Command(tree, run.folder)
    assert command('make_cam', 'cam_to_ir_label', **BESIDE) == 1
    assert f'1 of 4 images failed, the others are done; first {IDS[2]}: ' in (
        capsys.readouterr().err.splitlines()[-1])
    assert 'cam_to_ir_label: 3 of 4 images are done beside make_cam\n' in told(command)
    path.write_bytes(whole)
    assert command(*STAGES, **BESIDE) == 0
    check_same(command, after)


def test_a_fault_beside_is_no_silent_one(run, monkeypatch, to_the_end):
    def refined_seed(*values):
        raise ZeroDivisionError
    monkeypatch.setattr(seeds, 'refined_seed', refined_seed)
    with pytest.raises(ZeroDivisionError):
        run('make_cam', 'cam_to_ir_label', **BESIDE)
    assert '=== cam_to_ir_label' not in told(run)


def test_idle_workers_give_way():
    here = os.getpid(), os.nice(0)
    (process, nice), = inference.datasets.read_ahead(lambda request: (os.getpid(), os.nice(0)),
                                                     ['a'], 1, idle=True)
    assert (process != here[0], nice) == (True, min(here[1] + 10, 19))  # 19: the kernel's lowest
