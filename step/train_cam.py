"""Train the CAM network: a classifier of image-level labels.

Reads images and labels of --train_list, and those of --val_list for a loss after each epoch, where
they are others. Writes --cam_weights_name.
Only this stage: python run_sample.py --train_cam_pass True
"""
from collections.abc import Iterator

import numpy as np
import torch

from misc import imutils, networks, torchutils, training
from misc.contract.settings import CamTraining
from misc.contract.stages import Job, Output, Stage
from misc.data import datasets
from misc.draw import drawing
from misc.files.inputs import Inputs
from misc.method import maps, objectives
from misc.method.objectives import Objective
from misc.pyutils import log

PICTURES = 4  # an epoch, for TensorBoard
BATCH = 16  # of the validation (authors' code)


def run(job: Job, settings: CamTraining) -> None:
    source, ids = job.source, job.ids('train_list')
    net, started_from = networks.start(settings.network, source.n_classes,
                                       backbone=settings.backbone, pretrained=settings.pretrained,
                                       seed=settings.seed)
    train = training.Training.of(job, 'train_cam', 'cam_weights_name', settings,
                                 settings.batch_size, pretrained=started_from,
                                 inputs=Inputs(source), ids=ids, classes=source.classes)
    if train.already_done():
        return
    crops = datasets.TrainingCrops(source, ids, settings.crop_size, settings.seed,
                                   resize_long=settings.resize_long)
    optimizer = training.sgd(net.parameter_groups(), settings.learning_rate, settings.weight_decay,
                             settings.momentum)
    objective = networks.objective(settings.loss, 'cam_loss',
                                   objectives.ImageClassification)(settings, job.device)

    def after_epoch(epoch: int) -> dict[str, np.ndarray]:
        if is_validated(job):
            log_validation_loss(job, settings, net, objective)
        return dict(pictures(job, settings, net)) if train.tensorboard else {}

    training.fit(train, net, optimizer, crops, objective, training.polynomial, after_epoch)


def is_validated(job: Job) -> bool:
    """Return whether the val list is apart from the train list, or another than the default."""
    name = job.lists['val_list']
    return (name != job.source.lists['val_list']
            or not set(job.ids('val_list')) <= set(job.ids('train_list')))


@torch.inference_mode()
def log_validation_loss(job: Job, settings: CamTraining, net: torch.nn.Module,
                        objective: Objective) -> None:
    """Log the mean of the batches' losses over the val list, on top-left crops.

    A short last batch is dropped unless it is the only one.
    """
    ids = datasets.decodable(job.source, job.ids('val_list'), job.run.on_damaged,
                             job.run.workers)
    size = min(BATCH, len(ids))
    batches = [ids[first:first + size] for first in range(0, len(ids) - size + 1, size)]

    def read(image_id: str) -> dict:
        return datasets.top_left_crop(job.source, image_id, settings.crop_size)

    values = []
    for batch in datasets.read_ahead(read, torchutils.shard(batches), job.run.readers,
                                     batches=True):
        datasets.checked(batch)
        batch = batch | {'index': torch.arange(size)}
        with torchutils.alone(), torchutils.autocast(settings.precision, job.device):
            counts = objective.counts(batch)
            if counts is not None:  # else there is nothing to learn in it
                values.append(objective.loss(net, batch, counts)[0].item())
    values = torchutils.gather(values)
    if values:
        log.info('validation loss %.4f (%d images)', sum(values) / len(values), size * len(values))


@torch.inference_mode()
def pictures(job: Job, settings: CamTraining,
             net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the strongest activation of some images of the val list, at scale 1, without mirror."""
    for image_id in job.ids('val_list')[:PICTURES]:
        image = imutils.read_of(job.source, image_id)
        with torchutils.autocast(settings.precision, job.device):
            planes = net.activations(*maps.together([datasets.scaled_images(image, [1.0])],
                                                    job.device))
        strongest = planes[0, job.source.labels(image_id)].float().sum(0, keepdim=True)
        strongest = maps.resize(strongest / (strongest.max() + 1e-5), image.shape[:2])[0]
        yield image_id, drawing.overlay_activation(image, strongest.cpu().numpy())


STAGE = Stage(
    'train_cam', 'train the classifier whose activations are CAM', run, (CamTraining,),
    writes=(Output('cam_weights_name', 'sess/res50_cam.pth', authors=True),),
    lists=('train_list', 'val_list'), trains=True)
