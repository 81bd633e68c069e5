"""Class maps to score: predictions folders and plain class rasters, and the legend of them all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import NAME
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.formats.raster import Raster, Reader, opened
from geoml_cli.formats.stamp import read_record
from geoml_cli.geo.classes import Class, legend, read_classes
from geoml_cli.geo.grid import Grid
from geoml_cli.geo.windows import blocks
from geoml_cli.stages.inputs import Scene

GROUND = "ground.parquet"
MOST = 256  # distinct values that a class raster may have
BLOCK = 512


@dataclass(frozen=True)
class ClassMap:
    """One class map; `record` says what made it, `ground` is the file of the ground its model saw."""

    id: str
    raster: Raster
    record: dict[str, Any] | None = None
    ground: Path | None = None
    out_of_fold: bool = False
    colors: tuple[tuple[str, str], ...] = ()  # (class name, "#rrggbb") where the folder says so

    @property
    def grid(self) -> Grid:
        """Its pixel grid."""
        return self.raster.grid

    @property
    def ground_known(self) -> bool:
        """Whether it is known on which ground its score would flatter."""
        return self.out_of_fold or self.ground is not None


def read_maps(scenes: list[Scene]) -> tuple[list[ClassMap], list[Class]]:
    """Maps in order of id, and the one legend of them all, in order of class id."""
    maps = sorted((map_of(scene) for scene in scenes), key=lambda one: one.id)
    names: dict[int, str] = {}
    colors: dict[str, str] = {}
    nameless = []
    for one in maps:
        own, paint = names_in(one.raster.path)
        if not own:
            nameless.append(one)
        for number, name in own.items():
            if names.setdefault(number, name) != name:
                raise GeomlError(
                    f"{one.raster.path}: class {number} is {name} here and {names[number]} in another map;"
                    " score maps of one legend together"
                )
        colors = paint | dict(one.colors) | colors
    for one in nameless:
        names = {number: str(number) for number in values_in(one.raster)} | names
    where = maps[0].raster.path
    if not names:
        raise GeomlError(f"{where}: holds no class, only nodata")
    order = sorted(names)
    if len(set(names.values())) < len(names):
        raise GeomlError(
            f"{where}: two classes share a name ({', '.join(names[i] for i in order)})"
        )
    painted = legend([names[i] for i in order], colors)
    return maps, [Class(i, c.name, c.color) for i, c in zip(order, painted, strict=True)]


def map_of(scene: Scene) -> ClassMap:
    """The class map of a scene, with what its predictions folder says, however it was named."""
    rasters = scene.rasters
    raster = rasters.get("map") or next(iter(rasters.values()))
    if "map" not in rasters and len(rasters) > 1:
        raise GeomlError(
            f"{scene.id}: none of its assets ({', '.join(rasters)}) is called map; name the class raster"
        )
    if len(raster.bands) > 1:
        raise GeomlError(f"{raster.path}: {len(raster.bands)} bands; a class map has one")
    if not np.issubdtype(np.dtype(raster.dtype), np.integer):
        raise GeomlError(
            f"{raster.path}: values are {raster.dtype}, not class ids; gdal_translate -ot Byte makes it so"
        )
    home = _home(raster.path)
    if home is None:
        record = read_record(raster.path)
        folds = bool(record and record["arguments"].get("out_of_fold"))
        return ClassMap(scene.id, raster, record, _ground_of_model(raster.path, record), folds)
    path, record = Path(raster.path), home["geoml"]
    ground = path.parent / GROUND if GROUND in record["members"] else None
    for file in filter(None, (path, ground)):
        if not file.is_file() or digest_file(file) != record["members"].get(file.name):
            raise GeomlError(
                f"{file}: changed or damaged since `geoml {record['verb']}` wrote it; make it again"
            )
    paint = tuple((c.name, c.color) for c in read_classes(home.get("geoml:classes") or []))
    return ClassMap(scene.id, raster, record, ground, bool(home.get("geoml:out_of_fold")), paint)


def _ground_of_model(path: str, record: dict[str, Any] | None) -> Path | None:
    """Of a map that stands alone: the ground in its model's folder, if that is still where it was and the same."""
    for one in record["inputs"] if record else []:
        stamp = Path(path).parent / one["path"]
        if one["role"] != "model" or not stamp.is_file() or digest_file(stamp) != one["digest"]:
            continue
        ground = stamp.parent / GROUND
        kept = (read_record(stamp) or {}).get("members", {}).get(GROUND)
        if ground.is_file() and digest_file(ground) == kept:
            return ground
    return None


def _home(path: str) -> dict[str, Any] | None:
    """The items.json of the predictions folder that a map belongs to."""
    stamp = Path(path).parent / NAME
    if not stamp.is_file():
        return None
    record = read_record(stamp)
    if record and Path(path).name in record.get("members", {}):
        return dict(read_json(stamp))
    return None


def names_in(path: str) -> tuple[dict[int, str], dict[str, str]]:
    """What a raster itself says of its classes: {id: name} by tags CLASS_id, {name: "#rrggbb"}."""
    with opened(path) as dataset:
        tags = {**dataset.tags(), **dataset.tags(1)}
        table = dataset.colormap(1) if dataset.colorinterp[0].name == "palette" else {}
    numbers = {k.removeprefix("CLASS_"): name for k, name in tags.items() if k.startswith("CLASS_")}
    names = {int(n): name for n, name in numbers.items() if n.removeprefix("-").isdigit()}
    known = names or {number: str(number) for number in table}
    paint = {name: "#" + bytes(table[i][:3]).hex() for i, name in known.items() if i in table}
    return names, paint


def values_in(raster: Raster) -> list[int]:
    """The distinct valid values of a raster, read block by block."""
    found: set[int] = set()
    with Reader(raster) as reader:
        for window in blocks(raster.grid.height, raster.grid.width, (BLOCK, BLOCK)):
            values, valid = reader.read(window)
            found |= set(np.unique(values[0][valid]).tolist())
            if len(found) > MOST:
                raise GeomlError(
                    f"{raster.path}: more than {MOST} distinct values; not a class map"
                )
    return sorted(found)
