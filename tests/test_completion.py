"""--print_completion: what bash makes of it."""
import subprocess
import sys

import pytest

import run_sample

COMPLETE = """
source "$1"
COMP_WORDS=(./run_sample.py "${@:2}")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
_shtab_run_sample_py
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def completed(tmp_path, capsys):
    """What bash offers for the last of the words."""
    pytest.importorskip('shtab')
    with pytest.raises(SystemExit) as stopped:
        run_sample.main(['--print_completion', 'bash'])
    assert not stopped.value.code
    (tmp_path / 'completion').write_text(capsys.readouterr().out)

    def complete(*words):
        done = subprocess.run(['bash', '-c', COMPLETE, 'bash', tmp_path / 'completion', *words],
                              capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.split()
    return complete


def test_flags_and_their_values(completed, tmp_path):
    (tmp_path / 'photographs').mkdir()
    (tmp_path / 'photo.txt').touch()
    assert set(completed('--cam_num')) == {'--cam_num_epoches'}
    assert {'--train_cam_pass', '--train_amn_pass'} <= set(completed('--train_'))
    assert completed('--precision', 'b') == ['bf16']
    assert completed('--data_root', 'ph') == ['photographs']


def test_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    assert run_sample.main(['--print_completion', 'zsh']) == 1
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('error: --print_completion takes shtab (')
    assert line.endswith(': pip install shtab')
