"""Train the CAM network: a classifier of image-level labels.

Reads images and labels of --train_list, labels of --val_list. Writes --cam_weights_name.
Only this stage: python run_sample.py --train_cam_pass True
"""
import importlib
from argparse import Namespace
from collections.abc import Iterator

import numpy as np
import torch

from misc import datasets, drawing, imutils, inference, losses, records, torchutils, training, weights
from misc.pyutils import log

PICTURES = 4  # an epoch, for TensorBoard


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    torch.manual_seed(args.seed)
    net = importlib.import_module(args.cam_network).Net(source.n_classes)
    started_from = weights.load_pretrained(net.resnet50, args.pretrained)
    job = training.Training(
        'train_cam', args.cam_weights_name, batch_size=args.cam_batch_size, epochs=args.cam_num_epoches, seed=args.seed,
        device=args.device, precision=args.precision, num_workers=args.num_workers, overwrite=args.overwrite,
        accumulate=args.accumulate, save_every=args.save_every, tensorboard=args.tensorboard,
        resume=args.resume,
        settings={'stage': 'train_cam', 'network': args.cam_network, 'classes': source.classes,
                  'images': records.fingerprint({'ids': ids}), 'pretrained': started_from, 'seed': args.seed,
                  'precision': args.precision, 'crop_size': args.cam_crop_size, 'batch_size': args.cam_batch_size,
                  'epochs': args.cam_num_epoches, 'learning_rate': args.cam_learning_rate,
                  'weight_decay': args.cam_weight_decay, 'momentum': args.momentum,
                  'resize_long': args.cam_resize_long})
    if job.already_done():
        return
    crops = datasets.TrainingCrops(source, ids, args.cam_crop_size, args.seed, resize_long=tuple(args.cam_resize_long))
    optimizer = training.sgd(net.parameter_groups(), args.cam_learning_rate, args.cam_weight_decay, args.momentum)

    training.fit(job, net, optimizer, crops, objective(args), training.polynomial,
                 after_epoch=lambda epoch: _after_epoch(args, net))


def objective(args: Namespace) -> training.Objective:
    """Multi-label soft margin loss of the logits."""
    def counts(batch: training.Batch) -> torch.Tensor:
        return losses.image_counts(batch['labels'])

    def loss(net: torch.nn.Module, part: training.Batch, counts: torch.Tensor) -> tuple[torch.Tensor, training.Parts]:
        logits = net(torchutils.to_device(part['image'], args.device))
        return losses.classification_loss(logits, torchutils.to_device(part['labels'], args.device),
                                          torchutils.to_device(counts, args.device)), {}

    return training.Objective(counts, loss)


def _after_epoch(args: Namespace, net: torch.nn.Module) -> dict[str, np.ndarray]:
    _log_validation_loss(args, net)
    return {} if args.tensorboard is None else dict(_pictures(args, net))


@torch.inference_mode()
def _pictures(args: Namespace, net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """The strongest activation of some images of the val list, at scale 1 and without mirror."""
    for image_id in args.source.names(args.val_list)[:PICTURES]:
        image = imutils.read_of(args.source, image_id)
        with torchutils.autocast(args.precision, args.device):
            planes = net.activations(torchutils.to_device(datasets.scaled_images(image, [1.0])[0], args.device))
        strongest = planes[0, args.source.labels(image_id)].float().sum(0, keepdim=True)
        strongest = inference.resize(strongest / (strongest.max() + 1e-5), image.shape[:2])[0]
        yield image_id, drawing.overlay_activation(image, strongest.cpu().numpy())


@torch.inference_mode()
def _log_validation_loss(args: Namespace, net: torch.nn.Module) -> None:
    """Mean of the batches' losses over the val list: top-left crops, batches of 16, short last one dropped unless it is
    the only one."""
    ids = args.source.names(args.val_list)
    size = min(16, len(ids))
    batches = [ids[first:first + size] for first in range(0, len(ids) - size + 1, size)]

    def read(image_id: str) -> dict:
        return datasets.top_left_crop(args.source, image_id, args.cam_crop_size)

    values = []
    for batch in datasets.read_ahead(read, torchutils.share(batches), args.num_workers, batches=True):
        datasets.checked(batch)
        with torchutils.autocast(args.precision, args.device):
            logits = net(torchutils.to_device(batch['image'], args.device))
        loss = losses.classification_loss(logits, torchutils.to_device(batch['labels'], args.device),
                                          torch.tensor([size]))  # the mean of this process's batch
        values.append(loss.item() / torchutils.world()[1])
    values = torchutils.gather(values)
    log.info('validation loss %.4f (%d images)', sum(values) / len(values), size * len(values))
