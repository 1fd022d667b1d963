"""Train the CAM network: a classifier of image-level labels.

Reads images and labels of --train_list, labels of --val_list. Writes --cam_weights_name.
Only this stage: python run_sample.py --train_cam_pass True
"""
import importlib
from argparse import Namespace

import torch

from misc import datasets, losses, records, torchutils, training, weights
from misc.pyutils import log


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    torch.manual_seed(args.seed)
    net = importlib.import_module(args.cam_network).Net(source.n_classes)
    started_from = weights.load_pretrained(net.resnet50, args.pretrained)
    job = training.Training(
        'train_cam', args.cam_weights_name, batch_size=args.cam_batch_size, epochs=args.cam_num_epoches, seed=args.seed,
        device=args.device, precision=args.precision, num_workers=args.num_workers, overwrite=args.overwrite,
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

    def loss_of(batch: training.Batch) -> tuple[torch.Tensor, training.Parts]:
        images = batch['image'].to(args.device, non_blocking=True, memory_format=torch.channels_last)
        loss = losses.classification_loss(net(images), batch['labels'].to(args.device))
        return loss, {}

    training.fit(job, net, optimizer, crops, loss_of, training.polynomial,
                 after_epoch=lambda epoch: _log_validation_loss(args, net))


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
    for batch in datasets.read_ahead(read, batches, args.num_workers, batches=True):
        datasets.checked(batch)
        with torchutils.autocast(args.precision, args.device):
            logits = net(batch['image'].to(args.device, memory_format=torch.channels_last))
        values.append(losses.classification_loss(logits.float(), batch['labels'].to(args.device)).item())
    log.info('validation loss %.4f (%d images)', sum(values) / len(values), size * len(values))
