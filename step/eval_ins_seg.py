"""Score the instance masks: VOC's average precision at IoU 0.5.

Reads --ins_seg_out_dir and the masks of --eval_set, of classes and of objects. Prints the scores,
adds a line to the scores file.
Only this stage: python run_sample.py --eval_ins_seg_pass True
"""
import functools
from collections.abc import Sequence

from misc.contract.settings import InstanceMasks
from misc.contract.stages import Input, Job, Row, Stage
from misc.files import records
from misc.method import instances
from misc.pyutils import UserError
from misc.score import average_precision, results


def run(job: Job, settings: InstanceMasks) -> None:
    folder = job.files['ins_seg_out_dir']
    ids = job.ids('eval_set')
    results.tell_changes(job, folder, ids)
    load = functools.partial(instances.load, folder, remedy=job.remedy('ins_seg_out_dir'))
    score = average_precision.score(job.source, ids, load, job.run.workers)
    results.report_instances(job, 'eval_ins_seg', score,
                             threshold=records.recorded(folder, 'bg_thres', settings.bg_thres))


def check(job: Job, chosen: Sequence[str], settings: InstanceMasks) -> None:
    """Raise UserError where masks of single objects are missing, which the score needs."""
    where = getattr(job.source, 'object_mask_path', None)
    if where is None:
        raise UserError(f'eval_ins_seg: {job.source.name} has no masks of single objects to score '
                        f'against')
    paths = [where(image_id) for image_id in job.ids('eval_set')]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f'{missing[0]}: {len(missing)} of the {len(paths)} object masks of '
                        f'{job.lists["eval_set"]} are '
                        'missing; eval_ins_seg needs that of every image of --eval_set')


STAGE = Stage(
    'eval_ins_seg', 'score the instance masks', run, (InstanceMasks,),
    reads=(Input('ins_seg_out_dir'),), lists=('eval_set',), masks=True, check=check,
    rows=(Row('eval_ins_seg', 'instance masks (mean AP)'),))
