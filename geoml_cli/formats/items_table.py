"""STAC items in a table: stac-geoparquet."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.items import features
from geoml_cli.formats.web import read_bytes, unsigned

TABLES = (".parquet", ".geoparquet")


def read_table(href: str) -> Iterator[dict[str, Any]]:
    """The items of a stac-geoparquet file or URL, row by row."""
    import pyarrow
    import pyarrow.parquet
    from stac_geoparquet.arrow import stac_table_to_items

    name = unsigned(href)
    try:
        table = pyarrow.parquet.read_table(BytesIO(read_bytes(href)))
    except FileNotFoundError:
        raise GeomlError(f"{href}: no such file") from None
    except pyarrow.ArrowException as error:
        raise GeomlError(f"{name}: damaged or no Parquet ({error}); write it again") from None
    try:
        for item in stac_table_to_items(table):
            yield features(_without_nulls(item), name)[0]
    except (KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        what = f"{type(error).__name__}: {error}"
        raise GeomlError(f"{name}: no table of STAC items ({what}); see stac-geoparquet") from None


def _without_nulls(item: dict[str, Any]) -> dict[str, Any]:
    """A table has every column in every row: what is null there was not said, time aside."""
    said = item.get("properties") or {}
    plain = {k: v for k, v in said.items() if v is not None or k == "datetime"}
    assets = {
        key: {k: v for k, v in asset.items() if v is not None}
        for key, asset in (item.get("assets") or {}).items()
        if asset and asset.get("href")
    }
    return item | {"properties": plain, "assets": assets}
