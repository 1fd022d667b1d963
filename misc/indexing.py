"""Pairs of positions and the paths between them: affinities, and the random walk (IRN, 4 and 5).

A pair is a source and the position an offset (dy, dx) away from it. Its path is every position that
the line between both ends touches, and its affinity 1 - the largest edge on the path. Nothing here
keeps indices for each pair: for one position (y, x) of a path, the positions of all sources are one
shifted view of the map.

Shapes: h w are the map's (stride 4); P the offsets of a radius (152 for 10, 34 for 5) or of the
  `part` of them that was asked for; S the sources, row by row.
"""
import functools
import itertools
import warnings

import torch
from torch.nn import functional as F

from misc import torchutils
from misc.files.label_maps import IGNORE

LOOK_EVERY = 4  # steps of the walk, for planes that may be given up
GATHERED = 2 ** 20  # edges on paths that the walk's weights are computed from at a time


@functools.lru_cache
def pair_path(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    """Return the path of a pair with offset (dy, dx), dy >= 0, both ends included.

    Positions (y, x) are counted from the source: those of the box between both ends that lie less
    than 1 from the line. The far end comes first: of equal edges it is the first on the path that
    is trained (authors' code).
    """
    box = [(y, x) for y in range(dy + 1) for x in range(min(dx, 0), max(dx, 0) + 1)]
    touched = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy ** 2 + dx ** 2]
    return tuple(sorted(touched, key=lambda position: -abs(position[0]) - abs(position[1])))


@functools.lru_cache
def offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Return the offsets (dy, dx) shorter than `radius` that point right or down.

    So each pair of positions is counted once. Ordered by the number of positions on the path, then
    dy, then dx (authors' code).
    """
    half_plane = [(0, dx) for dx in range(1, radius)]
    half_plane += [(dy, dx) for dy in range(1, radius) for dx in range(1 - radius, radius)]
    near = [(dy, dx) for dy, dx in half_plane if dy ** 2 + dx ** 2 < radius ** 2]
    return tuple(sorted(near, key=lambda offset: (len(pair_path(*offset)), offset)))


@functools.lru_cache
def offset_tensor(radius: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return `offsets(radius)` as (P, 2) on `device`. Kept, to be copied there once."""
    return torchutils.to_device(torch.tensor(offsets(radius), dtype=dtype), device)


@functools.lru_cache
def _path_places(radius: int, device: torch.device) -> torch.Tensor:
    """Where the positions of every path lie in `neighbourhoods`: int64 (2, P, longest path), rows
    before columns. Shorter paths are filled up with their last position, the source. Kept, as
    `offset_tensor` is.
    """
    paths = [pair_path(*offset) for offset in offsets(radius)]
    longest = max(map(len, paths))
    places = torch.tensor([(*path, *[(0, 0)] * (longest - len(path))) for path in paths])
    return torchutils.to_device((places + torch.tensor([0, radius - 1])).permute(2, 0, 1), device)


@functools.lru_cache
def _path_jumps(radius: int, width: int, device: torch.device) -> torch.Tensor:
    """y * width + x of the positions of `_path_places`: int64 (P, longest path)."""
    y, x = _path_places(radius, device)
    return y * width + x - (radius - 1)


@functools.lru_cache
def _source_places(radius: int, h: int, w: int, device: torch.device) -> torch.Tensor:
    """y * w + x of every source: int64 (S,)."""
    return shifted(torch.arange(h * w, device=device).view(h, w), radius).flatten()


def shifted(x: torch.Tensor, radius: int, position: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Return the values that lie `position` = (y, x) away from every source, as a view.

    x: (..., h, w).
    Returns (..., h - radius + 1, w - 2 * radius + 2).
    Sources are the positions whose whole neighbourhood lies on the map: rows 0..h-radius, columns
    radius-1..w-radius. Empty where the map is too small to have a source.
    """
    rows, columns = max(x.shape[-2] - radius + 1, 0), max(x.shape[-1] - 2 * radius + 2, 0)
    top, left = position[0], radius - 1 + position[1]
    return x[..., top:top + rows, left:left + columns]


def neighbourhoods(x: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the values around every source, as a view.

    x: (..., h, w).
    Returns (..., radius, 2 * radius - 1, h - radius + 1, w - 2 * radius + 2): at [..., y, radius -
    1 + x, :, :] lies `shifted(x, radius, (y, x))`.
    """
    size, strides = shifted(x, radius).shape, x.stride()
    return x.as_strided((*size[:-2], radius, 2 * radius - 1, *size[-2:]),
                        (*strides[:-2], *strides[-2:], *strides[-2:]))


def _destinations(x: torch.Tensor, radius: int, part: slice) -> torch.Tensor:
    """(..., h, w) -> (..., P, rows, columns): the value at the far end of every pair, which is the
    first of its path.
    """
    y, x_ = _path_places(radius, x.device)[:, part, 0]
    return neighbourhoods(x, radius)[..., y, x_, :, :]


def largest_on_paths(edge: torch.Tensor, radius: int,
                     part: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the largest edge on the path of every pair: 1 - it is the pair's affinity.

    edge: (N, 1, h, w) after the sigmoid.
    part: which of `offsets(radius)`.
    Returns it, (N, P, S), and which position of its path has it, uint8: of equal edges the first.
    """
    longest = len(pair_path(*offsets(radius)[part][-1]))  # they are ordered by that
    y, x = _path_places(radius, edge.device)[:, part, :longest]
    edges = neighbourhoods(edge[:, 0], radius)[:, y, x].flatten(3)  # (N, P, longest, S)
    if not edges.numel():
        return edges[:, :, 0], edges[:, :, 0].byte()
    # As a pooling of S channels, last in memory: on the CPU a fifth of the time of torch.max.
    channels_last = edges.flatten(0, 1).unsqueeze(2).permute(0, 3, 1, 2)
    largest, winner = F.max_pool2d(channels_last, (longest, 1), return_indices=True)
    return largest.reshape(edges[:, :, 0].shape), winner.reshape(edges[:, :, 0].shape).byte()


def places_on_paths(winner: torch.Tensor, radius: int, hw: tuple[int, int],
                    part: slice = slice(None)) -> torch.Tensor:
    """Return where on the map a position of every path is.

    winner: (N, P, S), as `largest_on_paths` has it.
    Returns y * w + x, int64 (N, P, S).
    """
    jumps = _path_jumps(radius, hw[1], winner.device)[part].expand(len(winner), -1, -1)
    return jumps.gather(2, winner.long()).add_(_source_places(radius, *hw, winner.device))


def pair_labels(label_map: torch.Tensor, radius: int,
                part: slice = slice(None)) -> tuple[torch.Tensor, ...]:
    """Tell which pairs are background (both 0), foreground (equal, not 0) and negative (different).

    label_map: (N, h, w) of integers 0..255.
    Returns three bool tensors (N, P, S); a pair with an end 255 is in none.
    """
    label_map = label_map.to(torch.uint8)  # an eighth of int64's memory
    source = shifted(label_map, radius).unsqueeze(1)
    destination = _destinations(label_map, radius, part)
    labelled = torch.maximum(source, destination) != IGNORE
    equal = (source == destination) & labelled
    foreground = equal & (source != 0)
    # of those that are labelled, or equal, what is left
    background, negative = equal ^ foreground, labelled ^ equal
    return background.flatten(2), foreground.flatten(2), negative.flatten(2)


def pair_displacements(displacement: torch.Tensor, radius: int,
                       part: slice = slice(None)) -> torch.Tensor:
    """Return the displacement at the source - that at the far end, of every pair.

    displacement: (N, 2, h, w).
    Returns (N, 2, P, S).
    """
    destination = _destinations(displacement, radius, part)
    return (shifted(displacement, radius).unsqueeze(2) - destination).flatten(3)


def propagate_to_edge(x: torch.Tensor, edge: torch.Tensor, radius: int = 5, beta: float = 10,
                      exp_times: int = 8) -> torch.Tensor:
    """Walk 2 ** exp_times random steps from `x` without crossing edges (IRN, section 5).

    x: (K, h, w) activations.
    edge: (1, h, w) after the sigmoid.
    Returns (K, 1, h, w), float64 where one of them is, else float32.
    x is first multiplied by (1 - edge); then each step multiplies it by the transition matrix.
    """
    return RandomWalk(edge, radius, beta, exp_times)(x)


class RandomWalk:
    """The walk of `propagate_to_edge` along the edges of one image, for several sets of planes.

    The transition matrix holds 69 numbers a position (radius 5) and is never made dense nor
    squared, so memory is that and a few copies of the planes. The result does not depend on the
    number of threads.
    """

    @torch.no_grad()
    def __init__(self, edge: torch.Tensor, radius: int = 5, beta: float = 10, exp_times: int = 8):
        self.dtype, self.frame, self.steps = edge.dtype, radius - 1, 2 ** exp_times
        # Always in float64: it takes the same time, and in float32 the rounding of 256 steps adds
        # up to 1e-4 of the result.
        self.edge = edge.double()
        self.transitions = _transitions(self.edge[0], radius, beta)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, least: float = 0.0) -> torch.Tensor:
        """Walk from some planes.

        x: (K, h, w), not below 0 where `least` is given.
        Returns (K, 1, h, w).
        A plane that falls to `least` or below everywhere is given up, and is 0: each step takes
        weighted means, so it would not rise again.
        """
        dtype = functools.reduce(torch.promote_types, (x.dtype, self.dtype, torch.float32))
        k, h, w = x.shape
        if k == 0:
            return x.to(dtype).unsqueeze(1)
        frame = self.frame
        walked = F.pad(x.double() * (1 - self.edge), (frame,) * 4).view(k, -1).t().contiguous()
        kept = torch.arange(k, device=x.device) if least > 0 else None
        for step in range(self.steps):
            if kept is not None and step % LOOK_EVERY == 0:
                high = walked.amax(0) > least
                if not high.all():
                    walked, kept = walked[:, high], kept[high]
            walked = self.transitions @ walked
        result = walked.t()
        if kept is not None:
            result = walked.new_zeros(k, len(walked)).index_copy_(0, kept, result)
        result = result.view(k, 1, h + 2 * frame, w + 2 * frame)
        return result[..., frame:frame + h, frame:frame + w].to(
            dtype, memory_format=torch.contiguous_format, copy=True)


def _transitions(edge: torch.Tensor, radius: int, beta: float) -> torch.Tensor:
    """The transposed transition matrix as a sparse CSR matrix, to be multiplied with columns.

    edge: (h, w). The map stands in a frame of radius - 1 zeros, and rows and columns count the
    positions of both, so that every position of the map has the same neighbours and a step into the
    frame weighs 0; its rows are empty.
    """
    h, w = edge.shape
    weights, moves = _move_weights(edge, radius, beta)
    # the matrix is symmetric before: a column's sum is the row's
    weights /= weights.sum(dim=2, keepdim=True)
    frame, width = radius - 1, w + 2 * (radius - 1)
    positions = (h + 2 * frame) * width
    rows = torch.zeros(positions + 1, dtype=torch.int32, device=edge.device)
    rows[1:].view(-1, width)[frame:frame + h, frame:frame + w] = len(moves)
    rows = rows.cumsum(0, dtype=torch.int32)
    on_map = torch.arange(positions, dtype=torch.int32, device=edge.device).view(-1, width)
    on_map = on_map[frame:frame + h, frame:frame + w].reshape(-1, 1)
    down, right = _moves(radius, edge.device)
    jumps = down * width + right
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Sparse CSR tensor support is in beta state',
                                category=UserWarning)
        return torch.sparse_csr_tensor(rows, (on_map + jumps).flatten(), weights.flatten(),
                                       size=(positions,) * 2, check_invariants=False)


def _moves_of(radius: int) -> list[tuple[int, int]]:
    """The steps (dy, dx) of the walk, its staying included, in the order of the positions that they
    lead to.
    """
    ahead = sorted(offsets(radius))
    return [(-dy, -dx) for dy, dx in reversed(ahead)] + [(0, 0)] + ahead


@functools.lru_cache
def _moves(radius: int, device: torch.device) -> torch.Tensor:
    """`_moves_of` as int32 (2, steps) on `device`. Kept, as `offset_tensor` is."""
    return torchutils.to_device(torch.tensor(_moves_of(radius), dtype=torch.int32).t(), device)


@functools.lru_cache
def _by_length(radius: int) -> tuple[tuple[int, int, int], ...]:
    """Which of `offsets` have paths of one number of positions, from and to, and that number."""
    lengths = [len(pair_path(*offset)) for offset in offsets(radius)]
    starts = [number for number, length in enumerate(lengths) if lengths.index(length) == number]
    return tuple((first, last, lengths[first])
                 for first, last in itertools.pairwise([*starts, len(lengths)]))


@functools.lru_cache
def _move_places(radius: int, device: torch.device) -> torch.Tensor:
    """Plane, row and column of `ahead` in `_move_weights` where the weights of each of `_moves_of`
    begin: int64 (3, steps). Kept, as `offset_tensor` is.
    """
    frame, planes = radius - 1, {offset: n for n, offset in enumerate(offsets(radius))}
    # the weight of a step back is that of the step ahead from where it leads to
    places = [(planes[-dy, -dx], frame + dy, frame + dx) if (-dy, -dx) in planes else
              (planes.get((dy, dx), len(planes)), frame, frame) for dy, dx in _moves_of(radius)]
    return torchutils.to_device(torch.tensor(places).t(), device)


def _move_weights(edge: torch.Tensor, radius: int,
                  beta: float) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """affinity ** beta of every position with its neighbours: (h, w) -> (h, w, steps), and the
    steps, row by row.

    0 where the neighbour is not on the map, 1 for the position itself.
    """
    h, w = edge.shape
    frame = radius - 1
    # (1 - largest edge) ** beta is the smallest (1 - edge) ** beta. In parts that torch gives to
    # one thread each: how pow rounds depends on where a thread's share ends.
    passing = torch.cat([part.pow(beta) for part in (1 - edge).flatten().split(2 ** 14)]).view(h, w)
    # 0 around the map, so far that a pair may also end on it and start above or beside it
    around = neighbourhoods(F.pad(passing, (2 * frame, 2 * frame, frame, frame)), radius)
    ahead = edge.new_ones(len(offsets(radius)) + 1, *around.shape[2:])  # the last: of staying
    for first, last, length in _by_length(radius):
        at_once = max(1, GATHERED // (length * ahead[0].numel()))
        for start in range(first, last, at_once):
            part = slice(start, min(start + at_once, last))
            y, x = _path_places(radius, edge.device)[:, part, :length]
            torch.amin(around[y, x], 1, out=ahead[part])
    plane, y, x = _move_places(radius, edge.device)
    weights = neighbourhoods(ahead, radius)[plane, y, x]
    return weights.flatten(1).t().contiguous().view(h, w, -1), _moves_of(radius)
