"""Weights in and out: ours, the authors', ImageNet's, and files that are none."""
import builtins
import os
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from misc.files import records, weights
from misc.pyutils import UserError


class Small(nn.Module):
    """A network with the interface that `weights` uses."""

    aliases = {'stage1.0.': 'resnet50.0.', 'stage1.1.': 'resnet50.1.',
               'newly_added.0.': 'classifier.'}
    class_key = ('classifier.weight', 0)

    def __init__(self, n_classes=3):
        super().__init__()
        self.resnet50 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.resnet50.torchvision_name = 'resnet50'
        self.classifier = nn.Conv2d(4, n_classes, 1, bias=False)


def load(path, n_classes=3):
    net = Small(n_classes)
    return weights.load_checkpoint(net, path, 'run --train_cam_pass True first'), net.state_dict()


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_round_trip_and_the_same_bytes_twice(tmp_path):
    net = Small()
    weights.save_state(net, tmp_path / 'a.pth')
    weights.save_state(net, tmp_path / 'b.pth')
    assert (tmp_path / 'a.pth').read_bytes() == (tmp_path / 'b.pth').read_bytes()
    digest, state = load(tmp_path / 'a.pth')
    assert_equal(state, net.state_dict())
    assert digest == weights.digest(net.state_dict())
    assert digest != weights.digest(Small().state_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'b.pth']


def test_the_memory_layout_of_a_tensor_does_not_change_the_file(tmp_path):
    net = Small().to(memory_format=torch.channels_last)
    same = Small()
    same.load_state_dict(net.state_dict())
    for name, one in (('a', net), ('b', same)):
        weights.save_state(one, tmp_path / name)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
    assert weights.digest(net.state_dict()) == weights.digest(same.state_dict())


def test_the_authors_files_load(tmp_path):
    """Every tensor under several names, 'module.', tables of indices, no counters, and the name
    with two endings.
    """
    state = Small().state_dict()
    theirs = {key: value for key, value in state.items() if not key.endswith('num_batches_tracked')}
    theirs |= {'stage1.0.weight': state['resnet50.0.weight'],
               'newly_added.0.weight': state['classifier.weight'],
               'path_indices_3': torch.zeros(4, dtype=torch.int64),
               'aff.path_indices_0': torch.zeros(2), 'disp_target': torch.zeros(3)}
    torch.save({f'module.{key}': value for key, value in theirs.items()},
               tmp_path / 'res50_cam.pth.pth')
    digest, ours = load(tmp_path / 'res50_cam.pth')
    assert_equal(ours, state)
    assert digest == weights.digest(state)


def test_aliases_alone_are_enough(tmp_path):
    state = Small().state_dict()
    torch.save({key.replace('resnet50.', 'stage1.').replace('classifier.', 'newly_added.0.'): value
                for key, value in state.items()}, tmp_path / 'a.pth')
    assert_equal(load(tmp_path / 'a.pth')[1], state)


def test_the_plain_name_comes_before_the_double_ending(tmp_path):
    first, second = Small(), Small()
    weights.save_state(first, tmp_path / 'a.pth')
    weights.save_state(second, tmp_path / 'a.pth.pth')
    assert_equal(load(tmp_path / 'a.pth')[1], first.state_dict())


def test_another_class_count_is_refused_with_both(tmp_path):
    weights.save_state(Small(80), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='a.pth: trained for 80 classes, this data set has 20'):
        load(tmp_path / 'a.pth', 20)


def test_names_of_classes_are_compared_where_a_record_tells_them(tmp_path):
    weights.save_state(Small(), tmp_path / 'a.pth')

    def loads(classes):
        return weights.load_checkpoint(Small(), tmp_path / 'a.pth', '', classes)

    assert loads(('cat', 'dog', 'bird'))  # no record
    records.write_json(tmp_path / 'a.json', {'classes': ['bird', 'cat', 'dog']})
    assert loads(('bird', 'cat', 'dog'))
    with pytest.raises(UserError, match="a.pth: trained for other classes: number 2 of 3 is 'cat' "
                                        "there and 'dog' in this"):
        loads(('bird', 'dog', 'cat'))
    with pytest.raises(UserError, match='a.pth: trained for 3 classes, this data set has 2'):
        loads(('bird', 'cat'))
    records.write_json(tmp_path / 'a.json', {'stage': 'train_irn'})  # knows no classes
    assert loads(('cat',))


@pytest.mark.parametrize('name', ['cam', 'amn'])
def test_another_class_count_of_the_real_networks(name, formula_weights):
    import importlib
    with torch.device('meta'):
        net = importlib.import_module(f'net.resnet50_{name}').Net(7)
    with pytest.raises(UserError, match='trained for 20 classes, this data set has 7'):
        weights.load_checkpoint(net, formula_weights / f'res50_{name}.pth', '')


def test_other_networks_are_refused(tmp_path):
    torch.save({'resnet50.0.weight': torch.zeros(4, 3, 1, 1), 'fc.weight': torch.zeros(2)},
               tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'a.pth: not the weights of tests.test_weights: 6 tensors '
                                        r'missing \(first: '
                                        r'resnet50.0.bias\), 1 unknown \(first: fc.weight\)'):
        load(tmp_path / 'a.pth')
    state = Small().state_dict()
    torch.save(state | {'resnet50.0.bias': torch.zeros(5)}, tmp_path / 'b.pth')
    with pytest.raises(UserError, match=r'b.pth: resnet50.0.bias is \(5,\), .* needs \(4,\)'):
        load(tmp_path / 'b.pth')


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f'touch {self.target}',)


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(UserError, match='a.pth: no such weights; run --train_cam_pass True first'):
        load(tmp_path / 'a.pth')
    weights.save_state(Small(), tmp_path / 'a.pth')
    whole = (tmp_path / 'a.pth').read_bytes()
    for broken in (b'', b'text', b'\x80\x02\x8a', b'0', b'}h\x05', bytes(range(256)), whole[:10],
                   whole[:-100]):
        (tmp_path / 'a.pth').write_bytes(broken)
        with pytest.raises(UserError, match='a.pth: not a readable state dict') as caught:
            load(tmp_path / 'a.pth')
        assert '\n' not in str(caught.value)
    for content in ([1, 2], {'epoch': 3}):
        torch.save(content, tmp_path / 'a.pth')
        with pytest.raises(UserError, match='a.pth: not a state dict'):
            load(tmp_path / 'a.pth')


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    target = tmp_path / 'it_ran'
    torch.save({'a': Hostile(target)}, tmp_path / 'a.pth')
    (tmp_path / 'b.pth').write_bytes(pickle.dumps(Hostile(target)))
    for name in ('a.pth', 'b.pth'):
        with pytest.raises(UserError, match=f'{name}: not a readable state dict'):
            load(tmp_path / name)
    assert not target.exists()


def test_a_checkpoint_in_bfloat16_loads(tmp_path):
    state = {key: value.bfloat16() if value.is_floating_point() else value
             for key, value in Small().state_dict().items()}
    torch.save(state, tmp_path / 'a.pth')
    ours = load(tmp_path / 'a.pth')[1]
    assert all(torch.equal(ours[key], state[key].to(ours[key].dtype)) for key in ours)


def backbone_state(half=False):
    backbone = Small().resnet50
    with torch.no_grad():
        backbone[0].weight.copy_(torch.randn(4, 3, 1, 1).half())
    return {key: value.half() if half and value.is_floating_point() else value
            for key, value in backbone.state_dict().items()}


@pytest.mark.parametrize('half', [False, True])
def test_pretrained_from_a_file(tmp_path, half):
    state = backbone_state(half)
    stored = {key: value for key, value in state.items() if 'num_batches' not in key}
    torch.save(stored | {'fc.weight': torch.zeros(1000, 4), 'fc.bias': torch.zeros(1000)},
               tmp_path / 'resnet50.pth')
    backbone = Small().resnet50
    digest = weights.load_pretrained(backbone, str(tmp_path / 'resnet50.pth'))
    assert len(digest) == 16
    assert weights.load_pretrained(Small().resnet50, str(tmp_path / 'resnet50.pth')) == digest
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key].to(value.dtype))
        assert value.dtype != torch.float16


def test_pretrained_none_leaves_the_backbone():
    backbone = Small().resnet50
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert weights.load_pretrained(backbone, 'none') == 'none'
    assert_equal(backbone.state_dict(), before)


def test_pretrained_of_another_network_is_refused(tmp_path):
    torch.save({'0.weight': torch.zeros(4, 3, 1, 1)}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match="a.pth: not the weights of torchvision's ResNet-50: 5 "
                                        "tensors missing"):
        weights.load_pretrained(Small().resnet50, str(tmp_path / 'a.pth'))
    with pytest.raises(UserError, match='nothing.pth: neither imagenet nor none, and no such file'):
        weights.check_pretrained('nothing.pth')


@pytest.mark.parametrize('kind', [ImportError, RuntimeError])
def test_imagenet_without_a_torchvision_that_fits(monkeypatch, kind):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith('torchvision'):
            raise kind('operator torchvision::nms does not exist\nmore')
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, '__import__', refuse)
    for use in (weights.check_pretrained,
                lambda choice: weights.load_pretrained(Small().resnet50, choice)):
        with pytest.raises(UserError,
                           match='--pretrained imagenet needs a torchvision that fits') as caught:
            use('imagenet')
        assert '\n' not in str(caught.value)


def torchvision_with(monkeypatch, get_state_dict):
    first = SimpleNamespace(get_state_dict=get_state_dict)
    models = SimpleNamespace(ResNet50_Weights=SimpleNamespace(IMAGENET1K_V1=first))
    monkeypatch.setitem(sys.modules, 'torchvision', SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, 'torchvision.models', models)


def test_imagenet_is_torchvisions_first_set(monkeypatch):
    state = backbone_state()
    torchvision_with(monkeypatch, lambda progress: state | {'fc.weight': torch.zeros(2)})
    weights.check_pretrained('imagenet')
    backbone = Small().resnet50
    weights.load_pretrained(backbone, 'imagenet')
    assert_equal(backbone.state_dict(), state)


def test_imagenet_without_a_connection(monkeypatch):
    def get_state_dict(progress):
        raise OSError('<urlopen error no route>')

    torchvision_with(monkeypatch, get_state_dict)
    with pytest.raises(UserError,
                       match='torchvision cannot fetch its weights .*no route.*--pretrained FILE'):
        weights.load_pretrained(Small().resnet50, 'imagenet')


def test_a_disk_that_refuses(tmp_path):
    (tmp_path / 'sess').write_text('a file')
    with pytest.raises(UserError, match='cannot write .*sess/a.pth'):
        weights.save_state(Small(), tmp_path / 'sess' / 'a.pth')
