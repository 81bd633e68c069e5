"""The items of a fetch: what catalogs say, made true of the copies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.copies import asset_words, declare, item_without_files
from geoml_cli.formats.cut import SCALING
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import add_file, add_raster, assets_of, member_of, place_like
from geoml_cli.formats.raster import Raster, describe, described, opened
from geoml_cli.formats.stamp import member_path
from geoml_cli.stages.catalog import Hit
from geoml_cli.stages.job import Job
from geoml_cli.stages.keep import MARK, earlier, take
from geoml_cli.stages.wants import Want

FILES_SAY = ("nodata", "scale", "offset")  # what a copy holds itself


def told_items(
    job: Job, hits: list[Hit], kept: list[Want], marks: dict[str, str], before: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Items of the copies in the part folder, and those of earlier runs, whose files are brought there."""
    items = list(before)
    members = earlier(job.out)[1] if before else {}
    for name in map(member_of, assets_of(before)):
        if not take(job, name, members[name]):
            raise GeomlError(f"{job.named}/{name}: changed while it was read; run this again")
    made: dict[int, list[Want]] = {}
    for want in kept:
        made.setdefault(id(want.hit), []).append(want)
    looks = {want.member: _look(job.part, want) for want in kept}
    for hit in hits:
        if id(hit) in made:
            items.append(_told(job, hit, made[id(hit)], marks, looks))
    return items


Look = tuple[Raster, list[list[float]]] | None


def _look(folder: Path, want: Want) -> Look:
    """What a copy is, and the scale and offset that were applied to it; None of an entire file."""
    if want.whole:
        return None
    said = [{k: v for k, v in row.items() if k not in FILES_SAY} for row in want.way.said]
    path = str(folder / want.member)
    with opened(path) as dataset:
        return described(dataset, path, said), json.loads(dataset.tags().get(SCALING, "[]"))


def _told(
    job: Job, hit: Hit, wants: list[Want], marks: dict[str, str], looks: dict[str, Look]
) -> dict[str, Any]:
    item = item_without_files(hit.item, job.out)
    for want in wants:
        path, words = job.part / want.member, asset_words(want.asset)
        words |= {MARK: marks[want.member]}
        look = looks[want.member]
        if look is None:
            _add_whole(item, want, path, job.part, words)
            continue
        raster, applied = look
        if applied:
            why = [rule.rule for rule in want.rules] or ["the file or its catalog says so"]
            words["geoml:scaling"] = [
                {"scale": scale, "offset": offset, "rule": why[min(n, len(why) - 1)]}
                for n, (scale, offset) in enumerate(applied)
            ]
        add_raster(item, want.key, raster, job.part, **words)
    place_like(item, hit.item)
    declare(item, hit.item)
    return item


def _add_whole(
    item: dict[str, Any], want: Want, path: Path, folder: Path, words: dict[str, Any]
) -> None:
    """A file as it came: described as a raster where it is one that can be worked on."""
    words |= {"type": want.asset["type"]} if want.asset.get("type") else {}
    try:
        raster = describe(str(path), bands_of_asset(want.asset))
    except GeomlError:
        add_file(item, want.key, path, folder, **words)
    else:
        add_raster(item, want.key, raster, folder, **words)


def kept_items(out: str, forget: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Items of an earlier fetch into a folder whose files are whole; the others are forgotten."""
    folder = Path(out)
    try:
        items, members = earlier(folder)
    except (GeomlError, KeyError, OSError):
        return []
    good = []
    for item in items:
        if all(_whole(folder, member_of(asset), members) for asset in item["assets"].values()):
            good.append(item)
        else:
            forget(item)
    return good


def _whole(folder: Path, name: str, members: dict[str, str]) -> bool:
    try:
        return digest_file(member_path(folder, name)) == members.get(name)
    except (GeomlError, OSError):
        return False
