"""The authors' numbers (tests/golden) against ours: forward passes and training steps of each
network, with weights by formula, on any device, in any precision, by one process or two.

Every function returns errors by name, each relative to the size of what is compared;
tests/tolerances.py says how large they may be, and why. The tests and script/check_gpu.py both come
here.
"""
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from misc import networks, torchutils, training
from misc.contract.settings import AmnTraining
from misc.files import label_maps
from misc.method import objectives
from net import resnet50_amn, resnet50_cam, resnet50_irn
from step import train_amn
from tests.formula import formula_state

GOLDEN = Path(__file__).parent / 'golden'
NETWORKS = {'cam': resnet50_cam, 'amn': resnet50_amn, 'irn': resnet50_irn}
# --precision fp32 without and with TF32, and the other two
MODES = ('fp32', 'tf32', 'bf16', 'fp16')
FIXED = {'cam': ('resnet50.conv1', 'resnet50.bn1', 'resnet50.layer1', 'resnet50.layer2'),
         'amn': ('resnet50.conv1', 'resnet50.bn1'), 'irn': ('resnet50.',)}  # what no step may move
CPU = torch.device('cpu')
Errors = dict[str, float]
aten = torch.ops.aten


def formula_net(name: str) -> nn.Module:
    """The network 'cam', 'amn' or 'irn' for 20 classes, with weights by formula."""
    net = NETWORKS[name].Net(20)
    net.load_state_dict(formula_state(net))
    return net


# precision

class RoundedConvolutions(TorchDispatchMode):
    """On a CPU, what TF32 does: convolutions, and their gradients, of numbers rounded to 10 bits
    after the leading one.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        if function in (aten.conv2d.default, aten.convolution.default,
                        aten.convolution_backward.default):
            args = tuple(_rounded(arg) if isinstance(arg, torch.Tensor) and arg.dim() == 4 else arg
                         for arg in args)
        return function(*args, **(kwargs or {}))


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """float32 to the nearest TF32, halves to even."""
    bits = x.view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


@contextlib.contextmanager
def computing(mode: str, device: torch.device) -> Iterator[str]:
    """Within it networks compute in `mode`; gives what --precision is then. TF32 is imitated on a
    CPU, by one thread: in the threads of a training step the imitation would not be there.
    """
    before, threads = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    torch.backends.cudnn.allow_tf32 = mode == 'tf32'
    rounded = mode == 'tf32' and device.type == 'cpu'
    try:
        torch.set_num_threads(1 if rounded else threads)
        with RoundedConvolutions() if rounded else contextlib.nullcontext():
            yield 'fp32' if mode == 'tf32' else mode
    finally:
        torch.backends.cudnn.allow_tf32 = before
        torch.set_num_threads(threads)


# forward passes

def of_largest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, of the largest value."""
    if ours.shape != theirs.shape:
        return float('inf')
    return ((ours.float().cpu() - theirs).abs().max() / theirs.abs().max()).item()


@torch.inference_mode()
def forward(name: str, net: nn.Module, device: torch.device = CPU, mode: str = 'fp32') -> Errors:
    """What network `name` makes of two images, and of an image and its mirror. net: `formula_net`,
    as it is or prepared for inference, on `device`.
    """
    golden = {key: torch.from_numpy(value)
              for key, value in np.load(GOLDEN / 'forward.npz').items()}
    x, y = (torchutils.to_device(golden[key], device) for key in 'xy')
    pair = torch.stack([x[0], x[0].flip(-1)])
    with computing(mode, device) as precision, torchutils.autocast(precision, device):
        if name == 'cam':
            features, both = net.features(x), net.activations(pair)
            of_features = features.float()
            made = {'features_every_64th_channel': features[:, ::64], 'cam_logits': net(x),
                    'features_stat': torch.stack([of_features.mean(), of_features.std(),
                                                  of_features.max()]),
                    'cam_pair': both[0] + both[1].flip(-1)}
        elif name == 'amn':
            both = net(pair, y[:1].expand(2, -1))
            made = {'amn_logits': net(x, y), 'amn_pair': (both[0] + both[1].flip(-1)) / 2}
        else:
            made = dict(zip(('irn_edge', 'irn_displacement'), net(x), strict=True))
    return {key: of_largest(value, golden[key]) for key, value in made.items()}


def prepared(name: str, device: torch.device, mode: str) -> nn.Module:
    """`formula_net`, ready for inference as the stages have it."""
    net = formula_net(name)
    networks.prepare(net, device, 'fp32' if mode == 'tf32' else mode)
    return net


# training steps

STEPS = json.loads((GOLDEN / 'steps.json').read_text())
INPUT = np.load(GOLDEN / 'steps_input.npz')
IMAGES = torch.from_numpy(np.random.default_rng(3).standard_normal((3, 2, 3, 128,
                                                                    128)).astype(np.float32))
LABELS = torch.from_numpy(INPUT['labels'])
MAX_STEP = 10
# of fp16's losses: the default, 65536, skips the first steps until it has halved often enough
SCALE = 128.0


def training_of(name: str, net: nn.Module, device: torch.device) -> tuple:
    """(optimizer, objective, schedule, side of the label maps) of the golden steps."""
    if name == 'amn':
        told = AmnTraining()
        return train_amn.adam(net,
                              told), objectives.PixelClassification(told,
                                                                    device), training.constant, 8
    objective, rate, side = {'cam': (objectives.ImageClassification, 0.001, 8),
                             'irn': (objectives.PixelPairs, 0.01, 32)}[name]
    return training.sgd(net.parameter_groups(), rate, 1e-4,
                        1e-4), objective(None, device), training.polynomial, side


def batch(number: int, side: int) -> dict[str, torch.Tensor]:
    """Batch `number` as the loop gets it; of two processes, this one's image."""
    full = INPUT['segmentation'][number].repeat(16, axis=1).repeat(16, axis=2)
    label_map = torch.from_numpy(np.stack([label_maps.resize(one, (side, side))
                                           for one in full]).astype(np.int64))
    whole = {'image': IMAGES[number], 'labels': LABELS[number], 'label_map': label_map,
             'index': torch.arange(2), 'dropout_seed': torch.arange(2)}
    rank, size = torchutils.world()
    return {key: value[rank::size] for key, value in whole.items()}


def steps(name: str, device: torch.device = CPU, mode: str = 'fp32', accumulate: int = 1,
          altered: Callable[[nn.Module, torch.optim.Optimizer], None] = lambda net,
          optimizer: None) -> Errors:
    """Three steps of a training, by the loop's own step: errors of the losses, the learning rates
    and the weights.

    The authors' weights are stored as two sums a tensor, of values and of magnitudes. Compared is
    by how much the steps
    changed these sums: 'weights', the median over all tensors of the error of both, relative to the
    sum of the update's magnitudes; 'worst tensor', the largest such error; 'magnitudes', of the
    tensors of many numbers (no bias, no norm), the largest error of the sum of magnitudes relative
    to the update's norm: what rounding does to single numbers cancels in it, what a missing weight
    decay does adds up.
    altered(net, optimizer) plants a fault.
    """
    net = formula_net(name).to(device, memory_format=torch.channels_last)
    optimizer, objective, schedule, side = training_of(name, net, device)
    altered(net, optimizer)
    before = {key: value.double() for key, value in net.state_dict().items()}
    base, seen, rates = [group['lr'] for group in optimizer.param_groups], [], []
    net.train()
    for module in net.modules():
        if isinstance(module, resnet50_amn.SeededDropout):
            module.eval()  # the golden steps were made with dropout off
    size = torchutils.world()[1]
    learner = objectives.Learner(net, objective)
    parallel = DistributedDataParallel(learner, broadcast_buffers=False) if size > 1 else learner
    with computing(mode, device) as precision:
        job = training.Training('test', 'unused.pth', {}, 2, 1, 0, device, precision, 0, False,
                                accumulate)
        scaler = torch.amp.GradScaler(device.type, SCALE, enabled=precision == 'fp16')
        for number in range(3):
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group['lr'] = rate * schedule(number, MAX_STEP)
            rates.append(optimizer.param_groups[0]['lr'])
            values, _ = training.step(parallel, optimizer, scaler, batch(number, side), objective,
                                      job)
            seen.append((torchutils.sum_over_processes(values) / size).cpu())
        found = step_errors(name, torch.stack(seen), rates, before, net)
        if name == 'irn':
            found['mean displacement'] = relative(mean_displacement(net, device, precision),
                                                  STEPS['irn'][
                                                      'displacement_mean_of_batch_means_in_eval'])
    return found


@torch.inference_mode()
def mean_displacement(net: nn.Module, device: torch.device, precision: str) -> torch.Tensor:
    """What IRN's stage stores after its last step: (2,)."""
    net.eval()
    with torchutils.autocast(precision, device):
        means = [net(torchutils.to_device(images, device))[1].float().mean((0, 2, 3))
                 for images in IMAGES]
    return torch.stack(means).mean(0).cpu()


def step_errors(name: str, seen: torch.Tensor, rates: list[float], before: dict[str, torch.Tensor],
                net: nn.Module) -> Errors:
    """The errors that `steps` returns."""
    golden, found, of_sums, of_magnitudes, moved = STEPS[name], {}, {}, {}, 0.0
    found['losses'] = relative(seen[:, 0], golden['losses'])
    if name == 'irn':
        found['parts of the loss'] = relative(seen[:, 1:], golden['parts'])
    if 'lr' in golden:
        found['learning rates'] = relative(torch.tensor(rates, dtype=torch.float64), golden['lr'])
    after = {key: value.double() for key, value in net.state_dict().items()}
    found['weights before'] = max(abs(before[key].sum().item() - total) / absolute
                                  for key, (total, absolute) in golden['before'].items()
                                  if absolute)
    for key, (total, absolute) in golden['after'].items():
        update = after[key] - before[key]
        if key.startswith(FIXED[name]) or 'running_' in key:
            moved = max(moved, update.abs().max().item())
            continue
        total_before, absolute_before = golden['before'][key]
        of_sum = abs(update.sum().item() - (total - total_before))
        of_absolute = abs((after[key].abs() - before[key].abs()).sum().item() -
                          (absolute - absolute_before))
        of_sums[key] = max(of_sum, of_absolute) / update.abs().sum().item()
        if update.dim() > 1:
            of_magnitudes[key] = of_absolute / update.norm().item()
    return found | {'fixed weights': moved, 'weights': float(np.median(list(of_sums.values()))),
                    'worst tensor': max(of_sums.values()),
                    'magnitudes': max(of_magnitudes.values())}


def relative(ours: torch.Tensor, theirs: list) -> float:
    """Largest relative difference."""
    theirs = torch.tensor(theirs, dtype=torch.float64)
    return ((ours.double() - theirs).abs() / theirs.abs()).max().item()
