"""Every network against the authors': key names, aliases, forward passes."""
import json

import pytest
import torch

from misc.files import weights
from net import resnet50_amn
from net.resnet50 import FixedBatchNorm
from tests import authors, tolerances

META = json.loads((authors.GOLDEN / 'meta.json').read_text())['networks']
NETWORKS = authors.NETWORKS


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


@pytest.mark.golden
@pytest.mark.parametrize('name', NETWORKS)
def test_golden_forward(name):
    assert not tolerances.exceeded(authors.forward(name, authors.formula_net(name).eval()),
                                   tolerances.FORWARD['fp32'])


@pytest.mark.parametrize('mode', [pytest.param('fp32', marks=pytest.mark.golden), 'tf32',
                                  pytest.param('bf16', marks=pytest.mark.golden)])
@pytest.mark.parametrize('name', NETWORKS)
def test_prepared_for_inference_computes_the_same(name, mode):
    net = authors.prepared(name, authors.CPU, mode)
    assert not any(isinstance(module, FixedBatchNorm) for module in net.modules())
    assert not tolerances.exceeded(authors.forward(name, net, mode=mode), tolerances.FORWARD[mode])


@pytest.mark.parametrize('mode', ['fp32', 'tf32', 'bf16', 'fp16'])
def test_the_golden_forward_passes_see_a_layer_left_out(mode):
    net = authors.prepared('cam', authors.CPU, 'fp32')
    net.resnet50.layer3[5] = torch.nn.Identity()
    assert tolerances.exceeded(authors.forward('cam', net), tolerances.FORWARD[mode])


def test_amn_without_label_conditioning_does_not_look_at_the_labels():
    torch.manual_seed(0)
    net = resnet50_amn.Net(20, label_conditioning=False).eval()
    assert not any(key.startswith('label_enc') for key in net.state_dict())
    x, y = torch.randn(1, 3, 33, 33), torch.zeros(1, 20)
    with torch.no_grad():
        assert torch.equal(net(x, y), net(x, 1 - y))
    assert len(net.parameter_groups()[1]) == 8  # four convolutions with bias
