"""Wants of the machine, planted: one line with the remedy from every command, and what can be made
is made.
"""
import errno
import os
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch

from coco14 import prepare as coco_prepare
from misc import ending as ends
from misc import inference, pyutils, training
from misc.data import datasets
from misc.method import activating
from misc.pyutils import UserError
from script import benchmark, compare_thresholds, contact_sheet, pretrain_backbone, score_table
from step import segment, show
from tests.test_command import last_error
from tests.tiny import QUICK
from voc12 import prepare as voc_prepare

GPU_TEXTS = ['CUDA out of memory. Tried to allocate 2.00 GiB',
             'CUDA error: out of memory\nCUDA kernel errors might be',
             'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
             'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`',
             'CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED',
             'CUDA driver error: out of memory',
             'FIND was unable to find an engine to execute this computation',
             'GET was unable to find an engine to execute this computation',
             'Unable to find a valid cuDNN algorithm to run convolution',
             'CUDA error: insufficient: CUSPARSE_STATUS_ALLOC_FAILED']
OUT_ON_GPU = ([RuntimeError(text) for text in GPU_TEXTS] + [torch.OutOfMemoryError(GPU_TEXTS[0]),
                                                            torch.OutOfMemoryError('')]
              + ([torch.AcceleratorError(GPU_TEXTS[1])] if hasattr(torch, 'AcceleratorError')
                 else []))
OUT_ON_HOST = [RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't "
                            "allocate memory: you tried"),
               MemoryError(), np._core._exceptions._ArrayMemoryError((10 ** 9, 10 ** 3),
                                                                     np.dtype(float)),
               OSError(errno.ENOMEM, 'Cannot allocate memory')]


def raising(error):
    def function(*arguments, **options):
        raise error
    return function


@pytest.mark.parametrize(('error', 'what'), [(error, ends.GPU) for error in OUT_ON_GPU]
                         + [(error, ends.HOST) for error in OUT_ON_HOST],
                         ids=lambda value: str(value)[:40])
def test_a_training_without_memory(command, monkeypatch, capsys, error, what):
    monkeypatch.setattr(training, 'step', raising(error))
    assert command('train_cam', **QUICK) == 1
    line = last_error(capsys)
    assert f'error: {what} is not enough: --accumulate 2' in line
    assert '--cam_crop_size below 64' in line
    assert ('--precision' in line) == (what == ends.GPU)
    assert '--cam_scales' not in line
    assert '--device cpu' not in line


@pytest.mark.parametrize(('error', 'what'),
                         [(OUT_ON_GPU[1], ends.GPU), (OUT_ON_HOST[0], ends.HOST)])
def test_an_image_without_memory_is_named_and_the_others_are_made(command, monkeypatch, capsys,
                                                                  error, what):
    assert command('train_cam', **QUICK) == 0
    cams_of, calls = activating.cams_of, []

    def second_fails(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return cams_of(*arguments)
    monkeypatch.setattr(activating, 'cams_of', second_fails)
    capsys.readouterr()
    assert command('make_cam', **QUICK) == 1
    line = last_error(capsys)
    assert (f'1 of 4 images failed, the others are done; first 2007_000002: {what} is not enough: '
            f'smaller --cam_scales' in line)
    assert '--accumulate' not in line
    assert len(list((command.folder / 'cam').glob('*.npz'))) == 3


@pytest.mark.parametrize('num_workers', [0, 1])
@pytest.mark.parametrize('where', ['read', 'save'])
def test_memory_of_reading_and_saving(where, num_workers):
    made = []

    def read(name):
        if where == 'read' and name == 'b':
            raise MemoryError
        return name

    def save(name):
        if where == 'save' and name == 'b':
            raise MemoryError
        made.append(name)

    with pytest.raises(ends.OutOfMemory,
                       match=r"1 of 3 images failed.*first b: the machine's memory"), \
            inference.Images(['a', 'b', 'c'], lambda name: False, num_workers) as images:
        for name, _ in images.todo(read):
            images.save(name, save, name)
    assert made == ['a', 'c']


@pytest.mark.parametrize(('capability', 'cuda', 'built', 'want', 'told'), [
    ((6, 1), '13.0', ['sm_75', 'sm_120'], 'kernels', 'cards before 7.5: .*whl/cu126'),
    ((12, 0), '12.6', ['sm_50', 'sm_90a'], ends.GPU, 'CUDA 13, with driver 580 .*whl/cu130'),
    ((12, 1), '13.0', ['sm_75', 'sm_120'], ends.GPU, 'install a newer torch')])
def test_a_convolution_that_cannot_be_run(monkeypatch, capability, cuda, built, want, told):
    """Torch has one wording for a card without kernels and for too little memory."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a card')
    monkeypatch.setattr(torch.cuda, 'get_arch_list', lambda: built)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    assert ends.want_of(RuntimeError('GET was unable to find an engine to execute this')) == want
    with pytest.raises(UserError, match=told), ends.explained():
        raise RuntimeError('CUDA error: no kernel image is available for execution on the device')


def test_only_advice_that_can_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: False)
    args = Namespace(precision='fp32', num_workers=0, cam_batch_size=4, cam_crop_size=512,
                     accumulate=4, inference_batch_size=2)
    assert ends.remedy_of('train_cam',
                          args)(ends.GPU) == '--cam_crop_size below 512 or --precision fp16'
    assert ends.remedy_of('make_cam', args)(ends.HOST) == \
        '--inference_batch_size 1, smaller --cam_scales or smaller photographs'
    args = Namespace(precision='bf16', num_workers=2, seg_batch_size=9, seg_crop_size=321,
                     accumulate=3)
    remedy = ends.remedy_of('train_seg', args)(ends.HOST)
    assert remedy == '--accumulate 6, --seg_crop_size below 321 or --num_workers below 2'
    assert ends.remedy_of('make_sem_seg', args)(ends.GPU) == '--device cpu or smaller photographs'
    args.num_workers = None
    assert ends.remedy_of('make_sem_seg', args)(ends.HOST) == \
        'a smaller --num_workers or smaller photographs'
    # a stage of one's own
    assert ends.remedy_of('train_mine', args)(ends.HOST) == \
        'a smaller batch in train_mine or a smaller --num_workers'
    assert [ends.fewer_workers(n)(ends.HOST) for n in (2, 0, None)] == \
        ['--num_workers below 2', 'free some', 'a smaller --num_workers']


SHM = 'unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)'
BUS = ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
       "workers are out of shared "
       'memory.')


@pytest.mark.parametrize(('text', 'parts'), [
    (SHM, ['/dev/shm', '--shm-size', '--ipc=host', '--num_workers 0']),
    (BUS, ['/dev/shm', '--shm-size', '--num_workers 0']),
    ('DataLoader worker (pid 7) is killed by signal: Killed. ',
     ['a worker process was ended', 'smaller --num_workers']),
    ('unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)',
     ['ulimit -n']),
    ('Caught MemoryError in DataLoader worker process 0.',
     ["the machine's memory", '--accumulate'])])
def test_what_workers_want(command, monkeypatch, capsys, text, parts):
    monkeypatch.setattr(datasets.data.DataLoader, '__iter__', raising(RuntimeError(text)))
    assert command('train_cam', **QUICK) == 1
    line = last_error(capsys)
    assert all(part in line for part in parts), line


def test_a_card_that_the_wheel_was_not_built_for(command, monkeypatch, capsys):
    error = RuntimeError('CUDA error: no kernel image is available for execution on the device')
    for name, value in (('get_device_name', 'GTX 1080'), ('get_device_capability', (6, 1)),
                        ('get_arch_list', ['sm_75', 'sm_90'])):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(training, 'step', raising(error))
    assert command('train_cam', **QUICK) == 1
    line = last_error(capsys)
    for part in ('GTX 1080', '6.1', 'sm_75 sm_90', 'whl/cu126', '--device cpu'):
        assert part in line


@pytest.mark.parametrize(('main', 'module', 'name', 'words'), [
    (show.main, show, 'run', ['a.jpg', '--labels', 'dog']),
    (segment.main, segment, 'run', ['a.jpg', '--out', 'x']),
    (voc_prepare.main, voc_prepare, '_run', ['--voc12_root', 'x']),
    (coco_prepare.main, coco_prepare, '_run', ['--coco_root', 'x']),
    (pretrain_backbone.main, pretrain_backbone, 'run', ['--out', 'x']),
    (None, benchmark, 'run', []),
    (None, compare_thresholds, 'run', []), (None, contact_sheet, 'run', ['--out', 'x']),
    (None, score_table, 'run', ['x'])], ids=lambda value: getattr(value, '__name__', ''))
@pytest.mark.parametrize(('error', 'told'),
                         [(OUT_ON_HOST[0], "error: the machine's memory is not enough: "),
                          (OUT_ON_GPU[1], "error: the GPU's memory is not enough: "),
                          (KeyboardInterrupt(), 'stopped by Ctrl-C'),
                          (RuntimeError('a bug'), None)])
def test_every_command_ends_alike(monkeypatch, capsys, main, module, name, words, error, told):
    monkeypatch.setattr(module, name, raising(error))
    monkeypatch.setattr(sys, 'argv', ['command', *words])
    arguments = () if main is None else (words,)
    if told is None:  # what the user cannot mend is not hidden
        with pytest.raises(RuntimeError, match='a bug'):
            module.main(*arguments)
        return
    assert module.main(*arguments) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(told)


@pytest.mark.parametrize('batches', [True, False])
def test_workers_do_without_shared_memory(monkeypatch, batches):
    # in the forked worker, too
    monkeypatch.setattr(torch.Tensor, 'share_memory_', raising(RuntimeError(SHM)))

    def read(key):
        return ({'image': np.full((2, 3), key, np.float32), 'index': key} if batches
                else (key, [torch.full((2, 3), float(key))]))
    keys = [[0, 1], [2, 3]] if batches else [0, 1]
    items = list(datasets.read_ahead(read, keys, 1, batches=batches))
    if batches:
        assert items[1]['image'][:, 0, 0].tolist() == [2, 3]
        assert items[1]['index'].dtype == torch.int64
    else:
        assert [item[0] for item in items] == [0, 1]
        assert items[1][1][0].tolist() == [[1, 1, 1], [1, 1, 1]]
        items[1][1][0].add_(1)  # it may be written to


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    told = []
    monkeypatch.setattr('fcntl.flock', raising(OSError(number, os.strerror(number))))
    monkeypatch.setattr(pyutils.log, 'info', lambda text, *values: told.append(text % values))
    pyutils.lock(tmp_path / 'lock', 'x')
    pyutils.unlock()
    assert len(told) == 1
    assert 'cannot be locked' in told[0]


def test_a_file_system_without_chmod(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'chmod',
                        raising(PermissionError(errno.EPERM, 'Operation not permitted')))
    before = os.umask(0o027)
    try:
        pyutils.write_json(tmp_path / 'a.json', {})
    finally:
        os.umask(before)
    assert (tmp_path / 'a.json').stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize('name', [
    'x' * 251 + '.png', '長' * 83 + '.png', 'a[1]*' * 20 + '.png', 'short.png',
    '長' * 33 + '.ckpt'])
def test_any_name_that_the_file_system_holds(tmp_path, name):
    with pyutils.atomic_path(tmp_path / name) as temporary:
        temporary.write_text('x')
        left = temporary.name
        assert len(os.fsencode(left)) <= max(115, len(os.fsencode(name)))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / left).write_text('half')
    pyutils.remove_unfinished(tmp_path, name.rsplit('.', 1)[0])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_locks_of_long_names_differ(tmp_path):
    paths = [pyutils.lock_path(tmp_path / ('長' * 84 + end)) for end in 'ab']
    assert paths[0] != paths[1]
    for path in paths:
        pyutils.lock(path, 'x')
    pyutils.unlock()
    assert pyutils.lock_path(tmp_path / 'cam').name == '.cam.lock'


@pytest.mark.parametrize(('number', 'part'), [
    (errno.ENOSPC, 'make room'), (errno.EROFS, '--work_dir'), (errno.EMFILE, 'ulimit -n')])
def test_a_disk_that_refuses_tells_the_remedy(tmp_path, monkeypatch, number, part):
    monkeypatch.setattr(os, 'replace', raising(OSError(number, os.strerror(number))))
    with pytest.raises(UserError, match=part):
        pyutils.write_json(tmp_path / 'a.json', {})
    assert not list(tmp_path.iterdir())


def test_the_threads_are_told(command, capsys):
    assert command('train_cam', **QUICK) == 0
    assert f'{torch.get_num_threads()} threads' in (command.folder /
                                                    'run.log').read_text().splitlines()[0]
