"""A loss with a denominator of its own, here for CAM: the focal loss (Lin et al., ICCV 2017),
divided by the number of labels.

    python run_sample.py --cam_loss focal --train_cam_pass ...
"""
import torch
from torch.nn import functional as F

from misc import torchutils
from misc.method import objectives

# in the digest of this file's code, so that weights of another one are not taken for these
GAMMA = 2


class Objective(objectives.Objective):
    """The sum over images and classes, divided by the labels of the whole batch."""

    def counts(self, batch):
        return torchutils.sum_over_processes(batch['labels'].sum().reshape(1))

    def loss(self, net, part, counts):
        logits, labels = net(self.there(part['image'])).float(), self.there(part['labels']).float()
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction='none')
        total = ((1 - torch.exp(-each)) ** GAMMA * each).sum()
        return torchutils.world()[1] * total / self.there(counts).clamp(min=1).sum(), {}
