"""Killed at any time, with the disk full, with damaged files: the same command goes on and ends
with the same bytes.
"""
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import run_sample
from misc import training
from misc.pyutils import UserError, lock, unlock
from tests.conftest import GOLDEN, Command
from tests.killed import after
from tests.test_pipeline import ALL, files
from tests.tiny import QUICK

ROOT = Path(__file__).resolve().parent.parent
# six steps
LONGER = QUICK | {'cam_num_epoches': 3, 'amn_num_epoches': 3, 'irn_num_epoches': 3, 'seg_steps': 6}
# that make a file an image, or weights
MAKING = [name for name in ALL if not name.startswith(('eval', 'report', 'draw'))]
FILES = {'train_cam': 'cam.pth', 'train_amn': 'amn.pth', 'train_irn': 'irn.pth', 'make_cam': 'cam',
         'make_amn_cam': 'amn_cam',
         'cam_to_ir_label': 'ir_label', 'amn_cam_to_ir_label': 'amn_ir_label',
         'make_sem_seg': 'sem_seg',
         'make_ins_seg': 'ins_seg', 'train_seg': 'seg.pth', 'make_seg': 'seg'}


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    command = Command(GOLDEN / 'tree', tmp_path_factory.mktemp('undisturbed'))
    assert command(*MAKING, **LONGER) == 0
    return command


def without(command, stage, folder):
    """A copy of a finished run in which `stage` has not been run."""
    fresh = Command(command.tree, Path(shutil.copytree(command.folder, folder)))
    target = fresh.folder / FILES[stage]
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
        target.with_suffix('.json').unlink()
    return fresh


def killed(command, what, number, stage, **flags):
    words = command.words(stage, **LONGER | flags)
    return subprocess.run([sys.executable, '-m', 'tests.killed', what, str(number), *words],
                          cwd=ROOT, capture_output=True, text=True, timeout=120).returncode


def cases():
    """For each stage two places to be killed at, from a seeded list."""
    rng = random.Random(7)
    for stage in MAKING:
        if stage.startswith('train'):
            yield stage, 'step', rng.randint(1, 6)
            yield stage, 'half', rng.randint(1, 4)
        else:
            yield stage, 'file', rng.randint(1, 4)
            yield stage, 'half', rng.randint(1, 5)


@pytest.mark.slow
@pytest.mark.parametrize(('stage', 'what', 'number'), list(cases()))
def test_killed_and_resumed_is_as_undisturbed(undisturbed, tmp_path, stage, what, number):
    command = without(undisturbed, stage, tmp_path / 'run')
    assert killed(command, what, number, stage, save_every=1e-9) == -signal.SIGKILL
    assert files(command.folder) != files(undisturbed.folder)
    for left in command.folder.rglob('.*.part'):
        left.unlink()  # what a killed process cannot tidy up; nothing reads it
    assert command(stage, **LONGER) == 0
    ours, theirs = files(command.folder), files(undisturbed.folder)
    assert {name for name in ours.keys() | theirs.keys() if ours.get(name)
            != theirs.get(name)} == set()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and a function that changes its size."""
    disk = tmp_path / 'disk'
    disk.mkdir()

    def resize(size):
        subprocess.run(['mount', '-o', f'remount,size={size}', disk], check=True)
    try:
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], check=True,
                       capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('only root may mount a file system')
    yield disk, resize
    subprocess.run(['umount', '--lazy', disk], check=True)


@pytest.mark.parametrize('stage, name, size', [
    ('make_cam', 'cam_out_dir', '64k'), ('cam_to_ir_label', 'ir_label_out_dir', '8k'),
    ('make_sem_seg', 'sem_seg_out_dir', '8k'), ('train_cam', 'cam_weights_name', '24k')])
def test_a_full_disk_ends_with_one_line_and_loses_nothing(undisturbed, tmp_path, small_disk, capsys,
                                                          stage, name, size):
    disk, resize = small_disk
    resize(size)
    command = without(undisturbed, stage, tmp_path / 'run')
    there = {name: disk / FILES[stage]}
    assert command(stage, **LONGER | there) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: cannot write {disk}')
    assert 'No space left on device' in error
    assert not list(disk.rglob('.*.part'))
    resize('4m')
    assert command(stage, **LONGER | there) == 0
    check_same(disk, undisturbed, stage)


def check_same(disk, undisturbed, stage):
    made = files(disk)
    assert made == {path: content for path, content in files(undisturbed.folder).items() if path
                    in made}
    assert any(path.startswith(FILES[stage]) for path in made)


@pytest.mark.parametrize(('stage', 'name', 'renamed'),
                         [('make_cam', 'cam_out_dir', 3), ('train_irn', 'irn_weights_name', 2)])
def test_a_folder_that_becomes_unwritable(undisturbed, tmp_path, monkeypatch, capsys, stage, name,
                                          renamed):
    """In the middle of a stage a file takes the folder's place."""
    disk = tmp_path / 'disk'
    command = without(undisturbed, stage, tmp_path / 'run')
    there = {name: disk / FILES[stage]}
    folder = disk / FILES[stage] if name.endswith('dir') else disk
    away = tmp_path / 'away'

    def lose():
        folder.rename(away)
        folder.write_text('')
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', after(os.replace, renamed, lose))
        assert command(stage, **LONGER | there) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f'error: cannot write {disk}')
    folder.unlink()
    away.rename(folder)
    assert command(stage, **LONGER | there) == 0
    check_same(disk, undisturbed, stage)


@pytest.mark.parametrize('content', [b'', bytes(100)], ids=['empty', 'zeros'])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(undisturbed, tmp_path, content, capsys):
    command = without(undisturbed, 'train_cam', tmp_path / 'run')
    assert killed(command, 'step', 5, 'train_cam') == -signal.SIGKILL
    checkpoint = command.folder / 'cam.ckpt'
    assert training.read_checkpoint(checkpoint)['step'] == 4
    checkpoint.write_bytes(content)
    assert command('train_cam', **LONGER) == 0
    out = capsys.readouterr().out
    assert 'cam.ckpt is damaged' in out
    assert 'step 2' in out
    assert files(command.folder) == files(undisturbed.folder)


def test_two_damaged_checkpoints_are_told_of(tmp_path):
    for name in ('cam.ckpt', 'cam.ckpt.before'):
        (tmp_path / name).write_bytes(b'nothing')
    with pytest.raises(UserError, match='--overwrite'):
        training.read_checkpoint(tmp_path / 'cam.ckpt')


@pytest.mark.parametrize(('stage', 'name'), [('make_cam', 'cam/2007_000002.npz'),
                                             ('make_sem_seg', 'sem_seg/2007_000002.png')])
@pytest.mark.parametrize('length', [0, 30])
def test_damaged_outputs_are_told_of_by_who_reads_them(undisturbed, tmp_path, capsys, stage, name,
                                                       length):
    command = Command(undisturbed.tree, Path(shutil.copytree(undisturbed.folder, tmp_path / 'run')))
    path = command.folder / name
    path.write_bytes(path.read_bytes()[:length])
    reader = {'make_cam': 'eval_cam', 'make_sem_seg': 'eval_sem_seg'}[stage]
    assert command(reader, **LONGER) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ')
    assert str(path) in error


def test_a_lock_keeps_a_second_run_out_and_dies_with_its_process(tmp_path):
    holder = subprocess.Popen([sys.executable, '-c', 'import sys, time; from misc.pyutils import '
                                                     'lock; lock(sys.argv[1], "x")\n'
                               'print("held", flush=True); time.sleep(60)', str(tmp_path / 'lock')],
                              cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'held\n'
    with pytest.raises(UserError, match='in use by another run'):
        lock(tmp_path / 'lock', 'result/cam')
    holder.kill()
    holder.wait()
    lock(tmp_path / 'lock', 'result/cam')
    unlock()


FORKS = """if True:
    import os, sys, time
    from misc.pyutils import lock, unlock
    lock(sys.argv[1], "x")
    worker = os.fork()
    if worker == 0:
        unlock()
        print(os.getpid(), flush=True)
        time.sleep(60)
    time.sleep(60)
"""


def test_a_worker_neither_gives_up_the_lock_of_its_run_nor_keeps_it(tmp_path):
    holder = subprocess.Popen([sys.executable, '-c', FORKS, str(tmp_path / 'lock')], cwd=ROOT,
                              stdout=subprocess.PIPE, text=True)
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(UserError, match='in use by another run'):
            lock(tmp_path / 'lock', 'result/cam')
        holder.kill()
        holder.wait()
        lock(tmp_path / 'lock', 'result/cam')
        os.kill(worker, 0)  # which outlives it
        unlock()
    finally:
        holder.kill()
        os.kill(worker, signal.SIGKILL)


def test_ctrl_c_ends_with_one_line(undisturbed, tmp_path, monkeypatch, capsys):
    command = without(undisturbed, 'train_cam', tmp_path / 'run')

    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(training, 'step', interrupted)
    assert command('train_cam', **LONGER) == 130
    assert capsys.readouterr().err.splitlines()[-1] == 'stopped by Ctrl-C; the same command goes on'
    assert not any(isinstance(handler, logging.FileHandler) for handler in run_sample.log.handlers)
