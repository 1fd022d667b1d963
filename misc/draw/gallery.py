"""Single images for the report: scores at every threshold, pictures, and planes for its page.

A page that is opened from disk may not read the pixels of picture files. So what its slider, its
errors and its read-out need lies in script files: data/N.js calls `amnReport.arrived(N, text)`; the
text is base64 of zlib of uint8 planes (H, W), one after the other: the truth, where there is one,
then, method by method, of activations the strongest class and the number of thresholds of
scores.GRID passed, of refined seeds and masks the label map, of instances nothing. N is the image's
place in the report: an id may hold whatever a file name may, and would have to be escaped
everywhere.
"""
import base64
import dataclasses
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from misc import imutils
from misc.contract.sources import Source
from misc.data import datasets
from misc.draw import drawing
from misc.files import activations, label_maps
from misc.method import instances, seeds
from misc.method.instances import Instances
from misc.pyutils import UserError, atomic_path
from misc.score import scores

GRID = np.array(scores.GRID)


@dataclasses.dataclass(frozen=True)
class Method:
    """A folder of activations, of refined seeds, of masks or of instances.

    threshold: where activations are scored. listed: the flag of the list whose images it is of. of:
    the method of this run that it is the counterpart of, in the run that is compared with.
    """

    name: str
    title: str
    folder: str
    # 'activation', 'mask', 'seed' (not scored: much of it is ignored) or 'instances' (likewise)
    kind: str
    threshold: float | None = None
    maker: str = ''  # its stage
    listed: str = 'eval_set'
    of: str = ''

    @property
    def base(self) -> str:
        """The name that its colour goes by."""
        return self.of or self.name

    @property
    def is_scored(self) -> bool:
        return self.kind in ('activation', 'mask')

    @property
    def thresholds(self) -> np.ndarray:
        """Return scores.GRID and the method's own, ascending."""
        return np.union1d(GRID, [self.threshold])

    @property
    def position(self) -> int:
        """Of the threshold of scores.GRID that is nearest to the method's own."""
        return int(np.abs(GRID - self.threshold).argmin())


Made = activations.Activation | np.ndarray | Instances


class Parts(NamedTuple):
    """An image and what there is of it.

    image: uint8 (H, W, 3). truth: uint8 (H, W) or None. And what each method made of it, by name,
    where it has.
    """

    image: np.ndarray
    truth: np.ndarray | None
    made: dict[str, Made]


def exists(method: Method, image_id: str) -> bool:
    """Whether a method made something of an image."""
    kinds = {'activation': activations.exists, 'instances': instances.exists}
    return kinds.get(method.kind, label_maps.exists)(method.folder, image_id)


def load(source: Source, image_id: str, methods: list[Method]) -> Parts:
    """Return what there is of an image.

    Raises UserError for what is there but broken, of another size or of other classes.
    """
    image = imutils.read_of(source, image_id)
    hw, made = image.shape[:2], {}
    truth = (scores.read_truth(source, image_id, hw) if Path(source.mask_path(image_id)).is_file()
             else None)
    for method in methods:
        if not exists(method, image_id):
            continue
        if method.kind == 'activation':
            made[method.name] = activations.load(method.folder, image_id).without_background()
            _check_activation(made[method.name], method, image_id, hw, source.n_classes)
        elif method.kind == 'instances':
            made[method.name] = instances.load(method.folder, image_id)
            _check_instances(made[method.name], method, image_id, hw, source.n_classes)
        else:
            made[method.name] = datasets.read_refined_seed(
                method.folder, image_id, hw, source.n_classes, 'it was there before')
    return Parts(image, truth, made)


def _check_activation(activation: activations.Activation, method: Method, image_id: str,
                      hw: tuple[int, int], n_classes: int) -> None:
    _check(activations.activation_path(method.folder, image_id), activation.high_res.shape[1:],
           activation.keys, hw, n_classes)


def _check_instances(found: Instances, method: Method, image_id: str, hw: tuple[int, int],
                     n_classes: int) -> None:
    _check(instances.instances_path(method.folder, image_id), found.instance_map.shape,
           found.classes, hw, n_classes)


def _check(path: Path, made_for: tuple[int, ...], keys: np.ndarray, hw: tuple[int, int],
           n_classes: int) -> None:
    if made_for != hw:
        raise UserError(f'{path}: {made_for[0]} x {made_for[1]}, its image is {hw[0]} x {hw[1]}: '
                        f'made from another image; make it anew')
    if keys.max(initial=0) >= n_classes:
        raise UserError(f'{path}: holds classes above {n_classes}, the number of classes; make it '
                        f'anew')


@dataclasses.dataclass
class Measured:
    """The measures of one image.

    hw; truth: whether it has one; shown: labels that occur in its truth or in what was made of it,
    without background; true: those in its truth; by method: the counts as scores.truth_and_* give
    them, the mIoU at each of the method's thresholds (T,), or (1,) for masks. Without a truth there
    are neither counts nor scores. changed: by method, the share of the pixels that its counterpart
    gives another label.
    """

    hw: tuple[int, int]
    truth: bool
    shown: list[int]
    true: list[int]
    made: list[str]
    counts: dict[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    miou: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    changed: dict[str, float] = dataclasses.field(default_factory=dict)


def measure(source: Source, image_id: str, methods: list[Method]) -> Measured:
    """Score what there is of an image against its truth, at every threshold."""
    parts = load(source, image_id, methods)
    true = _occurring(parts.truth) if parts.truth is not None else []
    shown = set(true).union(*map(_occurring, parts.made.values()))
    result = Measured(parts.image.shape[:2], parts.truth is not None, sorted(shown), true,
                      list(parts.made))
    for method in methods:
        if method.of in parts.made and method.name in parts.made and method.kind != 'instances':
            own = next(other for other in methods if other.name == method.of)
            differs = (label_map(own, parts.made[own.name])
                       != label_map(method, parts.made[method.name]))
            result.changed[own.name] = float(differs.mean())
        if not method.is_scored or parts.truth is None or method.name not in parts.made:
            continue
        made = parts.made[method.name]
        if method.kind == 'activation':
            counts = scores.truth_and_activation(parts.truth, made.keys, made.high_res,
                                                 source.n_classes, method.thresholds)
        else:
            counts = scores.truth_and_map(parts.truth, made, source.n_classes)
        result.counts[method.name] = counts
        result.miou[method.name] = _miou(*counts, source.n_classes, method)
    return result


def label_map(method: Method, made: activations.Activation | np.ndarray) -> np.ndarray:
    """What a method says of each pixel, at its own threshold: (H, W)."""
    if isinstance(made, activations.Activation):
        return seeds.mask_of(made.keys, made.high_res, method.threshold)
    return made


def _occurring(made: Made) -> list[int]:
    """Labels but background and ignored."""
    if isinstance(made, activations.Activation):
        return (made.keys + 1).tolist()
    if isinstance(made, Instances):
        return np.unique(made.classes[made.scores > 0] + 1).tolist()
    return [label for label in np.unique(made).tolist() if label not in (0, label_maps.IGNORE)]


def shape(method: Method, n_classes: int) -> tuple[int, ...]:
    """Of a method's counts, as in misc/scores."""
    if method.kind == 'activation':
        return n_classes + 1, n_classes + 1, len(method.thresholds) + 1
    return n_classes + 1, n_classes + 2


def _miou(index: np.ndarray, counts: np.ndarray, n_classes: int, method: Method) -> np.ndarray:
    """mIoU of one image: at each of the method's thresholds (T,), (1,) for masks."""
    if method.kind == 'mask':
        dense = np.zeros(shape(method, n_classes), np.int64)
        dense.flat[index] = counts
        return np.array([scores.score(scores.ignored_as_background(dense), 1).miou])
    return scores.of_one_image(index, counts, n_classes, method.thresholds)[1].curve()


def choose(miou: np.ndarray, number: int, seed: int,
           changed: np.ndarray | None = None) -> dict[int, str]:
    """Choose which images to show.

    Returns position -> 'best', 'worst' or 'random', a third of `number` each; all, as '', for 0.
    changed: instead of those drawn at random 'changed', the highest of these.

    miou, changed: (N,), nan where there is none.
    """
    if number == 0 or number >= len(miou):
        return dict.fromkeys(range(len(miou)), '')
    order = _ordered(miou)
    best = order[:(number + 2) // 3]
    worst = order[len(best):][::-1][:(number + 1) // 3]
    groups = dict.fromkeys(best, 'best') | dict.fromkeys(worst, 'worst')
    if changed is not None:
        most = [position for position in _ordered(changed) if position not in groups]
        groups |= dict.fromkeys(most[:number - len(groups)], 'changed')
    others = np.setdiff1d(np.arange(len(miou)), list(groups))
    drawn = np.random.default_rng(seed).choice(others, number - len(groups),
                                               replace=False).tolist()
    return dict(sorted((groups | dict.fromkeys(drawn, 'random')).items()))


def _ordered(values: np.ndarray) -> list[int]:
    """Positions, the highest first, without those that are nan."""
    return [int(position) for position in np.argsort(-values, kind='stable')
            if not np.isnan(values[position])]


def write_image(folder: Path, number: int, source: Source, image_id: str,
                methods: list[Method]) -> None:
    """Write the pictures and the planes of an image.

    images/N_image.jpg; to be laid over it images/N_PART.png of the truth and each seed, mask or map
    of instances; data/N.js.
    """
    parts = load(source, image_id, methods)
    drawing.save(folder / 'images' / f'{number}_image.jpg', parts.image)
    layers, planes = {}, []
    if parts.truth is not None:
        layers['truth'] = drawing.label_layer(parts.truth, source.palette)
        planes.append(parts.truth)
    for method in methods:
        made = parts.made.get(method.name)
        if isinstance(made, activations.Activation):
            planes += scores.strongest_and_passed(made.keys, made.high_res, GRID)
        elif isinstance(made, Instances):
            layers[method.name] = drawing.instance_layer(
                instances.without_fragments(made).instance_map)
        elif made is not None:
            layers[method.name] = drawing.label_layer(made, source.palette)
            planes.append(made)
    for name, layer in layers.items():
        drawing.save(folder / 'images' / f'{number}_{name}.png', layer)
    with atomic_path(folder / 'data' / f'{number}.js') as temporary:
        temporary.write_text(f'amnReport.arrived({number}, "{packed(planes)}");\n',
                             encoding='ascii')


def packed(planes: list[np.ndarray]) -> str:
    """Base64 of zlib of the planes as uint8, one after the other."""
    return base64.b64encode(zlib.compress(b''.join(plane.astype(np.uint8).tobytes()
                                                   for plane in planes), 9)).decode()
