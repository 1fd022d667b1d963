"""Three training steps of each network against the authors'; resuming; what the loop does with bad batches."""
import json

import numpy as np
import pytest
import torch

from misc import labels, losses, training
from net import resnet50_amn, resnet50_cam, resnet50_irn
from tests.conftest import GOLDEN, formula_state

STEPS = json.loads((GOLDEN / 'steps.json').read_text())
INPUT = np.load(GOLDEN / 'steps_input.npz')
IMAGES = torch.from_numpy(np.random.default_rng(3).standard_normal((3, 2, 3, 128, 128)).astype(np.float32))
LABELS = torch.from_numpy(INPUT['labels'])
NO_SCALER = torch.amp.GradScaler('cpu', enabled=False)


def label_maps(number, side):
    full = INPUT['segmentation'][number].repeat(16, axis=1).repeat(16, axis=2)
    return torch.from_numpy(np.stack([labels.resize(one, (side, side)) for one in full]).astype(np.int64))


def sums(net):
    return {key: (value.double().sum().item(), value.double().abs().sum().item())
            for key, value in net.state_dict().items() if not key.endswith('num_batches_tracked')}


def run_three_steps(net, optimizer, loss_of, schedule, max_step):
    """(losses before each step, learning rates used, state before, state after)."""
    net.load_state_dict(formula_state(net))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    base, seen, rates = [group['lr'] for group in optimizer.param_groups], [], []
    net.train()
    for module in net.modules():
        if isinstance(module, resnet50_amn.SeededDropout):
            module.eval()  # the golden steps were made with dropout off
    for number in range(3):
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group['lr'] = rate * schedule(number, max_step)
        rates.append(optimizer.param_groups[0]['lr'])
        loss = loss_of(number)
        seen.append(loss.item())
        training.step(net, optimizer, NO_SCALER, loss)
    return seen, rates, before


def compare(name, net, seen, before, fixed):
    golden = STEPS[name]
    assert seen == pytest.approx(golden['losses'], rel=1e-5)
    start = dict(zip(before, (v.double().sum().item() for v in before.values()), strict=True))
    for key, (total, absolute) in golden['before'].items():
        assert start[key] == pytest.approx(total, abs=1e-6 * absolute + 1e-9)
    for key, (total, absolute) in sums(net).items():
        theirs = golden['after'][key]
        assert abs(total - theirs[0]) <= 1e-6 * theirs[1] + 1e-9, key
        assert abs(absolute - theirs[1]) <= 1e-6 * theirs[1] + 1e-9, key
    after = net.state_dict()
    untouched = [key for key in before if key.startswith(fixed) or 'running_' in key]
    assert untouched
    for key in untouched:
        assert torch.equal(after[key], before[key]), key
    assert any(not torch.equal(after[key], before[key]) for key in before)


def test_golden_steps_cam():
    net = resnet50_cam.Net(20)
    optimizer = training.sgd(net.parameter_groups(), 0.001, 1e-4, 1e-4)
    seen, rates, before = run_three_steps(
        net, optimizer, lambda n: losses.classification_loss(net(IMAGES[n]), LABELS[n]), training.polynomial, 10)
    assert rates == pytest.approx(STEPS['cam']['lr'])
    compare('cam', net, seen, before, ('resnet50.conv1', 'resnet50.bn1', 'resnet50.layer1', 'resnet50.layer2'))


def test_golden_steps_amn():
    from argparse import Namespace

    from step import train_amn
    net = resnet50_amn.Net(20)
    args = Namespace(amn_learning_rate=[5e-6, 1e-4], amn_weight_decay=1e-4)
    seen, _, before = run_three_steps(
        net, train_amn.adam(net, args),
        lambda n: losses.per_pixel_classification_loss(net(IMAGES[n], LABELS[n]), label_maps(n, 8), 0.4),
        training.constant, 10)
    compare('amn', net, seen, before, ('resnet50.conv1', 'resnet50.bn1'))


def test_golden_steps_irn():
    net, parts = resnet50_irn.Net(), []

    def loss_of(number):
        edge, displacement = net(IMAGES[number])
        parts.append(losses.affinity_losses(edge.sigmoid(), displacement, label_maps(number, 32)))
        return losses.irn_loss(parts[-1])

    optimizer = training.sgd(net.parameter_groups(), 0.01, 1e-4, 1e-4)
    seen, _, before = run_three_steps(net, optimizer, loss_of, training.polynomial, 10)
    np.testing.assert_allclose(torch.stack([torch.stack(tuple(p)) for p in parts]).detach(), STEPS['irn']['parts'], rtol=1e-5)
    compare('irn', net, seen, before, ('resnet50.',))
    net.eval()
    with torch.no_grad():
        mean = torch.stack([net(IMAGES[n])[1].mean((0, 2, 3)) for n in range(3)]).mean(0)
    np.testing.assert_allclose(mean, STEPS['irn']['displacement_mean_of_batch_means_in_eval'], rtol=1e-4)
