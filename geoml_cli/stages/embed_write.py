"""Rows written as GeoParquet, in blocks, or as a GeoPackage."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas

from geoml_cli.errors import NothingMatched
from geoml_cli.formats.embeddings import EmbeddingsWriter, Extent, open_embeddings, write_flat
from geoml_cli.formats.vectors import GPKG
from geoml_cli.stages.job import Job


def write_parts(
    built: Path, parts: Any, shrink: Any, dtype: str, scale: float, record: dict[str, Any]
) -> int:
    """Write rows as GeoParquet, in blocks, or as a GeoPackage; give their number."""
    if built.suffix == GPKG:
        found = [(table, shrink(np.asarray(z))) for table, z in parts()]
        if not found:
            raise NothingMatched("no valid pixel in what was named")
        table = geopandas.GeoDataFrame(pandas.concat([t for t, _ in found], ignore_index=True))
        write_flat(built, table, np.concatenate([z for _, z in found]), record)
        return len(table)
    extent = Extent()
    for table, _ in parts():
        extent.add(table)
    if not extent.rows:
        raise NothingMatched("no valid pixel in what was named")
    with EmbeddingsWriter(built, dtype, scale, record, extent) as writer:
        for table, z in parts():
            writer.write(table, shrink(np.asarray(z)))
    return extent.rows


def said_of(job: Job) -> dict[str, Any]:
    """The record of a file of rows for --ndjson."""
    if job.out.suffix.lower() == GPKG:
        return {"path": job.named}
    opened = open_embeddings(str(job.out))
    found = {"path": job.named, "rows": opened.count, "dimensions": opened.width}
    return found | {k: opened.about.get(k) for k in ("encoder", "pool", "dtype", "space")}
