"""Score the pseudo-masks.

Reads --sem_seg_out_dir and the masks of --eval_set. Prints the scores, adds a line to result/scores.jsonl.
Only this stage: python run_sample.py --eval_sem_seg_pass True
"""
from argparse import Namespace

from misc import labels, records, scores
from step import scoring


def run(args: Namespace) -> None:
    ids = args.source.names(args.eval_set)
    scoring.tell_changes(args, args.sem_seg_out_dir, ids)

    def load(image_id: str):
        return labels.load(labels.label_path(args.sem_seg_out_dir, image_id), 'run --make_sem_seg_pass True first')

    counts = scores.count_label_maps(args.source, ids, load, args.num_workers)
    scoring.report(args, 'eval_sem_seg', scores.score(scores.ignored_as_background(counts), len(ids)),
                   threshold=records.setting(args.sem_seg_out_dir, 'bg_thres', args.sem_seg_bg_thres))
