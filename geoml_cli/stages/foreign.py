"""What any vector file, array or raster is, as plain data."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from geoml_cli.errors import GeomlError
from geoml_cli.formats.embeddings import is_embeddings, open_embeddings
from geoml_cli.formats.remote import is_remote
from geoml_cli.formats.vectors import PARQUET, class_value
from geoml_cli.geo.grid import crs_name
from geoml_cli.stages.any_raster import raster

VECTORS = (
    *PARQUET,
    ".gpkg",
    ".shp",
    ".geojson",
    ".json",
    ".fgb",
    ".kml",
    ".gml",
    ".csv",
    ".ndjson",
)
MOST_VALUES = 12  # distinct values of a column that are counted out: it may hold classes
MOST_FEATURES = 100_000  # beyond, values are not counted


def portrait(path: str) -> dict[str, Any]:
    """Describe a file that geoml knows nothing about, as whatever it opens as."""
    if path.endswith(".npy"):
        return array(path)
    first, second = (vector, raster) if path.lower().endswith(VECTORS) else (raster, vector)
    if is_remote(path):
        return raster(path)
    if not os.path.exists(path) and not path.startswith("/vsi") and ":" not in path:
        raise GeomlError(f"{path}: no such file or folder")
    if os.path.isfile(path) and not os.path.getsize(path):
        raise GeomlError(f"{path}: is empty (zero bytes)")
    for look in (first, second):
        with suppress(GeomlError):
            return look(path)
    what = "holds no artifact of geoml's" if os.path.isdir(path) else "no raster or vector file"
    raise GeomlError(f"{path}: {what} that can be read; check that it is what you meant")


def array(path: str) -> dict[str, Any]:
    """Describe a numpy file."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GeomlError(f"{path}: not readable as an array ({error})") from None
    return {"kind": "array", "shape": list(found.shape), "dtype": str(found.dtype)}


def vector(path: str) -> dict[str, Any]:
    """Describe the layers of a vector file."""
    if path.lower().endswith(PARQUET):
        return {"kind": "vector", "driver": "Parquet", "layers": [_parquet(path)]}
    try:
        names = [str(row[0]) for row in pyogrio.list_layers(path)]
        layers = [_layer(path, name) for name in names]
        driver = pyogrio.read_info(path, layer=names[0])["driver"] if names else None
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise GeomlError(f"{path}: not readable as a vector file ({error})") from None
    if not layers:
        raise GeomlError(f"{path}: holds no layers")
    return {"kind": "vector", "driver": driver, "layers": layers}


def _layer(path: str, name: str) -> dict[str, Any]:
    said = pyogrio.read_info(path, layer=name, force_feature_count=True, force_total_bounds=True)
    columns = dict(zip(map(str, said["fields"]), map(str, said["dtypes"]), strict=True))
    found: dict[str, Any] = {"name": name, "count": int(said["features"]), "columns": columns}
    found |= {"geometry": said["geometry_type"], "crs": said["crs"] and crs_name(said["crs"])}
    if said["total_bounds"] is not None and np.isfinite(said["total_bounds"]).all():
        found["bounds"] = [float(v) for v in said["total_bounds"]]
    if found["count"] <= MOST_FEATURES:
        table = pyogrio.read_dataframe(path, layer=name, read_geometry=False)
        found["values"] = _values({key: table[key].tolist() for key in columns if key in table})
    return found


def _parquet(path: str) -> dict[str, Any]:
    import geopandas
    import pyarrow
    from pyarrow import parquet

    try:
        schema, rows = parquet.read_schema(path), parquet.read_metadata(path).num_rows
        geo = b"geo" in (schema.metadata or {})
        table = geopandas.read_parquet(path) if geo and rows <= MOST_FEATURES else None
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise GeomlError(f"{path}: not readable as Parquet ({error})") from None
    found: dict[str, Any] = {
        "name": Path(path).stem,
        "count": rows,
        "columns": {field.name: str(field.type) for field in schema},
    }
    if is_embeddings(path) and rows:
        found["embeddings"] = _embeddings(path)
    if table is not None:
        found["geometry"] = ", ".join(sorted(set(table.geometry.geom_type.dropna()))) or None
        found["crs"] = crs_name(table.crs.to_wkt()) if table.crs else None
        if np.isfinite(table.total_bounds).all():
            found["bounds"] = table.total_bounds.tolist()
        found["columns"].pop(table.geometry.name)
        found["values"] = _values({key: table[key].tolist() for key in found["columns"]})
    return found


def _embeddings(path: str) -> dict[str, Any]:
    """What a file of vectors says of them."""
    opened = open_embeddings(path)
    about = opened.about
    kept = ("encoder", "pool", "level", "dtype", "scale", "window", "space")
    found = {"dimensions": opened.width, "column": opened.column, **{k: about.get(k) for k in kept}}
    reduction = about.get("reduction")
    if reduction:
        found["reduction"] = {k: reduction[k] for k in ("kind", "width", "kept", "explained")}
    return found


def _values(columns: dict[str, list[Any]]) -> dict[str, dict[str, int]]:
    """How often each value occurs, of columns of words or whole numbers that have few of them."""
    found = {}
    for key, values in columns.items():
        plain = [v for v in values if v is not None and not (isinstance(v, float) and v != v)]
        if all(isinstance(v, str | int) and not isinstance(v, bool) for v in plain):
            counts = Counter(name for v in plain if (name := class_value(v)))
            if 0 < len(counts) <= MOST_VALUES:
                order = sorted(
                    counts, key=lambda v: (int(v) if v.removeprefix("-").isdigit() else 0, v)
                )
                found[key] = {value: counts[value] for value in order}
    return found
