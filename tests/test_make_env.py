"""script/make_env.sh with pretended interpreters, which answer in a shell; script/check_env.py with
pretended packages.
"""
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from script import check_env

ROOT = Path(__file__).resolve().parent.parent

SCRIPTS = ('make_env.sh', 'help.sh', 'constraints.txt')
INTERPRETER = r"""#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
  -c*base_prefix*) [ -z '{version}' ] && exit 1; echo '{version}' ;;
  '-c import ensurepip, venv') [ -z "${{NO_VENV:-}}" ] ;;
  '-m venv --clear .venv')
    [ -z "${{VENV_SAYS:-}}" ] || {{ printf "$VENV_SAYS"; exit 1; }}
    rm -rf .venv/* && mkdir -p .venv/bin && cp "$0" .venv/bin/python && touch .venv/pip ;;
  '-m pip --version') [ -e .venv/pip ] ;;
  '-m ensurepip') [ -z "${{NO_PIP:-}}" ] && touch .venv/pip ;;
  '-m pip install'*) [ -z "${{PIP_SAYS:-}}" ] || {{ printf "$PIP_SAYS"; exit 1; }} ;;
  script/check_env.py) [ -z "${{FAULT:-}}" ] || {{ echo "error: $FAULT" >&2; exit 1; }} ;;
  *) echo "unforeseen: $*" >&2; exit 99 ;;
esac
"""


class Checkout:
    """A checkout, in a folder with a blank in its name, and the interpreters that are on its PATH.
    """

    def __init__(self, folder):
        self.folder, self.calls = folder / 'a checkout', folder / 'calls'
        self.programs = folder / 'programs here'
        (self.folder / 'script').mkdir(parents=True)
        self.programs.mkdir()
        for tool in ('bash', 'basename', 'cat', 'cksum', 'cp', 'cut', 'dirname', 'env', 'flock',
                     'grep', 'mkdir', 'rm', 'tail', 'touch'):  # and none of the machine's Pythons
            if path := shutil.which(tool):
                (self.programs / tool).symlink_to(path)
        for path in (*ROOT.glob('requirements*.txt'),
                     *(ROOT / 'script' / name for name in SCRIPTS)):
            shutil.copy(path, self.folder / path.relative_to(ROOT))

    def interpreter(self, name, version, home='/usr'):
        """`version` as '3.12.1'; '' for a program that does not run."""
        path = self.programs / name
        path.write_text(INTERPRETER.format(version=version
                                           and ' '.join([*version.split('.')[:2], version, home])))
        path.chmod(0o755)
        return path

    def start(self, *words, **environment):
        self.calls.write_text('')
        environment = {key: str(value) for key, value in environment.items()}
        clean = {key: value for key, value in os.environ.items() if key != 'PYTHON'}
        return subprocess.Popen([shutil.which('bash'), self.folder / 'script' / 'make_env.sh',
                                 *words], cwd=self.programs,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=clean | {'PATH': str(self.programs), 'CALLS': str(self.calls)} |
                                environment)

    def __call__(self, *words, **environment):
        """Exit code, what the interpreters were asked, stdout, stderr."""
        done = self.start(*words, **environment)
        stdout, stderr = done.communicate(timeout=60)
        return done.returncode, self.calls.read_text(), stdout, stderr

    def python(self):
        """The version of .venv."""
        return re.search(r"echo '\d \d+ (\S+) ",
                         (self.folder / '.venv' / 'bin' / 'python').read_text()).group(1)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.mark.parametrize('version', ['2.7.18', '3.9.18', '3.15.0'])
def test_unfit_python_is_refused_and_a_fit_one_named(checkout, version):
    checkout.interpreter('python3', version)
    code, _, _, said = checkout()
    assert (code, said) == (1, f'error: {checkout.programs}/python3 is Python {version}; torch has '
                               f'wheels for 3.10 to 3.14\n')
    assert not (checkout.folder / '.venv').exists()
    checkout.interpreter('python3.12', '').write_text('#!/usr/bin/env bash\nexit 0\n')
    assert checkout()[3].endswith('3.10 to 3.14; here PYTHON=python3.12 will do\n')


def test_no_python(checkout):
    code, _, _, said = checkout(PYTHON='python4')
    assert (code, said) == (1, 'error: no python4; PYTHON names an interpreter, 3.10 to 3.14\n')
    checkout.interpreter('broken', '')
    code, _, _, said = checkout(PYTHON='./broken')
    assert (code, said) == (1, f'error: {checkout.programs}/./broken does not run; PYTHON names an '
                               f'interpreter, 3.10 to 3.14\n')


def test_python_is_obeyed(checkout):
    for name, version in (('py 12', '3.12.1'), ('python13', '3.13.0')):
        checkout.interpreter(name, version)
    assert checkout(PYTHON='python13')[0] == 0
    assert checkout.python() == '3.13.0'
    code, calls, said, _ = checkout()  # left alone, though there is no python3
    assert code == 0 and checkout.python() == '3.13.0' and 'pip' not in calls and not said
    (checkout.folder / '.venv' / 'bin' / 'of before').touch()
    # where the command is run, not in the checkout
    code, calls, said, _ = checkout(PYTHON='./py 12')
    assert code == 0 and checkout.python() == '3.12.1'
    assert 'The .venv of Python 3.13.0 gives way to one of 3.12.1\n' in said
    assert '-m pip install' in calls and not (checkout.folder / '.venv' / 'bin' /
                                              'of before').exists()
    assert 'pip' not in checkout(PYTHON=checkout.programs / 'py 12')[1]
    # the same version, another installation
    checkout.interpreter('py 12', '3.12.1', home='/opt/conda')
    assert '-m venv' in checkout(PYTHON='./py 12')[1]


def test_installs_once_for_every_list_of_requirements(checkout):
    checkout.interpreter('python3', '3.11.7')
    assert '-r requirements.txt -c script/constraints.txt' in checkout()[1]
    assert '-r requirements-test.txt -c' in checkout('requirements-test.txt')[1]
    assert 'pip' not in checkout()[1] + checkout('requirements-test.txt')[1]
    with (checkout.folder / 'script' / 'constraints.txt').open('a') as pins:
        pins.write('more==1\n')
    assert '-m pip install' in checkout()[1]


@pytest.mark.parametrize('damage', ['link to nowhere', 'no pip', 'empty'])
def test_half_made_environment(checkout, damage):
    checkout.interpreter('python3', '3.11.7')
    assert checkout()[0] == 0
    folder = checkout.folder / '.venv'
    if damage == 'link to nowhere':
        (folder / 'bin' / 'python').unlink()
        (folder / 'bin' / 'python').symlink_to('/nowhere/python3')
    elif damage == 'no pip':
        (folder / 'pip').unlink()
        (folder / 'installed_requirements').unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    code, calls, _, said = checkout(NO_PIP=1)
    if damage == 'no pip':
        assert (code, said) == (1, 'error: .venv has no pip and cannot have it '
                                   '(.venv/install.log): rm -r .venv, then run this '
                                   'again\n')
        code, calls, _, _ = checkout()
        assert '-m ensurepip' in calls
    assert code == 0 and '-m pip install' in calls and checkout.python() == '3.11.7'


def test_cannot_make_an_environment(checkout):
    python = checkout.interpreter('python3', '3.11.7')
    assert checkout(NO_VENV=1)[3] == (f'error: {python} has no venv and ensurepip to make an '
                                      f'environment with '
                                      '(Debian: apt-get install python3.11-venv)\n')
    assert (checkout(VENV_SAYS='much\nError: no space\n')[3]
            == f'error: {python} -m venv .venv: Error: no space\n')


@pytest.mark.parametrize('said, told', [
    ('Collecting\nERROR: No matching distribution found for numba==9\n', 'pip: No matching '
                                                                         'distribution found for '
                                                                         'numba==9 ('),
    ('WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement torch>=2 '
     '(from versions: none)\n'
     'ERROR: No matching distribution found for torch>=2\n', 'found for torch>=2; no index has it, '
                                                             'or none was reached'),
    ('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n',
     'takes 3 GB of downloads'),
    ('Traceback\nOSError: disk\n', 'pip: OSError: disk (.venv/install.log)'),
])
def test_pip_fails_in_one_line(checkout, said, told):
    checkout.interpreter('python3', '3.11.7')
    code, _, _, error = checkout(PIP_SAYS=said)
    assert (code == 1 and error.count('\n') == 1 and error.startswith('error: pip: ') and told
            in error)
    assert (checkout.folder / '.venv' / 'install.log').read_text() == said
    code, calls, _, _ = checkout()  # and is tried again
    assert code == 0 and '-m pip install' in calls and '-m venv' not in calls


def test_what_does_not_fit_is_not_taken_for_installed(checkout):
    checkout.interpreter('python3', '3.11.7')
    assert checkout(FAULT='numba')[::3] == (1, 'error: numba\n')
    assert 'script/check_env.py' in checkout()[1]
    assert 'script/check_env.py' not in checkout()[1]


@pytest.mark.skipif(not shutil.which('flock'), reason='no flock')
def test_two_at_once(checkout):
    checkout.interpreter('python3', '3.11.7')
    with (checkout.folder / 'script' / 'make_env.sh').open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = checkout.start()
        assert done.stdout.readline().startswith('Waiting for another make_env.sh')
        assert not (checkout.folder / '.venv').exists()
    assert (done.communicate(timeout=60)[0] and done.returncode == 0 and checkout.python()
            == '3.11.7')


@pytest.fixture
def packages(tmp_path):
    """Folder of pretended packages that import."""
    for module in (*check_env.NEEDED, 'torchvision'):
        path = tmp_path / f'{module.replace(".", "/")}.py'
        path.parent.mkdir(exist_ok=True)
        # without it the installed package would be found first
        (path.parent / '__init__.py').touch()
        path.write_text('')
    (tmp_path / 'torch.py').write_text('class zeros:\n    def __init__(self, n): pass\n    def '
                                       'numpy(self): pass\n')
    return tmp_path


def check(packages):
    done = subprocess.run([sys.executable, 'script/check_env.py'], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, env=os.environ | {'PYTHONPATH': str(packages)})
    return done.returncode, done.stderr


def test_packages_that_fit(packages):
    assert check(packages) == (0, '')


@pytest.mark.parametrize('module, raises, told', [
    ('numba', "ImportError('Numba needs NumPy 2.5 or less. Got NumPy 2.6.')",
     r'error: numba \S.* does not fit numpy \S+ \(ImportError: Numba needs NumPy 2.5 or less. Got '
     r'NumPy 2.6.\); .*'),
    ('cv2', "ImportError('libGL.so.1: cannot open')", r'error: opencv-python-headless .*libGL.*'),
    ('jinja2', "ModuleNotFoundError('No')", r'error: jinja2 \S+ does not import '
                                            r'\(ModuleNotFoundError: No\); .*'),
])
def test_packages_that_do_not_fit(packages, module, raises, told):
    (packages / f'{module}.py').write_text(f'raise {raises}\n')
    code, said = check(packages)
    assert code == 1 and re.fullmatch(told + '\n', said)


def test_torch_built_for_another_numpy(packages):
    torch = packages / 'torch.py'
    torch.write_text(torch.read_text().replace('(self): pass', "(self): raise RuntimeError('Numpy "
                                                               "is not available')"))
    code, said = check(packages)
    assert code == 1 and re.match(r'error: torch \S+ does not fit numpy \S+ \(RuntimeError: Numpy '
                                  r'is not available\)', said)


def test_torchvision_of_another_torch_is_a_note(packages):
    (packages / 'torchvision.py').write_text("raise RuntimeError('operator torchvision::nms does "
                                             "not exist')\n")
    code, said = check(packages)
    assert code == 0 and said.count('\n') == 1
    assert re.match(r'note: torchvision .* does not fit torch \S+ \(RuntimeError: operator .*\): '
                    r'--pretrained', said)


def requirements(path):
    lines = (line.split('#')[0].strip() for line in (ROOT / path).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith('-r')]


@pytest.mark.parametrize('minor', range(10, 15))
def test_every_range_has_one_pin_that_is_in_it(minor):
    python = {'python_version': f'3.{minor}', 'python_full_version': f'3.{minor}.1'}
    pins = {}
    for pin in requirements('script/constraints.txt'):
        if pin.marker is None or pin.marker.evaluate(python):
            assert pins.setdefault(pin.name, pin) is pin
    for path in ('requirements.txt', 'requirements-test.txt', 'requirements-compiled.txt'):
        for wanted in requirements(path):
            if wanted.marker is None or wanted.marker.evaluate(python):
                version = str(pins[wanted.name].specifier).removeprefix('==')
                assert wanted.specifier.contains(version), wanted
