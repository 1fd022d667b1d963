"""Train the backbone to name drawn objects and their colours: for the sample.

As ImageNet's weights come from naming photographed things and their kinds.

reads: nothing; the crops are drawn (voc12.sample.object_crops), new ones for every epoch
writes: FILE, a state dict with torchvision's names (conv1.weight ... fc.bias), for --pretrained
FILE
command: python script/pretrain_backbone.py --out FILE

Everything after this works with *fixed* batch norm, so the running statistics are measured again at
the end, when the weights no longer change.
"""
import argparse
import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import misc  # noqa: E402, F401 -- before torch

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from misc import ending, imutils, torchutils  # noqa: E402
from misc.data import datasets  # noqa: E402
from misc.files import weights  # noqa: E402
from misc.parsing import Parser  # noqa: E402
from misc.pyutils import UserError, elapsed  # noqa: E402
from net.resnet50 import ResNet50  # noqa: E402
from voc12 import sample  # noqa: E402

N_CLASSES = len(sample.NAMES + sample.DISTRACTORS)
HELD_OUT = 400  # crops, never trained on, for the accuracy


class Classifier(ResNet50):
    """The backbone with batch norm that learns its statistics, global average pooling and
    torchvision's `fc`.
    """

    def __init__(self):
        super().__init__(norm=nn.BatchNorm2d)
        self.fc = nn.Linear(2048, N_CLASSES + len(sample.BODY_COLOURS))
        # every block starts as its shortcut: learns faster from nothing
        for name, module in self.named_modules():
            if name.endswith('.bn3'):
                nn.init.zeros_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> logits (N, classes + colours)."""
        return self.fc(super().forward(x).mean((2, 3)))


def loss_and_right(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the cross-entropies of class and colour, and which classes and colours are named
    rightly.

    logits: (N, classes + colours); labels: (N, 2). Returns a scalar and bool (N, 2).
    """
    parts = logits.float().split([N_CLASSES, len(sample.BODY_COLOURS)], dim=1)
    loss = sum(F.cross_entropy(part, label) for part, label in zip(parts, labels.T, strict=True))
    return loss, torch.stack([part.argmax(1) for part in parts], dim=1) == labels


def batches(images: np.ndarray, labels: np.ndarray, batch_size: int, device: torch.device,
            seed: int | None = None):
    """Yields (normalised (n, 3, H, W), labels (n, 2)).

    With a seed: shuffled, flipped at random, and the short last batch dropped.
    """
    order, flips, stop = np.arange(len(labels)), np.zeros(len(labels), bool), len(labels)
    if seed is not None:
        rng = np.random.default_rng(seed)
        order, flips = rng.permutation(len(labels)), rng.random(len(labels)) < 0.5
        stop = max(1, len(labels) - batch_size + 1)
    mean, std = (torch.from_numpy(values).view(1, 3, 1, 1)
                 for values in (imutils.MEAN, imutils.STD))
    for start in range(0, stop, batch_size):
        chosen = order[start:start + batch_size]
        pixels = images[chosen]
        pixels[flips[chosen]] = pixels[flips[chosen], :, ::-1]
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        yield (x.to(device, memory_format=torch.channels_last),
               torch.from_numpy(labels[chosen]).to(device))


def crops(args: argparse.Namespace, number: int,
          n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The `number`-th set of n (None: an epoch's) crops of this run; 0 is held out."""
    return sample.object_crops(n or args.images, args.size, seed=1000 * args.seed + number)


def train(net: Classifier, args: argparse.Namespace, device: torch.device, precision: str) -> None:
    """SGD with Nesterov's momentum; the learning rate rises over a tenth of the steps and falls as
    a cosine.
    """
    optimizer = torch.optim.SGD(net.parameters(), args.learning_rate, momentum=0.9,
                                weight_decay=1e-4, nesterov=True)
    steps = args.epochs * max(1, args.images // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate,
                                                   total_steps=steps + 1, pct_start=0.15,
                                                   cycle_momentum=False, div_factor=10,
                                                   final_div_factor=100)
    since = time.monotonic()
    # drawn beside the training, an epoch ahead or two
    drawn = datasets.read_ahead(functools.partial(crops, args), range(1, args.epochs + 1),
                                args.num_workers)
    for epoch, of_epoch in enumerate(drawn, 1):
        total, right, seen = 0.0, torch.zeros(2, dtype=torch.int64), 0
        for x, y in batches(*of_epoch, args.batch_size, device, seed=1000 * args.seed + epoch):
            with torchutils.autocast(precision, device):
                logits = net(x)
            loss, named = loss_and_right(logits, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total, right, seen = (total + loss.item() * len(y), right + named.sum(0).cpu(),
                                  seen + len(y))
        if not np.isfinite(total):
            raise UserError(f'the loss is not finite in epoch {epoch}: lower --learning_rate')
        print(f'epoch {epoch}/{args.epochs}  loss {total / seen:.3f}  right: {shares(right, seen)} '
              f' {elapsed(since)}',
              flush=True)


@torch.no_grad()
def measure_statistics(net: Classifier, args: argparse.Namespace, device: torch.device) -> None:
    """Replace the running statistics, that trailed behind the weights, by plain averages under the
    final weights.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    net.train()
    n = min(args.images, 600)
    for x, _ in batches(*crops(args, args.epochs + 1, n), min(n, 4 * args.batch_size), device,
                        seed=args.seed):
        net(x)


@torch.no_grad()
def accuracy(net: Classifier, args: argparse.Namespace, device: torch.device) -> str:
    """The shares of held-out crops whose class and colour are named rightly, with the stored
    statistics.
    """
    net.eval()
    right = sum(loss_and_right(net(x), y)[1].sum(0)
                for x, y in batches(*crops(args, 0, HELD_OUT), 100, device))
    return shares(right, HELD_OUT)


def shares(right: torch.Tensor, seen: int) -> str:
    return f'class {right[0] / seen:.1%}, colour {right[1] / seen:.1%}'


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description='Train the backbone on drawn objects; for the '
                                'drawn sample.',
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', required=True, metavar='FILE', help='state dict to write')
    parser.add_argument('--images', type=int, default=1200,
                        help='crops an epoch, new ones each time')
    parser.add_argument('--size', type=int, default=64, help='their height and width in pixels')
    parser.add_argument('--epochs', type=int, default=7,
                        help='more cost time, and give a few right answers more')
    parser.add_argument('--batch_size', type=int, default=40, help='crops a step')
    parser.add_argument('--learning_rate', type=float, default=0.05, help='at its highest')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the weights, the crops and their order')
    parser.add_argument('--num_workers', type=int, choices=(0, 1), default=1,
                        help='1: crops are drawn beside the training')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--precision', choices=('auto', 'fp32', 'bf16'), default='auto',
                        help='auto: bf16 where the processor has it, else fp32')
    args = parser.parse_args(arguments)
    if (args.images < args.batch_size or args.batch_size < 2 or args.size < 32 or args.epochs < 1
            or args.seed < 0):
        raise UserError('at least --epochs 1, --size 32, --batch_size 2, --seed 0, and --images '
                        'not below --batch_size')
    return args


def main(arguments: list[str] | None = None) -> int:
    return ending.run(lambda: run(arguments), lambda want: 'a smaller --batch_size or --size')


def run(arguments: list[str] | None) -> None:
    args = parse(arguments)
    device = torchutils.choose_device(args.device)
    precision = torchutils.choose_precision(args.precision, device)
    torch.manual_seed(args.seed)
    net = Classifier().to(device, memory_format=torch.channels_last)
    print(f'{args.epochs} epochs of {args.images} crops of {args.size} px on {device}, {precision}',
          flush=True)
    train(net, args, device, precision)
    measure_statistics(net, args, device)
    share = accuracy(net, args, device)
    weights.write({key: value.cpu().contiguous() for key, value in net.state_dict().items()},
                  args.out)
    print(f'{args.out}: right on {HELD_OUT} held-out crops: {share}')


if __name__ == '__main__':
    sys.exit(main())
