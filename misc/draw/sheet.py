"""The contact sheet: rows of photograph, activations, pseudo-mask and truth, in one picture."""
from collections.abc import Callable, Sequence

import numpy as np

from misc.contract.sources import Source
from misc.contract.stages import Output, Stages
from misc.draw import colours, drawing, gallery
from misc.draw.gallery import Made, Method
from misc.files.activations import Activation
from misc.method import instances
from misc.pyutils import UserError


def methods_of(stages: Stages, place: Callable[[Output], str]) -> list[Method]:
    """Return what has a column, in pipeline order: what the stages show, but refined seeds.

    place: where an output lies.
    """
    return [Method(stage.writes[0].flag.removesuffix('_out_dir'), stage.shown.title,
                   place(stage.writes[0]), stage.shown.kind, maker=stage.name)
            for stage in stages if stage.shown is not None and stage.shown.kind != 'seed']


def spread(ids: Sequence[str], number: int) -> list[str]:
    """Return at most `number` of the ids, evenly spread."""
    return [ids[position]
            for position in np.linspace(0, len(ids) - 1, min(number, len(ids))).astype(int)]


def draw(source: Source, ids: Sequence[str], methods: Sequence[Method]) -> np.ndarray:
    """Return the sheet of these images, uint8 (H, W, 3).

    Each row begins with the names of its classes; a column for each method that made something of
    one of them, and for the truth, where one has a mask. Raises UserError where nothing is there.
    """
    parts = [gallery.load(source, image_id, list(methods)) for image_id in ids]
    there = [method for method in methods if any(method.name in part.made for part in parts)]
    if not there:
        raise UserError(f'nothing to draw: none of {", ".join(each.folder for each in methods)} '
                        f'has one of these images; run --{methods[0].maker}_pass True first')
    hues = colours.of_methods(method.name for method in there)
    truth = any(part.truth is not None for part in parts)
    rows = []
    for part in parts:
        made = [part.made.get(method.name) for method in there] + [part.truth] * truth
        rows.append([part.image, *(None if each is None else _picture(
            part.image, each, source.palette) for each in made)])
    return drawing.contact_sheet(
        rows, ['image', *(method.title for method in there), *['truth'] * truth],
        [', '.join(np.array(source.classes)[source.labels(image_id)]) for image_id in ids],
        heading_inks=[None, *(colours.rgb(hues[method.name].light) for method in there)])


def _picture(image: np.ndarray, made: Made, palette: np.ndarray) -> np.ndarray:
    if isinstance(made, Activation):
        return drawing.overlay_activation(image, made.high_res.max(0, initial=0))
    if isinstance(made, instances.Instances):
        return drawing.overlay_instances(image, instances.without_fragments(made).instance_map)
    return drawing.overlay_labels(image, made, palette)
