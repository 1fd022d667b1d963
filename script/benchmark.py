"""Time each stage's work on drawn images, against the machine's limit and against plain references,
in one run.

    python script/benchmark.py [--stages make_cam refine ...] [--size 375 500] [--device cpu]
    [--json FILE] [--against CHECKOUT_OF_THE_AUTHORS_CODE]

Every case runs in a process of its own, so that its peak memory is its own. "of limit": the
floating-point rate of the network part against a matrix product of the same precision measured
here; for the rest, the bytes that the work cannot do without (see each case) against the rate at
which memory is copied here. "plain": the same work done the plain way (see each case), and how many
times longer it takes. --against: the same by the authors' code (script/benchmark_authors.py), in
float32, and how many times longer than what the plain way is compared with.
"""
import argparse
import functools
import importlib.util
import json
import math
import multiprocessing
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import misc  # noqa: E402, F401 -- before torch

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from misc import ending, imutils, indexing, inference, networks, torchutils, training  # noqa: E402
from misc.contract.settings import (  # noqa: E402
    AmnTraining,
    InstanceMasks,
    SegMaps,
    SegTraining,
)
from misc.data import datasets  # noqa: E402
from misc.files import activations  # noqa: E402
from misc.method import (
    activating,  # noqa: E402
    crf,  # noqa: E402
    instances,  # noqa: E402
    losses,  # noqa: E402
    maps,  # noqa: E402
    objectives,  # noqa: E402
    seeds,  # noqa: E402
    segmentation,  # noqa: E402
    walking,  # noqa: E402
)
from misc.parsing import Parser  # noqa: E402
from misc.pyutils import UserError, write_json  # noqa: E402
from misc.score import scores  # noqa: E402
from net import resnet50_amn, resnet50_cam, resnet50_irn, resnet101_deeplab  # noqa: E402
from step import train_amn, train_seg  # noqa: E402
from voc12 import sample  # noqa: E402

SCALES = [1.0, 0.5, 1.5, 2.0]
CLASSES = 20  # as VOC has them: the size of the heads


def drawn_image(args: argparse.Namespace) -> np.ndarray:
    """A drawn scene, resized to the size asked for: uint8 (H, W, 3)."""
    return imutils.resize(sample.scene(0, size=max(args.size)).image, tuple(args.size))


def seconds(work: Callable[[], Any], args: argparse.Namespace) -> float:
    """Median time of a call, after one that warms up."""
    def once() -> float:
        since = time.perf_counter()
        work()
        if args.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - since
    once()
    return float(np.median([once() for _ in range(args.repeat)]))


def plain_seconds(work: Callable[[], Any], args: argparse.Namespace) -> float:
    """`seconds` of the plain way; nan where --no_plain leaves it out."""
    return math.nan if args.no_plain else seconds(work, args)


def gigaflop(work: Callable[[], Any]) -> float:
    """Floating-point operations of the matrix products and convolutions of a call, in 1e9."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def matrix_rate(args: argparse.Namespace) -> float:
    """GFLOP/s of a matrix product in the precision asked for: what no network can beat."""
    if args.device.type == 'cuda':  # as convolutions are computed: in TF32, where torch may
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    side = 4096 if args.device.type == 'cpu' else 8192
    a = torch.randn(side, side, device=args.device).to(torchutils.PRECISIONS[args.precision])
    return 2 * side ** 3 / 1e9 / seconds(lambda: a @ a, args)


def copy_rate(args: argparse.Namespace) -> float:
    """GB/s read and written when memory is copied: what nothing that streams its data can beat."""
    source = torch.zeros(2 ** 28, dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / 1e9 / seconds(lambda: target.copy_(source), args)


# ---- the cases: each returns what one image takes (seconds), its network's operations, and the
# plain way's time ----

def case_make_cam(args: argparse.Namespace) -> dict[str, Any]:
    """Decode, resize, four scales and mirrors, save. Plain: the network alone, float32, contiguous,
    norms apart.
    """
    net = resnet50_cam.Net(CLASSES)
    return _inference_case(args, net, lambda x: net.activations(x), lambda images,
                           hw: activating.cams_of(
        net, [np.array([0, 1])], hw, images, args.device, args.precision)[0])


def case_make_amn_cam(args: argparse.Namespace) -> dict[str, Any]:
    """Decode, resize, four scales and mirrors, softmax, save. Plain: the network alone, float32,
    contiguous.
    """
    net, y = resnet50_amn.Net(CLASSES), torch.zeros(1, CLASSES, device=args.device)
    y[0, :2] = 1
    present, seed = y[0].bool().cpu().numpy(), np.full(tuple(args.size), 255, np.uint8)
    return _inference_case(args, net, lambda x: net(x, y.expand(len(x), -1)), lambda images,
                           hw: activating.amn_cams_of(
        net, [present], [seed], images, args.device, args.precision)[0])


def _inference_case(args: argparse.Namespace, net: torch.nn.Module, forward: Callable,
                    stage: Callable) -> dict[str, Any]:
    image = drawn_image(args)
    images = maps.together([datasets.scaled_images(image, SCALES)], args.device)
    net.to(args.device).eval()

    def plain() -> None:
        with torch.inference_mode():
            for one in images:
                forward(torch.cat([one, one.flip(-1)]))

    of_plain, work = plain_seconds(plain, args), gigaflop(plain)
    networks.prepare(net, args.device, args.precision)

    def network() -> None:
        with torch.inference_mode(), torchutils.autocast(args.precision, args.device):
            for one in images:
                maps.with_mirror(forward, one)

    network_seconds = seconds(network, args)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'image.jpg'
        imutils.Image.fromarray(image).save(path)
        number = 2 * args.repeat
        names = [str(n) for n in range(number)]

        def whole() -> None:
            with inference.Images(names, lambda name: False, args.num_workers, args.device) as todo:
                for name, scales in todo.todo(
                    lambda name: datasets.scaled_images(imutils.read_image(path), SCALES)):
                    found = stage(maps.together([scales], args.device), image.shape[:2])
                    todo.save(name, activations.save, folder, name, found)

        stage_seconds = seconds(whole, argparse.Namespace(device=args.device, repeat=1)) / number
    return {'seconds': stage_seconds, 'network': network_seconds, 'gflop': work,
            'plain': of_plain, 'plain_what': 'network in float32, contiguous',
            'compared': network_seconds}


def case_train_cam(args: argparse.Namespace) -> dict[str, Any]:
    """A step of CAM at the crop asked for. Plain: float32, contiguous."""
    net = resnet50_cam.Net(CLASSES)
    return _training_case(args, net, training.sgd(net.parameter_groups(), 0.01, 1e-4, 1e-4),
                          objectives.ImageClassification(None, args.device))


def case_train_amn(args: argparse.Namespace) -> dict[str, Any]:
    """A step of AMN at the crop asked for. Plain: float32, contiguous."""
    net = resnet50_amn.Net(CLASSES)
    return _training_case(args, net, train_amn.adam(net, AmnTraining()),
                          objectives.PixelClassification(AmnTraining(), args.device), 16)


def case_train_irn(args: argparse.Namespace) -> dict[str, Any]:
    """A step of IRN at the crop asked for. Plain: float32, contiguous."""
    net = resnet50_irn.Net()
    return _training_case(args, net, training.sgd(net.parameter_groups(), 0.01, 1e-4, 1e-4),
                          objectives.PixelPairs(None, args.device), 4)


def case_train_seg(args: argparse.Namespace) -> dict[str, Any]:
    """A step of the segmentation network at the crop asked for. Plain: float32, contiguous."""
    settings, net = SegTraining(), resnet101_deeplab.Net(CLASSES)
    sizes = segmentation.output_sizes(net, args.crop, settings.scales)
    return _training_case(args, net, train_seg.sgd(net, settings),
                          objectives.Segmentation(settings, args.device, sizes), 1)


def _training_case(args: argparse.Namespace, net: torch.nn.Module, optimizer: torch.optim.Optimizer,
                   objective: objectives.Objective, stride: int = 4) -> dict[str, Any]:
    batch = training_batch(args, stride)
    if args.device.type == 'cuda':
        # as the stages read them
        batch = {name: values.pin_memory() for name, values in batch.items()}
    scaler = torch.amp.GradScaler(args.device.type, enabled=args.precision == 'fp16')
    net.to(args.device).train()

    def job(precision: str) -> Callable[[], None]:
        settings = training.Training('benchmark', 'unused.pth', {}, args.batch, 1, 0, args.device,
                                     precision, 0, False)
        learner = objectives.Learner(net, objective)
        return lambda: training.step(learner, optimizer, scaler, batch, objective, settings)

    plain, threads = plain_seconds(job('fp32'), args), torch.get_num_threads()
    torch.set_num_threads(1)  # a step's own threads are not seen by the counter
    work = gigaflop(job('fp32'))
    torch.set_num_threads(threads)
    net.to(memory_format=torch.channels_last)
    taken = seconds(job(args.precision), args)
    return {'seconds': taken / args.batch, 'network': taken / args.batch,
            'gflop': work / args.batch,
            'plain': plain / args.batch, 'plain_what': 'float32, contiguous',
            'compared': taken / args.batch}


def training_batch(args: argparse.Namespace, stride: int) -> dict[str, torch.Tensor]:
    """A batch of noise, in whose label maps each image has blocks of background and two classes."""
    side = (args.crop - 1) // stride + 1
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 3, (args.batch, 4, 4)).repeat(-(-side // 4),
                                                           1).repeat(-(-side // 4), 2)
    return {'image': torch.randn(args.batch, 3, args.crop, args.crop),
            'index': torch.arange(args.batch),
            'labels': torch.from_numpy(rng.integers(0, 2,
                                                    (args.batch, CLASSES)).astype(np.float32)),
            'label_map': torch.from_numpy(blocks[:, :side, :side].copy()),
            'dropout_seed': torch.arange(args.batch)}


def case_refine(args: argparse.Namespace) -> dict[str, Any]:
    """Two labelings of an image with two classes through the dense CRF. Plain: by pydensecrf2."""
    image, labelings = drawn_image(args), two_labelings(args)
    return _against_pydensecrf(args, lambda: crf.dense_crf(image, labelings, 3), image,
                               [label_energy(labeling, 3) for labeling in labelings], crf.SEEDS)


def case_refine_segmentation(args: argparse.Namespace) -> dict[str, Any]:
    """The segmentation network's probabilities, of all classes, through the dense CRF. Plain: by
    pydensecrf2.
    """
    image, planes = drawn_image(args), np.exp(6 * _smooth_planes(args, CLASSES + 1))
    probabilities = planes / planes.sum(0)
    return _against_pydensecrf(args, lambda: crf.refine_probabilities(image, probabilities), image,
                               [-np.log(probabilities.reshape(len(planes), -1))], crf.SEGMENTATION)


def two_labelings(args: argparse.Namespace) -> list[np.ndarray]:
    """The label maps of two classes' activations at AMN's thresholds."""
    planes = _smooth_planes(args, 2)
    return [seeds.arg_max(planes, threshold) for threshold in (0.45, 0.15)]


def _smooth_planes(args: argparse.Namespace, number: int) -> np.ndarray:
    """Enlarged noise, as activations are: float32 (number, H, W), 0 to 1."""
    rng = np.random.default_rng(0)
    return np.stack([imutils.resize((rng.random((8, 8, 3)) * 255).astype(np.uint8),
                                    tuple(args.size))[..., 0] / 255
                     for _ in range(number)]).astype(np.float32)


def _against_pydensecrf(args: argparse.Namespace, ours: Callable[[], Any], image: np.ndarray,
                        energies: list[np.ndarray], terms: crf.Terms) -> dict[str, Any]:
    taken = seconds(ours, args)
    if importlib.util.find_spec('pydensecrf') is None:
        return {'seconds': taken, 'plain': math.nan,
                'plain_what': 'pydensecrf2, which is not installed', 'compared': taken}
    return {'seconds': taken,
            'plain': plain_seconds(lambda: by_pydensecrf(image, energies, terms), args),
            'plain_what': 'pydensecrf2', 'compared': taken}


def by_pydensecrf(image: np.ndarray, energies: list[np.ndarray],
                  terms: crf.Terms) -> list[np.ndarray]:
    """pydensecrf's arg max (H, W) for each unary energy (n, H*W), the lattices built once."""
    from pydensecrf import densecrf
    height, width = image.shape[:2]
    field = densecrf.DenseCRF2D(width, height, len(energies[0]))
    field.addPairwiseGaussian(sxy=terms.gaussian_sxy, compat=terms.gaussian_compat)
    field.addPairwiseBilateral(sxy=terms.bilateral_sxy, srgb=terms.bilateral_srgb,
                               rgbim=np.require(image, np.uint8, 'CW'),
                               compat=terms.bilateral_compat)
    refined = []
    for energy in energies:
        field.setUnaryEnergy(np.ascontiguousarray(energy, np.float32))
        refined.append(np.argmax(field.inference(10), 0).reshape(height, width))
    return refined


def label_energy(labeling: np.ndarray, n_labels: int) -> np.ndarray:
    """-log of the certainty at each pixel's label, of an equal share of the rest elsewhere: (n,
    H*W).
    """
    return -np.log(np.where(labeling.ravel() == np.arange(n_labels)[:, None], crf.CERTAINTY,
                            (1 - crf.CERTAINTY) / (n_labels - 1)))


def case_refine_parallel(args: argparse.Namespace) -> dict[str, Any]:
    """The same for several images, by a process for each core. Plain: in one process."""
    image, cores = drawn_image(args), torchutils.cores()
    labelings = [np.indices(image.shape[:2]).sum(0) // 40 % 3 for _ in range(2)]
    names = [str(number) for number in range(4 * cores)]
    once = argparse.Namespace(device=args.device, repeat=1)

    def refine(name: str) -> None:
        crf.dense_crf(image, labelings, 3)

    def all_of_them(workers: int) -> None:
        with inference.Images(names, lambda name: False, workers) as images:
            images.make(refine)

    taken, alone = (seconds(functools.partial(all_of_them, workers), once) / len(names)
                    for workers in (cores, 0))
    return {'seconds': taken, 'plain': alone, 'plain_what': 'one process', 'compared': taken}


def case_walk(args: argparse.Namespace) -> dict[str, Any]:
    """The walk of two classes by a sparse matrix. Bytes: in each step every number of the matrix
    with its column, and both
    vectors. Plain: by planes, each the map shifted by an offset."""
    x, edge = walked_planes(args)
    taken = seconds(lambda: indexing.propagate_to_edge(x, edge), args)
    matrix = indexing._transitions(edge[0].double(), 5, 10)
    step = matrix.values().numel() * (8 + 4) + len(matrix) * (4 + 2 * len(x) * 8)
    return {'seconds': taken, 'gigabyte': 2 ** 8 * step / 1e9,
            'plain': plain_seconds(lambda: walk_by_planes(x, edge), args),
            'plain_what': 'by shifted planes', 'compared': taken}


def walked_planes(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations (2, h, w) and boundaries (1, h, w) of noise."""
    h, w = maps.strided_hw(tuple(args.size))
    return torch.rand(2, h, w, device=args.device), torch.rand(1, h, w, device=args.device)


def walk_by_planes(x: torch.Tensor, edge: torch.Tensor, radius: int = 5, beta: float = 10,
                   exp_times: int = 8) -> torch.Tensor:
    """The walk without a matrix: a plane of weights for each of the 69 steps. (K, h, w), float64.
    """
    h, w = edge.shape[1:]
    weights, steps = indexing._move_weights(edge[0].double(), radius, beta)
    weights = (weights / weights.sum(2, keepdim=True)).permute(2, 0, 1).contiguous()
    x = x.double() * (1 - edge.double())
    for _ in range(2 ** exp_times):
        framed = torch.nn.functional.pad(x, (radius - 1,) * 4)
        x = torch.zeros_like(x)
        for plane, (dy, dx) in zip(weights, steps, strict=True):
            x.addcmul_(plane, framed[:, radius - 1 + dy:radius - 1 + dy + h,
                                     radius - 1 + dx:radius - 1 + dx + w])
    return x


def case_make_sem_seg(args: argparse.Namespace) -> dict[str, Any]:
    """Edge map of an image and its mirror, walk of two classes. Plain: the walk by a dense matrix,
    on a 48 x 48 map, against the sparse one there.
    """
    net = resnet50_irn.Net()
    networks.prepare(net, args.device, args.precision)
    image, = maps.together([datasets.scaled_images(drawn_image(args), [1.0])], args.device)
    hw = tuple(args.size)
    strided = torch.rand(2, *maps.strided_hw(hw), device=args.device)
    work = gigaflop(lambda: walking.edge_of(net, image, args.precision, 512))
    network = seconds(lambda: walking.edge_of(net, image, args.precision, 512), args)
    edge = torch.rand(1, *maps.strided_hw(hw), device=args.device)
    walk = seconds(lambda: walking.planes_of(activations.Walked(
        np.arange(2), walking.walk(strided, edge, 1.3, 10, 8).cpu().numpy(), np.array(hw))), args)
    small, small_edge = torch.rand(2, 48, 48,
                                   device=args.device), torch.rand(1, 48, 48, device=args.device)
    return {'seconds': network + walk, 'network': network, 'gflop': work, 'walk': walk,
            'plain': plain_seconds(lambda: dense_walk(small, small_edge), args),
            'plain_what': 'dense walk, 48 x 48 map',
            'compared': seconds(lambda: indexing.propagate_to_edge(small, small_edge), args)}


def case_make_ins_seg(args: argparse.Namespace) -> dict[str, Any]:
    """Edge and displacement map of an image and its mirror, instances of two classes by one core.
    Plain: the same with the network in float32, contiguous.
    """
    net, hw, settings = resnet50_irn.Net(), tuple(args.size), InstanceMasks()
    image, = maps.together([datasets.scaled_images(drawn_image(args), [1.0])], args.device)
    net.to(args.device).eval()

    def fields(precision: str) -> tuple[torch.Tensor, ...]:
        return walking.edge_and_displacement(net, image, precision, settings.canvas)

    def found() -> Any:
        return instances.find(np.arange(2), strided, edge, displacement, settings.bg_thres,
                              settings.beta, settings.exp_times, hw)

    of_plain, work = plain_seconds(lambda: fields('fp32'), args), gigaflop(lambda: fields('fp32'))
    networks.prepare(net, args.device, args.precision)
    network = seconds(lambda: fields(args.precision), args)
    edge, displacement = (field.float().cpu() for field in fields(args.precision))
    strided = torch.rand(2, *edge.shape[1:])
    finding = seconds(found, args)
    return {'seconds': network + finding, 'network': network, 'gflop': work, 'finding': finding,
            'plain': of_plain, 'plain_what': 'network in float32, contiguous',
            'compared': network}


def case_make_seg(args: argparse.Namespace) -> dict[str, Any]:
    """The segmentation network's label map of an image at its scales. Plain: float32, contiguous.
    """
    net, settings, hw = resnet101_deeplab.Net(CLASSES), SegMaps(), tuple(args.size)
    image, = maps.together([datasets.scaled_images(drawn_image(args), [1.0])], args.device)
    net.to(args.device).eval()

    def label_map(precision: str) -> torch.Tensor:
        with torch.inference_mode():
            return segmentation.label_map(segmentation.predict(
                net, image, settings.scales, settings.flip, args.device, precision), hw)

    of_plain = plain_seconds(lambda: label_map('fp32'), args)
    work = gigaflop(lambda: label_map('fp32'))
    networks.prepare(net, args.device, args.precision)
    taken = seconds(lambda: label_map(args.precision), args)
    return {'seconds': taken, 'network': taken, 'gflop': work, 'plain': of_plain,
            'plain_what': 'float32, contiguous', 'compared': taken}


def dense_walk(x: torch.Tensor, edge: torch.Tensor, radius: int = 5, beta: float = 10,
               exp_times: int = 8) -> torch.Tensor:
    """The walk as published: a dense matrix over all pairs of positions, squared again and again.
    (K, h, w).
    """
    h, w = edge.shape[1:]
    position = torch.arange(h * w, device=x.device).view(h, w)
    affinity = torch.eye(h * w, dtype=edge.dtype, device=x.device)
    for dy, dx in indexing.offsets(radius):
        rows, left, right = h - dy, max(-dx, 0), w - max(dx, 0)
        largest = torch.stack([edge[0, y:y + rows, left + u:right + u]
                               for y, u in indexing.pair_path(dy, dx)]).amax(0)
        source, end = position[:rows,
                               left:right].flatten(), position[dy:, left + dx:right + dx].flatten()
        affinity[source, end] = affinity[end, source] = 1 - largest.flatten()
    transition = affinity ** beta
    transition = transition / transition.sum(0)
    for _ in range(exp_times):
        transition = transition @ transition
    return ((x * (1 - edge)).flatten(1) @ transition).view_as(x)


def case_pair_losses(args: argparse.Namespace) -> dict[str, Any]:
    """IRN's losses and their gradient for a crop. Bytes: an affinity, a displacement (2) and their
    gradients, each written
    and read once a pair. Plain: by tables of indices, all paths at once, as published."""
    side = (args.crop - 1) // 4 + 1
    edge = torch.rand(1, 1, side, side, device=args.device, requires_grad=True)
    displacement = torch.rand(1, 2, side, side, device=args.device, requires_grad=True)
    label_map = torch.randint(0, 3, (1, side // 8 + 1, side // 8 + 1), device=args.device)
    label_map = label_map.repeat_interleave(8,
                                            1).repeat_interleave(8, 2)[:, :side, :side].contiguous()

    def ours() -> None:
        losses.irn_loss(losses.affinity_losses(edge, displacement, label_map)).backward()

    def tables() -> None:
        indexed_affinities(edge).clamp(1e-5).log().sum().backward()

    taken = seconds(ours, args)
    pairs = len(indexing.offsets(10)) * indexing.shifted(label_map, 10).numel()
    return {'seconds': taken, 'gigabyte': pairs * 2 * 2 * 3 * 4 / 1e9,
            'plain': plain_seconds(tables, args), 'plain_what': 'affinities alone, by index tables',
            'compared': taken}


def indexed_affinities(edge: torch.Tensor, radius: int = 10) -> torch.Tensor:
    """Affinity of every pair by tables of indices: (N, 1, h, w) -> (N, offsets, sources)."""
    h, w = edge.shape[2:]
    positions = torch.arange(h * w, device=edge.device).view(h, w)
    tables: dict[int, list[torch.Tensor]] = {}
    for dy, dx in indexing.offsets(radius):
        path = indexing.pair_path(dy, dx)
        steps = [indexing.shifted(positions, radius, step).flatten() for step in path]
        tables.setdefault(len(path), []).append(torch.stack(steps))
    flat = edge.flatten(1)
    return torch.cat([1 - flat[:, torch.stack(rows)].amax(2) for rows in tables.values()], 1)


def case_score(args: argparse.Namespace) -> dict[str, Any]:
    """mIoU at 101 thresholds of two activation planes in one pass. Bytes: planes and truth, read
    once. Plain: an arg max and a confusion matrix for each of 10 thresholds, times 10.1.
    """
    rng = np.random.default_rng(0)
    planes, keys = rng.random((2, *args.size), np.float32), np.array([0, 1])
    truth = rng.integers(0, 3, tuple(args.size)).astype(np.uint8)

    def plain() -> None:
        for threshold in np.arange(10) / 10:
            scores.truth_and_map(truth, seeds.mask_of(keys, planes, threshold),
                                 CLASSES)

    taken = seconds(lambda: scores.truth_and_activation(truth, keys, planes, CLASSES,
                                                        np.array(scores.GRID)), args)
    return {'seconds': taken, 'gigabyte': (planes.nbytes + truth.nbytes) / 1e9,
            'plain': 10.1 * plain_seconds(plain, args), 'plain_what': 'one evaluation a threshold',
            'compared': taken}


# ---- the authors' code: what it is given, and what it took ----

def given_to_authors(name: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a case is made from, as the case itself makes it; None where theirs has nothing like it.
    """
    torch.manual_seed(0)  # as measure_case
    if name in ('make_cam', 'train_cam'):
        weights = resnet50_cam.Net(CLASSES).state_dict()
    elif name in ('make_amn_cam', 'train_amn'):
        weights = resnet50_amn.Net(CLASSES).state_dict()
    elif name == 'train_irn':
        weights = resnet50_irn.Net().state_dict()
    if name.startswith('make_') and name != 'make_sem_seg':
        images = maps.together([datasets.scaled_images(drawn_image(args), SCALES)],
                               torch.device('cpu'))
        return {'weights': weights, 'images': [image.contiguous() for image in images],
                'labels': (torch.arange(CLASSES) < 2).float()}
    if name.startswith('train_'):
        return {'weights': weights, 'eps': AmnTraining().eps,
                **training_batch(args, 16 if name == 'train_amn' else 4)}
    if name == 'refine':
        return {'image': torch.from_numpy(drawn_image(args)), 'n_labels': 3,
                'labelings': [torch.from_numpy(each) for each in two_labelings(args)]}
    if name == 'walk':
        return dict(zip(('x', 'edge'), (each.cpu() for each in walked_planes(args)), strict=True))
    return None


def by_authors(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time a case by the checkout: {'seconds': of an image} or {'why_not': a few words}."""
    given = given_to_authors(name, args)
    if given is None:
        return {'why_not': 'nothing alike'}
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / each) for each in ('given.pt', 'result.json')]
        torch.save(given | {'device': args.device, 'threads': torch.get_num_threads(),
                            'repeat': args.repeat}, paths[0])
        ended = subprocess.run([sys.executable, Path(__file__).with_name('benchmark_authors.py'),
                                args.against, name, *paths], capture_output=True, text=True)
        if ended.returncode:  # ended by the system, for want of memory as a rule
            last = (ended.stderr.splitlines() or [''])[-1]
            return {'why_not': f'ended with exit code {ended.returncode} {last}'.rstrip()}
        result = json.loads(Path(paths[1]).read_text(encoding='utf-8'))
    if 'seconds' in result and name.startswith('train_'):
        result['seconds'] /= args.batch
    return result


def authors_columns(result: dict[str, Any]) -> tuple[str, str]:
    """Of the table: their seconds, and times that they take longer, or why there are none."""
    authors = result['authors']
    if 'why_not' in authors:
        return '-', authors['why_not']
    return f'{authors["seconds"]:.3f}', f'{authors["seconds"] / result["compared"]:.1f}'


CASES = {name.removeprefix('case_'): work for name, work in list(globals().items())
         if name.startswith('case_')}


def run_case(name: str, args: argparse.Namespace, results: Any) -> None:
    """A case in its own process, which ends with the exit code of a command."""
    sys.exit(ending.run(lambda: measure_case(name, args, results), remedy))


def remedy(want: str) -> str:
    return 'a smaller --batch, --crop or --size'


def measure_case(name: str, args: argparse.Namespace, results: Any) -> None:
    """Put what a case tells, and its peak memory, into `results`."""
    args.device = torchutils.choose_device(args.device)
    torch.manual_seed(0)
    result = CASES[name](args)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if args.device.type == 'cuda':
        used = torch.cuda.max_memory_allocated(args.device)
    results.put({'stage': name, 'peak_memory_gb': used / 2 ** 30, **result})


def main() -> int:
    parser = Parser(description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--stages', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--size', type=int, nargs=2, default=[375, 500], metavar=('H', 'W'),
                        help='of an image [375 500]')
    parser.add_argument('--crop', type=int, default=512, help='of a training image [512]')
    parser.add_argument('--batch', type=int, default=4, help='training images a step [4]')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', choices=tuple(torchutils.PRECISIONS), default='bf16',
                        help='[bf16]')
    parser.add_argument('--num_workers', type=int, default=1, help='that decode ahead [1]')
    parser.add_argument('--repeat', type=int, default=3,
                        help='calls of which the median counts [3]')
    parser.add_argument('--no_plain', action='store_true', help='leave the plain ways out')
    parser.add_argument('--against', metavar='DIR', help="a checkout of the authors' code, whose "
                        'modules do the same work in the same run; where one cannot, its row says '
                        'why')
    parser.add_argument('--json', metavar='FILE', help='write the results here, too')
    args = parser.parse_args()
    return ending.run(lambda: run(args), remedy)


def plain_columns(result: dict[str, Any]) -> tuple[str, str, str]:
    """Of the table: seconds of the plain way, times that it takes longer, and what it is."""
    if math.isnan(result['plain']):
        return '-', '-', result['plain_what']
    return (f'{result["plain"]:.3f}', f'{result["plain"] / result["compared"]:.1f}',
            result['plain_what'])


def run(args: argparse.Namespace) -> None:
    args.eps, args.amn_balanced, args.amn_learning_rate, args.amn_weight_decay = 0.4, True, [
        5e-6, 1e-4], 1e-4
    args.device = torchutils.choose_device(args.device)
    args.precision = torchutils.choose_precision(args.precision, args.device)
    if args.against is not None and not (Path(args.against) / 'net' / 'resnet50_cam.py').is_file():
        raise UserError(f"--against {args.against}: no checkout of the authors' code (no "
                        f'net/resnet50_cam.py in it)')
    rate, bytes_rate = matrix_rate(args), copy_rate(args)
    args.device = str(args.device)
    rows, results = [], []
    context = multiprocessing.get_context('spawn')
    for name in args.stages:
        queue = context.Queue()
        process = context.Process(target=run_case, args=(name, args, queue))
        process.start()
        while process.is_alive() and queue.empty():
            process.join(0.2)
        if queue.empty():
            raise UserError(f'{name} ended without a result (exit code {process.exitcode})')
        result = queue.get()
        process.join()
        results.append(result)
        if args.against is not None:
            result['authors'] = by_authors(name, args)
        share = '-'
        if 'network' in result:
            share = f'{result["gflop"] / result["network"] / rate:.0%}'
        elif 'gigabyte' in result:
            share = f'{result["gigabyte"] / result["seconds"] / bytes_rate:.0%} of bytes'
        rows.append([name, f'{1 / result["seconds"]:.2f}', f'{result["seconds"]:.3f}',
                     f'{result["peak_memory_gb"]:.1f}',
                     share, *plain_columns(result),
                     *(authors_columns(result) if args.against is not None else ())])
        print(f'{name}: {result["seconds"]:.3f} s an image', file=sys.stderr)
    print(f'{platform.processor() or platform.machine()}, {args.device}, torch '
          f'{torch.__version__}, {args.precision}, image '
          f'{args.size[0]} x {args.size[1]}, crop {args.crop}; matrix product: {rate:.0f} GFLOP/s, '
          f'copying: '
          f'{bytes_rate:.1f} GB/s')
    theirs = ('authors s', 'times, or why not') if args.against is not None else ()
    print(scores.table(('stage', 'images/s', 's/image', 'peak GB', 'of limit', 'plain s', 'times',
                        'the plain way', *theirs), rows))
    if args.json:
        write_json(args.json, {'matrix_gflops': rate, 'copy_gb_a_second': bytes_rate,
                               'torch': torch.__version__,
                               'arguments': vars(args), 'stages': results})


if __name__ == '__main__':
    sys.exit(main())
