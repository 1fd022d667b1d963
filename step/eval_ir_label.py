"""Score CAM's refined seeds: labelled fraction, precision and recall of each class, mIoU.

Reads --ir_label_out_dir and the masks of --eval_set. Prints the scores, adds a line to the scores
file. mIoU is that of the labelled pixels.
Only this stage: python run_sample.py --eval_ir_label_pass True
"""
from misc.contract.settings import CamSeeds
from misc.contract.stages import Input, Job, Row, Stage
from misc.score import folders


def run(job: Job, settings: CamSeeds) -> None:
    folders.score_seeds(job, 'eval_ir_label', 'ir_label_out_dir', settings)


STAGE = Stage(
    'eval_ir_label', "score CAM's refined seeds", run, (CamSeeds,),
    reads=(Input('ir_label_out_dir'),), lists=('eval_set',), masks=True,
    rows=(Row('eval_ir_label', 'CAM seed, refined'),))
