"""Places in a table: points of any vector file, or columns of longitude and latitude, in blocks of rows."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from pyarrow import csv, parquet
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from geoml_cli.errors import GeomlError
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.package import PKG, read_packed
from geoml_cli.formats.vectors import GPKG, PARQUET, digest_vectors
from geoml_cli.geo.grid import LONLAT
from geoml_cli.geo.lonlat import check_lonlat, coordinate_columns

CSV = (".csv", ".tsv", ".txt")
ROWS = 8192
FIRST = 1 << 25  # bytes of a CSV from which the types of its columns are told
log = logging.getLogger("geoml")


@dataclass
class Points:
    """A table of places, opened: read in blocks, as often as is wanted, in its order.

    `geometry` is the column of shapes (WKB) and `turn` brings its coordinates to longitude and latitude; or
    `columns` are those of longitude and latitude.
    """

    path: str
    digest: str
    kind: str
    geometry: str | None = None
    turn: Transformer | None = None
    columns: tuple[str, str] | None = None
    data: bytes | None = None  # where it lies in a package
    whole: bool = False  # a CSV whose types are told by all of it
    lonlat: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # of rows with a place
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))  # of the columns that are kept

    def blocks(self, rows: int = ROWS) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Plain columns, with an `id` first, and places (n, 2) of the rows that have one."""
        start = 0
        for table in self._tables(rows):
            lonlat = self._places(table)
            some = np.isfinite(lonlat).all(1)
            yield self._plain(table, start).filter(pa.array(some)), lonlat[some]
            start += len(table)

    def frame(self) -> geopandas.GeoDataFrame:
        """Every row that has a place: plain columns, `id` first, and shapes in longitude and latitude."""
        tables, shapes, start = [], [], 0
        for table in self._tables(ROWS):
            found = self._shapes(table)
            some = np.isfinite(_middles(found)).all(1)
            tables.append(self._plain(table, start).filter(pa.array(some)))
            shapes.append(found[some])
            start += len(table)
        plain = pa.concat_tables(tables, promote_options="permissive").to_pandas()
        return geopandas.GeoDataFrame(plain, geometry=np.concatenate(shapes), crs=LONLAT)

    def _tables(self, rows: int) -> Iterator[pa.Table]:
        if self.kind == "parquet":
            source = BytesIO(self.data) if self.data is not None else self.path
            for batch in parquet.ParquetFile(source).iter_batches(rows):
                yield pa.Table.from_batches([batch])
        elif self.kind == "csv":
            for batch in self._csv():
                table = pa.Table.from_batches([batch])
                yield from (table.slice(i, rows) for i in range(0, len(table), rows))
        else:
            with pyogrio.open_arrow(self.path, batch_size=rows, use_pyarrow=True) as (_, reader):
                for batch in reader:
                    yield pa.Table.from_batches([batch])

    def _csv(self) -> Iterator[pa.RecordBatch]:
        source = BytesIO(self.data) if self.data is not None else self.path
        tab = self.path.lower().endswith((".tsv", ".txt"))
        how = {
            "read_options": csv.ReadOptions(block_size=None if self.whole else FIRST),
            "parse_options": csv.ParseOptions(
                delimiter="\t" if tab else ",", newlines_in_values=True
            ),
            "convert_options": csv.ConvertOptions(strings_can_be_null=True),
        }
        if self.whole:
            yield from csv.read_csv(source, **how).to_batches()
        else:
            yield from csv.open_csv(source, **how)

    def _places(self, table: pa.Table) -> np.ndarray:
        """Longitude and latitude (n, 2) of points, or of a point in each shape."""
        return _middles(self._shapes(table))

    def _shapes(self, table: pa.Table) -> np.ndarray:
        """Shapes (n,) in longitude and latitude; None where a row has none."""
        if self.columns:
            try:
                each = [table[name].cast(pa.float64()) for name in self.columns]
            except pa.ArrowInvalid as error:
                raise GeomlError(f"{self.path}: columns {self.columns}: {error}") from None
            lon, lat = (one.to_numpy(zero_copy_only=False) for one in each)
            east = np.isfinite(lon) & (np.abs(lon) > 180) & (np.abs(lon) <= 360)
            return shapely.points(np.where(east, (lon + 180) % 360 - 180, lon), lat)
        assert self.geometry
        shapes = shapely.from_wkb(table[self.geometry].to_numpy(zero_copy_only=False))
        if self.turn is not None:
            shapes = shapely.transform(shapes, self.turn.transform, interleaved=False)
        return shapes

    def _plain(self, table: pa.Table, start: int) -> pa.Table:
        """Columns that a file of rows can hold; an id where there is none is the row's number."""
        kept = {}
        for name in table.column_names:
            column = table[name]
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if name not in ("id", "embedding", "geometry", self.geometry) and _is_plain(
                column.type
            ):
                kept[name] = column
        ids = table["id"] if "id" in table.column_names else None
        if ids is None or pa.types.is_nested(ids.type):
            ids = pa.array(np.arange(start, start + len(table)))
        return pa.table({"id": ids.cast(pa.string()), **kept})


def _middles(shapes: np.ndarray) -> np.ndarray:
    """Coordinates (n, 2) of points, or of a point in each shape; NaN where there is none."""
    points, away = shapes.copy(), np.flatnonzero(shapely.get_type_id(shapes) > 0)
    points[away] = shapely.point_on_surface(shapes[away])
    return np.stack([shapely.get_x(points), shapely.get_y(points)], 1)


def _is_plain(kind: pa.DataType) -> bool:
    is_ = pa.types
    text = is_.is_string(kind) or is_.is_large_string(kind)
    return (
        text
        or is_.is_integer(kind)
        or is_.is_floating(kind)
        or is_.is_boolean(kind)
        or is_.is_date(kind)
    )


def is_places(path: str) -> bool:
    """Whether a file is a table that may hold places; embeddings are not meant."""
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in (*CSV, *PARQUET, GPKG) or not file.is_file() or is_embeddings(path):
        return False
    if suffix != GPKG:
        return True
    try:
        return len(pyogrio.list_layers(path)) > 0  # others are rasters
    except DataSourceError:
        return False


def open_points(name: str, lonlat: Sequence[str] = ()) -> Points:
    """Open a table of places and look through it once; `lonlat` names its columns, in this order.

    `pkg:PACKAGE/NAME.csv` is one in a package. Raises `GeomlError` where a place is none.
    """
    points = _opened(name, lonlat)
    try:
        _look(points)
    except (pa.ArrowInvalid, DataSourceError, DataLayerError) as error:
        if points.kind != "csv" or points.whole:
            raise GeomlError(f"{name}: cannot be read ({_line(error)})") from None
        points.whole = True
        try:
            _look(points)
        except pa.ArrowInvalid as again:
            raise GeomlError(f"{name}: cannot be read ({_line(again)})") from None
    return points


def _look(points: Points) -> None:
    found: list[np.ndarray] = []
    count = 0
    for table in points._tables(ROWS):
        if not found:
            points.schema = points._plain(table, 0).schema.remove_metadata()
        lonlat = points._places(table)
        some = np.isfinite(lonlat).all(1)
        found.append(lonlat[some])
        check_lonlat(np.where(some[:, None], lonlat, 0), points.path, count)
        count += len(lonlat)
    points.lonlat = np.concatenate(found) if found else np.empty((0, 2))
    if not len(points.lonlat):
        raise GeomlError(f"{points.path}: holds no places")
    if len(points.lonlat) < count:
        none = count - len(points.lonlat)
        log.warning("%s: %d of %d rows have no place; left out", points.path, none, count)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _opened(name: str, lonlat: Sequence[str]) -> Points:
    data = None
    if name.startswith(PKG):
        data = read_packed(name, (*CSV, *PARQUET)).data
        digest = hashlib.sha256(data).hexdigest()
    suffix = Path(name).suffix.lower()
    if suffix in CSV:
        points = Points(name, "", "csv", data=data)
        try:
            names = list(next(iter(points._tables(1))).column_names)
        except (pa.ArrowInvalid, StopIteration) as error:
            raise GeomlError(f"{name}: no table that can be read ({_line(error)})") from None
        points.columns = coordinate_columns(names, lonlat, name)
    elif suffix in PARQUET:
        points = _parquet(name, data, lonlat)
    else:
        points = _vector(name, lonlat)
    points.digest = digest if data is not None else digest_vectors(name)
    return points


def _parquet(name: str, data: bytes | None, lonlat: Sequence[str]) -> Points:
    try:
        file = parquet.ParquetFile(BytesIO(data) if data is not None else name)
        told = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise GeomlError(f"{name}: not readable as parquet ({_line(error)})") from None
    names, primary = file.schema_arrow.names, told.get("primary_column")
    if lonlat or primary is None:
        return Points(
            name, "", "parquet", columns=coordinate_columns(names, lonlat, name), data=data
        )
    column = told["columns"][primary]
    if column.get("encoding") != "WKB":
        raise GeomlError(f"{name}: geometry in {column.get('encoding')}; only WKB is read")
    crs = column.get("crs", LONLAT)
    return Points(name, "", "parquet", primary, _turn(crs, name), data=data)


def _vector(name: str, lonlat: Sequence[str]) -> Points:
    try:
        if len(layers := pyogrio.list_layers(name)) > 1:
            names = ", ".join(str(row[0]) for row in layers)
            raise GeomlError(f"{name}: has several layers ({names}); take one out with ogr2ogr")
        about = pyogrio.read_info(name)
    except (DataSourceError, DataLayerError) as error:
        raise GeomlError(f"{name}: no table of places ({_line(error)})") from None
    if lonlat or not about["geometry_type"]:
        columns = coordinate_columns(list(about["fields"]), lonlat, name)
        return Points(name, "", "vector", columns=columns)
    geometry = about.get("geometry_name") or "wkb_geometry"
    return Points(name, "", "vector", geometry, _turn(about["crs"], name))


def _turn(crs: Any, name: str) -> Transformer | None:
    """What brings coordinates to longitude, latitude; None where they are."""
    if crs is None:
        raise GeomlError(f"{name}: no CRS; give it one: ogr2ogr -a_srs EPSG:CODE out.gpkg {name}")
    try:
        found = CRS.from_user_input(crs)
    except CRSError as error:
        raise GeomlError(f"{name}: a CRS that is not known ({_line(error)})") from None
    if found == CRS.from_user_input(LONLAT) or found == CRS.from_epsg(4326):
        return None  # x is longitude in a file of either
    return Transformer.from_crs(found, LONLAT, always_xy=True)
