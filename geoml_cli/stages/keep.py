"""Copies of assets in the part folder: several at a time, taken over where an earlier run made them."""

import logging
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import shapely

from geoml_cli.errors import GeomlError, NothingMatched, SomeFailed
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.copies import utc_text
from geoml_cli.formats.crop import Cut, copy, lay_cut
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import read_collection
from geoml_cli.formats.raster import Raster
from geoml_cli.formats.stamp import member_path, read_record
from geoml_cli.geo.bounds import cover
from geoml_cli.geo.grid import Window
from geoml_cli.manners import Manners
from geoml_cli.stages.catalog import Want
from geoml_cli.stages.job import Job

log = logging.getLogger("geoml")
MARK = "geoml:fingerprint"  # of an asset: a later run takes the file over if it would make the same
LEFT = (".raw", ".done", ".wide.raw")  # what an unfinished copy leaves beside itself


def keep_all(
    job: Job, wants: list[Want], area: shapely.Geometry | None, marks: dict[str, str]
) -> list[Want]:
    """Copy every asset into the part folder, `jobs` at a time; gives those with ground in the area.

    `marks` are the copies' fingerprints by member.
    """
    old, halted = _old_copies(job.out), threading.Event()

    def check() -> None:
        job.check()
        if halted.is_set():
            raise GeomlError("another asset failed")  # nobody hears it

    def keep(want: Want) -> bool:
        check()
        target = job.part / want.member
        if target.is_file() or _take_over(job, want, old.get(want.member), marks):
            return True
        cut = lay(want, area)
        if cut is None:
            return False
        target.parent.mkdir(exist_ok=True)
        copy(cut, target, check)
        return True

    done: dict[str, bool | None] = {}
    with ThreadPoolExecutor(job.manners.jobs) as pool:
        futures = {pool.submit(keep, want): want for want in wants}
        try:
            for future in _shown(as_completed(futures), len(futures), job.manners):
                want = futures[future]
                done[want.member] = job.attempt(want.name, future.result)
        except BaseException:
            halted.set()
            pool.shutdown(cancel_futures=True)
            _sweep(job, wants)
            raise
    job.failed.sort()
    failed = [want for want in wants if done[want.member] is None]
    for left in (job.part / want.member for want in failed):
        for suffix in LEFT:  # it must not become part of the artifact
            left.with_suffix(suffix).unlink(missing_ok=True)
    _sweep(job, failed)
    kept = [want for want in wants if done[want.member]]
    _say_outside(wants, done)
    if not kept and job.failed:
        raise SomeFailed(f"nothing is fetched: all {len(job.failed)} inputs failed")
    if not kept:
        raise NothingMatched("no pixels in the area: scenes match by their outlines only")
    return kept


def lay(want: Want, area: shapely.Geometry | None) -> Cut | None:
    """The window to copy of an asset, None where its pixels lie outside the area."""

    def window(raster: Raster) -> Window | None:
        grid = raster.grid
        return Window(0, 0, grid.height, grid.width) if area is None else cover(area, grid)

    cut = lay_cut(want.hit.source.open(want.asset), bands_of_asset(want.asset), window)
    if cut is None or not want.when or "TIFFTAG_DATETIME" in cut.tags:
        return cut
    when = datetime.fromisoformat(utc_text(want.when, want.hit.item))
    return replace(cut, tags=cut.tags | {"TIFFTAG_DATETIME": when.strftime("%Y:%m:%d %H:%M:%S")})


def _old_copies(out: Path) -> dict[str, tuple[str, str]]:
    """Fingerprint and sha256 of the copies in an earlier output, by member."""
    try:
        record = read_record(out) or {}
        if record.get("verb") != "fetch":
            return {}
        assets = [a for item in read_collection(out)["features"] for a in item["assets"].values()]
        members = record.get("members", {})
        names = {asset["href"].removeprefix("./"): asset.get(MARK) for asset in assets}
        return {name: (mark, members[name]) for name, mark in names.items() if name in members}
    except (GeomlError, KeyError, TypeError, AttributeError):  # damaged: all is read again
        return {}


def _take_over(job: Job, want: Want, old: tuple[str, str] | None, marks: dict[str, str]) -> bool:
    """Bring a file of the earlier output into the part folder, if it is what would be made."""
    if not old or old[0] != marks[want.member]:
        return False
    try:
        source, target = member_path(job.out, want.member), job.part / want.member
        if digest_file(source) != old[1]:
            return False
        target.parent.mkdir(exist_ok=True)
        with whole_file(target) as temporary:
            shutil.copyfile(source, temporary)
    except (GeomlError, FileNotFoundError):
        return False
    return True


def _sweep(job: Job, wants: list[Want]) -> None:
    """Remove the folders that nothing was put into."""
    for folder in {(job.part / want.member).parent for want in wants}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _shown(futures: Iterator[Future[bool]], total: int, manners: Manners) -> Iterable[Future[bool]]:
    """The same, with a bar on a terminal."""
    if manners.quiet or not sys.stderr.isatty():
        return futures
    from tqdm import tqdm

    return tqdm(futures, total=total, unit="asset", leave=False)


def _say_outside(wants: list[Want], done: dict[str, bool | None]) -> None:
    scenes: dict[int, list[bool | None]] = {}
    for want in wants:
        scenes.setdefault(id(want.hit), []).append(done[want.member])
    outside = sum(all(state is False for state in states) for states in scenes.values())
    if outside:
        log.warning(
            "%d of %d scenes have no pixels in the area and are left out", outside, len(scenes)
        )
