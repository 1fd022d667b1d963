"""What the kernel's files tell, from files laid out as it lays them out."""
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from misc import machine, torchutils
from misc.pyutils import UserError

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [f'script/{path.name}' for path in (ROOT / 'script').glob('*.py')
            # one only imports what is installed; the other is told by benchmark.py, which starts it
            if path.name not in ('check_env.py', 'benchmark_authors.py')]
COMMANDS += ['run_sample.py', 'amn.py', 'step.show', 'step.segment', 'step.export',
             'coco14.prepare']
DRIVER = 'NVRM version: NVIDIA UNIX {}  {}  Release Build\nGCC version:  gcc version 12.2.0\n'


def lay_out(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


V2, V1 = '0::/user/mine\n', '5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n'
V1_CPU = 'sys/fs/cgroup/cpu,cpuacct'


@pytest.mark.parametrize(('files', 'cores'), [
    ({}, math.inf),
    ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '150000 100000\n'}, 1.5),
    ({'proc/self/cgroup': V2, 'sys/fs/cgroup/user/mine/cpu.max': 'max 100000\n'}, math.inf),
    # the group above limits
    ({'proc/self/cgroup': V2, 'sys/fs/cgroup/user/mine/cpu.max': 'max 100000\n',
      'sys/fs/cgroup/user/cpu.max': '300000 100000\n'}, 3),
    ({'proc/self/cgroup': V2, 'sys/fs/cgroup/user/mine/cpu.max': '50000 100000\n',
      'sys/fs/cgroup/user/cpu.max': '300000 100000\n'}, 0.5),
    ({'proc/self/cgroup': V2, 'sys/fs/cgroup/others/cpu.max': '50000 100000\n'}, math.inf),
    ({'proc/self/cgroup': V1, f'{V1_CPU}/docker/x/cpu.cfs_quota_us': '-1\n',
      f'{V1_CPU}/docker/x/cpu.cfs_period_us': '100000\n'}, math.inf),
    # seen from within: its own is what is mounted
    ({'proc/self/cgroup': V1, f'{V1_CPU}/cpu.cfs_quota_us': '200000\n',
      f'{V1_CPU}/cpu.cfs_period_us': '100000\n'}, 2),
    ({'proc/self/cgroup': '1:cpu:/a\n', 'sys/fs/cgroup/cpu/a/cpu.cfs_quota_us': '70000\n',
      'sys/fs/cgroup/cpu/a/cpu.cfs_period_us': '10000\n'}, 7),
    ({'proc/self/cgroup': '3:cpuset:/a\n', 'sys/fs/cgroup/cpuset/a/cpu.cfs_quota_us': '70000\n',
      'sys/fs/cgroup/cpuset/a/cpu.cfs_period_us': '10000\n'}, math.inf)])
def test_quota_of_control_groups(tmp_path, files, cores):
    assert machine.quota(lay_out(tmp_path, files)) == cores


@pytest.mark.parametrize(('quota', 'cores'), [(math.inf, 8), (3, 3), (2.5, 3), (0.2, 1), (64, 8)])
def test_cores_are_what_affinity_and_quota_allow(monkeypatch, quota, cores):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: range(8))
    monkeypatch.setattr(machine, 'quota', lambda: quota)
    assert torchutils.cores() == cores


@pytest.mark.parametrize(('environment', 'threads'),
                         [({}, 1), ({'OMP_NUM_THREADS': '2'}, 2), ({'MKL_NUM_THREADS': '2'}, 2)])
def test_threads_follow_the_quota_unless_the_user_says(monkeypatch, environment, threads):
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, 'quota', lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torchutils.choose_device('cpu')
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(('kernel', 'version'), [('x86_64 Kernel Module', '535.183.01'),
                                                 ('aarch64 Kernel Module', '470.57'),
                                                 ('Open Kernel Module for x86_64', '580.65.06')])
def test_version_of_the_driver(tmp_path, kernel, version):
    assert machine.driver(tmp_path) is None
    lay_out(tmp_path, {'proc/driver/nvidia/version': DRIVER.format(kernel, version)})
    assert machine.driver(tmp_path) == version


def test_wsl_asks_nvidia_smi(tmp_path, monkeypatch):
    lay_out(tmp_path, {'dev/dxg': '', 'bin/nvidia-smi': '#!/bin/sh\necho 537.13\n'})
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    assert machine.driver(tmp_path) is None  # which cannot be run
    (tmp_path / 'bin/nvidia-smi').chmod(0o755)
    assert machine.driver(tmp_path) == '537.13'
    (tmp_path / 'dev/dxg').unlink()
    assert machine.driver(tmp_path) is None


@pytest.mark.parametrize(('flags', 'precision'), [
    ('fpu sse2 avx2 avx512f', 'fp32'), ('fpu avx512f avx512_bf16', 'bf16'),
    ('fpu amx_bf16 amx_tile', 'bf16'), (None, 'fp32')])
def test_auto_is_bf16_where_the_processor_has_it(monkeypatch, tmp_path, flags, precision):
    if flags is not None:
        lay_out(tmp_path, {'proc/cpuinfo': f'processor\t: 0\nflags\t\t: {flags}\n'})
    monkeypatch.setattr(machine.has_bf16, '__defaults__', (tmp_path,))
    monkeypatch.delenv('ONEDNN_MAX_CPU_ISA', raising=False)
    cpu = torch.device('cpu')
    assert torchutils.choose_precision('auto', cpu) == precision
    assert torchutils.choose_precision('fp32', cpu) == 'fp32'
    # it can be asked for anywhere: only the time is lost
    assert torchutils.choose_precision('bf16', cpu) == 'bf16'


@pytest.mark.parametrize(('isa', 'precision'), [
    ('avx2', 'fp32'), ('AVX512_CORE_VNNI', 'fp32'), ('AVX512_CORE_BF16', 'bf16'),
    ('default', 'bf16')])
def test_auto_knows_what_onednn_is_kept_to(monkeypatch, tmp_path, isa, precision):
    lay_out(tmp_path, {'proc/cpuinfo': 'flags\t\t: fpu avx512_bf16 amx_bf16\n'})
    monkeypatch.setattr(machine.has_bf16, '__defaults__', (tmp_path,))
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', isa)
    assert torchutils.choose_precision('auto', torch.device('cpu')) == precision


def with_driver(monkeypatch, tmp_path, version, cuda):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    lay_out(tmp_path, {'proc/driver/nvidia/version': DRIVER.format('x86_64 Kernel Module',
                                                                   version)})
    monkeypatch.setattr(machine.no_cuda, '__defaults__', (tmp_path,))
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.mark.parametrize(('version', 'cuda', 'told'), [
    ('535.183.01', '13.0', ['535.183.01', 'CUDA 13.0 needs 580 or newer', 'whl/cu126']),
    ('470.57', '12.6', ['470.57', 'CUDA 12.6 needs 525 or newer. Update the driver;']),
    ('390.157', '13.0', ['390.157', 'needs 580 or newer. Update the driver;']),
    ('580.65.06', '13.0', ['new enough', '--gpus all'])])
@pytest.mark.parametrize('device', ['auto', 'cuda'])
def test_a_driver_without_a_device_is_no_reason_to_take_the_cpu(monkeypatch, tmp_path, device,
                                                                version, cuda, told):
    with_driver(monkeypatch, tmp_path, version, cuda)
    with pytest.raises(UserError) as error:
        torchutils.choose_device(device)
    for part in [*told, f'--device {device}', '--device cpu']:
        assert part in str(error.value)
    assert torchutils.choose_device('cpu').type == 'cpu'


def test_the_cpu_is_taken_where_no_gpu_is_meant(monkeypatch, tmp_path):
    with_driver(monkeypatch, tmp_path, '535.183.01', '13.0')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert torchutils.choose_device('auto').type == 'cpu'
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    monkeypatch.setattr(torch.version, 'cuda', None)  # torch's build for the CPU
    assert torchutils.choose_device('auto').type == 'cpu'


IMPORT = '''
import builtins, os, runpy, sys
original = builtins.__import__
def watched(name, *arguments, **options):
    if name.split('.')[0] == 'torch' and 'told' not in globals():
        globals()['told'] = True
        print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'), flush=True)
    return original(name, *arguments, **options)
builtins.__import__ = watched
what = sys.argv[1]
sys.argv = [what, '--help']
run = runpy.run_path if what.endswith('.py') else runpy.run_module
run(what, run_name='__main__')
'''


@pytest.mark.parametrize('what', COMMANDS)
def test_openmp_is_told_before_torch_is_there(what):
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    done = subprocess.run([sys.executable, '-c', IMPORT, what], cwd=ROOT, capture_output=True,
                          text=True, env=environment | {'PYTHONPATH': str(ROOT)})
    assert done.stdout.splitlines()[0] == '1000 None', done.stderr


def test_a_user_who_tells_openmp_is_obeyed():
    for name, value in (('OMP_WAIT_POLICY', 'ACTIVE'), ('GOMP_SPINCOUNT', '7')):
        done = subprocess.run([sys.executable, '-c', 'import misc, os; '
                                                     'print(os.environ.get("OMP_WAIT_POLICY"), '
                               'os.environ.get("GOMP_SPINCOUNT"))'], cwd=ROOT, capture_output=True,
                              text=True, env={'PATH': os.environ['PATH'], name: value})
        assert done.stdout.split() == (['ACTIVE', 'None'] if name == 'OMP_WAIT_POLICY'
                                       else ['None', '7'])
