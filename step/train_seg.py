"""Train the segmentation network, DeepLab-V2, on the pseudo-masks: what the published last column is measured with.

Reads --seg_label_dir (the pseudo-masks), images of --train_list. Writes --seg_weights_name.
Only this stage: python run_sample.py --train_seg_pass True
"""
import functools
import importlib
import os
from argparse import Namespace
from collections.abc import Iterator

import numpy as np
import torch

from misc import datasets, drawing, imutils, labels, losses, records, segmentation, torchutils, training, weights

PICTURES = 4  # a round, for TensorBoard
HEAD, BIAS = 10, 20  # times the learning rate of the backbone (kazuto1011/deeplab-pytorch)


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    torch.manual_seed(args.seed)
    form = {'stride_first': args.seg_stride == '1x1', 'ceil_mode': args.seg_ceil_mode}
    net = importlib.import_module(args.seg_network).Net(source.n_classes, **form)
    started_from = weights.load_pretrained(net.backbone, args.seg_pretrained)
    job = training.Training(
        'train_seg', args.seg_weights_name, batch_size=args.seg_batch_size, epochs=None, steps=args.seg_steps, seed=args.seed,
        device=args.device, precision=args.precision, num_workers=args.num_workers, overwrite=args.overwrite,
        accumulate=args.accumulate, save_every=args.save_every, tensorboard=args.tensorboard, resume=args.resume,
        settings={'stage': 'train_seg', 'network': args.seg_network, **form, 'classes': source.classes,
                  'images': records.fingerprint({'ids': ids}), 'label_maps': label_maps_of(args.seg_label_dir),
                  'pretrained': started_from, 'seed': args.seed, 'precision': args.precision, 'input': args.seg_input,
                  'crop_size': args.seg_crop_size, 'batch_size': args.seg_batch_size, 'steps': args.seg_steps,
                  'learning_rate': args.seg_learning_rate, 'weight_decay': args.seg_weight_decay,
                  'momentum': args.seg_momentum, 'loss': args.seg_loss, 'resize': args.seg_resize,
                  'scales': args.seg_train_scales})
    if job.already_done():
        return
    crops = datasets.SegmentationCrops(
        source, ids, args.seg_crop_size, args.seed, scales=args.seg_resize, normalize=imutils.INPUTS[args.seg_input],
        label_dir=args.seg_label_dir, label_remedy='train_seg needs one for each image of --train_list: run '
        f'--make_sem_seg_pass True --infer_list {args.train_list}')
    learnt = objective(args, output_sizes(net, args.seg_crop_size, args.seg_train_scales))

    training.fit(job, net, sgd(net, args), crops, learnt, training.polynomial_by_tens,
                 after_epoch=lambda number: {} if args.tensorboard is None else dict(_pictures(args, net)))


def label_maps_of(folder: str) -> str:
    """What tells label maps apart: the fingerprint of their record; where they were made elsewhere, the place."""
    made_by = records.made_by(folder)
    return os.path.abspath(folder) if made_by == 'unknown' else made_by


@torch.no_grad()
def output_sizes(net: torch.nn.Module, crop_size: int, scales: list[float]) -> list[tuple[int, int]]:
    """(h, w) of the logits at each scale, and of their maximum."""
    outputs = segmentation.at_scales(net, torch.zeros(1, 3, crop_size, crop_size), scales)
    return [tuple(logits.shape[2:]) for logits in outputs]


def objective(args: Namespace, sizes: list[tuple[int, int]]) -> training.Objective:
    """The sum of the cross-entropies at every scale and at their maximum, each against the label map at that size.

    kazuto1011's code averages over each half of a batch and then the halves; ours over the whole batch at once, so that
    --accumulate and several processes change nothing.
    """
    def counts(batch: training.Batch) -> torch.Tensor | None:
        pixels = torch.stack([losses.labelled_pixels(resized(batch['label_map'], hw)) for hw in sizes])
        return pixels if pixels.any() else None

    def loss(net: torch.nn.Module, part: training.Batch, counts: torch.Tensor) -> tuple[torch.Tensor, training.Parts]:
        image, label_map, counts = (torchutils.to_device(tensor, args.device)
                                    for tensor in (part['image'], part['label_map'], counts))
        outputs = segmentation.at_scales(net, image, args.seg_train_scales)
        values = [pixel_loss(args.seg_loss, logits, resized(label_map, hw), number)
                  for logits, hw, number in zip(outputs, sizes, counts, strict=True)]
        return sum(values), {'maximum': values[-1]}

    return training.Objective(counts, loss)


def resized(label_map: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
    """(N, H, W) -> (N, h, w), as PIL's nearest."""
    rows, columns = (_nearest(side, target, label_map.device) for side, target in zip(label_map.shape[1:], hw, strict=True))
    return label_map[:, rows[:, None], columns]


@functools.lru_cache
def _nearest(side: int, target: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(labels.nearest(side, target)).to(device)  # once: a copy at each step would wait for the GPU


def pixel_loss(name: str, logits: torch.Tensor, label_map: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """--seg_loss of one output."""
    if name == 'balanced':
        return losses.per_pixel_classification_loss(logits, label_map, 0, counts)
    return losses.cross_entropy_loss(logits, label_map, counts)


def sgd(net: torch.nn.Module, args: Namespace) -> torch.optim.Optimizer:
    """Head weights ten times, head biases twenty times as fast as the backbone; no weight decay for the biases."""
    backbone, head_weights, head_biases = net.parameter_groups()
    rate, decay = args.seg_learning_rate, args.seg_weight_decay
    return torch.optim.SGD([{'params': backbone, 'lr': rate, 'weight_decay': decay},
                            {'params': head_weights, 'lr': HEAD * rate, 'weight_decay': decay},
                            {'params': head_biases, 'lr': BIAS * rate, 'weight_decay': 0.0}],
                           lr=rate, momentum=args.seg_momentum)


def _pictures(args: Namespace, net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """The label map of some images of the train list."""
    for image_id in args.source.names(args.train_list)[:PICTURES]:
        image = imutils.read_of(args.source, image_id)
        x = torch.from_numpy(imutils.to_chw(imutils.INPUTS[args.seg_input](image)))[None]
        logits = segmentation.predict(net, x, args.seg_train_scales, False, args.device, args.precision)
        label_map = segmentation.label_map(logits, image.shape[:2]).cpu().numpy()
        yield image_id, drawing.overlay_labels(image, label_map, args.source.palette)
