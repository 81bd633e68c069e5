"""A split that a table itself says, row by row: it is not known of other ground."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.geo.grid import Grid


@dataclass(frozen=True)
class Listed:
    """Folds of rows by a column's value; `count` of them."""

    column: str
    count: int
    grids_only = True

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Nothing but its own rows has a fold."""
        raise GeomlError(f"the rows were dealt by column {self.column}: other ground has no fold")

    def areas(self, ground: shapely.Geometry) -> list[tuple[int, shapely.Geometry]]:
        """No ground but the rows' own."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"kind": "listed", "column": self.column, "count": self.count}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Listed":
        """Read what `to_dict` gave."""
        return cls(plain["column"], plain["count"])
