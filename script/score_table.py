"""Print one table of the last score of each stage: python script/score_table.py
result/scores.jsonl [--published]. Of several files, or of the --work_dir of a run with --repeat,
each number is a mean with its standard deviation.
"""
import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc import ending  # noqa: E402
from misc.command import options  # noqa: E402
from misc.parsing import Parser  # noqa: E402
from misc.score import results  # noqa: E402
from step.pipeline import STAGES  # noqa: E402


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument('scores', nargs='+', metavar='FILE_OR_FOLDER',
                        help='a file that run_sample.py --scores_file wrote, one of each run, or '
                        'the --work_dir of runs')
    parser.add_argument('--published', action='store_true',
                        help='beside them the published figures (VOC, COCO)')
    args = parser.parse_args()
    return ending.run(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    files = [file for given in args.scores for file in files_of(Path(given))]
    runs = {seed_of(file) or str(file): str(file) for file in files}
    print(results.table(runs if len(runs) > 1 else str(files[0]), STAGES.rows(), args.published))


def files_of(given: Path) -> list[Path]:
    """A file itself; of a work folder its scores, or those of every seed of --repeat."""
    usual = given / options.SCORES
    seeds = [] if usual.is_file() else sorted(given.glob(f'seed_*/{options.SCORES}'),
                                              key=lambda path: (len(str(path)), path))
    return seeds or [usual if given.is_dir() else given]


def seed_of(path: Path) -> str | None:
    """'seed 3' of a file that --repeat wrote."""
    return next((part.replace('_', ' ') for part in path.parts
                 if re.fullmatch(r'seed_\d+', part)), None)


if __name__ == '__main__':
    sys.exit(main())
