"""CAM activations over several scales and their mirrors.

Reads --cam_weights_name, images and labels of --train_list. Writes --cam_out_dir/ID.npz.
Only this stage: python run_sample.py --make_cam_pass True
"""
import functools
from typing import NamedTuple

import numpy as np
import torch

from misc import imutils, inference, networks
from misc.contract.settings import CamActivations
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import activations, records
from misc.files.inputs import Inputs
from misc.method import activating, maps


class Scales(NamedTuple):
    """An image at each scale; no scale where it shows no class.

    keys: (K,), the classes that it shows.
    hw: its size.
    images: each uint8 (1, 3, h, w).
    """

    keys: np.ndarray
    hw: tuple[int, int]
    images: list[torch.Tensor]

    def kind(self) -> tuple:
        """Return what is equal for images that can go through the network together."""
        return (*self.hw, len(self.images))


def run(job: Job, settings: CamActivations) -> None:
    source, folder = job.source, job.files['cam_out_dir']
    net, digest = networks.load(
        settings.network, source.n_classes, backbone=settings.backbone,
        path=job.files['cam_weights_name'], remedy=job.remedy('cam_weights_name'),
        classes=source.classes, device=job.device, precision=settings.precision)
    code = networks.code_of(*settings.modules())
    record = {'stage': 'make_cam', **settings.record(), 'code': code, 'weights': digest,
              'classes': source.classes}
    made = records.open_folder(folder, record, activations.SUFFIXES, job.run.overwrite,
                               inputs=Inputs(source), ids=job.ids('train_list'))

    def read(image_id: str) -> Scales:
        image = imutils.read_of(source, image_id)
        keys = np.flatnonzero(source.labels(image_id))
        return Scales(keys, image.shape[:2], datasets.scaled_images(image, settings.scales)
                      if len(keys)
                      else [])

    with inference.Images.of(job, 'train_list', functools.partial(activations.exists, folder),
                             made) as images:
        for ids, items in images.batches(read, job.run.inference_batch_size, Scales.kind):
            with images.enough(ids):
                scales = maps.together([item.images for item in items], job.device)
                keys = [item.keys for item in items]
                found = activating.cams_of(net, keys, items[0].hw, scales, job.device,
                                           settings.precision)
                for image_id, activation in zip(ids, found, strict=True):
                    images.save(image_id, activations.save, folder, image_id, activation,
                                settings.dtype)


STAGE = Stage(
    'make_cam', "CAM's activations", run, (CamActivations,),
    reads=(Input('cam_weights_name'),),
    writes=(Output('cam_out_dir', 'result/cam', exists=activations.exists, megabytes=0.88,
                   authors=True),),
    shown=Shown('CAM', 'activation', 'eval_cam_thres'))
