"""Embeddings: one GeoParquet, a vector a row, written and read in blocks of rows.

The column `embedding` is a fixed-size list of float32, float16 or int8 (physical = stored * scale, one
scale a file). What they are of is in the key `embedding` of the file's record (`geoml` in its metadata).
Files of other makers are read too: any GeoParquet with one column of lists of numbers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import geopandas
import numpy as np
import pandas
import pyarrow as pa
import shapely
from pyarrow import parquet

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.jsonfile import canonical
from geoml_cli.formats.vectors import GPKG, PARQUET, write_vectors
from geoml_cli.geo.grid import LONLAT

COLUMN = "embedding"
NAMES = ("embedding", "embeddings", "vector", "vectors", "emb", "features")
IDS = ("id", "item_id", "chip_id", "chips_id", "uuid", "source_id", "location")
TYPES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}
ROWS = 8192  # of a row group: 8 MB of 256 float32
SQLITE_MOST = 1900  # columns of a GeoPackage


def is_embeddings(path: str) -> bool:
    """Whether a file is GeoParquet with a column of vectors."""
    file = Path(path)
    if file.suffix.lower() not in PARQUET or not file.is_file():
        return False
    try:
        return _column(parquet.read_schema(path)) is not None
    except (pa.ArrowException, OSError, ValueError):
        return False


def _column(schema: pa.Schema) -> str | None:
    """The column that holds vectors: one of a usual name, or the only one of lists of floats."""
    lists = [
        f.name
        for f in schema
        if (
            pa.types.is_fixed_size_list(f.type)
            or pa.types.is_list(f.type)
            or pa.types.is_large_list(f.type)
        )
        and (pa.types.is_floating(f.type.value_type) or pa.types.is_integer(f.type.value_type))
    ]
    usual = [name for name in NAMES if name in lists]
    floats = [n for n in lists if pa.types.is_floating(schema.field(n).type.value_type)]
    return usual[0] if usual else floats[0] if len(floats) == 1 else None


@dataclass(frozen=True)
class Embeddings:
    """A file of embeddings, opened; nothing of its rows is held."""

    path: str
    file: parquet.ParquetFile
    column: str
    about: Mapping[str, Any]  # key `embedding` of the record; empty for a file of others
    width: int

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.file.metadata.num_rows)

    @property
    def scale(self) -> float:
        """What stored values are multiplied by."""
        return float(self.about.get("scale") or 1.0)

    @property
    def space(self) -> str | None:
        """What two files must share for their vectors to be comparable; None where it is not known."""
        return self.about.get("space")

    @property
    def about_record(self) -> dict[str, Any]:
        """Arguments of the command that made the file; none of a file of others."""
        text = (self.file.schema_arrow.metadata or {}).get(b"geoml")
        return dict(json.loads(text)["arguments"]) if text else {}

    @cached_property
    def id_column(self) -> str | None:
        """The column that names rows."""
        return next((n for n in IDS if n in self.file.schema_arrow.names), None)

    def blocks(self, rows: int = ROWS) -> Iterator[np.ndarray]:
        """Vectors (n, D) float32, `rows` at a time, in order."""
        for batch in self.file.iter_batches(rows, columns=[self.column]):
            yield self.matrix(batch.column(0))

    def matrix(self, lists: Any) -> np.ndarray:
        """Vectors (n, D) float32 of a piece of the column."""
        if lists.null_count:
            raise GeomlError(
                f"{self.path}: {lists.null_count} rows have no embedding; leave them out"
            )
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        if len(flat) != len(lists) * self.width:
            raise GeomlError(f"{self.path}: embeddings are not all of {self.width} dimensions")
        found = flat.reshape(-1, self.width).astype(np.float32)
        return found * np.float32(self.scale) if self.scale != 1 else found

    def vectors(self) -> np.ndarray:
        """All vectors (n, D) float32."""
        out = np.empty((self.count, self.width), np.float32)
        start = 0
        for block in self.blocks():
            out[start : start + len(block)] = block
            start += len(block)
        if not np.isfinite(out).all():
            raise GeomlError(f"{self.path}: some embeddings are not finite")
        return out

    def columns(self) -> geopandas.GeoDataFrame:
        """As `table`, also of a file that is no GeoParquet: rows without a place."""
        if (self.file.schema_arrow.metadata or {}).get(b"geo"):
            return self.table()
        names = [n for n in self.file.schema_arrow.names if n != self.column]
        plain = self.file.read(columns=names).to_pandas(types_mapper=pandas.ArrowDtype)
        ids = plain[self.id_column] if self.id_column else pandas.Series(range(self.count))
        plain = plain.drop(columns=["id", "geometry"], errors="ignore")
        plain.insert(0, "id", ids.astype(str).to_numpy(object))
        return geopandas.GeoDataFrame(plain, geometry=[None] * self.count, crs=LONLAT)

    def table(self) -> geopandas.GeoDataFrame:
        """All columns but the vectors; `id` is text, the row's number where there is none. CRS84."""
        names = [n for n in self.file.schema_arrow.names if n != self.column]
        told = json.loads((self.file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
        primary = told.get("primary_column")
        if primary is None or primary not in names:
            raise GeomlError(f"{self.path}: no GeoParquet; its rows have no place")
        try:
            table = geopandas.read_parquet(self.path, columns=names)
        except (ValueError, OSError) as error:
            raise GeomlError(f"{self.path}: not readable as GeoParquet ({error})") from None
        if table.crs is not None and table.crs != LONLAT:
            table = table.to_crs(LONLAT)
        if table.geometry.name != "geometry":
            table = table.rename_geometry("geometry")
        ids = table[self.id_column].astype(str) if self.id_column else table.index.astype(str)
        table["id"] = np.asarray(ids, object)
        return table


def open_embeddings(path: str) -> Embeddings:
    """Open a file of embeddings, ours or another's."""
    if not Path(path).is_file():
        raise GeomlError(f"{path}: no such file; `geoml embed` writes one")
    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise GeomlError(f"{path}: not readable as GeoParquet ({error})") from None
    schema = file.schema_arrow
    name = _column(schema)
    if name is None:
        raise GeomlError(f"{path}: holds no column of vectors; it has {', '.join(schema.names)}")
    text = (schema.metadata or {}).get(b"geoml")
    about = json.loads(text).get("embedding", {}) if text else {}
    kind = schema.field(name).type
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
    else:
        first = next(file.iter_batches(1, columns=[name]), None)
        width = len(first.column(0)[0]) if first is not None and first.num_rows else 0
    if not width or not file.metadata.num_rows:
        raise GeomlError(f"{path}: holds no embeddings")
    return Embeddings(path, file, name, about, width)


class Extent:
    """Kinds and bounds of the geometries of a file, which its head tells before the first row."""

    def __init__(self) -> None:
        self.rows = 0
        self._kinds: set[str] = set()
        self._bounds: list[np.ndarray] = []

    def add(self, table: geopandas.GeoDataFrame) -> None:
        """Take note of some rows."""
        shapes = table.geometry.to_numpy()
        self.rows += len(shapes)
        self._kinds |= {shape.geom_type for shape in shapes if shape is not None}
        bounds = shapely.total_bounds(shapes)
        if np.isfinite(bounds).all():
            self._bounds.append(bounds)

    def said(self) -> dict[str, Any]:
        """The column in the key `geo`; longitude and latitude are the default there."""
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(self._kinds)}
        if self._bounds:
            each = np.stack(self._bounds)
            low, high = each.min(0), each.max(0)
            column["bbox"] = [float(v) for v in (low[0], low[1], high[2], high[3])]
        return column


class EmbeddingsWriter:
    """Writes embeddings block by block, whole or not at all; with equal rows, equal bytes."""

    def __init__(
        self, path: Path, dtype: str, scale: float, record: Mapping[str, Any], extent: "Extent"
    ) -> None:
        """`record` is the file's, with the key `embedding`; vectors are stored as value / scale."""
        self.path, self.dtype, self.scale = path, dtype, scale
        geo = {
            "version": "1.1.0",
            "primary_column": "geometry",
            "columns": {"geometry": extent.said()},
        }
        self._told = {"geo": json.dumps(geo), "geoml": canonical(dict(record)).decode()}
        self._whole = whole_file(path)
        self._temporary = self._whole.__enter__()
        self._file: parquet.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self.rows = 0

    def write(self, table: geopandas.GeoDataFrame, vectors: np.ndarray) -> None:
        """Write rows: their columns, a geometry (CRS84) and vectors (n, D)."""
        plain = table.drop(columns="geometry")
        arrow = pa.Table.from_pandas(plain, preserve_index=False)
        if self._schema is not None:
            known = [f for f in self._schema if f.name in arrow.column_names]
            arrow = arrow.select([f.name for f in known]).cast(pa.schema(known))
        shapes = table.geometry.to_numpy()
        wkb = pa.array(shapely.to_wkb(shapes, flavor="iso"), pa.binary())
        stored = _stored(vectors, self.dtype, self.scale)
        flat = pa.array(np.ascontiguousarray(stored).reshape(-1), TYPES[self.dtype])
        lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        arrow = arrow.append_column("geometry", wkb).append_column(COLUMN, lists)
        if self._file is None:
            self._schema = arrow.schema.remove_metadata().with_metadata(self._told)
            self._file = parquet.ParquetWriter(self._temporary, self._schema, compression="zstd")
        self._file.write_table(arrow.cast(self._schema))
        self.rows += len(table)

    def close(self) -> None:
        """Finish the file."""
        if self._file is None:
            raise GeomlError(f"{self.path}: nothing to write")
        self._file.close()
        self._whole.__exit__(None, None, None)

    def __enter__(self) -> "EmbeddingsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        if self._file is not None:
            self._file.close()
        self._whole.__exit__(kind, error, trace)


def _stored(vectors: np.ndarray, dtype: str, scale: float) -> np.ndarray:
    if dtype == "int8":
        return np.clip(np.rint(vectors / np.float32(scale)), -127, 127).astype(np.int8)
    return vectors.astype(dtype)


def scale_of(blocks: Iterator[np.ndarray]) -> float:
    """The scale of int8 that holds every vector: the largest magnitude is 127."""
    most = max((float(np.abs(block).max()) for block in blocks if block.size), default=0.0)
    return most / 127 if most > 0 else 1.0


def write_flat(
    path: Path, table: geopandas.GeoDataFrame, vectors: np.ndarray, record: Mapping[str, Any]
) -> None:
    """Write a GeoPackage, a column a dimension (d000, d001, ...), for programs without lists."""
    if path.suffix.lower() != GPKG:
        raise UsageMistake(f"{path}: write NAME.parquet or NAME.gpkg")
    if vectors.shape[1] + len(table.columns) > SQLITE_MOST:
        raise GeomlError(
            f"{path}: a GeoPackage has no room for {vectors.shape[1]} columns; give --reduce pca:64, or NAME.parquet"
        )
    names = dimension_names(vectors.shape[1])
    columns = {name: vectors[:, i].astype(np.float32) for i, name in enumerate(names)}
    rest = table.drop(columns="geometry").to_dict("series")
    write_vectors(
        path, geopandas.GeoDataFrame({**rest, **columns}, geometry=table.geometry), dict(record)
    )


def dimension_names(width: int) -> Sequence[str]:
    """d000, d001, ..."""
    digits = max(3, len(str(width - 1)))
    return [f"d{i:0{digits}}" for i in range(width)]
