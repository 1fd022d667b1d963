"""Training crops, scales and whole images of a source, and the one way to read them in workers.

Everything random comes from (seed, epoch, image), so that the items do not depend on the number of
workers.
"""
import dataclasses
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import data

from misc import ending, imutils, torchutils
from misc.contract.sources import Source
from misc.files import label_maps
from misc.pyutils import UserError, log, unlock


class _Guarded(data.Dataset):
    """Hands a UserError over as an item, because a worker's exception would arrive as a traceback
    in a string.
    """

    def __init__(self, read: Callable[[Any], Any]):
        self.read = read

    def __getitem__(self, request: Any) -> Any:
        try:
            with ending.explained():
                return self.read(request)
        except UserError as error:
            return error


def _collate(items: list[Any]) -> Any:
    for item in items:
        if isinstance(item, UserError):
            return item
    return _handed_over({name: _stacked([item[name] for item in items]) for name in items[0]}
                        if isinstance(items[0], dict) else _stacked(items))


def _stacked(values: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack(values))


class _ByPipe:
    """A tensor that a worker sends through its pipe, for want of shared memory; it arrives as a
    tensor.
    """

    def __init__(self, tensor: torch.Tensor):
        self.array = tensor.numpy()

    def __reduce__(self) -> tuple:
        return _from_pipe, (self.array,)


def _from_pipe(array: np.ndarray) -> torch.Tensor:
    if not _has_told:
        _has_told.append(True)
        log.info('/dev/shm has no room for what workers read (a container is given more by '
                 '--shm-size 8g or --ipc=host): '
                 'they send it through pipes, which takes longer')
    return torch.from_numpy(array)


_has_told: list[bool] = []


def _handed_over(item: Any) -> Any:
    """An item as a worker hands it over: its tensors in shared memory as long as there is room."""
    if data.get_worker_info() is None:
        return item
    if isinstance(item, torch.Tensor):
        try:
            # here: where the queue's thread did it, its failure would leave the parent waiting
            return item.share_memory_()
        except RuntimeError:
            return _ByPipe(item)
    if isinstance(item, dict):
        return {name: _handed_over(value) for name, value in item.items()}
    if isinstance(item, (list, tuple)):
        parts = [_handed_over(part) for part in item]
        return type(item)(*parts) if hasattr(item, '_fields') else type(item)(parts)
    return item


def read_ahead(read: Callable[[Any], Any], requests: Any, num_workers: int, *,
               batches: bool = False, pin_memory: bool = False,
               idle: bool = False) -> Iterator[Any]:
    """Yield read(request) for each request, in order, by `num_workers` processes (0: here).

    requests: what `read` takes (ids, pairs (epoch, index)); with batches=True lists of them: their
      items are then dicts of arrays and numbers, and those of each list come stacked, as tensors.
    idle: the workers give way to every other process, and Ctrl-C is not for them.
    A UserError is yielded in the place of its item (of its batch). Raises UserError when the system
    kills a worker.
    """
    options = {'batch_sampler': requests, 'collate_fn': _collate} if batches else \
        {'sampler': requests, 'batch_size': None, 'collate_fn': _handed_over}
    begin = functools.partial(_in_worker, os.getpid(), idle)
    read = _GivingWay(read) if idle and num_workers else read
    loader = data.DataLoader(_Guarded(read), num_workers=num_workers, pin_memory=pin_memory,
                             **options, worker_init_fn=begin,
                             multiprocessing_context=multiprocessing.get_context('fork')
                             if num_workers else None)
    with ending.explained():
        items = iter(loader)
    while True:
        try:
            with ending.explained():
                item = next(items)
        except StopIteration:
            return
        yield item


def _in_worker(parent: int, idle: bool, number: int) -> None:
    if os.getppid() != parent:  # killed already; torch would see that only if it came later
        os._exit(1)
    # its copies only: else a worker that outlives a killed run for seconds would keep its locks
    unlock()
    if idle:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class _GivingWay:
    """read(request) in a worker that computes when no other process wants to."""

    def __init__(self, read: Callable[[Any], Any]):
        self.read, self.has_begun = read, False

    def __call__(self, request: Any) -> Any:
        if not self.has_begun:  # not earlier: it should see soon that its parent has ended
            os.nice(10)
            self.has_begun = True
        return self.read(request)


def checked(item: Any) -> Any:
    """An item of `read_ahead`; raises the UserError that came in its place.

    A new one: an exception raised from a variable keeps all frames above it alive, and with them
    the workers, which then are given up only after seconds.
    """
    if isinstance(item, UserError):
        raise type(item)(str(item))
    return item


@dataclasses.dataclass(frozen=True)
class Batches:
    """A batch sampler: lists of (epoch, index) for the steps `start`..`stop` of a training.

    Each epoch is shuffled from (seed, epoch), its short last batch dropped. Batches are global:
    this process gets its shard of each.
    """

    images: int
    batch_size: int
    seed: int
    start: int
    stop: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self.images // self.batch_size
        order, shuffled = np.empty(0, np.int64), None
        for step in range(self.start, self.stop):
            epoch, batch = divmod(step, per_epoch)
            if shuffled != epoch:
                order, shuffled = np.random.default_rng([self.seed,
                                                         epoch]).permutation(self.images), epoch
            first = batch * self.batch_size
            yield [(epoch, int(index))
                   for index in torchutils.shard(order[first:first + self.batch_size])]

    def __len__(self) -> int:
        return self.stop - self.start


class TrainingCrops:
    """An augmented image, its image-level labels and, where asked for, its refined seed.

    Order: resize on 8 bits, normalise, flip, random crop (canvas 0, label map 255).
    resize_long: (low, high): the long side becomes a whole number drawn evenly, both ends included;
    or
    scale: (low, high): a factor drawn evenly. label_dir: folder of refined seeds; label_stride: the
    crop's label map is resized by PIL nearest to that stride's size.
    """

    def __init__(self, source: Source, ids: list[str], crop_size: int, seed: int, *,
                 resize_long: tuple[int, int] | None = None,
                 scale: tuple[float, float] | None = None, label_dir: str | None = None,
                 label_stride: int = 1, label_remedy: str = ''):
        self.source, self.ids, self.crop_size, self.seed = source, ids, crop_size, seed
        self.resize_long, self.scale = resize_long, scale
        self.label_dir, self.label_stride, self.label_remedy = label_dir, label_stride, label_remedy

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, request: tuple[int, int]) -> dict[str, Any]:
        """Return image (3, S, S), labels (C,), index, dropout_seed, label_map (s, s).

        request: (epoch, index).
        """
        epoch, index = request
        image_id = self.ids[index]
        rng = np.random.default_rng(torchutils.image_seed(self.seed, epoch, image_id))
        image = imutils.read_of(self.source, image_id)
        label_map = None
        if self.label_dir is not None:
            label_map = read_refined_seed(self.label_dir, image_id, image.shape[:2],
                                          self.source.n_classes,
                                          self.label_remedy)
        hw = imutils.scaled_hw(image.shape[:2], self._draw_scale(image.shape[:2], rng))
        image = imutils.resize(image, hw)
        flip = -1 if rng.random() < 0.5 else 1
        taken, placed = imutils.crop_window(hw, self.crop_size, rng)
        piece = imutils.normalize(image[:, ::flip][taken])
        item = {'image': imutils.to_chw(imutils.place(piece, placed, self.crop_size, 0)),
                'labels': self.source.labels(image_id).astype(np.float32), 'index': index,
                'dropout_seed': torchutils.image_seed(self.seed, epoch, image_id, 'dropout')}
        if label_map is not None:
            label_map = label_maps.resize(label_map, hw)[:, ::flip][taken]
            label_map = imutils.place(label_map, placed, self.crop_size, label_maps.IGNORE)
            side = (self.crop_size - 1) // self.label_stride + 1
            item['label_map'] = label_maps.resize(label_map, (side, side)).astype(np.int64)
        return item

    def _draw_scale(self, hw: tuple[int, int], rng: np.random.Generator) -> float:
        if self.resize_long is not None:
            return int(rng.integers(self.resize_long[0], self.resize_long[1] + 1)) / max(hw)
        return rng.uniform(*self.scale) if self.scale is not None else 1.0


class SegmentationCrops:
    """An augmented image and its label map, for the segmentation network.

    As kazuto1011/deeplab-pytorch: resized by one of `scales` to int(H*s) x int(W*s), bilinear and
    not smoothed, padded at the right and bottom with the mean (label map: 255), a random crop,
    flipped.

    normalize: of `imutils.INPUTS`.
    """

    def __init__(self, source: Source, ids: list[str], crop_size: int, seed: int, *,
                 scales: list[float], normalize: Callable[[np.ndarray], np.ndarray], label_dir: str,
                 label_remedy: str = ''):
        self.source, self.ids, self.crop_size, self.seed = source, ids, crop_size, seed
        self.scales, self.normalize = scales, normalize
        self.label_dir, self.label_remedy = label_dir, label_remedy

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, request: tuple[int, int]) -> dict[str, Any]:
        """Return image (3, S, S), label_map (S, S), index.

        request: (epoch, index).
        """
        epoch, index = request
        image_id = self.ids[index]
        rng = np.random.default_rng(torchutils.image_seed(self.seed, epoch, image_id))
        image = imutils.read_of(self.source, image_id)
        label_map = read_refined_seed(self.label_dir, image_id, image.shape[:2],
                                      self.source.n_classes,
                                      self.label_remedy)
        scale = self.scales[rng.integers(len(self.scales))]
        hw = max(1, int(image.shape[0] * scale)), max(1, int(image.shape[1] * scale))
        image, label_map = imutils.resize_bilinear(image, hw), label_maps.resize(label_map, hw)
        top, left = (int(rng.integers(0, max(side - self.crop_size, 0) + 1)) for side in hw)
        flip = -1 if rng.random() < 0.5 else 1
        window = slice(top, top + self.crop_size), slice(left, left + self.crop_size)
        image = imutils.top_left(self.normalize(image[window]), self.crop_size, 0)[:, ::flip]
        label_map = imutils.top_left(label_map[window], self.crop_size,
                                     label_maps.IGNORE)[:, ::flip]
        return {'image': imutils.to_chw(image), 'label_map': label_map.astype(np.int64),
                'index': index}


class WithoutDamaged:
    """Training crops with another image in the place of one that cannot be decoded.

    It is drawn from (seed, epoch, image), the same for any number of workers and processes.
    `left_out` of an item is the index of the damaged one, else -1.
    """

    def __init__(self, crops: TrainingCrops | SegmentationCrops):
        self.crops, self.ids = crops, crops.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, request: tuple[int, int]) -> dict[str, Any]:
        """Raises UnreadableImage where no image can be decoded."""
        epoch, index = request
        try:
            return self.crops(request) | {'left_out': -1}
        except imutils.UnreadableImage as error:
            first = error
        rng = np.random.default_rng(torchutils.image_seed(self.crops.seed, epoch, self.ids[index],
                                                          'in its place'))
        for other in rng.permutation(len(self)).tolist():
            try:
                return self.crops((epoch, other)) | {'left_out': index}
            except imutils.UnreadableImage:
                continue
        raise first


def damaged(source: Source, ids: list[str], num_workers: int) -> list[str]:
    """Those of `ids` whose photographs cannot be decoded."""
    def look(image_id: str) -> bool:
        imutils.read_of(source, image_id)
        return True

    items = torchutils.progress(read_ahead(look, ids, num_workers), total=len(ids), unit='image')
    return [image_id for image_id, item in zip(ids, items, strict=True)
            if isinstance(item, UserError)]


def decodable(source: Source, ids: list[str], on_damaged: str, num_workers: int) -> list[str]:
    """Return `ids`, without damaged photographs where `on_damaged` is 'skip'.

    Raises UserError where none is left.
    """
    if on_damaged != 'skip':
        return ids
    gone = set(sum(torchutils.gather([damaged(source, list(torchutils.shard(ids)), num_workers)]),
                   []))
    left = [image_id for image_id in ids if image_id not in gone]
    if not left:
        raise UserError(f'none of {len(ids)} photographs can be decoded (first {ids[0]})')
    return left


def read_refined_seed(folder: str, image_id: str, hw: tuple[int, int], n_classes: int,
                      remedy: str) -> np.ndarray:
    """Read the refined seed of an image of size `hw`.

    Raises UserError where it is missing, of another size, or holds labels above the number of
    classes.
    """
    path = label_maps.label_path(folder, image_id)
    label_map = label_maps.load(path, remedy)
    if label_map.shape != tuple(hw):
        raise UserError(f'{path}: {label_map.shape[0]} x {label_map.shape[1]}, its image is '
                        f'{hw[0]} x {hw[1]}: '
                        'made from another image; make it anew')
    if label_map[label_map != label_maps.IGNORE].max(initial=0) > n_classes:
        raise UserError(f'{path}: holds labels above {n_classes}, the number of classes; make it '
                        f'anew')
    return label_map


def top_left_crop(source: Source, image_id: str, size: int) -> dict[str, np.ndarray]:
    """Return the top-left size x size of an image, padded with 0: image (3, S, S), labels (C,)."""
    image = imutils.normalize(imutils.read_of(source, image_id))
    return {'image': imutils.to_chw(imutils.top_left(image, size, 0)),
            'labels': source.labels(image_id).astype(np.float32)}


def scaled_images(image: np.ndarray, scales: list[float]) -> list[torch.Tensor]:
    """Return the image at each scale, uint8 (1, 3, h_s, w_s), channels last.

    Networks take what `maps.normalized` makes of them.
    """
    return [torch.from_numpy(np.array(imutils.rescale(image, scale))).permute(2, 0, 1)[None]
            for scale in scales]
