"""What pyproject.toml tells pip and uv, read as setuptools reads it."""
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from setuptools.config import pyprojecttoml

import run_sample
from tests.test_make_env import requirements

ROOT = Path(__file__).resolve().parent.parent
NOT_INSTALLED = ('tests', 'build', 'sess', 'result')


@pytest.fixture(scope='module')
def told():
    return pyprojecttoml.read_configuration(str(ROOT / 'pyproject.toml'))


def test_the_packages_are_those_of_the_requirements(told):
    given = [Requirement(line.split('#')[0]) for line in told['project']['dependencies']]
    assert given == requirements('requirements.txt')
    assert told['project']['version'] == run_sample.VERSION


def test_python_is_that_of_make_env(told):
    text = (ROOT / 'script' / 'make_env.sh').read_text()
    oldest, newest = map(int, re.search(r'^oldest=(\d+) newest=(\d+)', text, re.M).groups())
    allowed = SpecifierSet(told['project']['requires-python'])
    fit = [minor for minor in range(30) if f'3.{minor}.9' in allowed]
    assert fit == [*range(oldest, newest + 1)]


def test_every_package_is_installed(told):
    found = {'.'.join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob('[a-z]*/**/*.py')
             if path.name == '__init__.py' and path.relative_to(ROOT).parts[0] not in NOT_INSTALLED}
    assert set(told['tool']['setuptools']['packages']) == found
    modules = {path.stem for path in ROOT.glob('*.py')}
    assert set(told['tool']['setuptools']['py-modules']) == modules


def test_an_optional_package_has_one_range(told):
    extras = {Requirement(line).name: Requirement(line)
              for lines in told['project']['optional-dependencies'].values() for line in lines}
    for wanted in requirements('requirements-test.txt'):
        assert extras.get(wanted.name, wanted) == wanted
