"""Vector files of any kind that GDAL reads, and GeoParquet."""

import json
import math
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import geopandas
import pyogrio
from pyarrow import parquet
from pyogrio.errors import DataLayerError, DataSourceError

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.commit import whole_file, write_text
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import canonical, dumps, sha256_of

PARQUET = (".parquet", ".geoparquet")
GPKG = ".gpkg"
GEOJSON = (".geojson",)
NO_DATE = "2000-01-01T00:00:00.000Z"  # in place of the clock's


def read_vectors(
    path: str, columns: Sequence[str] = (), layer: str | None = None
) -> geopandas.GeoDataFrame:
    """Read features with these columns; those without a geometry are left out, CRS is required."""
    file = Path(path)
    if not file.exists() and "://" not in path and not path.startswith("/vsi"):
        raise GeomlError(f"{path}: no such file")
    try:
        if file.suffix in PARQUET:
            table = geopandas.read_parquet(path)
        else:
            if layer is None and len(layers := pyogrio.list_layers(path)) > 1:
                names = ", ".join(str(row[0]) for row in layers)
                raise GeomlError(f"{path}: has several layers ({names}); name one with --layer")
            table = geopandas.read_file(path, layer=layer)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise GeomlError(f"{path}: not readable as a vector file ({error})") from None
    return _checked(table, path, columns)


def read_index(path: Path) -> geopandas.GeoDataFrame:
    """Read GeoParquet of ours with every row, also those without a geometry."""
    try:
        return geopandas.read_parquet(path)
    except (ValueError, OSError) as error:
        raise GeomlError(f"{path}: not readable as GeoParquet ({error})") from None


def parse_vectors(text: str, name: str) -> geopandas.GeoDataFrame:
    """As `read_vectors`, for GeoJSON in a text."""
    try:
        table = geopandas.read_file(BytesIO(text.encode()))
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise GeomlError(f"{name}: no GeoJSON that can be read ({error})") from None
    return _checked(table, name, ())


def _checked(
    table: geopandas.GeoDataFrame, path: str, columns: Sequence[str]
) -> geopandas.GeoDataFrame:
    if not isinstance(table, geopandas.GeoDataFrame):
        how = "ogr2ogr -a_srs EPSG:4326 -oo X_POSSIBLE_NAMES=lon -oo Y_POSSIBLE_NAMES=lat"
        raise GeomlError(
            f"{path}: holds no geometries; make a table of coordinates a layer first: {how} out.gpkg {path}"
        )
    for name in columns:
        if name not in table.columns:
            have = ", ".join(str(c) for c in table.columns if c != table.geometry.name)
            raise GeomlError(f"{path}: no column {name!r}; it has {have or 'none'}")
    if table.crs is None:
        raise GeomlError(f"{path}: no CRS; give it one: ogr2ogr -a_srs EPSG:CODE out.gpkg {path}")
    table = table[~(table.geometry.isna() | table.geometry.is_empty)]
    if not len(table):
        raise GeomlError(f"{path}: holds no features with a geometry")
    return table.reset_index(drop=True)


def digest_vectors(path: str) -> str:
    """Digest of a vector file: its bytes, or those of all the files of a shapefile or a folder."""
    file = Path(path)
    if file.is_dir():  # a file geodatabase
        inside = sorted(p for p in file.rglob("*") if p.is_file() and p.suffix != ".lock")
        return sha256_of([[str(p.relative_to(file)), digest_file(p)] for p in inside])
    if file.suffix.lower() != ".shp":
        return digest_file(file)
    parts = sorted(p for p in file.parent.glob(f"{file.stem}.*") if p.suffix.lower() in SHAPEFILE)
    return sha256_of([[p.suffix.lower(), digest_file(p)] for p in parts])


SHAPEFILE = {".shp", ".dbf", ".shx", ".prj", ".cpg"}


def write_vectors(
    path: Path, table: geopandas.GeoDataFrame, record: dict[str, Any] | None = None
) -> None:
    """Write GeoParquet or a GeoPackage with its record, whole or not at all; equal tables give equal bytes."""
    suffix = path.suffix.lower()
    text = None if record is None else canonical(record).decode()
    if suffix in PARQUET:
        with whole_file(path) as temporary:
            table.to_parquet(temporary, index=False, schema_version="1.1.0", compression="zstd")
            if text is not None:
                found = parquet.read_table(temporary)
                told = {**(found.schema.metadata or {}), b"geoml": text.encode()}
                parquet.write_table(
                    found.replace_schema_metadata(told), temporary, compression="zstd"
                )
        return
    if suffix in GEOJSON:
        _write_geojson(path, table, record)
        return
    if suffix != GPKG:
        raise UsageMistake(f"{path}: write NAME.parquet or NAME.gpkg")
    with whole_file(path) as temporary, TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name  # its driver is particular about the suffix
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": NO_DATE})
        try:
            pyogrio.write_dataframe(
                table,
                built,
                driver="GPKG",
                layer=path.stem,
                dataset_metadata=None if text is None else {"GEOML": text},
            )
        except (DataSourceError, DataLayerError) as error:
            raise GeomlError(f"{path}: could not be written ({error})") from None
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        os.replace(built, temporary)


def _write_geojson(
    path: Path, table: geopandas.GeoDataFrame, record: dict[str, Any] | None
) -> None:
    """Write GeoJSON (RFC 7946, so in degrees); its record stands beside the features, as `geoml`."""
    plain = json.loads(table.to_crs("OGC:CRS84").to_json(drop_id=True))
    plain.pop("crs", None)
    write_text(path, dumps(plain if record is None else {**plain, "geoml": record}))


def class_value(value: object) -> str | None:
    """A class column's value as a name: 3.0 and '3' are the class 3; None where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
