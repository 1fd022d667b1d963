"""The contact sheet: rows of photograph, activations, pseudo-mask and truth, in one picture."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from misc import imutils
from misc.contract.sources import Source, renumbered
from misc.contract.stages import Stage
from misc.draw import drawing
from misc.files import activations, label_maps


class Column(NamedTuple):
    """What a stage made: its title, its kind ('activation' or 'mask'), where it lies, and what
    makes an image's file that is not there.
    """

    title: str
    kind: str
    folder: Path
    remedy: str


def shown(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages whose first output has a column."""
    return [stage for stage in stages if stage.shown is not None and stage.shown.kind != 'seed']


def column(stage: Stage, folder: Path) -> Column:
    return Column(stage.shown.title, stage.shown.kind, folder, f'run {stage.flag} True first')


def spread(ids: Sequence[str], number: int) -> list[str]:
    """Return at most `number` of the ids, evenly spread."""
    return [ids[position]
            for position in np.linspace(0, len(ids) - 1, min(number, len(ids))).astype(int)]


def draw(source: Source, ids: Sequence[str], columns: Sequence[Column]) -> np.ndarray:
    """Return the sheet of these images, uint8 (H, W, 3).

    Each row begins with the names of its classes; there is a column of the truth where one of them
    has a mask. Raises UserError where a file is missing.
    """
    truth = [source.mask_path(image_id) for image_id in ids]
    masked = any(path.is_file() for path in truth)
    rows, titles = [], []
    for image_id, path in zip(ids, truth, strict=True):
        image = imutils.read_of(source, image_id)
        rows.append([image, *(_picture(source, image, image_id, each) for each in columns)])
        if path.is_file():
            true = renumbered(source, label_maps.load(path))
            rows[-1].append(drawing.overlay_labels(image, true, source.palette))
        titles.append(', '.join(np.array(source.classes)[source.labels(image_id)]))
    headings = ['image', *(each.title for each in columns), *(['truth'] if masked else [])]
    return drawing.contact_sheet(rows, headings, row_titles=titles)


def _picture(source: Source, image: np.ndarray, image_id: str, of: Column) -> np.ndarray:
    if of.kind == 'activation':
        planes = activations.load(of.folder, image_id, of.remedy).without_background().high_res
        return drawing.overlay_activation(image, planes.max(0, initial=0))
    mask = label_maps.load(label_maps.label_path(of.folder, image_id), of.remedy)
    return drawing.overlay_labels(image, mask, source.palette)
