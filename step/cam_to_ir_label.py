"""Refine CAM's seeds by a dense CRF: sure foreground, sure background, ignored between.

Reads --cam_out_dir and images of --train_list. Writes --ir_label_out_dir/ID.png.
Only this stage: python run_sample.py --cam_to_ir_label_pass True
"""
from argparse import Namespace

from misc import activations, imutils, inference, labels, records, seeds
from misc.pyutils import UserError


def run(args: Namespace) -> None:
    refine_folder(args, 'cam_to_ir_label', args.cam_out_dir, args.ir_label_out_dir,
                  (args.cam_conf_fg_thres, args.cam_conf_bg_thres), 'run --make_cam_pass True first')


def refine_folder(args: Namespace, stage: str, cam_dir: str, out_dir: str, thresholds: tuple[float, float],
                  remedy: str) -> None:
    """Refine a folder of activations (CAM's or AMN's) at (fg, bg) thresholds."""
    source, ids = args.source, args.source.names(args.train_list)
    records.open_folder(out_dir, {'stage': stage, 'fg_thres': thresholds[0], 'bg_thres': thresholds[1],
                                  'activations': records.made_by(cam_dir)}, ('.png',), args.overwrite)

    def refine(image_id: str) -> None:
        activation = activations.load(cam_dir, image_id, remedy).without_background()
        image = imutils.read_image(source.image_path(image_id))
        if activation.high_res.shape[1:] != image.shape[:2]:
            raise UserError(f'{cam_dir}: the activation of {image_id} has another size than its image; make it anew')
        seed = seeds.refined_seed(image, activation.keys, activation.high_res, *thresholds)
        labels.save(labels.label_path(out_dir, image_id), seed, source.palette)

    inference.for_each_image(ids, lambda image_id: labels.exists(out_dir, image_id), refine, args.num_workers)
