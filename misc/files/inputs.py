"""What the output of each image was made from: its labels, its photograph, files of other folders.

FOLDER/_inputs.jsonl has a line an image: `image`, its id; `labels`, the names of its classes; and
of each file that was read (`photograph`, `activation`, ...) its content, 16 hex digits of SHA-256.
Neither place nor time counts: a data set that was copied or moved is the same. An output without a
line (made elsewhere, or by an earlier version) is used.

A line is noted before its image is read and its output written, and outputs that are not up to date
go before anything is noted. So, whenever a run is killed, an output that is there was made from
what its line says. Each process notes in a file of its own beside the folder (.FOLDER.inputs.*);
these are put together when a stage ends, or else when the next one begins.

What size and times each file had when its content was looked at is kept in the lock file of the
folder, which is no result:
where they are the same, the content is not read again.
"""
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from misc import torchutils
from misc.contract.sources import some
from misc.pyutils import (
    UserError,
    append_json_line,
    lock_path,
    log,
    read_lock,
    write_lock,
    write_text,
    writing,
)

FOLDER_INPUTS = '_inputs.jsonl'
PLURAL = {'photograph': 'photographs', 'activation': 'activations',
          'cam_activation': 'activations of CAM', 'seed': 'refined seeds',
          'label_map': 'label maps'}
FEW = 100  # outputs that are made anew without being asked for, however large their share
READERS = 8  # threads that read files whose size or time has changed
RACY = 50_000_000  # ns within which a file may change twice and show one time

Line = dict[str, Any]  # what an image's output was made from
# size, time of the content's change, of the entry's change (ns), number of the file
Stat = list[int]

_contents: dict[tuple[str, tuple[int, ...]], str] = {}  # (path, stat) -> content, of this process


@dataclasses.dataclass(frozen=True)
class Part:
    """Files of another folder that an output is made from.

    where: (folder, id) -> path.
    remedy: what makes them.
    """

    folder: str
    where: Callable[[str, str], Path]
    remedy: str


class Inputs:
    """What the images of an output are made from.

    source: photographs and, with `labelled`, labels (those that cannot be read are not compared:
    who needs them says so);
    parts: name -> files of another folder.
    """

    def __init__(self, source: Any, labelled: bool = True, **parts: Part):
        self.source, self.labelled, self.parts = source, labelled, parts

    def paths(self, image_id: str) -> dict[str, Path]:
        return {'photograph': self.source.image_path(image_id),
                **{name: part.where(part.folder, image_id) for name, part in self.parts.items()}}

    def labels(self, image_id: str) -> list[str] | None:
        """Names of the classes; None where they cannot be read."""
        try:
            return [self.source.classes[key]
                    for key in np.flatnonzero(self.source.labels(image_id))]
        except UserError:
            return None

    def describe(self, changed: dict[str, list[str]]) -> str:
        """Return changes in words: 'labels of 2 images: a.jpg, d.jpg; photographs of ...'."""
        return '; '.join(f'{PLURAL.get(name, name)} of {len(ids)} image{"s" * (len(ids) > 1)}: '
                         + some([f'{image_id}{self.source.image_path(image_id).suffix}'
                                 for image_id in ids])
                         for name, ids in changed.items())


class Snapshot:
    """What images were made from, and how their files looked then.

    lines: id -> line of _inputs.jsonl.
    stats: id -> name of the input -> stat of its file.
    """

    def __init__(self, lines: dict[str, Line] | None = None,
                 stats: dict[str, dict[str, Stat]] | None = None):
        self.lines, self.stats = lines or {}, stats or {}

    def current(self, inputs: Inputs, ids: Iterable[str]) -> 'Snapshot':
        """Take the snapshot of today; files whose stat is as in this one are not read again."""
        result, unread = Snapshot(), []
        for image_id in ids:
            line, stats = {}, {}
            if inputs.labelled and (labels := inputs.labels(image_id)) is not None:
                line['labels'] = labels
            stored, seen = self.lines.get(image_id, {}), self.stats.get(image_id, {})
            for name, path in inputs.paths(image_id).items():
                stat = _stat(path)
                if stat is None:
                    continue  # who reads it says so
                if name in stored and seen.get(name) == stat:
                    stats[name] = stat
                    line[name] = _contents[str(path), tuple(stat)] = stored[name]
                else:
                    unread.append((line, stats, name, path))
            result.lines[image_id], result.stats[image_id] = line, stats
        if len(unread) > 1000:
            log.info('reading %d files whose content is not known or whose size or time has '
                     'changed', len(unread))
        for (line, stats, name, _), (
            content, stat) in zip(unread, _look_at([path for *_, path in unread]), strict=True):
            if content is not None:
                line[name] = content
            if stat is not None:
                stats[name] = stat
        return result

    def changed(self, other: 'Snapshot') -> dict[str, list[str]]:
        """Return name of the input -> ids of the images of which it differs, of what both hold."""
        found: dict[str, list[str]] = {}
        for image_id, line in other.lines.items():
            old = self.lines.get(image_id, {})
            for name in line.keys() & old.keys():
                if line[name] != old[name]:
                    found.setdefault(name, []).append(image_id)
        return {name: found[name] for name in sorted(found)}

    def update(self, other: 'Snapshot') -> None:
        self.lines |= other.lines
        self.stats |= other.stats


def _stat(path: Path) -> Stat | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _look_at(paths: list[Path]) -> Iterator[tuple[str | None, Stat | None]]:
    if len(paths) <= READERS:
        yield from map(_look, paths)
        return
    with ThreadPoolExecutor(READERS) as readers:
        yield from readers.map(_look, paths)


def _look(path: Path) -> tuple[str | None, Stat | None]:
    """Content and stat; no stat for a file that has changed just now and may again, unseen."""
    stat = _stat(path)
    if stat is None:
        return None, None
    key = str(path), tuple(stat)
    if key not in _contents:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        except OSError:
            return None, None
        if time.time_ns() - max(stat[1:3]) < RACY:
            return content, None
        _contents[key] = content
    return _contents[key], stat


def read_snapshot(path: Path, lock: Path) -> Snapshot:
    """Read the snapshot in _inputs.jsonl (or its like beside weights) and the lock file.

    It is empty where they are not there.
    """
    lines = {line.pop('image'): line for line in _lines(path)}
    try:
        stats = json.loads(read_lock(lock) or '{}')
    except ValueError:  # a run was killed while it wrote it: the contents are read again
        stats = {}
    return Snapshot(lines, stats)


def write_snapshot(path: Path, lock: Path, stored: Snapshot) -> None:
    """Write both, in the order of the snapshot."""
    write_text(path, ''.join(json.dumps({'image': image_id} | line) + '\n'
                             for image_id, line in stored.lines.items()))
    write_lock(lock, json.dumps(stored.stats))


def _lines(path: Path) -> list[Line]:
    """The lines of a file; not the last one of a process that was killed while it wrote it."""
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: not readable ({error}); delete it if the files beside it are to '
                        f'be used') from error
    whole, _, _ = text.rpartition('\n')
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UserError(f'{path}: not readable ({error}); delete it if the files beside it are to '
                        f'be used') from error


def digest_of(lines: dict[str, Line]) -> str:
    """Digest the lines of a list of images, in its order, to 16 hex digits."""
    total = hashlib.sha256()
    for image_id, line in lines.items():
        total.update(json.dumps([image_id, line], sort_keys=True).encode())
    return total.hexdigest()[:16]


class Made:
    """The outputs of a folder: files ID + one of `suffixes`, made from `inputs`."""

    def __init__(self, folder: Path, inputs: Inputs, ids: Sequence[str], suffixes: Sequence[str]):
        self.folder, self.inputs, self.ids, self.suffixes = folder, inputs, ids, suffixes
        self.path, self.lock = folder / FOLDER_INPUTS, lock_path(folder)
        self._notes = f'{self.lock.stem}.inputs.'  # beginning of the names of what processes note

    def open(self, recorded: bool) -> None:
        """Remove the outputs whose inputs have changed, so that they are made anew.

        recorded: whether the folder has a record of its settings.
        Raises UserError where that would be most of a large folder, and where a folder that is read
        is not up to date.
        """
        self._put_together()
        stored = read_snapshot(self.path, self.lock)
        there = [image_id for image_id in self.ids
                 if any(map(os.path.exists, self._outputs(image_id)))]
        now = stored.current(self.inputs,
                             [image_id for image_id in there if image_id in stored.lines])
        changed = stored.changed(now)
        check_parts(self.inputs, self.ids)
        anew = {image_id for ids in changed.values() for image_id in ids}
        described = self.inputs.describe(changed)
        if len(anew) > max(FEW, len(now.lines) / 2):
            raise UserError(f'{self.folder} was made from other inputs ({described}): --overwrite '
                            f'makes '
                            f'it anew, or name another '
                            'folder, or the data that it was made from')
        unknown = len(there) - len(now.lines)
        if unknown and recorded:
            log.info('%s: %d files without a record of what they were made from (made elsewhere, '
                     'or by an earlier version) are '
                     'used', self.folder, unknown)
        for image_id in anew:
            for path in self._outputs(image_id):
                with writing(path):
                    Path(path).unlink(missing_ok=True)
        if anew:
            log.info('%s: %d of %d images are made anew, because what they were made from has '
                     'changed: %s', self.folder,
                     len(anew), len(self.ids), described)
        gone = set(self.ids) - (set(there) - anew)
        if gone & stored.lines.keys():
            # else a stage that reads the folder meanwhile would take it for outdated
            stored.lines = {image_id: line for image_id, line in stored.lines.items()
                            if image_id not in gone}
            write_snapshot(self.path, self.lock, stored)
        fresh = {image_id: stats for image_id, stats in now.stats.items() if image_id not in anew}
        if any(stored.stats.get(image_id) != stats for image_id, stats in fresh.items()):
            write_lock(self.lock, json.dumps(stored.stats | fresh))

    def note(self, image_id: str) -> None:
        """Write down what the output of an image is made from. Called before any of it is read."""
        now = Snapshot().current(self.inputs, [image_id])
        append_json_line(
            self.folder.with_name(f'{self._notes}{torchutils.world()[0]}.{os.getpid()}'),
            {'image': image_id} | now.lines[image_id] | {'stat': now.stats[image_id]})

    def close(self) -> None:
        """Put together what all processes noted. Called when all have come to their end."""
        if torchutils.is_main():
            self._put_together()

    def remove(self) -> None:
        """Forget everything."""
        for path in [*self.folder.parent.glob(f'{self._notes}*'), self.path]:
            with writing(path):
                path.unlink(missing_ok=True)

    def folders(self) -> list[Path]:
        """Where outputs lie: the folder itself, and below it where ids have folders."""
        below = {os.path.dirname(image_id)
                 for image_id in (*self.ids, *(line['image'] for line in _lines(self.path)))}
        return [self.folder, *(self.folder / name for name in sorted(below - {''}))]

    def _outputs(self, image_id: str) -> list[str]:
        return [f'{self.folder}/{image_id}{suffix}' for suffix in self.suffixes]

    def _put_together(self) -> None:
        notes = sorted(self.folder.parent.glob(f'{self._notes}*'))
        if not notes:
            return
        stored = read_snapshot(self.path, self.lock)
        for path in notes:
            for line in _lines(path):
                image_id, stats = line.pop('image'), line.pop('stat')
                stored.update(Snapshot({image_id: line}, {image_id: stats}))
        stored.lines = dict(sorted(stored.lines.items()))
        write_snapshot(self.path, self.lock, stored)
        for path in notes:
            with writing(path):
                path.unlink()


def changes(folder: str | os.PathLike, source: Any, ids: Iterable[str]) -> str:
    """Return in words what has changed since the files of a folder that is read were made.

    That is labels and photographs; '' where nothing has.
    """
    inputs, folder = Inputs(source), Path(folder)
    stored = read_snapshot(folder / FOLDER_INPUTS, lock_path(folder))
    return inputs.describe(stored.changed(stored.current(inputs, [image_id for image_id in ids
                                                                  if image_id in stored.lines])))


def check_parts(inputs: Inputs, ids: Iterable[str]) -> None:
    """Raises UserError where a folder that is read is not up to date itself."""
    for part in inputs.parts.values():
        changed = changes(part.folder, inputs.source, ids)
        if changed:
            raise UserError(f'{part.folder} was made from other inputs ({changed}): {part.remedy}')
