"""CAM activations over several scales and their mirrors.

Reads --cam_weights_name, images and labels of --train_list. Writes --cam_out_dir/ID.npz.
Only this stage: python run_sample.py --make_cam_pass True
"""
import functools
import importlib
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch

from misc import activations, datasets, imutils, inference, records, torchutils, weights


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    net = importlib.import_module(args.cam_network).Net(source.n_classes)
    loaded = weights.load_checkpoint(net, args.cam_weights_name, 'run --train_cam_pass True first', source.classes)
    inference.prepare(net, args.device, args.precision)
    records.open_folder(args.cam_out_dir, {
        'stage': 'make_cam', 'network': args.cam_network, 'weights': loaded, 'classes': source.classes,
        'scales': args.cam_scales, 'precision': args.precision, 'dtype': args.cam_dtype}, activations.SUFFIXES, args.overwrite)

    def read(image_id: str) -> tuple:
        image = imutils.read_image(source.image_path(image_id))
        keys = np.flatnonzero(source.labels(image_id))
        return keys, image.shape[:2], datasets.scaled_images(image, args.cam_scales) if len(keys) else []

    def compute(image_id: str, item: tuple) -> Callable[[], None]:
        activation = cam_of(net, *item, args.device, args.precision)
        return functools.partial(activations.save, args.cam_out_dir, image_id, activation, args.cam_dtype)

    inference.for_each_image(ids, lambda image_id: activations.exists(args.cam_out_dir, image_id), read,
                             args.num_workers, compute)


@torch.inference_mode()
def cam_of(net: torch.nn.Module, keys: np.ndarray, hw: tuple[int, int], images: list[torch.Tensor],
           device: torch.device, precision: str) -> activations.Activation:
    """The activation of one image of size `hw` for the classes `keys` (K,), from its normalised scales (1, 3, h, w).

    Each plane is divided by its own maximum (CAM; IRN's code).
    """
    if len(keys) == 0:
        return activations.Activation(keys, np.zeros((0, *inference.strided_hw(hw)), np.float32),
                                      np.zeros((0, *hw), np.float32))
    strided, high_res = 0.0, 0.0
    for image in images:
        with torchutils.autocast(precision, device):
            pair = inference.with_mirror(net.activations, image.to(device))
        planes = (pair[0] + pair[1])[keys]
        strided = strided + inference.resize(planes, inference.strided_hw(hw))
        high_res = high_res + inference.resize(planes, inference.up16_hw(hw))
    high_res = high_res[:, :hw[0], :hw[1]]
    strided = strided / (strided.amax((1, 2), keepdim=True) + 1e-5)
    high_res = high_res / (high_res.amax((1, 2), keepdim=True) + 1e-5)
    return activations.Activation(keys, strided.cpu().numpy(), high_res.cpu().numpy())
