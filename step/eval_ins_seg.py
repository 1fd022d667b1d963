"""Score the instance masks: VOC's average precision at IoU 0.5.

Reads --ins_seg_out_dir and the masks of --eval_set, of classes and of objects. Prints the scores, adds a line to
result/scores.jsonl.
Only this stage: python run_sample.py --eval_ins_seg_pass True
"""
import functools
from argparse import Namespace

from misc import average_precision, instances, records
from step import scoring


def run(args: Namespace) -> None:
    ids = args.source.names(args.eval_set)
    scoring.tell_changes(args, args.ins_seg_out_dir, ids)
    load = functools.partial(instances.load, args.ins_seg_out_dir, remedy='run --make_ins_seg_pass True first')
    scoring.report_instances(args, 'eval_ins_seg', average_precision.score(args.source, ids, load, args.num_workers),
                             threshold=records.setting(args.ins_seg_out_dir, 'bg_thres', args.ins_seg_bg_thres))
