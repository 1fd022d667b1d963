"""The method from Python: what the stages would make of one photograph, from trained weights.

    import amn

    model = amn.load('my_run')                                       # --work_dir of the run
    found = model.activations('yard.jpg', ['dog', 'person'])         # found.amn: (2, H, W), 0 to 1
    masks = model.masks('yard.jpg', ['dog', 'person'])               # masks.pseudo: (H, W), 0 to C

Reads the three weights and no data set, writes nothing. The command `step.show` draws what this
module computes. docs/api.md tells more.
"""
import argparse
import difflib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from misc import imutils, networks, torchutils
from misc.command import options
from misc.contract import sources
from misc.contract.settings import (
    AUTO,
    AmnActivations,
    AmnScore,
    AmnSeeds,
    CamActivations,
    CamScore,
    CamSeeds,
    PseudoMasks,
    SharedThresholds,
    Walk,
)
from misc.data import datasets
from misc.files import activations, records, weights
from misc.method import activating, maps, seeds, walking
from misc.pyutils import UserError
from step.pipeline import STAGES
from voc12.dataloader import CLASSES

__all__ = ['Activations', 'Masks', 'Model', 'UserError', 'load', 'mask_of']

THRESHOLDS = tuple(flag for cls in (CamScore, CamSeeds, AmnScore, AmnSeeds)
                   for flag in cls.flags().values())
FLAGS = ('device', 'precision', 'work_dir', 'cam_weights_name', 'amn_weights_name',
         'irn_weights_name', *THRESHOLDS, *SharedThresholds.flags().values(),
         *(flag for cls in (CamActivations, AmnActivations, Walk, PseudoMasks)
           for name, flag in cls.flags().items() if name != 'dtype'))

Photograph = str | os.PathLike | Image.Image | np.ndarray
Labels = str | int | Sequence[str | int] | np.ndarray


class Activations(NamedTuple):
    """What the stages make of one image of H x W pixels that shows K classes.

    keys: (K,) int64, each class's place in `Model.classes`, from 0; in a label map it is key + 1.
    cam, amn: (K, H, W) float32, the activations, 0 to 1.
    cam_seed, amn_seed: (H, W) uint8, the refined seeds: 0 background, 1 to C, 255 ignored.
    edge: (1, h, w) float32 at stride 4, IRN's class boundaries, 0 to 1; None without its weights.
    walked: (K, H, W) float32, the activations after the random walk, 0 to 1; None likewise.
    """

    keys: np.ndarray
    cam: np.ndarray
    cam_seed: np.ndarray
    amn: np.ndarray
    amn_seed: np.ndarray
    edge: np.ndarray | None
    walked: np.ndarray | None


class Masks(NamedTuple):
    """Label maps (H, W) uint8 of one image: 0 background, 1 to C the classes.

    cam, amn: of the activations.
    pseudo: the pseudo-mask, None without IRN's weights.
    """

    cam: np.ndarray
    amn: np.ndarray
    pseudo: np.ndarray | None


class Model:
    """The trained networks on their device, ready for photographs. Made by `load`.

    classes: the names of the C classes that the weights were trained for.
    """

    classes: tuple[str, ...]

    def __init__(self, args: argparse.Namespace):
        """args: flags that `resolve` has checked. Raises UserError for weights that do not fit."""
        self._args, self.classes = args, _class_names(args)
        self._cam_settings, self._amn_settings, self._walk_settings = (
            cls.of(args) for cls in (CamActivations, AmnActivations, Walk))
        n_classes = len(self.classes)
        self._cam = self._trained('cam', self._cam_settings, n_classes,
                                  backbone=self._cam_settings.backbone)
        self._amn = self._trained('amn', self._amn_settings, n_classes,
                                  backbone=self._amn_settings.backbone,
                                  label_conditioning=self._amn_settings.label_conditioning)
        self._irn = self._trained('irn', self._walk_settings) if has_irn(args) else None

    def _trained(self, name: str, settings: CamActivations | AmnActivations | Walk, *n_classes: int,
                 **more: Any) -> Any:
        return networks.load(settings.network, *n_classes, device=self._args.device,
                             path=getattr(self._args, f'{name}_weights_name'),
                             remedy=f'run --train_{name}_pass True first',
                             precision=settings.precision, **more)[0]

    def activations(self, image: Photograph, labels: Labels) -> Activations:
        """Compute activations, refined seeds, boundaries and random walk of an image.

        image: a file, a PIL image (both are turned as EXIF says), or uint8 (H, W, 3) RGB or (H, W)
        grey.
        labels: the classes that it shows: names, or numbers as label maps have them, 1 to C.
        Raises UserError for an image that cannot be read, and for labels that are not among the
        classes.
        """
        pixels, present = _pixels(image), present_classes(labels, self.classes)
        args, device, walk_settings = self._args, self._args.device, self._walk_settings
        hw = pixels.shape[:2]
        scales = maps.together([datasets.scaled_images(pixels, self._cam_settings.scales)], device)
        cam = activating.cam_of(self._cam, np.flatnonzero(present), hw, scales, device,
                                self._cam_settings.precision)
        cam_seed = seeds.refined_seed(pixels, cam.keys, cam.high_res, args.cam_conf_fg_thres,
                                      args.cam_conf_bg_thres)
        whole_amn = activating.amn_cam_of(self._amn, present, cam_seed, scales, device,
                                          self._amn_settings.precision)
        amn = whole_amn.without_background()
        amn_seed = seeds.refined_seed(pixels, amn.keys, amn.high_res, args.amn_conf_fg_thres,
                                      args.amn_conf_bg_thres)
        edge = walked = None
        if self._irn is not None:
            whole, = maps.together([datasets.scaled_images(pixels, [1.0])], device)
            edges = walking.edge_of(self._irn, whole, walk_settings.precision, walk_settings.canvas)
            background = walk_settings.background
            start = walking.start(walk_settings.foreground, background, whole_amn, cam)
            strided = walking.class_scores(
                walking.walk(start.to(device), edges, walk_settings.power, walk_settings.beta,
                             walk_settings.exp_times), background).cpu().numpy()
            walked = walking.planes_of(activations.Walked(amn.keys, strided, np.array(hw)),
                                       background)
            edge = edges.cpu().numpy()
        return Activations(cam.keys, cam.high_res, cam_seed, amn.high_res, amn_seed, edge, walked)

    def masks(self, image: Photograph, labels: Labels) -> Masks:
        """Make the label maps of an image, at the thresholds given to `load`.

        image, labels and what is raised: as `activations` has them.
        """
        pixels = _pixels(image)
        return masks_of(pixels, self.activations(pixels, labels), self._args)


def load(work_dir: str | os.PathLike = '.', **flags: Any) -> Model:
    """Load what a run trained.

    work_dir: the run's --work_dir. Without IRN's weights there will be no pseudo-masks.
    flags: those of `python -m step.show --help`, by their names: device, precision,
    cam_weights_name, thresholds, cam_scales and the others. Raises UserError, which names the
    remedy, for weights that are missing or do not fit, and for flags as the command line does.
    """
    args = options.from_python(STAGES, FLAGS, work_dir=work_dir, **flags)
    resolve(args)
    return Model(args)


def resolve(args: argparse.Namespace) -> None:
    """Fill in what a flag that is not given stands for.

    Raises UserError for what can be known to be wrong before weights are read.
    """
    options.resolve_settings(STAGES, args)
    options.resolve_files(STAGES, args)
    args.device = torchutils.choose_device(args.device)
    args.precision = torchutils.choose_precision(args.precision, args.device)
    for flag in ('cam_network', 'amn_network', 'irn_network'):
        networks.module_of(getattr(args, flag), flag)
    chosen = [f'--{flag}' for flag in (*THRESHOLDS, *PseudoMasks.flags().values())
              if getattr(args, flag) == AUTO]
    if chosen:
        raise UserError(f'{", ".join(chosen)}: {AUTO} takes the activations of many images; give a '
                        'number')
    missing = [name for name in ('cam_weights_name', 'amn_weights_name')
               if weights.existing(getattr(args, name)) is None]
    if missing:
        raise UserError(f'{", ".join(getattr(args, name) for name in missing)}: no such weights; '
                        'train them with run_sample.py, or name others: --work_dir, '
                        f'{", ".join(f"--{name}" for name in missing)}')


def has_irn(args: argparse.Namespace) -> bool:
    """Return whether there are IRN's weights."""
    return weights.existing(args.irn_weights_name) is not None


def mask_of(keys: np.ndarray, planes: np.ndarray, threshold: float) -> np.ndarray:
    """Return the label map (H, W) of planes (K, H, W) of the classes `keys` at a threshold."""
    return seeds.mask_of(keys, planes, threshold)


def masks_of(pixels: np.ndarray, found: Activations, args: argparse.Namespace) -> Masks:
    """Return the label maps of an image's activations at the thresholds of `args`.

    pixels: the image, uint8 (H, W, 3).
    """
    refined_along = pixels if args.sem_seg_crf else None
    return Masks(mask_of(found.keys, found.cam, args.eval_cam_thres),
                 mask_of(found.keys, found.amn, args.eval_amn_cam_thres),
                 None if found.walked is None
                 else seeds.pseudo_mask(refined_along, found.keys, found.walked,
                                        args.sem_seg_bg_thres))


def present_classes(labels: Labels, classes: Sequence[str], what: str = 'labels') -> np.ndarray:
    """Turn names, or numbers from 1 to C, into bool (C,).

    Raises UserError, which begins with `what`, for none, and for those that are not among the
    classes.
    """
    known = {sources.spelling(name): number for number, name in enumerate(classes)}
    present, unknown = np.zeros(len(classes), bool), []
    for label in [labels] if isinstance(labels, str | int | np.integer) else labels:
        if isinstance(label, str):
            number = known.get(sources.spelling(label))
        else:
            number = int(label) - 1 if 1 <= label <= len(classes) else None
        if number is None:
            unknown.append(_with_matches(label, classes))
        else:
            present[number] = True
    if unknown or not present.any():
        message = f'{", ".join(unknown)}: not among' if unknown else 'names none of'
        raise UserError(f'{what} {message} the {len(classes)} classes of these weights: '
                        f'{", ".join(classes)}')
    return present


def _with_matches(label: str | int, classes: Sequence[str]) -> str:
    """The label, and names that may be meant."""
    if not isinstance(label, str):
        return f'{label} (1 to {len(classes)} are)'
    by_lower = {known.lower(): known for known in classes}
    matches = [by_lower[match] for match in difflib.get_close_matches(label.lower(), by_lower)]
    return f'{label!r} ({" or ".join(matches)}?)' if matches else repr(label)


def _class_names(args: argparse.Namespace) -> tuple[str, ...]:
    """The classes that CAM's and AMN's weights were trained for, from the records beside them;
    VOC's where there is none (the authors' files). Raises UserError where the two differ.
    """
    found = {}
    for path in (args.cam_weights_name, args.amn_weights_name):
        record = records.read_weights_record(path) or {}
        if 'classes' in record:
            found[path] = tuple(record['classes'])
    if len(set(found.values())) > 1:
        raise UserError(f'{" and ".join(found)} were trained for different classes; name weights '
                        'of the same run')
    return next(iter(found.values()), CLASSES)


def _pixels(image: Photograph) -> np.ndarray:
    """uint8 (H, W, 3) RGB. Raises UserError for what is no photograph."""
    if isinstance(image, Image.Image):
        return imutils.pixels_of(image, upright=True)
    if not isinstance(image, np.ndarray):
        return imutils.read_image(image, upright=True)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) \
            or not image.size:
        raise UserError(f'an image of {image.dtype}, {image.shape}: give uint8 (H, W, 3) RGB, or '
                        '(H, W) grey')
    return imutils.to_8_bits(image)
