"""Every network against the authors': key names, aliases, forward passes."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from misc import networks, torchutils
from misc.files import weights
from net import resnet50_amn, resnet50_cam, resnet50_irn
from net.resnet50 import FixedBatchNorm
from tests.formula import formula

GOLDEN = Path(__file__).parent / 'golden'
NETWORKS = {'cam': resnet50_cam, 'amn': resnet50_amn, 'irn': resnet50_irn}
META = json.loads((GOLDEN / 'meta.json').read_text())['networks']


def formula_net(name, n_classes=20):
    net = NETWORKS[name].Net(n_classes)
    net.load_state_dict({key: torch.from_numpy(np.asarray(formula(key, tuple(value.shape))))
                         for key, value in net.state_dict().items()})
    return net.eval()


@pytest.fixture(scope='module')
def golden():
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / 'forward.npz').items()}


def assert_close(ours, golden, tolerance=1e-5):
    assert ours.shape == golden.shape
    assert (ours - golden).abs().max() <= tolerance * golden.abs().max()


@pytest.mark.parametrize('name', NETWORKS)
def test_keys_and_shapes_are_the_authors(name):
    net = NETWORKS[name].Net(20)
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == META[name]['keys']


@pytest.mark.parametrize('name', NETWORKS)
def test_every_alias_leads_to_its_canonical_name(name):
    net = NETWORKS[name].Net(20)
    for alias, key in META[name]['aliases'].items():
        value = torch.rand(1)
        assert weights.canonical({alias: value}, net)[key] is value


@torch.no_grad()
def test_golden_features(golden):
    features = formula_net('cam').resnet50(golden['x'])
    assert_close(features[:, ::64], golden['features_every_64th_channel'])
    assert_close(torch.stack([features.mean(), features.std(), features.max()]), golden['features_stat'])


@torch.no_grad()
def test_golden_cam(golden):
    net = formula_net('cam')
    assert_close(net(golden['x']), golden['cam_logits'])
    pair = net.activations(torch.stack([golden['x'][0], golden['x'][0].flip(-1)]))
    assert_close(pair[0] + pair[1].flip(-1), golden['cam_pair'])


@torch.no_grad()
def test_golden_amn(golden):
    net = formula_net('amn')
    assert_close(net(golden['x'], golden['y']), golden['amn_logits'])
    pair = net(torch.stack([golden['x'][0], golden['x'][0].flip(-1)]), golden['y'][:1].expand(2, -1))
    assert_close((pair[0] + pair[1].flip(-1)) / 2, golden['amn_pair'])


@torch.no_grad()
def test_golden_irn(golden):
    edge, displacement = formula_net('irn')(golden['x'])
    assert_close(edge, golden['irn_edge'])
    assert_close(displacement, golden['irn_displacement'])


@torch.no_grad()
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_prepared_for_inference_computes_the_same(golden, precision):
    net = formula_net('cam')
    before = net.activations(golden['x'])
    networks.prepare(net, torch.device('cpu'), precision)
    assert not any(isinstance(module, FixedBatchNorm) for module in net.modules())
    with torchutils.autocast(precision, torch.device('cpu')):
        after = net.activations(golden['x'])
    assert_close(after.float(), before, {'fp32': 1e-5, 'bf16': 3e-2}[precision])


def test_amn_without_label_conditioning_does_not_look_at_the_labels():
    torch.manual_seed(0)
    net = resnet50_amn.Net(20, label_conditioning=False).eval()
    assert not any(key.startswith('label_enc') for key in net.state_dict())
    x, y = torch.randn(1, 3, 33, 33), torch.zeros(1, 20)
    with torch.no_grad():
        assert torch.equal(net(x, y), net(x, 1 - y))
    assert len(net.parameter_groups()[1]) == 8  # four convolutions with bias
