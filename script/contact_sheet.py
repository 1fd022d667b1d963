"""Draw rows of image, CAM, AMN activation, pseudo-mask, truth into one PNG.

    python script/contact_sheet.py [--dataset NAME] --data_root ROOT --out result/sheet.png
    [--images ID ... | --number 8]
"""
import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc import ending, imutils  # noqa: E402
from misc.command import options  # noqa: E402
from misc.command.parsing import Parser  # noqa: E402
from misc.contract.sources import Source
from misc.draw import drawing  # noqa: E402
from misc.files import activations, labels  # noqa: E402
from step.pipeline import STAGES  # noqa: E402

SHOWN = [stage for stage in STAGES if stage.shown is not None and stage.shown.kind != 'seed']
HEADINGS = ('image', *(stage.shown.title for stage in SHOWN), 'truth')


def row(source: Source, image_id: str, args: argparse.Namespace) -> tuple[list[np.ndarray | None],
                                                                          str]:
    """The pictures of one image, and its classes."""
    image = imutils.read_of(source, image_id)
    pictures: list[np.ndarray | None] = [image]
    for stage in SHOWN:
        folder, remedy = args.work_dir / stage.writes[0].path, f'run {stage.flag} True first'
        if stage.shown.kind == 'activation':
            strongest = activations.load(folder, image_id,
                                         remedy).without_background().high_res.max(0, initial=0)
            pictures.append(drawing.overlay_activation(image, strongest))
        else:
            mask = labels.load(labels.label_path(folder, image_id), remedy)
            pictures.append(drawing.overlay_labels(image, mask, source.palette))
    truth = source.mask_path(image_id)
    pictures.append(drawing.overlay_labels(image, labels.load(truth), source.palette)
                    if truth.is_file() else None)
    return pictures, ', '.join(np.array(source.classes)[source.labels(image_id)])


def main() -> int:
    parser = Parser(description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_data_flags(parser.add_argument)
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
        ids = [ids[position] for position in np.linspace(0, len(ids) - 1,
                                                         min(args.number, len(ids))).astype(int)]
    rows, titles = zip(*(row(source, image_id, args) for image_id in ids), strict=True)
    drawing.save(args.out, drawing.contact_sheet(rows, HEADINGS, row_titles=titles))
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(main())
