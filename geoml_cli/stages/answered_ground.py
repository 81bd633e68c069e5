"""What ground some places lie on to a model: trained on, validated on, tested on, or none of its own."""

from pathlib import Path

import geopandas
import numpy as np
import shapely

from geoml_cli.formats.vectors import read_index

NEAR_DEG = 1e-5  # places no further apart, about a metre, are one
ROLES = ("train", "val", "test")
NO_MEMBER = 255


class Ground:
    """The ground of every member of a model, as its folder tells."""

    def __init__(self, file: Path) -> None:
        table = read_index(file)
        self.members = int(table["member"].max()) + 1 if len(table) else 0
        self._table: geopandas.GeoDataFrame = table

    def roles(self, lonlat: np.ndarray) -> np.ndarray:
        """Position in ROLES (n, members) of places (n, 2), -1 where a member knows nothing of them."""
        points = shapely.points(np.asarray(lonlat, np.float64))
        found = np.full((len(points), self.members), -1, np.int8)
        for member, role, shape in zip(
            self._table["member"], self._table["role"], self._table.geometry, strict=True
        ):
            if role not in ROLES or shape is None:
                continue
            parts = shapely.STRtree(shapely.get_parts(shape))
            hit = np.unique(parts.query(points, predicate="dwithin", distance=NEAR_DEG)[0])
            # where ground of two roles meets, the one that trained most counts
            own = found[hit, member]
            order = ROLES.index(role)
            found[hit, member] = np.where((own < 0) | (own > order), order, own)
        return found

    def sides(self, lonlat: np.ndarray, out_of_fold: bool) -> tuple[np.ndarray, np.ndarray]:
        """For each place the word for its ground (None: nobody's), and the member that never saw it, or 255."""
        roles = self.roles(lonlat)
        tested = roles == ROLES.index("test")
        member = np.where(tested.any(axis=1), tested.argmax(axis=1), NO_MEMBER).astype(np.uint8)
        # an ensemble has seen what any of its members has
        worst = np.where(roles < 0, len(ROLES), roles).min(axis=1, initial=len(ROLES))
        words = np.array([*ROLES, None], object)[worst]
        if out_of_fold:
            words = np.where(member != NO_MEMBER, "test", words)
        return words, member
