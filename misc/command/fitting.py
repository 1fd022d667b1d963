"""Batches, epochs and learning rates that follow from the number of images (--fit_to_images).

The published ones are for ten thousand. Of tens or hundreds they make a handful of steps, after
which IRN, whose heads begin at random, knows no boundary, and its masks run over.
"""
import argparse
from collections.abc import Collection
from typing import Any

from misc.contract import settings

MANY = 1000  # images: from here on the published batches and learning rates
BATCH = 8  # of fewer
AMN_RATES = [5e-5, 1e-3]  # of fewer: ten times the published ones
STEPS = {'cam': 100, 'amn': 100, 'irn': 250}  # at least, by more epochs
TRAININGS = {'cam': settings.CamTraining, 'amn': settings.AmnTraining, 'irn': settings.IrnTraining}


def fit(args: argparse.Namespace, images: int, named: Collection[str]) -> str:
    """Set the flags of the three trainings for a train list of so many images.

    named: the flags that the user, or a preset, gives, which stay.
    Returns what the trainings have then, in words.
    """
    def fitted(flag: str, value: Any) -> None:
        if flag not in named:
            setattr(args, flag, value)

    if images < MANY:
        fitted('amn_learning_rate', AMN_RATES)
    told = []
    for name, cls in TRAININGS.items():
        if images < MANY:
            fitted(f'{name}_batch_size', max(1, min(BATCH, images)))
        in_one = max(1, images // cls.of(args).batch_size)
        fitted(f'{name}_num_epoches', max(cls.of(args).epochs, -(-STEPS[name] // in_one)))
        now = cls.of(args)
        rate = ' and '.join(f'{each:g}' for each in (
            now.learning_rate if isinstance(now.learning_rate, tuple) else [now.learning_rate]))
        told.append(f'{name.upper()} {now.epochs} epochs of {in_one} steps of {now.batch_size} '
                    f'images, learning rate {rate}')
    return f'for {images} images (a flag changes it): {"; ".join(told)}'
