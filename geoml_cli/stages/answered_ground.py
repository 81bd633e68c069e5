"""What ground some places lie on to a model: trained on, validated on, tested on, or none of its own."""

from pathlib import Path

import geopandas
import numpy as np
import shapely

from geoml_cli.formats.vectors import read_index
from geoml_cli.geo.cells import Cells
from geoml_cli.geo.grid import LONLAT, between
from geoml_cli.geo.splits import NONE, Lattice, Split
from geoml_cli.stages.sides import parts_for

NEAR_DEG = 1e-4  # places no further from ground, about ten metres, lie on it
ROLES = ("train", "val", "test")
NOBODYS = len(ROLES)
NO_MEMBER = 255


class Ground:
    """The ground of every member of a model, as its folder tells, and the split that dealt it."""

    def __init__(self, file: Path, split: Split | None, folds: int) -> None:
        table = read_index(file)
        self.members = int(table["member"].max()) + 1 if len(table) else 0
        self._table: geopandas.GeoDataFrame = table
        self._split, self._parts = split, parts_for(split is not None, folds)

    def roles(self, lonlat: np.ndarray) -> np.ndarray:
        """Position in ROLES (n, members) of places (n, 2), NOBODYS where a member knows nothing of them."""
        points = shapely.points(np.asarray(lonlat, np.float64))
        found = np.full((len(points), self.members), NOBODYS, np.uint8)
        for member, role, shape in zip(
            self._table["member"], self._table["role"], self._table.geometry, strict=True
        ):
            if role not in ROLES or shape is None:
                continue
            parts = shapely.STRtree(shapely.get_parts(shape))
            hit = np.unique(parts.query(points, predicate="dwithin", distance=NEAR_DEG)[0])
            # where ground of two roles meets, the one that trained most counts
            found[hit, member] = np.minimum(found[hit, member], ROLES.index(role))
        fold = folds_at(self._split, lonlat)
        if fold is None:
            return found
        exact = [
            np.where(fold == part.test, 2, np.where(fold == part.val, 1, 0))
            for part in self._parts[: self.members]
        ]
        return np.where(found == NOBODYS, NOBODYS, np.stack(exact, axis=1)).astype(np.uint8)

    def sides(self, lonlat: np.ndarray, out_of_fold: bool) -> tuple[np.ndarray, np.ndarray]:
        """For each place the word for its ground (None: nobody's), and the member that never saw it, or 255."""
        roles = self.roles(lonlat)
        tested = roles == ROLES.index("test")
        member = np.where(tested.any(axis=1), tested.argmax(axis=1), NO_MEMBER).astype(np.uint8)
        # an ensemble has seen what any of its members has
        words = np.array([*ROLES, None], object)[roles.min(axis=1, initial=NOBODYS)]
        if out_of_fold:
            words = np.where(member != NO_MEMBER, "test", words)
        return words, member


def folds_at(split: Split | None, lonlat: np.ndarray) -> np.ndarray | None:
    """Fold (n,) of places by a split that tells it of any place; None where it does not."""
    if isinstance(split, Lattice):
        return split.fold_at(*between(LONLAT, split.crs).transform(*lonlat.T))
    if isinstance(split, Cells):
        fold = split.fold_of(*split.cell_at(*lonlat.T))
        return np.where(np.isfinite(lonlat).all(axis=1), fold, NONE)
    return None
