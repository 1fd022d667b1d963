"""script/benchmark.py --against: a checkout's modules get the same weights and inputs, in a process
of their own.
"""
import argparse
import json
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from misc import indexing
from misc.method import losses
from misc.pyutils import UserError
from script import benchmark, benchmark_authors

ROOT = Path(__file__).resolve().parent.parent
# a checkout with the names and signatures of the authors' modules; each notes what it was given
CHECKOUT = {
    'misc/__init__.py': '',
    'misc/notes.py': '''
        import json

        def note(**values):
            with open('notes.jsonl', 'a') as stream:
                stream.write(json.dumps(values) + '\\n')
        ''',
    'misc/torchutils.py': '''
        import torch

        class PolyOptimizer(torch.optim.SGD):
            def __init__(self, params, lr, weight_decay, max_step, momentum=0.9):
                super().__init__(params, lr, weight_decay)
        ''',
    'misc/imutils.py': '''
        from misc.notes import note

        def crf_inference_label(img, labels, t=10, n_labels=21, gt_prob=0.7):
            note(case='refine', image=img.sum().item(), labels=labels.sum().item(), n=n_labels)
            return labels
        ''',
    'misc/indexing.py': '''
        import numpy as np

        class PathIndex:
            def __init__(self, radius, default_size):
                h, w = default_size
                positions = np.arange(h * w).reshape(h, w)
                self.radius = radius
                self.src_indices = positions[:-1, :-1].ravel()
                self.dst_indices = np.stack([positions[:-1, 1:].ravel(),
                                             positions[1:, :-1].ravel()])

        def propagate_to_edge(x, edge, radius=5, beta=10, exp_times=8):
            return x.cuda()
        ''',
    'net/__init__.py': '',
    'net/resnet50.py': '''
        import torch.utils.model_zoo as model_zoo
        from torch import nn

        def resnet50(pretrained, strides):
            net = nn.Module()
            net.conv1 = nn.Conv2d(3, 4, 3, 4, 1)
            state = model_zoo.load_url('https://nowhere.example/resnet50.pth')
            state.pop('fc.weight')
            state.pop('fc.bias')
            net.load_state_dict(state)
            return net
        ''',
    'net/resnet50_cam.py': '''
        import torch
        from torch import nn
        from misc.notes import note
        from net import resnet50

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.resnet50 = resnet50.resnet50(pretrained=True, strides=(2, 2, 2, 1))
                self.classifier = nn.Conv2d(4, 20, 1, bias=False)

            def forward(self, x):
                note(case='train_cam', x=x.sum().item(), training=self.training,
                     weights=self.classifier.weight.sum().item())
                return self.classifier(self.resnet50.conv1(x)).mean((2, 3))

            def trainable_parameters(self):
                return list(self.resnet50.parameters()), list(self.classifier.parameters())

        class CAM(Net):
            def forward(self, x):
                note(case='make_cam', shape=list(x.shape), mirrored=bool(
                    torch.equal(x[0], x[1].flip(-1))), x=x.sum().item())
                both = self.classifier(self.resnet50.conv1(x))
                return both[0] + both[1].flip(-1)
        ''',
    'net/resnet50_amn.py': '''
        from torch import nn
        from misc.notes import note
        from net import resnet50

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.resnet50 = resnet50.resnet50(pretrained=True, strides=(2, 2, 2, 1))
                self.label_enc, self.classifier = nn.Linear(20, 4), nn.Conv2d(4, 21, 3, 4, 1)

            def forward(self, img, label_cls):
                note(case='amn', labels=label_cls.tolist())
                x = self.resnet50.conv1(img) * self.label_enc(label_cls)[..., None, None]
                return self.classifier(x)

            def trainable_parameters(self):
                return list(self.resnet50.parameters()), list(self.classifier.parameters())

        class CAM(Net):
            pass
        ''',
    'net/resnet50_irn.py': '''
        import torch
        from torch import nn
        from misc.notes import note
        from net import resnet50

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.resnet50 = resnet50.resnet50(pretrained=True, strides=[2, 2, 2, 1])
                self.edge, self.displacement = nn.Conv2d(4, 1, 1), nn.Conv2d(4, 2, 1)

            def trainable_parameters(self):
                return tuple(self.edge.parameters()), tuple(self.displacement.parameters())

        class AffinityDisplacementLoss(Net):
            def __init__(self, path_index):
                super().__init__()
                self.path_index = path_index

            def forward(self, x, return_loss):
                note(case='train_irn', radius=self.path_index.radius, return_loss=return_loss)
                x = self.resnet50.conv1(x).detach()
                ends = torch.from_numpy(self.path_index.dst_indices)
                edge, field = (head(x).flatten(2)[..., ends]
                               for head in (self.edge, self.displacement))
                return edge[:, 0].exp(), edge[:, 0] ** 2, field.abs(), field ** 2
        '''}


class Cam(nn.Module):
    """Our network, as small as theirs."""

    def __init__(self, n_classes):
        super().__init__()
        self.resnet50 = nn.ModuleDict({'conv1': nn.Conv2d(3, 4, 3, 4, 1)})
        self.classifier = nn.Conv2d(4, n_classes, 1, bias=False)


class Amn(Cam):
    def __init__(self, n_classes):
        super().__init__(n_classes)
        self.label_enc = nn.Linear(n_classes, 4)
        self.classifier = nn.Conv2d(4, n_classes + 1, 3, 4, 1)


class Irn(Cam):
    def __init__(self):
        super().__init__(1)
        del self.classifier
        self.edge, self.displacement = nn.Conv2d(4, 1, 1), nn.Conv2d(4, 2, 1)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name, text in CHECKOUT.items():
        path = tmp_path / 'theirs' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    for name, net in (('resnet50_cam', Cam), ('resnet50_amn', Amn), ('resnet50_irn', Irn)):
        monkeypatch.setattr(getattr(benchmark, name), 'Net', net)
    monkeypatch.setenv('PYTHONPATH', '')
    return tmp_path / 'theirs'


@pytest.fixture
def args(checkout):
    return argparse.Namespace(size=[24, 32], crop=64, batch=2, device='cpu', repeat=2,
                              against=str(checkout))


def notes(checkout):
    return [json.loads(line) for line in (checkout / 'notes.jsonl').read_text().splitlines()]


@pytest.mark.parametrize(('name', 'times'), [
    ('make_cam', 12), ('make_amn_cam', 12), ('train_cam', 3), ('train_amn', 3), ('train_irn', 3),
    ('refine', 6)])
def test_a_case_is_timed_on_what_ours_gets(checkout, args, name, times):
    assert benchmark.by_authors(name, args)['seconds'] > 0
    assert len(seen := notes(checkout)) == times  # once to warm up, and twice
    given = benchmark.given_to_authors(name, args)
    if name == 'make_cam':
        assert [each['shape'] for each in seen[:4]] == [
            [2, *image.shape[1:]] for image in given['images']]
        assert all(each['mirrored'] for each in seen)
        assert [each['x'] for each in seen[:4]] == pytest.approx(
            [2 * image.sum().item() for image in given['images']], rel=1e-3)
    elif name == 'make_amn_cam':
        assert seen[0]['labels'] == [[1.0] * 2 + [0.0] * 18] * 2
    elif name == 'train_cam':
        assert seen[0]['x'] == pytest.approx(given['image'].sum().item(), rel=1e-3)
        assert seen[0]['weights'] == pytest.approx(given['weights']['classifier.weight'].sum()
                                                   .item(), rel=1e-5)
        assert seen[1]['weights'] != seen[0]['weights']  # it learns
        assert all(each['training'] for each in seen)
    elif name == 'train_amn':
        assert seen[0]['labels'] == given['labels'].tolist()
    elif name == 'train_irn':
        assert {(each['radius'], each['return_loss']) for each in seen} == {(10, True)}
    else:
        assert [(each['image'], each['labels']) for each in seen[:2]] == [
            (given['image'].sum().item(), each.sum().item()) for each in given['labelings']]
        assert seen[0]['n'] == 3


@pytest.mark.parametrize('name', ['make_cam', 'make_amn_cam', 'train_cam'])
def test_weights_and_batches_are_those_of_our_case(args, monkeypatch, name):
    """What measure_case draws from the same seed."""
    drawn = {}

    def keep(args, net, *values, **named):
        drawn['weights'] = net.state_dict()
        if name == 'train_cam':
            drawn['image'] = benchmark.training_batch(args, 4)['image']
        return {}

    monkeypatch.setattr(benchmark, '_training_case' if name == 'train_cam' else '_inference_case',
                        keep)
    monkeypatch.setattr(benchmark.training, 'sgd', lambda *values: None)
    monkeypatch.setattr(Cam, 'parameter_groups', lambda self: (), raising=False)
    args.device = torch.device('cpu')
    torch.manual_seed(0)
    benchmark.CASES[name](args)
    given = benchmark.given_to_authors(name, args)
    assert all(torch.equal(given['weights'][key], value)
               for key, value in drawn['weights'].items())
    assert 'image' not in drawn or torch.equal(drawn['image'], given['image'])


@pytest.mark.parametrize(('name', 'file', 'text', 'why'), [
    ('walk', None, '', 'CUDA is hard-wired'),
    ('refine', 'misc/imutils.py', 'import pydensecrf_not_there', 'needs pydensecrf_not_there'),
    ('make_cam', 'net/resnet50_cam.py', 'class CAM:\n    def __init__(self):\n        1 / 0',
     'ZeroDivisionError: division by zero'),
    ('train_cam', 'net/resnet50_cam.py', 'import os\nos._exit(9)', 'ended with exit code 9'),
    ('score', None, '', 'nothing alike')])
def test_a_row_that_cannot_run_says_why(checkout, args, name, file, text, why):
    if file is not None:
        (checkout / file).write_text(text)
    assert benchmark.by_authors(name, args) == {'why_not': why}


def test_nothing_of_ours_answers_to_their_names(checkout, args, monkeypatch):
    """Where this project is installed, too, and their folders are no packages."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    for name in ('misc', 'net'):
        (checkout / name / '__init__.py').unlink()
    before = sorted(checkout.rglob('*'))
    assert benchmark.by_authors('train_cam', args)['seconds'] > 0
    assert sorted(checkout.rglob('*')) == sorted([*before, checkout / 'notes.jsonl'])


def test_other_weights_are_no_measurement(checkout, args, monkeypatch):
    monkeypatch.setattr(Cam, '__init__', lambda self, n_classes: (
        nn.Module.__init__(self), setattr(self, 'resnet50', nn.ModuleDict(
            {'conv1': nn.Conv2d(3, 4, 3, 4, 1)})), setattr(self, 'other', nn.Linear(1, 1)))[0])
    assert benchmark.by_authors('make_cam', args) == {
        'why_not': 'ValueError: its network has no other.weight'}


# what stands in their training loops, and is restated for them

class Given(nn.Module):
    """A network that gives what is told."""

    def __init__(self, given):
        super().__init__()
        self.given = given

    def forward(self, *inputs):
        return self.given

    def trainable_parameters(self):
        return [nn.Parameter(torch.ones(1))], [nn.Parameter(torch.ones(1))]


def restated(monkeypatch, case, args, outputs, **modules):
    """The loss of a case of benchmark_authors for these outputs of its network."""
    monkeypatch.setattr(benchmark_authors, '_steps', lambda net, optimizer, loss: loss())
    monkeypatch.setattr(benchmark_authors, 'network', lambda *values: Given(outputs))
    monkeypatch.setattr(benchmark_authors, 'sgd', lambda *values: None)
    monkeypatch.setattr(benchmark_authors, 'module',
                        lambda name, checkout: modules[name.rpartition('.')[2]])
    given = benchmark.given_to_authors(case, args) | {'device': 'cpu'}
    return benchmark_authors.CASES[case](given, None).item(), given['label_map']


def test_the_loss_of_amn_is_ours(args, monkeypatch):
    logits = torch.randn(2, 21, 4, 4)
    loss, label_map = restated(monkeypatch, 'train_amn', args, logits)
    assert loss == pytest.approx(losses.per_pixel_classification_loss(logits, label_map, 0.4)
                                 .item(), rel=1e-5)


def test_the_loss_of_irn_is_ours(args, monkeypatch):
    args.crop, radius, offsets = 128, 10, indexing.offsets(10)
    positions = torch.arange(32 * 32).view(32, 32)
    source, *ends = (indexing.shifted(positions, radius, step).flatten()
                     for step in ((0, 0), *offsets))
    ends = torch.stack(ends)
    edge, field = torch.rand(2, 1, 32, 32), torch.randn(2, 2, 32, 32)
    affinity = benchmark.indexed_affinities(edge)
    moved = field.flatten(2)[..., source][:, :, None] - field.flatten(2)[..., ends]
    outputs = (-(affinity + 1e-5).log(), -(1 + 1e-5 - affinity).log(),
               (moved - torch.tensor(offsets).T[None, ..., None]).abs(), moved.abs())
    index = argparse.Namespace(src_indices=source.numpy(), dst_indices=ends.numpy())
    loss, label_map = restated(monkeypatch, 'train_irn', args, outputs, indexing=argparse.Namespace(
        PathIndex=lambda radius, default_size: index))
    assert loss == pytest.approx(losses.irn_loss(losses.affinity_losses(edge, field, label_map))
                                 .item(), rel=1e-5)


# what is said of it


def test_the_table_has_their_columns(checkout, args, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, 'matrix_rate', lambda args: 1.0)
    monkeypatch.setattr(benchmark, 'copy_rate', lambda args: 1.0)
    monkeypatch.setattr(benchmark, 'by_authors', lambda name, args: {
        'refine': {'seconds': 1e6}, 'walk': {'why_not': 'CUDA is hard-wired'}}[name])
    path = checkout / 'out.json'
    for name, value in {'stages': ['refine', 'walk'], 'precision': 'fp32', 'num_workers': 0,
                        'no_plain': True, 'json': str(path)}.items():
        setattr(args, name, value)
    benchmark.run(args)
    header, _, refine, walk = [line for line in capsys.readouterr().out.splitlines()
                               if not line.startswith(('x86', 'AMD', 'Intel'))][-4:]
    assert header.split()[-6:] == ['authors', 's', 'times,', 'or', 'why', 'not']
    assert refine.split()[-2] == '1000000.000'
    assert float(refine.split()[-1]) > 1e6
    assert walk.endswith('-  CUDA is hard-wired')
    stored = json.loads(path.read_text())['stages']
    assert [each['authors'] for each in stored] == [{'seconds': 1e6},
                                                    {'why_not': 'CUDA is hard-wired'}]


def test_a_folder_that_is_no_checkout_is_refused(args, tmp_path):
    args.against, args.precision, args.stages = str(tmp_path), 'fp32', []
    with pytest.raises(UserError, match="no checkout of the authors' code"):
        benchmark.run(args)
