"""Where windows lie: each block of the map is computed in a window on the lattice of the network.

Networks with a finite field get a halo round each block, and windows start on multiples of the
stride from the raster's pixel 0, 0: a block's outputs are those of the whole image in one pass,
to float noise, whatever the windows are. Networks that see their whole window get windows that
overlap and are blended by weights that add up to 1. Both hold along each axis by itself.

The map may be finer or coarser than the pixels that the network is given: `ratio` is the number
of the network's pixels along one of the map's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geoml_cli.geo.grid import Window

USUAL = 512  # px of a block, where the halo is small
MOST = 2048  # px of a block that is chosen here
EXTRA = 1.3  # pixels computed for each that is wanted, if windows that large are to be had
FADE = 0.08  # of a window: the overlap that keeps to EXTRA
SNUG = 1e-9


@dataclass(frozen=True)
class Axis:
    """Blocks and windows along one axis.

    Window k covers the network's pixels firsts[k] .. firsts[k] + size, block k the map's pixels
    edges[k] .. edges[k + 1]. With `fade` > 1 window k counts from nothing, at its first pixel, to
    all, at pixel fade - 1, by a raised cosine, and the window before it for what is left.
    """

    ratio: float
    size: int
    firsts: tuple[int, ...]
    edges: tuple[int, ...]
    fade: int = 0

    @property
    def length(self) -> int:
        """Pixels of the map."""
        return self.edges[-1]

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.firsts)

    def stop(self, k: int) -> int:
        """End of the map's pixels that window k counts for: those of its block and of the next one's strip."""
        if not self.fade or k + 1 == self.count:
            return self.edges[k + 1]
        end = self.firsts[k + 1] + self.fade - 1
        return max(self.edges[k + 1], min(self.length, self._first_at(end)))

    @cached_property
    def strip(self) -> int:
        """The map's pixels that windows reach into the next block, at most."""
        return max(self.stop(k) - self.edges[k + 1] for k in range(self.count))

    @cached_property
    def block(self) -> int:
        """The map's pixels of the largest block."""
        return max(b - a for a, b in zip(self.edges, self.edges[1:], strict=False))

    def _first_at(self, place: float) -> int:
        """First of the map's pixels whose centre lies at or beyond a place, in the network's pixels."""
        return int(np.ceil((place + 0.5) / self.ratio - 0.5 - SNUG))

    def _centres(self, start: int, stop: int) -> np.ndarray:
        """Centres of the map's pixels, in the network's pixels: its pixel 0 has its centre at 0."""
        return (np.arange(start, stop) + 0.5) * self.ratio - 0.5

    def lead(self, k: int) -> np.ndarray:
        """How much window k counts for on the first pixels of block k, as far as the one before it counts."""
        start = self.edges[k]
        stop = self.stop(k - 1) if k else start
        t = (self._centres(start, stop) - self.firsts[k]) / max(self.fade - 1, 1)
        return (0.5 * (1 - np.cos(np.pi * np.clip(t, 0, 1)))).astype(np.float32)

    def weights(self, k: int) -> np.ndarray:
        """How much window k counts for on the map's pixels edges[k] .. stop(k)."""
        out = np.ones(self.stop(k) - self.edges[k], np.float32)
        lead = self.lead(k)
        out[: len(lead)] = lead
        if k + 1 < self.count:
            after = 1 - self.lead(k + 1)
            out[self.edges[k + 1] - self.edges[k] :] = after
        return out

    def taken(self, k: int) -> slice | np.ndarray:
        """What of window k makes the map's pixels edges[k] .. stop(k): a slice, or weights (n, size).

        Weights interpolate where the map is finer, and average what lies beneath where it is
        coarser; they add up to 1, and a pixel's do not depend on k.
        """
        start, stop = self.edges[k], self.stop(k)
        if self.ratio == 1:
            return slice(start - self.firsts[k], stop - self.firsts[k])
        at = self._centres(start, stop)
        out = np.zeros((stop - start, self.size), np.float64)
        rows = np.arange(stop - start)
        if self.ratio < 1:
            low = np.floor(at)
            for place, share in ((low, low + 1 - at), (low + 1, at - low)):
                np.add.at(out, (rows, self._inside(place, k)), share)
        else:
            half = self.ratio / 2
            for step in range(int(np.ceil(self.ratio)) + 1):
                place = np.floor(at - half + 0.5) + step
                share = np.minimum(place + 0.5, at + half) - np.maximum(place - 0.5, at - half)
                np.add.at(out, (rows, self._inside(place, k)), np.maximum(share, 0) / self.ratio)
        return out.astype(np.float32)

    def _inside(self, place: np.ndarray, k: int) -> np.ndarray:
        """Positions in window k; beyond its ends the last."""
        return np.clip(place.astype(int) - self.firsts[k], 0, self.size - 1)


def finite(length: int, ratio: float, halo: int, stride: int, window: int | None) -> Axis:
    """An axis for a network whose outputs depend on `halo` pixels round them.

    Blocks have `window` pixels of the network's at most; None chooses.
    """
    work = int(np.ceil(length * ratio - SNUG))
    most = chosen(work, halo, stride) if window is None else window
    block = min(_up(most, stride), _up(work, stride))
    if ratio == 1:
        firsts = range(-_up(halo, stride), work - _up(halo, stride), block)
        edges = (*range(0, length, block), length)
        return Axis(1, block + 2 * _up(halo, stride), tuple(firsts), edges)
    step = max(1, int(block / ratio))
    edges = (*range(0, length, step), length)
    spans = []
    for a, b in zip(edges, edges[1:], strict=False):
        low = int(np.floor(a * ratio)) - 1 - halo
        high = int(np.ceil(b * ratio)) + 1 + halo
        spans.append((low // stride * stride, high))
    size = _up(max(high - low for low, high in spans), stride)
    return Axis(ratio, size, tuple(low for low, _ in spans), edges)


def chosen(length: int, halo: int, stride: int) -> int:
    """Block of an axis such that few pixels are computed twice, and windows stay small."""
    usual = int(np.clip(2 * halo / (EXTRA**0.5 - 1), USUAL, MOST))
    first = max(1, -(-length // (2 * usual)))
    counts = range(first, max(first, -(-length // usual)) + 1)
    cost = {n: n * (_up(-(-length // n), stride) + 2 * _up(halo, stride)) for n in counts}
    fits = [n for n in counts if -(-length // n) <= 2 * usual] or [counts[-1]]
    block = -(-length // min(fits, key=lambda n: (cost[n], -n)))
    return _up(block, stride)


def fading(length: int, ratio: float, window: int, overlap: int) -> Axis:
    """An axis for a network that sees its whole window: windows overlap and fade into each other.

    What fits into one window is one.
    """
    work = int(np.ceil(length * ratio - SNUG))
    if work <= window:
        return Axis(ratio, window, (0,), (0, length))
    step, last = window - overlap, (length - 0.5) * ratio - 0.5
    firsts = tuple(range(1 - overlap, int(np.floor(last)) + 1, step))
    bare = Axis(ratio, window, firsts, (0, length), overlap)
    inner = [bare._first_at(first) for first in firsts[1:]]
    return Axis(ratio, window, firsts, (0, *inner, length), overlap)


def tiles(length: int, size: int) -> Axis:
    """An axis for labels a tile: one pixel of the map for each `size` of the network's."""
    count = -(-length // size)
    return Axis(size, size, tuple(range(0, count * size, size)), tuple(range(count + 1)))


def _up(n: int, stride: int) -> int:
    return -(-n // stride) * stride


@dataclass(frozen=True)
class Lattice:
    """Blocks of a map, row by row, and the window that each is computed in.

    With `step` > 1 the axes are of patches of as many pixels: the map holds one value for each.
    """

    rows: Axis
    cols: Axis
    per_tile: bool = False
    step: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.rows.length, self.cols.length

    @property
    def fades(self) -> bool:
        """Whether windows are blended."""
        return self.rows.count * self.cols.count > 1 and bool(self.rows.fade or self.cols.fade)

    @cached_property
    def blocks(self) -> list[Window]:
        """Blocks in pixels of the map."""
        return [self._span(i, self.rows.edges, self.cols.edges) for i in range(len(self))]

    def __len__(self) -> int:
        return self.rows.count * self.cols.count

    def place(self, i: int) -> tuple[int, int]:
        """Row and column of block i among blocks."""
        return divmod(i, self.cols.count)

    def _span(self, i: int, rows: Sequence[int], cols: Sequence[int]) -> Window:
        r, c = self.place(i)
        return Window(rows[r], cols[c], rows[r + 1] - rows[r], cols[c + 1] - cols[c])

    def reach(self, i: int) -> Window:
        """The map's pixels that window i counts for: its block, and where windows fade strips beyond it."""
        r, c = self.place(i)
        top, left = self.rows.edges[r], self.cols.edges[c]
        return Window(top, left, self.rows.stop(r) - top, self.cols.stop(c) - left)

    def window(self, i: int) -> Window:
        """Window i in the network's pixels; all have one shape, also those that stick out."""
        (r, c), step = self.place(i), self.step
        at = (self.rows.firsts[r], self.cols.firsts[c], self.rows.size, self.cols.size)
        return Window(*(n * step for n in at))

    @property
    def computed(self) -> float:
        """Pixels computed for each of the network's pixels that the map needs."""
        asked = self.rows.size * self.cols.size * len(self)
        return asked / (self.shape[0] * self.rows.ratio * self.shape[1] * self.cols.ratio)


def lay(
    shape: tuple[int, int],
    ratio: float,
    *,
    halo: int | None,
    stride: int,
    blend: tuple[int, int] | None,
    window: int | None = None,
) -> Lattice:
    """Lay windows for a map of (height, width) px; `blend` is window and overlap where there is no halo."""
    if halo is not None:
        rows, cols = (finite(n, ratio, halo, stride, window) for n in shape)
        return Lattice(rows, cols)
    assert blend is not None
    size, overlap = blend
    if window is not None and _up(window, stride) != size:
        size = _up(window, stride)
        overlap = max(2, round(size * blend[1] / blend[0]))
    rows, cols = (fading(n, ratio, size, overlap) for n in shape)
    return Lattice(rows, cols)


def patches(
    shape: tuple[int, int],
    step: int,
    *,
    halo: int | None,
    stride: int,
    window: int,
    given: bool,
) -> Lattice:
    """Lay windows for a map of one value for each `step` x `step` of (height, width) px.

    `stride` is that of the coarsest map of the network, `window` the side, px, of those that fade into each
    other where there is no halo; with `given` also that of blocks where there is one.
    """
    sizes = [-(-n // step) for n in shape]
    if halo is None:
        side = max(_up(window, stride) // step, 1)
        overlap = min(max(3, round(2 * FADE * side)), side - 1)
        rows, cols = (fading(n, 1, side, overlap) for n in sizes)
        return Lattice(rows, cols, step=step)
    across, around = max(stride // step, 1), -(-halo // step)
    blocks = [window if given else chosen(n, halo, stride) for n in shape]
    rows, cols = (
        finite(n, 1, around, across, max(block // step, 1))
        for n, block in zip(sizes, blocks, strict=True)
    )
    return Lattice(rows, cols, step=step)


def mirror(start: int, count: int, length: int, symmetric: bool = False) -> np.ndarray:
    """Indices (count,) into 0..length-1 of positions start, start+1, ..., mirrored at both rims.

    The rim's own pixel is not repeated (-1 -> 1), or is if `symmetric` (-1 -> 0); any distance
    beyond the rim works.
    """
    at = np.arange(start, start + count)
    if symmetric:
        at = at % (2 * length)
        return np.minimum(at, 2 * length - 1 - at)
    period = max(2 * (length - 1), 1)
    at = at % period
    return np.minimum(at, period - at) if length > 1 else np.zeros(count, int)
