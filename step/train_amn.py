"""Train AMN: per-pixel classification of CAM's refined seeds, conditioned on the image's labels.

Reads --ir_label_out_dir, images and labels of --train_list; masks of --infer_list for a score after each epoch, where
they are there. Writes --amn_weights_name.
Only this stage: python run_sample.py --train_amn_pass True
"""
import importlib
from argparse import Namespace
from collections.abc import Iterator

import numpy as np
import torch

from misc import datasets, drawing, imutils, inference, losses, records, scores, torchutils, training, weights
from misc.pyutils import log

SCALE = (0.5, 1.5)  # of the training images (authors' code)
PICTURES = 4  # an epoch, for TensorBoard
REMEDY = 'run --cam_to_ir_label_pass True first'


def run(args: Namespace) -> None:
    source, ids = args.source, args.source.names(args.train_list)
    torch.manual_seed(args.seed)
    net = importlib.import_module(args.amn_network).Net(source.n_classes, label_conditioning=args.amn_label_conditioning)
    started_from = weights.load_pretrained(net.resnet50, args.pretrained)
    job = training.Training(
        'train_amn', args.amn_weights_name, batch_size=args.amn_batch_size, epochs=args.amn_num_epoches, seed=args.seed,
        device=args.device, precision=args.precision, num_workers=args.num_workers, overwrite=args.overwrite,
        accumulate=args.accumulate, save_every=args.save_every, tensorboard=args.tensorboard,
        resume=args.resume,
        settings={'stage': 'train_amn', 'network': args.amn_network, 'classes': source.classes,
                  'images': records.fingerprint({'ids': ids}), 'seeds': records.made_by(args.ir_label_out_dir),
                  'pretrained': started_from, 'seed': args.seed, 'precision': args.precision,
                  'crop_size': args.amn_crop_size, 'batch_size': args.amn_batch_size, 'epochs': args.amn_num_epoches,
                  'learning_rate': args.amn_learning_rate, 'weight_decay': args.amn_weight_decay, 'eps': args.eps,
                  'label_conditioning': args.amn_label_conditioning, 'balanced': args.amn_balanced})
    if job.already_done():
        return
    crops = datasets.TrainingCrops(source, ids, args.amn_crop_size, args.seed, scale=SCALE,
                                   label_dir=args.ir_label_out_dir, label_stride=16, label_remedy=REMEDY)
    optimizer = adam(net, args)

    training.fit(job, net, optimizer, crops, objective(args), training.constant,
                 after_epoch=lambda epoch: _after_epoch(args, net))


def objective(args: Namespace) -> training.Objective:
    """Per-pixel classification of the refined seed, smoothed by --eps, balanced (AMN, section 3.2)."""
    def counts(batch: training.Batch) -> torch.Tensor | None:
        pixels = losses.labelled_pixels(batch['label_map'])  # on the host, where the batch still is
        return pixels if pixels.any() else None  # nothing but ignored pixels: nothing to learn from

    def loss(net: torch.nn.Module, part: training.Batch, counts: torch.Tensor) -> tuple[torch.Tensor, training.Parts]:
        image, labels, label_map, counts = (torchutils.to_device(tensor, args.device) for tensor in (
            part['image'], part['labels'], part['label_map'], counts))
        logits = net(image, labels, part['seed'])
        return losses.per_pixel_classification_loss(logits, label_map, args.eps, counts, args.amn_balanced), {}

    return training.Objective(counts, loss)


def adam(net: torch.nn.Module, args: Namespace) -> torch.optim.Optimizer:
    """Adam, not AdamW: weight decay is added to the gradient (authors' code)."""
    backbone, head = net.parameter_groups()
    return torch.optim.Adam([{'params': [p for p in backbone if p.requires_grad], 'lr': args.amn_learning_rate[0]},
                             {'params': head, 'lr': args.amn_learning_rate[1]}], weight_decay=args.amn_weight_decay, fused=True)


def _after_epoch(args: Namespace, net: torch.nn.Module) -> dict[str, np.ndarray]:
    _log_score(args, net)
    return {} if args.tensorboard is None else dict(_pictures(args, net))


def _pictures(args: Namespace, net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """AMN's label map, without a threshold, of some images of the infer list."""
    for image_id in args.source.names(args.infer_list)[:PICTURES]:
        image = imutils.read_of(args.source, image_id)
        label_map = predict(net, datasets.scaled_images(image, [1.0])[0], args.source.labels(image_id), image.shape[:2],
                            args.device, args.precision)
        yield image_id, drawing.overlay_labels(image, label_map, args.source.palette)


def _log_score(args: Namespace, net: torch.nn.Module) -> None:
    """mIoU on the infer list: whole images at scale 1, arg max over background and the classes present."""
    source, ids = args.source, args.source.names(args.infer_list)
    missing = [image_id for image_id in ids if not source.mask_path(image_id).is_file()]
    if missing:
        log.info('no score of AMN: %d images of %s have no mask', len(missing), args.infer_list)
        return

    def read(image_id: str) -> tuple:
        image = imutils.read_of(source, image_id)
        truth = scores.read_truth(source, image_id, image.shape[:2])
        return datasets.scaled_images(image, [1.0])[0], source.labels(image_id), truth

    confusion = np.zeros((source.n_classes + 1, source.n_classes + 2), np.int64)
    for item in datasets.read_ahead(read, torchutils.share(ids), args.num_workers):
        image, present, truth = datasets.checked(item)
        prediction = predict(net, image, present, truth.shape, args.device, args.precision)
        index, count = scores.truth_and_map(truth, prediction, source.n_classes)
        confusion.flat[index] += count
    confusion = torchutils.sum_over_processes(torch.from_numpy(confusion)).numpy()
    log.info('mIoU of AMN without a threshold: %.1f%% (%s, %d images)',
             100 * scores.score(confusion[:, :-1], len(ids)).miou, args.infer_list, len(ids))


@torch.inference_mode()
def predict(net: torch.nn.Module, image: torch.Tensor, present: np.ndarray, hw: tuple[int, int], device: torch.device,
            precision: str) -> np.ndarray:
    """Label map (H, W) of a normalised image (1, 3, H, W) with the classes `present` (C,)."""
    labels = torch.from_numpy(present.astype(np.float32))[None]
    with torchutils.autocast(precision, device):
        logits = net(image.to(device, memory_format=torch.channels_last), labels.to(device))[0].float()
    keys = np.concatenate([[0], np.flatnonzero(present) + 1])
    planes = inference.resize(logits[keys], inference.up16_hw(hw))[:, :hw[0], :hw[1]]
    return keys[planes.argmax(0).cpu().numpy()].astype(np.uint8)
