"""What the data sets of --dataset share, without torch: what a check of one finds, and how some of many ids are told."""
import dataclasses
from collections.abc import Sequence

import numpy as np


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


def some(ids: Sequence[str], most: int = 5) -> str:
    """'a, b, c, d, e ...'"""
    return ', '.join(ids[:most]) + (' ...' if len(ids) > most else '')
