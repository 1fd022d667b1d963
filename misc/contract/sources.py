"""What a data set must offer (`Source`), and how texts, lists and names are read. Without torch."""
import abc
import codecs
import collections
import dataclasses
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from misc.imutils import PHOTOGRAPHS
from misc.pyutils import UserError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# blanks without width, byte-order mark, soft hyphen
INVISIBLE = dict.fromkeys(map(ord, '\u200b\u2060\ufeff\u00ad'))
JOINERS = dict.fromkeys(map(ord, '\u200c\u200d'))  # which some scripts need
NAMED_FILES = (*PHOTOGRAPHS, '.xml')  # endings that a list may write after an id
FLAGGED = re.compile(r'(.*\S)\s+([+-]?[01])')  # 'id 1' of ImageSets/Main
# 'image.jpg mask.png'
TWO_COLUMNS = re.compile(rf'(.*?({"|".join(map(re.escape, NAMED_FILES))}))\s+\S.*', re.IGNORECASE)


@dataclasses.dataclass
class Check:
    """What a source's `check` found for some images: ids by problem, and images of each class.

    wrong: what must be mended before a stage runs, a line each with its remedy, whatever the images
      (those of no image: `check(())`).
    notes: what need not be mended, likewise.
    """

    images: int
    missing_image: list[str]
    missing_annotation: list[str]
    no_class: list[str]
    missing_mask: list[str]
    per_class: np.ndarray
    wrong: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


class Source(abc.ABC):
    """A data set: all that a stage may ask of it.

    Of the class:
    name: as --dataset has it.
    root_is: what --data_root is, for people.
    lists: the defaults of the flags that name lists.
    environment, usual: the variable and the folder that stand for --data_root.
    mask_values: value in the mask files -> label, where they hold other numbers than labels; values
      that are not named become 255. None: the files hold labels.

    Of an object:
    classes: the C names.
    palette: uint8 (256, 3), the colours of label maps.
    root: the folder.

    What need not be offered has a default here: masks of single objects, an evaluation server,
    `check`.
    """

    name: ClassVar[str]
    root_is: ClassVar[str]
    lists: ClassVar[dict[str, str]]
    environment: ClassVar[str | None] = None
    usual: ClassVar[str | None] = None
    # EXIF orientation is applied, and masks lie over photographs so
    upright: ClassVar[bool] = False
    mask_values: ClassVar[dict[int, int] | None] = None
    # split -> where an evaluation server wants its label maps
    server_layout: ClassVar[dict[str, str]] = {}
    classes: tuple[str, ...]
    palette: np.ndarray
    root: Path

    @abc.abstractmethod
    def __init__(self, root: str | os.PathLike):
        """Raises UserError where `root` is no such folder."""

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.classes)

    @abc.abstractmethod
    def names(self, list_or_split: str | os.PathLike) -> list[str]:
        """Return the ids of a list file (`parse_list` reads it), or of a split.

        Raises UserError where there is neither, and should where a listed image is not there:
        nothing else says so before the first stage.
        """

    def ids(self, listed: str | os.PathLike) -> list[str]:
        """Return `names`, of LIST::N every N-th. Raises UserError where N is no number."""
        name, colons, every = str(listed).partition('::')
        if colons and not (every.isdecimal() and int(every)):
            raise UserError(f'{listed}: every what-th image of {name}? LIST::100 is every 100th')
        return self.names(listed) if not colons else self.names(name)[::int(every)]

    @abc.abstractmethod
    def image_path(self, image_id: str) -> Path:
        """Where the photograph lies."""

    @abc.abstractmethod
    def labels(self, image_id: str) -> np.ndarray:
        """Image-level labels, bool (C,). Raises UserError where there are none to be read."""

    @abc.abstractmethod
    def mask_path(self, image_id: str) -> Path:
        """Return where the true label map lies: 0 background, 1..C, 255 ignored, or `mask_values`.

        It may be missing: only scores need it.
        """

    def object_mask_path(self, image_id: str) -> Path | None:
        """Return where the true instances lie, numbered from 1 (255 ignored); None without any."""
        return None

    def has_image(self, image_id: str) -> bool:
        """Tell whether the photograph is there."""
        return self.image_path(image_id).is_file()

    def check(self, ids: Iterable[str]) -> Check:
        """Return what is there and what is missing for `ids`."""
        ids = list(ids)
        found = Check(len(ids), [], [], [], [], np.zeros(self.n_classes, np.int64))
        for image_id in ids:
            if not self.has_image(image_id):
                found.missing_image.append(image_id)
            if not self.mask_path(image_id).is_file():
                found.missing_mask.append(image_id)
            try:
                present = self.labels(image_id)
            except UserError:
                found.missing_annotation.append(image_id)
                continue
            found.per_class += present
            if not present.any():
                found.no_class.append(image_id)
        return found


def renumbered(source: Any, values: np.ndarray) -> np.ndarray:
    """Turn the values of a mask file into labels, by the `mask_values` of its source.

    values: uint8 (H, W).
    Returns uint8 (H, W); 255 for a value that is not named.
    """
    table = getattr(source, 'mask_values', None)  # a source need not derive from Source
    if table is None:
        return values
    labels = np.full(256, 255, np.uint8)
    labels[list(table)] = list(table.values())
    return labels[values]


@dataclasses.dataclass
class List:
    """A list file: its images' ids, the line of each, and how many more it marks as absent (-1)."""

    ids: list[str]
    lines: list[int]
    absent: int = 0

    def note(self, path: str | os.PathLike) -> str:
        """What the marks mean; nothing where there are none."""
        if not self.absent:
            return ''
        return (f'{path}: as in ImageSets/Main, -1 after an image leaves it out ({self.absent} '
                f'images), 0 and 1 keep it')


def some(ids: Sequence[str], most: int = 5) -> str:
    """Join the first ids for a message: 'a, b, c, d, e ...'."""
    return ', '.join(ids[:most]) + (' ...' if len(ids) > most else '')


def read_text(path: str | os.PathLike) -> str:
    """Return the text of a file, UTF-8 or, with a byte-order mark, UTF-16, without that mark.

    Raises UserError for anything else.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    try:
        if content.startswith(UTF16):
            return content.decode('utf-16')
        if b'\0' in content:
            raise UserError(f'{path}: not UTF-8 text; save it again as UTF-8')
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b'\n') + 1
        raise UserError(f'{path} line {line}: not UTF-8; save it again as UTF-8 ("CSV UTF-8" in '
                        f'table programs)') from error


def same(name: str) -> str:
    """Return a name in composed Unicode form: equal names are one, whatever system wrote them."""
    return name if name.isascii() else unicodedata.normalize('NFC', name)


def spelling(name: str) -> str:
    """The name in composed form, one blank between its words, without what has no width."""
    return ' '.join(same(name).translate(INVISIBLE).split())


def looks(name: str) -> str:
    """Return what is equal for names that differ by case, Unicode form, width or blanks alone."""
    return spelling(unicodedata.normalize('NFKC', name)).translate(JOINERS).casefold()


def as_on_disk(path: Path) -> Path:
    """The path, its name in the Unicode form that a file there has."""
    if path.name.isascii():
        return path
    forms = [path.with_name(unicodedata.normalize(form, path.name)) for form in ('NFC', 'NFD')]
    return next((found for found in (path, *forms) if found.exists()), path)


def is_photograph(name: str) -> bool:
    """Tell a photograph by its ending; not what systems leave beside photographs (._a.jpg)."""
    return os.path.splitext(name)[1].lower() in PHOTOGRAPHS and not name.startswith('.')


def photographs_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the photographs of a folder, sorted, and what else may be meant as one.

    The latter are texts: other files, folders with the number of photographs in them, ._ files.
      Raises UserError where the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f'{folder}: cannot be read: {error.strerror}') from error
    others, hidden = [], []
    for name in names:
        if name.startswith('.'):
            hidden += [name] if is_photograph(name.lstrip('._')) else []
        elif (folder / name).is_dir():
            count = sum(map(is_photograph,
                            (file for _, _, files in os.walk(folder / name) for file in files)))
            others.append(f'{name}/ with {count} photographs')
        elif not is_photograph(name):
            others.append(name)
    return [folder / name for name in names if is_photograph(name)
            and not (folder / name).is_dir()], others + hidden


def without_ending(name: str, endings: Sequence[str] = NAMED_FILES) -> str:
    stem, ending = os.path.splitext(name)
    return stem if stem and ending.lower() in endings else name


def read_list(path: str | os.PathLike) -> list[str]:
    """Return the ids of a list file where the images are not known."""
    return parse_list(path).ids


def parse_list(path: str | os.PathLike,
               id_of: Callable[[str], str | None] = lambda name: None) -> List:
    """Read a list file, an image a line: its id or file, with or without folder.

    A mask's file after it is not read. Where each line ends in 1, 0 or -1, as in VOC's
    ImageSets/Main, those with -1 are left out.

    id_of(name): the id of an image of that very name, if there is one: what is one as it stands is
    nothing else. What is none comes back as it is written, without folder and ending.
    Raises UserError for an empty list, and for an id twice.
    """
    written = [(number, same(line.strip().replace('\\', '/')))
               for number, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]
    marks = [FLAGGED.fullmatch(line) for _, line in written]
    if not all(marks) or any(_id_in(line, id_of) is not None for _, line in written):
        marks = [None] * len(written)
    found = List([], [])
    for (number, line), mark in zip(written, marks, strict=True):
        if mark is not None and mark[2] == '-1':
            found.absent += 1
            continue
        line = mark[1] if mark is not None else line
        image_id = _id_in(line, id_of)
        if image_id is None and (first := TWO_COLUMNS.fullmatch(line) or _twice(line)):
            line = first[1]
            image_id = _id_in(line, id_of)
        found.ids.append(without_ending(line.rpartition('/')[2]) if image_id is None else image_id)
        found.lines.append(number)
    if not found.ids:
        raise UserError(f'{path}: an empty list; write one image id a line'
                        + (f' (it marks all {found.absent} with -1)' if found.absent else ''))
    if len(set(found.ids)) < len(found.ids):
        twice = next(name for name, times in collections.Counter(found.ids).items() if times > 1)
        first, second = [number for number, name in zip(found.lines, found.ids, strict=True)
                         if name == twice][:2]
        raise UserError(f'{path} line {second}: {twice} is listed twice (line {first})')
    return found


def _id_in(line: str, id_of: Callable[[str], str | None]) -> str | None:
    """The id of what a line names, as it stands or without folder."""
    found = id_of(line)
    return id_of(line.rpartition('/')[2]) if found is None and '/' in line else found


def _twice(line: str) -> re.Match[str] | None:
    """'id id', as lists of an image and its mask without endings are."""
    return (re.fullmatch(r'(\S+)\s+\S+', line)
            if len({os.path.basename(word) for word in line.split()}) == 1 else None)
