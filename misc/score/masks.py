"""Whether true label maps can be meant as they are: what they hold against the image-level labels.

A mask need not show all that its image is labelled with (a difficult object, a crowd), but hardly
ever shows what it is not.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from misc.contract.sources import some
from misc.data import datasets
from misc.files import label_maps
from misc.pyutils import UserError


class Seen(NamedTuple):
    """What the mask of one image shows.

    shown: its labels but 0; 255 too.
    labelled: the image-level labels, from 1; None: not known.
    """

    image_id: str
    shown: frozenset[int]
    labelled: frozenset[int] | None

    @property
    def denied(self) -> frozenset[int]:
        """Return the classes that the mask shows and that the image is not labelled with."""
        return (frozenset() if self.labelled is None
                else self.shown - self.labelled - {label_maps.IGNORE})


def look(source: datasets.Source, image_id: str, truth: np.ndarray) -> Seen:
    """Look at the true label map (H, W) of an image."""
    values = np.flatnonzero(np.bincount(truth.ravel(), minlength=256)).tolist()
    try:
        present = source.labels(image_id) if hasattr(source, 'labels') else None
        labelled = None if present is None else frozenset((np.flatnonzero(present) + 1).tolist())
    except UserError:  # a score does without
        labelled = None
    return Seen(image_id, frozenset(values) - {0}, labelled)


def odd(classes: Sequence[str], masks: Sequence[Seen]) -> tuple[list[str], list[str]]:
    """Return what is wrong with masks, and what may be right but seldom is, a line each."""
    wrong, notes = [], []
    void = [mask.image_id for mask in masks if mask.labelled and mask.shown == {label_maps.IGNORE}]
    classless = [mask.image_id for mask in masks if mask.labelled
                 and not mask.shown - {label_maps.IGNORE}]
    if void:
        others = ', 2, ..., the classes in their order' if len(classes) > 1 else ''
        message = (f'the masks of {_images(void)} hold nothing but 0 and {label_maps.IGNORE}: '
                   f'{label_maps.IGNORE} is left out, it is no '
                   f'class; write 1 ({classes[0]}{others}) in its place')
        if any(mask.shown - {label_maps.IGNORE} for mask in masks):
            notes.append(f'{message}, unless nothing there can be told')
        else:
            wrong.append(f'{message}; a score of these is that of background alone')
    elif len(classless) > 1 and not any(mask.shown for mask in masks):
        notes.append(f'the masks of {_images(classless)}, whose images are labelled with classes, '
                     f'show nothing but background: '
                     'a mask holds 1, 2, ... for the classes in their order')
    above = {mask.image_id: sorted(label for label in mask.shown - {label_maps.IGNORE}
                                   if label > len(classes)) for mask in masks}
    if above := {image_id: numbers for image_id, numbers in above.items() if numbers}:
        first, numbers = next(iter(above.items()))
        meant = _numbering(classes, masks)
        wrong.append(f'the masks of {_images(list(above))} hold labels above {len(classes)}, the '
                     f'number of classes ({first}: '
                     f'{", ".join(map(str, numbers))}): write 1, 2, ... for the classes in their '
                     f'order, {label_maps.IGNORE} for '
                     'what is left out' + (f'. It looks like another numbering: {meant}' if meant
                                           else ''))
    denied = [mask for mask in masks if mask.denied and mask.image_id not in above]
    if denied:
        first = denied[0]
        message = (f'the masks of {_images([mask.image_id for mask in denied])} show classes that '
                   f'the '
                   f'labels of the image deny ('
                   f'{first.image_id}: {", ".join(map(str, sorted(first.denied)))}, which is '
                   f'{some([classes[label - 1] for label in sorted(first.denied)])}): mend the '
                   f'labels, or the masks')
        meant = (_numbering(classes, masks)
                 if 2 * len(denied) > sum(bool(mask.shown) for mask in masks) else '')
        notes.append(message + (f'. It looks like another numbering: {meant}; 1, 2, ... are the '
                                f'classes in their order'
                                if meant else ''))
    return wrong, notes


def _images(ids: Sequence[str]) -> str:
    return f'{len(ids)} images ({some(ids)})'


def _numbering(classes: Sequence[str], masks: Sequence[Seen]) -> str:
    """'3 stands for cat (1), 7 for dog (2)': labels that all images share whose masks show the
    number; nothing where no number tells.
    """
    found = []
    for number in sorted({label for mask in masks for label in mask.shown} - {label_maps.IGNORE}):
        of = [mask.labelled for mask in masks if number in mask.shown and mask.labelled is not None]
        shared = frozenset.intersection(*of) if of else frozenset()
        if len(shared) == 1 and number not in shared:
            label, = shared
            found.append(f'{number} stands for {classes[label - 1]} ({label})')
    return some(found)
