"""One's own photographs as a source.

A folder that holds

  images/         photographs (the endings of imutils.PHOTOGRAPHS, any case); an image's id is its
                  file name without that ending
  labels.csv      a row an image: its file name or id, a comma, the names of the classes it shows,
                  separated by ';'
  classes.txt     may be missing: the classes, one a line, in the order of their numbers (else: the
                  names in labels.csv, sorted)
  masks/ID.png    may be missing, only scores need them: 8-bit label maps, 0 background, 1, 2, ...
                  the classes, 255 ignored
  lists/NAME.txt  may be missing: splits of one's own, an image a line

Nothing after the comma: the image shows none of the classes. Images without a row are left alone.
  What table programs write instead is read, too (misc/data/tables.py): ; or a tab between columns,
  | between classes, lists as Python prints them, a column a class under its name with 0 or 1,
  headings, UTF-16. Splits that are always there: all (every image with a row), masked (those with a
  mask), some (at most 200 of them, evenly spread).

Without labels.csv, a folder a class, as torchvision's ImageFolder has it: images/CLASS/x.jpg or
CLASS/x.jpg; that image's id is CLASS_x. Photographs are turned as their EXIF orientation says, and
their masks lie over them so.
"""
import collections
import difflib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from misc.contract.sources import (
    Check,
    Source,
    as_on_disk,
    is_photograph,
    looks,
    parse_list,
    photographs_in,
    read_text,
    same,
    some,
    spelling,
    without_ending,
)
from misc.data import tables
from misc.files import label_maps
from misc.imutils import PHOTOGRAPHS
from misc.pyutils import UserError

MOST_CLASSES = label_maps.IGNORE - 1
MOST_OF_SOME = 200
SPLITS = ('all', 'masked', 'some')
LAYOUT = 'a row is the name of an image, a comma, and its classes with ; between them'


class Folder(Source):
    """A folder of photographs with its labels.csv.

    Raises UserError where `root` is no such folder, where a file cannot be read, and for no class
    or more than 254. What is wrong with single rows is kept for `check`, so that it is told all at
    once.
    """

    name = 'folder'
    root_is = 'the folder that holds images/ and labels.csv, or a folder of photographs a class'
    lists = {'train_list': 'all', 'val_list': 'some', 'infer_list': 'all', 'eval_set': 'masked',
             'seg_list': 'all'}
    palette = label_maps.PALETTE
    upright = True

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f'{root}: no such folder; --data_root is {self.root_is}')
        self._wrong: list[str] = []
        self._notes: list[str] = []
        self._folders = self._class_folders()
        if not self._folders and not (self.root / 'images').is_dir():
            above = self.root.resolve().parent
            raise UserError(f'{root} has no folder images/: ' + (
                f'give --data_root {above}' if (above / 'labels.csv').is_file() else
                'the photographs belong there, with labels.csv beside it or in a folder for each '
                'class'))
        self._images: dict[str, str] = {}  # id -> file, below the folder of images
        if not self._folders:
            self._find_images()
        # file names by their lower case, once they are asked for
        self._lower: dict[str, str] | None = None
        given = self._read_classes()
        rows = self._find_in_folders(given) if self._folders else self._read_rows(given)
        self.classes = given or tuple(sorted({name for names in rows.values() for name in names}
                                             | {spelling(name) for name in self._folders}))
        if not self.classes and self._wrong:
            raise UserError(f'{root}: {self._wrong[0]} (no row is good)')
        if not 1 <= self.n_classes <= MOST_CLASSES:
            raise UserError(f'{self.root / ("classes.txt" if given else "labels.csv")}: '
                            f'{self.n_classes or "no"} classes; 1 to '
                            f'{MOST_CLASSES} are possible: a label map has 8 bits, 0 is '
                            f'background, 255 ignored')
        number = {name: position for position, name in enumerate(self.classes)}
        keys = {names: tuple(sorted(number[name] for name in names if name in number))
                for names in set(rows.values())}
        self._keys = {image_id: keys[names] for image_id, names in rows.items()}
        self._masks = self._find_masks()
        self._note_what_is_not_used()

    def image_path(self, image_id: str) -> Path:
        if image_id not in self._images:
            raise UserError(f'{self.root}/images: no photograph of the name {image_id!r}')
        return self._image_folder() / self._images[image_id]

    def mask_path(self, image_id: str) -> Path:
        """The true label map (255 ignored); may be missing: only scores need it."""
        return as_on_disk(self.root / 'masks' / f'{image_id}.png')

    def object_mask_path(self, image_id: str) -> Path:
        """Raises UserError: the layout has no truth of single objects."""
        raise UserError(f'{self.root}: a folder has no truth of single objects; instance masks '
                        f'cannot be scored')

    def names(self, list_or_split: str | os.PathLike) -> list[str]:
        """Return the ids of a split (all, masked, some, or lists/NAME.txt) or of a list file.

        They are in the order of labels.csv or of the list; none for `masked` where there are no
        masks. Raises UserError where there is no such list, and for a line that names no image of
        labels.csv.
        """
        if list_or_split == 'all':
            return list(self._keys)
        if list_or_split == 'masked':
            return [image_id for image_id in self._keys if image_id in self._masks]
        if list_or_split == 'some':
            ids = list(self._keys)
            return [ids[position] for position in np.linspace(
                0, len(ids) - 1, min(len(ids), MOST_OF_SOME)).astype(int)]
        path = Path(list_or_split)
        if not path.is_file():
            path = self.root / 'lists' / f'{list_or_split}.txt'
        if not path.is_file():
            raise UserError(f'{list_or_split}: neither a list file nor one of {", ".join(SPLITS)} '
                            f'(and there is no {path})')
        return self._read_list(path)

    def labels(self, image_id: str) -> np.ndarray:
        """Image-level labels, bool (C,). Raises UserError for an image without a row in labels.csv.
        """
        if image_id not in self._keys:
            raise UserError(f'{self.root}/labels.csv: no row for {image_id!r}')
        present = np.zeros(self.n_classes, bool)
        present[list(self._keys[image_id])] = True
        return present

    def check(self, ids: Iterable[str]) -> Check:
        """What is there for `ids`, and everything that is wrong with the folder."""
        ids = list(ids)
        shown = np.array([key for image_id in ids for key in self._keys.get(image_id, ())],
                         np.int64)
        return Check(len(ids), [image_id for image_id in ids if image_id not in self._images],
                     [image_id for image_id in ids if image_id not in self._keys],
                     [image_id for image_id in ids if self._keys.get(image_id) == ()],
                     [image_id for image_id in ids if image_id not in self._masks],
                     np.bincount(shown, minlength=self.n_classes), self._wrong, self._notes)

    def _image_folder(self) -> Path:
        return (self.root if self._folders and not (self.root / 'images').is_dir()
                else self.root / 'images')

    def _class_folders(self) -> list[str]:
        """The folders that are classes, where there is no labels.csv and photographs lie in folders
        alone.
        """
        if (self.root / 'labels.csv').exists():
            return []
        above = self.root / 'images' if (self.root / 'images').is_dir() else self.root
        names = _listed(above)
        if any(is_photograph(name) for name in names):
            return []
        folders = [name for name in names if (above / name).is_dir()
                   and (above != self.root or name not in ('masks', 'lists'))]
        found = [name for name in folders if any(map(is_photograph, _listed(above / name)))]
        others = [name for name in folders if name not in found]
        deeper = [name for name in others for below in _listed(above / name)
                  if (above / name / below).is_dir()
                  and any(map(is_photograph, _listed(above / name / below)))]
        if deeper and not found:
            raise UserError(f'{self.root}: photographs lie too deep; give --data_root '
                            f'{above / deeper[0]}'
                            f'{" (or one of the others there)" if len({*deeper}) > 1 else ""}: it '
                            f'holds a folder a class')
        if found and others:
            self._notes.append(f'{len(others)} folders without photographs are no classes '
                               f'({some(others)})')
        return found

    def _find_in_folders(self, given: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Fills in the images; id -> its class. given: as below."""
        rows: dict[str, tuple[str, ...]] = {}
        for folder in self._folders:
            found = self._photographs_in(self._image_folder() / folder, f'{folder}/')
            for name in found:
                image_id = same(f'{folder}_{without_ending(name, PHOTOGRAPHS)}')
                if self._take(image_id, f'{folder}/{name}'):
                    rows[image_id] = (spelling(folder),)
        alike: dict[str, str] = {}
        for folder in self._folders:
            other = alike.setdefault(looks(folder), folder)
            if given and spelling(folder) not in given:
                self._wrong.append(f'the folder {folder!r} is not in classes.txt: mend one of the '
                                   f'two')
            elif not given and (problem := _unfit(folder)):
                self._wrong.append(problem)
            elif not given and other != folder:
                self._wrong.append(f'the folders {other!a} and {folder!a} look alike: join them, '
                                   f'or, where they are two '
                                   'classes, list both in classes.txt')
        return rows

    def _find_images(self) -> None:
        """Fills in the images, from one look at the folder."""
        for name in self._photographs_in(self.root / 'images', 'images/'):
            self._take(same(without_ending(name, PHOTOGRAPHS)), name)

    def _take(self, image_id: str, file: str) -> bool:
        """Whether the id is free; else tells of both files."""
        if image_id in self._images:
            self._wrong.append(f'images/{self._images[image_id]} and images/{file}: two '
                               f'photographs of the name {image_id}: '
                               'rename one, in labels.csv too')
            return False
        self._images[image_id] = file
        return True

    def _photographs_in(self, folder: Path, shown: str) -> list[str]:
        """Their names; a note on what else is there. shown: the folder, for that note."""
        found, others = photographs_in(folder)
        if others:
            self._notes.append(
                f'{len(others)} in {shown} are not used ({some(others)}): what is read is '
                f'{", ".join(PHOTOGRAPHS)}; convert '
                'other photographs (.heic); folders within are not looked into, names that begin '
                'with a dot are no photographs')
        return [path.name for path in found]

    def _find_masks(self) -> set[str]:
        """The ids with a mask."""
        if not (self.root / 'masks').is_dir():
            return set()
        names = _listed(self.root / 'masks')
        found = {same(name.removesuffix('.png')) for name in names if name.endswith('.png')}
        others = [name for name in names if not name.endswith('.png')
                  or same(name.removesuffix('.png')) not in self._images]
        if others:
            a_class = '; the id of CLASS/x.jpg is CLASS_x' if self._folders else ''
            self._notes.append(f'{len(others)} in masks/ are the mask of no image '
                               f'({some(others)}): a mask is named ID.png, '
                               f'after images/ID.jpg{a_class}; other kinds of files change the '
                               f'labels')
        return found

    def _read_classes(self) -> tuple[str, ...]:
        """The names in classes.txt; none where there is no such file."""
        path = self.root / 'classes.txt'
        if not path.is_file():
            return ()
        lines: dict[str, int] = {}
        for line, name in enumerate(map(spelling, read_text(path).rstrip().splitlines()), start=1):
            if not name:
                self._tell('classes.txt', line,
                           'empty; the number of a line is the number of its class: take it out')
            elif name in lines:
                self._tell('classes.txt', line,
                           f'{name!r} is there already (line {lines[name]}): take one out')
            elif problem := _unfit(name):
                self._tell('classes.txt', line, problem)
            lines.setdefault(name, line)
        if not lines:
            raise UserError(f'{path}: no class; write one name a line, or remove the file')
        return tuple(lines)

    def _read_rows(self, given: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """id -> names of its classes, of the good rows of labels.csv. given: the names in
        classes.txt, if there are any.
        """
        path = self.root / 'labels.csv'
        if not path.is_file():
            raise UserError(f'{path}: missing; {LAYOUT}; or put the photographs of each class in a '
                            f'folder of its name')
        lines: dict[str, int] = {}
        rows: dict[str, tuple[str, ...]] = {}
        first: dict[str, int] = {}
        try:
            for row in tables.rows_of(read_text(path), self._id_of, LAYOUT, frozenset(given)):
                image_id = self._id_of(row.image)
                if row.problem:
                    self._tell('labels.csv', row.line, row.problem)
                elif image_id is None:
                    self._tell('labels.csv', row.line, self._no_image(row.image))
                elif image_id in lines:
                    self._tell('labels.csv', row.line,
                               f'{image_id!r} has a row already (line {lines[image_id]}): join the '
                               'two, with ; between the classes')
                else:
                    lines[image_id] = row.line
                    for name in row.names:
                        first.setdefault(name, row.line)
                    rows[image_id] = tuple(map(spelling, row.names))
        except tables.Broken as error:
            raise UserError(f'{path} line {error.line}: not readable as CSV ({error}): look for a '
                            f'quotation mark without '
                            'its other half, here or above') from error
        if not rows and not self._wrong:
            raise UserError(f'{path}: no row; {LAYOUT}')
        self._check_names(first, given)
        if not given:
            self._check_lists(first)
        return rows

    def _check_names(self, first: dict[str, int], given: tuple[str, ...]) -> None:
        """first: the names in labels.csv and the line of each one's first row."""
        alike: dict[str, str] = {}
        for name, line in first.items():
            key = looks(name)
            if given and spelling(name) not in given:
                close = next((';'.join(found) for found in tables.parts(spelling(name))
                              if set(found) <= set(given)),
                             _closest(name, given))
                self._tell('labels.csv', line, f'{name!r} is not in classes.txt' +
                           (f'; is it {close!r}?' if close else ':')
                           + ' Mend it in every row, or add it to classes.txt')
            elif not given and (problem := _unfit(name)):
                self._tell('labels.csv', line, problem)
            elif not given and key in alike:
                other = alike[key]
                if other.casefold() != name.casefold():
                    self._tell('labels.csv', line, f'{name!a} and {other!a} (line {first[other]}) '
                                                   f'look alike (blanks, Unicode '
                               'form): spell them alike')
                else:
                    self._tell('labels.csv', line, f'{name!r} and {other!r} (line {first[other]}) '
                                                   f'differ by case alone: spell '
                               'them alike, or, where they are two classes, list both in '
                               'classes.txt')
            alike.setdefault(key, name)

    def _check_lists(self, first: dict[str, int]) -> None:
        """Tells of names that seem to be lists of names, and of tables of 0 and 1 without names.
        first: as above.
        """
        if first and {name.lower() for name in first} <= {'0', '1', 'true', 'false', 'yes', 'no',
                                                          '0.0', '1.0'}:
            self._tell('labels.csv', min(first.values()),
                       f'the classes of all rows are {" and ".join(sorted(first))}: a table '
                       'of yes and no needs a first row that names its classes; where these are '
                       'names, list them in '
                       'classes.txt')
            return
        names = {looks(name): name for name in first}
        made_of = {name: [tuple(map(looks, found)) for found in tables.parts(spelling(name))]
                   for name in names.values()}
        for name, ways in made_of.items():
            if found := next((found for found in ways if all(part in names for part in found)),
                             None):
                self._tell('labels.csv', first[name],
                           f'{name!r}: a class of that name, though {" and ".join(found)} are '
                           f'classes: write {";".join(found)}, or, where it is one, list all '
                           f'classes in classes.txt')
        count = collections.Counter(part for ways in made_of.values()
                                    for part in {part for found in ways for part in found})
        doubtful = [repr(name) for name, ways in made_of.items()
                    if any(all(count[part] > 1 for part in found) for found in ways)]
        if doubtful:
            self._notes.append(f'{len(doubtful)} names of classes are made of words that others '
                               f'are made of, too '
                               f'({some(doubtful)}): between two classes stands ;')

    def _tell(self, file: str, line: int, problem: str) -> None:
        self._wrong.append(f'{file} line {line}: {problem}')

    def _id_of(self, name: str) -> str | None:
        """The id of an image named by its file or its id, with or without ending, folder before it
        or not; None where there is none.
        """
        name = same(name)
        stem = without_ending(name, PHOTOGRAPHS)
        if stem in self._images and (same(self._images[stem]) == name or name not in self._images):
            return stem
        if name in self._images:
            return name
        shorter = name.replace('\\', '/').partition('/')[2]
        if self._folders and '/' in name.replace('\\', '/'):  # CLASS/x.jpg, of the id CLASS_x
            folder, _, file = name.replace('\\', '/').rpartition('/')
            image_id = f'{folder.rpartition("/")[2]}_{without_ending(file, PHOTOGRAPHS)}'
            return image_id if image_id in self._images else None
        return self._id_of(shorter) if shorter else None

    def _no_image(self, name: str) -> str:
        if not name:
            return f'no image is named; {LAYOUT}'
        if self._lower is None:
            self._lower = {same(key).lower(): there for image_id, there in self._images.items()
                           for key in (image_id, there)}
        other = self._lower.get(same(name).lower())
        return (f'no photograph {name!r} in images/' + (f'; is it {other!r}?' if other else ':')
                + ' Mend the name, or take the line out')

    def _read_list(self, path: Path) -> list[str]:
        found = parse_list(path, self._id_of)
        for image_id, line in zip(found.ids, found.lines, strict=True):
            if image_id not in self._keys:
                raise UserError(f'{path} line {line}: ' + (self._no_image(image_id)
                                                           if image_id not in self._images else
                                                           f'{image_id!r} has no row in '
                                                           f'labels.csv: add one, or take the line '
                                                           'out'))
        if found.absent and found.note(path) not in self._notes:
            self._notes.append(found.note(path))
        return found.ids

    def _note_what_is_not_used(self) -> None:
        without = [image_id for image_id in self._images if image_id not in self._keys]
        if without:
            self._notes.append(f'{len(without)} photographs without a row in labels.csv are not '
                               f'used ({some(without)}): give '
                               'them one; nothing after the comma for those that show none of the '
                               'classes')
        for name in SPLITS:
            if (self.root / 'lists' / f'{name}.txt').is_file():
                self._notes.append(f'lists/{name}.txt is not read: {name!r} has a meaning already; '
                                   f'give it another name')


def _listed(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones, which systems and editors leave."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError as error:
        raise UserError(f'{folder}: cannot be read: {error.strerror}') from error


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
