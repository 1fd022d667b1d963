"""The segmentation network's label maps, of images without labels; with --seg_crf also refined by a dense CRF.

Reads --seg_weights_name, images of --seg_list. Writes --seg_out_dir/ID.png and, with --seg_crf, --seg_crf_out_dir/ID.png; for
--seg_list test in the evaluation server's layout below these folders. Between network and CRF the logits lie in
--seg_crf_out_dir/logits.
Only this stage: python run_sample.py --make_seg_pass True
"""
import functools
import importlib
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from misc import crf, imutils, inference, labels, records, segmentation, weights
from misc.pyutils import UserError, atomic_path, is_whole, writing


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.seg_list)
    net, form, loaded = load_network(args.seg_weights_name, args.seg_network, source.n_classes, {
        'input': args.seg_input, 'stride_first': args.seg_stride == '1x1', 'ceil_mode': args.seg_ceil_mode})
    inference.prepare(net, args.device, args.precision)
    out_dir, crf_dir, logits_dir = (folder(args, args.seg_out_dir), folder(args, args.seg_crf_out_dir),
                                    Path(args.seg_crf_out_dir) / 'logits')
    settings = {'stage': 'make_seg', 'network': args.seg_network, 'weights': loaded, **form, 'scales': args.seg_scales,
                'flip': args.seg_flip, 'precision': args.precision}
    records.open_folder(out_dir, settings, ('.png',), args.overwrite)
    if args.seg_crf:
        crf.prepare()
        records.open_folder(crf_dir, {'stage': 'make_seg', 'crf': True, 'logits': records.made_by(out_dir)}, ('.png',),
                            args.overwrite)
        records.open_folder(logits_dir, settings, ('.npz',), args.overwrite)

    def read(image_id: str) -> tuple:
        image = imutils.read_of(source, image_id)
        return image.shape[:2], torch.from_numpy(imutils.to_chw(imutils.INPUTS[form['input']](image)))[None]

    def compute(image_id: str, item: tuple) -> Callable[[], None]:
        hw, image = item
        logits = segmentation.predict(net, image, args.seg_scales, args.seg_flip, args.device, args.precision)
        return functools.partial(save, image_id, segmentation.label_map(logits, hw), logits.half() if args.seg_crf else None)

    def save(image_id: str, label_map: torch.Tensor, logits: torch.Tensor | None) -> None:  # behind: need not wait for a GPU
        if logits is not None:
            with atomic_path(logits_path(logits_dir, image_id)) as temporary, open(temporary, 'wb') as stream:
                np.savez(stream, logits=logits.cpu().numpy())
        labels.save(labels.label_path(out_dir, image_id), label_map.cpu().numpy(), source.palette)

    def is_done(image_id: str) -> bool:
        return labels.exists(out_dir, image_id) and (not args.seg_crf or labels.exists(crf_dir, image_id)
                                                     or is_whole(logits_path(logits_dir, image_id)))

    inference.for_each_image(ids, is_done, read, args.num_workers, compute, args.device)
    if args.seg_crf:
        _refine(args, ids, logits_dir, crf_dir)


def load_network(path: str, network: str, n_classes: int, form: dict) -> tuple[torch.nn.Module, dict, str]:
    """The trained network, the form of its input (`form`: what the flags say, used for weights without a record), and the
    digest of its weights."""
    record = records.read_weights_record(path) or {}
    form = {name: record.get(name, value) for name, value in form.items()}
    net = importlib.import_module(network).Net(n_classes, form['stride_first'], form['ceil_mode'])
    return net, form, weights.load_checkpoint(net, path, 'run --train_seg_pass True first')


def folder(args: Namespace, out_dir: str) -> Path:
    """Where the label maps of --seg_list go: `out_dir`, or below it where the data set's evaluation server wants them."""
    return Path(out_dir) / getattr(args.source, 'server_layout', {}).get(Path(args.seg_list).stem, '')


def logits_path(logits_dir: Path, image_id: str) -> Path:
    return logits_dir / f'{image_id}.npz'


def _refine(args: Namespace, ids: list[str], logits_dir: Path, crf_dir: Path) -> None:
    """The CRF of the stored logits, in the worker processes; logits go when their refined label map is there."""
    def is_done(image_id: str) -> bool:
        return labels.exists(crf_dir, image_id) and not logits_path(logits_dir, image_id).exists()

    def refine(image_id: str) -> None:
        path = logits_path(logits_dir, image_id)
        if not labels.exists(crf_dir, image_id):
            image = imutils.read_of(args.source, image_id)
            probabilities = segmentation.probabilities(_load(path), image.shape[:2]).numpy()
            labels.save(labels.label_path(crf_dir, image_id), crf.refine_probabilities(image, probabilities),
                        args.source.palette)
        with writing(path):
            path.unlink()

    inference.for_each_image(ids, is_done, refine, args.num_workers)


def _load(path: Path) -> torch.Tensor:
    try:
        with np.load(path) as stored:
            return torch.from_numpy(stored['logits']).float()
    except (OSError, ValueError, TypeError, AttributeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f'{path}: cannot be read ({error}); delete it to make it anew') from error
