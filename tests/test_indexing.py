import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from misc import indexing

GOLDEN = Path(__file__).parent / 'golden'


def golden(name):
    return dict(np.load(GOLDEN / name))


def unpack(bits, shape):
    return torch.from_numpy(np.unpackbits(bits)[:np.prod(shape)].reshape(shape).astype(bool))


def flat_positions(h, w):
    return torch.arange(h * w).view(h, w)


@pytest.mark.parametrize('radius', [5, 10])
def test_offsets_sources_and_destinations_are_the_authors(radius):
    g = golden(f'path_index_r{radius}.npz')
    assert [list(offset) for offset in indexing.offsets(radius)] == g['search_dst'].tolist()
    of_each = [len(indexing.pair_path(*offset)) for offset in indexing.offsets(radius)]
    lengths, counts = np.unique(of_each, return_counts=True)
    assert lengths.tolist() == g['lengths'].tolist()
    assert counts.tolist() == g['counts'].tolist()
    positions = flat_positions(*g['size'])
    assert indexing.shifted(positions, radius).flatten().tolist() == g['src'].tolist()
    ends = [indexing.shifted(positions, radius, offset).flatten()
            for offset in indexing.offsets(radius)]
    assert np.array_equal(torch.stack(ends).numpy(), g['dst'])


def test_paths_are_the_authors_in_their_order():
    g = golden('path_index_r5.npz')
    positions = flat_positions(*g['size'])
    paths = iter(indexing.offsets(5))
    taken = 0
    for length, count in zip(g['lengths'], g['counts'], strict=True):
        size = count * length * g['src'].size
        expected = g['paths_flat'][taken:taken + size].reshape(count, length, -1)
        taken += size
        for one in expected:
            path = indexing.pair_path(*next(paths))
            assert np.array_equal(torch.stack([indexing.shifted(positions, 5, step).flatten()
                                               for step in path]), one)
    assert taken == g['paths_flat'].size


def test_path_by_hand():
    assert indexing.pair_path(0, 2) == ((0, 2), (0, 1), (0, 0))
    assert indexing.pair_path(2, 2) == ((2, 2), (1, 2), (2, 1), (1, 1), (0, 1), (1, 0), (0, 0))
    assert indexing.offsets(2) == ((0, 1), (1, 0), (1, -1), (1, 1))


def test_pair_labels_are_the_authors():
    g = golden('pairs_r10.npz')
    label_map = torch.from_numpy(g['segmentation'])[None]
    for mask, name in zip(indexing.pair_labels(label_map, 10), ('bg', 'fg', 'neg'), strict=True):
        assert torch.equal(mask[0], unpack(g[name], g['label_shape']))
        assert mask.sum() == g[f'{name}_sum']


def test_pair_labels_by_hand():
    # Radius 2 on one row of sources: rows 0..0, columns 1..2 of a 2 x 4 map.
    label_map = torch.tensor([[[9, 0, 3, 3], [0, 255, 3, 9]]])
    # offsets (0,1) (1,0) (1,-1) (1,1)
    background, foreground, negative = indexing.pair_labels(label_map, 2)
    assert background[0].int().tolist() == [[0, 0], [0, 0], [1, 0], [0, 0]]
    assert foreground[0].int().tolist() == [[0, 1], [0, 1], [0, 0], [0, 0]]
    assert negative[0].int().tolist() == [[1, 0], [0, 0], [0, 0], [1, 1]]


def test_ignored_equal_ends_are_no_pair():
    assert not any(mask.any() for mask in indexing.pair_labels(torch.full((1, 12, 20), 255), 5))


@pytest.mark.golden
def test_affinities_and_displacements_are_the_authors():
    g = golden('pairs_r10.npz')
    affinity = 1 - indexing.largest_on_paths(torch.from_numpy(g['edge']), 10)[0]
    assert affinity.shape == (2, 152, 322)
    assert np.allclose(affinity[0, :4], g['affinity_first'], rtol=0, atol=1e-6)
    assert affinity.double().sum().item() == pytest.approx(float(g['affinity_sum']), rel=1e-6)
    displacement = indexing.pair_displacements(torch.from_numpy(g['displacement']), 10)
    assert displacement.shape == (2, 2, 152, 322)
    assert np.allclose(displacement[0, :, :4], g['pair_displacement_first'], rtol=0, atol=1e-6)


def test_a_part_of_the_offsets_is_that_part_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    edge = torch.rand(2, 1, 7, 11, generator=generator)
    field = torch.randn(2, 2, 7, 11, generator=generator)
    label_map = torch.randint(0, 3, (2, 7, 11), generator=generator)
    part = slice(5, 9)
    for found, whole in zip(indexing.largest_on_paths(edge, 4, part),
                            indexing.largest_on_paths(edge, 4), strict=True):
        assert torch.equal(found, whole[:, part])
    assert torch.equal(indexing.pair_displacements(field, 4, part),
                       indexing.pair_displacements(field, 4)[:, :, part])
    whole = indexing.pair_labels(label_map, 4)
    for mask, all_of_it in zip(indexing.pair_labels(label_map, 4, part), whole, strict=True):
        assert torch.equal(mask, all_of_it[:, part])


def test_the_largest_on_a_path_and_where_it_is():
    """Of equal edges it is the first on the path."""
    generator = torch.Generator().manual_seed(1)
    edge = torch.randint(0, 4, (2, 1, 8, 13), generator=generator) / 4
    largest, winner = indexing.largest_on_paths(edge, 4)
    place = indexing.places_on_paths(winner, 4, (8, 13))
    positions = flat_positions(8, 13)
    for number, offset in enumerate(indexing.offsets(4)):
        path = [indexing.shifted(positions, 4, step).flatten()
                for step in indexing.pair_path(*offset)]
        edges = edge.flatten(1)[:, torch.stack(path)].numpy()
        first = edges.argmax(1)
        assert np.array_equal(largest[:, number], edges.max(1))
        assert np.array_equal(winner[:, number], first)
        assert np.array_equal(place[:, number],
                              np.take_along_axis(torch.stack(path).numpy(), first, 0))


@pytest.mark.parametrize('size', [(1, 1), (9, 40), (40, 18), (3, 3)])
def test_maps_too_small_for_a_source_have_no_pairs(size):
    found = indexing.largest_on_paths(torch.rand(2, 1, *size), 10)
    assert [each.shape for each in found] == [(2, 152, 0)] * 2
    assert indexing.places_on_paths(found[1], 10, size).shape == (2, 152, 0)
    assert indexing.pair_displacements(torch.rand(2, 2, *size), 10).shape == (2, 2, 152, 0)
    assert indexing.pair_labels(torch.zeros(2, *size), 10)[0].shape == (2, 152, 0)


def dense_walk(x, edge, radius, beta, exp_times):
    """The walk from its definition: a full matrix, its columns normalised, squared."""
    k, h, w = x.shape
    matrix = np.eye(h * w)
    for source in np.ndindex(h, w):
        for dy, dx in indexing.offsets(radius):
            if source[0] + dy < h and 0 <= source[1] + dx < w:
                affinity = 1 - max(edge[source[0] + y, source[1] + x]
                                   for y, x in indexing.pair_path(dy, dx))
                i, j = source[0] * w + source[1], (source[0] + dy) * w + source[1] + dx
                matrix[i, j] = matrix[j, i] = affinity ** beta
    matrix /= matrix.sum(axis=0)
    for _ in range(exp_times):
        matrix = matrix @ matrix
    return ((x * (1 - edge)).reshape(k, -1) @ matrix).reshape(k, 1, h, w)


@pytest.mark.golden
@pytest.mark.parametrize('name', ['small', 'wide'])
def test_walk_is_the_authors(name):
    g = golden(f'random_walk_{name}.npz')
    x, edge = torch.from_numpy(g['x']), torch.from_numpy(g['edge'])
    largest = g['out_float64'].max()
    walked = indexing.propagate_to_edge(x, edge)
    assert walked.dtype == torch.float64
    assert np.abs(walked.numpy() - g['out_float64']).max() < 1e-9 * largest
    walked = indexing.propagate_to_edge(x.float(), edge.float())
    assert walked.dtype == torch.float32
    # walked in float64 all the same
    assert np.abs(walked.numpy() - g['out_float64']).max() < 1e-6 * largest
    assert np.abs(walked.numpy() - g['out_float32']).max() < 1e-4 * largest


@pytest.mark.parametrize('size', [(1, 1), (2, 60), (60, 2), (1, 7), (3, 3), (4, 5), (5, 4), (8, 8),
                                  (11, 7)])
@pytest.mark.parametrize('settings', [(5, 10, 8), (3, 2.5, 0), (2, 1, 3), (7, 4, 2)])
def test_walk_equals_the_dense_one(size, settings):
    generator = np.random.default_rng(size)
    x, edge = generator.random((2, *size)), generator.random((1, *size)) ** 2
    edge[0, 0, -1] = 1  # a wall that nothing crosses
    expected = dense_walk(x, edge[0], *settings)
    walked = indexing.propagate_to_edge(torch.from_numpy(x), torch.from_numpy(edge),
                                        *settings).numpy()
    assert walked.shape == (2, 1, *size)
    assert np.abs(walked - expected).max() <= 1e-9 * expected.max()
    walked = indexing.propagate_to_edge(torch.from_numpy(x).float(), torch.from_numpy(edge).float(),
                                        *settings).numpy()
    # the input is rounded, the walk is not
    assert np.abs(walked - expected).max() <= 1e-5 * expected.max()


def test_walk_does_not_depend_on_the_other_planes_and_takes_none():
    generator = torch.Generator().manual_seed(2)
    x, edge = torch.rand(3, 20, 14, generator=generator), torch.rand(1, 20, 14, generator=generator)
    walked = indexing.propagate_to_edge(x, edge)
    assert torch.allclose(indexing.propagate_to_edge(x[1:2], edge), walked[1:2], rtol=1e-6, atol=0)
    assert indexing.propagate_to_edge(x[:0], edge).shape == (0, 1, 20, 14)
    assert indexing.propagate_to_edge(x[:0], edge, exp_times=0).dtype == torch.float32


def test_walk_between_walls_stays_where_it_is():
    x = torch.tensor([[[1., 0., 0., 0., 2.]]])
    edge = torch.tensor([[[0., 0., 1., 0., 0.]]])
    # two positions on either side of a wall share what there was
    walked = indexing.propagate_to_edge(x, edge)
    assert walked[0, 0, 0].tolist() == pytest.approx([0.5, 0.5, 0, 1, 1])


def test_walk_is_the_same_with_any_number_of_threads():
    # More than 32,768 positions: torch gives smaller maps to a single thread anyway. In float64, as
    # it is walked.
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(2, 201, 203, generator=generator, dtype=torch.float64)
    edge = torch.rand(1, 201, 203, generator=generator, dtype=torch.float64) ** 3
    # of a dozen tried, those that torch's pow rounds otherwise where a thread's share ends
    powers = [1.1, 2.5]
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            walks = [indexing.propagate_to_edge(x, edge, exp_times=2)]
            walks += [indexing.propagate_to_edge(x, edge, radius=2, beta=beta, exp_times=0)
                      for beta in powers]
            results.append(torch.stack(walks))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


def test_walk_takes_half_precision_and_warns_of_nothing():
    generator = torch.Generator().manual_seed(4)
    x, edge = torch.rand(1, 9, 9, generator=generator), torch.rand(1, 9, 9, generator=generator)
    torch.set_warn_always(True)  # else only the first sparse tensor of the process could warn
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            walked = indexing.propagate_to_edge(x.half(), edge.bfloat16())
    finally:
        torch.set_warn_always(False)
    assert walked.dtype == torch.float32
    assert torch.equal(walked,
                       indexing.propagate_to_edge(x.half().float(), edge.bfloat16().float()))


def test_planes_that_fall_too_low_are_given_up():
    """A single position spreads out and falls; a plane of 1 stays 1, without edges."""
    x = torch.zeros(4, 12, 15)
    x[0, 6, 7], x[1], x[2, 3, 3] = 1, 1, 0.9
    walk = indexing.RandomWalk(torch.zeros(1, 12, 15), exp_times=4)
    whole = walk(x)
    assert torch.equal(whole, indexing.propagate_to_edge(x, torch.zeros(1, 12, 15), exp_times=4))
    fallen = walk(x, least=0.1)
    assert whole.amax((1, 2, 3)).tolist() == pytest.approx([0.0077, 1, 0.0067, 0], abs=1e-4)
    assert torch.allclose(fallen[1], whole[1])
    assert not fallen[[0, 2, 3]].any()
    assert torch.equal(walk(x[:1], least=2.0), torch.zeros(1, 1, 12, 15))
