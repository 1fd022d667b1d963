"""Instance masks: CAM's activations, cut where displacements part objects, spread by a random walk to IRN's boundaries.

Reads --irn_weights_name, --cam_out_dir, images of --infer_list. Writes --ins_seg_out_dir/ID.npz, and all of them to
--ins_seg_coco_json, if that is given.
Only this stage: python run_sample.py --make_ins_seg_pass True
"""
import functools
import importlib
from argparse import Namespace
from collections.abc import Callable

import torch

from misc import activations, datasets, imutils, inference, instances, records, torchutils, weights
from misc.inputs import Inputs, Part
from misc.pyutils import UserError, log, write_json
from step.make_sem_seg import edge_of

REMEDY = 'run --make_cam_pass True with a --train_list that holds it'


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.infer_list)
    net = importlib.import_module(args.irn_network).Net()
    if not hasattr(net, 'displacement'):
        raise UserError(f'--irn_network {args.irn_network}: instance masks need its method displacement(stages)')
    loaded = weights.load_checkpoint(net, args.irn_weights_name, 'run --train_irn_pass True first')
    inference.prepare(net, args.device, args.precision)
    made = records.open_folder(args.ins_seg_out_dir, {
        'stage': 'make_ins_seg', 'network': args.irn_network, 'weights': loaded, 'classes': source.classes,
        'activations': records.made_by(args.cam_out_dir), 'beta': args.beta, 'exp_times': args.exp_times,
        'bg_thres': args.ins_seg_bg_thres, 'canvas': args.sem_seg_canvas, 'precision': args.precision},
        ('.npz',), args.overwrite, ids=ids,
        inputs=Inputs(source, activation=Part(args.cam_out_dir, activations.existing_path, REMEDY)))

    def read(image_id: str) -> tuple:
        image = imutils.read_image(source.image_path(image_id))
        activation = activations.load(args.cam_out_dir, image_id, REMEDY).without_background()
        if activation.strided.shape[1:] != inference.strided_hw(image.shape[:2]):
            raise UserError(f'{args.cam_out_dir}: the activation of {image_id} has another size than its image')
        return activation.keys, activation.strided, image.shape[:2], datasets.scaled_images(image, [1.0])[0]

    def compute(image_id: str, item: tuple) -> Callable[[], None]:
        keys, strided, hw, image = item
        found = instances.nothing(hw)
        if len(keys):
            edge, displacement = edge_and_displacement(net, torchutils.to_device(image, args.device), args.precision,
                                                       args.sem_seg_canvas)
            found = instances.find(keys, torch.from_numpy(strided).to(args.device), edge, displacement,
                                   args.ins_seg_bg_thres, args.beta, args.exp_times, hw)
        return functools.partial(instances.save, args.ins_seg_out_dir, image_id, found)

    inference.for_each_image(ids, lambda image_id: instances.exists(args.ins_seg_out_dir, image_id), read, args.num_workers,
                             compute, args.device, [made])
    if args.ins_seg_coco_json is not None and torchutils.is_main():
        content = instances.to_coco(source, ids, functools.partial(instances.load, args.ins_seg_out_dir))
        write_json(args.ins_seg_coco_json, content)
        log.info('%s: %d instances in %d images', args.ins_seg_coco_json, len(content['annotations']), len(ids))


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
