"""Train IRN on AMN's refined seeds: class boundaries and displacements to the object's centre.

Reads --amn_ir_label_out_dir, images of --train_list and, for the mean displacement, of --infer_list.
Writes --irn_weights_name.
Only this stage: python run_sample.py --train_irn_pass True
"""
import importlib
from argparse import Namespace
from collections.abc import Iterator

import numpy as np
import torch

from misc import datasets, drawing, imutils, inference, losses, records, torchutils, training, weights
from misc.pyutils import log

SCALE = (0.5, 1.5)  # of the training images (authors' code)
PICTURES = 4  # an epoch, for TensorBoard
PARTS = ('same', 'different', 'displacement of objects', 'displacement of background')
REMEDY = 'run --amn_cam_to_ir_label_pass True first'


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    torch.manual_seed(args.seed)
    net = importlib.import_module(args.irn_network).Net()
    started_from = weights.load_pretrained(net.resnet50, args.pretrained)
    job = training.Training(
        'train_irn', args.irn_weights_name, batch_size=args.irn_batch_size, epochs=args.irn_num_epoches, seed=args.seed,
        device=args.device, precision=args.precision, num_workers=args.num_workers, overwrite=args.overwrite,
        accumulate=args.accumulate, save_every=args.save_every, tensorboard=args.tensorboard,
        resume=args.resume,
        settings={'stage': 'train_irn', 'network': args.irn_network, 'images': records.fingerprint({'ids': ids}),
                  'seeds': records.made_by(args.amn_ir_label_out_dir), 'pretrained': started_from, 'seed': args.seed,
                  'precision': args.precision, 'crop_size': args.irn_crop_size, 'batch_size': args.irn_batch_size,
                  'epochs': args.irn_num_epoches, 'learning_rate': args.irn_learning_rate,
                  'weight_decay': args.irn_weight_decay, 'momentum': args.momentum})
    if job.already_done():
        return
    crops = datasets.TrainingCrops(source, ids, args.irn_crop_size, args.seed, scale=SCALE,
                                   label_dir=args.amn_ir_label_out_dir, label_stride=4, label_remedy=REMEDY)
    optimizer = training.sgd(net.parameter_groups(), args.irn_learning_rate, args.irn_weight_decay, args.momentum)

    training.fit(job, net, optimizer, crops, objective(args), training.polynomial,
                 after_epoch=lambda epoch: {} if args.tensorboard is None else dict(_pictures(args, net)),
                 after_last=lambda: _store_mean_displacement(args, net))


def objective(args: Namespace) -> training.Objective:
    """Affinities and displacements of the pairs of the refined seed (IRN, section 4)."""
    def counts(batch: training.Batch) -> torch.Tensor:
        return losses.pair_counts(torchutils.to_device(batch['label_map'], args.device))

    def loss(net: torch.nn.Module, part: training.Batch, counts: torch.Tensor) -> tuple[torch.Tensor, training.Parts]:
        edge, displacement = net(torchutils.to_device(part['image'], args.device))
        label_map = torchutils.to_device(part['label_map'], args.device)
        parts = losses.affinity_losses(edge.float().sigmoid(), displacement.float(), label_map, counts=counts)
        return losses.irn_loss(parts), dict(zip(PARTS, parts, strict=True))

    return training.Objective(counts, loss)


@torch.inference_mode()
def _pictures(args: Namespace, net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """The class boundaries of some images of the infer list."""
    for image_id in args.source.names(args.infer_list)[:PICTURES]:
        image = imutils.read_of(args.source, image_id)
        with torchutils.autocast(args.precision, args.device):
            edge = net(torchutils.to_device(datasets.scaled_images(image, [1.0])[0], args.device))[0]
        edge = inference.resize(edge[0].float().sigmoid(), image.shape[:2])[0]
        yield image_id, drawing.overlay_activation(image, edge.cpu().numpy())


@torch.inference_mode()
def _store_mean_displacement(args: Namespace, net: torch.nn.Module) -> None:
    """Mean over batches of the mean of the raw displacement: infer list, top-left crops, batches of --irn_batch_size,
    short last one dropped unless it is the only one. Instances use it; pseudo-masks do not."""
    ids = args.source.names(args.infer_list)
    size = min(args.irn_batch_size, len(ids))
    batches = [ids[first:first + size] for first in range(0, len(ids) - size + 1, size)]
    net.mean_shift.running_mean.zero_()

    def read(image_id: str) -> dict:
        return datasets.top_left_crop(args.source, image_id, args.irn_crop_size)

    means = []
    for batch in datasets.read_ahead(read, torchutils.share(batches), args.num_workers, batches=True):
        datasets.checked(batch)
        with torchutils.autocast(args.precision, args.device):
            displacement = net(torchutils.to_device(batch['image'], args.device))[1]
        means.append(displacement.float().mean((0, 2, 3)).cpu())
    means = torchutils.gather(means)
    mean = torch.stack(means).mean(0)
    net.mean_shift.running_mean.copy_(mean)
    log.info('mean displacement: %.4f rows, %.4f columns (%d images)', *mean.tolist(), size * len(means))
