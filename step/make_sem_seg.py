"""Pseudo-masks: AMN's activations spread by a random walk that stops at IRN's class boundaries.

Reads --irn_weights_name, --amn_cam_out_dir, images of --mask_list. Writes --sem_seg_out_dir/ID.png, and the walk itself,
where it is asked for, to --walked_out_dir/ID.npz: what is there is not walked again, so that masks at another
--sem_seg_bg_thres cost next to nothing.
Only this stage: python run_sample.py --make_sem_seg_pass True
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from misc import imutils, indexing, inference, networks, torchutils
from misc.contract.settings import PseudoMasks, Walk
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import activations, labels, records
from misc.files.activations import Walked
from misc.files.inputs import Inputs, Part
from misc.method import maps, seeds

LISTED = 'with a --train_list that holds it'

REMEDY = 'run --make_amn_cam_pass True with a --train_list that holds it'


class Unwalked(NamedTuple):
    """An image, normalised (1, 3, H, W), and its activations: keys (K,), strided (K, h, w)."""

    keys: np.ndarray
    strided: torch.Tensor
    hw: tuple[int, int]
    image: torch.Tensor


def run(job: Job, told: Walk, masks: PseudoMasks) -> None:
    source, folder, kept, amn = (job.source, *(job.files[flag] for flag in (
        'sem_seg_out_dir', 'walked_out_dir', 'amn_cam_out_dir')))
    net, digest = networks.load(told.network, path=job.files['irn_weights_name'], remedy=job.remedy('irn_weights_name'),
                                device=job.device, precision=told.precision)
    code = networks.code_of(*told.modules())
    record = {'stage': 'walk', **told.record(), 'code': code, 'weights': digest, 'classes': source.classes,
              'activations': records.made_by(amn)}
    ids, remedy, made = job.ids('mask_list'), job.remedy('amn_cam_out_dir', LISTED), []
    inputs = Inputs(source, activation=Part(amn, activations.existing_path, remedy))
    if kept is not None:  # the same walk is kept even where the masks are to be made anew
        made.append(records.open_folder(kept, record, ('.npz',), job.run.overwrite and not records.is_of(kept, record),
                                        only_own=True, inputs=inputs, ids=ids))
    made.append(records.open_folder(folder, record | {'stage': 'make_sem_seg', **masks.record()}, ('.png',), job.run.overwrite,
                                    inputs=inputs, ids=ids))

    def is_walked(image_id: str) -> bool:
        return kept is not None and activations.exists(kept, image_id)

    def is_done(image_id: str) -> bool:
        return labels.exists(folder, image_id) and (kept is None or is_walked(image_id))

    def read(image_id: str) -> Walked | Unwalked:
        image = imutils.read_of(source, image_id)
        hw = image.shape[:2]
        if is_walked(image_id):
            return activations.load_walked(kept, image_id, hw=hw)
        activation = activations.of_image(amn, image_id, hw, remedy)
        return Unwalked(activation.keys, torch.from_numpy(activation.strided), hw, datasets.scaled_images(image, [1.0])[0])

    def save(image_id: str, item: Walked | Unwalked, tensor: torch.Tensor | None) -> None:  # behind: may wait for a GPU
        walked = item if tensor is None else Walked(item.keys, tensor.cpu().numpy(), np.array(item.hw))
        if kept is not None and tensor is not None:
            activations.save_walked(kept, image_id, walked)
        label_map = seeds.class_ids(walked.keys)[seeds.arg_max(planes_of(walked), masks.bg_thres)]
        labels.save(labels.label_path(folder, image_id), label_map, source.palette)

    with inference.Images.of(job, 'mask_list', is_done, *made) as images:
        for image_id, item in images.todo(read):
            with images.enough([image_id]):
                walked = None if isinstance(item, Walked) else walked_of(net, item, told, job.device)
                images.save(image_id, save, image_id, item, walked)


def walked_of(net: torch.nn.Module, item: Unwalked, told: Walk, device: torch.device) -> torch.Tensor:
    """The walk of an image, (K, h, w). Without a class there is nothing to spread."""
    if not len(item.keys):
        return item.strided
    edge = edge_of(net, torchutils.to_device(item.image, device), told.precision, told.canvas)
    return walk(torchutils.to_device(item.strided, device), edge, told.power, told.beta, told.exp_times)


@torch.inference_mode()
def edge_of(net: torch.nn.Module, image: torch.Tensor, precision: str, canvas_side: int,
            also: Callable[[list[torch.Tensor]], None] | None = None) -> torch.Tensor:
    """Boundary probability (1, h, w) at stride 4 of a normalised image (1, 3, H, W) and its mirror, each padded with 0
    at its own right and bottom to `canvas_side`, or to a multiple of 16 where it is larger; not at all for 0.

    GroupNorm averages over the canvas, so it is part of the result. also(stages) is given what the backbone made of the
    canvas, in `precision`: of both, or of the image first and then of its mirror.
    """
    hw = image.shape[2:]
    canvas = [max(canvas_side, side) for side in maps.rounded_up(tuple(hw))] if canvas_side else hw
    h, w = maps.strided_hw(tuple(hw))

    def forward(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (0, canvas[1] - hw[1], 0, canvas[0] - hw[0]))
        padded = padded.contiguous(memory_format=torch.channels_last)
        stages = net.stages(padded)
        if also is not None:
            also(stages)
        return net.edge(stages)[..., :h, :w]

    with torchutils.autocast(precision, image.device):
        plain, mirrored = maps.with_mirror(forward, image)
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
    planes = maps.resize(planes, (planes.shape[1] * 4, planes.shape[2] * 4))[:, :height, :width]
    highest = planes.max()
    return torch.where(highest > 0, planes / highest, torch.zeros_like(planes)).numpy()


STAGE = Stage(
    'make_sem_seg', "pseudo-masks: random walk over AMN's activations", run, (Walk, PseudoMasks),
    reads=(Input('irn_weights_name'), Input('amn_cam_out_dir')),
    writes=(Output('sem_seg_out_dir', 'result/sem_seg', exists=labels.exists, megabytes=0.009, authors=True),
            Output('walked_out_dir', 'result/walked', kept=False, help='keep the walk of each image there (0.05 MB '
                   'an image and class): make_sem_seg then makes masks at another --sem_seg_bg_thres without walking again, '
                   'analyze_threshold tries them all (ours; default: not kept; without DIR in result/walked)', metavar='DIR',
                   holds='the walk', exists=activations.exists, megabytes=0.08)),
    lists=('mask_list',), labelled=False, shown=Shown('Pseudo-mask', 'mask'))
