"""How every command ends: what the user can mend is one line on stderr, never a traceback.

Wants of the machine (memory, open files) are among it.
"""
import argparse
import contextlib
import errno
import os
import select
import shutil
import sys
from collections.abc import Callable, Iterator

from misc import machine
from misc.pyutils import REMEDIES, UserError, stop_log, unlock

UNREAD = 141  # exit code of a command whose output nobody reads any more, as shells tell SIGPIPE
GPU, HOST = "the GPU's memory", "the machine's memory"
Remedy = Callable[[str], str]  # GPU or HOST -> what to do where it is not enough

# What libraries tell in words alone: a part of the text -> the want. The first that occurs counts.
WORDINGS = (
    ('insufficient shared memory', 'shared memory'),
    ('unable to allocate shared memory', 'shared memory'),
    ('out of shared memory', 'shared memory'),  # torch of a worker that a bus error ended
    ('unable to write to file </torch_', 'shared memory'), ('unable to mmap', 'shared memory'),
    ('Too many open files', 'files'), ('received 0 items of ancdata', 'files'),
    ('no kernel image is available', 'kernels'),
    # ended by a signal: the system's for want of memory, as a rule
    ('DataLoader worker (pid', 'worker'),
    ('CUDA out of memory', GPU), ('CUDA error: out of memory', GPU),
    ('CUDA driver error: out of memory', GPU),
    # cuDNN's, of 2.x and older: no kernels for this card, or no memory for any way to compute
    ('unable to find an engine to execute', 'engine'),
    ('Unable to find a valid cuDNN algorithm', 'engine'),
    ("Cuda failure 'out of memory'", GPU),
    ("Cuda failure 2 'out of memory'", GPU), ('_STATUS_ALLOC_FAILED', GPU),
    ('DEVICE_ALLOCATION_FAILED', GPU),
    ('CUSPARSE_STATUS_INSUFFICIENT_RESOURCES', GPU), ('cudaErrorMemoryAllocation', GPU),
    ('DefaultCPUAllocator', HOST), ('ArrayMemoryError', HOST), ('MemoryError', HOST),
    ('std::bad_alloc', HOST),
    ('Cannot allocate memory', HOST), ('Insufficient memory', HOST),  # OpenCV's
    # gloo
    ('Connection closed by peer', 'peer'), ('Connection reset by peer', 'peer'),
    ('Connection refused', 'peer'), ('ncclRemoteError', 'peer'))


class OutOfMemory(UserError):
    """Memory that was not enough, for the image that is named with it; `explained` adds the remedy.
    """

    of = HOST


class OutOfGpuMemory(OutOfMemory):
    of = GPU


class PeerEnded(UserError):
    """Another process of torchrun ended, and says why itself."""

    beginning = ''


def want_of(error: BaseException) -> str | None:
    """Return what the machine lacked when `error` was raised (the right of WORDINGS), or None."""
    if isinstance(error, OutOfMemory):
        return error.of
    if isinstance(error, UserError):
        return None
    if isinstance(error, MemoryError):
        return HOST
    if isinstance(error, OSError):
        return {errno.ENOMEM: HOST, errno.EMFILE: 'files', errno.ENFILE: 'files'}.get(error.errno)
    if type(error).__name__ == 'OutOfMemoryError':  # torch's, which may come without a text
        return GPU
    if not isinstance(error, RuntimeError) and not type(error).__module__.startswith('cv2'):
        return None
    want = next((want for wording, want in WORDINGS if wording in str(error)), None)
    return want if want != 'engine' else GPU if _built_for_card() else 'kernels'


def _built_for_card() -> bool:
    """Whether torch's build has kernels for the current card, as far as it is older than these."""
    import torch
    if not torch.cuda.is_available():
        return True
    built = [int(name.removeprefix('sm_').rstrip('af')) for name in torch.cuda.get_arch_list()
             if name.startswith('sm_')]
    major, minor = torch.cuda.get_device_capability()
    return not built or 10 * major + minor >= min(built)


@contextlib.contextmanager
def explained(remedy: Remedy | None = None) -> Iterator[None]:
    """Wants of the machine in this block become a UserError that tells the remedy.

    Without `remedy` memory becomes an OutOfMemory, for who knows the image to name it, and the
    stage to add the remedy.
    """
    try:
        yield
    except Exception as error:
        want = want_of(error)
        if want is None:
            raise
        if want in (GPU, HOST):
            if remedy is None:
                raise (OutOfGpuMemory if want == GPU
                       else OutOfMemory)(f'{want} is not enough') from error
            message = str(error) if isinstance(error, OutOfMemory) else f'{want} is not enough'
            raise UserError(f'{message}: {remedy(want)}') from error
        raise ERROR_OF[want](error) from error


def _shared_memory(error: Exception) -> UserError:
    size = shutil.disk_usage('/dev/shm').total >> 20 if os.path.isdir('/dev/shm') else 0
    return UserError(f'/dev/shm ({size} MB), by which workers hand over what they read, is not '
                     f'enough: give a container '
                     'more (docker run --shm-size 8g, or --ipc=host), or do without workers: '
                     '--num_workers 0')


def _worker(error: Exception) -> UserError:
    return UserError('a worker process was ended by the system, most likely for want of memory: '
                     'use a smaller --num_workers')


def _files(error: Exception) -> UserError:
    return UserError(f'too many open files{REMEDIES[errno.EMFILE]}')


def _kernels(error: Exception) -> UserError:
    import torch
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    cuda = int((torch.version.cuda or '0').split('.')[0])
    if (major, minor) < machine.OLDEST_OF_CUDA_13:
        remedy = (f'install the build for cards before '
                  f'{".".join(map(str, machine.OLDEST_OF_CUDA_13))}: {machine.install("cu126")}')
    elif cuda < 13:
        remedy = (f'install the build for CUDA 13, with driver {machine.DRIVERS[13][0]} or newer: '
                  f'{machine.install(machine.DRIVERS[13][1])}')
    else:
        remedy = 'install a newer torch'
    return UserError(f'torch {torch.__version__} was not built for {name} (compute capability '
                     f'{major}.{minor}; it has '
                     f'{" ".join(torch.cuda.get_arch_list())}): {remedy}; or --device cpu')


def _peer(error: Exception) -> UserError:
    from misc import torchutils
    return PeerEnded(f'process {torchutils.world()[0]} ends, because another one did')


ERROR_OF = {'shared memory': _shared_memory, 'worker': _worker, 'files': _files,
            'kernels': _kernels,
            'peer': _peer}


def fewer_workers(num_workers: int | None) -> Remedy:
    """What helps a command that has nothing smaller to offer than its number of workers."""
    return lambda want: _fewer(num_workers) if num_workers != 0 else 'free some'


def _fewer(num_workers: int | None) -> str:
    return ('a smaller --num_workers' if num_workers is None
            else f'--num_workers below {num_workers}')


def remedy_of(stage: str, args: argparse.Namespace) -> Remedy:
    """Return what helps a stage (or step.show, step.segment) where memory is not enough.

    Only flags that it has, and that are left to change, are named.
    """
    def remedy(want: str) -> str:
        import torch

        from misc import torchutils
        ways, name = [], stage.removeprefix('train_')
        if not hasattr(args, f'{name}_batch_size') and stage.startswith('train_'):
            ways.append(f'a smaller batch in {stage}')  # a stage of one's own
        elif stage.startswith('train_'):
            per_process = getattr(args, f'{name}_batch_size') // torchutils.world()[1]
            if args.accumulate < per_process:
                ways.append(f'--accumulate {min(2 * args.accumulate, per_process)}')
            ways.append(f'--{name}_crop_size below {getattr(args, f"{name}_crop_size")}')
        elif stage in ('make_cam', 'make_amn_cam', 'show'):
            ways += (['--inference_batch_size 1'] if stage != 'show'
                     and args.inference_batch_size > 1 else [])
            ways.append('smaller --cam_scales')
        elif stage in ('make_seg', 'segment'):
            ways.append('smaller --seg_scales')
        if want == GPU:
            if args.precision == 'fp32':
                has_bf16 = torchutils.machine_has_bf16(torch.device('cuda'))
                ways.append(f'--precision {"bf16" if has_bf16 else "fp16"}')
            if not stage.startswith('train_'):
                ways.append('--device cpu')
        elif stage != 'show' and args.num_workers != 0:
            ways.append(_fewer(args.num_workers))
        if not stage.startswith('train_'):
            ways.append('smaller photographs')
        return ', '.join(ways[:-1]) + (' or ' if ways[1:] else '') + ways[-1]
    return remedy


@contextlib.contextmanager
def to_reader() -> Iterator[None]:
    """End the command without a word where nobody reads what this block prints (`| head`).

    Raises SystemExit with the code 141, as shells tell of a program that a closed pipe ended.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _unread():
            raise
        raise SystemExit(UNREAD) from None


def _unread() -> bool:
    """Return whether nobody reads stdout or stderr; what is still written there is dropped."""
    unread = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if poll.poll(0):  # the other end is closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            unread = True
    return unread


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def run(work: Callable[[], int | None], remedy: Remedy = lambda want: 'free some', again: str = '',
        tell: Callable[[str], None] = _print) -> int:
    """Call `work` and return the exit code: what it returns, 1, or 130 after Ctrl-C.

    tell: given the line of an error.
    again: what the line of Ctrl-C adds.
    Logs and locks of this process end with it.
    """
    try:
        with to_reader():
            try:
                with explained(remedy):
                    return work() or 0
            except UserError as error:
                line, code = f'{error.beginning}{error}', 1
            except KeyboardInterrupt:
                line, code = f'stopped by Ctrl-C{again}', 130
            tell(line)
            return code
    finally:
        stop_log()
        unlock()
