"""What `--gpus` does: the same command again, in a process for each GPU."""
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence

import torch

from misc.pyutils import UserError


def run_on_gpus(gpus: str, program: str, words: Sequence[str]) -> int:
    """Run `program` in so many processes and return its exit code.

    words: its command line, of which --gpus is left out.
    Raises UserError for what is no number of GPUs, and where a signal ended a process.
    """
    count = (max(1, torch.cuda.device_count()) if gpus == 'all' else int(gpus) if gpus.isdecimal()
             else 0)
    if count < 1:
        raise UserError(f'--gpus {gpus}: a number of GPUs, or all')
    command = [program, *_without_gpus(words)]
    if count == 1:
        return subprocess.run([sys.executable, *command], check=False).returncode
    return _run_processes(count, command)


def _run_processes(count: int, command: Sequence[str]) -> int:
    """What torchrun does, without its traceback: each process has told its own error."""
    # here, because nothing else needs them
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    try:
        torchrun.main(['--standalone', '--nproc_per_node', str(count), '--', *command])
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(f'process {number} was ended by {name}; SIGKILL is sent by the system, '
                            'most likely for want of memory') from error
        return failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _without_gpus(words: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word == '--gpus':
            skip = True
        elif not word.startswith('--gpus='):
            kept.append(word)
    return kept
