"""AMN's activations over several scales and their mirrors.

Reads --amn_weights_name, --ir_label_out_dir (CAM's refined seeds), images and labels of --train_list.
Writes --amn_cam_out_dir/ID.npz, background plane first.
Only this stage: python run_sample.py --make_amn_cam_pass True
"""
import functools
import importlib
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch

from misc import activations, datasets, imutils, inference, labels, records, torchutils, weights


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    net = importlib.import_module(args.amn_network).Net(source.n_classes, label_conditioning=args.amn_label_conditioning)
    loaded = weights.load_checkpoint(net, args.amn_weights_name, 'run --train_amn_pass True first')
    inference.prepare(net, args.device, args.precision)
    records.open_folder(args.amn_cam_out_dir, {
        'stage': 'make_amn_cam', 'network': args.amn_network, 'weights': loaded, 'classes': source.classes,
        'seeds': records.made_by(args.ir_label_out_dir), 'scales': args.cam_scales,
        'precision': args.precision, 'dtype': args.cam_dtype},
        activations.SUFFIXES, args.overwrite)

    def read(image_id: str) -> tuple:
        image = imutils.read_image(source.image_path(image_id))
        present = source.labels(image_id)
        seed = datasets.read_seed(args.ir_label_out_dir, image_id, image.shape[:2], source.n_classes,
                                  'run --cam_to_ir_label_pass True first')
        return present, seed, datasets.scaled_images(image, args.cam_scales) if present.any() else []

    def compute(image_id: str, item: tuple) -> Callable[[], None]:
        activation = amn_cam_of(net, *item, args.device, args.precision)
        return functools.partial(activations.save, args.amn_cam_out_dir, image_id, activation, args.cam_dtype)

    inference.for_each_image(ids, lambda image_id: activations.exists(args.amn_cam_out_dir, image_id), read,
                             args.num_workers, compute)


@torch.inference_mode()
def amn_cam_of(net: torch.nn.Module, present: np.ndarray, seed: np.ndarray, images: list[torch.Tensor],
               device: torch.device, precision: str) -> activations.Activation:
    """The activation of one image (planes (K+1, ...), background first) from its normalised scales (1, 3, h, w).

    present: bool (C,); seed: CAM's refined seed (H, W). Each softmax plane is stretched to 0..1, except where the seed
    is sure background: there it stays as it is (authors' code).
    """
    hw, keys = seed.shape, np.flatnonzero(present)
    if len(keys) == 0:  # no class: all background
        return activations.Activation(keys, np.ones((1, *inference.strided_hw(hw)), np.float32),
                                      np.ones((1, *hw), np.float32))
    labels_of_image = torch.from_numpy(present.astype(np.float32)).to(device)
    strided, high_res = 0.0, 0.0
    for image in images:
        with torchutils.autocast(precision, device):
            plain, mirrored = inference.with_mirror(lambda x: net(x, labels_of_image.expand(len(x), -1)), image.to(device))
        logits = (plain[0] + mirrored[0]) / 2
        strided = strided + inference.resize(logits, inference.strided_hw(hw)) / len(images)
        high_res = high_res + inference.resize(logits, hw) / len(images)
    kept = np.concatenate([[0], keys + 1])
    return activations.Activation(keys, _stretched(strided, kept, seed), _stretched(high_res, kept, seed))


def _stretched(logits: torch.Tensor, kept: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Softmax over all planes (C+1, h, w); of those kept, the minimum goes to 0 and the maximum to 1 outside sure
    background."""
    planes = logits.softmax(0)[kept]
    low, high = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    stretched = (planes - low) / (high - low + 1e-5)
    sure_background = torch.from_numpy(labels.resize(seed, tuple(logits.shape[1:])) == 0).to(planes.device)
    return torch.where(sure_background, planes, stretched).cpu().numpy()
