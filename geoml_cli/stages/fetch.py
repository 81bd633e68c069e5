"""Find scenes in a catalog and keep the pixels of an area: search, match, crop, describe."""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import shapely

from geoml_cli.errors import GeomlError, NothingMatched, Stopped, UsageMistake
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.copies import asset_words, declare, item_without_files
from geoml_cli.formats.crop import Cut, copy, lay_cut
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import NAME, add_raster, anchor, collection_of, read_collection
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.raster import Raster, describe
from geoml_cli.formats.stamp import Input, stamp_in
from geoml_cli.formats.web import unsigned
from geoml_cli.geo.bounds import cover
from geoml_cli.geo.grid import Window
from geoml_cli.geo.query import Query, parse_times
from geoml_cli.manners import Manners
from geoml_cli.stages import catalog as catalogs
from geoml_cli.stages.catalog import Want
from geoml_cli.stages.job import Job, plan

log = logging.getLogger("geoml")
FILES = (".json", ".geojson", ".ndjson", ".tif", ".tiff", ".parquet", ".zip")
MARK = "geoml:fingerprint"  # in an asset: what decided its bytes


@dataclass
class Found:
    """What a search gave, and what went wrong on the way under --keep-going."""

    items: list[dict[str, Any]] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    opens: dict[int, Callable[[dict[str, Any]], str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def run(
    catalog: str,
    out: str,
    *,
    source: str | None = None,
    collections: tuple[str, ...] = (),
    bbox: str | None = None,
    intersects: str | None = None,
    datetime: str | None = None,
    assets: str | None = None,
    limit: int | None = None,
    manners: Manners = Manners(),
) -> None:
    """Write a folder of scenes; see `geoml fetch --help` for what each argument means."""
    ...
