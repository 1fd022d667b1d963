"""Refine CAM's seeds by a dense CRF: sure foreground, sure background, ignored between.

Reads --cam_out_dir and images of --train_list. Writes --ir_label_out_dir/ID.png.
Only this stage: python run_sample.py --cam_to_ir_label_pass True
"""
from argparse import Namespace

from misc import activations, auto_threshold, crf, imutils, inference, labels, records, seeds
from misc.auto_threshold import AUTO
from misc.pyutils import UserError, log


def run(args: Namespace) -> None:
    refine_folder(args, 'cam_to_ir_label', args.cam_out_dir, args.ir_label_out_dir,
                  (args.cam_conf_fg_thres, args.cam_conf_bg_thres), 'run --make_cam_pass True first')


def refine_folder(args: Namespace, stage: str, cam_dir: str, out_dir: str,
                  thresholds: tuple[float | str, float | str], remedy: str) -> None:
    """Refine a folder of activations (CAM's or AMN's) at (fg, bg) thresholds, each a number or 'auto'."""
    source, ids = args.source, args.source.names(args.train_list)
    settings = {'stage': stage, 'activations': records.made_by(cam_dir),
                **dict(zip(('fg_thres', 'bg_thres'), thresholds, strict=True))}
    if AUTO in thresholds:
        settings |= _chosen_thresholds(settings, cam_dir, out_dir, ids, remedy, args)
    records.open_folder(out_dir, settings, ('.png',), args.overwrite)

    def refine(image_id: str) -> None:
        activation = activations.load(cam_dir, image_id, remedy).without_background()
        image = imutils.read_of(source, image_id)
        if activation.high_res.shape[1:] != image.shape[:2]:
            raise UserError(f'{cam_dir}: the activation of {image_id} has another size than its image; make it anew')
        seed = seeds.refined_seed(image, activation.keys, activation.high_res, settings['fg_thres'], settings['bg_thres'])
        labels.save(labels.label_path(out_dir, image_id), seed, source.palette)

    crf.prepare()
    inference.for_each_image(ids, lambda image_id: labels.exists(out_dir, image_id), refine, args.num_workers)


def _chosen_thresholds(settings: dict, cam_dir: str, out_dir: str, ids: list[str], remedy: str, args: Namespace) -> dict:
    """Numbers in the place of 'auto', and where each comes from, as they are recorded.

    A folder that was begun so keeps its numbers, whatever list it goes on with, as long as the activations are the same.
    """
    chosen = [name for name in ('fg_thres', 'bg_thres') if settings[name] == AUTO]
    origin = {f'{name}_from': AUTO for name in chosen}
    same = origin | {'activations': settings['activations']}
    if not args.overwrite and all(records.setting(out_dir, name, None) == value for name, value in same.items()):
        numbers = {name: records.setting(out_dir, name, None) for name in chosen}
        log.info('%s was begun with chosen thresholds, which stay', out_dir)
    else:
        numbers = dict(zip(('fg_thres', 'bg_thres'),
                           auto_threshold.seed_thresholds_of(cam_dir, ids, remedy, args.num_workers), strict=True))
    resolved = settings | {name: numbers[name] for name in chosen} | origin
    log.info('foreground above %.2f, background below %.2f', resolved['fg_thres'], resolved['bg_thres'])
    if resolved['bg_thres'] > resolved['fg_thres']:
        raise UserError(f'{out_dir}: the background threshold {resolved["bg_thres"]} is above the foreground threshold '
                        f'{resolved["fg_thres"]}; give numbers for both, or auto for both')
    return resolved
