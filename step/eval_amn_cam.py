"""Score AMN's activations at --eval_amn_cam_thres, and find their best global threshold.

Reads --amn_cam_out_dir and the masks of --eval_set. Prints the scores, adds a line to result/scores.jsonl.
Only this stage: python run_sample.py --eval_amn_cam_pass True
"""
from argparse import Namespace

from step import eval_cam


def run(args: Namespace) -> None:
    eval_cam.score_folder(args, 'eval_amn_cam', args.amn_cam_out_dir, args.eval_amn_cam_thres,
                          'run --make_amn_cam_pass True first')
