"""AMN's activations over several scales and their mirrors.

Reads --amn_weights_name, --ir_label_out_dir (CAM's refined seeds), images and labels of --train_list.
Writes --amn_cam_out_dir/ID.npz, background plane first.
Only this stage: python run_sample.py --make_amn_cam_pass True
"""
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from misc import imutils, inference, networks, torchutils
from misc.contract.settings import AmnActivations
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import activations, labels, records
from misc.files.inputs import Inputs, Part
from misc.method import maps

REMEDY = 'run --cam_to_ir_label_pass True first'
PLANES = 8  # of the softmax at full size at a time


class Scales(NamedTuple):
    """An image at each scale, normalised (1, 3, h, w), the classes present, bool (C,), and its refined seed (H, W); no scale
    where it shows no class."""

    present: np.ndarray
    seed: np.ndarray
    images: list[torch.Tensor]

    def kind(self) -> tuple:
        """Equal for images that can go through the network together."""
        return (*self.seed.shape, len(self.images))


def run(job: Job, told: AmnActivations) -> None:
    source, folder, seeds = job.source, job.files['amn_cam_out_dir'], job.files['ir_label_out_dir']
    net, digest = networks.load(
        told.network, source.n_classes, label_conditioning=told.label_conditioning, backbone=told.backbone,
        path=job.files['amn_weights_name'], remedy=job.remedy('amn_weights_name'), classes=source.classes, device=job.device,
        precision=told.precision)
    code = networks.code_of(*told.modules())
    record = {'stage': 'make_amn_cam', **told.record(), 'code': code, 'weights': digest, 'classes': source.classes,
              'seeds': records.made_by(seeds)}
    inputs = Inputs(source, seed=Part(seeds, labels.label_path, job.remedy('ir_label_out_dir')))
    made = records.open_folder(folder, record, activations.SUFFIXES, job.run.overwrite, inputs=inputs,
                               ids=job.ids('train_list'))

    def read(image_id: str) -> Scales:
        image = imutils.read_of(source, image_id)
        present = source.labels(image_id)
        seed = datasets.read_seed(seeds, image_id, image.shape[:2], source.n_classes, job.remedy('ir_label_out_dir'))
        return Scales(present, seed, datasets.scaled_images(image, told.scales) if present.any() else [])

    with inference.Images.of(job, 'train_list', functools.partial(activations.exists, folder), made) as images:
        for ids, items in images.batches(read, job.run.inference_batch_size, Scales.kind):
            with images.enough(ids):
                scales = maps.together([item.images for item in items], job.device)
                found = amn_cams_of(net, [item.present for item in items], [item.seed for item in items], scales, job.device,
                                    told.precision)
                for image_id, activation in zip(ids, found, strict=True):
                    images.save(image_id, activations.save, folder, image_id, activation, told.dtype)


@torch.inference_mode()
def amn_cams_of(net: torch.nn.Module, present: Sequence[np.ndarray], refined: Sequence[np.ndarray], images: list[torch.Tensor],
                device: torch.device, precision: str) -> list[activations.Activation]:
    """The activations (planes (K+1, ...), background first; tensors on `device`) of N images of one size from their
    normalised scales (N, 3, h, w). Without scales (no image shows a class) all is background.

    present: of each image bool (C,); refined: CAM's refined seed of each (H, W). Each softmax plane is stretched to 0..1,
    except where the seed is sure background: there it stays as it is (authors' code).
    """
    sizes = maps.strided_hw(refined[0].shape), refined[0].shape
    if not images:
        return [activations.Activation(np.flatnonzero(shown), *(torch.ones(1, *size) for size in sizes)) for shown in present]
    encoded = torchutils.to_device(torch.from_numpy(np.stack(present).astype(np.float32)), device)
    logits = []
    for image in images:
        with torchutils.autocast(precision, device):
            plain, mirrored = maps.with_mirror(lambda x: net(x, encoded.repeat(len(x) // len(encoded), 1)),
                                                    torchutils.to_device(image, device))
        logits.append((plain + mirrored) / 2)
    found = []
    for number, (shown, seed) in enumerate(zip(present, refined, strict=True)):
        keys = np.flatnonzero(shown)
        kept = np.concatenate([[0], keys + 1])
        of_image = [scale[number] for scale in logits]
        found.append(activations.Activation(keys, *(_stretched(_softmax(of_image, kept, size), seed) for size in sizes)))
    return found


def amn_cam_of(net: torch.nn.Module, present: np.ndarray, seed: np.ndarray, images: list[torch.Tensor],
               device: torch.device, precision: str) -> activations.Activation:
    """`amn_cams_of` for one image, as arrays."""
    return amn_cams_of(net, [present], [seed], images, device, precision)[0].on_host()


def _softmax(logits: list[torch.Tensor], kept: np.ndarray, hw: tuple[int, int]) -> torch.Tensor:
    """Of the scales' logits (C+1, h, w), each resized to (H, W), the mean; of its softmax over all planes those `kept`.

    A few planes at a time: all of them at full size, once a scale, would be gigabytes where there are many classes.
    """
    highest, total, planes = torch.full((), -torch.inf, device=logits[0].device), 0.0, []
    for first in range(0, len(logits[0]), PLANES):
        mean = maps.resize(logits[0][first:first + PLANES], hw).div_(len(logits))
        for scale in logits[1:]:
            mean += maps.resize(scale[first:first + PLANES], hw).div_(len(logits))
        here = kept[(first <= kept) & (kept < first + PLANES)] - first
        planes.append(maps.chosen_planes(mean, here))  # a copy: the mean is changed below
        higher = torch.maximum(highest, mean.amax(0))
        total = total * (highest - higher).exp() + mean.sub_(higher).exp_().sum(0)
        highest = higher
    return torch.cat(planes).sub_(highest).exp_().div_(total)


def _stretched(planes: torch.Tensor, seed: np.ndarray) -> torch.Tensor:
    """Of each plane (K+1, h, w) the minimum goes to 0 and the maximum to 1 outside sure background."""
    low, high = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    stretched = (planes - low) / (high - low + 1e-5)
    sure_background = torch.from_numpy(labels.resize(seed, tuple(planes.shape[1:])) == 0)
    return torch.where(torchutils.to_device(sure_background, planes.device), planes, stretched)


STAGE = Stage(
    'make_amn_cam', "AMN's activations", run, (AmnActivations,),
    reads=(Input('amn_weights_name'), Input('ir_label_out_dir')),
    writes=(Output('amn_cam_out_dir', 'result/amn_cam', exists=activations.exists, megabytes=1.6, authors=True),),
    shown=Shown('AMN', 'activation', 'eval_amn_cam_thres'))
