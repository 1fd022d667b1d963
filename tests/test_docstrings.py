"""What a public docstring begins with: a whole sentence on one line."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ('misc', 'net', 'step', 'voc12', 'coco14', 'folder')
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob('*.py'))


def documented(node, name):
    """(name, docstring) of a module or class and of what is public in it."""
    text = ast.get_docstring(node)
    if text is not None:
        yield name, text
    for child in ast.iter_child_nodes(node):
        public = isinstance(child, ast.FunctionDef | ast.ClassDef) and (
            not child.name.startswith('_') or child.name == '__call__')
        if public and not isinstance(node, ast.FunctionDef):
            yield from documented(child, f'{name}.{child.name}')


@pytest.mark.parametrize('path', [ROOT / 'run_sample.py', ROOT / 'amn.py', *FILES],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_first_lines_are_sentences(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    first = {name: text.splitlines()[0] for name, text in documented(tree, path.stem)}
    assert [name for name, line in first.items()
            if not (line[0].isupper() and line.endswith('.'))] == []
