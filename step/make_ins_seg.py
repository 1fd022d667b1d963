"""Instance masks: CAM's activations, parted by displacements, spread by a random walk.

The activations are cut where displacements part objects, and spread to IRN's boundaries.

Reads --irn_weights_name, --cam_out_dir, images of --mask_list. Writes --ins_seg_out_dir/ID.npz, and
all of them to --ins_seg_coco_json, if that is given.
Only this stage: python run_sample.py --make_ins_seg_pass True
"""
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from misc import imutils, inference, networks, torchutils
from misc.contract.settings import InstanceMasks
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import activations, label_maps, records
from misc.files.inputs import Inputs, Part
from misc.method import instances, maps, walking
from misc.pyutils import UserError, log, write_json
from step.make_sem_seg import LISTED, Unwalked


class Fields(NamedTuple):
    """What instances are found from; no boundaries where the image shows no class.

    strided: activations (K, h, w).
    edge: boundaries (1, h, w).
    displacement: (2, h, w).
    """

    image_id: str
    keys: np.ndarray
    hw: tuple[int, int]
    strided: np.ndarray
    edge: np.ndarray | None = None
    displacement: np.ndarray | None = None


def run(job: Job, settings: InstanceMasks) -> None:
    source, folder, cam, ids = (job.source, job.files['ins_seg_out_dir'], job.files['cam_out_dir'],
                                job.ids('mask_list'))
    net, digest = networks.load(settings.network, path=job.files['irn_weights_name'],
                                remedy=job.remedy('irn_weights_name'), device=job.device,
                                precision=settings.precision)
    if not hasattr(net, 'displacement'):
        raise UserError(f'--irn_network {settings.network}: instance masks need its method '
                        f'displacement(stages)')
    code = networks.code_of(*settings.modules())
    record = {'stage': 'make_ins_seg', **settings.record(), 'code': code, 'weights': digest,
              'classes': source.classes, 'activations': records.made_by(cam)}
    remedy = job.remedy('cam_out_dir', LISTED)
    made = records.open_folder(folder, record, ('.npz',), job.run.overwrite, ids=ids,
                               inputs=Inputs(source, activation=Part(cam, activations.existing_path,
                                                                     remedy)),
                               legend=label_maps.legend(source.classes, first=0))

    def read(image_id: str) -> Unwalked:
        image = imutils.read_of(source, image_id)
        hw = image.shape[:2]
        activation = activations.of_image(cam, image_id, hw, remedy)
        return Unwalked(activation.keys, torch.from_numpy(activation.strided), hw,
                        datasets.scaled_images(image, [1.0])[0])

    # in workers: most of the work, and too many small steps for a GPU
    def find_and_save(fields: Fields) -> None:
        image_id, keys, hw, *planes = fields
        found = instances.nothing(hw)
        if len(keys):
            found = instances.find(keys, *map(torch.from_numpy, planes), settings.bg_thres,
                                   settings.beta, settings.exp_times, hw)
        instances.save(folder, image_id, found)

    with inference.Images.of(job, 'mask_list', functools.partial(instances.exists, folder),
                             made) as images:
        images.finish(fields_of(net, images, read, settings, job.device), find_and_save)
    path = job.files['ins_seg_coco_json']
    if path is not None and torchutils.is_main():
        content = instances.to_coco(source, ids, functools.partial(instances.load, folder))
        write_json(path, content)
        log.info('%s: %d instances in %d images', path, len(content['annotations']), len(ids))


def fields_of(net: torch.nn.Module, images: inference.Images, read: Callable[[str], Unwalked],
              settings: InstanceMasks, device: torch.device) -> Iterator[Callable[[], Fields]]:
    """Yield what gives the fields of each image on the host, once they are there."""
    for image_id, item in images.todo(read):
        with images.enough([image_id]):
            made = ()
            if len(item.keys):
                image = maps.normalized(torchutils.to_device(item.image, device))
                made = walking.edge_and_displacement(net, image, settings.precision,
                                                     settings.canvas)
            yield functools.partial(_on_host, image_id, item,
                                    [torchutils.ToHost(field) for field in made])


def _on_host(image_id: str, item: Unwalked, made: list[torchutils.ToHost]) -> Fields:
    return Fields(image_id, item.keys, tuple(item.hw), item.strided.numpy(),
                  *(field.read().numpy() for field in made))


STAGE = Stage(
    'make_ins_seg', "instance masks: random walk over CAM's activations, parted by IRN's "
                    "displacements", run, (InstanceMasks,),
    reads=(Input('irn_weights_name'), Input('cam_out_dir')),
    writes=(Output('ins_seg_out_dir', 'result/ins_seg', exists=instances.exists, megabytes=0.01,
                   authors=True),
            Output('ins_seg_coco_json', 'result/ins_seg.json', kept=False, metavar='FILE',
                   holds='the file', help="make_ins_seg also writes its masks there, in COCO's "
                                          "format, to train an instance network on (ours; "
                   'without FILE in result/ins_seg.json)')),
    lists=('mask_list',), labelled=False, shown=Shown('Instances', 'instances'))
