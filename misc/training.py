"""One loop for all trainings: schedule, precision, checkpoints, resuming, progress."""
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from misc import datasets, records, torchutils, weights
from misc.pyutils import UserError, elapsed, log

Batch = dict[str, Any]
Parts = dict[str, torch.Tensor]


@dataclasses.dataclass
class Training:
    """What a training needs beside network, optimizer, data and loss.

    name: of the stage; weights: where the trained network goes (NAME.pth; the checkpoint is NAME.ckpt, the record
    NAME.json); settings: what the weights depend on; overwrite: train anew where such files are there.
    """

    name: str
    weights: str
    settings: dict[str, Any]
    batch_size: int
    epochs: int
    seed: int
    device: torch.device
    precision: str
    num_workers: int
    overwrite: bool

    @property
    def checkpoint(self) -> Path:
        return Path(self.weights).with_suffix('.ckpt')

    def already_done(self) -> bool:
        """Whether these weights are there, made with these settings.

        Raises UserError where the weights, or the checkpoint of an unfinished run, come from other settings.
        """
        self.settings = records.as_stored(self.settings)
        if self.overwrite:
            return False
        if self.checkpoint.is_file():
            self._compare(_read_checkpoint(self.checkpoint)['settings'], self.checkpoint, 'an unfinished training')
            return False
        found = weights.existing(self.weights)
        if found is None:
            return False
        old = records.read_weights_record(self.weights)
        if old is None:
            raise UserError(f'{found} is there, without a record of its settings: --overwrite trains it anew, or name '
                            'another file')
        self._compare(old, found, 'trained')
        log.info('%s is already trained with these settings (--overwrite trains it anew)', found)
        return True

    def _compare(self, old: dict[str, Any], path: Path, what: str) -> None:
        if old != self.settings:
            raise UserError(f'{path}: {what} with other settings ({records.difference(old, self.settings)}): '
                            '--overwrite starts anew, or name another file')


def steps_of(images: int, batch_size: int, epochs: int, name: str) -> int:
    """(images // batch) * epochs. Raises UserError for a batch larger than the data."""
    if images < batch_size:
        raise UserError(f'{name}: a batch of {batch_size} is larger than the list of {images} images: '
                        'use a smaller batch size or a longer list')
    return images // batch_size * epochs


def polynomial(step: int, max_step: int, power: float = 0.9) -> float:
    """(1 - step/max_step)^0.9 (authors' code)."""
    return (1 - step / max_step) ** power


def constant(step: int, max_step: int) -> float:
    """AMN's learning rate does not change."""
    return 1.0


def sgd(groups: tuple[list[nn.Parameter], list[nn.Parameter]], learning_rate: float, weight_decay: float,
        momentum: float) -> torch.optim.Optimizer:
    """The head learns ten times as fast as the rest (CAM), IRN's displacement head as its edge head."""
    rates = (learning_rate, 10 * learning_rate)
    return torch.optim.SGD([{'params': [p for p in group if p.requires_grad], 'lr': rate}
                            for group, rate in zip(groups, rates, strict=True)],
                           lr=learning_rate, weight_decay=weight_decay, momentum=momentum)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, loss: torch.Tensor) -> None:
    """One update. Layers that the gradient does not reach keep grad None: not even weight decay moves them."""
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def fit(training: Training, net: nn.Module, optimizer: torch.optim.Optimizer, dataset: datasets.TrainingCrops,
        loss_of: Callable[[Batch], tuple[torch.Tensor, Parts] | None], schedule: Callable[[int, int], float],
        after_epoch: Callable[[int], None] = lambda epoch: None,
        after_last: Callable[[], None] = lambda: None) -> None:
    """Train `net` and write its weights.

    loss_of(batch) gives the loss and its parts by name, or None for a batch without anything to learn from, which is
    skipped and counted. A checkpoint is written after every epoch, and a run that finds one goes on from it.
    after_last runs before the weights are written. Raises UserError for a loss that is not finite, which names the
    images; the checkpoint of the epoch before stays.
    """
    max_step = steps_of(len(dataset), training.batch_size, training.epochs, training.name)
    per_epoch = max_step // training.epochs
    net.to(training.device, memory_format=torch.channels_last)
    scaler = torch.amp.GradScaler(training.device.type, enabled=training.precision == 'fp16')
    base_rates = [group['lr'] for group in optimizer.param_groups]
    start, skipped = 0, 0
    if training.checkpoint.is_file() and not training.overwrite:
        start, skipped = _resume(training, net, optimizer, scaler)
    keys = datasets.Batches(len(dataset), training.batch_size, training.seed, start, max_step)
    batches = datasets.read_ahead(dataset, keys, training.num_workers, batches=True,
                                  pin_memory=training.device.type == 'cuda')
    for epoch in range(start // per_epoch, training.epochs):
        net.train()
        since, means = time.monotonic(), _Means()
        for number in tqdm(range(epoch * per_epoch, (epoch + 1) * per_epoch), f'epoch {epoch + 1}/{training.epochs}',
                           unit='step', mininterval=1, dynamic_ncols=True):
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group['lr'] = rate * schedule(number, max_step)
            batch = datasets.checked(next(batches))
            with torchutils.autocast(training.precision, training.device):
                result = loss_of(batch)
            if result is None:
                skipped += 1
                continue
            loss, parts = result
            if not torch.isfinite(loss):
                images = ', '.join(dataset.ids[index] for index in batch['index'].tolist())
                raise UserError(f'{training.name}: the loss is {loss.item()} at step {number + 1} of {max_step} '
                                f'(images {images}): lower the learning rate, or look at these images')
            step(net, optimizer, scaler, loss)
            means.add({'loss': loss, **parts})
        log.info('epoch %d/%d: %s, learning rate %.3g, %s', epoch + 1, training.epochs, means,
                 optimizer.param_groups[0]['lr'], elapsed(since))
        _save_checkpoint(training, net, optimizer, scaler, (epoch + 1) * per_epoch, skipped)
        net.eval()
        after_epoch(epoch)
    if skipped:
        log.info('%d batches without a labelled pixel were skipped', skipped)
    net.eval()
    after_last()
    weights.save_state(net, training.weights)
    records.write_json(records.weights_record(training.weights), training.settings)
    training.checkpoint.unlink(missing_ok=True)
    log.info('weights written: %s', training.weights)


class _Means:
    """Means of the loss and its parts over an epoch."""

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, parts: Parts) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.count += 1

    def __str__(self) -> str:
        return ', '.join(f'{name} {total / self.count:.4f}' for name, total in self.sums.items()) or 'no step'


def _save_checkpoint(training: Training, net: nn.Module, optimizer: torch.optim.Optimizer,
                     scaler: torch.amp.GradScaler, step_done: int, skipped: int) -> None:
    content = {'settings': training.settings, 'step': step_done, 'skipped': skipped, 'net': net.state_dict(),
               'optimizer': optimizer.state_dict(), 'scaler': scaler.state_dict()}
    weights.write(content, training.checkpoint)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # whatever torch meets in a damaged file, the remedy is the same
        raise UserError(f'{path}: not a readable checkpoint ({type(error).__name__}); delete it, or --overwrite, to '
                        'start anew') from error


def _resume(training: Training, net: nn.Module, optimizer: torch.optim.Optimizer,
            scaler: torch.amp.GradScaler) -> tuple[int, int]:
    content = _read_checkpoint(training.checkpoint)
    net.load_state_dict(content['net'])
    optimizer.load_state_dict(content['optimizer'])
    scaler.load_state_dict(content['scaler'])
    log.info('going on from %s, step %d', training.checkpoint, content['step'])
    return content['step'], content['skipped']
