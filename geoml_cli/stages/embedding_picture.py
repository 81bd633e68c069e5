"""Embeddings as colour: their first three principal components as red, green and blue."""

from typing import Any

import numpy as np
import shapely

from geoml_cli.core.reduction import fit
from geoml_cli.formats.embeddings import open_embeddings

ENDS = (2, 98)  # percentiles that become dark and bright
MOST = 200_000  # rows that are drawn, evenly taken


def colors_of(z: np.ndarray) -> np.ndarray:
    """Colours (n, 3), 0 to 1, of vectors (n, D); a component that is not there is grey."""
    z = z.astype(np.float32)
    count = min(3, z.shape[1], len(z) - 1)
    out = np.full((len(z), 3), 0.5)
    if count < 1:
        return out
    parts = fit("pca", count, [z], 0)(z)
    low, high = np.percentile(parts, ENDS, axis=0)
    out[:, :count] = np.clip((parts - low) / np.where(high > low, high - low, 1), 0, 1)
    return out


def colored(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Image (h, w, 4) uint8 of embeddings (D, h, w), clear where not seen (h, w)."""
    image = np.zeros((*seen.shape, 4), np.uint8)
    if seen.sum() > 1:
        image[seen, :3] = (colors_of(values[:, seen].T) * 255).round()
        image[seen, 3] = 255
    return image


def rows_figure(path: str) -> Any:
    """A matplotlib Figure of rows where they lie: polygons filled, points as dots."""
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    opened = open_embeddings(path)
    table, z = opened.table(), opened.vectors()
    at = np.unique(np.linspace(0, len(z) - 1, min(len(z), MOST)).round().astype(int))
    shapes, paint = table.geometry.to_numpy()[at], colors_of(z)[at]
    known = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    shapes, paint = shapes[known], paint[known]
    figure = Figure(figsize=(8, 7), dpi=110, layout="constrained")
    axes = figure.subplots()
    patches, inside, dots = [], [], []
    for i, shape in enumerate(shapes):
        if shapely.get_dimensions(shape) < 2:
            dots.append(i)
            continue
        for part in shapely.get_parts(shape):
            rings = [part.exterior, *part.interiors]
            outline = Outline.make_compound_path(
                *(Outline(np.asarray(r.coords)[:, :2], closed=True) for r in rings)
            )
            patches.append(PathPatch(outline))
            inside.append(i)
    if patches:
        axes.add_collection(PatchCollection(patches, facecolors=paint[inside], edgecolors="none"))
    if dots:
        middles = np.array([shapely.point_on_surface(shapes[i]).coords[0][:2] for i in dots])
        axes.scatter(
            middles[:, 0],
            middles[:, 1],
            c=paint[dots],
            s=max(4, min(40, 20_000 / len(dots))),
            linewidths=0,
        )
    west, south, east, north = shapely.total_bounds(shapes) if len(shapes) else (0, 0, 1, 1)
    pad = 0.02 * max(east - west, north - south, 1e-6)
    axes.set(xlim=(west - pad, east + pad), ylim=(south - pad, north + pad))
    axes.set_aspect(1 / max(0.05, float(np.cos(np.radians((south + north) / 2)))))
    axes.set_title(
        f"{len(z)} embeddings of {z.shape[1]} dimensions: first three components", fontsize=9
    )
    axes.tick_params(labelsize=7)
    axes.ticklabel_format(useOffset=False)
    return figure
