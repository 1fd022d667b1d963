"""Three training steps of each network against the authors', and that these comparisons see faults.
"""
import pytest
import torch

from net.resnet50 import FixedBatchNorm
from tests import authors, tolerances


@pytest.mark.parametrize('accumulate', [pytest.param(1, marks=pytest.mark.golden), 2])
@pytest.mark.parametrize('name', authors.NETWORKS)
def test_golden_steps(name, accumulate):
    assert not tolerances.exceeded(authors.steps(name, accumulate=accumulate),
                                   tolerances.STEPS[name]['fp32'])


def faster(net, optimizer):
    """Learning rates 1% off."""
    for group in optimizer.param_groups:
        group['lr'] *= 1.01


def other_eps(net, optimizer):
    """Batch norms that add 1e-3 to the variance, as other libraries' do."""
    for module in net.modules():
        if isinstance(module, FixedBatchNorm):
            module.eps = 1e-3


def no_decay(net, optimizer):
    """One layer without weight decay."""
    name, layer = next((name, parameter) for name, parameter in net.named_parameters()
                       if name in LAYERS)
    group = next(group for group in optimizer.param_groups
                 if any(parameter is layer for parameter in group['params']))
    group['params'] = [parameter for parameter in group['params'] if parameter is not layer]
    optimizer.add_param_group({**group, 'params': [layer], 'weight_decay': 0})


LAYERS = ('classifier.weight', 'classifier.1.c1.weight', 'fc_edge2.0.weight')  # of CAM, AMN, IRN


@pytest.mark.slow
@pytest.mark.parametrize('fault', [faster, other_eps, no_decay])
@pytest.mark.parametrize('name', authors.NETWORKS)
def test_the_golden_steps_see_a_fault(name, fault):
    assert tolerances.exceeded(authors.steps(name, altered=fault), tolerances.STEPS[name]['fp32'])


def test_rounding_to_tf32():
    """Ten bits after the leading one; halves go to even."""
    x = torch.tensor([1, 1 + 2 ** -10, 1 + 2 ** -11, 1 + 3 * 2 ** -11, -1 - 2 ** -11 - 2 ** -20, 0,
                      3.5])
    assert authors._rounded(x).tolist() == [1, 1 + 2 ** -10, 1, 1 + 2 ** -9, -1 - 2 ** -10, 0, 3.5]
