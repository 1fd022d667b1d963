"""Score CAM's activations at --eval_cam_thres, and find their best global threshold.

Reads --cam_out_dir and the masks of --eval_set. Prints the scores, adds a line to the scores file.
The threshold auto is chosen without the masks.
Only this stage: python run_sample.py --eval_cam_pass True
"""
from misc.contract.settings import CamScore
from misc.contract.stages import Input, Job, Row, Stage
from misc.score import folders


def run(job: Job, settings: CamScore) -> None:
    folders.score_activations(job, 'eval_cam', 'cam_out_dir', settings.threshold)


STAGE = Stage(
    'eval_cam', "score CAM's activations", run, (CamScore,), reads=(Input('cam_out_dir'),),
    lists=('eval_set',), masks=True,
    rows=(Row('eval_cam', 'CAM seed', {'voc12': 0.488, 'coco14': 0.331}),))
