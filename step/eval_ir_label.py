"""Score CAM's refined seeds: labelled share, precision and recall of each class, mIoU of the labelled pixels.

Reads --ir_label_out_dir and the masks of --eval_set. Prints the scores, adds a line to result/scores.jsonl.
Only this stage: python run_sample.py --eval_ir_label_pass True
"""
from argparse import Namespace

from misc import labels, records, scores
from misc.auto_threshold import AUTO
from misc.pyutils import UserError
from step import scoring


def run(args: Namespace) -> None:
    score_folder(args, 'eval_ir_label', args.ir_label_out_dir, 'run --cam_to_ir_label_pass True first',
                 (args.cam_conf_fg_thres, args.cam_conf_bg_thres))


def score_folder(args: Namespace, stage: str, folder: str, remedy: str, thresholds: tuple[float | str, float | str]) -> None:
    """Score a folder of refined seeds (CAM's or AMN's). thresholds: (fg, bg), told where the folder has no record."""
    ids = args.source.names(args.eval_set)
    scoring.tell_changes(args, folder, ids)

    def load(image_id: str):
        return labels.load(labels.label_path(folder, image_id), remedy)

    made_with = tuple(records.setting(folder, name, given)
                      for name, given in zip(('fg_thres', 'bg_thres'), thresholds, strict=True))
    if AUTO in made_with:
        raise UserError(f'{folder} has no record of its thresholds, and {AUTO} does not tell them: give the numbers')
    origin = {f'{kind}_threshold_from': AUTO for kind in ('fg', 'bg')
              if records.setting(folder, f'{kind}_thres_from', None) == AUTO}
    counts = scores.count_label_maps(args.source, ids, load, args.num_workers)
    scoring.report_seeds(args, stage, scores.score_seeds(counts, len(ids)), made_with, **origin)
