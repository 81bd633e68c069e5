"""A layer of labels opened: of a vector file, a class raster, or a raster of values."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.class_map import read_class_map
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.raster import Raster
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import digest_vectors
from geoml_cli.geo.classes import IGNORE, Class
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.labels_area import Area
from geoml_cli.stages.labels_burn import Burn, Warp, burn, nothing
from geoml_cli.stages.labels_features import Features
from geoml_cli.stages.labels_legend import Legend, in_order, lay_legend, same_legend
from geoml_cli.stages.labels_of_tile import of_tile
from geoml_cli.stages.labels_raster import is_raster, open_all, put_on, what_is_in
from geoml_cli.stages.labels_table import read_features

__all__ = ["Burn", "Layer", "Warp", "Wish", "burn", "is_raster", "nothing", "of_tile"]
PER = {"classes": ("pixel", "majority", "present", "centre"), "values": ("pixel", "centre", "mean")}
GRIDS = 64  # whose labels are kept ready


@dataclass(frozen=True)
class Wish:
    """One layer of labels as it was asked for; plain data."""

    path: str
    name: str = "class"
    column: str | None = None
    table: str | None = None  # the layer inside a vector file
    kind: str | None = None  # "classes" | "values"; None: values for a raster of floats
    per: str = "pixel"  # or one label a tile: "majority", "present", "centre", "mean"
    all_touched: bool = False
    buffer_m: float = 0.0  # by which points and lines are widened on the ground
    order: str | None = None  # column; later features are burnt on top
    background: str | None = None  # the class, or number, of ground that no feature covers
    area: str | None = None  # file of polygons, or raster of 0 and 1: labels hold inside
    classes: str | None = None  # class map


class Layer:
    """A layer of labels: its classes or unit, and what to burn on a given grid.

    `known` is what `to_dict` gave of it before: its classes stay as they were then. `files`
    are rasters that share one legend, instead of the one file of the wish.
    """

    def __init__(
        self, wish: Wish, known: Mapping[str, Any] | None = None, files: Sequence[str] = ()
    ) -> None:
        _check(wish)
        self.wish, self.name, self.per, self._known = wish, wish.name, wish.per, known
        self.unit: str | None = None
        self._legend = Legend((), {}, None)
        self._rasters: dict[str, Raster] = {}
        self._map = read_class_map(wish.classes) if wish.classes and known is None else None
        if files or is_raster(wish.path):
            self._open_rasters(files or [wish.path], picture=bool(files))
        else:
            self._open_vectors()
        if self.per not in PER[self.kind]:
            raise UsageMistake(
                f"{wish.path}: one label a tile by {self.per!r} is not for {self.kind};"
                f" there is {', '.join(PER[self.kind])}"
            )
        self._background = self._open_background()
        self._area = Area(wish.area) if wish.area else None
        self._burn_on = lru_cache(GRIDS)(self._lay)

    @classmethod
    def of_many(cls, wish: Wish, files: Sequence[str]) -> "Layer":
        """A layer of many rasters, such as one mask an image, that share one legend."""
        return cls(wish, files=files)

    @classmethod
    def again(cls, plain: Mapping[str, Any]) -> "Layer":
        """The layer that `to_dict` told of; `masks` in it are the files of a layer of many."""
        return cls(Wish(**plain["wish"]), plain, list(plain.get("masks", {}).values()))

    @property
    def classes(self) -> list[Class]:
        """Its classes; none where it holds values."""
        return list(self._legend.classes)

    @property
    def dtype(self) -> str:
        """Type of burnt pixels."""
        return "uint8" if self.kind == "classes" else "float32"

    @property
    def _open_ended(self) -> bool:
        """Whether values that nothing names have a class, or are ignored."""
        if self._known:
            return self._known.get("rest") is not None
        return bool(self._map and self._map.has_rest)

    def _open_rasters(self, files: Sequence[str], picture: bool) -> None:
        wish = self.wish
        options: dict[str, object] = {"column": wish.column, "layer": wish.table}
        options |= {"burn order": wish.order, "buffer": wish.buffer_m}
        options["rule for touched pixels"] = wish.all_touched
        for name, given in options.items():
            if given:
                raise UsageMistake(f"{wish.path} is a raster: a {name} is for vector files")
        self._rasters, self.kind = open_all(files, wish.kind, picture)
        if self.kind == "values":
            self.unit = next(iter(self._rasters.values())).bands[0].unit
            return _refuse_map(wish)
        scan = not self._known and not self._open_ended
        found = what_is_in(list(self._rasters.values()), scan)
        names = {str(v): found.names.get(v, str(v)) for v in found.values}
        self._number(names, {str(v): color for v, color in found.colors.items()})

    def _open_vectors(self) -> None:
        wish = self.wish
        self.kind = wish.kind or "classes"
        if self.kind == "values":
            _refuse_map(wish)
        asked = (wish.path, wish.column, wish.table, wish.order)
        read = read_features(*asked, self.kind, unnamed=self._open_ended)
        if self.kind == "classes":
            self._number({name: name for name in in_order(set(read.names))}, {})
        self._values = self._legend.of(read.names) if self.kind == "classes" else read.numbers
        self._features = Features(wish.path, read.shapes, read.crs, wish.buffer_m)

    def _number(self, names: Mapping[str, str], colors: Mapping[str, str]) -> None:
        wish = self.wish
        if self._known:
            self._legend = same_legend(wish.path, names, self._known)
        else:
            self._legend = lay_legend(wish.path, names, colors, self._map, wish.background)

    def _open_background(self) -> float | None:
        given = self.wish.background
        if given is None:
            return None
        if self.kind == "classes":
            return self._legend.named(given)
        try:
            number = float(given)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UsageMistake(
                f"background {given!r}: {self.wish.path} holds values; write a number"
            )
        return number

    def inputs(self) -> list[Input]:
        """Every file that is read, and the digest of its content."""
        wish, digest = self.wish, digest_source if self._rasters else digest_vectors
        if list(self._rasters) in ([], [wish.path]):
            found = [Input(wish.path, "labels", digest(wish.path))]
        else:
            inside = [[_inside(wish.path, file), digest(file)] for file in self._rasters]
            found = [Input(wish.path, "labels", sha256_of(inside))]
        if wish.classes and self._map:
            found.append(Input(wish.classes, "classes", digest_file(wish.classes)))
        if wish.area and self._area:
            found.append(Input(wish.area, "label-area", self._area.digest()))
        return found

    def on(self, grid: Grid) -> Burn | Warp:
        """What to burn on a grid: plain data."""
        return self._burn_on(grid)

    def on_file(self, file: str, grid: Grid) -> Warp:
        """As `on`, of one of many files."""
        area = self._area.on(grid) if self._area else None
        ids = tuple((int(v), i) for v, i in self._legend.ids.items() if _whole(v))
        rest = IGNORE if self._legend.rest is None else self._legend.rest
        raster = put_on(self._rasters[file], grid)
        return Warp(raster, self.kind, self.per, ids, rest, self._background, area)

    def _lay(self, grid: Grid) -> Burn | Warp:
        if self._rasters:
            return self.on_file(next(iter(self._rasters)), grid)
        if not grid.placed:
            raise GeomlError(
                f"{self.wish.path}: a picture without a CRS lies nowhere; label it with a mask"
            )
        shapes, owner = self._features.on(grid)
        used, rank = np.unique(owner, return_inverse=True)
        flat, dots = (shapely.get_dimensions(shapes) == d for d in (2, 0))
        xy = shapely.get_coordinates(shapes[dots])
        order = np.argsort(xy[:, 1], kind="stable")
        return Burn(
            kind=self.kind,
            per=self.per,
            all_touched=self.wish.all_touched,
            shapes=tuple(shapely.to_wkb(shapes[flat]).tolist()),
            ranks=rank[flat].astype(np.int32),
            points=xy[order],
            point_ranks=rank[dots][order].astype(np.int32),
            values=self._values[used],
            background=self._background,
            area=self._area.on(grid) if self._area else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values: what it holds, and all that `again` needs; paths as they were given."""
        plain: dict[str, Any] = {"name": self.name, "kind": self.kind, "per": self.per}
        plain |= {"dtype": self.dtype, "ignore": IGNORE if self.kind == "classes" else None}
        plain |= {"unit": self.unit} if self.unit else {}
        plain |= self._legend.to_dict() if self.kind == "classes" else {}
        return plain | {"wish": {k: v for k, v in asdict(self.wish).items() if v is not None}}


def _check(wish: Wish) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", wish.name):
        raise UsageMistake(f"layer {wish.name!r}: a name has letters, digits, _ . and - only")
    if wish.kind not in (None, *PER):
        raise UsageMistake(f"labels are of the kind {' or '.join(PER)}, not {wish.kind!r}")
    every = list(dict.fromkeys(PER["classes"] + PER["values"]))
    if wish.per not in every:
        raise UsageMistake(f"labels are one a {', '.join(every)}, not {wish.per!r}")
    if not (math.isfinite(wish.buffer_m) and wish.buffer_m >= 0):
        raise UsageMistake(f"a buffer of {wish.buffer_m} m; it is a width from 0 on")


def _refuse_map(wish: Wish) -> None:
    if wish.classes:
        raise UsageMistake(f"{wish.classes}: a class map is for classes; {wish.path} holds values")


def _whole(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", value) is not None


def _inside(folder: str, file: str) -> str:
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
