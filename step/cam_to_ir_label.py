"""Refine CAM's seeds by a dense CRF: sure foreground, sure background, ignored between.

Reads --cam_out_dir and images of --train_list. Writes --ir_label_out_dir/ID.png.
Only this stage: python run_sample.py --cam_to_ir_label_pass True
"""
from misc import imutils, inference
from misc.contract.settings import AUTO, CamSeeds, Seeds
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.files import activations, label_maps, records
from misc.files.inputs import Inputs, Part
from misc.method import crf, seeds
from misc.pyutils import UserError, log
from misc.score import auto_threshold


def run(job: Job, settings: CamSeeds) -> None:
    inference.make_all(making(job, settings), job.run.workers)


def making(job: Job, settings: CamSeeds) -> inference.Making:
    """Open the folder; return what makes the refined seed of an image."""
    return refining(job, 'cam_to_ir_label', 'cam_out_dir', 'ir_label_out_dir', settings)


def refining(job: Job, stage: str, cam_flag: str, out_flag: str,
             settings: Seeds) -> inference.Making:
    """Open the folder of refined seeds; return what makes one of an activation (CAM's or AMN's).

    The two thresholds are each a number or 'auto'.
    """
    source, cam_dir, folder, remedy = (job.source, job.files[cam_flag], job.files[out_flag],
                                       job.remedy(cam_flag))
    record = {'stage': stage, **settings.record(), 'classes': source.classes,
              'activations': records.made_by(cam_dir)}
    if AUTO in (settings.fg_thres, settings.bg_thres):
        record |= chosen_thresholds(job, record, cam_dir, folder, remedy)
    made = records.open_folder(folder, record, ('.png',), job.run.overwrite,
                               ids=job.ids('train_list'), inputs=Inputs(
        source, activation=Part(cam_dir, activations.existing_path, remedy)),
        legend=label_maps.legend(source.classes))

    def refine(image_id: str) -> None:
        image = imutils.read_of(source, image_id)
        activation = activations.of_image(cam_dir, image_id, image.shape[:2], remedy)
        refined = seeds.refined_seed(image, activation.keys, activation.high_res,
                                     record['fg_thres'],
                                     record['bg_thres'])
        label_maps.save(label_maps.label_path(folder, image_id), refined, source.palette)

    crf.prepare()
    return inference.Making(job.ids('train_list'), made,
                            lambda image_id: label_maps.exists(folder, image_id), refine)


def needs_all(settings: Seeds) -> str:
    """Return why no image can be refined before all activations are there; '' where it can."""
    return ('its thresholds are chosen from all activations'
            if AUTO in (settings.fg_thres, settings.bg_thres) else '')


def chosen_thresholds(job: Job, record: dict, cam_dir: str, folder: str, remedy: str) -> dict:
    """Numbers in the place of 'auto', and where each comes from, as they are recorded.

    A folder that was begun so keeps its numbers, whatever list it goes on with, as long as the
    activations are the same.
    """
    chosen = [name for name in ('fg_thres', 'bg_thres') if record[name] == AUTO]
    numbers = {} if job.run.overwrite else auto_threshold.begun_with(
        folder, chosen, activations=record['activations'])
    if not numbers:
        numbers = dict(zip(('fg_thres', 'bg_thres'), auto_threshold.seed_thresholds_of(
            cam_dir, job.ids('train_list'), remedy, job.run.workers), strict=True))
    resolved = record | auto_threshold.as_recorded({name: numbers[name] for name in chosen})
    log.info('foreground above %.2f, background below %.2f', resolved['fg_thres'],
             resolved['bg_thres'])
    if resolved['bg_thres'] > resolved['fg_thres']:
        raise UserError(f'{folder}: the background threshold {resolved["bg_thres"]} is above the '
                        f'foreground threshold '
                        f'{resolved["fg_thres"]}; give numbers for both, or auto for both')
    return resolved


STAGE = Stage(
    'cam_to_ir_label', "refine CAM's seeds by CRF", run, (CamSeeds,),
    reads=(Input('cam_out_dir'),),
    writes=(Output('ir_label_out_dir', 'result/ir_label', exists=label_maps.exists, megabytes=0.009,
                   authors=True),),
    shown=Shown("CAM's refined seed", 'seed'), making=making, needs_all=needs_all)
