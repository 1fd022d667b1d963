"""What a data set must offer (`Source`), without torch; what a check of one finds, and how some of many ids are told."""
import abc
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from misc.pyutils import UserError


@dataclasses.dataclass
class Check:
    """What a source's `check` found for some images: ids by problem, and how many images show each class.

    wrong: what must be mended before a stage runs, a line each with its remedy, whatever the images asked for (those of
    no image: `check(())`); notes: what need not be, likewise.
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
    """A data set: all that a stage may ask of it. Another one offers the same, and no stage knows the difference.

    Of the class: name; root_is: what --data_root is, for people; lists: the defaults of the flags that name lists;
    environment, usual: the variable and the folder that stand for --data_root. Of an object: classes: the C names; palette:
    uint8 (256, 3), the colours of label maps; root.

    What need not be offered has a default here: masks of single objects, an evaluation server, `check`.
    """

    name: ClassVar[str]
    root_is: ClassVar[str]
    lists: ClassVar[dict[str, str]]
    environment: ClassVar[str | None] = None
    usual: ClassVar[str | None] = None
    server_layout: ClassVar[dict[str, str]] = {}  # split -> where an evaluation server wants its label maps
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
        """The ids of a list file, or of a split. Raises UserError where there is neither."""

    def ids(self, listed: str | os.PathLike) -> list[str]:
        """`names`; of LIST::N every N-th. Raises UserError where N is no number."""
        name, colons, step = str(listed).partition('::')
        if colons and not (step.isdecimal() and int(step)):
            raise UserError(f'{listed}: every what-th image of {name}? LIST::100 is every 100th')
        return self.names(listed) if not colons else self.names(name)[::int(step)]

    @abc.abstractmethod
    def image_path(self, image_id: str) -> Path:
        """Where the photograph lies."""

    @abc.abstractmethod
    def labels(self, image_id: str) -> np.ndarray:
        """Image-level labels, bool (C,). Raises UserError where there are none to be read."""

    @abc.abstractmethod
    def mask_path(self, image_id: str) -> Path:
        """Where the true label map lies (0 background, 1..C, 255 ignored); it may be missing: only scores need it."""

    def object_mask_path(self, image_id: str) -> Path | None:
        """Where the true instances lie, numbered from 1 (255 ignored); None where the data set has none."""
        return None

    def check(self, ids: Iterable[str]) -> Check:
        """What is there and what is missing for `ids`."""
        ids = list(ids)
        found = Check(len(ids), [], [], [], [], np.zeros(self.n_classes, np.int64))
        for image_id in ids:
            if not self.image_path(image_id).is_file():
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


def some(ids: Sequence[str], most: int = 5) -> str:
    """'a, b, c, d, e ...'"""
    return ', '.join(ids[:most]) + (' ...' if len(ids) > most else '')
