"""One loop for all stages that make a file an image: workers ahead, saving behind, what failed."""
import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from misc import ending, torchutils
from misc.contract.stages import Follower, Job
from misc.data import datasets
from misc.files.inputs import RACY, Made
from misc.pyutils import UserError, WriteError, log

AHEAD = 16  # files that may wait to be written


class _Read:
    """read(id) in a worker; a UserError belongs to its image and does not end the stage."""

    def __init__(self, read: Callable[[str], Any], made: Sequence[Made]):
        self.read, self.made = read, made

    def __call__(self, image_id: str) -> tuple[str, Any]:
        try:
            for each in self.made:
                each.note(image_id)
            with ending.explained():
                return image_id, self.read(image_id)
        except UserError as error:
            return image_id, error


class Batch(NamedTuple):
    """Images that go through a network together: their ids, and what was read of each."""

    ids: list[str]
    items: list[Any]


class Images:
    """The images of a stage that are still to be made.

        with Images(ids, is_done, num_workers, device) as images:
            for image_id, item in images.todo(read):
                images.save(write, path, compute(item))

    read(id) runs in worker processes, ahead; what `save` is given runs in a thread, behind. An
    image that fails is named when the block ends, and does not lose the others: then UserError is
    raised. A disk that refuses ends the stage at once. With several processes each takes its share
    of the images. made: the folders that the files go to; follower: a stage that makes each image
    further, as soon as its file is there.
    """

    def __init__(self, ids: list[str], is_done: Callable[[str], bool], num_workers: int,
                 device: torch.device = torch.device('cpu'),  # noqa: B008 -- a constant
                 made: Sequence[Made] = (), follower: Follower | None = None):
        self.ids, self.num_workers, self.device, self.made = ids, num_workers, device, made
        self.follower, self._beside = follower, None
        mine = torchutils.shard(ids)
        self._todo = [image_id for image_id in mine if not is_done(image_id)]
        todo = set(self._todo)
        self._there = [image_id for image_id in mine if image_id not in todo]
        done = sum(torchutils.gather([len(mine) - len(self._todo)]))
        if done:
            log.info('%d of %d images are already done', done, len(ids))
        self._failed: dict[str, UserError] = {}
        self._saving: collections.deque[Future] = collections.deque()
        self._saver = ThreadPoolExecutor(1)

    @classmethod
    def of(cls, job: Job, flag: str, is_done: Callable[[str], bool], *made: Made) -> 'Images':
        """The images of the list of a flag, for the folders `made`."""
        return cls(job.ids(flag), is_done, job.run.readers, job.device, made, job.follower)

    def __enter__(self) -> 'Images':
        if self.follower is not None:
            self._beside = _Beside(self.follower, self._there)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        with contextlib.ExitStack() as stack:
            if self._beside is not None:
                stack.callback(self._beside.end)
            with self._saver:
                if kind is None:
                    while self._saving:
                        self._saving.popleft().result()
        if kind is None:
            if self._beside is not None:
                self._beside.tell()
            self._tell_failed()

    def todo(self, read: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
        """Yield (id, read(id)) of each image that is still to be made and can be read."""
        items = datasets.read_ahead(_Read(read, self.made), self._todo, self.num_workers,
                                    pin_memory=self.device.type == 'cuda')
        for image_id, item in torchutils.progress(items, total=len(self._todo), unit='image'):
            if isinstance(item, WriteError):
                datasets.checked(item)
            if isinstance(item, UserError):
                # a new one, without the frames that hold what was read
                self._failed[image_id] = type(item)(str(item))
            else:
                yield image_id, item

    def batches(self, read: Callable[[str], Any], size: int,
                like: Callable[[Any], Hashable]) -> Iterator[Batch]:
        """Yield up to `size` such images at a time whose like(item) is equal (their size)."""
        for batch in _batches(self.todo(read), size, like):
            yield Batch(*map(list, zip(*batch, strict=True)))

    def make(self, make: Callable[[str], None]) -> None:
        """A stage without a network: the workers do everything."""
        for _ in self.todo(make):
            pass

    @contextlib.contextmanager
    def enough(self, ids: Sequence[str]) -> Iterator[None]:
        """Let these images fail, and the stage go on, where memory is not enough for this block."""
        try:
            with ending.explained():
                yield
        except ending.OutOfMemory as error:
            self._failed.update(dict.fromkeys(ids, type(error)(str(error))))  # likewise

    def save(self, image_id: str, write: Callable[..., None], *values: Any) -> None:
        """Call write(*values) later: it may wait for the device, which waits for no disk."""
        self._saving.append(self._saver.submit(self._write, image_id, write, *values))
        while len(self._saving) > AHEAD or (self._saving and self._saving[0].done()):
            self._saving.popleft().result()

    def _write(self, image_id: str, write: Callable[..., None], *values: Any) -> None:
        with self.enough([image_id]):
            write(*values)
            if self._beside is not None:
                self._beside.add(image_id)

    def finish(self, makes: Iterable[Callable[[], Any]], finish: Callable[[Any], None]) -> None:
        """Call finish(make()) in further workers, for a stage with much to do behind its network.

        Each of `makes` is asked for what it gives when the next one is under way.
        """
        for done in datasets.read_ahead(finish, _one_behind(makes), self.num_workers):
            datasets.checked(done)

    def _tell_failed(self) -> None:
        failed = dict(sum(torchutils.gather([list(self._failed.items())]), []))
        for each in self.made:
            each.close()
        for image_id, reason in failed.items():
            log.info('failed: %s: %s', image_id, reason)
        if failed:
            first, reason = next(iter(failed.items()))
            kind = type(reason) if isinstance(reason, ending.OutOfMemory) else UserError
            raise kind(f'{len(failed)} of {len(self.ids)} images failed, the others are done; '
                       f'first {first}: {reason}')


class Making(NamedTuple):
    """What makes a file of each image, in a folder that is open, without a network.

    make(id): called in worker processes.
    """

    ids: list[str]
    made: Made
    is_done: Callable[[str], bool]
    make: Callable[[str], None]


def make_all(making: Making, num_workers: int) -> None:
    """Make the images that are not there yet, by `num_workers` processes."""
    with Images(making.ids, making.is_done, num_workers, made=[making.made]) as images:
        images.make(making.make)


class _Beside:
    """Makes a follower's images, as `add` names them, in workers that take only idle time.

    Nothing waits for it, and nothing that fails here is told, but by the follower when its turn
    comes: it then makes what is left.
    """

    def __init__(self, follower: Follower, there: Sequence[str]):
        self.follower, self.making = follower, follower.open()
        follower.made = 0
        self._ids: queue.SimpleQueue[tuple[str, float] | None] = queue.SimpleQueue()
        self._stopped, self._forked = False, threading.Event()
        self._ended = ''
        self._fault: BaseException | None = None
        # not what is there: whether it is outdated shows when its inputs are all there
        self._wanted = {image_id for image_id in self.making.ids
                        if not self.making.is_done(image_id)}
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()
        self._forked.wait()  # not while this thread forks its own workers
        for image_id in there:
            self._put(image_id, 0.0)

    def add(self, image_id: str) -> None:
        """The file that `image_id` is made from is there."""
        # a file that has changed just now would have to be read again, to be known as unchanged
        self._put(image_id, time.monotonic() + RACY / 1e9)

    def _put(self, image_id: str, begin: float) -> None:
        if image_id in self._wanted:
            self._ids.put((image_id, begin))

    def end(self) -> None:
        """Finish what is under way, and no more."""
        self._stopped = True
        self._ids.put(None)
        self._thread.join()

    def tell(self) -> None:
        """Log what was made; raises what no image's own fault is."""
        if self._fault is not None:
            raise self._fault
        follower, name = self.follower, self.follower.name
        if self._ended:
            log.info('%s did not go on beside %s: %s', name, follower.beside, self._ended)
        follower.made = sum(torchutils.gather([follower.made]))
        self.making.made.close()
        log.info('%s: %d of %d images are done beside %s', name, follower.made,
                 len(self.making.ids), follower.beside)

    def _requests(self) -> Iterator[str]:
        self._forked.set()
        while (request := self._ids.get()) is not None and not self._stopped:
            image_id, begin = request
            time.sleep(max(0.0, begin - time.monotonic()))
            yield image_id

    def _make(self) -> None:
        try:
            for _, failed in datasets.read_ahead(_Read(self.making.make, [self.making.made]),
                                                 self._requests(), self.follower.workers,
                                                 idle=True):
                if isinstance(failed, WriteError):
                    datasets.checked(failed)
                self.follower.made += failed is None
        except UserError as error:
            self._ended = str(error)
        except BaseException as error:
            self._fault = error
        finally:
            self._forked.set()


def _one_behind(makes: Iterable[Callable[[], Any]]) -> Iterator[Any]:
    """What each gives, asked for when the next one is there."""
    before = None
    for make in makes:
        if before is not None:
            yield before()
        before = make
    if before is not None:
        yield before()


def _batches(items: Iterable[tuple[str, Any]], size: int,
             like: Callable[[Any], Hashable]) -> Iterator[list[tuple[str, Any]]]:
    """Lists of up to `size` items of a kind, as soon as one is full. At most 4 * size items wait;
    then those of the kind that has waited longest go as they are.
    """
    waiting: dict[Hashable, list[tuple[str, Any]]] = {}
    for item in items:
        kind = like(item[1])
        waiting.setdefault(kind, []).append(item)
        if len(waiting[kind]) == size:
            yield waiting.pop(kind)
        elif sum(map(len, waiting.values())) > 4 * size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()
