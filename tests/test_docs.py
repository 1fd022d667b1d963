"""What README and docs/ name is there: pages, headings, files, commands and flags, presets."""
import argparse
import functools
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest

from misc.command import options, pages
from misc.pyutils import UserError
from step.pipeline import STAGES
from tests.extending import smooth

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
README_BYTES = 9_500  # a page that is read, not searched
OURS = ('step', 'net', 'misc', 'voc12', 'coco14', 'folder', 'script', 'tests', 'docs')
FOREIGN = {'--shm-size', '--ipc', '--build-arg', '--rm'}  # docker's
OUR_MODULE = rf'\bpython -m ((?:{"|".join(OURS)})\.[\w.]*\w)'
PLACEHOLDER = re.compile(r'[A-Z]{2,}|\.\.\.|\*')


class Parsed(BaseException):
    """Carries the parser of a command out of it."""


def every_page(test):
    return pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)(test)


def read(page):
    return page.read_text(encoding='utf-8')


def prose(text):
    return re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)


def in_code(text):
    """What stands in `code` outside code blocks."""
    return re.findall(r'`([^`]+)`', prose(text))


def code_lines(text):
    """The lines of code blocks without language, those that end with a backslash joined, without
    comments.
    """
    for block in re.findall(r'^```\n(.*?)^```', text, flags=re.M | re.S):
        for line in block.replace('\\\n', ' ').splitlines():
            yield re.sub(r'\s+#.*', '', line)


def anchors(text):
    """Those that GitHub gives headings."""
    found = {}
    for heading in re.findall(r'^#+ (.+)$', prose(text), flags=re.M):
        plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).lower().strip()
        slug = re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')
        found[slug] = found.get(slug, -1) + 1
        yield slug if found[slug] == 0 else f'{slug}-{found[slug]}'


def links(text):
    return re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`]*`', '', prose(text)))


@functools.cache
def run_sample_parser():
    return options.build_parser(STAGES.with_more([smooth.STAGE]))


@functools.cache
def parser_of(path):
    """The parser of a script, caught when it is about to read the command line."""
    def caught(self, *_):
        raise Parsed(self)

    with (mock.patch.object(argparse.ArgumentParser, 'parse_known_args', caught),
          mock.patch.object(sys, 'argv', [path]), pytest.raises(Parsed) as found):
        runpy.run_path(str(ROOT / path), run_name='__main__')
    return found.value.args[0]


def command(line):
    """A line that runs something of ours -> (name, parser, words after the name); None for others.

    A shell script hands on to run_sample.py the flags that its own text does not have.
    """
    if not re.match(r'(\w+=\S+ )*(python|bash|torchrun) ', line):
        return None
    words = [word for word in shlex.split(line) if word != '...']
    for position, word in enumerate(words):
        rest = words[position + 1:]
        if word == 'run_sample.py':
            return word, run_sample_parser(), rest
        if word == '-m' and rest[0].split('.')[0] in OURS:
            return rest[0], parser_of(f'{rest[0].replace(".", "/")}.py'), rest[1:]
        if re.fullmatch(r'script/\w+\.py', word):
            return word, parser_of(word), rest
        if re.fullmatch(r'script/\w+\.sh', word):
            text = read(ROOT / word)
            flags = [each for each in rest if each not in text]
            while flags and not flags[0].startswith('--'):
                del flags[0]
            return word, run_sample_parser(), flags
    return None


@every_page
def test_links_lead_to_pages_and_headings_that_are_there(page):
    for link in links(read(page)):
        path, _, anchor = link.partition('#')
        if re.match(r'https?://', link):
            continue
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(read(target)), link


def test_the_readme_leads_to_every_page():
    linked = {(ROOT / link.partition('#')[0]).resolve() for link in links(read(ROOT / 'README.md'))}
    assert not set(PAGES[1:]) - linked


def test_the_readme_is_one_page():
    assert len(read(ROOT / 'README.md').encode()) < README_BYTES


@every_page
def test_commands_can_be_given_as_they_stand(page):
    for line in code_lines(read(page)):
        found = command(line)
        if found:
            _, parser, words = found
            parser.parse_args(words)  # what it does not know ends the test


@every_page
def test_flags_are_there(page, flags):
    named = {flag for word in in_code(read(page))
             for flag in re.findall(r'(?<![\w-])--\w[\w-]*', word)}
    assert named <= flags | FOREIGN


@pytest.fixture(scope='module')
def flags():
    """Those of every command that the pages name."""
    text = ' '.join(' '.join(map(read, PAGES)).split())
    paths = set(re.findall(r'python (script/\w+\.py)', text))
    paths |= {f'{name.replace(".", "/")}.py' for name in re.findall(OUR_MODULE, text)}
    words = {flag for parser in (run_sample_parser(), *map(parser_of, sorted(paths)))
             for flag in parser._option_string_actions}
    for path in (ROOT / 'script').glob('*.sh'):
        words |= set(re.findall(r'--\w+', read(path)))
    return words


@every_page
def test_files_are_there(page):
    """Those of the checkout, modules that are run, and what stages write at its usual place."""
    for module in re.findall(OUR_MODULE, read(page)):
        assert (ROOT / f'{module.replace(".", "/")}.py').is_file(), module
    written = {output.path for _, output in STAGES.outputs().values()} | {options.SCORES}
    for word in ' '.join(in_code(read(page))).split():
        top, slash, _ = word.partition('/')
        if not slash or PLACEHOLDER.search(word) or not re.fullmatch(r'[\w./-]+', word):
            continue
        if top in OURS:
            assert (ROOT / word).exists(), word
        elif top in ('sess', 'result') and not word.startswith('result/quickstart/'):
            assert any(word.rstrip('/') in (top, path, f'{path}.pth')
                       or word.startswith(f'{path}/') for path in written), word


@every_page
def test_presets_are_there(page):
    for name in re.findall(r'--preset (\w+)\b(?!\.)', read(page)):
        assert name in options.preset_names(), name


@pytest.mark.parametrize('page', pages.PAGES, ids=lambda page: page.name)
def test_the_stages_of_a_page_are_those_of_the_program(page):
    """After a change: python -m misc.command.pages."""
    assert pages.renewed(read(page), STAGES) == read(page)


def test_a_page_without_marks_is_not_renewed():
    with pytest.raises(UserError, match='no mark'):
        pages.renewed('text', STAGES)
    with pytest.raises(UserError, match='no <!-- /stages -->'):
        pages.renewed('<!-- stages -->', STAGES)
