"""One piece of work by a checkout of the authors' code, timed: what script/benchmark.py --against
starts.

    python script/benchmark_authors.py CHECKOUT CASE GIVEN RESULT

GIVEN (torch.save): the machine's part, weights and inputs; RESULT (JSON): seconds, or why not. A
process of its own, which imports nothing of this project: the modules of both have the same names.
As their stages do it, in float32: reading, saving and what only prepares labels are left out.
"""
import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

Given = dict[str, Any]  # device, threads, repeat, and what a case needs


def module(name: str, checkout: Path) -> Any:
    """Import a module of the checkout. Raises ImportError where another one answers."""
    found = importlib.import_module(name)
    if not Path(found.__file__).resolve().is_relative_to(checkout):
        raise ImportError(f'{name} is taken from {found.__file__}', name=name)
    return found


def network(name: str, kind: str, given: Given, checkout: Path, *values: Any) -> nn.Module:
    """Build the class `kind` of net.resnet50_NAME with the weights given, and fetch none."""
    backbone = {key.removeprefix('resnet50.'): value for key, value in given['weights'].items()
                if key.startswith('resnet50.')}
    backbone |= {f'fc.{what}': torch.zeros(1) for what in ('weight', 'bias')}  # they leave it out
    with mock.patch('torch.hub.load_state_dict_from_url', lambda *_, **__: dict(backbone)), \
            mock.patch('torch.utils.model_zoo.load_url', lambda *_, **__: dict(backbone)):
        net = getattr(module(f'net.resnet50_{name}', checkout), kind)(*values)
    unknown = net.load_state_dict(given['weights'], strict=False).unexpected_keys
    if unknown:
        raise ValueError(f'its network has no {unknown[0]}')
    return net.to(given['device'])


def case_make_cam(given: Given, checkout: Path) -> Callable[[], Any]:
    net = network('cam', 'CAM', given, checkout)
    return _activations(net, given, lambda pair: net(pair))


def case_make_amn_cam(given: Given, checkout: Path) -> Callable[[], Any]:
    net = network('amn', 'CAM', given, checkout)
    labels = given['labels'].to(given['device']).expand(2, -1)
    return _activations(net, given, lambda pair: net(pair, labels))


def _activations(net: nn.Module, given: Given, forward: Callable) -> Callable[[], Any]:
    """An image and its mirror through the network, at each scale."""
    net.eval()
    pairs = [torch.cat([one, one.flip(-1)]).to(given['device']) for one in given['images']]

    def work() -> None:
        with torch.no_grad():
            for pair in pairs:
                forward(pair)
    return work


def case_train_cam(given: Given, checkout: Path) -> Callable[[], Any]:
    net = network('cam', 'Net', given, checkout)
    image, labels = (given[name].to(given['device']) for name in ('image', 'labels'))
    return _steps(net, sgd(net, checkout),
                  lambda: F.multilabel_soft_margin_loss(net(image), labels))


def case_train_amn(given: Given, checkout: Path) -> Callable[[], Any]:
    net = network('amn', 'Net', given, checkout)
    image, labels, label_map = (given[name].to(given['device'])
                                for name in ('image', 'labels', 'label_map'))
    of_backbone, of_heads = net.trainable_parameters()
    adam = torch.optim.Adam([{'params': of_backbone, 'lr': 5e-6}, {'params': of_heads, 'lr': 1e-4}],
                            weight_decay=1e-4)

    def loss() -> torch.Tensor:
        logits = net(image, labels)
        n_others = logits.shape[1] - 1
        target = torch.full_like(logits, given['eps'] / n_others)
        target.scatter_(1, label_map[:, None], 1 - given['eps'])
        of_pixels = -(F.log_softmax(logits, 1) * target).sum(1)
        halves = [(of_pixels * which).sum() / which.sum() for which in (label_map == 0,
                                                                        label_map > 0)]
        return sum(halves) / 2
    return _steps(net, adam, loss)


def case_train_irn(given: Given, checkout: Path) -> Callable[[], Any]:
    index = module('misc.indexing', checkout).PathIndex(
        radius=10, default_size=tuple(given['label_map'].shape[1:]))
    net = network('irn', 'AffinityDisplacementLoss', given, checkout, index)
    image = given['image'].to(given['device'])
    flat = given['label_map'].flatten(1)
    source, end = flat[:, index.src_indices][:, None], flat[:, index.dst_indices]
    background, foreground, negative = (pairs.float().to(given['device']) for pairs in (
        (source == end) & (source == 0), (source == end) & (source > 0), source != end))

    def mean(values: torch.Tensor, pairs: torch.Tensor, channels: int = 1) -> torch.Tensor:
        return (values * pairs).sum() / (channels * pairs.sum() + 1e-5)

    def loss() -> torch.Tensor:
        positive, of_negative, of_foreground, of_background = net(image, True)
        affinity = (mean(positive, background) + mean(positive, foreground)) / 2 + mean(
            of_negative, negative)
        return (affinity + mean(of_foreground, foreground[:, None], 2)
                + mean(of_background, background[:, None], 2)) / 2
    return _steps(net, sgd(net, checkout), loss)


def sgd(net: nn.Module, checkout: Path) -> torch.optim.Optimizer:
    """Build their optimizer of CAM and IRN."""
    first, second = net.trainable_parameters()
    return module('misc.torchutils', checkout).PolyOptimizer(
        [{'params': first, 'lr': 0.01, 'weight_decay': 1e-4},
         {'params': second, 'lr': 0.1, 'weight_decay': 1e-4}],
        lr=0.01, weight_decay=1e-4, max_step=1000)


def _steps(net: nn.Module, optimizer: torch.optim.Optimizer,
           loss: Callable[[], torch.Tensor]) -> Callable[[], Any]:
    net.train()

    def work() -> None:
        value = loss()
        value.item()  # they log it, in every step
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return work


def case_refine(given: Given, checkout: Path) -> Callable[[], Any]:
    refine = module('misc.imutils', checkout).crf_inference_label
    image, labelings = given['image'].numpy(), [each.numpy() for each in given['labelings']]
    return lambda: [refine(image, labeling, n_labels=given['n_labels']) for labeling in labelings]


def case_walk(given: Given, checkout: Path) -> Callable[[], Any]:
    walk = module('misc.indexing', checkout).propagate_to_edge
    x, edge = (given[name].to(given['device']) for name in ('x', 'edge'))

    def work() -> None:
        with torch.no_grad():
            walk(x, edge, radius=5, beta=10, exp_times=8)
    return work


CASES = {name.removeprefix('case_'): work for name, work in list(globals().items())
         if name.startswith('case_')}


def seconds(work: Callable[[], Any], given: Given) -> float:
    """Return the median time of a call, after one that warms up."""
    def once() -> float:
        since = time.perf_counter()
        work()
        if given['device'].startswith('cuda'):
            torch.cuda.synchronize()
        return time.perf_counter() - since
    once()
    return statistics.median(once() for _ in range(given['repeat']))


def why_not(error: Exception, device: str) -> str:
    """Return in a few words why a case cannot be run."""
    if isinstance(error, ModuleNotFoundError):
        return f'needs {error.name}'
    text = str(error).partition('\n')[0]
    if device == 'cpu' and any(word in text for word in ('CUDA', 'cuda', 'NVIDIA')):
        return 'CUDA is hard-wired'
    return f'{type(error).__name__}: {text}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('checkout', 'case', 'given', 'result'):
        parser.add_argument(name)
    args = parser.parse_args()
    checkout = Path(args.checkout).resolve()
    ours = Path(__file__).resolve().parent
    sys.path[:] = [str(checkout), *(each for each in sys.path
                                    if Path(each).resolve() not in (ours, ours.parent))]
    sys.dont_write_bytecode = True  # nothing is left in the checkout
    os.chdir(checkout)
    given = torch.load(args.given, weights_only=True)
    torch.set_num_threads(given['threads'])
    torch.manual_seed(0)
    try:
        result = {'seconds': seconds(CASES[args.case](given, checkout), given)}
    except Exception as error:  # whatever a checkout does: its row of the table says it
        result = {'why_not': why_not(error, given['device'])}
    Path(args.result).write_text(json.dumps(result), encoding='utf-8')


if __name__ == '__main__':
    main()
