"""Find scenes in a catalog and keep the pixels of an area: search, choose, crop, describe."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import shapely

from geoml_cli.errors import NothingMatched, UsageMistake
from geoml_cli.formats.items import NAME, anchor, assets_of, collection_of, read_collection
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.views import RESAMPLING
from geoml_cli.formats.web import Access, unsigned
from geoml_cli.geo.bounds import parse_bbox
from geoml_cli.geo.choice import Choice
from geoml_cli.geo.cql import parse_filter
from geoml_cli.geo.query import Query, parse_sort, parse_times
from geoml_cli.manners import Manners
from geoml_cli.stages.behind import digest_all, inputs_of, say_plan
from geoml_cli.stages.catalog import Hit, Trouble, count, read_area, search
from geoml_cli.stages.cursor import Cursor, cursor_of, key_of
from geoml_cli.stages.grids import target_of
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.keep import keep_all, sweep
from geoml_cli.stages.told_items import kept_items, told_items
from geoml_cli.stages.wants import Wish, layers_of, wanted

log = logging.getLogger("geoml")
NO_FOLDER = (".json", ".geojson", ".ndjson", ".tif", ".tiff", ".parquet", ".zip")


def run(
    catalog: str,
    out: str | None = None,
    *,
    source: str | None = None,
    collections: tuple[str, ...] = (),
    bbox: str | None = None,
    intersects: str | None = None,
    datetime: str | None = None,
    ids: str | None = None,
    max_cloud: float | None = None,
    filter: str | None = None,
    sort: str | None = None,
    limit: int | None = None,
    latest: int | None = None,
    per_month: int | None = None,
    per_cell: bool = False,
    cover: bool = False,
    since: str | None = None,
    cursor: str | None = None,
    bands: str | None = None,
    mask: str | None = None,
    raw: bool = False,
    whole: bool = False,
    crs: str | None = None,
    resolution: float | None = None,
    like: str | None = None,
    resampling: str | None = None,
    items_only: bool = False,
    matched: bool = False,
    retries: int = 5,
    timeout_s: float = 60,
    manners: Manners = Manners(),
) -> None:
    """Write a folder of scenes; see `geoml fetch --help` for what each argument means."""
    wish = Wish(
        bands=_names(bands),
        mask=_names(mask),
        raw=raw,
        whole=whole,
        target=target_of(crs, resolution, like),
        resampling=resampling,
    )
    _check(out, wish, items_only or matched)
    if catalog == "-" and intersects == "-":
        raise UsageMistake("catalog and --intersects both read stdin; put one into a file")
    start, end = parse_times(datetime) if datetime is not None else (None, None)
    area, trouble = read_area(bbox, intersects), Trouble(manners.keep_going)
    choice = Choice(parse_sort(sort) if sort else (), per_month, latest, per_cell, cover)
    asked = Query(
        href="",
        collections=collections,
        area=area,
        start=start,
        end=end,
        ids=_names(ids),
        max_cloud=max_cloud,
        filter=parse_filter(filter) if filter else None,
        sort=choice.sort,
        limit=limit,
        tries=retries + 1,
        timeout_s=timeout_s,
        trouble=trouble,
    )
    if matched:
        print(count(catalog, asked, source))
        return
    track = _track(since, cursor, out, catalog, asked)
    kept, skip = [], None
    if track:
        kept = kept_items(out, track.forget) if out else []
        asked, skip = track.narrowed(asked), track.skip
    hits = search(catalog, asked, source, choice, skip)
    if track and not hits:
        log.info("%s: nothing new", unsigned(catalog))
    if items_only or not hits:
        _print_items(hits, manners if not items_only else replace(manners, ndjson=True))
        _advance(track, hits, set(), manners)
        return
    assert out
    replaced = {key_of(hit.item) for hit in hits}
    kept = [item for item in kept if key_of(item) not in replaced]
    access = Access(tries=retries + 1, timeout_s=timeout_s)
    wants = digest_all(wanted(hits, wish, trouble, kept), trouble, manners.jobs, access)
    inputs = inputs_of(catalog, asked, hits, wants, intersects, like)
    inputs += [Input("kept", "kept", sha256_of(kept))] if kept else []
    arguments = {
        "collections": sorted(set(collections)),
        "bbox": list(parse_bbox(bbox)) if bbox else None,
        # a length of time is what was asked for, not when that was
        "datetime": datetime if "P" in (datetime or "").upper() else _texts(start, end),
        "ids": sorted(asked.ids),
        "max_cloud": max_cloud,
        "filter": asked.filter,
        "sort": [list(pair) for pair in choice.sort],
        "limit": limit,
        "latest": latest,
        "per_month": per_month,
        "per_cell": per_cell,
        "cover": cover,
        "since": since,
        "bands": list(wish.bands),
        "mask": sorted(wish.mask),
        "raw": raw,
        "whole": whole,
        "crs": wish.target and wish.target.crs,
        "resolution": resolution,
        "resampling": resampling,
    }
    if manners.dry_run:
        plan(manners, say_plan(wants, area, out, manners.jobs, access))
        return
    where = area and sha256_of(shapely.to_wkb(shapely.normalize(area), hex=True))
    marks = {want.member: want.fingerprint(where) for want in wants + layers_of(wants)}
    try:
        with Job("fetch", out, "scenes", NAME, arguments, inputs, manners, mixed=True) as job:
            job.failed += trouble.names
            if not job.done:
                found = keep_all(job, wants, area, marks, access)
                items = told_items(job, hits, found, marks, kept)
                sweep(job, items)
                job.commit(collection_of(items))
    except NothingMatched as error:
        if not track:
            raise
        log.info("%s: nothing new: %s", unsigned(catalog), error)
        _advance(track, hits, trouble.scenes, manners)
        _print_items([], manners)
        return
    failed = {want.hit.item["id"] for want in wants if want.name in job.failed}
    _advance(track, hits, failed | trouble.scenes, manners)
    _report(job)


def _check(out: str | None, wish: Wish, looks: bool) -> None:
    if out is None and not looks:
        raise UsageMistake("name where to write: -o scenes/ (or --items-only, --matched)")
    if out and looks:
        raise UsageMistake(f"-o {out}: --items-only and --matched write no scenes; leave it out")
    if out and Path(out).suffix.lower() in NO_FOLDER:
        raise UsageMistake(f"-o {out}: fetch writes a folder; name one, such as scenes/")
    if wish.whole and (wish.mask or wish.target or wish.raw):
        raise UsageMistake("--whole: copies files as they are; no --mask, --raw, grid beside it")
    if wish.resampling and not wish.target:
        raise UsageMistake("--resampling: nothing is resampled without --resolution or --like")
    if wish.resampling and wish.resampling not in RESAMPLING:
        raise UsageMistake(f"--resampling {wish.resampling}: one of {', '.join(RESAMPLING)}")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(n.strip() for n in (text or "").split(",") if n.strip()))


def _texts(*times: Any) -> list[str | None]:
    return [when and when.isoformat() for when in times]


def _track(
    since: str | None, cursor: str | None, out: str | None, catalog: str, asked: Query
) -> Cursor | None:
    """What keeps account of the scenes that earlier runs brought."""
    if not since:
        if cursor:
            raise UsageMistake("--cursor: keeps account for --since last; give both")
        return None
    if since != "last":
        raise UsageMistake(f"--since {since}: write --since last; times go with --datetime")
    if not cursor and not out:
        raise UsageMistake("--since last: name the file that keeps account, --cursor FILE")
    return cursor_of(cursor or f"{(out or '').rstrip('/')}.cursor.json", catalog, asked)


def _advance(track: Cursor | None, hits: list[Hit], lost: set[str], manners: Manners) -> None:
    """Note what has been brought; what of it failed, by the scene's id, has not."""
    if track and not manners.dry_run:
        track.note([hit.item for hit in hits if hit.item["id"] not in lost])
        track.save()


def _print_items(hits: list[Hit], manners: Manners) -> None:
    if manners.ndjson:
        for hit in hits:
            print(json.dumps(hit.item, sort_keys=True))
    elif manners.json:
        print(json.dumps({"written": [], "failed": [], "up_to_date": True, "scenes": 0}))


def _report(job: Job) -> None:
    items = read_collection(job.out)["features"]
    assets = assets_of(items)
    size = sum(asset["file:size"] for asset in assets)
    records = anchor(items, os.path.relpath(job.out))
    job.report([job.stamp], records, scenes=len(items), assets=len(assets), bytes=size)
