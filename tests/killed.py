"""run_sample.py that is ended by SIGKILL: python -m tests.killed WHAT COUNT ARGUMENTS...

WHAT: 'step' (right after the COUNT-th training step), 'file' (right after the COUNT-th file is in
its place) or 'half' (with the COUNT-th file written, but not in its place).
"""
import os
import signal
import sys

import torch

import run_sample
from misc import training
from misc.parsing import Parser


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after(function, count, last=die):
    calls = []

    def counted(*arguments, **options):
        result = function(*arguments, **options)
        calls.append(1)
        if len(calls) == count:
            last()
        return result
    return counted


def before(function, count):
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            die()
        return function(*arguments, **options)
    return counted


if __name__ == '__main__':
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(2)  # as conftest.py: sums are rounded differently by another number
    parser = Parser(prog='python -m tests.killed', description=__doc__)
    parser.add_argument('what', choices=('step', 'file', 'half'))
    parser.add_argument('count', type=int)
    parser.add_argument('words', nargs='...', metavar='ARGUMENTS')
    args = parser.parse_args()
    if args.what == 'step':
        training.step = after(training.step, args.count)
    elif args.what == 'file':
        os.replace = after(os.replace, args.count)
    else:
        os.replace = before(os.replace, args.count)
    sys.exit(run_sample.main(args.words))
