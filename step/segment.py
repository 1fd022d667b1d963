"""Segment any photographs, without labels, by the trained segmentation network; or export it.

    python -m step.segment IMAGE_OR_FOLDER --out DIR                  # DIR/NAME.png (label map), DIR/overlay/NAME.png
    python -m step.segment [IMAGE_OR_FOLDER] --export network.pt      # TorchScript, checked on these photographs

Reads --seg_weights_name and the record beside it. A folder that was begun is gone on with. Label maps lie over the photograph
as viewers show it, turned as its EXIF orientation says.
"""
import argparse
import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from misc import (
    crf,
    drawing,
    ending,
    imutils,
    inference,
    labels,
    options,
    records,
    segmentation,
    sources,
    torchutils,
    weights,
)
from misc.pyutils import UserError, is_whole, start_log
from step.make_seg import load_network

FLAGS = ('seg_weights_name', 'seg_network', 'seg_scales', 'seg_flip', 'seg_crf', 'device', 'precision', 'num_workers',
         'overwrite', 'work_dir')


def build_parser() -> argparse.ArgumentParser:
    parser = options.parser_of(
        FLAGS, usage='python -m step.segment [IMAGE_OR_FOLDER] (--out DIR | --export FILE) [flags]',
        description="Segment any photographs by the trained segmentation network, or export it. --seg_network and the form of "
                    'its input are what the record beside the weights tells, unless --seg_network names another.')
    parser.set_defaults(seg_network=None)
    parser.add_argument('images', nargs='?', metavar='IMAGE_OR_FOLDER', help='a photograph, or a folder of them')
    parser.add_argument('--out', metavar='DIR', help='where label maps and overlays go')
    parser.add_argument('--export', metavar='FILE', help='write the network as TorchScript: uint8 RGB (1, 3, H, W) -> label '
                        'map (H, W), probabilities (C+1, H, W); the CPU, float32, no mirror, no CRF')
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """This command's flags, and every other one of run_sample.py at its default."""
    return options.build_parser().parse_args([], build_parser().parse_args(arguments))


def run(args: argparse.Namespace) -> None:
    if not args.export and not (args.images and args.out):
        raise UserError('what to do? Give IMAGE_OR_FOLDER --out DIR, or --export FILE')
    options.resolve_files(args)
    paths, others = photographs(args.images) if args.images else ({}, [])
    net, input_form, digest = trained(args)
    if args.export:
        inference.prepare(net, torch.device('cpu'), 'fp32')
        shown = [imutils.read_image(path, upright=True) for path in list(paths.values())[:4]]
        noise = np.random.default_rng(1).integers(0, 256, (80, 51, 3), dtype=np.uint8)
        segmentation.export(net, input_form, args.seg_scales, args.export, [noise, *shown])
        print(f'written: {args.export}, the same label maps for {1 + len(shown)} images')
        return
    segment(args, paths, net, input_form, digest)
    told = f'; not looked at: {len(others)} ({sources.some(others)})' if others else ''
    out = Path(args.out)
    print(f'written: {len(paths)} label maps in {out}, overlays in {out / "overlay"}{told}')


def photographs(given: str) -> tuple[dict[str, Path], list[str]]:
    """Name without ending -> path; what else lies in the folder. Raises UserError where there is no photograph, or two have
    one name."""
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
            raise UserError(f'{each} and {named[each.stem]} have one name: their label maps would, too')
        named[each.stem] = each
    return named, others


def trained(args: argparse.Namespace) -> tuple[torch.nn.Module, str, str]:
    """The network with its weights, its input form, the digest of its weights."""
    found = weights.existing(args.seg_weights_name)
    if found is None:
        raise UserError(f'{args.seg_weights_name}: no such weights; run --train_seg_pass True first, or name another')
    record = records.read_weights_record(args.seg_weights_name) or {}
    network = args.seg_network or record.get('network', 'net.resnet101_deeplab')
    try:
        key, axis, *others = importlib.import_module(network).Net.class_key
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(f'--seg_network {network}: no module with a segmentation network ({error})') from error
    state = weights.read_state(found)
    if key not in state:
        raise UserError(f'{found}: not the weights of {network}; name another --seg_network')
    net, form, digest = load_network(args.seg_weights_name, network, state[key].shape[axis] - sum(others),
                                     {'input': 'torchvision', 'stride_first': False, 'ceil_mode': False})
    return net, form['input'], digest


def segment(args: argparse.Namespace, paths: dict[str, Path], net: torch.nn.Module, input_form: str, digest: str) -> None:
    """Label maps and overlays of all photographs."""
    out, device = Path(args.out), torchutils.choose_device(args.device)
    if out.resolve() == next(iter(paths.values())).parent.resolve():
        raise UserError(f'--out {out}: the photographs lie there; name another folder')
    torchutils.check_precision(args.precision, device)
    inference.prepare(net, device, args.precision)
    records.open_folder(out, {'stage': 'segment', 'weights': digest, 'scales': args.seg_scales, 'flip': args.seg_flip,
                              'crf': args.seg_crf, 'precision': args.precision}, ('.png',), args.overwrite)
    start_log(out / 'segment.log')
    if args.seg_crf:
        crf.prepare()

    def read(name: str) -> tuple:
        image = imutils.read_image(paths[name], upright=True)
        return image, torch.from_numpy(imutils.to_chw(imutils.INPUTS[input_form](image)))[None]

    def compute(name: str, item: tuple) -> Callable[[], None]:
        image, x = item
        logits = segmentation.predict(net, x, args.seg_scales, args.seg_flip, device, args.precision)
        return functools.partial(_save, out, name, image, logits, args.seg_crf)

    def is_done(name: str) -> bool:
        return labels.exists(out, name) and is_whole(out / 'overlay' / f'{name}.png')

    inference.for_each_image(list(paths), is_done, read, args.num_workers, compute, device)


def _save(out: Path, name: str, image: np.ndarray, logits: torch.Tensor, refine: bool) -> None:
    hw, logits = image.shape[:2], logits.cpu()  # behind: need not wait for a GPU
    if refine:
        label_map = crf.refine_probabilities(image, segmentation.probabilities(logits, hw).numpy()).astype(np.uint8)
    else:
        label_map = segmentation.label_map(logits, hw).numpy()
    drawing.save(out / 'overlay' / f'{name}.png', drawing.overlay_labels(image, label_map, labels.PALETTE))
    labels.save(labels.label_path(out, name), label_map, labels.PALETTE)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    return ending.run(lambda: run(args), ending.remedy_of('segment', args), '; the same command goes on')


if __name__ == '__main__':
    sys.exit(main())
