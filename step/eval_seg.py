"""Score the segmentation network's label maps, and with --seg_crf those refined by CRF.

Reads --seg_out_dir, with --seg_crf also --seg_crf_out_dir, and the masks of --seg_list. Prints the scores, adds a line for each
to result/scores.jsonl.
Only this stage: python run_sample.py --eval_seg_pass True
"""
from argparse import Namespace

from misc import labels, records, scores
from step import scoring
from step.make_seg import folder


def run(args: Namespace) -> None:
    made_with = {name: records.setting(folder(args, args.seg_out_dir), name, getattr(args, f'seg_{name}'))
                 for name in ('scales', 'flip')}
    _score(args, 'eval_seg', args.seg_out_dir, 'run --make_seg_pass True first', made_with)
    if args.seg_crf:
        _score(args, 'eval_seg_crf', args.seg_crf_out_dir, 'run --make_seg_pass True --seg_crf True first', made_with)


def _score(args: Namespace, name: str, out_dir: str, remedy: str, made_with: dict) -> None:
    ids = args.source.names(args.seg_list)
    scoring.tell_changes(args, folder(args, out_dir), ids)

    def load(image_id: str):
        return labels.load(labels.label_path(folder(args, out_dir), image_id), remedy)

    counts = scores.count_label_maps(args.source, ids, load, args.num_workers)
    scoring.report(args, name, scores.score(scores.ignored_as_background(counts), len(ids)), args.seg_list, **made_with)
