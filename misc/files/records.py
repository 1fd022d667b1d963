"""What made a folder or a weights file: written beside it, compared before anything is added to it
or made from it.

What counts is what changes a file's content: settings and the weights, not lists, workers, device
or paths.
"""
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from misc import torchutils
from misc.files.inputs import Inputs, Made
from misc.pyutils import UserError, lock, lock_path, log, remove_unfinished, write_json, writing

ELSEWHERE = 'name another folder (by its own flag, or --work_dir)'
FOLDER_RECORD = '_settings.json'
TOLD = 8  # entries of a list that an error tells


def fingerprint(settings: dict[str, Any]) -> str:
    """16 hex digits that tell settings apart."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def made_by(folder: str | os.PathLike) -> str:
    """Fingerprint of the record of a folder that is an input here; 'unknown' where it was made
    elsewhere.
    """
    settings = _read(Path(folder) / FOLDER_RECORD)
    return 'unknown' if settings is None else fingerprint(settings)


def beside_weights(weights: str | os.PathLike, ending: str) -> Path:
    """NAME.pth -> NAME + ending; only '.pth' is an ending here, so that 'run0.1' keeps its name."""
    return Path(str(weights).removesuffix('.pth') + ending)


def weights_record(weights: str | os.PathLike) -> Path:
    """NAME.pth -> NAME.json."""
    return beside_weights(weights, '.json')


def open_folder(folder: str | os.PathLike, settings: dict[str, Any], suffixes: tuple[str, ...],
                overwrite: bool, only_own: bool = False, inputs: Inputs | None = None,
                ids: Sequence[str] = ()) -> Made:
    """Make `folder` ready for files ID + one of `suffixes` made with `settings` from `inputs`.

    With overwrite, files of an earlier run are removed, those without a record (made elsewhere)
    too, unless `only_own`: then that raises UserError. Else raises UserError where they were made
    with other settings; files without a record are used, which the log says. Those of `ids` whose
    inputs have changed are removed, so that they are made anew. Raises UserError where another
    stage made the folder, and as `Made.open` does. Locks the folder against other runs.
    """
    folder = Path(folder)
    made = Made(folder, inputs, ids, suffixes)
    if torchutils.is_main():
        recorded = _open_folder(folder, settings, made, overwrite, only_own)
        if inputs is not None:
            made.open(recorded)
    torchutils.wait_for_all()
    return made


def lock_folder(folder: Path) -> None:
    """Keep other runs from `folder` (pyutils.lock)."""
    lock(lock_path(folder), f'{folder}')


def _open_folder(folder: Path, settings: dict[str, Any], made: Made, overwrite: bool,
                 only_own: bool) -> bool:
    """Whether the folder has a record."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{folder}: a file stands where the output folder should be')
    lock_folder(folder)
    settings = as_stored(settings)
    record = folder / FOLDER_RECORD
    old = _read(record)
    if old is not None and old.get('stage', settings['stage']) != settings['stage']:
        raise UserError(f'{folder} holds what {old["stage"]} made: {ELSEWHERE}')
    folders = made.folders()
    for each in folders:
        remove_unfinished(each)
    there = [path for each in folders for suffix in made.suffixes
             for path in each.glob(f'[!.]*{suffix}')]
    if there and overwrite:
        if only_own and old is None:
            raise UserError(f'{folder} holds {len(there)} files without a record of their settings '
                            f'(made elsewhere), which '
                            f'--overwrite would delete: {ELSEWHERE}')
        for path in there:
            with writing(path):
                # the record stays until all are gone: a run stopped here leaves nothing that looks
                # new
                path.unlink()
        made.remove()
    elif there:
        if old is None:
            log.info('%s: %d files without a record of their settings (made elsewhere) are used',
                     folder, len(there))
            return False
        if with_later(old, settings) != settings:
            raise UserError(f'{folder} was made with other settings ({difference(old, settings)}): '
                            f'--overwrite makes '
                            f'it anew, or {ELSEWHERE}')
        return True
    write_json(record, settings)
    return True


def with_later(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old`, with what an earlier version did not record as `new` has it."""
    return {name: new[name] for name in ('classes', 'code') if name in new} | old


def is_of(folder: str | os.PathLike, settings: dict[str, Any]) -> bool:
    """Whether the record of `folder` holds these very settings, all of them known."""
    old = _read(Path(folder) / FOLDER_RECORD)
    settings = as_stored(settings)
    return (old is not None and with_later(old, settings) == settings
            and 'unknown' not in settings.values())


def read_folder(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a folder; None where it was made elsewhere."""
    return _read(Path(folder) / FOLDER_RECORD)


def setting(folder: str | os.PathLike, name: str, default: Any) -> Any:
    """What `folder` was made with; `default` where it has no record of it (made elsewhere)."""
    return (_read(Path(folder) / FOLDER_RECORD) or {}).get(name, default)


def as_stored(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` as they come back from JSON (tuples become lists)."""
    return json.loads(json.dumps(settings))


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """'name: was OLD, now NEW' for each setting that differs; of long lists (classes) the first
    entry that does.
    """
    return '; '.join(f'{name}: {_was_and_is(old.get(name, "not set"), new.get(name, "not set"))}'
                     for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name))


def _was_and_is(old: Any, new: Any) -> str:
    if not (isinstance(old, list) and isinstance(new, list) and max(len(old), len(new)) > TOLD):
        return f'was {old}, now {new}'
    if len(old) != len(new):
        return f'were {len(old)}, now {len(new)}'
    number, one, other = _first_difference(old, new)
    return f'number {number} of {len(new)} was {one}, now {other}'


def check_classes(path: str | os.PathLike, classes: Sequence[str]) -> None:
    """Raises UserError where the record of a folder or of weights tells that it was made for other
    classes.

    What has no record (made elsewhere), or no classes in it (IRN's weights), serves any.
    """
    folder = Path(path).is_dir()
    theirs = (_read(Path(path) / FOLDER_RECORD if folder else weights_record(path))
              or {}).get('classes')
    if theirs is None or theirs == list(classes):
        return
    made = f'{path}: {"made" if folder else "trained"} for'
    if len(theirs) != len(classes):
        raise UserError(f'{made} {len(theirs)} classes, this data set has {len(classes)}: give it '
                        f'another --work_dir')
    number, one, other = _first_difference(theirs, classes)
    raise UserError(f'{made} other classes: number {number} of {len(classes)} is {one!r} there and '
                    f'{other!r} in this data set: '
                    'give it another --work_dir')


def _first_difference(old: Sequence, new: Sequence) -> tuple[int, Any, Any]:
    return next((number, *pair) for number, pair in enumerate(zip(old, new, strict=False), start=1)
                if pair[0] != pair[1])


def read_weights_record(weights: str | os.PathLike) -> dict[str, Any] | None:
    return _read(weights_record(weights))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: not readable ({error}); delete it if the files beside it are to '
                        f'be used') from error
