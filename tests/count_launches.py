"""Count what the published networks ask of a GPU, on a machine without one (pretend_cuda.py).

    python -m tests.count_launches

Trains each network for four steps of one crop at its default size, and makes what the stages make
of four small images: the size of a batch and that of an image play next to no part, the number of
an image's classes does. Prints a table: kernels, and waits for the device, a step and an
image. Takes some minutes.
"""
import argparse
import collections
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from misc import training
from misc.parsing import Parser
from misc.score import scores
from tests import pretend_cuda
from tests.conftest import GOLDEN, Command

KINDS = ('kernel', 'wait', 'event')
STEPS, IMAGES = 4, 4
STAGES = ('train_cam', 'make_cam', 'cam_to_ir_label', 'train_amn', 'make_amn_cam',
          'amn_cam_to_ir_label', 'train_irn', 'make_sem_seg', 'make_ins_seg', 'train_seg',
          'make_seg')
ONE_CROP = {f'{name}_{what}': value for name in ('cam', 'amn', 'irn')
            for what, value in (('batch_size', 1), ('num_epoches', 1))} | {
    'seg_batch_size': 1, 'seg_steps': STEPS,
    # networks that begin anywhere would end as NaN
    'cam_learning_rate': 1e-9, 'amn_learning_rate': [1e-9, 1e-9], 'irn_learning_rate': 1e-9,
    'seg_learning_rate': 1e-9}


def of_step(run: Callable[[], int]) -> collections.Counter:
    """Run a training of STEPS steps on the device; return what its last but one took, by kind."""
    seen, real = [], training.step

    def step(*arguments):
        seen.append(collections.Counter({kind: gpu.total(kind) for kind in KINDS}))
        return real(*arguments)

    with mock.patch.object(training, 'step', step), pretend_cuda.device() as gpu:
        assert run() == 0
    assert len(seen) == STEPS
    return seen[-1] - seen[-2]


def of_images(run: Callable[[], int]) -> collections.Counter:
    """Run a stage on the device; return what it took but for the copying of the network's tensors,
    by kind.
    """
    with pretend_cuda.device() as gpu:
        assert run() == 0
    assert gpu.total('copy') == 0
    return collections.Counter({kind: gpu.total(kind) - gpu.total(kind, 'misc/networks.py')
                                for kind in KINDS})


def main() -> None:
    Parser(prog='python -m tests.count_launches', description=__doc__,
           formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        command = Command(GOLDEN / 'tree', Path(folder))
        for stage in STAGES:
            count = of_step if stage.startswith('train') else of_images
            counts = count(functools.partial(command, stage, device='cuda', **ONE_CROP))
            unit, number = ('step', 1) if stage.startswith('train') else ('image', IMAGES)
            if counts['kernel']:  # else it needs no GPU
                rows.append([stage, unit, *(f'{counts[kind] / number:g}' for kind in KINDS)])
    print(scores.table(('stage', 'a', 'kernels', 'waits for all', 'waits for what was before'),
                       rows))


if __name__ == '__main__':
    sys.exit(main())
