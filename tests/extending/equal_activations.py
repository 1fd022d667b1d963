"""A loss of one's own, here for CAM: the published one, and a penalty on activations that are
uneven within an image.

    python run_sample.py --cam_loss equal_activations --train_cam_pass ...
"""
from torch.nn import functional as F

from misc.method import objectives


class Objective(objectives.Objective):
    """A mean over the images of a batch: `mean` is all that must be said."""

    def mean(self, net, part):
        activations = net.activations(self.there(part['image'])).float()
        labels = self.there(part['labels'])
        peaks, means = activations.amax((2, 3)), activations.mean((2, 3))
        uneven = (labels * (peaks - means) / (peaks + 1e-5)).sum(1).mean()
        return F.multilabel_soft_margin_loss(means, labels) + 0.1 * uneven
