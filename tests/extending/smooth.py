"""A stage of one's own, here between the pseudo-masks and their score: small specks of a mask go to
what surrounds them.

    python run_sample.py --stage_from smooth --stages make_sem_seg..eval_sem_seg --smooth_size 7
"""
import dataclasses

import cv2
import numpy as np

from misc import inference
from misc.contract.settings import COUNT, Settings, setting
from misc.contract.stages import Input, Job, Output, Row, Shown, Stage
from misc.files import label_maps, records
from misc.files.inputs import Inputs, Part
from misc.score import folders


@dataclasses.dataclass(frozen=True)
class Smoothing(Settings):
    group, prefix = 'smoothing', 'smooth_'
    size: int = setting(5, 'side of the window whose median a pixel takes, pixels, odd (ours)',
                        COUNT)


def run(job: Job, settings: Smoothing) -> None:
    masks, folder = job.files['sem_seg_out_dir'], job.files['smooth_out_dir']
    remedy = job.remedy('sem_seg_out_dir')
    record = {'stage': 'smooth', **settings.record(), 'classes': job.source.classes,
              'masks': records.made_by(masks)}
    made = records.open_folder(folder, record, ('.png',), job.run.overwrite,
                               ids=job.ids('mask_list'), inputs=Inputs(
        # where one changes, it is smoothed anew
        job.source, labelled=False, mask=Part(masks, label_maps.label_path, remedy)))

    def make(image_id: str) -> None:
        mask = label_maps.load(label_maps.label_path(masks, image_id), remedy)
        smooth = cv2.medianBlur(np.ascontiguousarray(mask), settings.size)
        label_maps.save(label_maps.label_path(folder, image_id), smooth, job.source.palette)

    with inference.Images.of(job, 'mask_list', lambda image_id: label_maps.exists(folder, image_id),
                             made) as images:
        images.make(make)
    folders.score_label_maps(job, 'smooth', folder, job.remedy('smooth_out_dir'),
                             size=settings.size)


STAGE = Stage(
    'smooth', 'pseudo-masks without specks, and their score', run, (Smoothing,),
    reads=(Input('sem_seg_out_dir'),),
    writes=(Output('smooth_out_dir', 'result/smooth', exists=label_maps.exists),),
    lists=('mask_list', 'eval_set'), labelled=False, rows=(Row('smooth', 'pseudo-mask, smooth'),),
    shown=Shown('Smooth mask', 'mask'), after='make_sem_seg')
