"""Find scenes in a catalog and keep the pixels of an area: search, crop, describe."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import shapely

from geoml_cli.errors import GeomlError, SomeFailed, UsageMistake
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.copies import asset_words, declare, item_without_files
from geoml_cli.formats.items import NAME, add_raster, anchor, collection_of, read_collection
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.raster import describe
from geoml_cli.geo.bounds import parse_bbox
from geoml_cli.geo.query import Query, parse_times
from geoml_cli.manners import Manners
from geoml_cli.stages.catalog import (
    Hit,
    Trouble,
    Want,
    choose,
    digest,
    inputs_of,
    read_area,
    search,
)
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.keep import MARK, keep_all, lay

NO_FOLDER = (".json", ".geojson", ".ndjson", ".tif", ".tiff", ".parquet", ".zip")


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
    if Path(out).suffix.lower() in NO_FOLDER:
        raise UsageMistake(f"-o {out}: fetch writes a folder; name one, such as scenes/")
    keys = list(dict.fromkeys(key.strip() for key in (assets or "").split(",") if key.strip()))
    start, end = parse_times(datetime) if datetime is not None else (None, None)
    area = read_area(bbox, intersects)
    trouble = Trouble(manners.keep_going)
    asked = Query("", collections, area, start, end, trouble=trouble)
    hits = search(catalog, asked, source, limit)
    wants = _digested(choose(hits, keys, trouble), trouble, manners.jobs)
    inputs = inputs_of(catalog, asked, hits, wants, intersects)
    arguments = {
        "collections": sorted(set(collections)),
        "bbox": list(parse_bbox(bbox)) if bbox else None,
        "datetime": [when and when.isoformat() for when in (start, end)],
        "assets": sorted(keys),
        "limit": limit,
    }
    if manners.dry_run:
        plan(manners, _say_plan(wants, area, out, manners.jobs))
        return
    where = area and sha256_of(shapely.to_wkb(shapely.normalize(area), hex=True))
    marks = {want.member: want.fingerprint(where) for want in wants}
    with Job("fetch", out, "scenes", NAME, arguments, inputs, manners) as job:
        job.failed += trouble.names
        if not job.done:
            kept = keep_all(job, wants, area, marks)
            job.commit(describe_all(job, hits, kept, marks))
    _report(job)


def describe_all(
    job: Job, hits: list[Hit], kept: list[Want], marks: dict[str, str]
) -> dict[str, Any]:
    """The ItemCollection of the copies in the part folder."""
    items = []
    for hit in hits:
        mine = [want for want in kept if want.hit is hit]
        if not mine:
            continue
        item = item_without_files(hit.item, job.out)
        for want in mine:
            said = [
                {k: v for k, v in b.items() if k != "nodata"} for b in bands_of_asset(want.asset)
            ]
            raster = describe(str(job.part / want.member), said)
            words = asset_words(want.asset) | {MARK: marks[want.member]}
            add_raster(item, want.key, raster, job.part, **words)
        declare(item, hit.item)
        items.append(item)
    return collection_of(items)


def _digested(wants: list[Want], trouble: Trouble, jobs: int) -> list[Want]:
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(digest, wants))
    for error in found:
        if isinstance(error, GeomlError):
            trouble(error)
    good = [want for want in found if isinstance(want, Want)]
    if not good:
        raise SomeFailed(f"nothing is fetched: all {len(trouble.names)} inputs failed")
    return good


def _say_plan(
    wants: list[Want], area: shapely.Geometry | None, out: str, jobs: int
) -> Iterator[str]:
    with ThreadPoolExecutor(jobs) as pool:
        cuts = list(pool.map(lambda want: lay(want, area), wants))
    laid = [(want, cut) for want, cut in zip(wants, cuts, strict=True) if cut]
    pixels = sum(cut.window.height * cut.window.width for _, cut in laid)
    size = sum(cut.layout.nbytes for _, cut in laid)
    scenes = len({id(want.hit) for want, _ in laid})
    yield (
        f"write {scenes} scenes, {len(laid)} assets, {pixels} pixels,"
        f" {size} bytes before compression, to {out}"
    )
    for want, cut in laid:
        yield f"read {want.name}: {cut.window.height} x {cut.window.width} px, {len(cut.raster.bands)} bands"


def _report(job: Job) -> None:
    items = read_collection(job.out)["features"]
    assets = [asset for item in items for asset in item["assets"].values()]
    size = sum(asset["file:size"] for asset in assets)
    records = anchor(items, os.path.relpath(job.out))
    job.report([job.stamp], records, scenes=len(items), assets=len(assets), bytes=size)
