"""Pseudo-masks: AMN's activations spread by a random walk that stops at IRN's class boundaries.

Reads --irn_weights_name, --amn_cam_out_dir, images of --mask_list, and --cam_out_dir where CAM's
activations walk, too (--sem_seg_from). Writes --sem_seg_out_dir/ID.png, and the walk itself, where
it is asked for, to --walked_out_dir/ID.npz: what is there is not walked again, so that masks at
another --sem_seg_bg_thres cost next to nothing. `auto` chooses that from the walks of at most 1,000
images, which come first. With --sem_seg_crf all walks come first, and the workers refine the masks.
Only this stage: python run_sample.py --make_sem_seg_pass True
"""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from misc import imutils, inference, networks, torchutils
from misc.contract.settings import AUTO, PseudoMasks, Walk
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import activations, label_maps, records
from misc.files.activations import Walked
from misc.files.inputs import Inputs, Part
from misc.method import crf, maps, seeds, walking
from misc.pyutils import UserError, WriteError, log
from misc.score import auto_threshold

LISTED = 'with a --train_list that holds it'


class Unwalked(NamedTuple):
    """An image, its classes, and what is to walk.

    keys: (K,).
    strided: (K, h, w), or (K+1, h, w) with a background.
    hw: the size (H, W) of the image.
    image: uint8 (1, 3, H, W).
    """

    keys: np.ndarray
    strided: torch.Tensor
    hw: tuple[int, int]
    image: torch.Tensor


def run(job: Job, settings: Walk, masks: PseudoMasks) -> None:
    source, folder, kept, ids = (job.source, job.files['sem_seg_out_dir'],
                                 job.files['walked_out_dir'], job.ids('mask_list'))
    net, digest = networks.load(settings.network, path=job.files['irn_weights_name'],
                                remedy=job.remedy('irn_weights_name'), device=job.device,
                                precision=settings.precision)
    code = networks.code_of(*settings.modules())
    reads = {'activation': 'amn_cam_out_dir'}
    if settings.reads_cam:
        reads['cam_activation'] = 'cam_out_dir'
    parts = {name: Part(job.files[flag], activations.existing_path, job.remedy(flag, LISTED))
             for name, flag in reads.items()}
    record = {'stage': 'walk', **settings.record(), 'code': code, 'weights': digest,
              'classes': source.classes,
              **{f'{name}s': records.made_by(part.folder) for name, part in parts.items()}}
    inputs, made = Inputs(source, **parts), []
    if kept is not None:  # the same walk is kept even where the masks are to be made anew
        made.append(records.open_folder(kept, record, ('.npz',),
                                        job.run.overwrite and not records.is_of(kept, record),
                                        only_own=True, inputs=inputs, ids=ids))

    def is_walked(image_id: str) -> bool:
        return kept is not None and activations.exists(kept, image_id)

    def is_done(image_id: str) -> bool:
        return label_maps.exists(folder, image_id) and (kept is None or is_walked(image_id))

    def read(image_id: str) -> Walked | Unwalked:
        image = imutils.read_of(source, image_id)
        hw = image.shape[:2]
        if is_walked(image_id):
            return activations.load_walked(kept, image_id, hw=hw)
        amn, cam = (activations.of_image(part.folder, image_id, hw, part.remedy, background=True)
                    if part is not None else None
                    for part in (parts['activation'], parts.get('cam_activation')))
        start = walking.start(settings.foreground, settings.background, amn, cam)
        return Unwalked(amn.keys, start, hw, datasets.scaled_images(image, [1.0])[0])

    # behind: may wait for a GPU
    def keep(image_id: str, item: Walked | Unwalked, tensor: torch.Tensor | None) -> Walked:
        if tensor is None:
            return item
        walked = Walked(item.keys, tensor.cpu().numpy(), np.array(item.hw))
        if kept is not None:
            activations.save_walked(kept, image_id, walked)
        return walked

    def save(image_id: str, item: Walked | Unwalked, tensor: torch.Tensor | None) -> None:
        walked = keep(image_id, item, tensor)
        save_mask(image_id, walked.keys, walking.planes_of(walked, settings.background))

    def refine(image_id: str) -> None:
        image = imutils.read_of(source, image_id)
        walked = activations.load_walked(kept, image_id, hw=image.shape[:2])
        save_mask(image_id, walked.keys, walking.planes_of(walked, settings.background), image)

    def save_mask(image_id: str, keys: np.ndarray, planes: np.ndarray,
                  image: np.ndarray | None = None) -> None:
        mask = seeds.pseudo_mask(image, keys, planes, resolved['bg_thres'])
        label_maps.save(label_maps.label_path(folder, image_id), mask, source.palette)

    def walk(images: inference.Images, behind: Callable[..., Any]) -> None:
        with images:
            for image_id, item in images.todo(read):
                with images.enough([image_id]):
                    walked = (None if isinstance(item, Walked)
                              else walked_of(net, item, settings, job.device))
                    images.save(image_id, behind, image_id, item, walked)

    def walk_and_keep(some: list[str]) -> None:
        walk(inference.Images(some, is_walked, job.run.readers, job.device, made), keep)

    def walk_sample(sample: list[str]) -> None:
        if not all(map(is_walked, sample)):
            log.info('walks of %d images come first, to choose the threshold from', len(sample))
        walk_and_keep(sample)

    resolved = masks.record()
    if masks.bg_thres == AUTO:
        resolved = chosen_threshold(job, settings, walk_sample)
    made.append(records.open_folder(folder, record | {'stage': 'make_sem_seg', **resolved},
                                    ('.png',), job.run.overwrite, inputs=inputs, ids=ids,
                                    legend=label_maps.legend(source.classes)))
    if not masks.crf:
        walk(inference.Images.of(job, 'mask_list', is_done, *made), save)
        return
    failed = None
    try:
        walk_and_keep(ids)
    except WriteError:
        raise
    except UserError as error:  # of some images; the masks of the others are made
        failed = error
    crf.prepare()
    walked = [image_id for image_id in ids if is_walked(image_id)]
    with inference.Images(walked, is_done, job.run.workers, made=made) as images:
        images.make(refine)
    if failed is not None:
        raise failed


def chosen_threshold(job: Job, settings: Walk, walk: Callable[[list[str]], None]) -> dict[str, Any]:
    """Return the number in the place of 'auto', and where it comes from, as they are recorded.

    It is chosen from kept walks; `walk` makes those of the sample first. Masks that were begun so
    keep theirs.
    """
    folder, kept, ids = (job.files['sem_seg_out_dir'], job.files['walked_out_dir'],
                         job.ids('mask_list'))
    numbers = {} if job.run.overwrite else auto_threshold.begun_with(folder, ['bg_thres'])
    if not numbers:
        walk(auto_threshold.sample(ids))
        numbers = {'bg_thres': auto_threshold.threshold_for(
            functools.partial(walking.class_planes, kept, background=settings.background), ids,
            job.run.workers)}
    return auto_threshold.as_recorded(numbers)


def walked_of(net: torch.nn.Module, item: Unwalked, settings: Walk,
              device: torch.device) -> torch.Tensor:
    """Return the scores of an image's classes after the walk, (K, h, w).

    Without a class there is nothing to spread.
    """
    if not len(item.keys):
        return item.strided[:0]
    edge = walking.edge_of(net, maps.normalized(torchutils.to_device(item.image, device)),
                           settings.precision, settings.canvas)
    walked = walking.walk(torchutils.to_device(item.strided, device), edge, settings.power,
                          settings.beta, settings.exp_times)
    return walking.class_scores(walked, settings.background)


STAGE = Stage(
    'make_sem_seg', "pseudo-masks: random walk over AMN's activations", run, (Walk, PseudoMasks),
    reads=(Input('irn_weights_name'), Input('amn_cam_out_dir'),
           Input('cam_out_dir', when=lambda args: args.sem_seg_from != 'amn')),
    writes=(Output('sem_seg_out_dir', 'result/sem_seg', exists=label_maps.exists, megabytes=0.009,
                   authors=True),
            Output('walked_out_dir', 'result/walked', kept=False,
                   implied=lambda args: args.sem_seg_bg_thres == AUTO or args.sem_seg_crf,
                   help='keep the walk of each image there (0.05 MB an image and class): '
                   'make_sem_seg then makes masks at another --sem_seg_bg_thres without walking '
                   'again, analyze_threshold tries them all (ours; default: not kept, but for '
                   '--sem_seg_bg_thres auto and --sem_seg_crf; without DIR in result/walked)',
                   metavar='DIR', holds='the walk', exists=activations.exists, megabytes=0.08)),
    lists=('mask_list',), labelled=False, shown=Shown('Pseudo-mask', 'mask'))
