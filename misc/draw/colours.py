"""The colours of pages, plots and sheets.

Each method has one, everywhere, for light and for dark paper. Every colour can be read as text on
every paper of its mode (WCAG's 4.5 to 1), and no two of the project's methods look alike to colour-
blind readers (tests/test_colours.py).
"""
from collections.abc import Iterable
from typing import NamedTuple


class Pair(NamedTuple):
    """A colour on light and on dark paper, '#rrggbb' each."""

    light: str
    dark: str


METHODS = {  # by what the flag of a folder begins with
    'cam': Pair('#b34a0c', '#e8834a'), 'amn_cam': Pair('#12439c', '#74a9d8'),
    'sem_seg': Pair('#0d7a68', '#2fe3a0'), 'seg': Pair('#a81bc2', '#d86bff'),
    'ins_seg': Pair('#4d4412', '#f7e34a')}
# a refined seed has the colour of what it refines; its mark is hollow
SAME = {'ir_label': 'cam', 'amn_ir_label': 'amn_cam'}
# stages and folders of one's own
FURTHER = (Pair('#3c0a1f', '#d9dbe0'), Pair('#6d4a5c', '#a58f80'))
THEME = {
    'paper': Pair('#fbfbf9', '#15171a'), 'card': Pair('#ffffff', '#1d2024'),
    'fill': Pair('#f0f0ec', '#282c31'), 'line': Pair('#dcddd8', '#3a3f46'),
    'ink': Pair('#1d1f23', '#e8e9ea'), 'faint': Pair('#5f646d', '#a3a8b0')}
PAPERS = ('paper', 'card', 'fill')
# what an error's pixel is painted with, over photographs
ERRORS = {'right': '#ffffff', 'missed': '#ffc20a', 'false': '#d41159'}


def of_methods(names: Iterable[str]) -> dict[str, Pair]:
    """The colour of each method; those of one's own have the further ones in turn."""
    found, further = {}, 0
    for name in names:
        known = METHODS.get(SAME.get(name, name))
        if known is None:
            known = FURTHER[further % len(FURTHER)]
            further += 1
        found[name] = known
    return found


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0..255, of '#rrggbb'."""
    red, green, blue = bytes.fromhex(colour.removeprefix('#'))
    return red, green, blue


def variables(colours: dict[str, Pair]) -> str:
    """CSS: each name as a variable, for light pages and for dark ones."""
    def block(mode: str) -> str:
        return ' '.join(f'--{name}: {getattr(pair, mode)};' for name, pair in colours.items())
    return f':root {{ {block("light")} }}\n:root[data-theme=dark] {{ {block("dark")} }}'
