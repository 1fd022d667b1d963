"""Three training steps of each network against the authors', and that these comparisons see faults.
"""
import threading

import pytest
import torch

from misc import training
from misc.method.objectives import Learner, Objective
from misc.pyutils import UserError
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


# shares of a batch, each by a thread of its own

CPU = torch.device('cpu')


class Net(torch.nn.Module):
    """One weight that learns, one that the loss does not reach, one that is fixed."""

    def __init__(self, *layers):
        super().__init__()
        self.weight, self.other, self.fixed = (torch.nn.Parameter(torch.ones(1)) for _ in range(3))
        self.fixed.requires_grad_(False)
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x) * self.weight * self.fixed


class Sum(Objective):
    """The images' sum. done: what each share waits for and sets; seen: of each share, its images,
    torch's threads, and the type in which weights are used.
    """

    def __init__(self, done=()):
        super().__init__(None, CPU)
        self.done, self.seen = done, []

    def loss(self, net, part, counts):
        number = int(part['index'][0])
        if number + 1 < len(self.done):
            assert self.done[number + 1].wait(60)  # each share ends after the one that follows it
        loss = net(part['image']).sum()
        dtype = torch.mm(net.weight[None], net.weight[None]).dtype
        self.seen.append((len(part['index']), torch.get_num_threads(), dtype))
        if self.done:
            loss.register_hook(lambda gradient: self.done[number].set())  # as it goes backward
        return loss, {'half': loss / 2}


@pytest.fixture
def threads():
    """Three threads, afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def step(net, objective, images, accumulate=1, precision='fp32'):
    """One update without learning; what `training.step` returns."""
    job = training.Training('test', 'unused.pth', {}, len(images), 1, 0, CPU, precision, 0, False,
                            accumulate)
    batch = {'image': torch.tensor(images)[:, None], 'index': torch.arange(len(images))}
    return training.step(Learner(net, objective), torch.optim.SGD(net.parameters(), 0.0),
                         torch.amp.GradScaler('cpu', enabled=False), batch, objective, job)


def test_gradients_are_added_in_the_order_of_the_images(threads):
    for _ in range(20):
        net, objective = Net(), Sum([threading.Event() for _ in range(3)])
        values, names = step(net, objective, [1.0, 1e8, -1e8])
        assert net.weight.grad.item() == 0  # 1 in the order in which they end
        assert (values.tolist(), names) == ([0, 0], ['loss', 'half'])
    assert net.other.grad is None and net.fixed.grad is None
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(('images', 'accumulate', 'shares'), [
    (5, 1, [(1, 1), (2, 1), (2, 1)]), (2, 1, [(1, 1), (1, 1)]), (1, 1, [(1, 3)]),
    (6, 2, [(1, 1)] * 6), (3, 3, [(1, 3)] * 3)])
def test_every_thread_takes_a_share(threads, images, accumulate, shares):
    net, objective = Net(), Sum()
    values, _ = step(net, objective, [1.0] * images, accumulate)
    assert sorted(seen[:2] for seen in objective.seen) == shares
    assert (net.weight.grad.item(), values[0].item()) == (images, images)


def test_threads_that_are_more_than_the_images_help_each_other(threads):
    torch.set_num_threads(4)
    objective = Sum()
    step(Net(), objective, [1.0, 2.0])
    assert [seen[:2] for seen in objective.seen] == [(1, 2)] * 2
    assert torch.get_num_threads() == 4


def test_every_thread_computes_in_the_precision_asked_for(threads):
    for precision, dtype in (('fp32', torch.float32), ('bf16', torch.bfloat16)):
        objective = Sum()
        step(Net(), objective, [1.0, 2.0, 3.0], precision=precision)
        assert [seen[2] for seen in objective.seen] == [dtype] * 3


class Twice(Objective):
    """Every weight is used twice, in the first image's share after the other's forward pass."""

    def __init__(self):
        super().__init__(None, CPU)
        self.ended = threading.Event()

    def loss(self, net, part, counts):
        loss = net(part['image'][:, :, 0]).sum()
        if part['index'][0] == 0:
            assert self.ended.wait(60)
        loss = loss + net(part['image'][:, :, 1]).sum()
        if part['index'][0] == 1:
            loss.register_hook(lambda gradient: self.ended.set())
        return loss, {}


def test_threads_share_what_weights_were_rounded_to(threads):
    """Else the gradients of one weight's uses would be added in bf16, or in float32, by chance."""
    net = torch.nn.Linear(1, 1, bias=False)
    step(net, Twice(), [[1.0, 2 ** -9], [0.0, 0.0]], precision='bf16')
    assert net.weight.grad.item() == 1


@pytest.mark.parametrize(('layer', 'shares'), [
    (torch.nn.BatchNorm1d(1), 1), (torch.nn.BatchNorm1d(1).eval(), 3), (torch.nn.Dropout(0.5), 1),
    (torch.nn.Dropout(0.0), 3), (torch.nn.LayerNorm(1), 3)])
def test_images_that_depend_on_each_other_stay_together(threads, layer, shares):
    objective = Sum()
    step(Net(layer), objective, [1.0, 2.0, 3.0])
    assert len(objective.seen) == shares


@pytest.mark.parametrize('error', [UserError('one image'), MemoryError(), KeyboardInterrupt()])
def test_what_a_thread_raises_ends_the_step(threads, error):
    class Failing(Sum):
        def loss(self, net, part, counts):
            if part['index'][0] == 1:
                raise error
            return super().loss(net, part, counts)

    with pytest.raises(type(error)) as raised:
        step(Net(), Failing(), [1.0, 2.0, 3.0])
    assert raised.value is error
    assert torch.get_num_threads() == threads
