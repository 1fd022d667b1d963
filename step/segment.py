"""Segment any photographs, without labels, by the trained segmentation network; or export it.

    python -m step.segment IMAGE_OR_FOLDER --out DIR
    python -m step.segment [IMAGE_OR_FOLDER] --export network.pt

The first leaves DIR/NAME.png, the label map, and DIR/overlay/NAME.png. The second writes
TorchScript, or ONNX where the file ends in .onnx, and checks it on these photographs.

Reads --seg_weights_name and the record beside it. A folder that was begun is gone on with. Label
maps lie over the photograph as viewers show it, turned as its EXIF orientation says.
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from misc import ending, imutils, inference, networks, torchutils
from misc.command import options
from misc.contract import sources
from misc.contract.settings import SegForm, SegMaps, readers
from misc.data import datasets
from misc.draw import drawing
from misc.files import label_maps, records, weights
from misc.files.inputs import Inputs
from misc.method import crf, maps, segmentation
from misc.pyutils import UserError, is_whole, start_log
from step.pipeline import STAGES

FLAGS = ('seg_weights_name', 'seg_network', 'seg_scales', 'seg_flip', 'seg_crf', 'device',
         'precision', 'num_workers', 'overwrite', 'work_dir')
UNTOLD = ('torchvision', '3x3', False)  # the form of weights without a record


class Photograph(NamedTuple):
    """A photograph, uint8 (H, W, 3), and the same as (1, 3, H, W)."""

    image: np.ndarray
    pixels: torch.Tensor


class Photographs:
    """As much of a data set as `Inputs` asks of one without labels."""

    def __init__(self, paths: dict[str, Path]):
        self.paths = paths

    def image_path(self, image_id: str) -> Path:
        return self.paths[image_id]


def build_parser() -> argparse.ArgumentParser:
    parser = options.parser_of(
        STAGES, FLAGS, usage='python -m step.segment [IMAGE_OR_FOLDER] (--out DIR | --export FILE) '
                             '[flags]',
        description="Segment any photographs by the trained segmentation network, or export it. "
                    "--seg_network and the form of "
                    'its input are what the record beside the weights tells, unless --seg_network '
                    'names another.')
    parser.set_defaults(seg_network=None)
    parser.add_argument('images', nargs='?', metavar='IMAGE_OR_FOLDER',
                        help='a photograph, or a folder of them')
    parser.add_argument('--out', metavar='DIR', help='where label maps and overlays go')
    parser.add_argument('--export', metavar='FILE',
                        help='write the network as TorchScript, or as ONNX where FILE ends in '
                        '.onnx (needs onnx, onnxscript and onnxruntime): uint8 RGB (1, 3, H, W) -> '
                        'label map (H, W), probabilities (C+1, H, W); float32, no mirror, no CRF')
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """This command's flags, and every other one of run_sample.py at its default."""
    return options.build_parser(STAGES).parse_args([], build_parser().parse_args(arguments))


def run(args: argparse.Namespace) -> None:
    if not args.export and not (args.images and args.out):
        raise UserError('what to do? Give IMAGE_OR_FOLDER --out DIR, or --export FILE')
    options.resolve_files(STAGES, args)
    paths, others = photographs(args.images) if args.images else ({}, [])
    net, form, digest = trained(args)
    if args.export:
        networks.prepare(net, torch.device('cpu'), 'fp32')
        shown = [imutils.read_image(path, upright=True) for path in list(paths.values())[:4]]
        noise = np.random.default_rng(1).integers(0, 256, (80, 51, 3), dtype=np.uint8)
        segmentation.export(net, form.input, args.seg_scales, args.export, [noise, *shown])
        print(f'written: {args.export}, the same label maps for {1 + len(shown)} images')
        return
    segment(args, paths, net, form, digest)
    message = f'; not looked at: {len(others)} ({sources.some(others)})' if others else ''
    out = Path(args.out)
    print(f'written: {len(paths)} label maps in {out}, overlays in {out / "overlay"}{message}')


def photographs(given: str) -> tuple[dict[str, Path], list[str]]:
    """Return name without ending -> path, and what else lies in the folder.

    Raises UserError where there is no photograph, or two have one name.
    """
    path = Path(given)
    if not path.exists():
        raise UserError(f'{given}: neither a photograph nor a folder')
    found, others = ([path], []) if path.is_file() else sources.photographs_in(path)
    if not found:
        raise UserError(f'{given}: no photograph in it ({", ".join(imutils.PHOTOGRAPHS)})'
                        + (f'; there are {sources.some(others)}' if others else ''))
    named: dict[str, Path] = {}
    for each in found:
        if each.stem in named:
            raise UserError(f'{each} and {named[each.stem]} have one name: their label maps would, '
                            f'too')
        named[each.stem] = each
    return named, others


def trained(args: argparse.Namespace) -> tuple[torch.nn.Module, SegForm, str]:
    """Return the network with its weights, its form, and the digest of its weights."""
    found = weights.existing(args.seg_weights_name)
    if found is None:
        raise UserError(f'{args.seg_weights_name}: no such weights; run --train_seg_pass True '
                        f'first, or name another')
    record = records.read_weights_record(args.seg_weights_name) or {}
    network = args.seg_network or record.get('network', SegForm.network)
    form = SegForm(network, *UNTOLD).as_trained(record)
    key, axis, *others = (getattr(networks.module_of(network, 'seg_network').Net, 'class_key', None)
                          or (None, 0))
    state = weights.read_state(found)
    if key not in state:
        raise UserError(f'{found}: not the weights of {network}; name another --seg_network')
    net = networks.build(network, state[key].shape[axis] - sum(others),
                         stride_first=form.stride_first, ceil_mode=form.ceil_mode)
    return net, form, weights.load_checkpoint(net, found, '')


def segment(args: argparse.Namespace, paths: dict[str, Path], net: torch.nn.Module, form: SegForm,
            digest: str) -> None:
    """Write label maps and overlays of all photographs."""
    out, device = Path(args.out), torchutils.choose_device(args.device)
    args.precision = torchutils.choose_precision(args.precision, device)
    settings = SegMaps.of(args)
    if out.resolve() == next(iter(paths.values())).parent.resolve():
        raise UserError(f'--out {out}: the photographs lie there; name another folder')
    networks.prepare(net, device, settings.precision)
    start_log(None)  # nothing is written to a folder before it is known to be ours
    classes = (records.read_weights_record(args.seg_weights_name) or {}).get('classes')
    made = records.open_folder(out, {'stage': 'segment', **settings.record(), 'crf': settings.crf,
                                     'weights': digest}, ('.png',),
                               args.overwrite, inputs=Inputs(Photographs(paths), labelled=False),
                               ids=list(paths),
                               legend=label_maps.legend(classes) if classes else '')
    start_log(out / 'segment.log')
    if settings.crf:
        crf.prepare()

    def read(name: str) -> Photograph:
        image = imutils.read_image(paths[name], upright=True)
        return Photograph(image, datasets.scaled_images(image, [1.0])[0])

    def is_done(name: str) -> bool:
        return label_maps.exists(out, name) and is_whole(out / 'overlay' / f'{name}.png')

    with inference.Images(list(paths), is_done, readers(args.num_workers), device,
                          [made]) as images:
        for name, (image, pixels) in images.todo(read):
            with images.enough([name]):
                x = maps.normalized(torchutils.to_device(pixels, device), form.input)
                logits = segmentation.predict(net, x, settings.scales, settings.flip, device,
                                              settings.precision)
                images.save(name, save, out, name, image, logits, settings.crf)


def save(out: Path, name: str, image: np.ndarray, logits: torch.Tensor, refine: bool) -> None:
    """Write the label map and, before it, its overlay: the label map tells that both are there."""
    hw, logits = image.shape[:2], logits.cpu()  # behind: need not wait for a GPU
    if refine:
        label_map = crf.refine_probabilities(image,
                                             segmentation.probabilities(
                                                 logits, hw).numpy()).astype(np.uint8)
    else:
        label_map = segmentation.label_map(logits, hw).numpy()
    drawing.save(out / 'overlay' / f'{name}.png',
                 drawing.overlay_labels(image, label_map, label_maps.PALETTE))
    label_maps.save(label_maps.label_path(out, name), label_map, label_maps.PALETTE)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    return ending.run(lambda: run(args), ending.remedy_of('segment', args),
                      '; the same command goes on')


if __name__ == '__main__':
    sys.exit(main())
