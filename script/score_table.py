"""Print one table of the last score of each stage: python script/score_table.py result/scores.jsonl [--published]."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc import ending  # noqa: E402
from misc.scores import read_scores, table  # noqa: E402
from step.scoring import TITLES, row_of  # noqa: E402

# mIoU, seeds at their best threshold: table 2 of the LPCAM paper (CVPR 2023), which lists AMN
PUBLISHED = {'voc12': {'eval_cam': 0.488, 'eval_amn_cam': 0.621, 'eval_sem_seg': 0.722, 'eval_seg': 0.695},
             'coco14': {'eval_cam': 0.331, 'eval_amn_cam': 0.403, 'eval_sem_seg': 0.467, 'eval_seg': 0.447}}
OF = {'voc12': 'VOC train, 1,464 images', 'coco14': 'COCO train2014, 82,783 images'}


def thresholds(line: dict) -> str:
    names = [name for name in ('threshold', 'fg_threshold', 'bg_threshold') if name in line]
    return ', '.join(f'{line[name]:.2f}' for name in names) or '-'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('scores', help='a file that run_sample.py --scores_file wrote')
    parser.add_argument('--published', action='store_true', help='beside them the published figures (VOC, COCO)')
    args = parser.parse_args()
    return ending.run(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    last = read_scores(args.scores, row_of)
    rows = []
    for stage, title in TITLES.items():
        if stage in last:
            line = last[stage]
            within = line.get('within_3_points')
            row = [title, thresholds(line), line.get('miou', line.get('map')), line.get('best_miou', '-'),
                   f'{line["best_threshold"]:.2f}' if 'best_threshold' in line else '-',
                   f'{within[0]:.2f} to {within[1]:.2f}' if within else '-', f'{line["split"]} ({line["images"]})']
            rows.append(row + ([PUBLISHED.get(line['data'], {}).get(stage, '-')] if args.published else []))
    headings = ['mIoU in %', 'threshold', 'mIoU', 'best', 'at', 'best less 3 points', 'split (images)']
    print(table(headings + (['published'] if args.published else []), rows))
    if any('labelled' in last[stage] for stage in TITLES if stage in last):
        print('refined seeds: of the labelled pixels alone')
    for data in sorted({line['data'] for line in last.values()} & OF.keys() if args.published else ()):
        print(f'published: {OF[data]}, the seeds at their best threshold (LPCAM paper, table 2); segmentation: val, '
              'ResNet-101 (tables 3, 4)')


if __name__ == '__main__':
    sys.exit(main())
