"""Refine AMN's seeds as CAM's: sure foreground, sure background, ignored between.

Reads --amn_cam_out_dir and images of --train_list. Writes --amn_ir_label_out_dir/ID.png.
Only this stage: python run_sample.py --amn_cam_to_ir_label_pass True
"""
from misc import inference
from misc.contract.settings import AmnSeeds
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.files import label_maps
from step.cam_to_ir_label import needs_all, refining


def run(job: Job, settings: AmnSeeds) -> None:
    inference.make_all(making(job, settings), job.run.workers)


def making(job: Job, settings: AmnSeeds) -> inference.Making:
    """Open the folder; return what makes the refined seed of an image."""
    return refining(job, 'amn_cam_to_ir_label', 'amn_cam_out_dir', 'amn_ir_label_out_dir',
                    settings)


STAGE = Stage(
    'amn_cam_to_ir_label', "refine AMN's seeds by CRF", run, (AmnSeeds,),
    reads=(Input('amn_cam_out_dir'),),
    writes=(Output('amn_ir_label_out_dir', 'result/amn_ir_label', exists=label_maps.exists,
                   megabytes=0.009, authors=True),),
    shown=Shown("AMN's refined seed", 'seed'), making=making, needs_all=needs_all)
