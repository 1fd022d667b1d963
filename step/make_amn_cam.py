"""AMN's activations over several scales and their mirrors.

Reads --amn_weights_name, --ir_label_out_dir (CAM's refined seeds), images and labels of
--train_list.
Writes --amn_cam_out_dir/ID.npz, background plane first.
Only this stage: python run_sample.py --make_amn_cam_pass True
"""
import functools
from typing import NamedTuple

import numpy as np
import torch

from misc import imutils, inference, networks
from misc.contract.settings import AmnActivations
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import activations, label_maps, records
from misc.files.inputs import Inputs, Part
from misc.method import activating, maps


class Scales(NamedTuple):
    """An image at each scale; no scale where it shows no class.

    present: bool (C,), the classes that it shows.
    refined_seed: CAM's, (H, W).
    images: each uint8 (1, 3, h, w).
    """

    present: np.ndarray
    refined_seed: np.ndarray
    images: list[torch.Tensor]

    def kind(self) -> tuple:
        """Return what is equal for images that can go through the network together."""
        return (*self.refined_seed.shape, len(self.images))


def run(job: Job, settings: AmnActivations) -> None:
    source, folder, seed_dir = (job.source, job.files['amn_cam_out_dir'],
                                job.files['ir_label_out_dir'])
    net, digest = networks.load(
        settings.network, source.n_classes, label_conditioning=settings.label_conditioning,
        backbone=settings.backbone, path=job.files['amn_weights_name'],
        remedy=job.remedy('amn_weights_name'), classes=source.classes, device=job.device,
        precision=settings.precision)
    code = networks.code_of(*settings.modules())
    record = {'stage': 'make_amn_cam', **settings.record(), 'code': code, 'weights': digest,
              'classes': source.classes, 'seeds': records.made_by(seed_dir)}
    inputs = Inputs(source, seed=Part(seed_dir, label_maps.label_path,
                                      job.remedy('ir_label_out_dir')))
    made = records.open_folder(folder, record, activations.SUFFIXES, job.run.overwrite,
                               inputs=inputs, ids=job.ids('train_list'))

    def read(image_id: str) -> Scales:
        image = imutils.read_of(source, image_id)
        present = source.labels(image_id)
        refined_seed = datasets.read_refined_seed(seed_dir, image_id, image.shape[:2],
                                                  source.n_classes,
                                                  job.remedy('ir_label_out_dir'))
        return Scales(present, refined_seed, datasets.scaled_images(image, settings.scales)
                      if present.any()
                      else [])

    with inference.Images.of(job, 'train_list', functools.partial(activations.exists, folder),
                             made) as images:
        for ids, items in images.batches(read, job.run.inference_batch_size, Scales.kind):
            with images.enough(ids):
                scales = maps.together([item.images for item in items], job.device)
                found = activating.amn_cams_of(net, [item.present for item in items],
                                               [item.refined_seed for item in items], scales,
                                               job.device, settings.precision)
                for image_id, activation in zip(ids, found, strict=True):
                    images.save(image_id, activations.save, folder, image_id, activation,
                                settings.dtype)


STAGE = Stage(
    'make_amn_cam', "AMN's activations", run, (AmnActivations,),
    reads=(Input('amn_weights_name'), Input('ir_label_out_dir')),
    writes=(Output('amn_cam_out_dir', 'result/amn_cam', exists=activations.exists, megabytes=1.6,
                   authors=True),),
    shown=Shown('AMN', 'activation', 'eval_amn_cam_thres'))
