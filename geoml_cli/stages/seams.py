"""`--check-seams`: ground where windows meet, computed again in windows that lie otherwise."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from geoml_cli.core.infer import Mapper
from geoml_cli.core.lattice import Axis, Lattice, lay
from geoml_cli.errors import GeomlError
from geoml_cli.geo.grid import Window
from geoml_cli.stages.stream import Course, GroupReader
from geoml_cli.stages.targets import Target

PLACES = 4  # where windows meet that are looked at
SIDE = 32  # px around each
EXACT = {"32": 1e-5, "bf16": 2e-2}  # of shares, or of values in units of the largest
log = logging.getLogger("geoml")


def check(target: Target, head: Mapping[str, Any], mapper: Mapper) -> None:
    """Say how much windows show in the map; refuse one that shows more than float noise where it must not."""
    laid = target.lattice
    if laid.per_tile or len(laid) == 1:
        log.warning("%s: one window each, no seams", target.path)
        return
    blend = head["blend"]
    shape = (target.grid.height, target.grid.width)
    if blend:
        size = max(laid.rows.size, laid.cols.size)
        other = lay(
            shape,
            laid.rows.ratio,
            halo=None,
            stride=head["stride"],
            blend=(size, min(2 * max(laid.rows.fade, laid.cols.fade), size // 2)),
        )
    else:
        wide = int(1.5 * max(laid.rows.block, laid.cols.block) * laid.rows.ratio)
        halo, stride = head["halo"], head["stride"]
        other = lay(shape, laid.rows.ratio, halo=halo, stride=stride, blend=None, window=wide)
    worst, differ, count = 0.0, 0, 0
    for area in places(laid):
        ours, theirs = (shown_at(target, one, area, head, mapper) for one in (laid, other))
        if mapper.answers.aim.kind == "values":
            scale = max(1.0, float(np.abs(theirs).max()))
            worst = max(worst, float(np.abs(ours - theirs).max()) / scale)
            continue
        worst = max(worst, float(np.abs(ours - theirs).max()))
        differ += int((ours.argmax(0) != theirs.argmax(0)).sum())
        count += ours[0].size
    what = "the largest difference is" if not blend else "windows blend: they differ by at most"
    log.warning(
        "%s: seams: %s %.2g; %d of %d pixels change class", target.path, what, worst, differ, count
    )
    limit = EXACT[mapper.device.precision]
    if not blend and worst > limit:
        raise GeomlError(
            f"{target.path}: windows show in the map: {worst:.2g} is more than {limit:g}"
        )


def places(laid: Lattice) -> list[Window]:
    """Ground around some of the corners where blocks meet."""

    def meetings(axis: Axis) -> list[int]:
        inner = list(axis.edges[1:-1]) or [axis.length // 2]
        return [inner[i] for i in np.unique(np.linspace(0, len(inner) - 1, 2).round().astype(int))]

    found = []
    for row in meetings(laid.rows):
        for col in meetings(laid.cols):
            top, left = max(row - SIDE // 2, 0), max(col - SIDE // 2, 0)
            height, width = min(SIDE, laid.shape[0] - top), min(SIDE, laid.shape[1] - left)
            found.append(Window(top, left, height, width))
    return found[:PLACES]


def shown_at(
    target: Target, laid: Lattice, area: Window, head: Mapping[str, Any], mapper: Mapper
) -> np.ndarray:
    """Channels (C, h, w) of an area of the map, of all windows of a lattice that count for it."""
    whole = Window(0, 0, target.grid.height, target.grid.width)
    target = replace(target, lattice=laid, keep=whole, area=None)
    windows = tuple(i for i in range(len(laid)) if _meet(laid.reach(i), area))
    course = Course(windows, (), (), ())  # only to be read
    reader = GroupReader(target, course, head["sensors"], head["codes"])
    total: np.ndarray | None = None
    for n, i in enumerate(windows):
        group = reader.read([n])
        if group.batch is None:
            continue
        r, c = laid.place(i)
        [said] = mapper.ask(group.batch, [(r, c)], laid)
        weighed = said.cpu().numpy() * laid.rows.weights(r)[:, None] * laid.cols.weights(c)
        if total is None:
            total = np.zeros((len(said), area.height, area.width), np.float32)
        reach = laid.reach(i)
        top, left = max(reach.row, area.row), max(reach.col, area.col)
        bottom = min(reach.row + reach.height, area.row + area.height)
        right = min(reach.col + reach.width, area.col + area.width)
        from_ = np.s_[:, top - reach.row : bottom - reach.row, left - reach.col : right - reach.col]
        to = np.s_[:, top - area.row : bottom - area.row, left - area.col : right - area.col]
        total[to] += weighed[from_]
    reader.close()
    return np.zeros((1, area.height, area.width), np.float32) if total is None else total


def _meet(a: Window, b: Window) -> bool:
    return (
        a.row < b.row + b.height
        and b.row < a.row + a.height
        and a.col < b.col + b.width
        and b.col < a.col + a.width
    )
