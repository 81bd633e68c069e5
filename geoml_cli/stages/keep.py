"""Copies of assets in the part folder: several at a time, taken over where an earlier run made them."""

import logging
import os
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geoml_cli.errors import GeomlError, NothingMatched, SomeFailed
from geoml_cli.formats.copies import utc_text
from geoml_cli.formats.crop import copy
from geoml_cli.formats.cut import Cut, lay_cut
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.download import download
from geoml_cli.formats.items import assets_of, member_of, read_collection
from geoml_cli.formats.presets import contradiction, preset_of
from geoml_cli.formats.raster import Raster
from geoml_cli.formats.stamp import member_path, read_record
from geoml_cli.formats.views import Screen
from geoml_cli.formats.web import Access
from geoml_cli.geo.bounds import cover
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.manners import Manners
from geoml_cli.stages.job import NOTE, Job
from geoml_cli.stages.wants import MASKS, Want

log = logging.getLogger("geoml")
MARK = "geoml:fingerprint"  # of an asset: a later run takes the file over if it would make the same
LEFT = (".raw", ".done", ".wide.raw")  # what an unfinished copy leaves beside itself
PARTIAL = (".partial", ".partial.json")
PAUSE_S = 0.2  # between two looks at what asks a waiting thread to stop
RIM_PX = 2  # of a mask layer beyond the area: its pixels may be larger


class Keeper:
    """Makes the copies of a run; its methods are called from several threads."""

    def __init__(
        self,
        job: Job,
        area: shapely.Geometry | None,
        marks: dict[str, str],
        access: Access,
    ) -> None:
        """`marks` are the copies' fingerprints by member."""
        self.job, self.area, self.marks = job, area, marks
        self.access = replace(access, pause=self._pause)
        self.old, self.made = old_copies(job.out), old_copies(job.part)
        self.halted = threading.Event()
        self._masks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._spoilt: dict[str, GeomlError] = {}
        self._said: set[str] = set()

    def check(self) -> None:
        """Raise where the run is to end."""
        self.job.check()
        if self.halted.is_set():
            raise GeomlError("another asset failed")  # nobody hears it

    def _pause(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, PAUSE_S))

    def keep(self, want: Want) -> bool:
        """Bring an asset's copy into the part folder; false where it has no pixels in the area."""
        self.check()
        target = self.job.part / want.member
        if self._is_there(target, self.marks[want.member]) or self._take_over(want):
            return True
        screen = None
        if want.mask:
            if not self._keep_mask(want.mask):
                return False
            assert want.mask.rule
            screen = Screen(str(self.job.part / want.mask.member), want.mask.rule.bad)
        if want.whole:
            self._begin(target, want)
            download(want.path, target, want.asset, want.access(self.access), self.check)
            return True
        want = replace(want, way=replace(want.way, screen=screen))
        cut = lay(want, self.area, self.access)
        if cut is None:
            return False
        try:
            self._begin(target, want)
            self._doubt(want, copy(cut, target, self.check))
        finally:
            cut.reader.close()
        return True

    def _keep_mask(self, mask: Want) -> bool:
        """As `keep`, by the first of the bands that are looked at through it; the others wait."""
        with self._masks[mask.member]:
            if mask.member in self._spoilt:
                raise self._spoilt[mask.member]
            try:
                return self.keep(mask)
            except GeomlError as error:
                self._spoilt[mask.member] = error
                raise

    def _is_there(self, target: Path, mark: str) -> bool:
        """Whether the copy is done; what is left of another one is cleared away."""
        note = target.with_name(target.name + NOTE)
        if note.is_file() and note.read_text() == mark:
            return target.is_file()
        if not note.is_file() and self._was_made(target, mark):
            return True
        if not target.parent.is_dir():
            return False
        for suffix in LEFT:
            target.with_suffix(suffix).unlink(missing_ok=True)
        for left in (target, note, *(target.with_name(target.name + part) for part in PARTIAL)):
            left.unlink(missing_ok=True)
        return False

    def _was_made(self, target: Path, mark: str) -> bool:
        """Whether a run that was killed at its very end, when all was told, made the copy."""
        name = target.relative_to(self.job.part).as_posix()
        told, digest = self.made.get(name, ("", ""))
        return told == mark and target.is_file() and digest_file(target) == digest

    def _begin(self, target: Path, want: Want) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name(target.name + NOTE).write_text(self.marks[want.member])

    def _take_over(self, want: Want) -> bool:
        """Bring a file of the earlier output into the part folder, if it is what would be made."""
        old = self.old.get(want.member)
        if not old or old[0] != self.marks[want.member]:
            return False
        return take(self.job, want.member, old[1])

    def _doubt(self, want: Want, values: np.ndarray) -> None:
        """Say where pixels contradict what is said of them; once a scene."""
        preset = preset_of(want.hit.item)
        names = want.way.names or (want.key,)
        for rule, some, name in zip(want.rules, values, names, strict=False):
            said = contradiction(rule, want.hit.item, preset, some, name)
            if said and want.hit.item["id"] not in self._said:
                self._said.add(want.hit.item["id"])
                log.warning("%s", said)


def keep_all(
    job: Job,
    wants: list[Want],
    area: shapely.Geometry | None,
    marks: dict[str, str],
    access: Access,
) -> list[Want]:
    """Copy every asset into the part folder, `jobs` at a time; gives those with ground in the area."""
    keeper = Keeper(job, area, marks, access)
    done: dict[str, bool | None] = {}
    with ThreadPoolExecutor(job.manners.jobs) as pool:
        futures = {pool.submit(keeper.keep, want): want for want in wants}
        try:
            for future in _shown(as_completed(futures), len(futures), job.manners):
                want = futures[future]
                done[want.member] = job.attempt(want.name, future.result)
        except BaseException:
            keeper.halted.set()
            pool.shutdown(cancel_futures=True)
            raise
    job.failed.sort()
    kept = [want for want in wants if done[want.member]]
    _say_outside(wants, done)
    if not kept and job.failed:
        raise SomeFailed(f"nothing is fetched: all {len(job.failed)} inputs failed")
    if not kept:
        raise NothingMatched("no pixels in the area: scenes match by their outlines only")
    return kept


def lay(want: Want, area: shapely.Geometry | None, access: Access) -> Cut | None:
    """What to copy of an asset, None where its pixels lie outside the area."""

    def grid(raster: Raster) -> Grid | None:
        source = raster.grid
        if want.way.target:
            return want.way.target.grid(source, area)
        window = whole_of(source) if area is None else cover(area, source)
        if window and want.rule:
            window = _wider(window, source, _rim(want, source, area))
        return source.crop(window) if window else None

    cut = lay_cut(want.path, want.way, grid, want.access(access), want.head)
    if cut is None or not want.when or "TIFFTAG_DATETIME" in cut.tags:
        return cut
    when = datetime.fromisoformat(utc_text(want.when, want.hit.item))
    return replace(cut, tags=cut.tags | {"TIFFTAG_DATETIME": when.strftime("%Y:%m:%d %H:%M:%S")})


def whole_of(grid: Grid) -> Window:
    """All pixels of a grid."""
    return Window(0, 0, grid.height, grid.width)


def earlier(out: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Items of an earlier fetch, and the sha256 of its members; none where there is none."""
    record = read_record(out) or {}
    if record.get("verb") != "fetch":
        return [], {}
    return read_collection(out)["features"], record.get("members", {})


def old_copies(out: Path) -> dict[str, tuple[str, str]]:
    """Fingerprint and sha256 of the copies in an earlier output, by member."""
    try:
        items, members = earlier(out)
        names = {member_of(asset): asset.get(MARK, "") for asset in assets_of(items)}
        return {name: (mark, members[name]) for name, mark in names.items() if name in members}
    except (GeomlError, KeyError, TypeError, AttributeError):  # damaged: all is read again
        return {}


def take(job: Job, member: str, digest: str) -> bool:
    """Bring a file of the earlier output into the part folder, the very same one, if it is whole."""
    try:
        source, target = member_path(job.out, member), job.part / member
        if digest_file(source) != digest:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # a disk without links
            shutil.copy2(source, target)
    except (GeomlError, FileNotFoundError):
        return False
    return True


def sweep(job: Job, items: list[dict[str, Any]]) -> None:
    """Remove from the part folder all that is no file of the items."""
    members = {member_of(asset) for asset in assets_of(items)}
    shutil.rmtree(job.part / MASKS, ignore_errors=True)
    for folder in [path for path in job.part.iterdir() if path.is_dir()]:
        for path in folder.iterdir():
            if path.relative_to(job.part).as_posix().removesuffix(NOTE) not in members:
                path.unlink()
        with suppress(OSError):  # it holds something
            folder.rmdir()


def _rim(mask: Want, grid: Grid, area: shapely.Geometry | None) -> int:
    """Pixels of a mask layer beyond the area: those of what it hides may be larger, or interpolated."""
    put = mask.near and mask.near.grid(grid, area)
    return RIM_PX if not put else RIM_PX + 4 * int(np.ceil(max(put.gsd_m() / grid.gsd_m(), 1)))


def _wider(window: Window, grid: Grid, rim: int) -> Window:
    """The window with a rim, inside the grid."""
    row, col = max(window.row - rim, 0), max(window.col - rim, 0)
    last_row = min(window.row + window.height + rim, grid.height)
    last_col = min(window.col + window.width + rim, grid.width)
    return Window(row, col, last_row - row, last_col - col)


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
