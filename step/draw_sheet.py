"""Draw the contact sheet: photographs with their activations, pseudo-masks and truth.

A row an image of --infer_list; the truth where there are masks. Reads what is there of
what the stages show. Writes --sheet_out anew.
Only this stage: python run_sample.py --draw_sheet_pass True
"""
from misc import torchutils
from misc.contract.settings import Sheet
from misc.contract.stages import Job, Output, Stage
from misc.draw import drawing, sheet
from misc.pyutils import log


def run(job: Job, told: Sheet) -> None:
    if not torchutils.is_main():
        return
    methods = sheet.methods_of(job.stages, lambda output: job.files[output.flag])
    ids = sheet.spread(job.ids('infer_list'), told.images)
    drawing.save(job.files['sheet_out'], sheet.draw(job.source, ids, methods))
    log.info('%d images, drawn side by side: %s', len(ids), job.files['sheet_out'])


STAGE = Stage(
    'draw_sheet', 'the contact sheet: photographs, activations and masks of some images', run,
    (Sheet,), overview=True,
    writes=(Output('sheet_out', 'result/sheet.png', metavar='FILE'),), lists=('infer_list',))
