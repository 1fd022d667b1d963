"""Pseudo-masks: AMN's activations spread by a random walk that stops at IRN's class boundaries.

Reads --irn_weights_name, --amn_cam_out_dir, images of --infer_list. Writes --sem_seg_out_dir/ID.png.
Only this stage: python run_sample.py --make_sem_seg_pass True
"""
import functools
import importlib
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from misc import activations, datasets, imutils, indexing, inference, labels, records, seeds, torchutils, weights
from misc.pyutils import UserError


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.infer_list)
    net = importlib.import_module(args.irn_network).Net()
    loaded = weights.load_checkpoint(net, args.irn_weights_name, 'run --train_irn_pass True first')
    inference.prepare(net, args.device, args.precision)
    records.open_folder(args.sem_seg_out_dir, {
        'stage': 'make_sem_seg', 'network': args.irn_network, 'weights': loaded,
        'activations': records.made_by(args.amn_cam_out_dir), 'beta': args.beta, 'exp_times': args.exp_times,
        'bg_thres': args.sem_seg_bg_thres, 'power': args.sem_seg_power,
        'canvas': args.sem_seg_canvas, 'precision': args.precision},
        ('.png',), args.overwrite)

    def read(image_id: str) -> tuple:
        image = imutils.read_image(source.image_path(image_id))
        activation = activations.load(args.amn_cam_out_dir, image_id,
                                      'run --make_amn_cam_pass True with a --train_list that holds it').without_background()
        if activation.strided.shape[1:] != inference.strided_hw(image.shape[:2]):
            raise UserError(f'{args.amn_cam_out_dir}: the activation of {image_id} has another size than its image')
        return activation.keys, activation.strided, image.shape[:2], datasets.scaled_images(image, [1.0])[0]

    def compute(image_id: str, item: tuple) -> Callable[[], None]:
        keys, strided, hw, image = item
        label_map = np.zeros(hw, np.uint8)
        if len(keys):  # no class: all background
            edge = edge_of(net, image.to(args.device), args.precision, args.sem_seg_canvas)
            walked = walk(torch.from_numpy(strided).to(args.device), edge, args.sem_seg_power, args.beta,
                          args.exp_times, hw)
            label_map = seeds.class_ids(keys)[seeds.arg_max(walked.cpu().numpy(), args.sem_seg_bg_thres)]
        path = labels.label_path(args.sem_seg_out_dir, image_id)
        return functools.partial(labels.save, path, label_map, source.palette)

    inference.for_each_image(ids, lambda image_id: labels.exists(args.sem_seg_out_dir, image_id), read, args.num_workers,
                             compute)


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
def walk(strided: torch.Tensor, edge: torch.Tensor, power: float, beta: float, exp_times: int,
         hw: tuple[int, int]) -> torch.Tensor:
    """Spread activations (K, h, w), to the given power, along T^(2^exp_times); resized x4, cut to (H, W), divided by the
    overall maximum. Returns (K, H, W); all 0 where nothing is left of the activation."""
    walked = indexing.propagate_to_edge(strided ** power, edge, beta=beta, exp_times=exp_times)[:, 0]
    walked = inference.resize(walked, (walked.shape[1] * 4, walked.shape[2] * 4))[:, :hw[0], :hw[1]]
    highest = walked.max()
    return torch.where(highest > 0, walked / highest, torch.zeros_like(walked))
