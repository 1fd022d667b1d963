"""What each training learns: a loss of the network, a batch and its targets.

One's own is a module with a class Objective (--cam_loss, --amn_loss; docs/extending.md).
"""
from typing import Any

import torch
from torch import nn

from misc import torchutils
from misc.contract.settings import AmnTraining, SegTraining
from misc.method import losses, segmentation

Batch = dict[str, Any]
Parts = dict[str, torch.Tensor]


class Objective:
    """What is learnt. For a loss that is a mean over images, define `mean` and nothing else.

    settings: of the training.
    A batch is on the host, and `self.there` brings a tensor to the device:
    image: (N, 3, S, S).
    labels: (N, C), image-level.
    index: (N,).
    dropout_seed: (N,).
    label_map: (N, s, s), where the stage has label maps.
    """

    def __init__(self, settings: Any, device: torch.device):
        self.settings, self.device = settings, device

    def there(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device, without waiting for it."""
        return torchutils.to_device(tensor, self.device)

    def counts(self, batch: Batch) -> torch.Tensor | None:
        """Count the targets of each kind in the whole batch, over all processes.

        A mean is divided by them. None for a batch without anything to learn from, which is skipped
        and counted. Here: (1,), its images.
        """
        return losses.image_counts(batch['index'])

    def loss(self, net: nn.Module, part: Batch, counts: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        """Return the share of a part of the batch in its loss, and in the loss's parts by name.

        net: the network itself, whatever shares its gradients.
        counts: of the whole batch.
        The shares of all parts add up. Of a sum over the part a share is `torchutils.world()[1]` *
        sum / counts: gradients are averaged over the processes, so each gives its share times their
        number.
        """
        return losses.share_of_mean(self.mean(net, part), len(part['index']), counts), {}

    def mean(self, net: nn.Module, part: Batch) -> torch.Tensor:
        """Return the mean over the images of a part."""
        raise NotImplementedError


class Learner(nn.Module):
    """A network and its objective as one module.

    So DistributedDataParallel sees whatever of the network a loss uses.
    """

    def __init__(self, net: nn.Module, objective: Objective):
        super().__init__()
        self.net, self.objective = net, objective

    def forward(self, part: Batch, counts: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        return self.objective.loss(self.net, part, counts)


class ImageClassification(Objective):
    """The objective of CAM: multi-label soft margin loss of the logits."""

    def counts(self, batch: Batch) -> torch.Tensor:
        return losses.image_counts(batch['labels'])

    def loss(self, net: nn.Module, part: Batch, counts: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        logits = net(self.there(part['image']))
        return losses.classification_loss(logits, self.there(part['labels']),
                                          self.there(counts)), {}


class PixelClassification(Objective):
    """The objective of AMN: smoothed, balanced per-pixel classification (AMN, section 3.2)."""

    settings: AmnTraining

    def counts(self, batch: Batch) -> torch.Tensor | None:
        pixels = losses.labelled_pixels(batch['label_map'])  # on the host, where the batch still is
        return pixels if pixels.any() else None  # nothing but ignored pixels: nothing to learn from

    def loss(self, net: nn.Module, part: Batch, counts: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        image, labels, label_map, counts = map(self.there, (part['image'], part['labels'],
                                                            part['label_map'], counts))
        logits = net(image, labels, part['dropout_seed'])
        return losses.per_pixel_classification_loss(logits, label_map, self.settings.eps, counts,
                                                    self.settings.balanced), {}


class PixelPairs(Objective):
    """The objective of IRN: affinities and displacements of pairs (IRN, section 4)."""

    parts = ('same', 'different', 'displacement of objects', 'displacement of background')

    def counts(self, batch: Batch) -> torch.Tensor:
        return losses.pair_counts(self.there(batch['label_map']))

    def loss(self, net: nn.Module, part: Batch, counts: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        edge, displacement = net(self.there(part['image']))
        parts = losses.affinity_losses(edge.float().sigmoid(), displacement.float(),
                                       self.there(part['label_map']), counts=counts)
        return losses.irn_loss(parts), dict(zip(self.parts, parts, strict=True))


class Segmentation(Objective):
    """The objective of DeepLab-V2: the cross-entropies at every scale and at their maximum.

    sizes: (h, w) of the logits at each scale, and of their maximum.
    Their sum, each against the label map at that size. kazuto1011's code averages over each half of
    a batch and then the halves; ours over the whole batch at once, so that --accumulate and several
    processes change nothing.
    """

    settings: SegTraining

    def __init__(self, settings: SegTraining, device: torch.device, sizes: list[tuple[int, int]]):
        super().__init__(settings, device)
        self.sizes = sizes

    def counts(self, batch: Batch) -> torch.Tensor | None:
        pixels = torch.stack([losses.labelled_pixels(segmentation.resized(batch['label_map'], hw))
                              for hw in self.sizes])
        return pixels if pixels.any() else None

    def loss(self, net: nn.Module, part: Batch, counts: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        image, label_map, counts = map(self.there, (part['image'], part['label_map'], counts))
        outputs = segmentation.at_scales(net, image, self.settings.scales)
        values = [self.of_output(logits, segmentation.resized(label_map, hw), number)
                  for logits, hw, number in zip(outputs, self.sizes, counts, strict=True)]
        return sum(values), {'maximum': values[-1]}

    def of_output(self, logits: torch.Tensor, label_map: torch.Tensor,
                  counts: torch.Tensor) -> torch.Tensor:
        """Return the loss of one of the outputs, against the label map at its size.

        logits: (N, C+1, h, w).
        label_map: (N, h, w).
        """
        if self.settings.loss == 'balanced':
            return losses.per_pixel_classification_loss(logits, label_map, 0, counts)
        return losses.cross_entropy_loss(logits, label_map, counts)
