"""Every network against the authors': key names, aliases, forward passes; the digest of code."""
import ast
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from misc import networks
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


def test_the_digest_of_code_covers_what_a_module_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'own_layers.py').write_text('import own_constants\n\nlayer = own_constants\n')
    (tmp_path / 'own_constants.py').write_text('A = None\n')
    (tmp_path / 'own_net.py').write_text('"""A net."""\nfrom own_layers import layer\n')
    first = networks.code_of('own_net')
    assert first.startswith('2:')
    (tmp_path / 'own_net.py').write_text('"""Another."""\nfrom own_layers import layer  # here\n')
    assert networks.code_of('own_net') == first
    (tmp_path / 'own_constants.py').write_text('A = 0\n')
    assert networks.code_of('own_net') != first
    (tmp_path / 'own_constants.py').write_text('A = None\n')
    assert networks.code_of('own_net') == first
    for name in ('own_net', 'own_layers', 'own_constants'):
        del sys.modules[name]


@pytest.mark.parametrize(('name', 'imported'), [
    ('net.resnet50_amn', {'net.resnet50', 'net.resnet50_cam'}),
    ('misc.method.losses', {'misc.indexing'}),
    ('misc.method.objectives', {'misc.method', 'misc.method.losses', 'misc.method.segmentation'})])
def test_modules_whose_code_makes_content(name, imported):
    module = importlib.import_module(name)
    tree = ast.parse(Path(module.__file__).read_text(encoding='utf-8'))
    assert {other.__name__ for other in networks._imported(module, tree)} == imported
