"""One's own photographs as a source: a folder that holds

  images/         photographs .jpg, .jpeg or .png (any case); the id of an image is its file name without that ending
  labels.csv      a row an image: its file name or id, a comma, the names of the classes it shows, separated by ';'
  classes.txt     may be missing: the classes, one a line, in the order of their numbers (else: the names in labels.csv, sorted)
  masks/ID.png    may be missing, only scores need them: 8-bit label maps, 0 background, 1, 2, ... the classes, 255 ignored
  lists/NAME.txt  may be missing: splits of one's own, an image a line

labels.csv is comma-separated UTF-8; a first row 'image,classes' is taken for headings. Nothing after the comma: the image
shows none of the classes. Images without a row are left alone. Splits that are always there: all (every image with a row),
masked (those with a mask), some (at most 200 of them, evenly spread).
"""
import csv
import difflib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from misc.contract.sources import Check, Source, some
from misc.files import labels
from misc.pyutils import UserError

ENDINGS = ('.jpg', '.jpeg', '.png')
MOST_CLASSES = labels.IGNORE - 1
MOST_OF_SOME = 200
SPLITS = ('all', 'masked', 'some')
LAYOUT = 'a row is the name of an image, a comma, and its classes with ; between them'


class Folder(Source):
    """A folder of photographs with its labels.csv.

    Raises UserError where `root` is no such folder, where a file cannot be read, and for no class or more than 254. What
    is wrong with single rows is kept for `check`, so that it is told all at once.
    """

    name = 'folder'
    root_is = 'the folder that holds images/ and labels.csv'
    lists = {'train_list': 'all', 'val_list': 'some', 'infer_list': 'all', 'eval_set': 'masked', 'seg_list': 'all'}
    palette = labels.PALETTE

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f'{root}: no such folder; --data_root is the folder that holds images/ and labels.csv')
        if not (self.root / 'images').is_dir():
            above = self.root.resolve().parent
            raise UserError(f'{root} has no folder images/: ' + (
                f'give --data_root {above}' if (above / 'labels.csv').is_file() else 'the photographs belong there'))
        self._wrong: list[str] = []
        self._notes: list[str] = []
        self._images = self._find_images()
        self._lower: dict[str, str] | None = None  # file names by their lower case, once they are asked for
        given = self._read_classes()
        rows = self._read_rows(given)
        self.classes = given or tuple(sorted({name for names in rows.values() for name in names}))
        if not self.classes and self._wrong:
            raise UserError(f'{root}: {self._wrong[0]} (no row is good)')
        if not 1 <= self.n_classes <= MOST_CLASSES:
            raise UserError(f'{self.root / ("classes.txt" if given else "labels.csv")}: {self.n_classes or "no"} classes; 1 to '
                            f'{MOST_CLASSES} are possible: a label map has 8 bits, 0 is background, 255 ignored')
        number = {name: position for position, name in enumerate(self.classes)}
        keys = {names: tuple(sorted(number[name] for name in names if name in number)) for names in set(rows.values())}
        self._keys = {image_id: keys[names] for image_id, names in rows.items()}
        self._masks = self._find_masks()
        self._note_what_is_not_used()

    def image_path(self, image_id: str) -> Path:
        if image_id not in self._images:
            raise UserError(f'{self.root}/images: no photograph of the name {image_id!r}')
        return self.root / 'images' / self._images[image_id]

    def mask_path(self, image_id: str) -> Path:
        """The true label map (255 ignored); may be missing: only scores need it."""
        return self.root / 'masks' / f'{image_id}.png'

    def object_mask_path(self, image_id: str) -> Path:
        """Raises UserError: the layout has no truth of single objects."""
        raise UserError(f'{self.root}: a folder has no truth of single objects; instance masks cannot be scored')

    def names(self, list_or_split: str | os.PathLike) -> list[str]:
        """The ids of a split (all, masked, some, or lists/NAME.txt) or of a list file, in the order of labels.csv or of the
        list; none for `masked` where there are no masks.

        Raises UserError where there is no such list, and for a line that names no image of labels.csv.
        """
        if list_or_split == 'all':
            return list(self._keys)
        if list_or_split == 'masked':
            return [image_id for image_id in self._keys if image_id in self._masks]
        if list_or_split == 'some':
            ids = list(self._keys)
            return [ids[position] for position in np.linspace(0, len(ids) - 1, min(len(ids), MOST_OF_SOME)).astype(int)]
        path = Path(list_or_split)
        if not path.is_file():
            path = self.root / 'lists' / f'{list_or_split}.txt'
        if not path.is_file():
            raise UserError(f'{list_or_split}: neither a list file nor one of {", ".join(SPLITS)} (and there is no {path})')
        return self._read_list(path)

    def labels(self, image_id: str) -> np.ndarray:
        """Image-level labels, bool (C,). Raises UserError for an image without a row in labels.csv."""
        if image_id not in self._keys:
            raise UserError(f'{self.root}/labels.csv: no row for {image_id!r}')
        present = np.zeros(self.n_classes, bool)
        present[list(self._keys[image_id])] = True
        return present

    def check(self, ids: Iterable[str]) -> Check:
        """What is there for `ids`, and everything that is wrong with the folder."""
        ids = list(ids)
        shown = np.array([key for image_id in ids for key in self._keys.get(image_id, ())], np.int64)
        return Check(len(ids), [image_id for image_id in ids if image_id not in self._images],
                     [image_id for image_id in ids if image_id not in self._keys],
                     [image_id for image_id in ids if self._keys.get(image_id) == ()],
                     [image_id for image_id in ids if image_id not in self._masks],
                     np.bincount(shown, minlength=self.n_classes), self._wrong, self._notes)

    def _find_images(self) -> dict[str, str]:
        """id -> file name, from one look at the folder."""
        found: dict[str, str] = {}
        others = []
        for name in _listed(self.root / 'images'):
            stem, ending = os.path.splitext(name)
            if ending.lower() not in ENDINGS:
                others.append(name)
            elif stem in found:
                self._wrong.append(f'images/{found[stem]} and images/{name}: two photographs of the name {stem}: rename one, '
                                   'in labels.csv too')
            else:
                found[stem] = name
        if others:
            self._notes.append(f'{len(others)} in images/ that are not {", ".join(ENDINGS)} are not used ({some(others)}): '
                               'convert what is a photograph; folders within images/ are not looked into')
        return found

    def _find_masks(self) -> set[str]:
        """The ids with a mask."""
        if not (self.root / 'masks').is_dir():
            return set()
        names = _listed(self.root / 'masks')
        found = {name.removesuffix('.png') for name in names if name.endswith('.png')}
        others = [name for name in names if not name.endswith('.png') or name.removesuffix('.png') not in self._images]
        if others:
            self._notes.append(f'{len(others)} in masks/ are the mask of no image ({some(others)}): a mask is named ID.png, '
                               'after images/ID.jpg; other kinds of files change the labels')
        return found

    def _read_classes(self) -> tuple[str, ...]:
        """The names in classes.txt; none where there is no such file."""
        path = self.root / 'classes.txt'
        if not path.is_file():
            return ()
        lines: dict[str, int] = {}
        for line, name in enumerate(map(str.strip, _text(path).rstrip().splitlines()), start=1):
            if not name:
                self._tell('classes.txt', line, 'empty; the number of a line is the number of its class: take it out')
            elif name in lines:
                self._tell('classes.txt', line, f'{name!r} is there already (line {lines[name]}): take one out')
            elif problem := _unfit(name):
                self._tell('classes.txt', line, problem)
            lines.setdefault(name, line)
        if not lines:
            raise UserError(f'{path}: no class; write one name a line, or remove the file')
        return tuple(lines)

    def _read_rows(self, given: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """id -> names of its classes, of the good rows of labels.csv. given: the names in classes.txt, if there are any."""
        lines: dict[str, int] = {}
        rows: dict[str, tuple[str, ...]] = {}
        split: dict[str, tuple[str, ...]] = {}  # equal cells are split once and kept once
        first: dict[str, int] = {}
        for line, cells in self._cells():
            if len(cells) != 2:
                self._tell('labels.csv', line, _columns(cells))
                continue
            image_id = self._id_of(cells[0].strip())
            if image_id is None:
                self._tell('labels.csv', line, self._no_image(cells[0].strip()))
            elif image_id in lines:
                self._tell('labels.csv', line, f'{image_id!r} has a row already (line {lines[image_id]}): join the two, '
                           'with ; between the classes')
            else:
                lines[image_id] = line
                if cells[1] not in split:
                    split[cells[1]] = tuple(dict.fromkeys(name for part in cells[1].split(';') if (name := part.strip())))
                    for name in split[cells[1]]:
                        first.setdefault(name, line)
                rows[image_id] = split[cells[1]]
        if not rows and not self._wrong:
            raise UserError(f'{self.root}/labels.csv: no row; {LAYOUT}')
        self._check_names(first, given)
        return rows

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        """(line number, cells) of each row of labels.csv, without headings and empty rows."""
        path = self.root / 'labels.csv'
        if not path.is_file():
            raise UserError(f'{path}: missing; {LAYOUT}')
        rows = csv.reader(io.StringIO(_text(path), newline=''), strict=True, skipinitialspace=True)
        is_first = True
        try:
            for cells in rows:
                if not any(map(str.strip, cells)):
                    continue
                if not (is_first and [cell.strip().lower() for cell in cells] == ['image', 'classes']):
                    yield rows.line_num, cells
                is_first = False
        except csv.Error as error:
            raise UserError(f'{path} line {rows.line_num}: not readable as CSV ({error}): look for a quotation mark without '
                            'its other half, here or above') from error

    def _check_names(self, first: dict[str, int], given: tuple[str, ...]) -> None:
        """first: the names in labels.csv and the line of each one's first row."""
        alike: dict[str, str] = {}
        for name, line in first.items():
            if given and name not in given:
                close = _closest(name, given)
                self._tell('labels.csv', line, f'{name!r} is not in classes.txt' + (f'; is it {close!r}?' if close else ':')
                           + ' Mend it in every row, or add it to classes.txt')
            elif not given and (problem := _unfit(name)):
                self._tell('labels.csv', line, problem)
            elif not given and name.casefold() in alike:
                other = alike[name.casefold()]
                self._tell('labels.csv', line, f'{name!r} and {other!r} (line {first[other]}) differ by case alone: spell them '
                           'alike, or, where they are two classes, list both in classes.txt')
            alike.setdefault(name.casefold(), name)

    def _tell(self, file: str, line: int, problem: str) -> None:
        self._wrong.append(f'{file} line {line}: {problem}')

    def _id_of(self, name: str) -> str | None:
        """The id of an image named by its file or its id, with or without ending; None where there is none."""
        stem, ending = os.path.splitext(name)
        if ending.lower() in ENDINGS and stem in self._images and (self._images[stem] == name or name not in self._images):
            return stem
        return name if name in self._images else None

    def _no_image(self, name: str) -> str:
        if not name:
            return f'no image is named; {LAYOUT}'
        if '/' in name or '\\' in name:
            return f'{name!r} names a folder: give the file name alone; all photographs lie in images/ itself'
        if self._lower is None:
            self._lower = {key.lower(): there for image_id, there in self._images.items() for key in (image_id, there)}
        other = self._lower.get(name.lower())
        return (f'no photograph {name!r} in images/' + (f'; is it {other!r}?' if other else ':')
                + ' Mend the name, or take the line out')

    def _read_list(self, path: Path) -> list[str]:
        lines: dict[str, int] = {}
        for line, name in enumerate(map(str.strip, _text(path).splitlines()), start=1):
            image_id = self._id_of(name)
            if not name:
                continue
            if image_id not in self._keys:
                raise UserError(f'{path} line {line}: ' + (self._no_image(name) if image_id is None else
                                                           f'{name!r} has no row in labels.csv: add one, or take the line out'))
            if image_id in lines:
                raise UserError(f'{path} line {line}: {name!r} is listed twice (line {lines[image_id]})')
            lines[image_id] = line
        if not lines:
            raise UserError(f'{path}: an empty list; write one image a line')
        return list(lines)

    def _note_what_is_not_used(self) -> None:
        without = [image_id for image_id in self._images if image_id not in self._keys]
        if without:
            self._notes.append(f'{len(without)} photographs without a row in labels.csv are not used ({some(without)}): give '
                               'them one; nothing after the comma for those that show none of the classes')
        for name in SPLITS:
            if (self.root / 'lists' / f'{name}.txt').is_file():
                self._notes.append(f'lists/{name}.txt is not read: {name!r} has a meaning already; give it another name')


def _listed(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones, which systems and editors leave."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError as error:
        raise UserError(f'{folder}: cannot be read: {error.strerror}') from error


def _text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark. Raises UserError for anything else."""
    try:
        content = path.read_bytes()
        return content.decode('utf-8-sig')
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b'\n') + 1
        raise UserError(f'{path} line {line}: not UTF-8; save it again as UTF-8 ("CSV UTF-8" in table programs)') from error


def _columns(cells: list[str]) -> str:
    if len(cells) > 2:
        return f'{len(cells)} columns; {LAYOUT}, and "quotation marks" go around a name with a comma'
    separator = next((f' (here the comma is {name})' for mark, name in (('\t', 'a tab'), (';', ';')) if mark in cells[0]), '')
    return f'one column; {LAYOUT}{separator}; the comma alone for an image without a class'


def _unfit(name: str) -> str:
    """Why a class cannot have this name; nothing where it can."""
    if name.lower() == 'background':
        return f'{name!r} is no class, it is what no class covers (label 0): take it out'
    if ';' in name:
        return f'{name!r}: ; separates names in labels.csv; choose another name'
    return ''


def _closest(name: str, names: tuple[str, ...]) -> str | None:
    alike = {other.casefold(): other for other in names}
    found = difflib.get_close_matches(name.casefold(), alike, 1)
    return alike[found[0]] if found else None
