"""Rasters of embeddings: ours, AlphaEarth's, Tessera's; looked up at polygons and points."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import rasterio
from rasterio.windows import Window as Part

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats import items as stac
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import read_json, sha256_of
from geoml_cli.formats.remote import is_remote
from geoml_cli.formats.stamp import Input, read_record, stamp_in
from geoml_cli.formats.vectors import digest_vectors, read_vectors
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.manners import Manners
from geoml_cli.stages.inputs import digest_source
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.rows import attributes
from geoml_cli.stages.shares import Share, covered

log = logging.getLogger("geoml")
ALPHAEARTH = 64  # bands of int8: physical = sign(v) (v / 127.5)^2, -128 nodata, unit vectors
SCALES = "_scales.npy"  # beside Tessera's NAME.npy
MANY = 1 << 24  # values that are read at a time
NEAR = 512  # pixels: places of one such square are looked up one after the other


def is_dense(path: str) -> bool:
    """Whether a path is a raster of embeddings, or a folder of ours of such."""
    if path.endswith(".npy"):
        return Path(path).is_file() and not path.endswith(SCALES)
    folder = stamp_in(path)
    if folder is not None:
        record = read_record(path)
        return folder.name == stac.NAME and record is not None and record["verb"] == "embed"
    if not path.lower().endswith((".tif", ".tiff")):
        return False
    return _kind(path) is not None


def _kind(path: str) -> str | None:
    try:
        with rasterio.open(path) as dataset:
            text = dataset.tags().get("GEOML")
            if text:
                return "geoml" if json.loads(text).get("verb") == "embed" else None
            alpha = dataset.count == ALPHAEARTH and set(dataset.dtypes) == {"int8"}
            return "alphaearth" if alpha else None
    except (rasterio.errors.RasterioError, ValueError):
        return None


def about_of(path: str) -> dict[str, Any]:
    """What a raster of ours, or a folder of such, says of its embeddings."""
    stamp = stamp_in(path)
    if stamp is not None:
        return dict(read_json(stamp).get("embedding", {}))
    record = read_record(path)
    return dict((record or {}).get("embedding", {}))


Read = Callable[
    [Window], np.ndarray
]  # vectors (D, h, w) float32 of a window, NaN where there is none


@dataclass(frozen=True)
class Raster:
    """A raster of embeddings that can be read in windows."""

    path: str
    name: str
    grid: Grid
    width: int
    kind: str
    datetime: str | None = None

    @contextmanager
    def opened(self) -> Iterator[Read]:
        """Read windows while it is open: blocks that were unpacked for one are there for the next."""
        if self.kind == "tessera":
            yield self._scaled
            return
        with rasterio.open(self.path) as dataset:
            yield lambda window: self._physical(dataset, window)

    def _scaled(self, window: Window) -> np.ndarray:
        rows = slice(window.row, window.row + window.height)
        cols = slice(window.col, window.col + window.width)
        stored = np.load(self.path, mmap_mode="r")[rows, cols].astype(np.float32)
        scales = np.load(self.path[: -len(".npy")] + SCALES, mmap_mode="r")[rows, cols]
        found = stored * scales.reshape(*stored.shape[:2], -1).astype(np.float32)
        return np.moveaxis(found, -1, 0)

    def _physical(self, dataset: Any, window: Window) -> np.ndarray:
        stored = dataset.read(window=Part(window.col, window.row, window.width, window.height))
        values = stored.astype(np.float32)
        if self.kind == "alphaearth":
            found = np.sign(values) * (values / 127.5) ** 2
            return np.where(stored == -128, np.nan, found).astype(np.float32)
        none = dataset.nodata
        scale = np.array(dataset.scales, np.float32)[:, None, None]
        gone = np.isnan(values) if none is None or np.isnan(none) else stored == none
        return np.where(gone, np.nan, values * scale).astype(np.float32)


def open_dense(path: str) -> list[Raster]:
    """Open one raster, or those of a folder of ours."""
    if path.endswith(".npy"):
        return [_tessera(path)]
    stamp = stamp_in(path)
    if stamp is not None:
        found = []
        for item in stac.read_collection(stamp.parent)["features"]:
            file = str(stamp.parent / item["assets"]["map"]["href"])
            found.append(_tiff(file, "geoml", item["id"], item["properties"].get("datetime")))
        return found
    return [_tiff(path, _kind(path) or "geoml", Path(path).stem, None)]


def _tiff(path: str, kind: str, name: str, when: str | None) -> Raster:
    with rasterio.open(path) as dataset:
        if dataset.crs is None:
            raise GeomlError(f"{path}: no CRS; it is not known where its embeddings lie")
        grid = Grid(dataset.crs.to_string(), dataset.transform, dataset.height, dataset.width)
        return Raster(path, name, grid, dataset.count, kind, when)


def _tessera(path: str) -> Raster:
    """NAME.npy (H, W, 128) int8 with NAME_scales.npy (H, W); NAME.tiff, a land mask, says where they lie."""
    file = Path(path)
    scales = file.with_name(file.stem + SCALES)
    if not scales.is_file():
        raise GeomlError(f"{scales}: no such file; Tessera's embeddings come with it")
    masks = [
        folder / f"{file.stem}{suffix}"
        for folder in (file.parent, *file.parents[:4])
        for suffix in (".tiff", ".tif")
    ]
    masks += [
        one / "global_0.1_degree_tiff_all" / f"{file.stem}.tiff" for one in file.parents[:4]
    ] + [one / "landmasks" / f"{file.stem}.tiff" for one in file.parents[:4]]
    mask = next((one for one in masks if one.is_file()), None)
    if mask is None:
        raise GeomlError(
            f"{path}: no {file.stem}.tiff beside it; Tessera's land mask says where the embeddings lie"
        )
    shape = np.load(path, mmap_mode="r").shape
    with rasterio.open(mask) as dataset:
        if len(shape) != 3 or shape[:2] != (dataset.height, dataset.width):
            raise GeomlError(f"{path}: is {shape}, its land mask {dataset.shape}: not of one tile")
        grid = Grid(dataset.crs.to_string(), dataset.transform, dataset.height, dataset.width)
    return Raster(path, file.stem, grid, int(shape[2]), "tessera")


def inputs_of(paths: Sequence[str]) -> list[Input]:
    """Digests of rasters of embeddings."""
    found = []
    for path in paths:
        stamp = stamp_in(path)
        if stamp is not None:
            found.append(Input(str(stamp), "scene", digest_file(stamp)))
        elif path.endswith(".npy"):
            both = [digest_file(Path(path)), digest_file(Path(path[: -len(".npy")] + SCALES))]
            found.append(Input(path, "scene", sha256_of(both)))
        else:
            digest = digest_source(path) if is_remote(path) else digest_file(Path(path))
            found.append(Input(path, "scene", digest))
    return found


def sample(paths: Sequence[str], at: str, out: str, *, dtype: str, manners: Manners) -> None:
    """Write a row for each place on each raster: the mean over a polygon, the pixel at a point."""
    from geoml_cli.stages.embed_write import said_of, write_parts

    rasters = [one for path in paths for one in open_dense(path)]
    widths = {one.width for one in rasters}
    if len(widths) > 1:
        raise GeomlError(
            f"{paths[0]} ...: embeddings of {', '.join(map(str, sorted(widths)))} dimensions"
        )
    if not out.lower().endswith((".parquet", ".geoparquet", ".gpkg")):
        raise UsageMistake(f"-o {out}: rows are a table; name NAME.parquet or NAME.gpkg")
    if dtype == "int8":
        raise UsageMistake(
            "--dtype int8: is not written of embeddings that are there; float32 or float16"
        )
    places = read_vectors(at)
    places = attributes(places, list(places["id"] if "id" in places else places.index))
    if manners.dry_run:
        plan(
            manners,
            [f"look up {len(places)} places in {len(rasters)} raster(s), and write to {out}"],
        )
        return
    inputs = [*inputs_of(paths), Input(at, "at", digest_vectors(at))]
    with Job("embed", out, "embeddings", None, {"dtype": dtype}, inputs, manners) as job:
        if not job.done:
            about = about_of(paths[0]) or {"encoder": rasters[0].kind, "space": rasters[0].kind}
            about = {**about, "dtype": dtype, "scale": None, "pool": "mean"}
            built = job.part / f"table{Path(out).suffix.lower()}"
            record = job.record | {"embedding": about}

            def parts() -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
                for raster in rasters:
                    job.check()
                    yield from _looked_up(raster, places)

            written = write_parts(built, parts, lambda z: z, dtype, 1.0, record)
            if written < len(places):
                log.warning(
                    "%d of %d places have no row: no embedding there",
                    len(places) - written,
                    len(places),
                )
            job.commit_file(built)
    job.report([job.named], [said_of(job)])


def _looked_up(
    raster: Raster, places: geopandas.GeoDataFrame
) -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
    whole = Window(0, 0, raster.grid.height, raster.grid.width)
    shares = covered(places.geometry, raster.grid)
    found: dict[int, np.ndarray] = {}
    near = sorted(
        range(len(shares)),
        key=lambda i: (shares[i].window.row // NEAR, shares[i].window.col // NEAR, i),
    )
    with raster.opened() as read:
        for i in near:
            window = _within(shares[i].window, whole)
            mean = None if window is None else _mean(read, raster.width, shares[i], window)
            if mean is not None:
                found[i] = mean
    kept = sorted(found)
    if kept:
        table = places.iloc[kept].reset_index(drop=True).copy()
        table.insert(1, "scene", raster.name)
        table.insert(2, "datetime", pandas.array([raster.datetime] * len(kept), dtype="string"))
        yield table, np.stack([found[i] for i in kept])


def _mean(read: Read, width: int, share: Share, window: Window) -> np.ndarray | None:
    """Mean vector (D,) over what a place covers of a window, in parts; None where there is no embedding."""
    total, weight = np.zeros(width), 0.0
    rows = max(1, MANY // (width * window.width))
    stop = window.row + window.height
    for top in range(window.row, stop, rows):
        part = Window(top, window.col, min(rows, stop - top), window.width)
        values = read(part)
        seen = share.on(part) * np.isfinite(values).all(axis=0)
        total += np.einsum("dhw,hw->d", np.nan_to_num(values), seen)
        weight += seen.sum()
    return (total / weight).astype(np.float32) if weight > 0 else None


def _within(window: Window, whole: Window) -> Window | None:
    top, left = max(window.row, 0), max(window.col, 0)
    height = min(window.row + window.height, whole.height) - top
    width = min(window.col + window.width, whole.width) - left
    return Window(top, left, height, width) if height > 0 and width > 0 else None
