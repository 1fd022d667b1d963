"""What every part of the program needs from Python: errors, whole files, the log, elapsed time."""
import contextlib
import errno
import glob
import json
import logging
import os
import secrets
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import filelock

REMEDIES = {  # what can be done where the system refuses
    errno.ENOSPC: ': make room, then the same command goes on',
    errno.EDQUOT: ': make room, then the same command goes on',
    errno.EROFS: ': name another place, for example by --work_dir or --out',
    errno.EMFILE: ': allow more (ulimit -n 65536), or take a smaller --num_workers',
    errno.ENAMETOOLONG: ': name another place, or give the file a shorter name'}

log = logging.getLogger('amn')
_opened: list[logging.Handler] = []  # by start_log


class UserError(Exception):
    """Something the user can mend.

    Printed as one line that names the file and the remedy, never as a traceback.
    """

    beginning = 'error: '  # of that line


class WriteError(UserError):
    """The disk refuses: no image's own fault, so the stage ends at once."""


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn whatever the system has against changing `path` in this block into a WriteError."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno, '')
        raise WriteError(f'cannot write {path}: {error.strerror or error}{remedy}') from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it when the block ends well.

    So a file that is there is whole. Raises UserError when the disk refuses; whatever happens,
    nothing half-written stays behind.
    """
    path = Path(path)
    temporary = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f'.{_shortened(path.name)}.{secrets.token_hex(4)}.part')
            # with the rights of any new file: not every file system lets them be changed
            new.touch(exist_ok=False)
            temporary = new
            yield temporary
            os.replace(temporary, path)
    finally:
        if temporary is not None:
            with writing(path):  # the folder itself may be lost, or become unwritable
                temporary.unlink(missing_ok=True)


def _shortened(name: str, spare: int = 15) -> str:
    """The beginning of a long file name: with `spare` bytes more it is no longer than the name (or
    100 bytes).
    """
    return name.encode(errors='surrogateescape')[:max(85, len(os.fsencode(name)) -
                                                      spare)].decode(errors='ignore')


def lock_path(path: str | os.PathLike) -> Path:
    """Where the lock of a file or folder lies: a hidden file beside it, of about the same length.
    """
    path = Path(path)
    name = _shortened(path.name)
    if name != path.name:
        name += f'.{zlib.crc32(os.fsencode(path.name)):08x}'
    return path.with_name(f'.{name}.lock')


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` as UTF-8, atomically; a file that holds it already stays as it is."""
    content = text.encode('utf-8', 'surrogateescape')  # a name of a file may be none
    if not Path(path).is_file() or Path(path).read_bytes() != content:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` atomically as indented JSON, keys sorted."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + '\n', encoding='utf-8')


def append_json_line(path: str | os.PathLike, content: dict) -> None:
    """Append one line of JSON to `path`. Raises UserError when the disk refuses."""
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, 'a', encoding='utf-8') as stream:
            stream.write(json.dumps(content) + '\n')


def is_whole(path: Path) -> bool:
    """Whether `path` is there and not empty, as a file can be after the power failed."""
    return path.is_file() and path.stat().st_size > 0


def remove_unfinished(folder: str | os.PathLike, name: str = '') -> None:
    """Remove what `atomic_path` left in `folder` because its process was killed.

    name: only files whose names begin with it.
    """
    for path in Path(folder).glob(f'.{glob.escape(_shortened(name))}*.part'):
        with writing(path):
            path.unlink(missing_ok=True)


_locks: dict[Path, IO[str]] = {}


def lock(path: str | os.PathLike, what: str) -> None:
    """Keep other runs from `what` until `unlock` or the end of this process, however it ends.

    Raises UserError where another run holds the lock, WriteError where the disk refuses.
    """
    path = Path(path).absolute()
    if path in _locks:
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # open as long as the lock is held
        handle = open(path, 'a+', encoding='utf-8')  # noqa: SIM115
    try:
        is_ours = filelock.lock_descriptor(handle.fileno(), blocking=False)
    except OSError as error:  # some network file systems have no locks
        log.info('%s cannot be locked (%s): start no second run that writes to it', what,
                 error.strerror)
    else:
        if not is_ours:
            handle.close()
            raise UserError(f'{what} is in use by another run: wait for it, or write to another '
                            'place (--work_dir, or its own flag)')
    _locks[path] = handle


def read_lock(path: str | os.PathLike) -> str:
    """What a run wrote into its lock file; nothing where there is none."""
    handle = _locks.get(Path(path).absolute())
    # not opened a second time: on some network file systems to close that would give up the lock
    if handle is not None:
        handle.seek(0)
        return handle.read()
    with contextlib.suppress(OSError):  # it holds what can be found out again
        return Path(path).read_text(encoding='utf-8')
    return ''


def write_lock(path: str | os.PathLike, text: str) -> None:
    """Put `text` into a lock file that this process holds, for the next run."""
    handle = _locks[Path(path).absolute()]
    with writing(path):
        handle.truncate(0)
        handle.write(text)
        handle.flush()


def unlock() -> None:
    """Give up every lock of this process."""
    for handle in _locks.values():  # the files stay: to delete one could let two runs hold "it"
        handle.close()
    _locks.clear()


class _LogFile(logging.FileHandler):
    """A full disk is told of once, by the stage whose output it refuses: the log adds no traceback
    to that.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class _Screen(logging.StreamHandler):
    """A screen; where nobody reads it any more (`| head`), what writes to it is told."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


def start_log(path: str | os.PathLike | None, main: bool = True) -> None:
    """Send the log to the screen, and to the end of the file `path`, if one is named, with times.
    Raises UserError when it cannot.

    A record with `file_only` or `screen_only` goes to one of the two alone.
    main: False for the other processes of a run: they write down nothing but why they end (records
    with `file_only`).
    """
    log.setLevel(logging.INFO)
    log.propagate = False
    stop_log()
    screen = _Screen(sys.stdout)
    screen.setFormatter(logging.Formatter('%(message)s'))
    screen.addFilter(lambda record: main and not _is_file_only(record))
    _opened.append(screen)
    if path is not None:
        with writing(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            file = _LogFile(path, encoding='utf-8')
        file.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
        file.addFilter(lambda record: (main or _is_file_only(record))
                       and not getattr(record, 'screen_only', False))
        _opened.append(file)
    for handler in _opened:
        log.addHandler(handler)


def _is_file_only(record: logging.LogRecord) -> bool:
    return getattr(record, 'file_only', False)


def stop_log() -> None:
    """Close what `start_log` opened."""
    while _opened:
        log.removeHandler(_opened[-1])
        _opened.pop().close()


def elapsed(since: float) -> str:
    """Time since `since` (time.monotonic()) as h:mm:ss."""
    seconds = int(round(time.monotonic() - since))
    return f'{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'
