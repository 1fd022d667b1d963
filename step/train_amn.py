"""Train AMN: per-pixel classification of CAM's refined seeds, conditioned on the image's labels.

Reads --ir_label_out_dir, images and labels of --train_list; masks of --infer_list for a score after
each epoch, where they are there. Writes --amn_weights_name.
Only this stage: python run_sample.py --train_amn_pass True
"""
from collections.abc import Iterator

import numpy as np
import torch

from misc import imutils, networks, torchutils, training
from misc.contract.settings import AmnTraining
from misc.contract.stages import Input, Job, Output, Stage
from misc.data import datasets
from misc.draw import drawing
from misc.files import label_maps, records
from misc.files.inputs import Inputs, Part
from misc.method import maps, objectives
from misc.pyutils import log
from misc.score import scores
from net import stride_of

SCALE = (0.5, 1.5)  # of the training images (authors' code)
PICTURES = 4  # an epoch, for TensorBoard


def run(job: Job, settings: AmnTraining) -> None:
    source, ids, seed_dir = job.source, job.ids('train_list'), job.files['ir_label_out_dir']
    net, started_from = networks.start(settings.network, source.n_classes,
                                       label_conditioning=settings.label_conditioning,
                                       backbone=settings.backbone, pretrained=settings.pretrained,
                                       seed=settings.seed)
    train = training.Training.of(job, 'train_amn', 'amn_weights_name', settings,
                                 settings.batch_size, pretrained=started_from, ids=ids,
                                 inputs=Inputs(source, seed=Part(
                                     seed_dir, label_maps.label_path,
                                     job.remedy('ir_label_out_dir'))),
                                 classes=source.classes, seeds=records.made_by(seed_dir))
    if train.already_done():
        return
    crops = datasets.TrainingCrops(source, ids, settings.crop_size, settings.seed, scale=SCALE,
                                   label_dir=seed_dir, label_stride=stride_of(net),
                                   label_remedy=job.remedy('ir_label_out_dir'))
    optimizer = adam(net, settings)
    objective = networks.objective(settings.loss, 'amn_loss',
                                   objectives.PixelClassification)(settings, job.device)

    scored = job.ids('infer_list')
    missing = [each for each in scored if not source.mask_path(each).is_file()]
    if 0 < len(missing) < len(scored):  # without any, nobody expects a score
        log.info('no score of AMN: %d images of %s have no mask', len(missing),
                 job.lists['infer_list'])

    def after_epoch(epoch: int) -> dict[str, np.ndarray]:
        if not missing:
            log_score(job, settings, net)
        return dict(pictures(job, settings, net)) if train.tensorboard else {}

    training.fit(train, net, optimizer, crops, objective, training.constant, after_epoch)


def adam(net: torch.nn.Module, settings: AmnTraining) -> torch.optim.Optimizer:
    """Adam, not AdamW: weight decay is added to the gradient (authors' code)."""
    backbone, head = net.parameter_groups()
    return torch.optim.Adam([{'params': [p for p in backbone if p.requires_grad],
                              'lr': settings.learning_rate[0]},
                             {'params': head, 'lr': settings.learning_rate[1]}],
                            weight_decay=settings.weight_decay, fused=True)


def log_score(job: Job, settings: AmnTraining, net: torch.nn.Module) -> None:
    """Log mIoU on the infer list: whole images at scale 1, without a threshold.

    The arg max is over background and the classes present.
    """
    source, ids, name = job.source, job.ids('infer_list'), job.lists['infer_list']
    ids = datasets.decodable(source, ids, job.run.on_damaged, job.run.workers)

    def read(image_id: str) -> tuple:
        image = imutils.read_of(source, image_id)
        truth = scores.read_truth(source, image_id, image.shape[:2])
        return datasets.scaled_images(image, [1.0])[0], source.labels(image_id), truth

    confusion = np.zeros((source.n_classes + 1, source.n_classes + 2), np.int64)
    for item in datasets.read_ahead(read, torchutils.shard(ids), job.run.readers):
        image, present, truth = datasets.checked(item)
        prediction = predict(net, image, present, truth.shape, job.device, settings.precision)
        index, count = scores.truth_and_map(truth, prediction, source.n_classes)
        confusion.flat[index] += count
    confusion = torchutils.sum_over_processes(torch.from_numpy(confusion)).numpy()
    log.info('mIoU of AMN without a threshold: %.1f%% (%s, %d images)',
             100 * scores.score(confusion[:, :-1], len(ids)).miou, name, len(ids))


def pictures(job: Job, settings: AmnTraining,
             net: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """Yield AMN's label map, without a threshold, of some images of the infer list."""
    for image_id in job.ids('infer_list')[:PICTURES]:
        image = imutils.read_of(job.source, image_id)
        label_map = predict(net, datasets.scaled_images(image, [1.0])[0],
                            job.source.labels(image_id), image.shape[:2],
                            job.device, settings.precision)
        yield image_id, drawing.overlay_labels(image, label_map, job.source.palette)


@torch.inference_mode()
def predict(net: torch.nn.Module, image: torch.Tensor, present: np.ndarray, hw: tuple[int, int],
            device: torch.device, precision: str) -> np.ndarray:
    """Return the label map (H, W) of an image, uint8 (1, 3, H, W), that shows `present` (C,)."""
    shown = torch.from_numpy(present.astype(np.float32))[None]
    with torchutils.autocast(precision, device):
        logits = net(maps.normalized(torchutils.to_device(image, device)),
                     shown.to(device))[0].float()
    keys = np.concatenate([[0], np.flatnonzero(present) + 1])
    planes = maps.resize(logits[keys], maps.rounded_up(hw, stride_of(net)))[:, :hw[0], :hw[1]]
    return keys[planes.argmax(0).cpu().numpy()].astype(np.uint8)


STAGE = Stage(
    'train_amn', "train AMN on CAM's refined seeds", run, (AmnTraining,),
    reads=(Input('ir_label_out_dir'),),
    writes=(Output('amn_weights_name', 'sess/res50_amn.pth', authors=True),),
    lists=('train_list', 'infer_list'), trains=True)
