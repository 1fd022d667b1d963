"""Score AMN's refined seeds: labelled share, precision and recall of each class, mIoU of the labelled pixels.

Reads --amn_ir_label_out_dir and the masks of --eval_set. Prints the scores, adds a line to result/scores.jsonl.
Only this stage: python run_sample.py --eval_amn_ir_label_pass True
"""
from argparse import Namespace

from step import eval_ir_label


def run(args: Namespace) -> None:
    eval_ir_label.score_folder(args, 'eval_amn_ir_label', args.amn_ir_label_out_dir,
                               'run --amn_cam_to_ir_label_pass True first',
                               (args.amn_conf_fg_thres, args.amn_conf_bg_thres))
