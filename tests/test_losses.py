import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from misc import indexing
from misc.method import losses

GOLDEN = Path(__file__).parent / 'golden'


def golden(name):
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / name).items()}


def gradient(loss, *inputs):
    return torch.autograd.grad(loss, inputs)


def close(a, b, share=1e-5):
    """Equal within `share` of the largest value."""
    return (a - b).abs().max() <= share * b.abs().max()


@pytest.fixture
def two_processes(monkeypatch):
    """Says what the sums over processes are; each call of the fixture's function sets one process's
    view.
    """
    def become(other_counts):
        monkeypatch.setattr(losses, 'world', lambda: (0, 2))
        monkeypatch.setattr(losses, 'sum_over_processes',
                            lambda counts: counts.detach() + other_counts)
    return become


# Multi-label loss

@pytest.mark.golden
def test_classification_loss_and_gradient_are_the_authors():
    g = golden('losses.npz')
    logits = g['class_logits'].requires_grad_()
    loss = losses.classification_loss(logits, g['class_labels'])
    assert loss.item() == pytest.approx(g['class_loss'].item(), rel=1e-5)
    assert close(gradient(loss, logits)[0], g['class_grad'])


def test_classification_loss_by_hand_for_one_class():
    logits, labels = torch.tensor([[0.], [math.log(3)]]), torch.tensor([[1.], [0.]])
    assert losses.classification_loss(logits,
                                      labels).item() == pytest.approx((math.log(2) + math.log(4)) /
                                                                      2)


def test_classification_loss_of_parts_adds_up():
    g = golden('losses.npz')
    counts = losses.image_counts(g['class_labels'])
    assert counts.tolist() == [2]
    parts = [losses.classification_loss(g['class_logits'][i:i + 1], g['class_labels'][i:i + 1],
                                        counts) for i in (0, 1)]
    assert sum(parts).item() == pytest.approx(g['class_loss'].item(), rel=1e-5)


def test_classification_loss_of_two_processes(two_processes):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 4, generator=generator), torch.randint(0, 2, (5, 4),
                                                                           generator=generator)
    whole = F.multilabel_soft_margin_loss(logits, labels.float())
    two_processes(3)
    first = losses.classification_loss(logits[:2], labels[:2])
    two_processes(2)
    second = losses.classification_loss(logits[2:], labels[2:])
    assert ((first + second) / 2).item() == pytest.approx(whole.item(), rel=1e-6)


# Per-pixel loss

def plain_per_pixel(logits, label_map, eps):
    """The loss from its definition, by a target for every pixel; a half without pixels is left out.
    """
    n_classes = logits.shape[1] - 1
    probability = F.log_softmax(logits, 1).permute(0, 2, 3, 1)
    halves = []
    for mask in (label_map == 0, (label_map > 0) & (label_map < 255)):
        if mask.any():
            one_hot = F.one_hot(label_map[mask], n_classes + 1).to(logits.dtype)
            target = one_hot * (1 - eps) + (1 - one_hot) * eps / n_classes
            halves.append(-(target * probability[mask]).sum(1).mean())
    return sum(halves) / len(halves)


@pytest.mark.golden
def test_per_pixel_loss_and_gradient_are_the_authors():
    g = golden('losses.npz')
    logits = g['logits'].requires_grad_()
    loss = losses.per_pixel_classification_loss(logits, g['labels'], g['eps'].item())
    assert loss.item() == pytest.approx(g['per_pixel_loss'].item(), rel=1e-5)
    assert close(gradient(loss, logits)[0], g['per_pixel_grad'])


@pytest.mark.parametrize('n_classes', [1, 5, 20, 80])
@pytest.mark.parametrize('eps', [0., 0.4])
def test_per_pixel_loss_for_any_number_of_classes(n_classes, eps):
    generator = torch.Generator().manual_seed(n_classes)
    logits = torch.randn(2, n_classes + 1, 6, 7, generator=generator, dtype=torch.float64,
                         requires_grad=True)
    label_map = torch.randint(0, n_classes + 1, (2, 6, 7), generator=generator)
    label_map[torch.rand(2, 6, 7, generator=generator) < 0.2] = 255
    loss = losses.per_pixel_classification_loss(logits, label_map, eps)
    expected = plain_per_pixel(logits, label_map, eps)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert close(gradient(loss, logits)[0], gradient(expected, logits)[0], 1e-12)


@pytest.mark.parametrize('eps', [0., 0.4])
def test_per_pixel_loss_without_balance_is_the_mean_over_labelled_pixels(eps):
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    label_map = torch.randint(0, 4, (2, 6, 7), generator=generator)
    label_map[torch.rand(2, 6, 7, generator=generator) < 0.2] = 255
    loss = losses.per_pixel_classification_loss(logits, label_map, eps, balanced=False)
    log_probability = F.log_softmax(logits, 1).permute(0, 2, 3, 1)[label_map < 255]
    one_hot = F.one_hot(label_map[label_map < 255], 4).double()
    expected = -((one_hot * (1 - eps) + (1 - one_hot) * eps / 3) * log_probability).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss.item() != pytest.approx(plain_per_pixel(logits, label_map, eps).item(), rel=1e-3)
    nothing = losses.per_pixel_classification_loss(logits, torch.full((2, 6, 7), 255), eps,
                                                   balanced=False)
    assert nothing.item() == 0


@pytest.mark.parametrize('labels, counts',
                         [([0, 255], [15, 0]), ([3, 255], [0, 15]), ([3, 1], [0, 30])])
def test_an_empty_half_leaves_the_other_alone(labels, counts):
    logits = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    label_map = torch.tensor(labels)[:, None, None].expand(2, 3, 5)
    assert losses.labelled_pixels(label_map).tolist() == counts
    loss = losses.per_pixel_classification_loss(logits, label_map, 0.4)
    expected = plain_per_pixel(logits, label_map, 0.4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert close(gradient(loss, logits)[0], gradient(expected, logits)[0], 1e-6)


def test_nothing_labelled_is_zero_with_a_graph():
    logits = torch.randn(2, 6, 3, 5, requires_grad=True)
    label_map = torch.full((2, 3, 5), 255)
    assert losses.labelled_pixels(label_map).tolist() == [0, 0]
    loss = losses.per_pixel_classification_loss(logits, label_map, 0.4)
    assert loss.item() == 0
    assert torch.equal(gradient(loss, logits)[0], torch.zeros_like(logits))


def test_per_pixel_loss_of_parts_adds_up_where_a_part_has_no_background():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 5, 4, 4, generator=generator, requires_grad=True)
    label_map = torch.randint(1, 5, (3, 4, 4), generator=generator)
    label_map[0, :2] = 0
    label_map[2] = 255  # and one has nothing at all
    whole = losses.per_pixel_classification_loss(logits, label_map, 0.4)
    counts = sum(losses.labelled_pixels(label_map[i:i + 1]) for i in range(3))
    assert counts.tolist() == [8, 24]
    parts = [losses.per_pixel_classification_loss(logits[i:i + 1], label_map[i:i + 1], 0.4, counts)
             for i in range(3)]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)
    assert close(gradient(sum(parts), logits)[0], gradient(whole, logits)[0], 1e-6)


def test_per_pixel_loss_of_two_processes_one_without_background(two_processes):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 5, 4, 4, generator=generator, requires_grad=True)
    label_map = torch.randint(1, 5, (2, 4, 4), generator=generator)
    label_map[0, 0] = 0
    whole = losses.per_pixel_classification_loss(logits, label_map, 0.4)
    counts = [losses.labelled_pixels(label_map[i:i + 1]) for i in (0, 1)]
    shares = []
    for i in (0, 1):
        two_processes(counts[1 - i])
        shares.append(losses.per_pixel_classification_loss(logits[i:i + 1], label_map[i:i + 1],
                                                           0.4))
    mean = sum(shares) / 2  # what DistributedDataParallel makes of the gradients
    assert mean.item() == pytest.approx(whole.item(), rel=1e-6)
    assert close(gradient(mean, logits)[0], gradient(whole, logits)[0], 1e-6)


# IRN

def irn_example():
    g = golden('pairs_r10.npz')
    label_map = g['segmentation'].long().expand(2, -1, -1)
    return g, g['edge'].requires_grad_(), g['displacement'].requires_grad_(), label_map


def plain_affinity_losses(edge, displacement, label_map, radius):
    """The four parts from their definition, pair by pair."""
    terms = {name: [] for name in ('bg', 'fg', 'neg', 'disp_fg', 'disp_bg')}
    n, h, w = label_map.shape
    for i in range(n):
        for row in range(h - radius + 1):
            for column in range(radius - 1, w - radius + 1):
                for dy, dx in indexing.offsets(radius):
                    a, b = label_map[i, row, column].item(), label_map[i, row + dy,
                                                                       column + dx].item()
                    if 255 in (a, b):
                        continue
                    edges = torch.stack([edge[i, 0, row + y, column + x]
                                         for y, x in indexing.pair_path(dy, dx)])
                    affinity = 1 - edges.max()
                    moved = displacement[i, :, row,
                                         column] - displacement[i, :, row + dy, column + dx]
                    if a != b:
                        terms['neg'].append(-torch.log(1 + 1e-5 - affinity))
                    else:
                        name = 'fg' if a else 'bg'
                        terms[name].append(-torch.log(affinity + 1e-5))
                        target = moved.new_tensor([dy, dx]) if a else 0
                        terms[f'disp_{name}'].append((moved - target).abs().sum())
    mean = {name: sum(term) / (len(term) + 1e-5) for name, term in terms.items()
            if not name.startswith('disp')}
    disp = {name: sum(terms[name]) / (2 * len(terms[name]) + 1e-5)
            for name in ('disp_fg', 'disp_bg')}
    return torch.stack([(mean['bg'] + mean['fg']) / 2, mean['neg'], disp['disp_fg'],
                        disp['disp_bg']])


@pytest.mark.golden
def test_irn_losses_are_the_authors():
    g, edge, displacement, label_map = irn_example()
    parts = losses.affinity_losses(edge, displacement, label_map)
    assert parts.tolist() == pytest.approx(g['losses'].tolist(), rel=1e-5)
    assert losses.irn_loss(parts).item() == pytest.approx(g['total'].item(), rel=1e-5)


def test_pair_counts_are_the_authors():
    g, _, _, label_map = irn_example()
    expected = [2 * g[name].item() for name in ('bg_sum', 'fg_sum', 'neg_sum')]
    assert losses.pair_counts(label_map).tolist() == expected


def test_irn_losses_and_gradients_equal_the_plain_ones():
    generator = torch.Generator().manual_seed(4)
    edge = torch.rand(2, 1, 6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    displacement = torch.randn(2, 2, 6, 8, generator=generator, dtype=torch.float64,
                               requires_grad=True)
    label_map = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (2, 6, 8), generator=generator)]
    parts = losses.affinity_losses(edge, displacement, label_map, radius=3)
    expected = plain_affinity_losses(edge, displacement, label_map, radius=3)
    assert parts.tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    # each part's gradient, not the total's only
    weights = torch.tensor([1., 2., 3., 4.], dtype=torch.float64)
    for ours, theirs in zip(gradient(parts @ weights, edge, displacement),
                            gradient(expected @ weights, edge, displacement), strict=True):
        assert close(ours, theirs, 1e-12)


@pytest.mark.parametrize('label, positive, foreground, background',
                         [(255, 0, 0, 0), (0, 1 / 2, 0, 1), (7, 1 / 2, 1, 0)])
@pytest.mark.parametrize('edge_value', [0., 0.5, 1.])
def test_a_label_map_of_one_value(label, positive, foreground, background, edge_value):
    edge = torch.full((1, 1, 12, 20), edge_value, requires_grad=True)
    displacement = torch.zeros(1, 2, 12, 20, requires_grad=True)
    parts = losses.affinity_losses(edge, displacement, torch.full((1, 12, 20), label), radius=5)
    # of both channels
    mean_offset = sum(abs(dy) + abs(dx) for dy, dx in indexing.offsets(5)) / 34 / 2
    expected = [positive * -math.log(1 - edge_value + 1e-5), 0, foreground * mean_offset, 0]
    assert parts.tolist() == pytest.approx(expected, rel=1e-5, abs=2e-5)
    for grad in gradient(losses.irn_loss(parts), edge, displacement):
        assert torch.isfinite(grad).all()
        assert label != 255 or not grad.any()
    # both channels differ by -dx between the ends of a pair
    ramp = torch.arange(20.).expand(1, 2, 12, 20)
    parts = losses.affinity_losses(edge, ramp, torch.full((1, 12, 20), label), radius=5)
    mean_dx = sum(abs(dx) for _, dx in indexing.offsets(5)) / 34
    assert parts[3].item() == pytest.approx(background * mean_dx, rel=1e-5)


def test_irn_losses_of_a_map_without_pairs_are_zero_with_a_graph():
    edge, displacement = torch.rand(1, 1, 6, 6,
                                    requires_grad=True), torch.rand(1, 2, 6, 6, requires_grad=True)
    parts = losses.affinity_losses(edge, displacement, torch.zeros(1, 6, 6, dtype=torch.int64))
    assert parts.tolist() == [0, 0, 0, 0]
    assert not any(grad.any() for grad in gradient(losses.irn_loss(parts), edge, displacement))


def test_irn_losses_of_parts_add_up_where_a_part_has_no_background():
    _, edge, displacement, label_map = irn_example()
    label_map = label_map.clone()
    label_map[1][label_map[1] == 0] = 255
    whole = losses.affinity_losses(edge, displacement, label_map)
    counts = losses.pair_counts(label_map)
    parts = [losses.affinity_losses(edge[i:i + 1], displacement[i:i + 1], label_map[i:i + 1],
                                    counts=counts)
             for i in (0, 1)]
    assert parts[1][3] == 0
    assert sum(parts).tolist() == pytest.approx(whole.tolist(), rel=1e-5)
    summed = gradient(losses.irn_loss(sum(parts)), edge, displacement)
    for ours, theirs in zip(summed, gradient(losses.irn_loss(whole), edge, displacement),
                            strict=True):
        assert close(ours, theirs)


def test_irn_losses_of_two_processes(two_processes):
    _, edge, displacement, label_map = irn_example()
    label_map = label_map.clone()
    label_map[1][label_map[1] != 0] = 255  # nothing but background in the second
    whole = losses.affinity_losses(edge, displacement, label_map)
    counts = [losses.pair_counts(label_map[i:i + 1]) for i in (0, 1)]
    shares = []
    for i in (0, 1):
        two_processes(counts[1 - i])
        shares.append(losses.affinity_losses(edge[i:i + 1], displacement[i:i + 1],
                                             label_map[i:i + 1]))
    mean = sum(shares) / 2
    assert mean.tolist() == pytest.approx(whole.tolist(), rel=1e-5)
    for ours, theirs in zip(gradient(losses.irn_loss(mean), edge, displacement),
                            gradient(losses.irn_loss(whole), edge, displacement), strict=True):
        assert close(ours, theirs)


def test_losses_are_computed_in_float32_under_autocast():
    g, edge, displacement, label_map = irn_example()
    h = golden('losses.npz')
    logits = h['logits'].bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        parts = losses.affinity_losses(edge, displacement, label_map)
        per_pixel = losses.per_pixel_classification_loss(logits, h['labels'], 0.4)
        multi_label = losses.classification_loss(h['class_logits'], h['class_labels'])
    assert parts.dtype == per_pixel.dtype == multi_label.dtype == torch.float32
    assert parts.tolist() == pytest.approx(g['losses'].tolist(), rel=1e-5)
    assert per_pixel.item() == losses.per_pixel_classification_loss(logits.float(), h['labels'],
                                                                    0.4).item()
    assert multi_label.item() == pytest.approx(h['class_loss'].item(), rel=1e-5)
