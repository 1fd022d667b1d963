"""Score the pseudo-masks.

Reads --sem_seg_out_dir and the masks of --eval_set. Prints the scores, adds a line to the scores
file.
Only this stage: python run_sample.py --eval_sem_seg_pass True
"""
from misc.contract.settings import AUTO, PseudoMasks
from misc.contract.stages import Input, Job, Row, Stage
from misc.files import records
from misc.pyutils import UserError
from misc.score import folders


def run(job: Job, settings: PseudoMasks) -> None:
    folder = job.files['sem_seg_out_dir']
    threshold = records.recorded(folder, 'bg_thres', settings.bg_thres)
    if threshold == AUTO:
        raise UserError(f'{folder} has no record of its threshold, and {AUTO} does not tell it: '
                        'give the number')
    origin = records.recorded(folder, 'bg_thres_from', None)
    folders.score_label_maps(job, 'eval_sem_seg', folder, job.remedy('sem_seg_out_dir'),
                             threshold=threshold,
                             **({} if origin is None else {'threshold_from': origin}))


STAGE = Stage(
    'eval_sem_seg', 'score the pseudo-masks', run, (PseudoMasks,),
    reads=(Input('sem_seg_out_dir'),), lists=('eval_set',), masks=True,
    rows=(Row('eval_sem_seg', 'pseudo-mask', {'voc12': 0.722, 'coco14': 0.467}),))
