"""CAM activations over several scales and their mirrors.

Reads --cam_weights_name, images and labels of --train_list. Writes --cam_out_dir/ID.npz.
Only this stage: python run_sample.py --make_cam_pass True
"""
import functools
import importlib
from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from misc import activations, datasets, imutils, inference, records, torchutils, weights


class Read(NamedTuple):
    """What a worker reads of an image: the classes present (K,), its size (H, W), its normalised scales (none for K = 0)."""

    keys: np.ndarray
    hw: tuple[int, int]
    scales: list[torch.Tensor]


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    net = importlib.import_module(args.cam_network).Net(source.n_classes)
    loaded = weights.load_checkpoint(net, args.cam_weights_name, 'run --train_cam_pass True first', source.classes)
    inference.prepare(net, args.device, args.precision)
    records.open_folder(args.cam_out_dir, {
        'stage': 'make_cam', 'network': args.cam_network, 'weights': loaded, 'classes': source.classes,
        'scales': args.cam_scales, 'precision': args.precision, 'dtype': args.cam_dtype}, activations.SUFFIXES, args.overwrite)

    def read(image_id: str) -> Read:
        image = imutils.read_of(source, image_id)
        keys = np.flatnonzero(source.labels(image_id))
        return Read(keys, image.shape[:2], datasets.scaled_images(image, args.cam_scales) if len(keys) else [])

    def compute(image_ids: list[str], items: list[Read]) -> list[inference.Save]:
        images = inference.together([item.scales for item in items], args.device)
        found = cams_of(net, [item.keys for item in items], items[0].hw, images, args.device, args.precision)
        return [functools.partial(save, image_id, activation) for image_id, activation in zip(image_ids, found, strict=True)]

    def save(image_id: str, activation: activations.Activation) -> None:
        activations.save(args.cam_out_dir, image_id, activation, args.cam_dtype)

    inference.for_each_batch(ids, lambda image_id: activations.exists(args.cam_out_dir, image_id), read, args.num_workers,
                             compute, args.inference_batch_size, lambda item: (*item.hw, len(item.scales)), args.device)


@torch.inference_mode()
def cams_of(net: torch.nn.Module, keys: Sequence[np.ndarray], hw: tuple[int, int], images: list[torch.Tensor],
            device: torch.device, precision: str) -> list[activations.Activation]:
    """The activations of N images of size `hw`, each for its own classes `keys` (K,), from their normalised scales
    (N, 3, h, w); planes are tensors on `device`. None is computed for an image without scales (without a class).

    Each plane is divided by its own maximum (CAM; IRN's code).
    """
    sizes = inference.strided_hw(hw), inference.up16_hw(hw)
    sums = [[torch.zeros(len(present), *size, device=device) for size in sizes] for present in keys]
    for image in images:
        with torchutils.autocast(precision, device):
            plain, mirrored = inference.with_mirror(net.activations, torchutils.to_device(image, device))
        for both, present, of_image in zip(plain + mirrored, keys, sums, strict=True):
            for total, size in zip(of_image, sizes, strict=True):
                total += inference.resize(inference.chosen_planes(both, present), size)
    return [activations.Activation(present, *(planes / (planes.amax((1, 2), keepdim=True) + 1e-5) for planes in (
        strided, high_res[:, :hw[0], :hw[1]]))) for present, (strided, high_res) in zip(keys, sums, strict=True)]


def cam_of(net: torch.nn.Module, keys: np.ndarray, hw: tuple[int, int], images: list[torch.Tensor],
           device: torch.device, precision: str) -> activations.Activation:
    """`cams_of` for one image, as arrays."""
    return cams_of(net, [keys], hw, images, device, precision)[0].on_host()
