"""Draw the contact sheet: photographs with their activations, pseudo-masks and truth.

A row an image of --infer_list; the truth where there are masks. Reads what is there of
--cam_out_dir, --amn_cam_out_dir and --sem_seg_out_dir. Writes --sheet_out anew.
Only this stage: python run_sample.py --draw_sheet_pass True
"""
from pathlib import Path

from misc import torchutils
from misc.contract.settings import Sheet
from misc.contract.stages import Input, Job, Output, Stage
from misc.draw import drawing, sheet
from misc.pyutils import UserError, log


def run(job: Job, told: Sheet) -> None:
    if not torchutils.is_main():
        return
    columns = [sheet.column(stage, Path(job.files[stage.writes[0].flag]))
               for stage in sheet.shown(job.stages)]
    there = [each for each in columns if each.folder.is_dir()]
    if not there:
        raise UserError('nothing to draw: none of '
                        f'{", ".join(str(each.folder) for each in columns)} is there; '
                        + job.remedy('cam_out_dir'))
    ids = sheet.spread(job.ids('infer_list'), told.images)
    drawing.save(job.files['sheet_out'], sheet.draw(job.source, ids, there))
    log.info('%d images, drawn side by side: %s', len(ids), job.files['sheet_out'])


STAGE = Stage(
    'draw_sheet', 'the contact sheet: photographs, activations and masks of some images', run,
    (Sheet,), reads=tuple(Input(flag, needed=False) for flag in ('cam_out_dir', 'amn_cam_out_dir',
                                                                 'sem_seg_out_dir')),
    writes=(Output('sheet_out', 'result/sheet.png', metavar='FILE'),), lists=('infer_list',))
