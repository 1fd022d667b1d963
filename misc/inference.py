"""One loop for all stages that make a file an image: what is still to do, workers ahead, saving behind, what failed."""
import collections
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from misc import datasets, torchutils
from misc.pyutils import UserError, WriteError, log

MIRRORED_APART = 3_000_000  # pixels above which an image and its mirror go through the network one after the other


class _Job:
    """read(id) in a worker; a UserError belongs to its image and does not end the stage."""

    def __init__(self, read: Callable[[str], Any]):
        self.read = read

    def __call__(self, image_id: str) -> tuple[str, Any]:
        try:
            return image_id, self.read(image_id)
        except UserError as error:
            return image_id, error


def for_each_image(ids: list[str], is_done: Callable[[str], bool], read: Callable[[str], Any], num_workers: int,
                   compute: Callable[[str, Any], Callable[[], None] | None] | None = None) -> None:
    """Make what is missing for `ids`.

    read(id) runs in worker processes, ahead. compute(id, item) runs here, with the network, and returns a function that
    saves, which runs in a thread, behind; stages without a network do everything in read. An image that fails is
    named at the end and does not lose the others: then UserError is raised. A disk that refuses ends the stage at once.
    With several processes each takes its share of the images.
    """
    mine = torchutils.share(ids)
    todo = [image_id for image_id in mine if not is_done(image_id)]
    done = sum(torchutils.gather([len(mine) - len(todo)]))
    if done:
        log.info('%d of %d images are already done', done, len(ids))
    failed: dict[str, str] = {}
    saving: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(1) as saver:
        items = datasets.read_ahead(_Job(read), todo, num_workers)
        for image_id, item in torchutils.progress(items, total=len(todo), unit='image'):
            if isinstance(item, UserError):
                if isinstance(item, WriteError):
                    datasets.checked(item)
                failed[image_id] = str(item)
                continue
            save = compute(image_id, item) if compute else None
            if save is not None:
                saving.append(saver.submit(save))
            while len(saving) > 4 or (saving and saving[0].done()):
                saving.popleft().result()
        for future in saving:
            future.result()
    failed = dict(sum(torchutils.gather([list(failed.items())]), []))
    if failed:
        for image_id, reason in failed.items():
            log.info('failed: %s: %s', image_id, reason)
        first, reason = next(iter(failed.items()))
        raise UserError(f'{len(failed)} of {len(ids)} images failed, the others are done; first {first}: {reason}')


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


def with_mirror(forward: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """forward on (image, its left-right mirror) as a batch of two, the mirror's result flipped back: (2, ..., h, w).

    image: (1, 3, H, W). A large image and its mirror are taken one after the other, which halves the memory.
    """
    pair = torch.cat([image, image.flip(-1)]).contiguous(memory_format=torch.channels_last)
    parts = pair.split(1) if image.shape[2] * image.shape[3] > MIRRORED_APART else (pair,)
    result = torch.cat([forward(part).float() for part in parts])
    return torch.stack([result[0], result[1].flip(-1)])


def resize(planes: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """Bilinear, (K, h, w) -> (K, H, W)."""
    return F.interpolate(planes[None], hw, mode='bilinear', align_corners=False)[0]


def strided_hw(hw: tuple[int, int]) -> tuple[int, int]:
    """Stride-4 size."""
    return (hw[0] - 1) // 4 + 1, (hw[1] - 1) // 4 + 1


def up16_hw(hw: tuple[int, int]) -> tuple[int, int]:
    """The size rounded up to a multiple of 16."""
    return ((hw[0] - 1) // 16 + 1) * 16, ((hw[1] - 1) // 16 + 1) * 16


