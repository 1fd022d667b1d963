"""What `--gpus` does: the same command again, in a process for each GPU."""
import subprocess
import sys
from collections.abc import Sequence

import torch

from misc.pyutils import UserError


def run_on_gpus(gpus: str, program: str, words: Sequence[str]) -> int:
    """Run `program` in so many processes and return its exit code.

    words: its command line, of which --gpus is left out.
    Raises UserError for what is no number of GPUs.
    """
    count = (max(1, torch.cuda.device_count()) if gpus == 'all' else int(gpus) if gpus.isdecimal()
             else 0)
    if count < 1:
        raise UserError(f'--gpus {gpus}: a number of GPUs, or all')
    command = [sys.executable, program]
    if count > 1:
        command[1:] = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node',
                       str(count), '--', program]
    return subprocess.run([*command, *_without_gpus(words)], check=False).returncode


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
