"""Refine AMN's seeds by a dense CRF: sure foreground, sure background, ignored between.

Reads --amn_cam_out_dir and images of --train_list. Writes --amn_ir_label_out_dir/ID.png.
Only this stage: python run_sample.py --amn_cam_to_ir_label_pass True
"""
from argparse import Namespace

from step import cam_to_ir_label


def run(args: Namespace) -> None:
    cam_to_ir_label.refine_folder(args, 'amn_cam_to_ir_label', args.amn_cam_out_dir, args.amn_ir_label_out_dir,
                                  (args.amn_conf_fg_thres, args.amn_conf_bg_thres),
                                  'run --make_amn_cam_pass True first')
