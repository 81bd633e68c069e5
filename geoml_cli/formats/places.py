"""Tables of places: vector files, and CSV or Parquet with columns of longitude and latitude in degrees."""

from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
from pyarrow import ArrowException, parquet
from pyogrio.errors import DataSourceError

from geoml_cli.errors import GeomlError
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.vectors import GPKG, PARQUET, digest_vectors, read_vectors
from geoml_cli.geo.grid import LONLAT

CSV = (".csv",)
SUFFIXES = (*CSV, *PARQUET, GPKG)
LONS = ("lon", "longitude", "lng", "long")
LATS = ("lat", "latitude")


def is_places(path: str) -> bool:
    """Whether a file is a table that may hold places; embeddings are not meant."""
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES or not file.is_file() or is_embeddings(path):
        return False
    if file.suffix.lower() != GPKG:
        return True
    try:
        return len(pyogrio.list_layers(path)) > 0  # others are rasters
    except DataSourceError:
        return False


def read_places(path: str, lonlat: Sequence[str] = ()) -> geopandas.GeoDataFrame:
    """Rows with a geometry in CRS84 and a column `id`, text: the row's number where there is none.

    `lonlat` names the columns of longitude and latitude, in this order; else a geometry is taken,
    or the columns of usual names. Swapped or impossible coordinates are refused.
    """
    suffix = Path(path).suffix.lower()
    if suffix in CSV or suffix in PARQUET and (lonlat or not _has_geometry(path)):
        table = _of_columns(path, _plain(path), lonlat)
    else:
        table = read_vectors(path)
        if table.geometry.name != "geometry":
            table = table.rename_geometry("geometry")
        if lonlat:
            table = _of_columns(path, pandas.DataFrame(table.drop(columns="geometry")), lonlat)
        else:
            table = _moved(path, table)
    table["id"] = (table["id"] if "id" in table else table.index).astype(str).to_numpy(object)
    return table


def digest_places(path: str) -> str:
    """Digest of such a file."""
    return digest_vectors(path)


def _has_geometry(path: str) -> bool:
    try:
        return b"geo" in (parquet.read_schema(path).metadata or {})
    except (ArrowException, OSError) as error:
        raise GeomlError(f"{path}: not readable as Parquet ({error})") from None


def _plain(path: str) -> pandas.DataFrame:
    try:
        if Path(path).suffix.lower() in CSV:
            return pandas.read_csv(path)
        table = pandas.read_parquet(path)
    except (ValueError, OSError, ArrowException) as error:
        raise GeomlError(f"{path}: not readable as a table ({error})") from None
    return table.drop(columns=[c for c in ("geometry",) if c in table])


def _of_columns(
    path: str, table: pandas.DataFrame, lonlat: Sequence[str]
) -> geopandas.GeoDataFrame:
    """Places of two columns of numbers."""
    names = _named(path, table, lonlat)
    numbers = []
    for name in names:
        value = pandas.to_numeric(table[name], errors="coerce").to_numpy(float, na_value=np.nan)
        lost = np.flatnonzero(~np.isfinite(value))
        if len(lost):
            raise GeomlError(
                f"{path}: {name} is no number in {len(lost)} row(s), the first is row {lost[0]}; leave them out"
            )
        numbers.append(value)
    _check(path, numbers[0], numbers[1], tuple(names))
    points = geopandas.points_from_xy(numbers[0], numbers[1])
    return geopandas.GeoDataFrame(table.reset_index(drop=True), geometry=points, crs=LONLAT)


def _named(path: str, table: pandas.DataFrame, lonlat: Sequence[str]) -> list[str]:
    """The columns of longitude and latitude."""
    have = ", ".join(map(str, table.columns))
    if not lonlat:
        found = [[c for c in table if str(c).lower() in usual] for usual in (LONS, LATS)]
        if any(len(one) != 1 for one in found):
            raise GeomlError(
                f"{path}: it is not clear which columns are longitude and latitude; name them in this order:"
                f" --lonlat X,Y; it has {have}"
            )
        return [str(one[0]) for one in found]
    for name in lonlat:
        if name not in table:
            raise GeomlError(f"{path}: no column {name!r}; it has {have}")
    if lonlat[0].lower() in LATS or lonlat[1].lower() in LONS:
        raise GeomlError(f"--lonlat {','.join(lonlat)}: longitude comes first, then latitude")
    return list(lonlat)


def _moved(path: str, table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    if table.crs != LONLAT:
        if table.crs.is_geographic:
            _check_shapes(path, table)
        table = table.to_crs(LONLAT)
    _check_shapes(path, table)
    return table


def _check_shapes(path: str, table: geopandas.GeoDataFrame) -> None:
    bounds = table.geometry.bounds.to_numpy()
    if not np.isfinite(bounds).all():
        row = int(np.flatnonzero(~np.isfinite(bounds).all(axis=1))[0])
        raise GeomlError(f"{path}: row {row} lies nowhere on Earth; is its CRS right?")
    for lon, lat in ((0, 1), (2, 3)):
        _check(path, bounds[:, lon], bounds[:, lat], ("longitude", "latitude"))


def _check(path: str, lon: np.ndarray, lat: np.ndarray, names: tuple[str, ...]) -> None:
    """Refuse what cannot be longitude and latitude."""
    if len(lat) and np.abs(lat).max() > 90:
        row = int(np.abs(lat).argmax())
        swapped = np.abs(lon).max() <= 90
        hint = "longitude and latitude are swapped" if swapped else "latitudes are -90 to 90"
        raise GeomlError(f"{path}: {names[1]} is {lat[row]:g} in row {row}; {hint}")
    if len(lon) and np.abs(lon).max() > 180 + 1e-9:
        row = int(np.abs(lon).argmax())
        raise GeomlError(
            f"{path}: {names[0]} is {lon[row]:g} in row {row}; longitudes are -180 to 180 degrees"
        )
