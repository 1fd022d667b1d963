"""One loop for all stages that make a file an image: what is still to do, workers ahead, saving behind, what failed."""
import collections
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from misc import datasets, ending, torchutils
from misc.pyutils import UserError, WriteError, log

T = TypeVar('T')
Save = Callable[[], None]

MIRRORED_APART = 3_000_000  # pixels above which an image and its mirror go through the network one after the other


class _Job:
    """read(id) in a worker; a UserError belongs to its image and does not end the stage."""

    def __init__(self, read: Callable[[str], Any]):
        self.read = read

    def __call__(self, image_id: str) -> tuple[str, Any]:
        try:
            with ending.explained():
                return image_id, self.read(image_id)
        except UserError as error:
            return image_id, error


def for_each_image(ids: list[str], is_done: Callable[[str], bool], read: Callable[[str], Any], num_workers: int,
                   compute: Callable[[str, Any], Save | None] | None = None,
                   device: torch.device = torch.device('cpu'),  # noqa: B008 -- a constant
                   finish: Callable[[Any], None] | None = None) -> None:
    """Make what is missing for `ids`.

    read(id) runs in worker processes, ahead. compute(id, item) runs here, with the network, and returns a function that
    saves, which runs in a thread, behind; stages without a network do everything in read. An image that fails is
    named at the end and does not lose the others, want of memory included: then UserError is raised. A disk that refuses ends
    the stage at once. With several processes each takes its share of the images. device: where compute sends what was read.
    finish: for stages with much to do behind the network: then what compute returns gives, when the next image is under way,
    arrays that finish makes the file of, in further worker processes.
    """
    def alone(ids: list[str], items: list[Any]) -> list[Save | None]:
        return [compute(ids[0], items[0])]

    for_each_batch(ids, is_done, read, num_workers, alone if compute else None, 1, lambda item: None, device, finish)


def for_each_batch(ids: list[str], is_done: Callable[[str], bool], read: Callable[[str], Any], num_workers: int,
                   compute: Callable[[list[str], list[Any]], list[Save | None]] | None, batch_size: int,
                   like: Callable[[Any], Hashable], device: torch.device,
                   finish: Callable[[Any], None] | None = None) -> None:
    """`for_each_image` for up to `batch_size` images at a time whose like(item) is equal (their size): compute(ids, items)
    returns a function that saves for each of them."""
    mine = torchutils.share(ids)
    todo = [image_id for image_id in mine if not is_done(image_id)]
    done = sum(torchutils.gather([len(mine) - len(todo)]))
    if done:
        log.info('%d of %d images are already done', done, len(ids))
    failed: dict[str, UserError] = {}
    items = datasets.read_ahead(_Job(read), todo, num_workers, pin_memory=device.type == 'cuda')
    items = torchutils.progress(items, total=len(todo), unit='image')
    saves = _computed(_batches(_readable(items, failed), batch_size, like), compute, failed) if compute else iter(())
    if compute is None:
        collections.deque(_readable(items, failed), 0)
    elif finish is not None:
        for done in datasets.read_ahead(finish, _one_behind(saves), num_workers):
            datasets.checked(done)
    else:
        _save_behind(saves, 4 * batch_size)
    failed = dict(sum(torchutils.gather([list(failed.items())]), []))
    if failed:
        for image_id, reason in failed.items():
            log.info('failed: %s: %s', image_id, reason)
        first, reason = next(iter(failed.items()))
        kind = type(reason) if isinstance(reason, ending.OutOfMemory) else UserError
        raise kind(f'{len(failed)} of {len(ids)} images failed, the others are done; first {first}: {reason}')


def _computed(batches: Iterable[list[tuple[str, Any]]], compute: Callable[[list[str], list[Any]], list[Save | None]],
              failed: dict[str, UserError]) -> Iterator[Save]:
    """What saves each image; where memory is not enough for one, it is among `failed`."""
    for batch in batches:
        names, content = map(list, zip(*batch, strict=True))
        saves = _enough(functools.partial(compute, names, content), names, failed) or ()
        for name, save in zip(names, saves, strict=False):
            if save is not None:
                yield functools.partial(_enough, save, [name], failed)


def _enough(work: Callable[[], T], names: list[str], failed: dict[str, UserError]) -> T | None:
    """work(); where memory is not enough for it, None, and these images are among `failed`."""
    try:
        with ending.explained():
            return work()
    except ending.OutOfMemory as error:
        failed.update(dict.fromkeys(names, type(error)(str(error))))  # likewise
        return None


def _save_behind(saves: Iterable[Save], most: int) -> None:
    """Run them in a thread, one after the other; at most `most` wait."""
    saving: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(1) as saver:
        for save in saves:
            saving.append(saver.submit(save))
            while len(saving) > most or (saving and saving[0].done()):
                saving.popleft().result()
        for future in saving:
            future.result()


def _one_behind(makes: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What each gives, asked for when the next one is there."""
    before = None
    for make in makes:
        if before is not None:
            yield before()
        before = make
    if before is not None:
        yield before()


def _readable(items: Iterable[tuple[str, Any]], failed: dict[str, UserError]) -> Iterator[tuple[str, Any]]:
    """The items that could be read; the others' errors go to `failed`, but for a disk that refuses."""
    for image_id, item in items:
        if isinstance(item, WriteError):
            datasets.checked(item)
        if isinstance(item, UserError):
            failed[image_id] = type(item)(str(item))  # a new one, without the frames that hold what was read
        else:
            yield image_id, item


def _batches(items: Iterable[tuple[str, Any]], size: int, like: Callable[[Any], Hashable]) -> Iterator[list[tuple[str, Any]]]:
    """Lists of up to `size` items of a kind, as soon as one is full. At most 4 * size items wait; then those of the kind
    that has waited longest go as they are."""
    waiting: dict[Hashable, list[tuple[str, Any]]] = {}
    for item in items:
        kind = like(item[1])
        waiting.setdefault(kind, []).append(item)
        if len(waiting[kind]) == size:
            yield waiting.pop(kind)
        elif sum(map(len, waiting.values())) > 4 * size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def prepare(net: nn.Module, device: torch.device, precision: str) -> None:
    """Make a network with loaded weights ready for inference, and for nothing else: on the device, channels last, batch
    norms folded, the backbone's weights in `precision` once instead of at every image."""
    net.eval().requires_grad_(False)
    net.to(device, memory_format=torch.channels_last)
    backbone = net.backbone if hasattr(net, 'backbone') else net.resnet50
    fold = getattr(backbone, 'fold_norms', None)
    if fold is not None:  # a network of one's own need not have it
        fold()
        backbone.to(torchutils.PRECISIONS[precision])


def with_mirror(forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """forward on N images (N, 3, H, W) and their left-right mirrors as one batch: both results, (N, ..., h, w), the mirrors'
    flipped back.

    Large images and their mirrors are taken one after the other, which halves the memory.
    """
    both = torch.cat([images, images.flip(-1)]).contiguous(memory_format=torch.channels_last)
    number = len(images)
    parts = both.split(number) if images.shape[2] * images.shape[3] > MIRRORED_APART else (both,)
    result = torch.cat([forward(part).float() for part in parts])
    return result[:number], result[number:].flip(-1)


def together(images: Sequence[Sequence[torch.Tensor]], device: torch.device) -> list[torch.Tensor]:
    """The scales (1, 3, h_s, w_s) of N images of one size -> of each scale one batch (N, 3, h_s, w_s) on `device`.

    Each is copied as it was read: to put them together on the host would undo its pinned memory.
    """
    return [torch.cat([torchutils.to_device(image, device) for image in scale]) for scale in zip(*images, strict=True)]


def chosen_planes(planes: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    """planes[numbers], (K, h, w), without an index that would have to be copied to a GPU and waited for."""
    return torch.stack([planes[number] for number in numbers]) if len(numbers) else planes[:0]


def resize(planes: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Bilinear, (K, h, w) -> (K, H, W)."""
    return F.interpolate(planes[None], hw, mode='bilinear', align_corners=False)[0]


def strided_hw(hw: tuple[int, int]) -> tuple[int, int]:
    """Stride-4 size."""
    return (hw[0] - 1) // 4 + 1, (hw[1] - 1) // 4 + 1


def up16_hw(hw: tuple[int, int]) -> tuple[int, int]:
    """The size rounded up to a multiple of 16."""
    return ((hw[0] - 1) // 16 + 1) * 16, ((hw[1] - 1) // 16 + 1) * 16


