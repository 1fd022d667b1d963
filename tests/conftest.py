"""The small tree, the formula's weights and a way to run the command, shared by the tests of
stages.
"""
import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import run_sample
from misc.command import options
from misc.contract.settings import Run
from misc.contract.stages import Job
from misc.files import weights
from step.pipeline import STAGES
from tests.formula import formula_state

GOLDEN = Path(__file__).parent / 'golden'
if 'OMP_NUM_THREADS' not in os.environ:
    torch.set_num_threads(2)


@pytest.fixture(scope='session')
def formula_weights(tmp_path_factory):
    """Folder with res50_{cam,amn,irn}.pth filled by the formula."""
    from net import resnet50_amn, resnet50_cam, resnet50_irn
    folder = tmp_path_factory.mktemp('formula')
    for name, module in (('cam', resnet50_cam), ('amn', resnet50_amn), ('irn', resnet50_irn)):
        net = module.Net(20)
        net.load_state_dict(formula_state(net))
        weights.save_state(net, folder / f'res50_{name}.pth')
    return folder


@pytest.fixture
def tree(tmp_path):
    """A copy of the golden VOC-shaped tree that a test may damage."""
    return Path(shutil.copytree(GOLDEN / 'tree', tmp_path / 'tree'))


def told(cls, **changes):
    """Settings at their defaults, but for some fields."""
    args = options.build_parser(STAGES).parse_args([])
    options.resolve(STAGES, args)
    return dataclasses.replace(cls.of(args), **changes)


def job_of(source, folder, device=torch.device('cpu'),  # noqa: B008
           lists=None, files=None, thresholds=None, **run):
    """What a stage is given: outputs in `folder`, under the names of their flags without _out_dir.
    """
    names = {'scores_file': 'scores.jsonl', 'seg_label_dir': 'sem_seg'}
    for flag, (_, output) in STAGES.outputs().items():
        names[flag] = (flag.replace('_out_dir', '').replace('_weights_name', '.pth') if output.kept
                       else None)
    paths = {flag: None if name is None else str(folder / name) for flag, name in names.items()}
    at = {'eval_cam_thres': 0.15, 'eval_amn_cam_thres': 0.25}
    run = told(Run, **{'num_workers': 0, **run})
    return Job(source, STAGES, run, device,
               {name: 'train' for name in options.LISTS} | (lists or {}), paths | (files or {}),
               at | (thresholds or {}), 'version', 'commit')


class Command:
    """run_sample.py in its own folder on a tree; its lists are the tree's splits."""

    def __init__(self, tree, folder):
        self.tree, self.folder = tree, folder

    def words(self, *stages, **flags):
        """The command line. stages: names without _pass; flags: as on the command line, lists as
        lists.
        """
        flags = {'voc12_root': self.tree, 'train_list': 'train_aug', 'val_list': 'val',
                 'infer_list': 'train', 'seg_list': 'val', 'num_workers': 0,
                 'log_name': self.folder / 'run', 'scores_file': self.folder / 'scores.jsonl',
                 'pretrained': 'none', 'cam_weights_name': self.folder / 'cam.pth',
                 'amn_weights_name': self.folder / 'amn.pth',
                 'irn_weights_name': self.folder / 'irn.pth',
                 'seg_weights_name': self.folder / 'seg.pth',
                 'sheet_out': self.folder / 'sheet.png',
                 **{f'{name}_out_dir': self.folder / name
                    for name in ('cam', 'ir_label', 'amn_cam', 'amn_ir_label', 'sem_seg', 'ins_seg',
                                 'analysis', 'report', 'seg', 'seg_crf')},
                 **flags}
        words = [f'--{stage}_pass' for stage in stages]
        for name, value in flags.items():
            words += [f'--{name}', *map(str, value if isinstance(value, list) else [value])]
        return words

    def __call__(self, *stages, **flags):
        """Exit code."""
        return run_sample.main(self.words(*stages, **flags))

    def scores(self):
        """The last score of each stage."""
        lines = (self.folder / 'scores.jsonl').read_text().splitlines()
        return {line['stage']: line for line in map(json.loads, lines)}


@pytest.fixture
def command(tree, tmp_path):
    return Command(tree, tmp_path / 'out')
