"""Networks of timm as the backbone of CAM and AMN: the contract of net/__init__.py, weights from
files, and what is refused. Where timm does not import, only the refusals are tested.
"""
import json
import sys

import numpy as np
import pytest
import torch

from misc import networks
from misc.files import weights
from misc.pyutils import UserError
from net import resnet50_cam
from tests.tiny import QUICK

# What they are, and the stride that they can have.
NETWORKS = {'test_resnet': 16, 'test_convnext': 16, 'test_efficientnet': 16, 'test_vit': 16,
            'swin_tiny_patch4_window7_224': 32}


@pytest.fixture(scope='module')
def timm():
    return pytest.importorskip('timm', exc_type=(ImportError, RuntimeError))


@pytest.mark.parametrize('name', NETWORKS)
def test_the_contract(timm, name):
    torch.manual_seed(0)
    backbone = networks.backbone_named(f'timm:{name}')
    stride = backbone.stride
    assert stride == NETWORKS[name]
    for hw in ((65, 97), (64, 96), (33, 129)):
        features = backbone(torch.randn(2, 3, *hw))
        assert features.shape == (2, backbone.channels, *(-(-side // stride) for side in hw))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.train()(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())

    trained = [sum(each.requires_grad for each in backbone.parameters())]
    for layers in range(5):
        backbone.freeze(layers)
        trained.append(sum(each.requires_grad for each in backbone.parameters()))
    assert trained == sorted(set(trained), reverse=True)  # each freezes some, the stem too
    backbone = networks.backbone_named(f'timm:{name}')
    backbone.freeze(2)
    backbone(torch.randn(1, 3, 64, 64)).square().sum().backward()
    for key, each in backbone.named_parameters():
        assert (each.grad is not None) == each.requires_grad, key  # none is waited for in vain


@pytest.mark.parametrize('name', ['test_resnet', 'test_vit'])
def test_weights_from_a_file(timm, tmp_path, name):
    """With timm's names and its head, or the backbone's own."""
    whole = timm.create_model(name, pretrained=False)
    torch.save(whole.state_dict(), tmp_path / 'whole.pth')
    net = resnet50_cam.Net(3, backbone=networks.backbone_named(f'timm:{name}'))
    digest = weights.load_pretrained(net.resnet50, str(tmp_path / 'whole.pth'))
    for key, value in whole.state_dict().items():
        if key in net.resnet50.body.state_dict():
            assert torch.equal(net.resnet50.body.state_dict()[key], value)
    weights.save_state(net.resnet50, tmp_path / 'own.pth')
    other = networks.backbone_named(f'timm:{name}')
    assert weights.load_pretrained(other, str(tmp_path / 'own.pth')) == digest
    torch.save({'conv1.weight': torch.zeros(1)}, tmp_path / 'wrong.pth')
    with pytest.raises(UserError, match=f'not the weights of timm:{name}: '):
        weights.load_pretrained(other, str(tmp_path / 'wrong.pth'))
    with pytest.raises(UserError, match='give none, or a file with its own names'):
        weights.load_pretrained(other, 'imagenet')


def test_cam_and_amn_on_it(timm, command):
    flags = QUICK | {'cam_network': 'net.resnet50_cam', 'amn_network': 'net.resnet50_amn',
                     'backbone': 'timm:test_vit'}
    assert command('train_cam', 'make_cam', 'cam_to_ir_label', 'train_amn', 'make_amn_cam',
                   **flags) == 0
    stored = np.load(next((command.folder / 'amn_cam').glob('*.npz')))
    assert np.isfinite(stored['high_res']).all()
    record = json.loads((command.folder / 'amn.json').read_text())
    assert record['backbone'] == 'timm:test_vit'
    assert command('make_cam', **flags | {'backbone': 'timm:test_resnet'}) == 1


@pytest.mark.parametrize(('name', 'told'), [
    ('resnet_18', 'timm has no network of this name'), ('local-dir:.', 'no network of this name'),
    ('hf-hub:timm/resnet18', 'no network of this name'), ('resnet1', 'this name: .*resnet1.*'),
    ('gmlp_ti16_224', 'gmlp_ti16_224: does not take images of any size: ')])
def test_networks_that_are_refused(timm, name, told):
    with pytest.raises(UserError, match=told):
        networks.backbone_named(f'timm:{name}')


def test_without_timm(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'timm', None)
    assert command('train_cam', **QUICK, backbone='timm:resnet18') == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('error: --backbone timm:resnet18: cannot be imported (')
    assert 'pip install timm' in line


def test_the_code_of_a_network_of_timm_counts():
    assert networks.code_of('timm:a') == networks.code_of('timm:b') != networks.code_of()
    assert networks.code_of('timm:a') == networks.code_of('net.timm_backbone')


def test_weights_that_are_to_start_two_networks(command, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(networks, 'module_of', lambda *told: None)
    (tmp_path / 'vit.pth').touch()
    flags = QUICK | {'backbone': 'timm:test_vit', 'pretrained': tmp_path / 'vit.pth'}
    assert command('train_amn', 'train_irn', **flags) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert 'starts --backbone timm:test_vit, and train_irn another network' in line
    assert 'in a second command' in line
