"""What made a folder or a weights file: a record beside it, compared before it is added to or read.

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
from misc.files.label_maps import LEGEND
from misc.pyutils import (
    UserError,
    lock,
    lock_path,
    log,
    remove_unfinished,
    write_json,
    write_text,
    writing,
)

ELSEWHERE = 'name another folder (by its own flag, or --work_dir)'
FOLDER_RECORD = '_settings.json'
NAMED = 8  # entries of a list that an error names


def fingerprint(record: dict[str, Any]) -> str:
    """Digest a record to 16 hex digits."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def made_by(folder: str | os.PathLike) -> str:
    """Return the fingerprint of the record of a folder; 'unknown' where it was made elsewhere."""
    record = _read(Path(folder) / FOLDER_RECORD)
    return 'unknown' if record is None else fingerprint(record)


def beside_weights(weights: str | os.PathLike, ending: str) -> Path:
    """NAME.pth -> NAME + ending; only '.pth' is an ending here, so that 'run0.1' keeps its name."""
    return Path(str(weights).removesuffix('.pth') + ending)


def weights_record(weights: str | os.PathLike) -> Path:
    """NAME.pth -> NAME.json."""
    return beside_weights(weights, '.json')


def open_folder(folder: str | os.PathLike, record: dict[str, Any], suffixes: tuple[str, ...],
                overwrite: bool, only_own: bool = False, inputs: Inputs | None = None,
                ids: Sequence[str] = (), legend: str = '') -> Made:
    """Make `folder` ready for files ID + one of `suffixes`, made from `inputs` as `record` says.

    With overwrite, files of an earlier run are removed, those without a record (made elsewhere)
    too, unless `only_own`: then that raises UserError. Else raises UserError where they were made
    with other settings; files without a record are used, which the log says. Those of `ids` whose
    inputs have changed are removed, so that they are made anew. legend: what the files' values mean
    (label_maps.legend), written beside the record. Raises UserError where another stage made the
    folder, and as `Made.open` does. Locks the folder against other runs.
    """
    folder = Path(folder)
    made = Made(folder, inputs, ids, suffixes)
    if torchutils.is_main():
        recorded = _open_folder(folder, record, made, overwrite, only_own)
        if legend and recorded:
            write_text(folder / LEGEND, legend)
        if inputs is not None:
            made.open(recorded)
    torchutils.wait_for_all()
    return made


def lock_folder(folder: Path) -> None:
    """Keep other runs from `folder` (pyutils.lock)."""
    lock(lock_path(folder), f'{folder}')


def _open_folder(folder: Path, record: dict[str, Any], made: Made, overwrite: bool,
                 only_own: bool) -> bool:
    """Whether the folder has a record."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{folder}: a file stands where the output folder should be')
    lock_folder(folder)
    record = as_stored(record)
    path = folder / FOLDER_RECORD
    old = _read(path)
    if old is not None and old.get('stage', record['stage']) != record['stage']:
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
        for file in there:
            with writing(file):
                # the record stays until all are gone: a run stopped here leaves nothing that looks
                # new
                file.unlink()
        made.remove()
    elif there:
        if old is None:
            log.info('%s: %d files without a record of their settings (made elsewhere) are used',
                     folder, len(there))
            return False
        if completed(old, record) != record:
            raise UserError(f'{folder} was made with other settings ({difference(old, record)}): '
                            f'--overwrite makes '
                            f'it anew, or {ELSEWHERE}')
        return True
    write_json(path, record)
    return True


def completed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the record `old`, with what an earlier version did not record as in `new`.

    So for a digest of the code by another scheme (`code`, before its first ':').
    """
    if 'code' in old and 'code' in new and scheme_of(old['code']) != scheme_of(new['code']):
        old = {name: value for name, value in old.items() if name != 'code'}
    return {name: new[name] for name in ('classes', 'code') if name in new} | old


def scheme_of(digest: str) -> str:
    """Return the number of the scheme that a digest of code was made by; '' for the first."""
    return digest.rpartition(':')[0]


def is_of(folder: str | os.PathLike, record: dict[str, Any]) -> bool:
    """Whether the record of `folder` holds these very settings, all of them known."""
    old = _read(Path(folder) / FOLDER_RECORD)
    record = as_stored(record)
    return (old is not None and completed(old, record) == record
            and 'unknown' not in record.values())


def read_folder(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a folder; None where it was made elsewhere."""
    return _read(Path(folder) / FOLDER_RECORD)


def recorded(folder: str | os.PathLike, name: str, default: Any) -> Any:
    """Return a setting that `folder` was made with; `default` where its record has none."""
    return (_read(Path(folder) / FOLDER_RECORD) or {}).get(name, default)


def as_stored(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as it comes back from JSON (tuples become lists)."""
    return json.loads(json.dumps(record))


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return 'name: was OLD, now NEW' for each setting that differs.

    Of long lists (classes) the first entry that does.
    """
    return '; '.join(f'{name}: {_was_and_is(old.get(name, "not set"), new.get(name, "not set"))}'
                     for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name))


def _was_and_is(old: Any, new: Any) -> str:
    if not (isinstance(old, list) and isinstance(new, list) and max(len(old), len(new)) > NAMED):
        return f'was {old}, now {new}'
    if len(old) != len(new):
        return f'were {len(old)}, now {len(new)}'
    number, one, other = _first_difference(old, new)
    return f'number {number} of {len(new)} was {one}, now {other}'


def check_classes(path: str | os.PathLike, classes: Sequence[str]) -> None:
    """Raise UserError where a folder or weights were made for other classes.

    Their record tells. What has no record (made elsewhere), or no classes in it (IRN's weights),
    serves any.
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
