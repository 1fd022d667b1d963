"""AMN's activations over several scales and their mirrors.

Reads --amn_weights_name, --ir_label_out_dir (CAM's refined seeds), images and labels of --train_list.
Writes --amn_cam_out_dir/ID.npz, background plane first.
Only this stage: python run_sample.py --make_amn_cam_pass True
"""
import functools
import importlib
from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from misc import activations, datasets, imutils, inference, labels, records, torchutils, weights

PLANES = 8  # of the softmax at full size at a time


class Read(NamedTuple):
    """What a worker reads of an image: the classes present, bool (C,); CAM's refined seed (H, W); its normalised scales (none
    where no class is present)."""

    present: np.ndarray
    seed: np.ndarray
    scales: list[torch.Tensor]


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    net = importlib.import_module(args.amn_network).Net(source.n_classes, label_conditioning=args.amn_label_conditioning)
    loaded = weights.load_checkpoint(net, args.amn_weights_name, 'run --train_amn_pass True first', source.classes)
    inference.prepare(net, args.device, args.precision)
    records.open_folder(args.amn_cam_out_dir, {
        'stage': 'make_amn_cam', 'network': args.amn_network, 'weights': loaded, 'classes': source.classes,
        'seeds': records.made_by(args.ir_label_out_dir), 'scales': args.cam_scales,
        'precision': args.precision, 'dtype': args.cam_dtype},
        activations.SUFFIXES, args.overwrite)

    def read(image_id: str) -> Read:
        image = imutils.read_of(source, image_id)
        present = source.labels(image_id)
        seed = datasets.read_seed(args.ir_label_out_dir, image_id, image.shape[:2], source.n_classes,
                                  'run --cam_to_ir_label_pass True first')
        return Read(present, seed, datasets.scaled_images(image, args.cam_scales) if present.any() else [])

    def compute(image_ids: list[str], items: list[Read]) -> list[inference.Save]:
        images = inference.together([item.scales for item in items], args.device)
        found = amn_cams_of(net, [item.present for item in items], [item.seed for item in items], images, args.device,
                            args.precision)
        return [functools.partial(save, image_id, activation) for image_id, activation in zip(image_ids, found, strict=True)]

    def save(image_id: str, activation: activations.Activation) -> None:
        activations.save(args.amn_cam_out_dir, image_id, activation, args.cam_dtype)

    inference.for_each_batch(ids, lambda image_id: activations.exists(args.amn_cam_out_dir, image_id), read, args.num_workers,
                             compute, args.inference_batch_size, lambda item: (item.seed.shape, len(item.scales)), args.device)


@torch.inference_mode()
def amn_cams_of(net: torch.nn.Module, present: Sequence[np.ndarray], refined: Sequence[np.ndarray], images: list[torch.Tensor],
                device: torch.device, precision: str) -> list[activations.Activation]:
    """The activations (planes (K+1, ...), background first; tensors on `device`) of N images of one size from their
    normalised scales (N, 3, h, w). Without scales (no image shows a class) all is background.

    present: of each image bool (C,); refined: CAM's refined seed of each (H, W). Each softmax plane is stretched to 0..1,
    except where the seed is sure background: there it stays as it is (authors' code).
    """
    sizes = inference.strided_hw(refined[0].shape), refined[0].shape
    if not images:
        return [activations.Activation(np.flatnonzero(shown), *(torch.ones(1, *size) for size in sizes)) for shown in present]
    encoded = torchutils.to_device(torch.from_numpy(np.stack(present).astype(np.float32)), device)
    logits = []
    for image in images:
        with torchutils.autocast(precision, device):
            plain, mirrored = inference.with_mirror(lambda x: net(x, encoded.repeat(len(x) // len(encoded), 1)),
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
        mean = inference.resize(logits[0][first:first + PLANES], hw).div_(len(logits))
        for scale in logits[1:]:
            mean += inference.resize(scale[first:first + PLANES], hw).div_(len(logits))
        here = kept[(first <= kept) & (kept < first + PLANES)] - first
        planes.append(inference.chosen_planes(mean, here))  # a copy: the mean is changed below
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
