"""Score CAM's activations at --eval_cam_thres (auto: chosen without their masks), and find their best global threshold.

Reads --cam_out_dir and the masks of --eval_set. Prints the scores, adds a line to result/scores.jsonl.
Only this stage: python run_sample.py --eval_cam_pass True
"""
import functools
from argparse import Namespace

from misc import activations, auto_threshold, scores
from step import scoring


def run(args: Namespace) -> None:
    score_folder(args, 'eval_cam', args.cam_out_dir, args.eval_cam_thres, 'run --make_cam_pass True first')


def score_folder(args: Namespace, stage: str, folder: str, threshold: float | str, remedy: str) -> None:
    """Score a folder of activations (CAM's or AMN's). threshold: a number or 'auto'."""
    ids, details = args.source.names(args.eval_set), {}
    scoring.tell_changes(args, folder, ids)
    if threshold == auto_threshold.AUTO:
        threshold = auto_threshold.threshold_of(folder, ids, remedy, args.num_workers)
        details['threshold_from'] = auto_threshold.AUTO

    load = functools.partial(activations.class_planes, folder, remedy=remedy)
    result = scores.score_activations(args.source, ids, load, threshold, args.num_workers)
    best, best_miou = result.best()
    scoring.report(args, stage, result.at(threshold), threshold=threshold, best_threshold=best, best_miou=best_miou,
                   within_3_points=result.within(0.03), **details)
