"""What script/check_gpu.py says of this CPU, and of a network that computes something else."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from script import check_gpu
from tests import cpu_settings, tolerances

ROOT = Path(__file__).resolve().parent.parent
# a network whose third layer has one block less, as seen by the authors' numbers
FAULT = '''
import sys
from net import resnet50
forward = resnet50.ResNet.forward
def altered(self, x):
    self.layer3[5] = resnet50.nn.Identity()
    return forward(self, x)
resnet50.ResNet.forward = altered
from script import check_gpu
sys.exit(check_gpu.main(sys.argv[1:]))
'''


def run(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)


def test_all_is_well_on_this_cpu():
    done = run('script/check_gpu.py', '--device', 'cpu', '--quick', '--parts', 'networks', 'files')
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ('---- paste from here into an issue ----', '---- to here ----')
    assert lines[-2].startswith('verdict: all ') and lines[-2].endswith(' comparisons within their '
                                                                        'limits (cpu)')
    assert any(line.startswith('driver: ') for line in lines)
    for stage in ('make_cam', 'make_amn_cam', 'make_sem_seg', 'make_ins_seg', 'make_seg'):
        assert any(line.startswith('ok') and f' {stage}: fp32 cpu against CPU' in line
                   and line.endswith('4 of 4 equal')
                   for line in lines), stage


def test_a_block_less_is_told_of():
    done = run('-c', FAULT, '--device', 'cpu', '--quick', '--parts', 'networks')
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    verdict = next(number for number, line in enumerate(lines) if line.startswith('verdict: '))
    assert lines[verdict].endswith(' comparisons FAILED')
    assert any(line.startswith('FAIL forward') and 'cam_logits' in line for line in lines[verdict:])


@pytest.mark.parametrize(('text', 'told', 'traced'), [
    ('nobody knows this\nerror', 'RuntimeError: nobody knows this ', True),
    # a want of the machine comes with its remedy
    ('CUDA error: out of memory', "the GPU's memory is not enough: --quick, or ", False)])
def test_a_part_that_ends_with_an_error_fails(monkeypatch, capsys, text, told, traced):
    def broken(args):
        yield check_gpu.Check('files', 'one', 0.0, 0.0)
        raise RuntimeError(text)

    monkeypatch.setitem(check_gpu.PARTS, 'files', broken)
    assert check_gpu.main(['--device', 'cpu', '--parts', 'files']) == 1
    said = capsys.readouterr()
    assert 'verdict: 1 of 2 comparisons FAILED\nFAIL files' in said.out
    assert told in said.out
    assert ('Traceback' in said.err) == traced


def test_a_driver_that_is_too_old_is_to_be_pasted(monkeypatch, capsys):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setattr(check_gpu.machine, 'driver', lambda root=None: '535.183.01')
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    assert check_gpu.main(['--parts', 'networks']) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '---- paste from here into an issue ----'
    assert 'driver: 535.183.01; CUDA of this torch: 13.0' in lines
    assert 'CUDA 13.0 needs 580 or newer' in lines[-2]
    assert lines[-2].startswith('verdict: nothing was compared: ')


def test_speed_alone_compares_nothing(monkeypatch, capsys):
    def benchmark(words, **options):
        Path(words[words.index('--json') + 1]).write_text(json.dumps({
            'arguments': {'size': [94, 125], 'crop': 128}, 'matrix_gflops': 100.0,
            'stages': [{'stage': 'make_cam', 'seconds': 0.5, 'peak_memory_gb': 1.0}]}))
        return subprocess.CompletedProcess(words, 0, '', '')

    monkeypatch.setattr(check_gpu.subprocess, 'run', benchmark)
    assert check_gpu.main(['--device', 'cpu', '--parts', 'speed']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith('no GPU: ') for line in lines)
    assert any(line.split() == ['make_cam', '2.00', 'images/s', '1.0', 'GB'] for line in lines)
    assert lines[-2] == 'verdict: nothing was compared (cpu)'


def test_an_error_that_is_no_number_fails():
    assert not check_gpu.Check('forward', 'logits', float('nan'), 1.0).passed
    assert tolerances.exceeded({'logits': float('nan')}, {'logits': 1.0})


def test_settings_are_those_that_the_cpu_has():
    for machine, capability, number, left_out in (
            ('x86_64', 'AVX512', 3, []), ('x86_64', 'AVX2', 3, ['AVX512']),
            ('x86_64', 'DEFAULT', 2, ['AVX2', 'AVX512']),
            ('aarch64', 'SVE256', 3, ['AVX2', 'AVX512'])):
        found, without = cpu_settings.settings(machine, capability)
        assert (len(found), without) == (number, left_out)
        asked = {environment.get('ATEN_CPU_CAPABILITY', 'default').upper() for environment in found}
        assert not asked & set(left_out)
