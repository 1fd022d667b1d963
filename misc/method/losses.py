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

from misc.indexing import (
    IGNORE,
    largest_on_paths,
    offset_tensor,
    offsets,
    pair_displacements,
    pair_labels,
    places_on_paths,
    shifted,
)
from misc.torchutils import sum_over_processes, world

EPS = 1e-5  # in every logarithm and divisor of IRN's losses (authors' code)
GROUP = 8  # offsets whose pairs are computed with at a time; more are not faster on a CPU


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
    return sum_over_processes(torch.stack([mask.count_nonzero()  # sum() would make int64 of each
                                           for mask in pair_labels(label_map, radius)]))


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
    sums = _PairSums.apply(_full(edge), _full(displacement), label_map.to(torch.uint8), radius)
    background, foreground, negative, displacement_background, displacement_foreground = (
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


class _PairSums(torch.autograd.Function):
    """edge (N, 1, h, w), displacement (N, 2, h, w), label map (N, h, w) -> the losses summed over
    pairs: affinity of background, foreground and negative ones, displacement of background and
    foreground ones, (5,).

    Some offsets at a time. Of a pair four bytes are kept for the gradient: which of the three it
    is, and which position of its path has the largest edge.
    """

    @staticmethod
    def forward(ctx, edge: torch.Tensor, displacement: torch.Tensor, label_map: torch.Tensor,
                radius: int) -> torch.Tensor:
        masks = torch.stack(pair_labels(label_map, radius))
        zero = edge.new_zeros(())  # for each 0 in an expression torch would launch a kernel
        total, winners = 0, []
        for group in _groups(radius):
            _, foreground, negative = here = masks[:, :, group]
            largest, winner = largest_on_paths(edge, radius, group)
            logarithm = _agreement(largest, negative).log_()
            distance = _residual(displacement, foreground, zero, radius, group).abs_()
            total = total + torch.cat([
                torch.where(here, logarithm, zero).sum((1, 2, 3)),
                torch.where(here[:2].unsqueeze(2), distance, zero).sum((1, 2, 3, 4))])
            winners.append(winner)
        ctx.save_for_backward(edge, displacement, masks, *winners)
        ctx.radius = radius
        return torch.cat([-total[:3], total[3:]])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        edge, displacement, masks, *winners = ctx.saved_tensors
        radius, flat, zero = ctx.radius, edge.flatten(1), edge.new_zeros(())
        grad_edge = torch.zeros_like(flat)
        # contiguous, as autograd has it: sums over it round by its order
        grad_displacement = displacement.new_zeros(displacement.shape)
        attract, repel, displaced = grad[:2].unbind(), -grad[2], grad[3:].unbind()
        # the last first, as autograd adds up
        for group, winner in zip(_groups(radius)[::-1], winners[::-1], strict=True):
            background, foreground, negative = masks[:, :, group]
            place = places_on_paths(winner, radius, edge.shape[2:], group).flatten(1)
            rate = _chosen((background, foreground, negative), (*attract, repel), zero)
            rate /= _agreement(flat.gather(1, place).view_as(winner), negative)
            grad_edge += torch.zeros_like(flat).scatter_add_(1, place, rate.flatten(1))
            rate = _residual(displacement, foreground, zero, radius, group).sgn_()
            rate *= _chosen((background, foreground), displaced, zero).unsqueeze(1)
            rate = rate.unflatten(3, shifted(displacement, radius).shape[2:])
            for number, offset in reversed(list(enumerate(offsets(radius)[group]))):
                shifted(grad_displacement, radius, offset).sub_(rate[:, :, number])
            shifted(grad_displacement, radius).add_(rate.sum(2))
        return grad_edge.view_as(edge), grad_displacement, None, None


def _agreement(largest: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Of a pair with affinity a = 1 - the largest edge on its path: a, or of a negative one 1 - a.
    Its loss is minus the logarithm of that.
    """
    affinity = 1 - largest
    return torch.where(negative, 1 + EPS - affinity, affinity + EPS)


def _residual(displacement: torch.Tensor, foreground: torch.Tensor, zero: torch.Tensor, radius: int,
              group: slice) -> torch.Tensor:
    """By how much the difference between both ends is not the offset in foreground pairs, or not 0
    in others: (N, 2, P, S).
    """
    expected = offset_tensor(radius, displacement.dtype, displacement.device)[group].t()
    return pair_displacements(displacement, radius, group).sub_(
        torch.where(foreground.unsqueeze(1), expected[:, :, None], zero))


def _chosen(masks: tuple[torch.Tensor, ...], values: tuple[torch.Tensor, ...],
            zero: torch.Tensor) -> torch.Tensor:
    """The value of the mask that holds, `zero` where none does."""
    chosen = zero
    for mask, value in zip(masks, values, strict=True):
        chosen = torch.where(mask, value, chosen)
    return chosen
