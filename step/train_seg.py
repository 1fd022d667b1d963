"""Train the segmentation network, DeepLab-V2, on the pseudo-masks.

Reads --seg_label_dir (the pseudo-masks), images of --train_list. Writes --seg_weights_name. The
published last column is measured with it.
Only this stage: python run_sample.py --train_seg_pass True
"""
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from misc import imutils, networks, torchutils, training
from misc.contract.settings import SegTraining
from misc.contract.stages import Input, Job, Output, Stage
from misc.data import datasets
from misc.draw import drawing
from misc.files import label_maps, records, weights
from misc.files.inputs import Inputs, Part
from misc.method import maps, objectives, segmentation
from misc.pyutils import UserError
from net import backbone_of

PICTURES = 4  # a round, for TensorBoard
HEAD, BIAS = 10, 20  # times the learning rate of the backbone (kazuto1011/deeplab-pytorch)


def run(job: Job, settings: SegTraining) -> None:
    source, ids, label_dir = job.source, job.ids('train_list'), job.files['seg_label_dir']
    net, started_from = networks.start(settings.network, source.n_classes,
                                       stride_first=settings.stride_first,
                                       ceil_mode=settings.ceil_mode, pretrained=settings.pretrained,
                                       seed=settings.seed)
    remedy = job.remedy('sem_seg_out_dir', f'--infer_list {job.lists["train_list"]}')
    train = training.Training.of(job, 'train_seg', 'seg_weights_name', settings,
                                 settings.batch_size, pretrained=started_from, ids=ids,
                                 inputs=Inputs(
                                     source, labelled=False, label_map=Part(
                                         label_dir, label_maps.label_path, remedy)),
                                 classes=source.classes, label_maps=records.made_by(label_dir))
    if train.already_done():
        return
    crops = datasets.SegmentationCrops(
        source, ids, settings.crop_size, settings.seed, scales=settings.resize,
        normalize=imutils.INPUTS[settings.input], label_dir=label_dir,
        label_remedy=f'train_seg needs one for each image of --train_list: {remedy}')
    sizes = segmentation.output_sizes(net, settings.crop_size, settings.scales)
    objective = objectives.Segmentation(settings, job.device, sizes)

    training.fit(train, net, sgd(net, settings), crops, objective, training.polynomial_by_tens,
                 after_epoch=lambda number: dict(pictures(job, settings, net)) if train.tensorboard
                 else {})


def sgd(net: torch.nn.Module, settings: SegTraining) -> torch.optim.Optimizer:
    """Make SGD: head weights ten times, head biases twenty times as fast as the backbone.

    No weight decay for the biases.
    """
    backbone, head_weights, head_biases = net.parameter_groups()
    rate, decay = settings.learning_rate, settings.weight_decay
    return torch.optim.SGD([{'params': backbone, 'lr': rate, 'weight_decay': decay},
                            {'params': head_weights, 'lr': HEAD * rate, 'weight_decay': decay},
                            {'params': head_biases, 'lr': BIAS * rate, 'weight_decay': 0.0}],
                           lr=rate, momentum=settings.momentum)


def pictures(job: Job, settings: SegTraining,
             net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the label map of some images of the train list."""
    for image_id in job.ids('train_list')[:PICTURES]:
        image = imutils.read_of(job.source, image_id)
        pixels = torchutils.to_device(datasets.scaled_images(image, [1.0])[0], job.device)
        x = maps.normalized(pixels, settings.input)
        logits = segmentation.predict(net, x, settings.scales, False, job.device,
                                      settings.precision)
        label_map = segmentation.label_map(logits, image.shape[:2]).cpu().numpy()
        yield image_id, drawing.overlay_labels(image, label_map, job.source.palette)


def check(job: Job, chosen: Sequence[str], settings: SegTraining) -> None:
    """Raise UserError for ImageNet weights that do not fit, and where label maps are missing.

    Those of another form or depth than the network's do not fit; label maps of the train list are
    missing where no chosen stage will make them.
    """
    if settings.pretrained == 'imagenet' and (settings.input, settings.stride,
                                              settings.ceil_mode) != ('torchvision', '3x3', False):
        raise UserError("train_seg: torchvision's ImageNet weights need --seg_input torchvision "
                        "--seg_stride 3x3 "
                        "--seg_ceil_mode False; for Caffe's form give a file with its weights: "
                        "--seg_pretrained FILE")
    if settings.pretrained not in ('imagenet', 'none'):
        # a ResNet-50's file is not noticed hours later to be of the wrong depth
        with torch.device('meta'):
            net = networks.build(settings.network, job.source.n_classes)
        weights.pretrained_state(backbone_of(net), settings.pretrained)
    folder = job.files['seg_label_dir']
    by_default = folder == job.files['sem_seg_out_dir']
    if by_default and ('make_sem_seg' in chosen or not Path(folder).is_dir()):
        return  # the checks of every stage's inputs tell of these
    ids, name = job.ids('train_list'), job.lists['train_list']
    missing = [image_id for image_id in ids if not label_maps.exists(folder, image_id)]
    if missing:
        raise UserError(f'{folder}: label maps of {len(missing)} of the {len(ids)} images of '
                        f'{name} are missing '
                        f'(first {missing[0]}); ' + (
                            job.remedy('sem_seg_out_dir', f'--infer_list {name} first')
                            if by_default else
                            'train_seg needs one for each image of --train_list'))


STAGE = Stage(
    'train_seg', 'train the segmentation network on the pseudo-masks', run, (SegTraining,),
    reads=(Input('seg_label_dir', fallback='sem_seg_out_dir', help=
                 'label maps to train on, one for each image of the train list: --sem_seg_out_dir '
                 'unless given; SegmentationClassAug for full supervision'),),
    writes=(Output('seg_weights_name', 'sess/seg.pth'),), labelled=False, trains=True, check=check)
