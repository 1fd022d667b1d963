"""Tables of image-level labels as programs write them.

That is: which mark stands between columns, which between classes, headings, a column a class. No
  file is looked at but the table; `id_of` tells which images there are.
"""
import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

COLUMN_MARKS = ',;\t'
# may belong to a name, too
OTHER_MARKS = (r'\s*,\s*', r'\s+', r'\s*/\s*', r'\s*[+&]\s*', r'\s+and\s+', r'\s*:\s*', '_', '-')
IMAGE_WORDS = {'', 'image', 'images', 'imageid', 'imagename', 'imagepath', 'img', 'file', 'files',
               'filename', 'filepath', 'name', 'id', 'path', 'photo', 'photograph', 'picture'}
CLASS_WORDS = {'class', 'classes', 'classname', 'label', 'labels', 'tag', 'tags', 'category',
               'categories'}
FLAGS = {**dict.fromkeys(('1', '1.0', 'true', 'yes', 't', 'y', 'x', '✓', '✔'), True),
         **dict.fromkeys(('0', '0.0', '-1', 'false', 'no', 'f', 'n', '-', ''), False)}
LOOKED_AT = 1000  # rows that tell how a table is written


class Row(NamedTuple):
    """A row: its line, its image as it is written, its classes, and what is wrong with it."""

    line: int
    image: str
    names: tuple[str, ...] = ()
    problem: str = ''


class Broken(ValueError):
    """Not CSV: `line` and the reason."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


def rows_of(text: str, id_of: Callable[[str], str | None], layout: str,
            classes: frozenset[str] = frozenset()) -> Iterator[Row]:
    """Yield the rows of a table, without headings and empty rows.

    layout: what a row should be, for the problem of one that is not.
    classes: names of classes that a whole cell may be, whatever marks they hold.
    Raises Broken.
    """
    mark, table = _parted(text, id_of)
    if table and len(table[0][1]) > 2 and not any(id_of(cells[0].strip())
                                                  for _, cells in table[:LOOKED_AT]) \
            and any(id_of(cells[1].strip()) for _, cells in table[:LOOKED_AT] if len(cells) > 1):
        # the numbers of rows, which pandas puts first
        table = [(line, cells[1:]) for line, cells in table]
    if not table:
        return
    heading = [cell.strip() for cell in table[0][1]]
    named = _is_heading(heading, id_of)
    if _has_a_column_a_class(heading, table[1:], id_of):
        for line, cells in table[1:]:
            yield Row(line, cells[0].strip(),
                      tuple(name for name, cell in zip(heading[1:], cells[1:], strict=True)
                           if FLAGS[cell.strip().lower()]))
        return
    split: dict[str, tuple[str, ...]] = {}  # equal cells are split once and kept once
    for line, cells in table[named:]:
        image, *others = cells
        while len(others) > 1 and not others[-1].strip():
            others.pop()  # table programs fill rows up
        cell = ';'.join(others) if mark == ';' else others[0] if others else ''
        if len(others) > 1 and mark != ';':
            yield Row(line, image.strip(), problem=f'{len(cells)} columns; {layout}, and '
                                                   f'"quotation marks" go around a name '
                      'with a comma; or a first row with the name of each class, and 0 or 1 below '
                      'it')
        elif not others:
            other = next((f' (here the comma is {name})'
                          for mark, name in (('\t', 'a tab'), (';', ';')) if mark in image), '')
            yield Row(line, image.strip(), problem=f'one column; {layout}{other}; the comma alone '
                                                   f'for an image without a class')
        else:
            if cell not in split:
                split[cell] = _names_in(cell.strip(), mark, classes)
            yield Row(line, image.strip(), split[cell])


def _parted(text: str, id_of: Callable[[str], str | None]) -> tuple[str,
                                                                    list[tuple[int, list[str]]]]:
    """The mark between columns by which most rows name an image, the comma where two do alike;
    (line, cells) of all rows.
    """
    first = text.partition('\n')[0].strip().lower()
    if re.fullmatch(r'"?sep=[,;\t]"?', first):  # Excel's
        mark = first.strip('"')[-1]
        return mark, [(line + 1, cells) for line, cells in _rows(text.partition('\n')[2], mark)]
    best, found, broken = -1, (',', []), None
    for mark in COLUMN_MARKS:
        try:
            rows = list(_rows(text, mark))
        except Broken as error:
            broken = broken or error
            continue
        score = sum(any(id_of(cell.strip()) is not None for cell in cells[:2])
                    for _, cells in rows[:LOOKED_AT])
        if score > best:
            best, found = score, (mark, rows)
    if broken and best <= 0:
        raise broken
    return found


def _rows(text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    rows = csv.reader(io.StringIO(text, newline=''), delimiter=mark, strict=True,
                      skipinitialspace=True)
    try:
        for cells in rows:
            if any(map(str.strip, cells)):
                yield rows.line_num, cells
    except csv.Error as error:
        raise Broken(rows.line_num, str(error)) from error


def _is_heading(cells: list[str], id_of: Callable[[str], str | None]) -> bool:
    words = [re.sub(r'[\W_]', '', cell.lower()) for cell in cells]
    return words == ['image', 'classes'] or (len(words) > 1 and id_of(cells[0]) is None
                                             and words[0] in IMAGE_WORDS
                                             and (len(words) > 2 or words[1] in CLASS_WORDS))


def _has_a_column_a_class(heading: list[str], rows: list[tuple[int, list[str]]],
                          id_of: Callable[[str], str | None]) -> bool:
    """Whether the first row names classes and the others say yes or no to each. Two columns could
    be numbers of classes
    under their heading: then it is none."""
    words = re.sub(r'[\W_]', '', heading[1].lower()) if len(heading) > 1 else 'class'
    return (bool(rows) and id_of(heading[0]) is None
            and (len(heading) > 2 or words not in CLASS_WORDS)
            and len({name for name in heading[1:] if name}) == len(heading) - 1
            and not any(name.lower() in FLAGS for name in heading[1:])
            and any(cell.strip() for _, cells in rows for cell in cells[1:])
            and all(len(cells) == len(heading) and all(cell.strip().lower() in FLAGS
                                                       for cell in cells[1:])
                    for _, cells in rows))


def _names_in(cell: str, mark: str, classes: frozenset[str]) -> tuple[str, ...]:
    """The names in a cell: between ; or |, in a list as Python or JSON prints it, or, where the
    comma does not part columns, between commas.
    """
    if cell in classes:
        return (cell,)
    if cell[:1] in tuple('[({') and cell[-1:] in tuple('])}'):
        for read in (json.loads, ast.literal_eval):
            try:
                listed = read(cell)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(listed, (list, tuple, set)) and all(isinstance(name, str)
                                                              for name in listed):
                return _distinct(sorted(listed) if isinstance(listed, set) else listed)
        if re.fullmatch(r'\[[^][]*\]', cell):  # [cat, dog], as without quotation marks
            return _distinct(part.strip().strip('\'"') for part in cell[1:-1].split(','))
    return _distinct(re.split(r'[;|]' if mark == ',' else r'[;|,]', cell))


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(stripped for name in names if (stripped := name.strip())))


def parts(name: str) -> Iterator[list[str]]:
    """What `name` may be a list of, by each mark in it that may also belong to a name."""
    for mark in OTHER_MARKS:
        found = [part for part in re.split(mark, name) if part]
        if len(found) > 1:
            yield found
