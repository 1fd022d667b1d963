"""Draw rows of image, CAM, AMN activation, pseudo-mask, truth into one PNG.

    python script/contact_sheet.py [--dataset NAME] --data_root ROOT --out result/sheet.png
    [--images ID ... | --number 8]
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc import ending  # noqa: E402
from misc.command import options  # noqa: E402
from misc.draw import drawing, sheet  # noqa: E402
from misc.parsing import Parser  # noqa: E402
from step.pipeline import STAGES  # noqa: E402


def main() -> int:
    parser = Parser(description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_data_flags(parser.add_argument)
    options.add_stage_from(parser.add_argument)
    parser.add_argument('--out', required=True, help='the PNG')
    parser.add_argument('--images', nargs='+', help='ids of the rows')
    parser.add_argument('--list', help="where images are taken from, evenly spread, without "
                                       "--images (default: run_sample.py's "
                        '--infer_list)')
    parser.add_argument('--number', type=int, default=8, help='how many of them')
    parser.add_argument('--work_dir', type=Path, default=Path('.'),
                        help='as given to run_sample.py')
    args = parser.parse_args()
    return ending.run(lambda: run(args), lambda want: 'a smaller --number')


def run(args: argparse.Namespace) -> None:
    source = options.open_source(args)
    ids = (args.images or source.ids(args.list
                                     or options.source_class(args.dataset).lists['infer_list']))
    if not args.images:
        ids = sheet.spread(ids, args.number)
    stages = options.with_stages_of(STAGES, sys.argv[1:])
    drawing.save(args.out, sheet.draw(source, ids, sheet.methods_of(
        stages, lambda output: str(args.work_dir / output.path))))
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(main())
