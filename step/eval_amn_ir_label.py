"""Score AMN's refined seeds: labelled fraction, precision and recall of each class, mIoU.

Reads --amn_ir_label_out_dir and the masks of --eval_set. Prints the scores, adds a line to the
scores file. mIoU is that of the labelled pixels.
Only this stage: python run_sample.py --eval_amn_ir_label_pass True
"""
from misc.contract.settings import AmnSeeds
from misc.contract.stages import Input, Job, Row, Stage
from misc.score import folders


def run(job: Job, settings: AmnSeeds) -> None:
    folders.score_seeds(job, 'eval_amn_ir_label', 'amn_ir_label_out_dir', settings)


STAGE = Stage(
    'eval_amn_ir_label', "score AMN's refined seeds", run, (AmnSeeds,),
    reads=(Input('amn_ir_label_out_dir'),), lists=('eval_set',), masks=True,
    rows=(Row('eval_amn_ir_label', 'AMN seed, refined'),))
