"""Pseudo-masks: AMN's activations spread by a random walk that stops at IRN's class boundaries.

Reads --irn_weights_name, --amn_cam_out_dir, images of --infer_list. Writes --sem_seg_out_dir/ID.png, and the walk itself,
where it is asked for, to --walked_out_dir/ID.npz: what is there is not walked again, so that masks at another
--sem_seg_bg_thres cost next to nothing.
Only this stage: python run_sample.py --make_sem_seg_pass True
"""
import functools
import importlib
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from misc import activations, datasets, imutils, indexing, inference, labels, records, seeds, torchutils, weights
from misc.pyutils import UserError


class Read(NamedTuple):
    """What a worker reads of an image: the classes present (K,), their activations (K, h, w) at stride 4, its size (H, W), its
    pixels, normalised (1, 3, H, W)."""

    keys: np.ndarray
    strided: torch.Tensor
    hw: tuple[int, int]
    image: torch.Tensor


def read_with_activations(source: datasets.Source, folder: str, image_id: str, image: np.ndarray, remedy: str) -> Read:
    """What is spread over `image` (H, W, 3). Raises UserError where its activations in `folder` are of another size."""
    activation = activations.load(folder, image_id, remedy).without_background()
    if activation.strided.shape[1:] != inference.strided_hw(image.shape[:2]):
        raise UserError(f'{folder}: the activation of {image_id} has another size than its image')
    return Read(activation.keys, torch.from_numpy(activation.strided), image.shape[:2], datasets.scaled_images(image, [1.0])[0])


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.infer_list)
    net = importlib.import_module(args.irn_network).Net()
    loaded = weights.load_checkpoint(net, args.irn_weights_name, 'run --train_irn_pass True first')
    inference.prepare(net, args.device, args.precision)
    walk_settings = {
        'stage': 'walk', 'network': args.irn_network, 'weights': loaded,
        'activations': records.made_by(args.amn_cam_out_dir), 'beta': args.beta, 'exp_times': args.exp_times,
        'power': args.sem_seg_power, 'canvas': args.sem_seg_canvas, 'precision': args.precision}
    if args.walked_out_dir is not None:  # the same walk is kept even where the masks are to be made anew
        records.open_folder(args.walked_out_dir, walk_settings, ('.npz',),
                            args.overwrite and not records.is_of(args.walked_out_dir, walk_settings), only_own=True)
    records.open_folder(args.sem_seg_out_dir, walk_settings | {'stage': 'make_sem_seg', 'bg_thres': args.sem_seg_bg_thres},
                        ('.png',), args.overwrite)

    def is_walked(image_id: str) -> bool:
        return args.walked_out_dir is not None and activations.exists(args.walked_out_dir, image_id)

    def is_done(image_id: str) -> bool:
        return labels.exists(args.sem_seg_out_dir, image_id) and (args.walked_out_dir is None or is_walked(image_id))

    def read(image_id: str) -> activations.Walked | Read:
        image = imutils.read_of(source, image_id)
        if is_walked(image_id):
            walked = activations.load_walked(args.walked_out_dir, image_id)
            if tuple(walked.hw) != image.shape[:2]:
                raise UserError(f'{args.walked_out_dir}: the walk of {image_id} has another size than its image')
            return walked
        return read_with_activations(source, args.amn_cam_out_dir, image_id, image,
                                     'run --make_amn_cam_pass True with a --train_list that holds it')

    def compute(image_id: str, item: activations.Walked | Read) -> Callable[[], None]:
        if isinstance(item, activations.Walked):
            return functools.partial(save, image_id, item)
        walked = item.strided
        if len(item.keys):  # no class: nothing to spread, all background
            edge = edge_of(net, torchutils.to_device(item.image, args.device), args.precision, args.sem_seg_canvas)
            walked = walk(torchutils.to_device(walked, args.device), edge, args.sem_seg_power, args.beta, args.exp_times)
        return functools.partial(save_new, image_id, item, walked)

    def save_new(image_id: str, item: Read, tensor: torch.Tensor) -> None:
        walked = activations.Walked(item.keys, tensor.cpu().numpy(), np.array(item.hw))  # behind: need not wait for a GPU
        if args.walked_out_dir is not None:
            activations.save_walked(args.walked_out_dir, image_id, walked)
        save(image_id, walked)

    def save(image_id: str, walked: activations.Walked) -> None:
        label_map = seeds.class_ids(walked.keys)[seeds.arg_max(planes_of(walked), args.sem_seg_bg_thres)]
        labels.save(labels.label_path(args.sem_seg_out_dir, image_id), label_map, source.palette)

    inference.for_each_image(ids, is_done, read, args.num_workers, compute, args.device)


@torch.inference_mode()
def edge_of(net: torch.nn.Module, image: torch.Tensor, precision: str, canvas_side: int,
            also: Callable[[list[torch.Tensor]], None] | None = None) -> torch.Tensor:
    """Boundary probability (1, h, w) at stride 4 of a normalised image (1, 3, H, W) and its mirror, each padded with 0
    at its own right and bottom to `canvas_side`, or to a multiple of 16 where it is larger; not at all for 0.

    GroupNorm averages over the canvas, so it is part of the result. also(stages) is given what the backbone made of the
    canvas, in `precision`: of both, or of the image first and then of its mirror.
    """
    hw = image.shape[2:]
    canvas = [max(canvas_side, side) for side in inference.up16_hw(tuple(hw))] if canvas_side else hw
    h, w = inference.strided_hw(tuple(hw))

    def forward(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (0, canvas[1] - hw[1], 0, canvas[0] - hw[0]))
        padded = padded.contiguous(memory_format=torch.channels_last)
        stages = net.stages(padded)
        if also is not None:
            also(stages)
        return net.edge(stages)[..., :h, :w]

    with torchutils.autocast(precision, image.device):
        plain, mirrored = inference.with_mirror(forward, image)
    return (plain[0] / 2 + mirrored[0] / 2).sigmoid()


@torch.inference_mode()
def walk(strided: torch.Tensor, edge: torch.Tensor, power: float, beta: float, exp_times: int) -> torch.Tensor:
    """Spread activations (K, h, w), to the given power, along T^(2^exp_times). Returns (K, h, w)."""
    return indexing.propagate_to_edge(strided ** power, edge, beta=beta, exp_times=exp_times)[:, 0]


@torch.inference_mode()
def planes_of(walked: activations.Walked) -> np.ndarray:
    """The walk resized x4, cut to (H, W), divided by the overall maximum: (K, H, W), which --sem_seg_bg_thres is compared
    with. All 0 where nothing is left of the activation."""
    height, width = walked.hw
    if len(walked.keys) == 0:
        return np.zeros((0, height, width), np.float32)
    planes = torch.from_numpy(walked.walked)
    planes = inference.resize(planes, (planes.shape[1] * 4, planes.shape[2] * 4))[:, :height, :width]
    highest = planes.max()
    return torch.where(highest > 0, planes / highest, torch.zeros_like(planes)).numpy()
