"""Three training steps of each network against the authors'; resuming; what the loop does with bad batches."""
import json

import numpy as np
import pytest
import torch

from misc import training
from misc.contract.settings import AmnTraining
from misc.files import labels
from misc.method import objectives
from misc.method.objectives import Learner
from net import resnet50_amn, resnet50_cam, resnet50_irn
from step import train_amn
from tests.conftest import GOLDEN, formula_state, told

STEPS = json.loads((GOLDEN / 'steps.json').read_text())
INPUT = np.load(GOLDEN / 'steps_input.npz')
IMAGES = torch.from_numpy(np.random.default_rng(3).standard_normal((3, 2, 3, 128, 128)).astype(np.float32))
LABELS = torch.from_numpy(INPUT['labels'])
CPU = torch.device('cpu')
AMN = told(AmnTraining)
NO_SCALER = torch.amp.GradScaler('cpu', enabled=False)


def label_maps(number, side):
    full = INPUT['segmentation'][number].repeat(16, axis=1).repeat(16, axis=2)
    return torch.from_numpy(np.stack([labels.resize(one, (side, side)) for one in full]).astype(np.int64))


def sums(net):
    return {key: (value.double().sum().item(), value.double().abs().sum().item())
            for key, value in net.state_dict().items() if not key.endswith('num_batches_tracked')}


def batch(number, side):
    """Batch `number` as the loop gets it."""
    return {'image': IMAGES[number], 'labels': LABELS[number], 'label_map': label_maps(number, side),
            'index': torch.arange(2), 'seed': torch.arange(2)}


def run_three_steps(net, optimizer, objective, schedule, max_step, accumulate, side=8):
    """(values of each step, learning rates used, state before)."""
    job = training.Training('test', 'unused.pth', {}, 2, 1, 0, torch.device('cpu'), 'fp32', 0, False, accumulate)
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
        values, _ = training.step(Learner(net, objective), optimizer, NO_SCALER, batch(number, side), objective, job)
        seen.append(values)
    return torch.stack(seen), rates, before


def compare(name, net, seen, before, fixed):
    golden = STEPS[name]
    assert seen[:, 0].tolist() == pytest.approx(golden['losses'], rel=1e-5)
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


@pytest.mark.parametrize('accumulate', [1, 2])
def test_golden_steps_cam(accumulate):
    net = resnet50_cam.Net(20)
    optimizer = training.sgd(net.parameter_groups(), 0.001, 1e-4, 1e-4)
    seen, rates, before = run_three_steps(net, optimizer, objectives.ImageClassification(None, CPU), training.polynomial, 10,
                                          accumulate)
    assert rates == pytest.approx(STEPS['cam']['lr'])
    compare('cam', net, seen, before, ('resnet50.conv1', 'resnet50.bn1', 'resnet50.layer1', 'resnet50.layer2'))


@pytest.mark.parametrize('accumulate', [1, 2])
def test_golden_steps_amn(accumulate):
    net = resnet50_amn.Net(20)
    seen, _, before = run_three_steps(net, train_amn.adam(net, AMN), objectives.PixelClassification(AMN, CPU),
                                      training.constant, 10,
                                      accumulate)
    compare('amn', net, seen, before, ('resnet50.conv1', 'resnet50.bn1'))


@pytest.mark.parametrize('accumulate', [1, 2])
def test_golden_steps_irn(accumulate):
    net = resnet50_irn.Net()
    optimizer = training.sgd(net.parameter_groups(), 0.01, 1e-4, 1e-4)
    seen, _, before = run_three_steps(net, optimizer, objectives.PixelPairs(None, CPU), training.polynomial, 10, accumulate, 32)
    np.testing.assert_allclose(seen[:, 1:], STEPS['irn']['parts'], rtol=1e-5)
    compare('irn', net, seen, before, ('resnet50.',))
    net.eval()
    with torch.no_grad():
        mean = torch.stack([net(IMAGES[n])[1].mean((0, 2, 3)) for n in range(3)]).mean(0)
    # the L1 loss has a gradient of signs: rounding (another memory layout than the authors') turns some of them
    np.testing.assert_allclose(mean, STEPS['irn']['displacement_mean_of_batch_means_in_eval'], rtol=1e-3)
