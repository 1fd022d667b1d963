"""Train IRN on AMN's refined seeds: class boundaries and displacements to the object's centre.

Reads --amn_ir_label_out_dir, images of --train_list and, for the mean displacement, of
--infer_list.
Writes --irn_weights_name.
Only this stage: python run_sample.py --train_irn_pass True
"""
from collections.abc import Iterator

import numpy as np
import torch

from misc import imutils, networks, torchutils, training
from misc.contract.settings import IrnTraining
from misc.contract.stages import Input, Job, Output, Stage
from misc.data import datasets
from misc.draw import drawing
from misc.files import label_maps, records
from misc.files.inputs import Inputs, Part
from misc.method import maps, objectives
from misc.pyutils import log

SCALE = (0.5, 1.5)  # of the training images (authors' code)
STRIDE = 4  # of boundaries and displacements
PICTURES = 4  # an epoch, for TensorBoard


def run(job: Job, settings: IrnTraining) -> None:
    source, ids, seed_dir = job.source, job.ids('train_list'), job.files['amn_ir_label_out_dir']
    net, started_from = networks.start(settings.network, pretrained=settings.pretrained,
                                       seed=settings.seed)
    train = training.Training.of(job, 'train_irn', 'irn_weights_name', settings,
                                 settings.batch_size, pretrained=started_from, ids=ids,
                                 seeds=records.made_by(seed_dir), inputs=Inputs(
                                     source, labelled=False,
                                     seed=Part(seed_dir, label_maps.label_path,
                                               job.remedy('amn_ir_label_out_dir'))))
    if train.already_done():
        return
    crops = datasets.TrainingCrops(source, ids, settings.crop_size, settings.seed, scale=SCALE,
                                   label_dir=seed_dir, label_stride=STRIDE,
                                   label_remedy=job.remedy('amn_ir_label_out_dir'))
    optimizer = training.sgd(net.parameter_groups(), settings.learning_rate, settings.weight_decay,
                             settings.momentum)
    objective = networks.objective(settings.loss, 'irn_loss',
                                   objectives.PixelPairs)(settings, job.device)

    training.fit(train, net, optimizer, crops, objective, training.polynomial,
                 after_epoch=lambda epoch: dict(pictures(job, settings, net)) if train.tensorboard
                 else {}, after_last=lambda: store_mean_displacement(job, settings, net))


@torch.inference_mode()
def pictures(job: Job, settings: IrnTraining,
             net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the class boundaries of some images of the infer list."""
    for image_id in job.ids('infer_list')[:PICTURES]:
        image = imutils.read_of(job.source, image_id)
        with torchutils.autocast(settings.precision, job.device):
            edge = net(*maps.together([datasets.scaled_images(image, [1.0])], job.device))[0]
        edge = maps.resize(edge[0].float().sigmoid(), image.shape[:2])[0]
        yield image_id, drawing.overlay_activation(image, edge.cpu().numpy())


@torch.inference_mode()
def store_mean_displacement(job: Job, settings: IrnTraining, net: torch.nn.Module) -> None:
    """Store the mean over batches of the mean of the raw displacement in the network.

    Over the infer list: top-left crops, batches of --irn_batch_size, short last one dropped unless
      it is the only one. Instances use it; pseudo-masks do not.
    """
    ids = datasets.decodable(job.source, job.ids('infer_list'), job.run.on_damaged,
                             job.run.workers)
    size = min(settings.batch_size, len(ids))
    batches = [ids[first:first + size] for first in range(0, len(ids) - size + 1, size)]
    net.mean_shift.running_mean.zero_()

    def read(image_id: str) -> dict:
        return datasets.top_left_crop(job.source, image_id, settings.crop_size)

    means = []
    for batch in datasets.read_ahead(read, torchutils.shard(batches), job.run.readers,
                                     batches=True):
        datasets.checked(batch)
        with torchutils.autocast(settings.precision, job.device):
            displacement = net(torchutils.to_device(batch['image'], job.device))[1]
        means.append(displacement.float().mean((0, 2, 3)).cpu())
    means = torchutils.gather(means)
    mean = torch.stack(means).mean(0)
    net.mean_shift.running_mean.copy_(mean)
    log.info('mean displacement: %.4f rows, %.4f columns (%d images)', *mean.tolist(),
             size * len(means))


STAGE = Stage(
    'train_irn', "train IRN on AMN's refined seeds", run, (IrnTraining,),
    reads=(Input('amn_ir_label_out_dir'),),
    writes=(Output('irn_weights_name', 'sess/res50_irn.pth', authors=True),),
    lists=('train_list', 'infer_list'), trains=True)
