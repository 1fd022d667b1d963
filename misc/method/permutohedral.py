"""Gaussian filters on permutohedral lattices, and the mean field that they serve.

Adams, Baek and Davis, Eurographics 2010. Compiled by numba. The arg max is pydensecrf's (Potts,
symmetric normalisation). Label 0 is left out of the work: with z_k = log(Q_k / Q_0), an iteration
is z_k = u_0 - u_k + the sum over the terms of filter(Q_k - Q_0), for the K other labels.

What looks like a detail (two planes spelt out, loads before stores, blocks) is speed:
script/benchmark.py, case refine.
"""
import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.core import event

HALF, ONE, LOG2 = np.float32(0.5), np.float32(1), np.float32(math.log(2))
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads keys over a table (Knuth)
BLOCK = 128  # pixels at a time, so that what is known of them stays in the cache


def _compiled(function: Callable, **options: Any) -> Callable:
    """njit, kept in __pycache__ or, where that cannot be written, in the user's cache; where
    neither can, not kept.
    """
    try:
        return njit(cache=True, error_model='numpy', **options)(function)
    except RuntimeError:  # numba's word for: no folder to write to
        return njit(error_model='numpy', **options)(function)


# products and sums in one rounding where the CPU can
_fused = functools.partial(_compiled, fastmath={'contract'})


def cache_folder() -> str | None:
    """Return where compiled code is kept; None where no folder can be written."""
    return mean_field.stats.cache_path


@contextlib.contextmanager
def compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` before the first compilation in this block, not where all is in the cache."""
    class Teller(event.Listener):
        has_told = False

        def on_start(self, event: event.Event) -> None:
            if not self.has_told:
                self.has_told = True
                tell()

        def on_end(self, event: event.Event) -> None:
            pass

    with event.install_listener('numba:compile', Teller()):
        yield


class Lattice(NamedTuple):
    """A gaussian filter of N pixels with d features, through M lattice points.

    vertices: uint32 (N, d+1), the points around each pixel.
    weights: float32 (N, d+1), by which it gives to them and takes from them.
    neighbours: for each of d+1 directions uint32 (M+1, 2), the points before and after each point.
    Point 0 stands for none and holds 0.
    """

    vertices: np.ndarray
    weights: np.ndarray
    neighbours: tuple[np.ndarray, ...]  # a tuple, so that d is known when a function is compiled


@functools.lru_cache(maxsize=8)  # most photographs have one of few sizes; 5 MB each
def gaussian(height: int, width: int, sxy: float, compat: float) -> Lattice:
    """Build the lattice of positions alone."""
    return lattice(positions(height, width, sxy), compat)


def positions(height: int, width: int, sxy: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of each pixel, in standard deviations, (H*W,) each."""
    x, y = (np.arange(size, dtype=np.float32) / np.float32(sxy) for size in (width, height))
    return np.tile(x, height), np.repeat(y, width)


def lattice(features: tuple[np.ndarray, ...], compat: float) -> Lattice:
    """Build compat * filter, normalised on both sides: by the root of what it makes of ones.

    features: d of float32 (N,), for which `fits` holds.
    """
    vertices, weights, neighbours = _build(features, 64 // len(features))
    built = Lattice(vertices, weights, tuple(neighbours))
    _normalise(built, compat)
    return built


def fits(largest: Sequence[float]) -> bool:
    """Tell whether d features have coordinates that fit a key, of 64 // d bits each.

    largest: (d,), each feature is from 0 to this.
    """
    d = len(largest)
    spans = [value * (d + 1) * math.sqrt(2 / 3 / axis / (axis + 1))
             for axis, value in enumerate(largest, 1)]
    reach = max(sum(spans), *(axis * span for axis, span in enumerate(spans, 1)))
    return reach + 2 * (d + 1) < 1 << 64 // d - 1  # rounding, and the neighbours of the last points


@_compiled
def _build(features, bits):
    """Vertices, weights and neighbours. A point's key is its first d coordinates, each in `bits`
    bits.
    """
    d, n = len(features), len(features[0])
    vertices, weights = np.empty((n, d + 1), np.uint32), np.empty((n, d + 1), np.float32)
    # from a key to the next in each direction: d along an axis, -1 along all others
    increments = np.empty(d + 1, np.int64)
    increments[d] = 0
    for axis in range(d):
        increments[d] -= np.int64(1) << bits * axis
    for axis in range(d):
        increments[axis] = increments[d] + (np.int64(d + 1) << bits * axis)

    corner, rank, offset = np.empty(BLOCK,
                                    np.int64), np.empty((BLOCK, d + 1), np.int32), np.empty(
                                        (BLOCK, d + 1), np.float32)
    axis_of, offset_of = np.empty(d + 1, np.int64), np.empty(d + 2, np.float32)  # of each rank
    table, keys, size = np.zeros(1 << 16, np.uint32), np.empty(1 << 15, np.int64), 0
    for start in range(0, n, BLOCK):
        stop = min(n, start + BLOCK)
        _locate(features, bits, start, stop, corner, rank, offset)
        for i in range(stop - start):
            for axis in range(d + 1):
                axis_of[rank[i, axis]] = axis
                offset_of[rank[i, axis]] = offset[i, axis]
            offset_of[d + 1] = offset_of[0] - ONE
            key = corner[i]
            for vertex in range(d + 1):
                slot = _slot(table, keys, key)
                if table[slot] == 0:
                    size += 1
                    table[slot], keys[size] = size, key
                vertices[start + i, vertex] = table[slot]
                weights[start + i, vertex] = offset_of[d - vertex] - offset_of[d - vertex + 1]
                key -= increments[axis_of[d - vertex]]
            if size + d + 2 > len(keys):
                table, keys = _grown(keys, size)

    neighbours = np.zeros((d + 1, size + 1, 2), np.uint32)
    for axis in range(d + 1):
        for point in range(1, size + 1):
            after = table[_slot(table, keys, keys[point] + increments[axis])]
            neighbours[axis, point, 1] = after
            neighbours[axis, after, 0] = point
        neighbours[axis, 0, 0] = 0
    return vertices, weights, neighbours


@_compiled
def _locate(features, bits, start, stop, corner, rank, offset):
    """The simplex of each pixel in start..stop: its corner whose coordinates are multiples of d+1,
    as a key; along each of d+1 axes the offset from that corner, in multiples of d+1, and the rank
    of the offset, 0 for the largest.
    """
    d, n = len(features), stop - start
    # of splat, blur and slice together
    whole, deviation = np.float32(d + 1), np.float32(math.sqrt(2 / 3) * (d + 1))
    elevated, nearest = np.empty((d + 1, BLOCK), np.float32), np.empty((d + 1, BLOCK), np.float32)
    above, total, excess = np.empty((d + 1, BLOCK),
                                    np.int32), np.zeros(BLOCK,
                                                        np.float32), np.zeros(BLOCK, np.int32)
    for axis in range(d, 0, -1):  # onto the plane in d+1 dimensions where coordinates add up to 0
        feature, scale = features[axis - 1], np.float32(1 / math.sqrt(axis * (axis + 1)) *
                                                        deviation)
        for i in range(n):
            scaled = feature[start + i] * scale
            elevated[axis, i] = total[i] - np.float32(axis) * scaled
            total[i] += scaled
    elevated[0] = total
    for axis in range(d + 1):  # the nearest multiples of d+1, which may not add up to 0
        for i in range(n):
            multiple = np.rint(elevated[axis, i] * (ONE / whole))
            excess[i] += np.int32(multiple)
            nearest[axis, i] = multiple * whole
            elevated[axis, i] -= nearest[axis, i]
    for axis in range(d + 1):
        above[axis] = excess
    for axis in range(d):
        for other in range(axis + 1, d + 1):
            for i in range(n):
                smaller = np.int32(elevated[axis, i] < elevated[other, i])
                above[axis, i] += smaller
                above[other, i] += np.int32(1) - smaller
    corner[:] = 0
    # as many as are in excess go to the next multiple, those first that are farthest from theirs
    for axis in range(d + 1):
        for i in range(n):
            turn = np.int32(above[axis, i] < 0) - np.int32(above[axis, i] > d)
            rank[i, axis] = above[axis, i] + turn * np.int32(d + 1)
            offset[i, axis] = (elevated[axis, i] - np.float32(turn) * whole) * (ONE / whole)
            if axis < d:
                corner[i] += np.int64(nearest[axis, i] + np.float32(turn) * whole) << bits * axis


@_compiled
def _slot(table, keys, key):
    """Where the table holds the point that has the key; where there is none, where to enter it: the
    table holds 0 there.
    """
    slot = (np.uint64(key) * GOLDEN >> np.uint64(32)) * np.uint64(len(table)) >> np.uint64(32)
    while True:
        point = table[slot]
        if point == 0 or keys[point] == key:
            return slot
        slot = slot + np.uint64(1) & np.uint64(len(table) - 1)


@_compiled
def _grown(keys, size):
    """A table and keys of twice the room."""
    table, more = np.zeros(4 * len(keys), np.uint32), np.empty(2 * len(keys), np.int64)
    more[:size + 1] = keys[:size + 1]
    for point in range(1, size + 1):
        table[_slot(table, more, more[point])] = point
    return table, more


@_fused
def _normalise(lattice, compat):
    """Scale the weights, which until then are barycentric coordinates."""
    weights, ones = lattice.weights, np.ones((2, BLOCK), np.float32)
    values, other = np.zeros((2, len(lattice.neighbours[0]), 2), np.float32)
    for start in range(0, len(weights), BLOCK):
        _splat(lattice, start, ones, values)
    values, _ = _blur(lattice, values, other)
    for start in range(0, len(weights), BLOCK):
        norm = np.zeros((2, BLOCK), np.float32)
        _slice(lattice, start, values, norm)
        for i in range(min(BLOCK, len(weights) - start)):
            factor = np.float32(math.sqrt(compat / norm[0, i]))
            for vertex in range(len(lattice.neighbours)):
                weights[start + i, vertex] *= factor


@_fused
def mean_field(near, alike, log_odds, n_classes, iterations):
    """Return the arg max of each labeling after some iterations.

    log_odds: float32 (labelings * K, N).
    Returns int64 (labelings, N).
    One pair of planes after the other goes through the lattices, whose values so stay in the cache.
    """
    n_planes, n = log_odds.shape
    blocks, pairs = (n + BLOCK - 1) // BLOCK, (n_planes + 1) // 2
    z, labels = np.zeros((blocks, pairs, 2, BLOCK),
                         np.float32), np.empty((n_planes // n_classes, n), np.int64)
    near_values, near_other = np.empty((2, len(near.neighbours[0]), 2), np.float32)
    alike_values, alike_other = np.empty((2, len(alike.neighbours[0]), 2), np.float32)
    near_other[0], alike_other[0] = 0, 0
    for pair in range(pairs):
        for block in range(blocks):
            _restore(log_odds, block, pair, z)
    for _ in range(iterations):
        for block in range(blocks):
            _to_differences(z[block].reshape(2 * pairs, BLOCK), n_classes, n_planes)
        for pair in range(pairs):
            near_values[:], alike_values[:] = 0, 0
            for block in range(blocks):
                _splat(near, block * BLOCK, z[block, pair], near_values)
                _splat(alike, block * BLOCK, z[block, pair], alike_values)
            near_values, near_other = _blur(near, near_values, near_other)
            alike_values, alike_other = _blur(alike, alike_values, alike_other)
            for block in range(blocks):
                _restore(log_odds, block, pair, z)
                _slice(near, block * BLOCK, near_values, z[block, pair])
                _slice(alike, block * BLOCK, alike_values, z[block, pair])
    for block in range(blocks):
        start = block * BLOCK
        _arg_max(z[block].reshape(2 * pairs, BLOCK), n_classes, labels[:, start:start + BLOCK])
    return labels


@_fused
def _restore(log_odds, block, pair, z):
    """The pair's planes of z in a block are the unary log odds again; a plane to spare stays 0."""
    start, stop = block * BLOCK, min(log_odds.shape[1], (block + 1) * BLOCK)
    for plane in range(2 * pair, min(2 * pair + 2, len(log_odds))):
        z[block, pair, plane - 2 * pair, :stop - start] = log_odds[plane, start:stop]


@_fused
def _splat(lattice, start, z, values):
    """The pixels of the block at `start` give two planes to their vertices."""
    vertices, weights = lattice.vertices[start:start + BLOCK], lattice.weights[start:start + BLOCK]
    for i in range(len(vertices)):
        first, second = z[0, i], z[1, i]
        for vertex in range(len(lattice.neighbours)):
            point, weight = vertices[i, vertex], weights[i, vertex]
            to_first, to_second = values[point,
                                         0] + weight * first, values[point, 1] + weight * second
            values[point, 0], values[point, 1] = to_first, to_second


@_fused
def _slice(lattice, start, values, z):
    """The pixels of the block at `start` add to two planes what their vertices hold."""
    vertices, weights = lattice.vertices[start:start + BLOCK], lattice.weights[start:start + BLOCK]
    alpha = np.float32(1 / (1 + 2.0 ** (1 - len(lattice.neighbours))))
    for i in range(len(vertices)):
        first, second = np.float32(0), np.float32(0)
        for vertex in range(len(lattice.neighbours)):
            point, weight = vertices[i, vertex], weights[i, vertex]
            first += weight * values[point, 0]
            second += weight * values[point, 1]
        z[0, i] += alpha * first
        z[1, i] += alpha * second


@_fused
def _blur(lattice, values, other):
    """Add half of both neighbours, in one direction after the other. Returns the blurred values and
    the other array.
    """
    for neighbours in lattice.neighbours:
        for point in range(1, len(values)):
            before, after = neighbours[point, 0], neighbours[point, 1]
            first = values[point, 0] + HALF * (values[before, 0] + values[after, 0])
            second = values[point, 1] + HALF * (values[before, 1] + values[after, 1])
            other[point, 0], other[point, 1] = first, second
        values, other = other, values
    return values, other


@_fused
def _to_differences(z, n_classes, n_planes):
    """In place, of planes (labelings * K and one to spare, BLOCK): log(Q_k / Q_0) -> Q_k - Q_0."""
    top, zero, total = np.empty(
        BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for begin in range(0, n_planes, n_classes):
        top[:] = 0
        for k in range(begin, begin + n_classes):
            for i in range(BLOCK):
                top[i] = max(top[i], z[k, i])
        for i in range(BLOCK):
            zero[i] = _exp(-top[i])
        total[:] = zero
        for k in range(begin, begin + n_classes):
            for i in range(BLOCK):
                z[k, i] = _exp(z[k, i] - top[i])
            for i in range(BLOCK):
                total[i] += z[k, i]
        for k in range(begin, begin + n_classes):
            for i in range(BLOCK):
                z[k, i] = (z[k, i] - zero[i]) / total[i]


@_fused
def _exp(x):
    """e^x for x up to 0, to float32's precision; many at a time, which math.exp is not."""
    x = max(x, np.float32(-87))
    power = np.rint(x * (ONE / LOG2))
    rest, series = x - power * LOG2, ONE
    for factor in range(7, 0, -1):  # Taylor's, for at most log(2) / 2
        series = ONE + series * rest * np.float32(1 / factor)
    return series * np.int32(np.int32(power) + 127 << 23).view(np.float32)  # 2^power


@_compiled
def _arg_max(z, n_classes, labels):
    """log(Q_k / Q_0), planes (labelings * K, BLOCK) -> labels (labelings, up to BLOCK); the first
    wins a tie.
    """
    for labeling in range(len(labels)):
        for i in range(labels.shape[1]):
            best, label = np.float32(0), 0
            for k in range(n_classes):
                if z[labeling * n_classes + k, i] > best:
                    best, label = z[labeling * n_classes + k, i], k + 1
            labels[labeling, i] = label
