"""The ground that shaped a map's model: truth there flatters the map."""

from pathlib import Path

import geopandas
import numpy as np
import pyarrow

from geoml_cli.errors import GeomlError
from geoml_cli.geo.grid import LONLAT, Grid, Window
from geoml_cli.stages.shapes import Shapes, bring

SEEN = ("train", "val")  # validation ground chose the weights that were kept


class Ground:
    """Ground with the roles train and val of any member of the model, on one map's grid."""

    def __init__(self, path: Path, grid: Grid) -> None:
        try:
            table = geopandas.read_parquet(path)
            seen = table.geometry[table["role"].isin(SEEN)].to_numpy()
        except (ValueError, KeyError, OSError, pyarrow.ArrowException) as error:
            raise GeomlError(
                f"{path}: not readable as trained ground ({error}); make the maps again"
            ) from None
        self._shapes = Shapes(bring(seen, LONLAT, grid.crs), grid)

    def mask(self, window: Window) -> np.ndarray:
        """Pixels (h, w) whose centre lies on it."""
        near = self._shapes.near(window)
        return self._shapes.burn(window, near, [1] * len(near)) > 0
