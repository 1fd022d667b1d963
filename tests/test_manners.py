"""What every command owes a person: help that does nothing else, an end without a word where nobody
reads on, the nearest flag for a wrong one, no bar frames in a file.
"""
import ast
import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from misc import ending, torchutils
from misc.parsing import Parser

ROOT = Path(__file__).resolve().parent.parent


def is_command(path):
    """Whether a module ends with `if __name__ == '__main__'`."""
    return any(isinstance(node, ast.If) and "'__main__'" in ast.unparse(node.test)
               for node in ast.parse(path.read_text(encoding='utf-8')).body)


MODULES = sorted(path.relative_to(ROOT) for folder in ('', 'misc', 'step', 'script', 'voc12',
                                                       'coco14', 'folder', 'tests')
                 for path in (ROOT / folder).glob('**/*.py' if folder else '*.py')
                 if is_command(path))
SCRIPTS = sorted(path.relative_to(ROOT) for path in (ROOT / 'script').glob('*.sh'))


def start(path, *words, cwd, **more):
    """The command of a module, as the README has it: `python FILE` in script/, else python -m."""
    is_file = path.parent.name in ('', 'script')
    start = ([ROOT / path] if is_file
             else ['-m', '.'.join(path.with_suffix('').parts)])
    environment = os.environ | {'OMP_NUM_THREADS': '1'} | ({} if is_file
                                                          else {'PYTHONPATH': str(ROOT)})
    return subprocess.Popen([sys.executable, *start, *words], cwd=cwd, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def test_commands_are_found():
    told = {str(path) for path in MODULES}
    assert {'run_sample.py', 'script/score_table.py', 'step/show.py', 'coco14/prepare.py',
            'misc/command/pages.py'} <= told


@pytest.mark.parametrize('path', MODULES, ids=str)
def test_help_of_a_module(path, tmp_path):
    """From another folder; and who reads only its first line hears no complaint."""
    process = start(path, '--help', cwd=tmp_path)
    out, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (0, '')
    assert out.startswith('usage: ')
    assert len(out.splitlines()) > 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('path', SCRIPTS, ids=str)
def test_help_of_a_shell_script(path, tmp_path):
    """The opening comment, on a machine without Python."""
    programs = tmp_path / 'programs'
    programs.mkdir()
    for name in ('bash', 'dirname'):
        (programs / name).symlink_to(shutil.which(name))
    for word in ('--help', '-h'):
        done = subprocess.run([programs / 'bash', ROOT / path, 'root', word], cwd=tmp_path,
                              env={'PATH': str(programs)}, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, '')
        lines = (ROOT / path).read_text().splitlines()
        assert done.stdout.splitlines()[0] == lines[path.name != 'help.sh'].removeprefix('# ')
        assert '#' not in done.stdout.splitlines()[-1][:1]
    assert [each.name for each in tmp_path.iterdir()] == ['programs']


def unread(write):
    """The exit code of a Python that runs `write` with stdout a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, '-c', write], cwd=ROOT, stdout=writer, text=True,
                          stderr=subprocess.PIPE, env=os.environ | {'OMP_NUM_THREADS': '1'})
    os.close(writer)
    return done.returncode, done.stderr


RUN = 'import sys; from misc import ending; sys.exit(ending.run(lambda: {}))'


@pytest.mark.parametrize('write', [
    RUN.format("print('text')"),
    RUN.format("[print('text' * 9999) for _ in range(9)] and None"),
    'from misc.pyutils import log, start_log; start_log(None); '
    + RUN.format("log.info('text')"),
    "import sys; from misc.parsing import Parser; Parser(prog='x').parse_args(['--help'])"],
    ids=['print', 'much', 'log', 'help'])
def test_nobody_reads_on(write):
    assert unread(write) == (ending.UNREAD, '')


def test_a_pipe_of_its_own_that_breaks_is_told():
    """Only where nobody reads stdout or stderr is a broken pipe no fault."""
    code = ('import sys; from misc import ending\n'
            'def work(): raise BrokenPipeError\n'
            'sys.exit(ending.run(work))')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == 'BrokenPipeError'


def test_a_file_gets_lines_of_progress(monkeypatch):
    """At most one each 30 s: the bars of a training of seconds leave none."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        assert list(torchutils.progress([1, 2], 'epoch 1/5', unit='step')) == [1, 2]
    assert told.getvalue() == ''
    monkeypatch.setattr(torchutils, 'BETWEEN_LINES', 0)
    with contextlib.redirect_stderr(told):
        steps = torchutils.progress(range(3), 'epoch 1/5', unit='step', total=3)
        for _ in steps:
            steps.set_postfix_str('loss 0.1', False)
    lines = told.getvalue().split('\n')
    assert lines.pop() == ''
    assert lines[-1].startswith('epoch 1/5: 3/3 (100%), ')
    assert lines[-1].endswith(', loss 0.1')
    assert '\r' not in told.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, 'stderr', told := Terminal())
    list(torchutils.progress([1, 2], 'epoch 1/5'))
    assert '\r' in told.getvalue()
    assert '100%|' in told.getvalue()


def parser():
    made = Parser(prog='x')
    made.add_argument('--cam_scales', nargs='+', type=float)
    made.add_argument('--precision', choices=('fp32', 'bf16'))
    made.add_argument('--work_dir', '--out')
    return made


@pytest.mark.parametrize(('words', 'told'), [
    ('--cam_scale 1', '--cam_scale (--cam_scales?)'), ('--cam-scale=1', '(--cam_scales?)'),
    ('--precision bf61', "invalid choice: 'bf61'"), ('--precision bf61', '(bf16?)'),
    ('--unlike 1', 'unrecognized arguments: --unlike 1 (--help')])
def test_a_wrong_word_is_answered_with_the_nearest(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words.split())
    assert ended.value.code == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith('error: ')
    assert told in error


def test_dashes_are_taken_for_underscores():
    args = parser().parse_args(['--cam-scales', '1', '2', '--work-dir=a-b'])
    assert (args.cam_scales, args.work_dir) == ([1.0, 2.0], 'a-b')
    assert parser().named(['--cam-scales', '1', '--out=a', 'precision']) == {'cam_scales',
                                                                             'work_dir'}


def test_every_command_reads_its_words_alike():
    """But the one that runs without packages, and the one that imports nothing of ours."""
    others = [path for path in MODULES
              if path.name not in ('check_env.py', 'benchmark_authors.py')
              and 'argparse.ArgumentParser(' in (ROOT / path).read_text(encoding='utf-8')]
    assert others == []
