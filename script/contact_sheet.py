"""Draw rows of image, CAM, AMN activation, pseudo-mask, truth into one PNG.

    python script/contact_sheet.py [--dataset NAME] --data_root ROOT --out result/sheet.png
    [--images ID ... | --number 8]
"""
import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from misc import ending  # noqa: E402
from misc.command import options  # noqa: E402
from misc.contract.sources import Source  # noqa: E402
from misc.contract.stages import Stages  # noqa: E402
from misc.draw import colours, drawing, gallery  # noqa: E402
from misc.draw.gallery import Made, Method, Parts  # noqa: E402
from misc.files.activations import Activation  # noqa: E402
from misc.method import instances  # noqa: E402
from misc.pyutils import UserError  # noqa: E402
from step.pipeline import STAGES  # noqa: E402


def methods_of(stages: Stages, work_dir: Path) -> list[Method]:
    """What is shown, in pipeline order: all but refined seeds."""
    return [Method(stage.writes[0].flag.removesuffix('_out_dir'), stage.shown.title,
                   str(work_dir / stage.writes[0].path), stage.shown.kind, maker=stage.name)
            for stage in stages if stage.shown is not None and stage.shown.kind != 'seed']


def picture(image: np.ndarray, made: Made, palette: np.ndarray) -> np.ndarray:
    """What was made of an image, over it."""
    if isinstance(made, Activation):
        return drawing.overlay_activation(image, made.high_res.max(0, initial=0))
    if isinstance(made, instances.Instances):
        return drawing.overlay_instances(image, instances.without_fragments(made).instance_map)
    return drawing.overlay_labels(image, made, palette)


def sheet(source: Source, ids: list[str], methods: list[Method]) -> np.ndarray:
    """A row for each image; a column for each method that made something of one of them, and for
    the truth, where there is one. Raises UserError where nothing is there.
    """
    parts: list[Parts] = [gallery.load(source, image_id, methods) for image_id in ids]
    there = [method for method in methods if any(method.name in part.made for part in parts)]
    if not there:
        raise UserError(f'nothing to draw: none of {", ".join(each.folder for each in methods)} '
                        f'has one of these images; run --{methods[0].maker}_pass True first')
    hues = colours.of_methods(method.name for method in there)
    truth = any(part.truth is not None for part in parts)
    rows = []
    for part in parts:
        made = [part.made.get(method.name) for method in there] + [part.truth] * truth
        rows.append([part.image, *(None if each is None else picture(
            part.image, each, source.palette) for each in made)])
    return drawing.contact_sheet(
        rows, ['image', *(method.title for method in there), *['truth'] * truth],
        [', '.join(np.array(source.classes)[source.labels(image_id)]) for image_id in ids],
        heading_inks=[None, *(colours.rgb(hues[method.name].light) for method in there)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
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
        ids = [ids[position] for position in np.linspace(0, len(ids) - 1,
                                                         min(args.number, len(ids))).astype(int)]
    stages = options.with_stages_of(STAGES, sys.argv[1:])
    drawing.save(args.out, sheet(source, ids, methods_of(stages, args.work_dir)))
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(main())
