"""A pixel grid: CRS, affine transform, height and width, and what follows from them."""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError

from geoml_cli.errors import GeomlError

LONLAT = "OGC:CRS84"


class Bounds(NamedTuple):
    """West, south, east, north, in the units of some CRS."""

    west: float
    south: float
    east: float
    north: float


class Window(NamedTuple):
    """A block of pixels: first row, first column, height, width."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into an array of the whole grid."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


@dataclass(frozen=True)
class Grid:
    """Where an array lies: `crs` is an authority code or WKT, `transform` maps (col, row) to (x, y).

    An empty `crs` is a picture that lies nowhere in particular.
    """

    crs: str
    transform: Affine
    height: int
    width: int

    @property
    def bounds(self) -> Bounds:
        """Bounds in CRS units."""
        west, north = apply(self.transform, 0, 0)
        east, south = apply(self.transform, self.width, self.height)
        return Bounds(min(west, east), min(south, north), max(west, east), max(south, north))

    @property
    def placed(self) -> bool:
        """Whether it is known where on Earth it lies."""
        return bool(self.crs)

    @property
    def north_up(self) -> bool:
        """Whether rows run along x without rotation or shear."""
        return self.transform.b == 0 and self.transform.d == 0

    def crop(self, window: Window) -> "Grid":
        """The grid of a window."""
        t, (x, y) = self.transform, apply(self.transform, window.col, window.row)
        return Grid(self.crs, Affine(t.a, t.b, x, t.d, t.e, y), window.height, window.width)

    def xy(self, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of pixel centres, in CRS units."""
        return apply(self.transform, np.asarray(cols) + 0.5, np.asarray(rows) + 0.5)

    def rowcol(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns (whole numbers, may lie outside) of coordinates in CRS units."""
        cols, rows = apply(~self.transform, np.asarray(x, float), np.asarray(y, float))
        return np.floor(rows).astype(int), np.floor(cols).astype(int)

    def window_of(self, bounds: Bounds) -> Window | None:
        """Smallest window of whole pixels that covers bounds in CRS units; None where they miss."""
        c0, r0 = apply(~self.transform, bounds.west, bounds.north)
        c1, r1 = apply(~self.transform, bounds.east, bounds.south)
        snug = 1e-6  # an edge that touches a pixel border by rounding does not add a pixel
        row, col = (
            max(0, int(np.floor(min(r0, r1) + snug))),
            max(0, int(np.floor(min(c0, c1) + snug))),
        )
        last_row = min(self.height, int(np.ceil(max(r0, r1) - snug)))
        last_col = min(self.width, int(np.ceil(max(c0, c1) - snug)))
        if last_row <= row or last_col <= col:
            return None
        return Window(row, col, last_row - row, last_col - col)

    def outline(self, crs: str = LONLAT, points: int = 21) -> np.ndarray:
        """Closed ring (n, 2) of x, y in another CRS, `points` a side so that curved edges stay inside."""
        t = np.linspace(0, 1, points)
        cols = (
            np.concatenate([t, np.ones(points - 1), t[::-1][1:], np.zeros(points - 1)]) * self.width
        )
        rows = (
            np.concatenate([np.zeros(points), t[1:], np.ones(points - 1), t[::-1][1:]])
            * self.height
        )
        x, y = apply(self.transform, cols, rows)
        ring = np.stack(between(self.crs, crs).transform(x, y), axis=1)
        if not np.isfinite(ring).all():
            raise GeomlError(f"the grid's outline cannot be expressed in {crs}; check its CRS")
        return ring

    def gsd_m(self) -> float:
        """Ground size of a pixel at the grid's centre, metres: geodesic, mean of both axes."""
        col, row = self.width / 2, self.height / 2
        x, y = apply(self.transform, np.array([col, col + 1, col]), np.array([row, row, row + 1]))
        lon, lat = between(self.crs, LONLAT).transform(x, y)
        geod = Geod(ellps="WGS84")
        across = geod.inv(lon[0], lat[0], lon[1], lat[1])[2]
        down = geod.inv(lon[0], lat[0], lon[2], lat[2])[2]
        return float((across + down) / 2)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, in STAC's words."""
        return {
            "proj:code": self.crs,
            "proj:transform": list(self.transform)[:6],
            "proj:shape": [self.height, self.width],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Grid":
        """Read what `to_dict` gave."""
        height, width = plain["proj:shape"]
        return cls(plain["proj:code"], Affine(*plain["proj:transform"][:6]), height, width)


def apply(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Numbers or arrays x, y under a transform; affine itself spells this `*` or `@` by version."""
    t = transform
    return x * t.a + y * t.b + t.c, x * t.d + y * t.e + t.f


@cache
def between(source: str, target: str) -> Transformer:
    """Transformer that takes and gives x (longitude) first."""
    return Transformer.from_crs(source, target, always_xy=True)


def same_crs(a: str, b: str) -> bool:
    """Whether two CRS mean the same, whatever the words."""
    return a == b or CRS.from_user_input(a).equals(CRS.from_user_input(b), ignore_axis_order=True)


@lru_cache(256)
def crs_name(text: str) -> str:
    """An authority code where there is one, else WKT: one spelling for one CRS."""
    try:
        crs = CRS.from_user_input(text)
    except CRSError:
        raise GeomlError(f"{text!r} is no CRS; write EPSG:32633, OGC:CRS84 or WKT") from None
    code = crs.to_authority(min_confidence=100)
    return ":".join(code) if code else crs.to_wkt()
