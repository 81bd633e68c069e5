"""Windows on their way: read ahead in threads, in order, in batches that never change, through the model, written behind."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from threading import Lock, local
from typing import Any

import numpy as np
import shapely
import torch
from rasterio.features import geometry_mask

from geoml_cli.core.batch import Batch
from geoml_cli.core.infer import Mapper
from geoml_cli.geo.grid import LONLAT, Window, between
from geoml_cli.geo.splits import Split
from geoml_cli.stages.codes import codes_of, codes_of_pixels
from geoml_cli.stages.in_order import in_order
from geoml_cli.stages.making import Making
from geoml_cli.stages.place_grid import lonlat_of
from geoml_cli.stages.shown import Looking, Seen, mirrored
from geoml_cli.stages.strips import Strips
from geoml_cli.stages.targets import Target

FLUSH = 0.5  # of the writer's time, which the device does not wait for; a kill costs what is not flushed
AHEAD = 1  # batches that are read and wait, a reader


@dataclass(frozen=True)
class Course:
    """Windows of a target in the order they are computed, and where each one's block lies in the file."""

    windows: Sequence[int] | np.ndarray
    rows: Sequence[int] | np.ndarray  # of windows, each one's
    blocks: tuple[
        Window, ...
    ]  # in the file; of no size where only the strips of a window are wanted
    cuts: tuple[tuple[slice, slice], ...]  # of a block's pixels, those that are in the file

    def only(self, kept: Sequence[int]) -> "Course":
        """The same with only the windows at some positions."""

        def some(one: Any) -> tuple[Any, ...]:
            return tuple(one[n] for n in kept)

        return Course(some(self.windows), some(self.rows), some(self.blocks), some(self.cuts))

    def groups(self, size: int) -> list[range]:
        """Positions of windows that are computed together: the same ones in every run, also in one of a share.

        They lie in one row of windows.
        """
        found = []
        for _, members in groupby(range(len(self.windows)), key=lambda n: self.rows[n]):
            row = list(members)
            found += [
                range(i, min(i + size, row[-1] + 1)) for i in range(row[0], row[-1] + 1, size)
            ]
        return found


def course_of(target: Target) -> Course:
    """Windows that bear on what of the target is kept."""
    windows, blocks, cuts = [], [], []
    keep, laid = target.keep, target.lattice
    for i in range(len(laid)):
        if _overlap(laid.reach(i), keep) is None:
            continue
        own = laid.blocks[i]
        both = _overlap(own, keep) or Window(keep.row, keep.col, 0, 0)
        windows.append(i)
        blocks.append(Window(both.row - keep.row, both.col - keep.col, both.height, both.width))
        top, left = (max(both.row - own.row, 0), max(both.col - own.col, 0))
        cuts.append((slice(top, top + both.height), slice(left, left + both.width)))
    rows = tuple(laid.place(i)[0] for i in windows)
    return Course(tuple(windows), rows, tuple(blocks), tuple(cuts))


def _overlap(a: Window, b: Window) -> Window | None:
    top, left = max(a.row, b.row), max(a.col, b.col)
    height = min(a.row + a.height, b.row + b.height) - top
    width = min(a.col + a.width, b.col + b.width) - left
    return Window(top, left, height, width) if height > 0 and width > 0 else None


@dataclass(frozen=True)
class Group:
    """Windows that are computed together, read: those that show anything are in the batch, in order."""

    members: tuple[int, ...]  # positions in the course
    busy: tuple[int, ...]  # of these, those in the batch
    seen: dict[int, np.ndarray]  # (h, w) of the reach of each that is busy
    folds: list[np.ndarray] | None
    batch: Batch | None


class GroupReader:
    """Reads groups; each thread that calls it has files of its own."""

    def __init__(
        self,
        target: Target,
        course: Course,
        sensors: Sequence[dict[str, Any]],
        codes: Sequence[str] = (),
        split: Split | None = None,
        pin: bool = False,
    ) -> None:
        self.target, self.course, self.sensors = target, course, sensors
        self.codes, self.split, self.pin = codes, split, pin
        self._mine, self._all, self._lock = local(), list[Looking](), Lock()
        self._area = target.area
        if self._area is not None:
            shapely.prepare(self._area)
        laid = target.lattice
        # where the map has other pixels than the network, what of them is valid is looked at by itself
        self._apart = not laid.per_tile and (laid.rows.ratio, laid.cols.ratio) != (1, 1)

    def _open(self) -> tuple[Looking, Looking]:
        if not hasattr(self._mine, "files"):
            target = self.target
            first = target.shown.open()
            second = target.shown.on(target.grid).open() if self._apart else first
            self._mine.files = first, second
            with self._lock:
                self._all += {id(one): one for one in (first, second)}.values()
        files: tuple[Looking, Looking] = self._mine.files
        return files

    def close(self) -> None:
        """Close the files of all threads."""
        for one in self._all:
            one.close()

    def read(self, members: Sequence[int]) -> Group:
        """The windows at some positions of the course."""
        shown: list[list[Seen]] = []
        seen: dict[int, np.ndarray] = {}
        for n in members:
            found = self._window(self.course.windows[n])
            if found is not None:
                seen[n] = found[1]
                shown.append(found[0])
        busy = tuple(seen)
        if not busy:
            return Group(tuple(members), (), {}, None, None)
        windows = [self.course.windows[n] for n in busy]
        reaches = [self.target.lattice.reach(i) for i in windows]
        grid, split = self.target.grid, self.split
        folds = [split.on(grid.crop(one))[0] for one in reaches] if split else None
        return Group(tuple(members), busy, seen, folds, self._batch(shown, windows))

    def _window(self, i: int) -> tuple[list[Seen], np.ndarray] | None:
        """What is shown of a window, and what of its reach (h, w) is to be mapped; None where nothing is."""
        target, laid = self.target, self.target.lattice
        reach = laid.reach(i)
        wanted = self._wanted(reach)
        if wanted is False:
            return None
        files, own = self._open()
        if self._apart:
            seen = _any(own.read(reach))
            if not seen.any():
                return None
        work, window = target.shown.grid, laid.window(i)
        found = mirrored(files.read, (work.height, work.width), window, target.rim)
        if laid.per_tile:
            seen = np.array([[any(one.valid.any() for one in found)]])
        elif not self._apart:
            r, c = laid.place(i)
            cut = laid.rows.taken(r), laid.cols.taken(c)
            seen = pooled(_any(found), laid.step)[cut]
        if target.fills and any(one.valid.any() for one in found):
            seen = np.ones_like(seen)
        if wanted is not True:
            seen = seen & wanted
        return (found, seen) if seen.any() else None

    def _wanted(self, reach: Window) -> np.ndarray | bool:
        """Which pixels (h, w) lie in the area; true or false where all or none do."""
        if self._area is None:
            return True
        grid = self.target.grid.crop(reach)
        box = shapely.box(*grid.bounds)
        if not shapely.intersects(self._area, box):
            return False
        if shapely.contains(self._area, box):
            return True
        here = shapely.clip_by_rect(self._area, *grid.bounds)
        if here.is_empty:
            return False
        shape = (grid.height, grid.width)
        return geometry_mask([here], shape, grid.transform, invert=True)

    def _batch(self, shown: Sequence[Sequence[Seen]], windows: Sequence[int]) -> Batch:
        """Windows of all sensors as one batch."""
        each = [
            self._sensor(k, [one[k] for one in shown], windows) for k in range(len(self.sensors))
        ]
        return replace(each[0], others=tuple(each[1:]))

    def _sensor(self, k: int, shown: Sequence[Seen], windows: Sequence[int]) -> Batch:
        about = self.sensors[k]
        days = np.stack([one.days for one in shown])
        middles = places = self._middles(windows)
        codes, each = None, not self.target.lattice.per_tile
        pixels = []
        if each and (self.codes or self.target.located):
            pixels = [self._pixels(i) for i in windows]
        if each and self.target.located:
            places = np.stack([np.stack(one) for one in pixels]).astype(np.float32)
        if self.codes and not each:
            codes = codes_of(self.codes, middles, days)
        elif self.codes:
            codes = np.stack(
                [codes_of_pixels(self.codes, p, d) for p, d in zip(pixels, days, strict=True)]
            )
        waves = [band.get("wavelength_nm") for band in about["bands"]]
        known = torch.tensor([np.nan if w is None else w for w in waves], dtype=torch.float32)
        return Batch(
            images=self._held(np.stack([one.images for one in shown])),
            valid=self._held(np.stack([one.valid for one in shown])),
            lonlat=torch.from_numpy(places),
            day=torch.from_numpy(days.astype(np.float32)),
            wavelength_nm=known,
            gsd_m=about["gsd_m"],
            codes=None if codes is None else torch.from_numpy(codes),
        )

    def _held(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.pin else tensor

    def _middles(self, windows: Sequence[int]) -> np.ndarray:
        """Longitude and latitude (n, 2) float32 of the windows' middles; NaN where there is no CRS."""
        grid = self.target.shown.grid
        if not grid.placed:
            return np.full((len(windows), 2), np.nan, np.float32)
        spans = [self.target.lattice.window(i) for i in windows]
        rows = np.array([w.row + w.height / 2 - 0.5 for w in spans])
        cols = np.array([w.col + w.width / 2 - 0.5 for w in spans])
        return np.stack(between(grid.crs, LONLAT).transform(*grid.xy(rows, cols)), 1).astype(
            np.float32
        )

    def _pixels(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and latitudes (H, W) of a window's pixels; NaN where there is no CRS."""
        return lonlat_of(self.target.shown.grid, self.target.lattice.window(i))


def pooled(seen: np.ndarray, step: int) -> np.ndarray:
    """Which patches of `step` x `step` pixels (H, W) hold one that is seen."""
    if step == 1:
        return seen
    h, w = seen.shape
    found: np.ndarray = np.any(seen.reshape(h // step, step, w // step, step), axis=(1, 3))
    return found


def _any(found: Sequence[Seen]) -> np.ndarray:
    """Where any date of any sensor shows something, (h, w)."""
    return np.logical_or.reduce([one.valid.any(axis=0) for one in found])


class Writer:
    """Turns what the networks said into blocks of the file."""

    def __init__(
        self, target: Target, course: Course, making: Making, mapper: Mapper, strips: Strips | None
    ) -> None:
        self.target, self.course, self.making = target, course, making
        self.mapper, self.strips = mapper, strips
        self._flushed, self._cost = time.monotonic(), 0.0

    @torch.inference_mode()
    def write(self, group: Group, said: Sequence[torch.Tensor]) -> None:
        """Write the blocks of a group; `said` are the channels of its busy windows."""
        spoken = dict(zip(group.busy, said, strict=True))
        for n in group.members:
            if n not in spoken:
                self.making.write(n, None, None)
                continue
            i, channels = self.course.windows[n], spoken[n]
            block = self.target.lattice.blocks[i]
            seen = group.seen[n][: block.height, : block.width]
            if self.strips:
                joined = self.strips.joined(i, channels.cpu().numpy())
                channels = torch.from_numpy(joined)
            cut = self.course.cuts[n]
            if not seen[cut].any():
                self.making.write(n, None, None)
                continue
            arrays = self.mapper.answers.of(channels[None])
            self.making.write(n, {k: v[0][(..., *cut)] for k, v in arrays.items()}, seen[cut])
        if self.strips or time.monotonic() - self._flushed >= self._cost / FLUSH:
            self.sync()

    def sync(self) -> None:
        """What is written counts as done."""
        began = time.monotonic()
        if self.strips:
            self.strips.sync()
        self.making.sync()
        self._flushed = time.monotonic()
        self._cost = self._flushed - began


def undone(course: Course, done: np.ndarray, batch: int) -> list[range]:
    """Groups with a block missing, whole, so that a batch is always the same."""
    return [group for group in course.groups(batch) if not done[group.start : group.stop].all()]


def compute(
    groups: Sequence[Sequence[int]],
    reader: GroupReader,
    mapper: Mapper,
    writer: Writer,
    jobs: int,
    check: Callable[[], None],
) -> Iterator[int]:
    """Bring groups through the model: `jobs` threads read, one writes; gives the windows of each as it is sent off.

    One batch is written while the next is computed; what was computed is written and flushed however this ends.
    """
    writing: Future[None] | None = None
    pool = ThreadPoolExecutor(1, "geoml-writer")
    laid = reader.target.lattice
    try:
        for group in in_order(reader.read, groups, jobs, jobs + AHEAD):
            check()
            said: Sequence[torch.Tensor] = ()
            if group.batch is not None:
                places = [laid.place(reader.course.windows[n]) for n in group.busy]
                said = mapper.ask(group.batch, places, laid, group.folds)
            if writing:
                writing.result()
            writing = pool.submit(writer.write, replace(group, batch=None), said)
            yield len(group.members)
        if writing:
            writing.result()
    finally:
        pool.shutdown(wait=True)
        reader.close()
        writer.sync()


def strips_of(folder: Path, target: Target, channels: int) -> Strips | None:
    """The file of strips of a target whose windows fade."""
    if not target.lattice.fades:
        return None
    return Strips(folder / f"{target.name}.strips", target.lattice, channels)
