"""Instance masks: CAM's activations, cut where displacements part objects, spread by a random walk to IRN's boundaries.

Reads --irn_weights_name, --cam_out_dir, images of --mask_list. Writes --ins_seg_out_dir/ID.npz, and all of them to
--ins_seg_coco_json, if that is given.
Only this stage: python run_sample.py --make_ins_seg_pass True
"""
import functools

import torch

from misc import imutils, inference, networks, torchutils
from misc.contract.settings import InstanceMasks
from misc.contract.stages import Input, Job, Output, Stage
from misc.data import datasets
from misc.files import activations, records
from misc.method import instances
from misc.pyutils import UserError, log, write_json
from step.make_sem_seg import LISTED, Unwalked, edge_of


def run(job: Job, told: InstanceMasks) -> None:
    source, folder, cam, ids = job.source, job.files['ins_seg_out_dir'], job.files['cam_out_dir'], job.ids('mask_list')
    net, digest = networks.load(told.network, path=job.files['irn_weights_name'], remedy=job.remedy('irn_weights_name'),
                                device=job.device, precision=told.precision)
    if not hasattr(net, 'displacement'):
        raise UserError(f'--irn_network {told.network}: instance masks need its method displacement(stages)')
    code = networks.code_of(*told.modules())
    record = {'stage': 'make_ins_seg', **told.record(), 'code': code, 'weights': digest, 'activations': records.made_by(cam)}
    records.open_folder(folder, record, ('.npz',), job.run.overwrite)

    def read(image_id: str) -> Unwalked:
        image = imutils.read_image(source.image_path(image_id))
        hw = image.shape[:2]
        activation = activations.of_image(cam, image_id, hw, job.remedy('cam_out_dir', LISTED))
        return Unwalked(activation.keys, activation.strided, hw, datasets.scaled_images(image, [1.0])[0])

    with inference.Images.of(job, 'mask_list', functools.partial(instances.exists, folder)) as images:
        for image_id, item in images.todo(read):
            found = instances.nothing(item.hw)
            if len(item.keys):
                edge, displacement = edge_and_displacement(net, torchutils.to_device(item.image, job.device), told.precision,
                                                           told.canvas)
                found = instances.find(item.keys, torch.from_numpy(item.strided).to(job.device), edge, displacement,
                                       told.bg_thres, told.beta, told.exp_times, item.hw)
            images.save(instances.save, folder, image_id, found)
    path = job.files['ins_seg_coco_json']
    if path is not None and torchutils.is_main():
        content = instances.to_coco(source, ids, functools.partial(instances.load, folder))
        write_json(path, content)
        log.info('%s: %d instances in %d images', path, len(content['annotations']), len(ids))


@torch.inference_mode()
def edge_and_displacement(net: torch.nn.Module, image: torch.Tensor, precision: str,
                          canvas_side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`edge_of` (1, h, w), and the displacement (2, h, w) of the image without its mirror, its stored mean subtracted,
    from the same pass through the backbone."""
    displacement: list[torch.Tensor] = []

    def of_the_image(stages: list[torch.Tensor]) -> None:
        if not displacement:  # the image comes first, its mirror with it or after it
            displacement.append(net.displacement([stage[:1] for stage in stages])[0].float())

    edge = edge_of(net, image, precision, canvas_side, of_the_image)
    return edge, displacement[0][:, :edge.shape[1], :edge.shape[2]]


STAGE = Stage(
    'make_ins_seg', "instance masks: random walk over CAM's activations, parted by IRN's displacements", run, (InstanceMasks,),
    reads=(Input('irn_weights_name'), Input('cam_out_dir')),
    writes=(Output('ins_seg_out_dir', 'result/ins_seg', exists=instances.exists, megabytes=0.01, authors=True),
            Output('ins_seg_coco_json', 'result/ins_seg.json', kept=False, metavar='FILE', holds='the file',
                   help="make_ins_seg also writes its masks there, in COCO's format, to train an instance network on (ours; "
                   'without FILE in result/ins_seg.json)')),
    lists=('mask_list',), labelled=False)
