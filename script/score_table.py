"""Print one table of the last score of each stage: python script/score_table.py result/scores.jsonl
[--published].
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc import ending  # noqa: E402
from misc.command.parsing import Parser  # noqa: E402
from misc.score import results  # noqa: E402
from step.pipeline import STAGES  # noqa: E402


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument('scores', help='a file that run_sample.py --scores_file wrote')
    parser.add_argument('--published', action='store_true',
                        help='beside them the published figures (VOC, COCO)')
    args = parser.parse_args()
    return ending.run(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    print(results.table(args.scores, STAGES.rows(), args.published))


if __name__ == '__main__':
    sys.exit(main())
