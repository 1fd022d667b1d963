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

from misc import imutils, inference, instances, records, torchutils, weights
from misc.pyutils import UserError, log, write_json
from step.make_sem_seg import Read, edge_of, read_with_activations


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.infer_list)
    net = importlib.import_module(args.irn_network).Net()
    if not hasattr(net, 'displacement'):
        raise UserError(f'--irn_network {args.irn_network}: instance masks need its method displacement(stages)')
    loaded = weights.load_checkpoint(net, args.irn_weights_name, 'run --train_irn_pass True first')
    inference.prepare(net, args.device, args.precision)
    records.open_folder(args.ins_seg_out_dir, {
        'stage': 'make_ins_seg', 'network': args.irn_network, 'weights': loaded,
        'activations': records.made_by(args.cam_out_dir), 'beta': args.beta, 'exp_times': args.exp_times,
        'bg_thres': args.ins_seg_bg_thres, 'canvas': args.sem_seg_canvas, 'precision': args.precision},
        ('.npz',), args.overwrite)

    def read(image_id: str) -> Read:
        return read_with_activations(source, args.cam_out_dir, image_id, imutils.read_of(source, image_id),
                                     'run --make_cam_pass True with a --train_list that holds it')

    def compute(image_id: str, item: Read) -> Callable[[], tuple]:
        fields = ()
        if len(item.keys):
            fields = edge_and_displacement(net, torchutils.to_device(item.image, args.device), args.precision,
                                           args.sem_seg_canvas)
        fields = [torchutils.ToHost(field) for field in fields]
        return lambda: (image_id, item.keys, tuple(item.hw), item.strided.numpy(), *(field.read().numpy() for field in fields))

    def find_and_save(made: tuple) -> None:  # most of the work, and too many small steps for a GPU
        image_id, keys, hw, *fields = made
        found = instances.nothing(hw)
        if len(keys):
            found = instances.find(keys, *map(torch.from_numpy, fields), args.ins_seg_bg_thres, args.beta, args.exp_times, hw)
        instances.save(args.ins_seg_out_dir, image_id, found)

    inference.for_each_image(ids, lambda image_id: instances.exists(args.ins_seg_out_dir, image_id), read, args.num_workers,
                             compute, args.device, find_and_save)
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
