"""Pseudo-masks: AMN's activations spread by a random walk that stops at IRN's class boundaries.

Reads --irn_weights_name, --amn_cam_out_dir, images of --mask_list. Writes --sem_seg_out_dir/ID.png,
and the walk itself, where it is asked for, to --walked_out_dir/ID.npz: what is there is not walked
again, so that masks at another --sem_seg_bg_thres cost next to nothing.
Only this stage: python run_sample.py --make_sem_seg_pass True
"""
from typing import NamedTuple

import numpy as np
import torch

from misc import imutils, inference, networks, torchutils
from misc.contract.settings import PseudoMasks, Walk
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import activations, label_maps, records
from misc.files.activations import Walked
from misc.files.inputs import Inputs, Part
from misc.method import seeds, walking

LISTED = 'with a --train_list that holds it'


class Unwalked(NamedTuple):
    """An image, normalised (1, 3, H, W), and its activations: keys (K,), strided (K, h, w)."""

    keys: np.ndarray
    strided: torch.Tensor
    hw: tuple[int, int]
    image: torch.Tensor


def run(job: Job, settings: Walk, masks: PseudoMasks) -> None:
    source, folder, kept, amn = (job.source, *(job.files[flag] for flag in (
        'sem_seg_out_dir', 'walked_out_dir', 'amn_cam_out_dir')))
    net, digest = networks.load(settings.network, path=job.files['irn_weights_name'],
                                remedy=job.remedy('irn_weights_name'), device=job.device,
                                precision=settings.precision)
    code = networks.code_of(*settings.modules())
    record = {'stage': 'walk', **settings.record(), 'code': code, 'weights': digest,
              'classes': source.classes, 'activations': records.made_by(amn)}
    ids, remedy, made = job.ids('mask_list'), job.remedy('amn_cam_out_dir', LISTED), []
    inputs = Inputs(source, activation=Part(amn, activations.existing_path, remedy))
    if kept is not None:  # the same walk is kept even where the masks are to be made anew
        made.append(records.open_folder(kept, record, ('.npz',),
                                        job.run.overwrite and not records.is_of(kept, record),
                                        only_own=True, inputs=inputs, ids=ids))
    made.append(records.open_folder(folder, record | {'stage': 'make_sem_seg', **masks.record()},
                                    ('.png',), job.run.overwrite, inputs=inputs, ids=ids))

    def is_walked(image_id: str) -> bool:
        return kept is not None and activations.exists(kept, image_id)

    def is_done(image_id: str) -> bool:
        return label_maps.exists(folder, image_id) and (kept is None or is_walked(image_id))

    def read(image_id: str) -> Walked | Unwalked:
        image = imutils.read_of(source, image_id)
        hw = image.shape[:2]
        if is_walked(image_id):
            return activations.load_walked(kept, image_id, hw=hw)
        activation = activations.of_image(amn, image_id, hw, remedy)
        return Unwalked(activation.keys, torch.from_numpy(activation.strided), hw,
                        datasets.scaled_images(image, [1.0])[0])

    # behind: may wait for a GPU
    def save(image_id: str, item: Walked | Unwalked, tensor: torch.Tensor | None) -> None:
        walked = (item if tensor is None else Walked(item.keys, tensor.cpu().numpy(),
                                                     np.array(item.hw)))
        if kept is not None and tensor is not None:
            activations.save_walked(kept, image_id, walked)
        label_map = seeds.class_ids(walked.keys)[seeds.arg_max(walking.planes_of(walked),
                                                               masks.bg_thres)]
        label_maps.save(label_maps.label_path(folder, image_id), label_map, source.palette)

    with inference.Images.of(job, 'mask_list', is_done, *made) as images:
        for image_id, item in images.todo(read):
            with images.enough([image_id]):
                walked = (None if isinstance(item, Walked)
                          else walked_of(net, item, settings, job.device))
                images.save(image_id, save, image_id, item, walked)


def walked_of(net: torch.nn.Module, item: Unwalked, settings: Walk,
              device: torch.device) -> torch.Tensor:
    """Return the walk of an image, (K, h, w); without a class there is nothing to spread."""
    if not len(item.keys):
        return item.strided
    edge = walking.edge_of(net, torchutils.to_device(item.image, device), settings.precision,
                           settings.canvas)
    return walking.walk(torchutils.to_device(item.strided, device), edge, settings.power,
                        settings.beta, settings.exp_times)


STAGE = Stage(
    'make_sem_seg', "pseudo-masks: random walk over AMN's activations", run, (Walk, PseudoMasks),
    reads=(Input('irn_weights_name'), Input('amn_cam_out_dir')),
    writes=(Output('sem_seg_out_dir', 'result/sem_seg', exists=label_maps.exists, megabytes=0.009,
                   authors=True),
            Output('walked_out_dir', 'result/walked', kept=False, help='keep the walk of each '
                                                                       'image there (0.05 MB '
                   'an image and class): make_sem_seg then makes masks at another '
                   '--sem_seg_bg_thres without walking again, '
                   'analyze_threshold tries them all (ours; default: not kept; without DIR in '
                   'result/walked)', metavar='DIR',
                   holds='the walk', exists=activations.exists, megabytes=0.08)),
    lists=('mask_list',), labelled=False, shown=Shown('Pseudo-mask', 'mask'))
