"""Print one table of the last score of each stage: python script/score_table.py result/scores.jsonl [--published]."""
import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc.scores import table  # noqa: E402

STAGES = {'eval_cam': 'CAM seed', 'eval_ir_label': 'CAM seed, refined', 'eval_amn_cam': 'AMN seed',
          'eval_amn_ir_label': 'AMN seed, refined', 'eval_sem_seg': 'pseudo-mask',
          'eval_seg, one scale': 'segmentation, one scale', 'eval_seg': 'segmentation, multi-scale',
          'eval_seg_crf': 'segmentation, CRF'}
# mIoU on VOC train, seeds at their best threshold: table 2 of the LPCAM paper (CVPR 2023), which lists AMN; segmentation: on
# VOC val, tables 3 and 4 there
PUBLISHED = {'eval_cam': 0.488, 'eval_amn_cam': 0.621, 'eval_sem_seg': 0.722, 'eval_seg': 0.695}


def row_of(line: dict) -> str:
    """The row that a score belongs to: its stage, and for the segmentation network the number of scales."""
    return line['stage'] + (', one scale' if line['stage'] == 'eval_seg' and len(line['scales']) == 1 else '')


def thresholds(line: dict) -> str:
    names = [name for name in ('threshold', 'fg_threshold', 'bg_threshold') if name in line]
    return ', '.join(f'{line[name]:.2f}' for name in names) or '-'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('scores', help='a file that run_sample.py --scores_file wrote')
    parser.add_argument('--published', action='store_true', help='beside them the published figures of VOC train')
    args = parser.parse_args()
    try:
        lines = [json.loads(line) for line in Path(args.scores).read_text(encoding='utf-8').splitlines()]
    except (OSError, ValueError) as error:
        print(f'error: {args.scores}: no scores ({error}); run an eval stage first', file=sys.stderr)
        return 1
    last = {row_of(line): line for line in lines}
    rows = []
    for stage, title in STAGES.items():
        if stage in last:
            line = last[stage]
            within = line.get('within_3_points')
            row = [title, thresholds(line), line['miou'], line.get('best_miou', '-'),
                   f'{line["best_threshold"]:.2f}' if 'best_threshold' in line else '-',
                   f'{within[0]:.2f} to {within[1]:.2f}' if within else '-', f'{line["split"]} ({line["images"]})']
            rows.append(row + ([PUBLISHED.get(stage, '-')] if args.published else []))
    headings = ['mIoU in %', 'threshold', 'mIoU', 'best', 'at', 'best less 3 points', 'split (images)']
    print(table(headings + (['published'] if args.published else []), rows))
    if any('labelled' in last[stage] for stage in STAGES if stage in last):
        print('refined seeds: of the labelled pixels alone')
    if args.published:
        print('published: VOC train, 1,464 images, the seeds at their best threshold (LPCAM paper, table 2)'
              + ('; segmentation: VOC val, ResNet-101 (tables 3, 4)' if 'eval_seg' in last else ''))
    return 0


if __name__ == '__main__':
    sys.exit(main())
