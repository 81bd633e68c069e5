"""The area that labels hold in: polygons, or a raster of 0 and 1."""

import numpy as np
import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import Raster
from geoml_cli.formats.vectors import digest_vectors, read_vectors
from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import Grid, crs_name
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.labels_burn import Burn, Warp
from geoml_cli.stages.labels_features import Features
from geoml_cli.stages.labels_raster import is_raster, open_labels


class Area:
    """Ground inside of which labels hold: a layer of one class."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._raster: Raster | None = None
        if is_raster(path):
            self._raster, _ = open_labels(path, "classes")
            return
        table = read_vectors(path)
        shapes = table.geometry.to_numpy()
        if (shapely.get_dimensions(shapes) < 2).any():
            kinds = ", ".join(sorted(set(table.geometry.geom_type)))
            raise GeomlError(f"{path}: holds {kinds}; the area of labels is polygons")
        self._features = Features(path, shapes, crs_name(table.crs.to_wkt()))

    def digest(self) -> str:
        """Digest of the file's content."""
        return digest_source(self.path) if self._raster else digest_vectors(self.path)

    def on(self, grid: Grid) -> Burn | Warp:
        """What to burn on a grid: 0 inside, the ignore id elsewhere."""
        if self._raster:
            return Warp(self._raster, ids=((0, IGNORE),), rest=0)
        if not grid.placed:
            raise GeomlError(f"{self.path}: a picture without a CRS lies nowhere; give no area")
        shapes, _ = self._features.on(grid)
        shapes = shapes[shapely.get_dimensions(shapes) == 2]
        return Burn(
            kind="classes",
            per="pixel",
            all_touched=False,
            shapes=tuple(shapely.to_wkb(shapes).tolist()),
            ranks=np.zeros(len(shapes), np.int32),
            points=np.zeros((0, 2)),
            point_ranks=np.zeros(0, np.int32),
            values=np.zeros(1, np.uint8),
        )
