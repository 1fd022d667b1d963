"""One loop for all trainings: schedule, precision, checkpoints, resuming, progress."""
import contextlib
import dataclasses
import math
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from misc import imutils, networks, torchutils
from misc.contract.sources import some
from misc.contract.stages import Job
from misc.data import datasets
from misc.files import losses, records, weights
from misc.files.inputs import (
    Inputs,
    Snapshot,
    check_parts,
    digest_of,
    read_snapshot,
    write_snapshot,
)
from misc.method.objectives import Batch, Learner, Objective
from misc.pyutils import UserError, elapsed, lock, lock_path, log, remove_unfinished, writing

NAMED = 20  # photographs that an error names
# steps from one checkpoint and line of the log to the next, where a training is measured in steps
ROUND = 1000


@dataclasses.dataclass
class Training:
    """What a training needs beside network, optimizer, data and objective.

    name: of the stage.
    weights: where the trained network goes (NAME.pth; the checkpoint is NAME.ckpt, the one before
      it NAME.ckpt.before, the record NAME.json).
    record: what the weights depend on.
    overwrite: train anew where such files are there.
    accumulate: parts that a batch is cut into, one after the other, with the gradient of the whole.
    save_every: minutes between checkpoints within an epoch.
    tensorboard: folder of its event files.
    resume: go on from a checkpoint.
    steps: updates in all, in place of `epochs`: then a round of ROUND steps takes the place of an
      epoch in the log and for checkpoints, and the last round may be short.
    inputs: what is learnt from, of each of `ids` (NAME.inputs.jsonl).
    on_damaged: 'stop' at a photograph that cannot be decoded, or 'skip' it.
    """

    name: str
    weights: str
    record: dict[str, Any]
    batch_size: int
    epochs: int | None
    seed: int
    device: torch.device
    precision: str
    num_workers: int
    overwrite: bool
    accumulate: int = 1
    save_every: float = math.inf
    tensorboard: str | None = None
    resume: bool = True
    steps: int | None = None
    inputs: Inputs | None = None
    ids: Sequence[str] = ()
    on_damaged: str = 'stop'
    snapshot: Snapshot = dataclasses.field(default_factory=Snapshot)  # of the main process's inputs

    @classmethod
    def of(cls, job: Job, stage: str, flag: str, settings: Any, batch_size: int, ids: list[str],
           inputs: Inputs, **more: Any) -> 'Training':
        """Make the training of a stage.

        flag: names its weights.
        settings: all of them go into the record.
        ids, inputs: its images, and what they are made of.
        more: what else the weights depend on.
        """
        run = job.run
        record = {'stage': stage, **settings.record(),
                  'code': networks.code_of(*settings.modules()),
                  'images': records.fingerprint({'ids': ids}), **more}
        return cls(stage, job.files[flag], record, batch_size, getattr(settings, 'epochs', None),
                   settings.seed, job.device, settings.precision, run.readers, run.overwrite,
                   run.accumulate, run.save_every, run.tensorboard, run.resume,
                   getattr(settings, 'steps', None), inputs=inputs, ids=ids,
                   on_damaged=run.on_damaged)

    def length(self, images: int) -> tuple[int, int]:
        """Return (steps in all, steps of an epoch, or of a round where `steps` is given).

        Raises UserError for a batch larger than the data.
        """
        per_epoch = steps_of(images, self.batch_size, 1, self.name)
        return (per_epoch * self.epochs,
                per_epoch) if self.steps is None else (self.steps, min(ROUND, self.steps))

    @property
    def checkpoint(self) -> Path:
        return records.beside_weights(self.weights, '.ckpt')

    @property
    def lock_path(self) -> Path:
        return lock_path(self.checkpoint.with_suffix(''))

    @property
    def inputs_path(self) -> Path:
        return records.beside_weights(self.weights, '.inputs.jsonl')

    def already_done(self) -> bool:
        """Return whether these weights are there, made with these settings.

        Weights without a record (made elsewhere) are used. Raises UserError where they, or the
        checkpoint of an unfinished run, come from other settings or inputs.
        """
        if torchutils.is_main():
            lock(self.lock_path, f'{self.weights}')
            remove_unfinished(self.checkpoint.parent, self.checkpoint.stem)
        self.record = records.as_stored(self.record)
        stored = Snapshot()
        if self.inputs is not None:
            if torchutils.is_main():
                stored = read_snapshot(self.inputs_path, self.lock_path)
                self.snapshot = stored.current(self.inputs, self.ids)
                check_parts(self.inputs, self.ids)
                self.record['inputs'] = digest_of(self.snapshot.lines)
            self.record['inputs'] = torchutils.gather([self.record.get('inputs')])[0]
        return self._already_done(stored)

    def _already_done(self, stored: Snapshot) -> bool:
        """stored: what NAME.inputs.jsonl holds."""
        if self.overwrite:
            return False
        unfinished = read_checkpoint(self.checkpoint) if self.resume else None
        if unfinished is not None:
            self._compare(unfinished['settings'], self.checkpoint, 'an unfinished training',
                          Snapshot(unfinished.get('made_from')))
            return False
        found = weights.existing(self.weights)
        if found is None:
            return False
        old = records.read_weights_record(self.weights)
        if old is None:
            log.info('%s is there, without a record of its settings (made elsewhere), and is used '
                     '(--overwrite trains it anew)',
                     found)
            return True
        self._compare(old, found, 'trained', stored)
        same_content = stored.lines == self.snapshot.lines
        if same_content and stored.stats != self.snapshot.stats and torchutils.is_main():
            self.write_inputs()
        log.info('%s is already trained with these settings (--overwrite trains it anew)', found)
        return True

    def write_inputs(self) -> None:
        """Write NAME.inputs.jsonl."""
        if self.inputs is not None:
            write_snapshot(self.inputs_path, self.lock_path, self.snapshot)

    def _compare(self, old: dict[str, Any], path: Path, what: str, stored: Snapshot) -> None:
        """stored: what the weights were made from, if `old` says the same."""
        new = dict(self.record)
        old = records.completed(old, new)
        if 'inputs' not in old:
            # an earlier version recorded label maps without a record by their place
            for name in ('inputs', 'label_maps'):
                new.pop(name, None)
            old = {name: value for name, value in old.items() if name in new
                   or name != 'label_maps'}
            log.info('%s has no record of what it was made from (made by an earlier version) and '
                     'is used', path)
        difference = ''
        if torchutils.is_main() and old.get('inputs') != new.get('inputs'):
            changes = (_difference(stored, self.snapshot, self.inputs)
                       if digest_of(stored.lines) == old['inputs'] else 'not known which')
            difference = f'with other inputs ({changes})'
        difference = torchutils.gather([difference])[0]
        for name in ('inputs', 'images') if difference else ():  # these are told in words
            old, new = ({key: value for key, value in each.items() if key != name}
                        for each in (old, new))
        if old != new:
            more = f' and {difference}' if difference else ''
            difference = f'with other settings ({records.difference(old, new)}){more}'
        if difference:
            raise UserError(f'{path}: {what} {difference}: --overwrite starts anew, or name '
                            f'another file')


def _difference(old: Snapshot, new: Snapshot, of: Inputs) -> str:
    """How the inputs of a training differ, in words."""
    more = [image_id for image_id in new.lines if image_id not in old.lines]
    fewer = [image_id for image_id in old.lines if image_id not in new.lines]
    parts = [f'{len(ids)} images {how} in the list: {some(ids)}'
             for ids, how in ((more, 'more'), (fewer, 'fewer')) if ids]
    changed = of.describe(old.changed(new))
    return '; '.join([*parts, *([changed] if changed else [])]) or 'another order of the list'


def steps_of(images: int, batch_size: int, epochs: int, name: str) -> int:
    """Return (images // batch) * epochs. Raises UserError for a batch larger than the data."""
    processes = torchutils.world()[1]
    if batch_size < processes:
        raise UserError(f'{name}: a batch of {batch_size} images cannot be shared by {processes} '
                        f'processes: give --{name.removeprefix("train_")}_batch_size {processes} '
                        'or more')
    if images < batch_size:
        raise UserError(f'{name}: a batch of {batch_size} is larger than the list of {images} '
                        f'images: '
                        f'give --{name.removeprefix("train_")}_batch_size {images} or less, or a '
                        f'longer list')
    return images // batch_size * epochs


def _slower(stage: str) -> str:
    return f'lower the learning rate (--{stage.removeprefix("train_")}_learning_rate)'


def polynomial(step: int, max_step: int, power: float = 0.9) -> float:
    """Return the factor (1 - step/max_step)^0.9 of the learning rate (authors' code)."""
    return (1 - step / max_step) ** power


def polynomial_by_tens(step: int, max_step: int) -> float:
    """Return `polynomial`, renewed at every tenth step only (kazuto1011/deeplab-pytorch)."""
    return polynomial(step - step % 10, max_step)


def constant(step: int, max_step: int) -> float:
    """Return 1: AMN's learning rate does not change."""
    return 1.0


def sgd(groups: tuple[list[nn.Parameter], list[nn.Parameter]], learning_rate: float,
        weight_decay: float, momentum: float) -> torch.optim.Optimizer:
    """Make SGD whose second group learns ten times as fast: CAM's head, IRN's displacement head.

    Not fused: under fp16 the fused form can begin with garbage for a momentum where the first step
      is skipped.
    """
    rates = (learning_rate, 10 * learning_rate)
    return torch.optim.SGD([{'params': [p for p in group if p.requires_grad], 'lr': rate}
                            for group, rate in zip(groups, rates, strict=True)],
                           lr=learning_rate, weight_decay=weight_decay, momentum=momentum)


def step(learner: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
         batch: Batch, objective: Objective,
         training: Training) -> tuple[torch.Tensor, list[str]] | None:
    """Make one update of the weights.

    Returns the values of loss and parts, and their names; None for a batch that was skipped. Layers
    that the gradient does not reach keep grad None: not even weight decay moves them.
    """
    with torchutils.autocast(training.precision, training.device):
        counts = objective.counts(batch)
    if counts is None:
        return None
    optimizer.zero_grad(set_to_none=True)
    total: torch.Tensor | float = 0.0
    parts = list(_parts(batch, training.accumulate))
    threads = _threads(learner, training.device)
    for number, part in enumerate(parts, start=1):
        shares = list(_parts(part, threads))
        last = number == len(parts)
        if len(shares) > 1:
            values, names = _backward_by_threads(learner, shares, counts, training)
        else:
            with contextlib.nullcontext() if last or isinstance(learner,
                                                                Learner) else learner.no_sync():
                loss, values, names = _forward(learner, part, counts, training)
                scaler.scale(loss).backward()
        total = total + values
    scaler.step(optimizer)
    scaler.update()
    return total, names


def _forward(learner: nn.Module, part: Batch, counts: torch.Tensor,
             training: Training) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Compute the loss of a part of a batch.

    Returns it, to go backward from; the values of loss and parts; and their names.
    """
    with torchutils.autocast(training.precision, training.device):
        loss, others = learner(part, counts)
    values = torch.stack([loss.detach(), *(value.detach() for value in others.values())])
    return loss, values, ['loss', *others]


def _threads(learner: nn.Module, device: torch.device) -> int:
    """How many threads take a share of a batch each.

    1 (torch's own then share every operation) on a GPU, for several processes, and where what is
    computed of one image depends on the others: by a batch norm of the batch's statistics, or by
    dropout drawn from torch's one generator.
    """
    if device.type != 'cpu' or not isinstance(learner, Learner) or any(
            module.training and (type(module).forward is nn.BatchNorm2d.forward
                                 or isinstance(module, nn.modules.dropout._DropoutNd) and module.p)
            for module in learner.modules()):
        return 1
    return torch.get_num_threads()


def _backward_by_threads(learner: nn.Module, shares: list[Batch], counts: torch.Tensor,
                         training: Training) -> tuple[torch.Tensor, list[str]]:
    """Compute the gradient of each share by a thread of its own, and add it to the parameters'.

    Returns the values of loss and parts, and their names. Threads that share every operation wait
    for each other thousands of times a step, and beside another busy program each time for one that
    has no core; these wait once. Gradients are added in the order of the shares, so that every run
    has the same bits.
    """
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    threads = torch.get_num_threads()

    def start() -> None:
        torch.set_num_threads(threads // len(shares))  # for this thread, and those that start later
        # What weights were rounded to is shared by all threads. Within another autocast, the end of
        # that of the forward pass does not throw it away while others still need it.
        torch.autocast(training.device.type, enabled=False).__enter__()

    def gradients(share: Batch) -> tuple[tuple[torch.Tensor, list[str]], tuple[torch.Tensor, ...]]:
        loss, values, names = _forward(learner, share, counts, training)
        return (values, names), torch.autograd.grad(loss, parameters, allow_unused=True)

    total: torch.Tensor | float = 0.0
    try:
        with ThreadPoolExecutor(len(shares), initializer=start) as pool:
            for told, found in pool.map(gradients, shares):
                total = total + told[0]
                for parameter, gradient in zip(parameters, found, strict=True):
                    if gradient is not None:
                        before = parameter.grad
                        parameter.grad = gradient if before is None else before + gradient
    finally:
        torch.clear_autocast_cache()
        torch.set_num_threads(threads)
    return total, told[1]


def _parts(batch: Batch, number: int) -> Iterator[Batch]:
    """The batch cut into `number` parts of about equal size."""
    size = len(batch['index'])
    length = math.ceil(size / number)
    for first in range(0, size, length):
        yield {name: value[first:first + length] for name, value in batch.items()}


def fit(training: Training, net: nn.Module, optimizer: torch.optim.Optimizer,
        dataset: datasets.TrainingCrops | datasets.SegmentationCrops, objective: Objective,
        schedule: Callable[[int, int], float],
        after_epoch: Callable[[int], dict[str, np.ndarray]] = lambda epoch: {},
        after_last: Callable[[], None] = lambda: None) -> None:
    """Train `net` and write its weights.

    A checkpoint is written after every epoch and every `save_every` minutes, and a run that finds
    one goes on from it. The losses of the epochs are written beside the weights
    (misc/files/losses). after_epoch gives pictures (H, W, 3) for TensorBoard; after_last runs
    before the weights are written. Raises UserError for a loss that is not finite, which names the
    images; the last checkpoint before it stays.
    """
    max_step, per_epoch = training.length(len(dataset))
    epochs = math.ceil(max_step / per_epoch)
    net.to(training.device, memory_format=torch.channels_last)
    scaler = torch.amp.GradScaler(training.device.type, enabled=training.precision == 'fp16')
    base_rates = [group['lr'] for group in optimizer.param_groups]
    state = _State(training, net, optimizer, scaler)
    if training.resume and not training.overwrite:
        state.resume()
    state.write_losses()
    learner: nn.Module = Learner(net, objective)
    if torchutils.world()[1] > 1:
        # every batch norm is fixed
        learner = DistributedDataParallel(learner, broadcast_buffers=False)
        # of kernels of one pixel it says that they lie otherwise in memory in channels-last order;
        # they do not
        warnings.filterwarnings('ignore', category=UserWarning,
                                message=r'Grad strides do not match bucket view strides'
                                r'[^=]*= \[\d+, \d+, 1, 1\]')
    sampler = datasets.Batches(len(dataset), training.batch_size, training.seed, state.step,
                               max_step)
    if training.on_damaged == 'skip':
        dataset = datasets.WithoutDamaged(dataset)
    left_out: set[str] = set()
    batches = datasets.read_ahead(dataset, sampler, training.num_workers, batches=True,
                                  pin_memory=training.device.type == 'cuda')
    writer = _writer(training)
    for epoch in range(math.ceil(state.step / per_epoch) if state.step == max_step
                       else state.step // per_epoch, epochs):
        net.train()
        since = time.monotonic()
        means = _Means(training.name, dataset.ids, max_step, writer, *state.begun)
        first, stop = epoch * per_epoch, min((epoch + 1) * per_epoch, max_step)
        name = f'{"epoch" if training.steps is None else "round"} {epoch + 1}/{epochs}'
        steps = torchutils.progress(range(state.step, stop), name, unit='step',
                                    initial=state.step - first, total=stop - first)
        for number in steps:
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group['lr'] = rate * schedule(number, max_step)
            batch = _next(batches, training)
            left_out |= {dataset.ids[index]
                         for index in batch.pop('left_out', torch.empty(0)).tolist() if index >= 0}
            result = step(learner, optimizer, scaler, batch, objective, training)
            state.skipped += result is None
            means.add(number, batch, result)
            state.step = number + 1
            steps.set_postfix_str(f'{means}, lr {optimizer.param_groups[0]["lr"]:.2g}, '
                                  f'{memory(training.device)}', False)
            if state.due() and number + 1 < stop:
                means.settle()
                state.begun = means.sums, means.count
                state.save()
        means.settle()
        log.info('%s: %s, learning rate %.3g, %s, %s', name, means.over_processes(),
                 optimizer.param_groups[0]['lr'], elapsed(since), memory(training.device))
        state.end_epoch(epoch + 1, means)
        state.save()
        state.write_losses()
        net.eval()
        pictures = after_epoch(epoch)
        if writer is not None:
            writer.add_scalar(f'{training.name}/learning rate', optimizer.param_groups[0]['lr'],
                              state.step)
            for title, picture in pictures.items():
                writer.add_image(f'{training.name}/{title}', picture, epoch + 1, dataformats='HWC')
            writer.flush()
    left_out = set(sum(torchutils.gather([sorted(left_out)]), []))
    if left_out:
        log.info('%d images were left out, because they cannot be decoded: %s', len(left_out),
                 some(sorted(left_out), NAMED))
    if state.skipped:
        log.info('%d batches without a labelled pixel were skipped', state.skipped)
    net.eval()
    after_last()
    state.check_finite()
    if torchutils.is_main():
        weights.save_state(net, training.weights)
        records.write_json(records.weights_record(training.weights), training.record)
        training.write_inputs()
        state.remove()
    torchutils.wait_for_all()
    log.info('weights written: %s', training.weights)


def _next(batches: Iterator[Any], training: Training) -> Batch:
    """The next batch. Raises UserError that names every photograph of the list that cannot be
    decoded, where one cannot.
    """
    batch = next(batches)
    if not isinstance(batch, imutils.UnreadableImage) or training.inputs is None:
        return datasets.checked(batch)
    log.info('%s: %s; now the others are looked at', training.name, batch)
    ids = datasets.damaged(training.inputs.source, list(training.ids), training.num_workers)
    raise UserError(f'{training.name}: {len(ids)} of {len(training.ids)} photographs cannot be '
                    f'decoded: {some(ids, NAMED)} (the '
                    f'first one met: {batch}); --on_damaged skip goes on without them')


def _writer(training: Training) -> Any:
    """TensorBoard's writer for the main process, or None where none was asked for."""
    if training.tensorboard is None or not torchutils.is_main():
        return None
    return summary_writer()(training.tensorboard)


def summary_writer() -> Any:
    """Return torch's SummaryWriter. Raises UserError where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError('--tensorboard needs a package that is not installed: pip install '
                        'tensorboard') from error
    return SummaryWriter


def memory(device: torch.device) -> str:
    """Peak memory of this process so far, on the GPU where there is one."""
    used = (torch.cuda.max_memory_allocated(device) if device.type == 'cuda'
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return f'{used / 2 ** 30:.1f} GB'


class _Means:
    """Means of the loss and its parts over an epoch.

    A step's values are looked at when the next step is queued, and that step is not waited for, so
    that a GPU always has something to do.
    """

    def __init__(self, name: str, ids: list[str], max_step: int, writer: Any,
                 sums: dict[str, float], count: int):
        self.name, self.ids, self.max_step, self.writer = name, ids, max_step, writer
        self.sums, self.count = sums, count  # of an epoch that a run before this one began
        self.pending: tuple | None = None

    def add(self, number: int, batch: Batch, result: tuple[torch.Tensor, list[str]] | None) -> None:
        """Values of step `number`. Raises UserError where those of the step before are not finite.
        """
        self._take(None if result is None else (number, batch['index'],
                                                torchutils.ToHost(result[0]), result[1]))

    def settle(self) -> None:
        """Add what is pending. Raises UserError where it is not finite, which names the images."""
        self._take(None)

    def _take(self, pending: tuple | None) -> None:
        before, self.pending = self.pending, pending
        if before is None:
            return
        number, index, copy, names = before
        values = copy.read().tolist()
        if not math.isfinite(values[0]):
            images = ', '.join(self.ids[position] for position in index.tolist())
            raise UserError(f'{self.name}: the loss is {values[0]} at step {number + 1} of '
                            f'{self.max_step} '
                            f'(images {images}): {_slower(self.name)}, or look at these images')
        for name, value in zip(names, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
            if self.writer is not None:
                self.writer.add_scalar(f'{self.name}/{name}', value, number + 1)
        self.count += 1

    def over_processes(self) -> str:
        """The means over all processes."""
        processes = torchutils.gather([(self.sums, self.count)])
        size = len(processes)
        self.sums = {name: sum(sums[name] for sums, _ in processes) / size for name in self.sums}
        return str(self)

    def values(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}

    def __str__(self) -> str:
        return (', '.join(f'{name} {value:.4f}' for name, value in self.values().items())
                or 'no step')


class _State:
    """What a checkpoint holds: network, optimizer, scaler, steps done, batches skipped, settings,
    the losses of the epochs.

    The learning rate follows from the step, and all that is random from (seed, epoch, image): there
    is no other state. begun: sums and number of the losses of an epoch that is not done; where
    several processes go on within an epoch, each goes on from those of the main one.
    """

    def __init__(self, training: Training, net: nn.Module, optimizer: torch.optim.Optimizer,
                 scaler: torch.amp.GradScaler):
        self.training, self.parts = training, {'net': net, 'optimizer': optimizer, 'scaler': scaler}
        self.step, self.skipped = 0, 0
        self.losses: list[dict[str, float]] = []
        self.begun: tuple[dict[str, float], int] = {}, 0
        self.saved = time.monotonic()

    def due(self) -> bool:
        """Whether `save_every` minutes have passed."""
        return time.monotonic() - self.saved > 60 * self.training.save_every

    def end_epoch(self, epoch: int, means: '_Means') -> None:
        """Keep the means of an epoch. Six digits: more differ with the number of processes."""
        line = {'learning_rate': self.parts['optimizer'].param_groups[0]['lr'], **means.values()}
        self.losses.append({'epoch': epoch, 'step': self.step} | {
            name: float(f'{value:.6g}') for name, value in line.items()})
        self.begun = {}, 0

    def write_losses(self) -> None:
        """Write NAME.losses.jsonl."""
        if torchutils.is_main():
            losses.write(self.training.weights, self.losses)

    def save(self) -> None:
        """Write the checkpoint; the one before it stays beside it."""
        self.saved = time.monotonic()
        self.check_finite()
        if torchutils.is_main():
            path = self.training.checkpoint
            content = {'settings': self.training.record, 'step': self.step,
                       'skipped': self.skipped, 'made_from': self.training.snapshot.lines,
                       'losses': self.losses, 'begun': self.begun,
                       **{name: part.state_dict() for name, part in self.parts.items()}}
            with writing(path):
                if path.is_file():
                    path.replace(_before(path))
            weights.write(content, path)

    def check_finite(self) -> None:
        """Raises UserError where a parameter is not finite, as a gradient can make it whose loss
        was.
        """
        parameters = dict(self.parts['net'].named_parameters())
        finite = torch.stack([torch.isfinite(parameter).all()
                              for parameter in parameters.values()]).tolist()
        for name, is_finite in zip(parameters, finite, strict=True):
            if not is_finite:
                raise UserError(f'{self.training.name}: {name} is not finite after step '
                                f'{self.step}: {_slower(self.training.name)}')

    def resume(self) -> None:
        """Go on from a checkpoint, where there is one."""
        path = self.training.checkpoint
        content = read_checkpoint(path)
        if content is None:
            return
        for name, part in self.parts.items():
            part.load_state_dict(content[name])
        self.step, self.skipped = content['step'], content['skipped']
        # not in the checkpoints of an earlier version
        self.losses, self.begun = content.get('losses', []), content.get('begun', ({}, 0))
        log.info('going on from %s, step %d', path, self.step)

    def remove(self) -> None:
        for path in (self.training.checkpoint, _before(self.training.checkpoint)):
            with writing(path):
                path.unlink(missing_ok=True)


def _before(path: Path) -> Path:
    return path.with_suffix('.ckpt.before')


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read the checkpoint, else the one before it where it is missing or damaged, else None.

    The log says that. Raises UserError where one is damaged and there is no other.
    """
    damaged = None
    for candidate in (path, _before(path)):
        if candidate.is_file():
            try:
                content = torch.load(candidate, map_location='cpu', weights_only=True)
            # whatever torch meets in a damaged file, the remedy is the same
            except Exception as error:
                damaged = error
                log.info('%s is damaged (%s)', candidate, type(error).__name__)
                continue
            if damaged is not None and torchutils.is_main():
                with writing(path):
                    path.unlink()  # else the next checkpoint would push the good one out for it
            return content
    if damaged is not None:
        raise UserError(f'{path}: not a readable checkpoint; delete it, or --overwrite, to start '
                        f'anew') from damaged
    return None
