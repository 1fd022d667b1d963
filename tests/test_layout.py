"""The layout that docs/layout.md draws: each room of misc/ imports only those above it, and nothing
of misc/ knows a stage.
"""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ('pyutils', 'machine', 'imutils', 'torchutils', 'ending', 'parsing', 'contract', 'files',
          'indexing', 'data', 'method', 'networks', 'training', 'inference', 'score', 'draw',
          'export', 'command')
FILES = sorted(path for path in (ROOT / 'misc').rglob('*.py') if path.parent.name != 'misc'
               or path.stem in FLOORS)


def room_of(module):
    """'misc.files.label_maps' -> 'files'."""
    return module.split('.')[1] if module.startswith('misc.') else None


def imported(path):
    """The modules that a file names in its imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom):
            yield from ([f'misc.{alias.name}' for alias in node.names] if node.module == 'misc'
                        else [node.module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_those_above_it(path):
    own = room_of('.'.join(path.relative_to(ROOT).with_suffix('').parts))
    for module in imported(path):
        room = room_of(module)
        if room is not None:
            assert FLOORS.index(room) <= FLOORS.index(own), f'{module} is below {own}'
        assert not module.startswith('step') or own == 'command', 'misc knows no stage'


def test_every_module_has_its_floor():
    found = {path.stem for path in (ROOT / 'misc').iterdir() if path.is_dir()
             and path.name != '__pycache__'
             or path.suffix == '.py' and path.stem != '__init__'}
    assert found == set(FLOORS)
