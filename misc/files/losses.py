"""What a training's loss was after each epoch: NAME.losses.jsonl beside its weights.

A line an epoch (a round of steps, where a training is measured in steps): `epoch`, from 1; `step`,
the updates until then; `learning_rate`, the first group's; `loss`, and its parts by their names,
means over the epoch's steps.
"""
import json
import os
from pathlib import Path
from typing import Any

from misc.files import records
from misc.pyutils import UserError, atomic_path


def path_of(weights: str | os.PathLike) -> Path:
    """NAME.pth -> NAME.losses.jsonl."""
    return records.beside_weights(weights, '.losses.jsonl')


def read(weights: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the lines, first epoch first; none where the file is not there.

    Raises UserError where it is broken.
    """
    path = path_of(weights)
    try:
        return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: not the losses of a training ({error}); delete it') from error


def write(weights: str | os.PathLike, lines: list[dict[str, Any]]) -> None:
    """Write the lines, atomically; without any there is no file.

    Raises UserError when the disk refuses.
    """
    path = path_of(weights)
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')
