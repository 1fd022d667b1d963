"""Score AMN's activations at --eval_amn_cam_thres, and find their best global threshold.

Reads --amn_cam_out_dir and the masks of --eval_set. Prints the scores, adds a line to the scores
file.
Only this stage: python run_sample.py --eval_amn_cam_pass True
"""
from misc.contract.settings import AmnScore
from misc.contract.stages import Input, Job, Row, Stage
from misc.score import folders


def run(job: Job, settings: AmnScore) -> None:
    folders.score_activations(job, 'eval_amn_cam', 'amn_cam_out_dir', settings.threshold)


STAGE = Stage(
    'eval_amn_cam', "score AMN's activations", run, (AmnScore,),
    reads=(Input('amn_cam_out_dir'),), lists=('eval_set',), masks=True,
    rows=(Row('eval_amn_cam', 'AMN seed', {'voc12': 0.621, 'coco14': 0.403}),))
