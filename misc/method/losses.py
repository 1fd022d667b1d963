"""The losses of the three trainings: pure functions of what a network gave and its targets.

Every mean is over the batch of all processes. DistributedDataParallel averages the gradients of its
processes, so what each function returns is this process's share of the loss times the number of
processes: the mean over processes is the loss, and with one process the value is the loss itself.
Where the batch is cut into parts whose gradients are added up, hand the `counts` of the whole batch
to each part: the parts' losses then add up to the loss of the batch. Without `counts` they are
counted and summed over all processes here, so every process must call the function.

Computed in float32 also under autocast (float64 stays float64). No value is fetched from the
device.
"""
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from misc.indexing import (
    IGNORE,
    offset_tensor,
    offsets,
    pair_affinities,
    pair_displacements,
    pair_labels,
)
from misc.torchutils import sum_over_processes, world

EPS = 1e-5  # in every logarithm and divisor of IRN's losses (authors' code)
# offsets whose pairs are in memory at a time: 75 MB for 4 maps of 128 x 128; more are not faster
GROUP = 8


def _full(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def image_counts(labels: torch.Tensor) -> torch.Tensor:
    """Return the number of images, over all processes.

    labels: (N, C).
    Returns (1,).
    """
    return sum_over_processes(torch.full((1,), labels.shape[0], dtype=torch.int64,
                                         device=labels.device))


def share_of_mean(mean: torch.Tensor, images: int, counts: torch.Tensor) -> torch.Tensor:
    """Return this process's share of a loss from the mean over some images of its batch.

    mean: over `images` images.
    counts: (1,), the images of the batch.
    """
    return world()[1] * mean * images / counts.sum().to(mean.device)


def classification_loss(logits: torch.Tensor, labels: torch.Tensor,
                        counts: torch.Tensor | None = None) -> torch.Tensor:
    """Return the multi-label soft margin loss, mean over classes and images.

    logits: (N, C).
    labels: (N, C), 0 or 1.
    counts: `image_counts` of the whole batch.
    """
    logits = _full(logits)
    counts = image_counts(labels) if counts is None else counts
    # mean over classes only
    total = F.multilabel_soft_margin_loss(logits, labels.to(logits.dtype), reduction='sum')
    return world()[1] * total / counts.sum()


def labelled_pixels(label_map: torch.Tensor) -> torch.Tensor:
    """Count pixels of background and of foreground, over all processes; 255 counts in neither.

    label_map: (N, h, w).
    Returns int64 (2,).
    """
    background = label_map == 0
    foreground = ~background & (label_map != IGNORE)
    return sum_over_processes(torch.stack([background.sum(), foreground.sum()]))


def per_pixel_classification_loss(logits: torch.Tensor, label_map: torch.Tensor, eps: float,
                                  counts: torch.Tensor | None = None,
                                  balanced: bool = True) -> torch.Tensor:
    """Return the cross-entropy with smoothed labels, balanced between both grounds (AMN, 3.2).

    logits: (N, C + 1, h, w), background first.
    label_map: (N, h, w) int64.
    eps: what the target gives to the C other classes together.
    counts: `labelled_pixels` of the whole batch.
    balanced: False takes the mean over all labelled pixels instead, to see what the balance does.
    Half the mean over background pixels and half the mean over foreground pixels; where one of them
    has no pixel the other alone; 0 (with a graph) where both have none.
    """
    counts = labelled_pixels(label_map) if counts is None else counts
    log_probability = F.log_softmax(_full(logits), dim=1)
    background = label_map == 0
    foreground = ~background & (label_map != IGNORE)
    target = torch.where(foreground, label_map, 0).unsqueeze(1)
    at_target = log_probability.gather(1, target).squeeze(1)
    at_others = log_probability.sum(dim=1) - at_target
    loss = -(1 - eps) * at_target - eps / (logits.shape[1] - 1) * at_others
    sums = torch.stack([torch.where(mask, loss, 0).sum() for mask in (background, foreground)])
    if not balanced:
        return world()[1] * sums.sum() / counts.sum().clamp(min=1)
    halves = (counts > 0).sum().clamp(min=1)  # 1 where one is empty
    return world()[1] * (sums / counts.clamp(min=1)).sum() / halves


def cross_entropy_loss(logits: torch.Tensor, label_map: torch.Tensor,
                       counts: torch.Tensor | None = None) -> torch.Tensor:
    """Return the cross-entropy, mean over the pixels that are not 255.

    logits: (N, C + 1, h, w), background first.
    label_map: (N, h, w) int64.
    counts: `labelled_pixels` of the whole batch.
    0 (with a graph) where there is no such pixel.
    """
    counts = labelled_pixels(label_map) if counts is None else counts
    labelled = label_map != IGNORE
    log_probability = F.log_softmax(_full(logits), dim=1)
    at_target = log_probability.gather(1,
                                       torch.where(labelled, label_map, 0).unsqueeze(1)).squeeze(1)
    # torch's own varies on a GPU
    return world()[1] * -torch.where(labelled, at_target, 0).sum() / counts.sum().clamp(min=1)


def pair_counts(label_map: torch.Tensor, radius: int = 10) -> torch.Tensor:
    """Count background, foreground and negative pairs, over all processes.

    label_map: (N, h, w).
    Returns int64 (3,).
    """
    groups = [pair_labels(label_map, radius, group) for group in _groups(radius)]
    return sum_over_processes(sum(torch.stack([mask.sum() for mask in masks]) for masks in groups))


def affinity_losses(edge: torch.Tensor, displacement: torch.Tensor, label_map: torch.Tensor,
                    radius: int = 10, counts: torch.Tensor | None = None) -> torch.Tensor:
    """Return the four parts of IRN's loss (IRN, section 4).

    edge: (N, 1, h, w) after the sigmoid (take it in float32).
    displacement: (N, 2, h, w), dy before dx.
    label_map: (N, h, w).
    counts: `pair_counts` of the whole batch.
    Returns (4,): half-sum of the positive pairs, negative pairs, displacement of the foreground,
    displacement of the background. A part without pairs is 0. Maps of fewer than `radius` rows or 2
    * `radius` - 1 columns have no pair at all.
    """
    counts = pair_counts(label_map, radius) if counts is None else counts
    edge, displacement = _full(edge), _full(displacement)
    sums = sum(checkpoint(_pair_sums, edge, displacement, label_map, radius, group,
                          use_reentrant=False, preserve_rng_state=False)
               for group in _groups(radius))
    background, foreground, negative, displacement_foreground, displacement_background = (
        world()[1] * sums)
    n_background, n_foreground, n_negative = counts.to(sums.dtype)
    return torch.stack([
        (background / (n_background + EPS) + foreground / (n_foreground + EPS)) / 2,
        negative / (n_negative + EPS),
        displacement_foreground / (2 * n_foreground + EPS),
        displacement_background / (2 * n_background + EPS),
    ])


def irn_loss(parts: torch.Tensor) -> torch.Tensor:
    """Add up the parts of `affinity_losses`: affinity and displacement, each the mean of two parts.

    parts: (4,).
    """
    return (parts[0] + parts[1]) / 2 + (parts[2] + parts[3]) / 2


def _groups(radius: int) -> list[slice]:
    return [slice(start, start + GROUP) for start in range(0, len(offsets(radius)), GROUP)]


def _pair_sums(edge: torch.Tensor, displacement: torch.Tensor, label_map: torch.Tensor, radius: int,
               group: slice) -> torch.Tensor:
    """The losses of a group of offsets, summed over their pairs: affinity of background, foreground
    and negative pairs, displacement of foreground and background pairs. Returns (5,).
    """
    background, foreground, negative = pair_labels(label_map, radius, group)
    affinity = pair_affinities(edge, radius, group)
    attract = -(affinity + EPS).log()
    repel = -(1 + EPS - affinity).log()
    moved = pair_displacements(displacement, radius, group)
    expected = offset_tensor(radius, moved.device)[group].t()[:, :, None]
    return torch.stack([
        torch.where(background, attract, 0).sum(),
        torch.where(foreground, attract, 0).sum(),
        torch.where(negative, repel, 0).sum(),
        torch.where(foreground.unsqueeze(1), (moved - expected).abs(), 0).sum(),
        torch.where(background.unsqueeze(1), moved.abs(), 0).sum(),
    ])
