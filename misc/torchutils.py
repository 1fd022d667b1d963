"""Device, precision, processes and seeds: asked for once, here."""
import contextlib
import datetime
import math
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed
from tqdm import tqdm

from misc import machine
from misc.pyutils import UserError

T = TypeVar('T')
_alone = False  # within `alone`
BETWEEN_LINES = 30  # seconds, of progress that goes to a file
LINE = '{desc}: {n_fmt}/{total_fmt} ({percentage:.0f}%), {rate_fmt}, {remaining} left{postfix}'
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device of 'auto' (the first GPU, else the CPU), 'cpu', 'cuda' or 'cuda:1'.

    Raises UserError for one not there, and for 'auto' where there is a GPU that torch cannot use.
    """
    limit_threads()
    reason = (None if name == 'cpu' or torch.cuda.is_available()
              else machine.no_cuda(torch.__version__, torch.version.cuda))
    if reason is not None:
        raise UserError(f'--device {name}: {reason}; --device cpu computes without it')
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f'--device {name}: not a device; use auto, cpu, cuda or cuda:N') from error
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {name}: only cpu and cuda are supported')
    if device.type == 'cuda':
        if not torch.cuda.is_available():
            raise UserError(f'--device {name}: torch {torch.__version__} finds no CUDA device; use '
                            f'--device cpu')
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UserError(f'--device {name}: there are only {torch.cuda.device_count()} GPUs')
        if device.index is not None:
            # else memory is pinned, and events are recorded, on the first GPU
            torch.cuda.set_device(device)
    return device


def machine_line(device: torch.device) -> str:
    """What computes: 'torch 2.13.0, cpu, 2 cores, 2 threads'; the card in the place of 'cpu'."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
    return f'torch {torch.__version__}, {name}, {cores()} cores, {torch.get_num_threads()} threads'


def choose_precision(name: str, device: torch.device) -> str:
    """Return 'fp32', 'bf16' or 'fp16'; for 'auto' bf16 where `device` multiplies it itself.

    Raises UserError for one that `device` has not.
    """
    if name == 'auto':
        return 'bf16' if machine_has_bf16(device) else 'fp32'
    if name == 'fp16' and device.type == 'cpu':
        raise UserError('--precision fp16 needs a GPU; on the CPU use fp32 or bf16')
    if name == 'bf16' and device.type == 'cuda' and not machine_has_bf16(device):
        raise UserError('--precision bf16: this GPU has no bf16; use fp16 or fp32')
    return name


def machine_has_bf16(device: torch.device) -> bool:
    """Whether the GPU, or the processor (known on Linux alone), multiplies bf16 itself."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return machine.has_bf16()


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the context in which networks compute in `precision`.

    Parameters, losses and sums stay float32.
    """
    if precision == 'fp32':
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def set_deterministic(wanted: bool) -> None:
    """Say whether a GPU may use only kernels that give the same bits in every run.

    To be called before anything is computed.
    """
    if wanted:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # torch asks for it
    torch.use_deterministic_algorithms(wanted)


def cores() -> int:
    """Return the processor cores that this process may use.

    That is what its affinity and its container's quota (rounded up) allow.
    """
    allowed = (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
               or 1)
    return max(1, math.ceil(min(machine.quota(), allowed)))


def limit_threads() -> None:
    """Compute with no more threads than there are cores, unless the user says with how many.

    torch knows of no quota.
    """
    if not {'OMP_NUM_THREADS', 'MKL_NUM_THREADS'} & os.environ.keys():
        mine = max(1, cores() // int(os.environ.get('LOCAL_WORLD_SIZE', '1')))
        if torch.get_num_threads() > mine:
            torch.set_num_threads(mine)


def world() -> tuple[int, int]:
    """Return (rank, number of processes): (0, 1) without torch.distributed, and within `alone`."""
    if not _alone and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Count as the only process within this block: nothing is summed over or waits for others."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def join_processes(device: torch.device) -> torch.device:
    """Join the other processes of torchrun and return this one's device; else `device`.

    Raises UserError where a machine has fewer GPUs than processes.
    """
    if 'LOCAL_RANK' not in os.environ or int(os.environ.get('WORLD_SIZE',
                                                            '1')) == 1 or world()[1] > 1:
        return device
    if device.type == 'cuda':
        number = int(os.environ['LOCAL_RANK'])
        if number >= torch.cuda.device_count():
            raise UserError(f'torchrun started more processes than this machine has GPUs '
                            f'({torch.cuda.device_count()})')
        device = torch.device('cuda', number)
        torch.cuda.set_device(device)
    distributed.init_process_group('cpu:gloo,cuda:nccl' if device.type == 'cuda' else 'gloo',
                                   # one may still save while the others wait
                                   timeout=datetime.timedelta(hours=12))
    return device


def leave_processes() -> None:
    """The end of `join_processes`."""
    if world()[1] > 1:
        distributed.destroy_process_group()


def is_main() -> bool:
    """Whether this process is the one that writes what is written once."""
    return world()[0] == 0


def wait_for_all() -> None:
    """Go on when every process is here."""
    if world()[1] > 1:
        distributed.barrier()


def shard(items: Sequence[T]) -> Sequence[T]:
    """Return this process's shard of `items`: every world-size-th."""
    rank, size = world()
    return items[rank::size]


def gather(mine: Sequence[T]) -> list[T]:
    """Put the shards of all processes together again, in every process and in the first order."""
    size = world()[1]
    if size == 1:
        return list(mine)
    parts: list[Any] = [None] * size
    distributed.all_gather_object(parts, list(mine))
    return [parts[number % size][number // size] for number in range(sum(map(len, parts)))]


def progress(items: Iterable[T], description: str | None = None, **options: Any) -> Iterable[T]:
    """Wrap `items` in a bar, in the main process only.

    Where stderr is no terminal, a line every 30 s takes the place of the bar.
    """
    if sys.stderr.isatty():
        return tqdm(items, description, mininterval=1, dynamic_ncols=True, disable=not is_main(),
                    **options)
    return _Lines(items, description, mininterval=BETWEEN_LINES, delay=BETWEEN_LINES, miniters=1,
                  bar_format=LINE, leave=False, disable=not is_main(), **options)


class _Lines(tqdm):
    """A bar for a file: a line each time that it would be drawn, and nothing to wipe out."""

    monitor_interval = 0  # no thread that adds lines

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write the line, where none (`msg`) is given. False: nothing stands there."""
        if msg is None:
            self.fp.write(f'{self}\n')
            self.fp.flush()
        return False


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `tensor` on the device, without waiting for the copy.

    Images (four dimensions) are in channels-last order there.
    """
    layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
    if device.type == 'cuda' and tensor.device.type == 'cpu' and not tensor.is_pinned():
        # from other memory a copy may wait for all that the GPU has to do
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True, memory_format=layout)


class ToHost:
    """A copy of `tensor` to the host that is under way; `read` gives it.

    On the CPU it is the tensor itself.
    """

    def __init__(self, tensor: torch.Tensor):
        self._copy = tensor.detach().to('cpu', non_blocking=True)
        self._landed = None
        if tensor.device.type == 'cuda':
            self._landed = torch.cuda.Event()
            self._landed.record()

    def read(self) -> torch.Tensor:
        """Return the copy.

        Waits for what the GPU had to do before it, not for what it was given to do since.
        """
        if self._landed is not None:
            self._landed.synchronize()
        return self._copy


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum `values` (counts; no gradient) over all processes."""
    values = values.detach()
    if world()[1] > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def image_seed(seed: int, epoch: int, image_id: str, purpose: str = '') -> int:
    """Return a 63-bit number from (seed, epoch, image, purpose).

    So what is drawn for an image does not depend on workers, processes, batches or the order of the
    list.
    """
    sequence = np.random.SeedSequence([seed, epoch, zlib.crc32(image_id.encode()),
                                       zlib.crc32(purpose.encode())])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
