"""The segmentation network against a plain written-out version; its loss, rates, crops, scales; its
stages by the command.
"""
import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from misc import imutils, inference, networks, training
from misc.command import options, preflight
from misc.contract.settings import SegForm, SegTraining
from misc.data import datasets
from misc.draw import drawing
from misc.files import label_maps, weights
from misc.method import crf, losses, objectives, segmentation
from misc.pyutils import UserError
from net import resnet50_deeplab, resnet101_deeplab
from step import make_seg, segment, train_seg
from step.pipeline import STAGES
from tests.conftest import GOLDEN, Command, formula_state, job_of, told
from tests.test_datasets import Coordinates
from tests.tiny import QUICK
from tests.tiny.seg import Net as TinyNet
from voc12.dataloader import VOC12

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device('cpu')
IDS = [f'2007_00000{number}' for number in range(1, 5)]
TOLD = told(SegTraining, learning_rate=0.01, weight_decay=0.1, momentum=0.9, loss='balanced',
            scales=(1.0, 0.75, 0.5))


class Small(resnet101_deeplab.DeepLab):
    blocks = (1, 1, 2, 1)


STATE = functools.cache(lambda: formula_state(Small(3)))


def small(**form):
    net = Small(3, **form)
    net.load_state_dict(STATE())
    return net


# the network

def plain(state, x, caffe):
    """DeepLab-V2 written out: every convolution with its own stride, padding and dilation."""
    def conv(x, name, stride=1, padding=0, dilation=1):
        return F.conv2d(x, state[f'{name}.weight'], state.get(f'{name}.bias'), stride, padding,
                        dilation)

    def norm(x, name):
        mean, var, weight, bias = (state[f'{name}.{what}'].view(1, -1, 1, 1)
                                   for what in ('running_mean', 'running_var', 'weight', 'bias'))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = norm(conv(x, 'backbone.conv1', 2, 3), 'backbone.bn1').relu()
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=caffe)
    for layer, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), start=1):
        for block in range(Small.blocks[layer - 1]):
            name, s = f'backbone.layer{layer}.{block}', stride if block == 0 else 1
            shortcut = (norm(conv(x, f'{name}.downsample.0', s), f'{name}.downsample.1')
                        if block == 0 else x)
            y = norm(conv(x, f'{name}.conv1', s if caffe else 1), f'{name}.bn1').relu()
            y = norm(conv(y, f'{name}.conv2', 1 if caffe else s, dilation, dilation),
                     f'{name}.bn2').relu()
            x = (norm(conv(y, f'{name}.conv3'), f'{name}.bn3') + shortcut).relu()
    return sum(conv(x, f'classifier.c{number}', 1, d, d)
               for number, d in enumerate((6, 12, 18, 24)))


def image_batch(hw=(41, 33), number=2):
    return torch.from_numpy(np.random.default_rng(1).standard_normal((number, 3,
                                                                      *hw)).astype(np.float32))


@pytest.mark.golden
@torch.no_grad()
@pytest.mark.parametrize('caffe', [False, True])
@pytest.mark.parametrize(('hw', 'out'), [((41, 33), (6, 5)), ((40, 31), (5, 4)), ((1, 1), (1, 1))])
def test_forward_is_the_plain_version(caffe, hw, out):
    net = small(stride_first=caffe, ceil_mode=caffe)
    ours, theirs = net(image_batch(hw)), plain(net.state_dict(), image_batch(hw), caffe)
    assert ours.shape == theirs.shape
    if not caffe:
        assert ours.shape == (2, 4, *out)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_depths_key_names_and_what_is_trained():
    with torch.device('meta'):
        for module, name, convolutions in ((resnet101_deeplab, 'resnet101', 104),
                                           (resnet50_deeplab, 'resnet50', 53)):
            net = module.Net(20)
            assert net.backbone.torchvision_name == name
            backbone, head_weights, head_biases = net.parameter_groups()
            assert len(backbone) == convolutions  # no weight or bias of a norm
            assert all(parameter.dim() == 4 for parameter in backbone)
            assert [parameter.shape for parameter in head_weights] == [(21, 2048, 3, 3)] * 4
            assert [parameter.shape for parameter in head_biases] == [(21,)] * 4
            keys = net.backbone.state_dict()
            assert {'conv1.weight', 'bn1.running_var', 'layer3.5.conv2.weight',
                    'layer4.0.downsample.1.bias'} <= keys.keys()
            assert ('layer3.22.conv1.weight' in keys) == (name == 'resnet101')
            for layer, dilation in ((net.backbone.layer3, 2), (net.backbone.layer4, 4)):
                assert {block.conv2.dilation for block in layer} == {(dilation, dilation)}
                assert {block.conv2.stride for block in layer} == {(1, 1)}


def test_weights_of_another_depth_are_refused(tmp_path):
    net = small()
    torch.save({'fc.weight': torch.zeros(2), **net.backbone.state_dict()},
               tmp_path / 'backbone.pth')
    assert len(weights.load_pretrained(Small(3).backbone, str(tmp_path / 'backbone.pth'))) == 16
    with pytest.raises(UserError, match="not the weights of torchvision's ResNet-50: .* missing "
                                        ".*layer1.1.conv1.weight"):
        weights.load_pretrained(resnet50_deeplab.Net(3).backbone, str(tmp_path / 'backbone.pth'))


def converted(key):
    """torchvision's name -> kazuto1011/deeplab-pytorch's, written the other way round."""
    parts = key.split('.')
    if len(parts) == 2:
        return f'layer1.conv1.{parts[0][:-1]}.{parts[1]}'
    layer, block, inside = int(parts[0][-1]) + 1, int(parts[1]) + 1, parts[2]
    if inside == 'downsample':
        name = f'shortcut.{"bn" if parts[3] == "1" else "conv"}'
    else:
        name = f'{["reduce", "conv3x3", "increase"][int(inside[-1]) - 1]}.{inside[:-1]}'
    return f'layer{layer}.block{block}.{name}.{parts[-1]}'


@pytest.mark.parametrize('beginning',
                         ['', 'base.', 'scale.', 'module.scale.', 'scale.module.base.'])
def test_converted_caffe_weights_load(beginning, tmp_path):
    state = small().backbone.state_dict()
    assert converted('bn1.running_mean') == 'layer1.conv1.bn.running_mean'
    assert converted('layer3.1.conv2.weight') == 'layer4.block2.conv3x3.conv.weight'
    assert converted('layer4.0.downsample.1.bias') == 'layer5.block1.shortcut.bn.bias'
    heads = {f'{beginning}{name}': torch.zeros(2)
             for name in ('aspp.c0.weight', 'fc.bias', 'aspp.stages.c1.bias')}
    torch.save(heads | {beginning + converted(key): value for key, value in state.items()},
               tmp_path / 'caffe.pth')
    backbone = Small(3, stride_first=True, ceil_mode=True).backbone
    assert weights.load_pretrained(backbone, str(tmp_path / 'caffe.pth')) == weights.digest(state)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
    torch.save({'layer1.conv1.norm.weight': torch.zeros(2)} | state, tmp_path / 'other.pth')
    with pytest.raises(UserError, match='1 unknown .first: layer1.conv1.norm.weight'):
        weights.load_pretrained(backbone, str(tmp_path / 'other.pth'))


def test_the_depth_is_checked_before_the_first_stage(command, tmp_path, capsys):
    torch.save(small().backbone.state_dict(), tmp_path / 'backbone.pth')
    assert command('train_seg', pretrained=tmp_path / 'backbone.pth', seg_batch_size=4,
                   seg_label_dir=command.tree / 'SegmentationClass') == 1
    assert "not the weights of torchvision's ResNet-101" in capsys.readouterr().err
    assert not command.folder.exists()


def test_another_number_of_classes_is_refused(tmp_path):
    weights.save_state(TinyNet(5), tmp_path / 'seg.pth')
    with pytest.raises(UserError, match='trained for 5 classes, this data set has 20'):
        weights.load_checkpoint(TinyNet(20), tmp_path / 'seg.pth', '')


@torch.no_grad()
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_prepared_for_inference_computes_the_same(precision):
    net, x = small(), image_batch(number=1)
    before = segmentation.predict(net, x, [1.0, 0.5], True, CPU, 'fp32')
    networks.prepare(net, CPU, precision)
    after = segmentation.predict(net, x, [1.0, 0.5], True, CPU, precision)
    assert (after - before).abs().max() <= {'fp32': 1e-4,
                                            'bf16': 5e-2}[precision] * before.abs().max()


# scales

@torch.no_grad()
def test_the_maximum_over_the_scales():
    net, x = small(), image_batch()
    one, three_quarters, half = (net(x if scale == 1 else F.interpolate(
        x, scale_factor=scale, mode='bilinear', align_corners=False)) for scale in (1, 0.75, 0.5))
    outputs = segmentation.at_scales(net, x, [1.0, 0.75, 0.5])
    assert [tuple(logits.shape[2:]) for logits in outputs] == [(6, 5), (4, 3), (3, 2), (6, 5)]
    for ours, theirs in zip(outputs, (one, three_quarters, half), strict=False):
        torch.testing.assert_close(ours, theirs)
    resized = [F.interpolate(logits, (6, 5), mode='bilinear', align_corners=False)
               for logits in (three_quarters, half)]
    expected = torch.maximum(torch.maximum(one, resized[0]), resized[1])
    torch.testing.assert_close(outputs[-1], expected)
    assert ((expected > one) & (expected == resized[1])).any()
    assert len(segmentation.at_scales(net, x, [1.0])) == 1
    # in any order
    torch.testing.assert_close(segmentation.at_scales(net, x, [0.5, 1.0, 0.75])[-1], expected)


def test_the_gradient_of_equal_maxima_goes_to_one_of_them():
    net = torch.nn.Conv2d(3, 2, 1)
    x = torch.ones(1, 3, 4, 4)
    outputs = segmentation.at_scales(net, x, [1.0, 1.0])
    for logits in outputs[:2]:
        logits.retain_grad()
    outputs[-1].sum().backward()
    assert sorted(logits.grad.unique().tolist() for logits in outputs[:2]) == [[0.0], [1.0]]


def test_shrinking_samples_at_exactly_the_scale():
    x = torch.arange(10.).view(1, 1, 1, 10).expand(1, 3, 4, 10)
    assert torch.equal(segmentation.shrink(x, 0.5)[0, 0, 0],
                       torch.tensor([0.5, 2.5, 4.5, 6.5, 8.5]))
    assert segmentation.shrink(x[..., :9], 0.5)[0, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert segmentation.shrink(x[..., :1, :1], 0.5).shape == (1, 3, 1, 1)
    assert segmentation.shrink(x, 1.0) is x


@torch.no_grad()
def test_flip_is_the_mean_with_the_mirror():
    net, x = small(), image_batch(number=1)
    mirrored = segmentation.at_scales(net, x.flip(-1), [1.0, 0.5])[-1].flip(-1)
    expected = (segmentation.at_scales(net, x, [1.0, 0.5])[-1] + mirrored)[0] / 2
    torch.testing.assert_close(segmentation.predict(net, x, [1.0, 0.5], True, CPU, 'fp32'),
                               expected, rtol=1e-4, atol=1e-4)


def test_label_map_and_probabilities_of_logits():
    logits = torch.tensor([[[0., 4.]], [[1.5, 1.5]]])  # two classes with background, 1 x 2
    # bilinear: 0 1 3 4 against 1.5
    assert segmentation.label_map(logits, (1, 4)).tolist() == [[1, 1, 0, 0]]
    assert segmentation.label_map(logits, (1, 4)).dtype == torch.uint8
    one = segmentation.probabilities(logits, (1, 4))[0, 0]
    torch.testing.assert_close(one, torch.sigmoid(torch.tensor([-1.5, -0.5, 1.5, 2.5])))


# learning

def test_rates_at_steps_by_hand():
    rate = [training.polynomial_by_tens(step, 20_000) for step in (0, 9, 10, 19_999)]
    assert rate[:2] == [1, 1]
    assert rate[2] == pytest.approx(0.9995 ** 0.9, rel=1e-12)  # 1 - 10/20000
    assert rate[3] == pytest.approx(0.0005 ** 0.9, rel=1e-9)  # i = 19,990


def test_learning_rate_groups():
    net = small()
    groups = train_seg.sgd(net, told(SegTraining)).param_groups
    assert [(group['lr'], group['weight_decay'], group['momentum']) for group in groups] == [
        (2.5e-4, 5e-4, 0.9), (pytest.approx(2.5e-3), 5e-4, 0.9), (pytest.approx(5e-3), 0, 0.9)]
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    taken = [{names[id(parameter)] for parameter in group['params']} for group in groups]
    assert 'backbone.conv1.weight' in taken[0]
    assert not any('bn' in name or 'downsample.1' in name for name in taken[0])
    assert taken[1] == {f'classifier.c{number}.weight' for number in range(4)}
    assert taken[2] == {f'classifier.c{number}.bias' for number in range(4)}


def test_nearest_is_pils():
    rng = np.random.default_rng(0)
    for side, target in ((321, 41), (321, 31), (321, 21), (64, 8), (10, 3), (1, 1), (30, 7),
                         (7, 30)):
        line = rng.permutation(400)[:side].astype(np.uint8)
        assert np.array_equal(line[label_maps.nearest(side, target)],
                              label_maps.resize(line[None], (1, target))[0])
    label_map = torch.from_numpy(rng.integers(0, 21, (2, 50, 30)))
    for one, expected in zip(segmentation.resized(label_map, (7, 4)), label_map, strict=True):
        assert np.array_equal(one, label_maps.resize(expected.numpy().astype(np.uint8), (7, 4)))


def label_batch(hw=(41, 33)):
    rng = np.random.default_rng(2)
    coarse = rng.choice([0, 0, 1, 2, 3, 255], (2, 13, 10)).astype(np.int64)
    return torch.from_numpy(coarse.repeat(5, 1).repeat(5, 2)[:, :hw[0], :hw[1]].copy())


def plain_loss(outputs, label_map, balanced):
    """Each output's cross-entropy over pixels that are not 255, pixel by pixel, summed."""
    total = 0
    for logits in outputs:
        log_probability, halves = logits.log_softmax(1), ([], [])
        for number, one in enumerate(label_map):
            small_map = label_maps.resize(one.numpy().astype(np.uint8), tuple(logits.shape[2:]))
            for y, x in np.argwhere(small_map != 255):
                halves[int(small_map[y, x] != 0)].append(-log_probability[number, small_map[y, x],
                                                                          y, x])
        means = [torch.stack(half).mean()
                 for half in (halves if balanced else [halves[0] + halves[1]]) if half]
        total = total + sum(means) / len(means)
    return total


def batch_of(size=2):
    return {'image': image_batch(number=size), 'label_map': label_batch()[:size],
            'index': torch.arange(size)}


@pytest.mark.parametrize(('loss', 'accumulate'), [('ce', 1), ('balanced', 2)])
def test_one_step_is_the_plain_version(loss, accumulate):
    net, learning = small(), dataclasses.replace(TOLD, loss=loss)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    leaves = {key: value.clone().requires_grad_() for key, value in before.items()
              if value.is_floating_point()}
    outputs = [plain(leaves, image_batch(), False)]
    for scale in (0.75, 0.5):
        outputs.append(plain(leaves, F.interpolate(image_batch(), scale_factor=scale,
                                                   mode='bilinear'), False))
    resized = [F.interpolate(logits, outputs[0].shape[2:], mode='bilinear') for logits in outputs]
    outputs.append(torch.stack(resized).max(0)[0])
    expected = plain_loss(outputs, label_batch(), loss == 'balanced')
    expected.backward()

    learnt = objectives.Segmentation(learning, CPU, [tuple(logits.shape[2:]) for logits in outputs])
    job = training.Training('test', 'unused.pth', {}, 2, None, 0, CPU, 'fp32', 0, False, accumulate,
                            steps=1)
    values, names = training.step(objectives.Learner(net.train(), learnt),
                                  train_seg.sgd(net, learning),
                                  torch.amp.GradScaler('cpu', enabled=False), batch_of(), learnt,
                                  job)
    assert names == ['loss', 'maximum']
    assert values[0].item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    for key, value in net.state_dict().items():
        if not key.startswith('classifier.') and 'conv' not in key and 'downsample.0' not in key:
            assert torch.equal(value, before[key]), key  # norms are as they were
            continue
        rate, decay = (0.2, 0) if key.endswith('bias') else (0.1 if key.startswith('classifier')
                                                             else 0.01, 0.1)
        gradient = leaves[key].grad
        assert (gradients[key] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), key
        assert gradient.any()
        update = rate * (gradient + decay * before[key])
        torch.testing.assert_close(value, before[key] - update, rtol=1e-6,
                                   atol=1e-3 * float(update.abs().max()))


def test_pixels_of_one_kind_and_of_none():
    logits = torch.randn(1, 4, 2, 2, requires_grad=True)
    ignored = torch.full((1, 2, 2), 255)
    for name in ('ce', 'balanced'):
        loss_of = objectives.Segmentation(dataclasses.replace(TOLD, loss=name), CPU, []).of_output
        foreground = loss_of(logits, torch.full((1, 2, 2), 2), torch.tensor([0, 4]))
        assert foreground.item() == pytest.approx(-logits.log_softmax(1)[:, 2].mean().item(),
                                                  rel=1e-6)
        nothing = loss_of(logits, ignored, torch.tensor([0, 0]))
        assert nothing.item() == 0
        nothing.backward()
        assert not logits.grad.any()
        logits.grad = None
    assert losses.cross_entropy_loss(logits, ignored).item() == 0
    counts = objectives.Segmentation(TOLD, CPU, [(2, 2), (1, 1)]).counts
    assert counts({'label_map': ignored}) is None
    # (1, 1) takes the last
    assert counts({'label_map': torch.tensor([[[0, 1], [255, 3]]])}).tolist() == [[1, 2], [0, 1]]


# crops

def test_crops_are_aligned_and_padded_at_the_right_and_bottom(tmp_path):
    source = Coordinates(tmp_path, 'ab', (30, 40))
    flips, offsets = set(), set()
    for crop_size in (17, 45):
        crops = datasets.SegmentationCrops(source, ['a', 'b'], crop_size, 0, scales=[1.0],
                                           normalize=lambda image: image,
                                           label_dir=tmp_path / 'seeds')
        for epoch in range(12):
            item = crops((epoch, epoch % 2))
            assert item.keys() == {'image', 'label_map', 'index'}
            assert item['image'].shape == (3, crop_size, crop_size)
            first, second = item['image'][1, 0, :2]
            flipped = bool(second < first or first == 0)
            image, label_map = (item[name][..., ::-1 if flipped else 1]
                                for name in ('image', 'label_map'))
            inside = image[2] > 0
            assert inside.sum() == min(crop_size, 30) * min(crop_size, 40)
            # padded at the right and bottom alone
            assert inside[:min(crop_size, 30), :min(crop_size, 40)].all()
            assert (label_map[~inside] == 255).all()
            assert np.array_equal(label_map[inside], (image[0] + image[1] - 200)[inside])
            flips.add(flipped)
            offsets.add(tuple(image[:2, 0, 0]))
    assert flips == {True, False}
    assert len(offsets) > 8


def test_scales_of_the_crops(tmp_path):
    source = Coordinates(tmp_path, 'a', (7, 9))

    def sizes(scales):
        crops = datasets.SegmentationCrops(source, ['a'], 20, 0, scales=scales,
                                           normalize=lambda image: image,
                                           label_dir=tmp_path / 'seeds')
        shown = [crops((epoch, 0))['label_map'] != 255 for epoch in range(30)]
        return {(int(one.any(1).sum()), int(one.any(0).sum())) for one in shown}

    assert sizes([0.5, 1.25]) == {(3, 4), (8, 11)}  # 3.5, 4.5; 8.75, 11.25: cut, not rounded
    assert sizes([0.01]) == {(1, 1)}


def test_bilinear_does_not_smooth():
    image = np.zeros((8, 8, 3), np.uint8)
    image[::2] = 255
    ours = imutils.resize_bilinear(image, (4, 3))
    theirs = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].float(), (4, 3),
                           mode='bilinear')
    np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0), rtol=1e-5)
    assert imutils.resize_bilinear(image[:, :, ::-1], (8, 8)).dtype == np.float32


def test_inputs():
    image = np.array([[[10, 20, 30]]], np.uint8)
    np.testing.assert_allclose(imutils.INPUTS['caffe'](image)[0, 0],
                               [30 - 104.008, 20 - 116.669, 10 - 122.675], rtol=1e-6)
    np.testing.assert_allclose(imutils.INPUTS['torchvision'](image), imutils.normalize(image))
    for normalize in imutils.INPUTS.values():  # of floats as of bytes
        np.testing.assert_allclose(normalize(image.astype(np.float32)), normalize(image), rtol=1e-6)


# the flags

def resolved(*words):
    args = options.build_parser(STAGES).parse_args(words)
    options.resolve(STAGES, args)
    return args


def test_recipes_and_the_flags_that_win():
    args = resolved()
    assert (args.seg_input, args.seg_stride, args.seg_ceil_mode, args.seg_steps, args.seg_loss) == (
        'torchvision', '3x3', False, 30_000, 'balanced')
    assert (min(args.seg_resize), max(args.seg_resize)) == (0.5, 2.0)
    assert (args.seg_batch_size, args.seg_crop_size,
            args.seg_train_scales) == (10, 321, [1.0, 0.75, 0.5])
    args = resolved('--seg_recipe', 'deeplab')
    assert (args.seg_input, args.seg_stride, args.seg_ceil_mode, args.seg_steps, args.seg_loss,
            args.seg_resize) == (
        'caffe', '1x1', True, 20_000, 'ce', [0.5, 0.75, 1.0, 1.25, 1.5])
    args = resolved('--seg_recipe', 'deeplab', '--seg_steps', '7', '--seg_ceil_mode', 'False',
                    '--seg_loss', 'balanced')
    assert (args.seg_steps, args.seg_ceil_mode, args.seg_loss,
            args.seg_stride) == (7, False, 'balanced', '1x1')
    args = resolved('--sem_seg_out_dir', 'masks', '--pretrained', 'a.pth')
    assert (args.seg_label_dir, args.seg_pretrained) == ('masks', 'a.pth')
    with pytest.raises(UserError,
                       match="torchvision's ImageNet weights need --seg_input torchvision"):
        train_seg.check(None, [], SegTraining.of(resolved('--seg_recipe', 'deeplab', '--pretrained',
                                                          'imagenet')))


# the stages

@pytest.fixture
def trained(command):
    """The small tree, its true masks learnt by the small network."""
    assert command('train_seg', seg_label_dir=command.tree / 'SegmentationClass', **QUICK) == 0
    return command


def test_stages_on_true_masks(trained, capsys):
    assert trained('make_seg', 'eval_seg', seg_crf=True, **QUICK) == 0
    folders = {name: {path.name for path in (trained.folder / name).iterdir()}
               for name in ('seg', 'seg_crf')}
    assert folders['seg'] == {'_settings.json', '_inputs.jsonl', 'classes.txt',
                              *(f'{image_id}.png' for image_id in IDS)}
    assert folders['seg_crf'] == folders['seg'] | {'logits', '.logits.lock'}
    assert [path.name for path
            in (trained.folder / 'seg_crf' / 'logits').iterdir()] == ['_settings.json']
    scores = trained.scores()
    assert (scores['eval_seg']['split'], scores['eval_seg']['images']) == ('val', 4)
    assert (scores['eval_seg']['scales'], scores['eval_seg']['flip']) == ([1.0, 0.75, 0.5], False)
    assert 'miou' in scores['eval_seg_crf']
    record = json.loads((trained.folder / 'seg.json').read_text())
    assert (record['steps'], record['loss'], record['input']) == (2, 'balanced', 'torchvision')
    net = make_seg.load_network(trained.folder / 'seg.pth',
                                SegForm('tests.tiny.seg', 'caffe', '1x1', True), 20, '', CPU,
                                'fp32')[1]
    for image_id in IDS:
        image = imutils.read_image(trained.tree / 'JPEGImages' / f'{image_id}.jpg')
        x = torch.from_numpy(imutils.to_chw(imutils.INPUTS['torchvision'](image)))[None]
        logits = segmentation.predict(net, x, [1.0, 0.75, 0.5], False, CPU, 'fp32')
        stored = label_maps.load(trained.folder / 'seg' / f'{image_id}.png')
        assert np.array_equal(stored, segmentation.label_map(logits, image.shape[:2]))
        refined = crf.refine_probabilities(image,
                                           segmentation.probabilities(logits.half().float(),
                                                                      image.shape[:2]).numpy())
        assert np.array_equal(label_maps.load(trained.folder / 'seg_crf' / f'{image_id}.png'),
                              refined)


def test_label_maps_without_crf_are_taken_up_with_it(trained, capsys):
    assert trained('make_seg', **QUICK) == 0
    before = (trained.folder / 'seg' / f'{IDS[0]}.png').read_bytes()
    assert trained('make_seg', seg_crf=True, **QUICK) == 0
    assert (trained.folder / 'seg' / f'{IDS[0]}.png').read_bytes() == before


def test_the_crf_is_taken_up_where_it_was_stopped(trained, monkeypatch, capsys):
    real, logits = crf.refine_probabilities, trained.folder / 'seg_crf' / 'logits'
    assert trained('make_seg', seg_crf=True, **QUICK) == 0
    expected = {path.name: path.read_bytes() for path in (trained.folder / 'seg_crf').glob('*.png')}
    calls = []

    def stop_at_the_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(crf, 'refine_probabilities', stop_at_the_third)
        assert trained('make_seg', seg_crf=True, overwrite=True, **QUICK) == 130
    assert sorted(path.stem for path in logits.glob('*.npz')) == IDS[2:]
    (logits / f'{IDS[1]}.npz').write_bytes(b'stopped between the refined label map and the end of '
                                           b'its logits')
    whole = (logits / f'{IDS[2]}.npz').read_bytes()
    for broken in (whole[:len(whole) // 2], b'no archive'):
        (logits / f'{IDS[2]}.npz').write_bytes(broken)
        with monkeypatch.context() as patch:
            # the network has nothing to do
            patch.setattr(segmentation, 'predict', stop_at_the_third)
            assert trained('make_seg', seg_crf=True, **QUICK) == 1
        assert f'{IDS[2]}.npz: cannot be read' in capsys.readouterr().err
    assert [path.stem for path in logits.glob('*.npz')] == [IDS[2]]
    (logits / f'{IDS[2]}.npz').unlink()
    assert trained('make_seg', seg_crf=True, **QUICK) == 0
    assert {path.name: path.read_bytes()
            for path in (trained.folder / 'seg_crf').glob('*.png')} == expected
    assert list(logits.glob('*.npz')) == []


def test_the_form_of_the_input_comes_with_the_weights(trained, capsys):
    other = SegForm('tests.tiny.seg', 'caffe', '1x1', True)
    form = make_seg.load_network(trained.folder / 'seg.pth', other, 20, '', CPU, 'fp32')[0]
    assert form == SegForm('tests.tiny.seg', 'torchvision', '3x3', False)
    (trained.folder / 'seg.json').unlink()
    assert make_seg.load_network(trained.folder / 'seg.pth', other, 20, '', CPU, 'fp32')[0] == other


def test_images_without_labels_and_the_servers_layout(trained):
    lists = trained.tree / 'ImageSets' / 'Segmentation'
    (lists / 'test.txt').write_text('\n'.join(IDS[:2]))
    for image_id in IDS:
        (trained.tree / 'Annotations' / f'{image_id}.xml').unlink()
        (trained.tree / 'SegmentationClass' / f'{image_id}.png').unlink()
    assert trained('make_seg', seg_list='test', seg_crf=True, **QUICK) == 0
    for name in ('seg', 'seg_crf'):
        folder = trained.folder / name / 'results' / 'VOC2012' / 'Segmentation' / 'comp6_test_cls'
        assert {path.name for path in folder.iterdir()} == {
            '_settings.json', '_inputs.jsonl', 'classes.txt', *(f'{name}.png' for name in IDS[:2])}


def test_missing_label_maps_are_told_of_before_the_first_stage(command, capsys):
    (command.folder / 'sem_seg').mkdir(parents=True)
    label_maps.save(command.folder / 'sem_seg' / f'{IDS[2]}.png', np.zeros((3, 3)), VOC12.palette)
    assert command('train_seg', **QUICK) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f'label maps of 3 of the 4 images of train_aug are missing (first {IDS[0]})' in line
    assert 'run --make_sem_seg_pass True --infer_list train_aug first' in line
    assert command('train_seg', seg_label_dir=command.folder / 'mine', **QUICK) == 1
    assert 'mine: label maps of 4 of the 4 images' in capsys.readouterr().err


def test_label_maps_of_another_folder_are_not_already_learnt(trained, tmp_path, capsys):
    flags = QUICK | {'seg_label_dir': trained.tree / 'SegmentationClass'}
    assert trained('train_seg', **flags) == 0
    assert 'already trained' in capsys.readouterr().out
    other = Path(shutil.copytree(trained.tree / 'SegmentationClass', tmp_path / 'other'))
    # what counts is their content
    assert trained('train_seg', **flags | {'seg_label_dir': other}) == 0
    assert 'already trained' in capsys.readouterr().out
    label_maps.save(other / f'{IDS[1]}.png', np.zeros((3, 3)), VOC12.palette)
    assert trained('train_seg', **flags | {'seg_label_dir': other}) == 1
    assert (f'seg.pth: trained with other inputs (label maps of 1 image: {IDS[1]}.jpg): --overwrite'
            in capsys.readouterr().err)


def test_the_positions_of_resized_are_made_once():
    segmentation._nearest.cache_clear()
    for _ in range(3):
        segmentation.resized(torch.zeros(1, 50, 50, dtype=torch.long), (7, 4))
    assert segmentation._nearest.cache_info()[:2] == (4, 2)


def test_the_refined_label_maps_are_asked_for_before_the_first_stage(trained, capsys):
    assert trained('make_seg', **QUICK) == 0
    assert trained('eval_seg', seg_crf=True, **QUICK) == 1
    told = capsys.readouterr()
    assert (f'eval_seg needs {trained.folder / "seg_crf"}: run --make_seg_pass True first'
            in told.err)
    assert '=== eval_seg' not in told.out


def test_labels_of_the_infer_list_are_for_trainings_that_need_them(command, tmp_path):
    for image_id in IDS:
        (command.tree / 'Annotations' / f'{image_id}.xml').unlink()
    args = options.build_parser(STAGES).parse_args(command.words('make_sem_seg', 'train_seg'))
    options.resolve(STAGES, args)
    job = job_of(VOC12(command.tree), tmp_path,
                 lists={name: getattr(args, name) for name in options.LISTS})
    stages = {stage.name: stage for stage in STAGES}
    preflight.check_lists(args, job, [stages['make_sem_seg'], stages['train_seg']])
    with pytest.raises(UserError, match='xml'):
        preflight.check_lists(args, job, [stages['train_irn'], stages['make_sem_seg']])


def test_what_is_read_is_pinned_for_the_device(trained, monkeypatch):
    from tests.tiny.irn import Net as TinyIRN
    weights.save_state(TinyIRN(), trained.folder / 'irn.pth')
    for name in ('cam', 'amn_cam'):
        (trained.folder / name).mkdir()
    given = []

    def todo(self, read):
        given.append(self.device)
        return iter(())

    monkeypatch.setattr(inference.Images, 'todo', todo)
    assert trained('make_sem_seg', 'make_ins_seg', 'make_seg', device='cpu', **QUICK) == 0
    assert given == [CPU] * 3


@pytest.mark.parametrize('words', [
    ['--num_workers', '-1'], ['--seg_scales', 'nan'], ['--seg_scales', '0'], ['--seg_scale', '1'],
    ['--precision', 'fp8']])
def test_segment_refuses_wrong_flags(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        segment.main(['photographs', '--out', 'x', *words])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith('error: ')


def test_segments_defaults(tmp_path, capsys):
    args = segment.parse(['photographs', '--work_dir', str(tmp_path)])
    assert (args.seg_network, args.seg_scales,
            args.seg_weights_name) == (None, [1.0, 0.75, 0.5], None)
    assert segment.main([str(GOLDEN / 'tree' / 'JPEGImages'), '--out', 'x', '--work_dir',
                         str(tmp_path)]) == 1
    assert f'{tmp_path}/sess/seg.pth: no such weights' in capsys.readouterr().err


def test_scoring_needs_every_mask_of_the_list(trained, capsys):
    (trained.tree / 'SegmentationClass' / f'{IDS[3]}.png').unlink()
    assert trained('make_seg', 'eval_seg', **QUICK) == 1
    assert 'a score needs the mask of every image of --seg_list' in capsys.readouterr().err


def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(command, tmp_path,
                                                                             monkeypatch, capsys):
    flags = QUICK | {'seg_steps': 5, 'seg_label_dir': command.tree / 'SegmentationClass'}
    monkeypatch.setattr(training, 'ROUND', 2)
    assert command('train_seg', **flags) == 0
    out = capsys.readouterr().out
    assert [f'round {number}/3' in out for number in (1, 2, 3)] == [True] * 3
    other, real, calls = Command(command.tree, tmp_path / 'other'), training.step, []

    def stop_at_the_fourth(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, 'step', stop_at_the_fourth)
        assert other('train_seg', **flags) == 130
    assert torch.load(other.folder / 'seg.ckpt', weights_only=True)['step'] == 2
    assert other('train_seg', **flags) == 0
    assert (other.folder / 'seg.pth').read_bytes() == (command.folder / 'seg.pth').read_bytes()


def test_a_checkpoint_of_the_last_step_is_only_written_out(command, monkeypatch, capsys):
    flags = QUICK | {'seg_steps': 3, 'seg_label_dir': command.tree / 'SegmentationClass'}
    monkeypatch.setattr(training, 'ROUND', 2)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights, 'save_state', stop)
        assert command('train_seg', **flags) == 130
    with monkeypatch.context() as patch:
        patch.setattr(training, 'step', stop)
        assert command('train_seg', **flags) == 0
    assert (command.folder / 'seg.pth').is_file()


def test_a_loss_that_is_not_finite_stops(command, capsys):
    flags = QUICK | {'seg_steps': 4, 'seg_learning_rate': 1e30,
                     'seg_label_dir': command.tree / 'SegmentationClass'}
    assert command('train_seg', **flags) == 1
    assert 'lower the learning rate' in capsys.readouterr().err.splitlines()[-1]
    assert not (command.folder / 'seg.pth').exists()


def test_tensorboard_gets_pictures(command, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    assert command('train_seg', seg_label_dir=command.tree / 'SegmentationClass',
                   tensorboard=tmp_path / 'events', **QUICK) == 0
    events = EventAccumulator(str(tmp_path / 'events'))
    events.Reload()
    assert [event.step for event in events.Scalars('train_seg/maximum')] == [1, 2]
    assert events.Tags()['images'] == [f'train_seg/{image_id}' for image_id in IDS]


def test_two_processes_train_and_segment_as_one(tmp_path):
    tree = GOLDEN / 'tree'

    def run(processes):
        command = Command(tree, tmp_path / str(processes))
        words = command.words('train_seg', 'make_seg', 'eval_seg',
                              seg_label_dir=tree / 'SegmentationClass', device='cpu',
                              **QUICK | {'seg_batch_size': 4, 'seg_steps': 3}, accumulate=2)
        start = ([] if processes == 1 else ['-m', 'torch.distributed.run', '--nproc_per_node=2',
                                            '--standalone', '--'])
        done = subprocess.run([sys.executable, *start, 'run_sample.py', *words], cwd=ROOT,
                              capture_output=True, text=True, timeout=200,
                              env=os.environ | {'OMP_NUM_THREADS': '1'})
        assert done.returncode == 0, done.stderr
        return command

    one, two = run(1), run(2)
    states = [weights.read_state(command.folder / 'seg.pth') for command in (one, two)]
    for key, value in states[0].items():
        assert (value.double() - states[1][key].double()).abs().max() <= 1e-5, key
    assert two.scores()['eval_seg']['images'] == 4


def segmented(trained, *words):
    return segment.main([*map(str, words), '--seg_weights_name', str(trained.folder / 'seg.pth'),
                         '--device', 'cpu', '--num_workers', '0'])


def test_segment_any_photograph(trained, tmp_path, capsys):
    assert trained('make_seg', **QUICK) == 0
    folder, out = tmp_path / 'photographs', tmp_path / 'segmented'
    folder.mkdir()
    for image_id in IDS[:2]:
        (folder / f'{image_id}.JPG').write_bytes((trained.tree / 'JPEGImages' /
                                                  f'{image_id}.jpg').read_bytes())
    (folder / 'notes.txt').write_text('no photograph')
    assert segmented(trained, folder, '--out', out) == 0
    assert {path.name for path in out.iterdir()} == {'_settings.json', '_inputs.jsonl', 'overlay',
                                                     'segment.log', 'classes.txt',
                                                     *(f'{image_id}.png' for image_id in IDS[:2])}
    for image_id in IDS[:2]:
        assert (out / f'{image_id}.png').read_bytes() == (trained.folder / 'seg' /
                                                          f'{image_id}.png').read_bytes()
        image = imutils.read_image(folder / f'{image_id}.JPG')
        expected = drawing.overlay_labels(image, label_maps.load(out / f'{image_id}.png'),
                                          VOC12.palette)
        assert np.array_equal(imutils.read_image(out / 'overlay' / f'{image_id}.png'), expected)
    (out / f'{IDS[1]}.png').unlink()  # as if stopped: the other is kept
    before = (out / f'{IDS[0]}.png').stat().st_mtime_ns
    assert segmented(trained, folder, '--out', out) == 0
    assert (out / f'{IDS[0]}.png').stat().st_mtime_ns == before
    assert (out / f'{IDS[1]}.png').is_file()
    assert segmented(trained, folder, '--out', out, '--seg_scales', '1') == 1
    assert 'scales: was [1.0, 0.75, 0.5], now [1.0]' in capsys.readouterr().err
    assert segmented(trained, folder / f'{IDS[0]}.JPG', '--out', tmp_path / 'one', '--seg_crf',
                     '--seg_flip') == 0
    assert [path.name for path in (tmp_path / 'one').glob('*.png')] == [f'{IDS[0]}.png']


def test_segment_tells_what_is_wrong(trained, tmp_path, capsys):
    folder = trained.tree / 'JPEGImages'
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'twice').mkdir()
    for name in ('a.jpg', 'a.png'):
        (tmp_path / 'twice' / name).write_bytes(b'')
    for words, expected in (((folder,), 'what to do?'),
                            ((tmp_path / 'no', '--out', 'x'), 'neither a photograph nor a folder'),
                        ((tmp_path / 'empty', '--out', 'x'), 'no photograph in it'),
                            ((folder, '--out', folder), 'lie there'),
                        ((tmp_path / 'twice', '--out', 'x'), 'have one name'),
                        ((folder, '--out', 'x', '--seg_network', 'json'), '--seg_network json'),
                        ((folder, '--out', 'x', '--seg_network', 'net.resnet50_deeplab'),
                         'not the weights of')):
        assert segmented(trained, *words) == 1
        line = capsys.readouterr().err.splitlines()
        assert len(line) == 1
        assert line[0].startswith('error: ')
        assert expected in line[0]
    (trained.folder / 'seg.pth').unlink()
    assert segmented(trained, folder, '--out', 'x') == 1
    assert 'no such weights; run --train_seg_pass True first' in capsys.readouterr().err


@pytest.mark.parametrize('input_form', ['torchvision', 'caffe'])
def test_the_exported_network_gives_the_same_masks(input_form, tmp_path):
    net = TinyNet(3)
    net.load_state_dict(formula_state(net))
    networks.prepare(net, CPU, 'fp32')
    photographs = [np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
                   for hw in ((40, 90), (131, 33))]
    segmentation.export(net, input_form, [1.0, 0.75, 0.5], str(tmp_path / 'net.pt'), photographs)
    exported = torch.jit.load(str(tmp_path / 'net.pt'))
    for image in photographs:
        x = torch.from_numpy(imutils.to_chw(imutils.INPUTS[input_form](image)))[None]
        logits = segmentation.predict(net, x, [1.0, 0.75, 0.5], False, CPU, 'fp32')
        label_map, shares = exported(torch.from_numpy(imutils.to_chw(image))[None])
        assert torch.equal(label_map, segmentation.label_map(logits, image.shape[:2]))
        assert len(label_map.unique()) > 1
        torch.testing.assert_close(shares.sum(0), torch.ones(image.shape[:2]))


def test_the_network_in_onnx_gives_the_same_masks(tmp_path):
    for package in ('onnx', 'onnxscript'):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip('onnxruntime')
    net = TinyNet(3)
    net.load_state_dict(formula_state(net))
    networks.prepare(net, CPU, 'fp32')
    photographs = [np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
                   for hw in ((40, 90), (131, 33), (3, 2))]
    path = tmp_path / 'net.onnx'
    segmentation.export(net, 'caffe', [1.0, 0.75, 0.5], str(path), photographs)
    assert [each.name for each in tmp_path.iterdir()] == ['net.onnx']
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_inputs()[0].shape == [1, 3, 'height', 'width']
    for image in photographs:
        x = torch.from_numpy(imutils.to_chw(imutils.INPUTS['caffe'](image)))[None]
        logits = segmentation.predict(net, x, [1.0, 0.75, 0.5], False, CPU, 'fp32')
        label_map, shares = session.run(['label_map', 'probabilities'],
                                        {'image': imutils.to_chw(image)[None]})
        expected = segmentation.probabilities(logits, image.shape[:2])
        torch.testing.assert_close(torch.from_numpy(shares), expected, atol=1e-4, rtol=0)
        differs = label_map != segmentation.label_map(logits, image.shape[:2]).numpy()
        assert label_map.dtype == np.uint8 and differs.mean() < 1e-3
    with mock.patch.object(segmentation, 'label_map',
                           lambda logits, hw: torch.full(hw, 9, dtype=torch.uint8)), \
            pytest.raises(UserError, match='gives another label map for an image of 90 x 40'):
        segmentation.export(net, 'caffe', [1.0], str(tmp_path / 'other.onnx'), photographs)
    assert [each.name for each in tmp_path.iterdir()] == ['net.onnx']


def test_the_packages_of_onnx_are_asked_for(tmp_path, monkeypatch):
    net = TinyNet(3)
    networks.prepare(net, CPU, 'fp32')
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(UserError, match='pip install onnx onnxscript onnxruntime$'):
        segmentation.export(net, 'caffe', [1.0], str(tmp_path / 'net.ONNX'), [])
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_is_refused(tmp_path, monkeypatch):
    net = TinyNet(3)
    networks.prepare(net, CPU, 'fp32')
    monkeypatch.setattr(segmentation, 'label_map', lambda logits,
                        hw: torch.full(hw, 9, dtype=torch.uint8))
    with pytest.raises(UserError, match='not written, because the exported network gives another '
                                        'label map .* 30 x 20'):
        segmentation.export(net, 'torchvision', [1.0], str(tmp_path / 'net.pt'),
                            [np.zeros((20, 30, 3), np.uint8)])
    assert list(tmp_path.iterdir()) == []


def test_export_command(trained, tmp_path, capsys):
    assert segmented(trained, trained.tree / 'JPEGImages', '--export', tmp_path / 'net.pt') == 0
    assert 'the same label maps for 5 images' in capsys.readouterr().out
    assert (tmp_path / 'net.pt').is_file()


def test_photographs_of_one_pixel(trained):
    Image.new('RGB', (1, 1), (9, 9, 9)).save(trained.tree / 'JPEGImages' / 'one.jpg')
    (trained.tree / 'one.txt').write_text('one\n')
    assert trained('make_seg', seg_list=trained.tree / 'one.txt', seg_crf=True, **QUICK) == 0
    assert label_maps.load(trained.folder / 'seg' / 'one.png').shape == (1, 1)
    assert label_maps.load(trained.folder / 'seg_crf' / 'one.png').shape == (1, 1)


def test_what_is_no_photograph_is_counted(tmp_path):
    for name in ('a.jpg', 'c.JFIF', '._a.jpg', '.DS_Store', 'IMG_1.HEIC', 'more/b.jpg',
                 'more/deep/d.png', 'more/._b.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    found, others = segment.photographs(str(tmp_path))
    assert found == {'a': tmp_path / 'a.jpg', 'c': tmp_path / 'c.JFIF'}
    assert others == ['IMG_1.HEIC', 'more/ with 2 photographs', '._a.jpg']
    with pytest.raises(UserError,
                       match=r'no photograph in it .*; there are d.png/ with 0 photographs'):
        (tmp_path / 'empty' / 'd.png').mkdir(parents=True)
        segment.photographs(str(tmp_path / 'empty'))
