"""CRASAR-U-DROIDs' JSON: buildings, road lines and adjustments in pixels of an ortho.

Buildings and road lines are lists of objects with `pixels` [{x, y}] and `EPSG:4326` [{lon, lat}];
who drew them is `source` in old files and `geometry_source` in new ones, ids are `id`, or with
payload version 2.0 `view_id` and `building_id`. Adjustments are arrows [[x, y], [x, y]] from where
a vertex is to where it should be; none at all is written as one of zeros. Some files hold
rows as x and columns as y; which, the ortho tells.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.commit import write_text
from geoml_cli.formats.jsonfile import dumps
from geoml_cli.geo.grid import LONLAT, Grid, apply, between

VERSIONS = (None, "1.1", "2.0")
PIXELS, DEGREES = "pixels", "EPSG:4326"
DRAWN_BY = ("geometry_source", "source")
CUSTOM = "custom"
OF_ROADS = ("relative", "parent_road_line_id")
SLACK = 0.02  # of the ortho's sides that objects may stick out


@dataclass(frozen=True)
class Objects:
    """Buildings (rings) or road lines of a file; `xy` (n, 2) of each: column and row, never swapped."""

    kind: str  # "buildings" or "roads"
    plain: list[dict[str, Any]]
    xy: list[np.ndarray]
    swapped: bool

    @property
    def custom(self) -> np.ndarray:
        """Those that people drew on this very ortho (n,): they never move."""
        drawn = [next((o[k] for k in DRAWN_BY if k in o), None) for o in self.plain]
        return np.array([str(one).lower() == CUSTOM for one in drawn], bool)


def is_crasar(path: str) -> bool:
    """Whether a file is JSON of buildings or road lines of this kind."""
    if Path(path).suffix.lower() != ".json" or not Path(path).is_file():
        return False
    found = _read(path)
    return isinstance(found, list) and all(isinstance(o, dict) and PIXELS in o for o in found)


def _read(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GeomlError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GeomlError(f"{path}: no JSON that can be read ({error})") from None


def read_objects(path: str, grid: Grid) -> Objects:
    """Read buildings or road lines that lie on the pixels of a grid."""
    plain = _read(path)
    if not isinstance(plain, list) or not plain:
        raise GeomlError(f"{path}: holds no buildings or road lines")
    xy = []
    for number, one in enumerate(plain):
        where = f"{path}: object {number}"
        if not isinstance(one, dict):
            raise GeomlError(f"{where} is no object with pixels; is it a file of adjustments?")
        version = one.get("payload_version")
        if version not in VERSIONS:
            raise GeomlError(f"{where} has payload_version {version}; known are none, 1.1 and 2.0")
        try:
            xy.append(np.array([(float(p["x"]), float(p["y"])) for p in one[PIXELS]]))
        except (KeyError, TypeError, ValueError):
            raise GeomlError(f"{where} has no pixels [{{x, y}}, ...]") from None
        if len(xy[-1]) < 2:
            raise GeomlError(f"{where} has fewer than two pixels")
    roads = any(set(OF_ROADS) & set(o) for o in plain) or not all(_closed(ring) for ring in xy)
    swapped = _is_swapped(plain, xy, grid)
    if swapped:
        xy = [one[:, ::-1] for one in xy]
    return Objects("roads" if roads else "buildings", plain, xy, swapped)


def _closed(ring: np.ndarray) -> bool:
    return len(ring) > 3 and bool(np.allclose(ring[0], ring[-1]))


def _is_swapped(plain: list[dict[str, Any]], xy: list[np.ndarray], grid: Grid) -> bool:
    """Whether x holds rows: degrees tell where there are any, else what fits onto the ortho."""
    degrees = [o.get(DEGREES) for o in plain]
    if grid.placed and all(d and len(d) == len(one) for d, one in zip(degrees, xy, strict=True)):
        told = [p for d in degrees if d for p in d]
        lon, lat = (np.array([float(p[k]) for p in told]) for k in ("lon", "lat"))
        x, y = between(LONLAT, grid.crs).transform(lon, lat)
        there = np.stack(apply(~grid.transform, x, y), axis=1)
        here = np.concatenate(xy)
        plainly, turned = (np.abs(v - there).sum(1) for v in (here, here[:, ::-1]))
        return bool(np.median(turned) < np.median(plainly))
    return fits(np.concatenate(xy)[:, ::-1], grid) > fits(np.concatenate(xy), grid)


def fits(xy: np.ndarray, grid: Grid) -> float:
    """Share of points (n, 2) that lie on a grid, or hardly beside it."""
    size = np.array([grid.width, grid.height])
    return float(((xy >= -SLACK * size) & (xy <= (1 + SLACK) * size)).all(1).mean())


def is_arrows(path: str) -> bool:
    """Whether a file is JSON of adjustments."""
    if Path(path).suffix.lower() != ".json":
        return False
    found = _read(path)
    return isinstance(found, list) and all(np.shape(one) == (2, 2) for one in found)


def read_arrows(path: str, grid: Grid) -> np.ndarray:
    """Read adjustments (n, 2, 2): from and to, each column and row. Those of zeros alone are none."""
    found = _read(path)
    try:
        arrows = np.array(found, float).reshape(-1, 2, 2)
    except (TypeError, ValueError):
        raise GeomlError(f"{path}: no list of arrows [[x, y], [x, y]]") from None
    arrows = arrows[np.abs(arrows).sum((1, 2)) > 0]
    points = arrows.reshape(-1, 2)
    if len(points) and fits(points[:, ::-1], grid) > fits(points, grid):
        return arrows[:, :, ::-1]
    return arrows


def read_degrees(path: str) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Objects and the degrees (n, 2) longitude and latitude of each, for those that need no ortho."""
    plain = _read(path)
    try:
        return plain, [
            np.array([(float(p["lon"]), float(p["lat"])) for p in one[DEGREES]]) for one in plain
        ]
    except (KeyError, TypeError, ValueError):
        raise GeomlError(f"{path}: some objects have no {DEGREES} [{{lat, lon}}, ...]") from None


def write_arrows(path: Path, arrows: np.ndarray) -> None:
    """Write adjustments (n, 2, 2)."""
    whole = arrows if len(arrows) else np.zeros((1, 2, 2))
    write_text(path, dumps(whole.astype(float).tolist()))


def write_objects(
    path: Path,
    objects: Objects,
    moved: list[np.ndarray],
    grid: Grid,
    told: list[dict[str, Any]],
    record: dict[str, Any] | None = None,
) -> None:
    """Write the objects with their pixels (and degrees) `moved`, in the version that they were in.

    What is `told` of each stands in its `alignment`; the file's record in `geoml` of the first.
    """
    out = []
    for one, old, new, says in zip(objects.plain, objects.xy, moved, told, strict=True):
        made = dict(one)
        if objects.swapped or not np.array_equal(old, new):
            made[PIXELS] = [{"x": float(x), "y": float(y)} for x, y in new]
            if grid.placed:
                x, y = apply(grid.transform, new[:, 0], new[:, 1])
                lon, lat = between(grid.crs, LONLAT).transform(x, y)
                made[DEGREES] = [
                    {"lat": float(b), "lon": float(a)} for a, b in zip(lon, lat, strict=True)
                ]
        made["adjusted"] = bool(not np.array_equal(old, new))
        made["alignment"] = says
        out.append(made)
    if record is not None:
        out[0] = {**out[0], "geoml": record}
    write_text(path, dumps(out))
