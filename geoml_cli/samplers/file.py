"""One window centred on each feature of a file of points or other shapes."""

import logging

import numpy as np

from geoml_cli.errors import UsageMistake
from geoml_cli.geo.field import Field, Pick
from geoml_cli.geo.grid import Window

FILES = ("path",)
log = logging.getLogger("geoml")


def draw(field: Field, rng: np.random.Generator, *, path: str | None = None) -> list[Pick]:
    """Centre a window on each point of the file `path`, on the centroid of other shapes.

    Windows are moved inside the scene. A feature on several scenes gives a window on each, in
    the order of the file; features outside every scene are left out and counted. `rng` is not
    used.
    """
    if path is None:
        raise UsageMistake("file: which file? write --sampler file:path=points.gpkg")
    places = field.read_places(path)
    hit = np.zeros(len(places[0]) if places else 0, bool)
    picks: list[Pick] = []
    for place, points in enumerate(places):
        if not field.positions.fits[place]:
            continue
        grid = field.grids[place]
        known = np.flatnonzero(np.isfinite(points).all(axis=1))
        rows, cols = grid.rowcol(*points[known].T)
        inside = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
        hit[known[inside]] = True
        rows, cols = rows[inside], cols[inside]
        here = np.full(len(rows), place)
        _, rows, cols = field.positions.split(field.positions.around(here, rows, cols))
        picks += [
            Pick(place, Window(row, col, *field.size), None)
            for row, col in zip(rows.tolist(), cols.tolist(), strict=True)
        ]
    if not hit.all():
        log.warning(
            "%s: %d of %d features lie on no scene that holds a tile; left out",
            path,
            int((~hit).sum()),
            len(hit),
        )
    return picks
