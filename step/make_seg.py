"""The segmentation network's label maps, of images without labels; with --seg_crf also refined.

Reads --seg_weights_name, images of --seg_list. Writes --seg_out_dir/ID.png and, with --seg_crf,
those refined by a dense CRF, --seg_crf_out_dir/ID.png; for --seg_list test in the evaluation
server's layout below these folders. Between network and CRF the logits lie in
--seg_crf_out_dir/logits.
Only this stage: python run_sample.py --make_seg_pass True
"""
import argparse
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from misc import imutils, inference, networks, torchutils
from misc.contract.settings import SegForm, SegMaps
from misc.contract.stages import Input, Job, Output, Shown, Stage
from misc.data import datasets
from misc.files import label_maps, records
from misc.files.inputs import Inputs, Made
from misc.method import crf, maps, segmentation
from misc.pyutils import UserError, atomic_path, is_whole, writing


class Pixels(NamedTuple):
    """The size of an image, and it, uint8 (1, 3, H, W)."""

    hw: tuple[int, int]
    pixels: torch.Tensor


def run(job: Job, form: SegForm, settings: SegMaps) -> None:
    source, ids = job.source, job.ids('seg_list')
    form, net, digest = load_network(job.files['seg_weights_name'], form, source.n_classes,
                                     job.remedy('seg_weights_name'), job.device, settings.precision)
    folder, crf_folder = (server_folder(job, job.files[flag])
                          for flag in ('seg_out_dir', 'seg_crf_out_dir'))
    logits = Path(job.files['seg_crf_out_dir']) / 'logits'
    code = networks.code_of(*form.modules())
    record = {'stage': 'make_seg', **form.record(), **settings.record(), 'code': code,
              'classes': source.classes, 'weights': digest}
    inputs, legend = Inputs(source, labelled=False), label_maps.legend(source.classes)
    made = records.open_folder(folder, record, ('.png',), job.run.overwrite, inputs=inputs, ids=ids,
                               legend=legend)
    if settings.crf:
        refined = records.open_folder(crf_folder, {
            'stage': 'make_seg', 'crf': True, 'classes': source.classes,
            'logits': records.made_by(folder)}, ('.png',),
            job.run.overwrite, inputs=inputs, ids=ids, legend=legend)
        records.open_folder(logits, record, ('.npz',), job.run.overwrite)
        crf.prepare()

    def read(image_id: str) -> Pixels:
        image = imutils.read_of(source, image_id)
        return Pixels(image.shape[:2], datasets.scaled_images(image, [1.0])[0])

    # behind: may wait for a GPU
    def save(image_id: str, label_map: torch.Tensor, made: torch.Tensor | None) -> None:
        if made is not None:
            save_logits(logits_path(logits, image_id), made.cpu().numpy())
        label_maps.save(label_maps.label_path(folder, image_id), label_map.cpu().numpy(),
                        source.palette)

    def is_done(image_id: str) -> bool:
        return label_maps.exists(folder, image_id) and (
            not settings.crf or label_maps.exists(crf_folder, image_id)
            or is_whole(logits_path(logits, image_id)))

    with inference.Images(ids, is_done, job.run.readers, job.device, [made]) as images:
        for image_id, (hw, pixels) in images.todo(read):
            with images.enough([image_id]):
                x = maps.normalized(torchutils.to_device(pixels, job.device), form.input)
                predicted = segmentation.predict(net, x, settings.scales, settings.flip, job.device,
                                                 settings.precision)
                label_map = segmentation.label_map(predicted, tuple(hw))
                images.save(image_id, save, image_id, label_map,
                            predicted.half() if settings.crf else None)
    if settings.crf:
        refine(job, ids, logits, crf_folder, refined)


def load_network(path: str, form: SegForm, n_classes: int, remedy: str, device: torch.device,
                 precision: str) -> tuple[SegForm, torch.nn.Module, str]:
    """Load the trained network; returns its form, it, and the digest of its weights.

    The form is what the record beside the weights tells, else the flags.
    """
    form = form.as_trained(records.read_weights_record(path) or {})
    net, digest = networks.load(form.network, n_classes, stride_first=form.stride_first,
                                ceil_mode=form.ceil_mode, path=path, remedy=remedy, device=device,
                                precision=precision)
    return form, net, digest


def server_folder(job: Job, folder: str | os.PathLike) -> Path:
    """Return where the label maps of --seg_list go.

    That is the folder, or below it where the data set's evaluation server wants them.
    """
    return Path(folder) / job.source.server_layout.get(Path(job.lists['seg_list']).stem, '')


def logits_path(folder: Path, image_id: str) -> Path:
    return folder / f'{image_id}.npz'


def save_logits(path: Path, logits: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, 'wb') as stream:
        np.savez(stream, logits=logits)


def load_logits(path: Path) -> torch.Tensor:
    try:
        with np.load(path) as stored:
            return torch.from_numpy(stored['logits']).float()
    except (OSError, ValueError, TypeError, AttributeError, KeyError, EOFError,
            zipfile.BadZipFile) as error:
        raise UserError(f'{path}: cannot be read ({error}); delete it to make it anew') from error


def refine(job: Job, ids: list[str], logits: Path, folder: Path, made: Made) -> None:
    """Refine the stored logits by CRF, in the worker processes.

    Logits are removed when their refined label map is there.
    """
    def is_done(image_id: str) -> bool:
        return label_maps.exists(folder, image_id) and not logits_path(logits, image_id).exists()

    def make(image_id: str) -> None:
        path = logits_path(logits, image_id)
        if not label_maps.exists(folder, image_id):
            image = imutils.read_of(job.source, image_id)
            probabilities = segmentation.probabilities(load_logits(path), image.shape[:2]).numpy()
            label_maps.save(label_maps.label_path(folder, image_id),
                            crf.refine_probabilities(image, probabilities), job.source.palette)
        with writing(path):
            path.unlink()

    with inference.Images(ids, is_done, job.run.workers, made=[made]) as images:
        images.make(make)


def with_crf(args: argparse.Namespace) -> bool:
    """Tell whether this run refines the label maps by CRF too."""
    return args.seg_crf


STAGE = Stage(
    'make_seg', "the segmentation network's label maps", run, (SegForm, SegMaps),
    reads=(Input('seg_weights_name'),),
    writes=(Output('seg_out_dir', 'result/seg', exists=label_maps.exists, megabytes=0.009),
            Output('seg_crf_out_dir', 'result/seg_crf', exists=label_maps.exists, when=with_crf)),
    lists=('seg_list',), labelled=False, shown=Shown('Segmentation', 'mask'))
