"""Outlines as points with normals: what is held against the edges of an image."""

from typing import NamedTuple

import numpy as np
import shapely

EVERY_PX = 2.0
SHORT_PX = 1e-6


class Outline(NamedTuple):
    """Points (n, 2) on an outline, unit normals (n, 2) of either sign, the length each stands for (n,)."""

    xy: np.ndarray
    normal: np.ndarray
    length: np.ndarray


def along(starts: np.ndarray, ends: np.ndarray, every: float = EVERY_PX) -> Outline:
    """Points on straight pieces from `starts` to `ends` (m, 2), about `every` apart, at least one a piece."""
    run = ends - starts
    length = np.hypot(run[:, 0], run[:, 1])
    keep = length > SHORT_PX
    starts, run, length = starts[keep], run[keep], length[keep]
    count = np.maximum(np.rint(length / every).astype(int), 1)
    piece = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    share = (number + 0.5) / count[piece]
    normal = np.stack([run[:, 1], -run[:, 0]], 1) / length[:, None]
    return Outline(
        starts[piece] + run[piece] * share[:, None],
        normal[piece],
        length[piece] / count[piece],
    )


def outline_of(shape: shapely.Geometry, every: float = EVERY_PX) -> Outline:
    """The outline of a polygon, holes and parts too, in its own units."""
    rings = shapely.get_rings(shapely.get_parts(shape))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    return along(xy[:-1][same], xy[1:][same], every)


def sides_of(
    line: np.ndarray, vertex: int, width: float, far: float, every: float = EVERY_PX
) -> Outline:
    """Both rims of a road of a width by one vertex of its line (n, 2), no further than `far` along it."""
    pieces = []
    for step in (-1, 1):
        k, left = vertex, far
        while 0 <= k + step < len(line) and left > 0:
            a, b = line[k], line[k + step]
            length = float(np.hypot(*(b - a)))
            if length > SHORT_PX:
                pieces.append((a, a + (b - a) * min(1.0, left / length)))
            left -= length
            k += step
    if not pieces:
        return Outline(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    starts, ends = (np.array(one) for one in zip(*pieces, strict=True))
    middle = along(starts, ends, every)
    rims = [middle.xy + side * width / 2 * middle.normal for side in (-1, 1)]
    return Outline(np.concatenate(rims), np.tile(middle.normal, (2, 1)), np.tile(middle.length, 2))
