"""Patches of a label raster as polygons that share their edges, in pixel coordinates."""

from collections.abc import Iterator

import numpy as np
import shapely

Ragged = tuple[np.ndarray, np.ndarray, np.ndarray]


def junctions(labels: np.ndarray) -> np.ndarray:
    """Pixel corners (n, 2), x and y, where patches of a label raster (H, W) end or cross on another's edge.

    Those with three or more labels round them, or with two that meet crosswise; beyond the raster is label 0.
    """
    grown = np.pad(labels, 1)
    a, b, c, d = grown[:-1, :-1], grown[:-1, 1:], grown[1:, :-1], grown[1:, 1:]
    straight = ((a == b) & (c == d)) | ((a == c) & (b == d))
    whole = (a == b).astype(np.int8) + (b == d) + (d == c) + (c == a)
    bend = whole == 2  # one corner differs: every ring there has a vertex
    y, x = np.nonzero(~straight & ~bend)
    return np.stack([x, y], axis=1)


def noded(polygons: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Polygons with axis-aligned edges given a vertex at every node (n, 2) that lies on an edge of theirs."""
    if not len(polygons) or not len(nodes):
        return polygons
    kind, coords, offsets = shapely.to_ragged_array(polygons)
    rings = np.asarray(offsets[0])
    start, stop = coords[:-1].astype(np.int64), coords[1:].astype(np.int64)
    begins = np.zeros(len(coords), bool)
    begins[rings[1:-1]] = True  # a segment that ends where a ring begins is none
    real = ~begins[1:]
    count, first, back = (np.zeros(len(start), np.int64) for _ in range(3))
    wide = int(max(coords.max(), nodes.max())) + 2
    orders = []
    for along in (0, 1):  # edges that run along x, then along y
        across = 1 - along
        order = np.lexsort((nodes[:, along], nodes[:, across]))
        keys = nodes[order, across] * wide + nodes[order, along]
        mine = real & (start[:, across] == stop[:, across]) & (start[:, along] != stop[:, along])
        low = np.minimum(start[mine, along], stop[mine, along]) + start[mine, across] * wide
        high = np.maximum(start[mine, along], stop[mine, along]) + start[mine, across] * wide
        a, b = np.searchsorted(keys, low, "right"), np.searchsorted(keys, high, "left")
        count[mine], first[mine] = b - a, a + len(nodes) * along
        back[mine] = start[mine, along] > stop[mine, along]
        orders.append(nodes[order])
    every = np.concatenate(orders)
    places = np.concatenate([[0], np.cumsum(count + 1)])  # of each old vertex among the new
    out = np.empty((places[-1] + 1, 2), np.float64)
    out[places] = coords
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    turned = np.repeat(back.astype(bool), count)
    pick = np.repeat(first, count) + np.where(turned, np.repeat(count, count) - 1 - step, step)
    out[np.repeat(places[:-1], count) + 1 + step] = every[pick]
    ends = np.append(places, len(out))[rings]
    ends[-1] = len(out)
    return np.asarray(shapely.from_ragged_array(kind, out, (ends, *offsets[1:])))


def parts(polygons: np.ndarray) -> Iterator[tuple[int, shapely.Polygon]]:
    """Valid polygons without holes of no area: (position, polygon) of each piece of those given."""
    good = shapely.is_valid(polygons)
    for i, polygon in enumerate(polygons):
        if good[i]:
            yield i, polygon
            continue
        for piece in shapely.get_parts(shapely.make_valid(polygon)):
            if isinstance(piece, shapely.Polygon) and piece.area > 0:
                yield i, piece
