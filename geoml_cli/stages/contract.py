"""Bring what a model is to see to what it was trained on: bands, units, resolution, dates; or say why not."""

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.bands import Band
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.place import Frames
from geoml_cli.stages.stack import Stack
from geoml_cli.stages.tiling import MONTHS, frames_of

NEAR = 0.1  # pixels no more different in size than this are taken as they are
COARSEST = 4.0  # times the training pixel: beyond that there is nothing to see
FAR_DAYS = 60  # from the date of a frame
log = logging.getLogger("geoml")


def match(stack: Stack, about: Mapping[str, Any]) -> Stack:
    """Bring a stack to a sensor's bands, or say why it cannot be shown to the model."""
    where = stack.rasters[0].path
    wanted = [Band.from_dict(band) for band in about["bands"]]
    try:
        stack = stack.pick([band.name for band in wanted])
    except GeomlError as error:
        if not all(band.common_name for band in wanted):
            raise GeomlError(
                f"{error}; the model wants {', '.join(b.name for b in wanted)}"
            ) from None
        stack = stack.pick([str(band.common_name) for band in wanted])
    for ours, theirs in zip(wanted, stack.bands, strict=True):
        if ours.unit and theirs.unit and ours.unit != theirs.unit:
            raise GeomlError(
                f"{where}: band {theirs.name} is in {theirs.unit}, the model was trained on {ours.unit}"
            )
        plain = (theirs.scale, theirs.offset) == (1, 0) != (ours.scale, ours.offset)
        if plain and stack.dtype == about["dtype"]:
            raise GeomlError(
                f"{where}: band {theirs.name} has no scale and offset, the model was trained with"
                f" {ours.scale} and {ours.offset}: stored values do not mean the same"
            )
    return stack


def warn_of_types(stacks: Sequence[Stack], about: Mapping[str, Any]) -> None:
    """Say once where stored values are of another kind than those that the model was trained on."""
    for stack in stacks:
        scaled = any((band.scale, band.offset) != (1, 0) for band in stack.bands)
        if (
            about["dtype"]
            and not scaled
            and np.dtype(stack.dtype).kind != np.dtype(about["dtype"]).kind
        ):
            log.warning(
                "%s: values are %s, the model was trained on %s; are they in the same units?",
                stack.rasters[0].path,
                stack.dtype,
                about["dtype"],
            )
            return


def check_sharpness(stacks: Sequence[Stack], trained: float | None) -> None:
    """Refuse rasters that are too coarse for the model; say once that others are resampled."""
    told = False
    for stack in stacks:
        if trained is None or not stack.grid.placed:
            continue
        gsd = stack.grid.gsd_m()
        where = f"{stack.rasters[0].path}: pixels of {gsd:.4g} m, the model was trained on {trained:.4g} m"
        if gsd > COARSEST * trained:
            raise GeomlError(f"{where}: what it looks for is not in them; take finer ones")
        if abs(gsd / trained - 1) > NEAR and not told:
            log.warning("%s; resampled to these on the way in, and back", where)
            told = True


def ratio_of(grid: Grid, trained: float | None) -> float:
    """The network's pixels along one of a map's: 1 where they are nearly of a size."""
    if trained is None or not grid.placed:
        return 1.0
    ratio = grid.gsd_m() / trained
    return 1.0 if abs(ratio - 1) <= NEAR else float(ratio)


def shrunk(grid: Grid, ratio: float) -> Grid:
    """The grid of the network's pixels, from the same corner."""
    if ratio == 1:
        return grid
    t = grid.transform
    transform = type(t)(t.a / ratio, 0.0, t.c, 0.0, t.e / ratio, t.f)
    height, width = (int(np.ceil(n * ratio - 1e-9)) for n in (grid.height, grid.width))
    return Grid(grid.crs, transform, height, width)


def frames_for(
    head: Mapping[str, Any], given: str | None, within: float | None, stacks: Sequence[Stack]
) -> Frames:
    """Which dates become the frames that a model wants."""
    count = head["sensors"][0]["frames"]
    trained = Frames.from_dict(head["frames"]) if head.get("frames") else Frames()
    if count == 1 and given is None and trained.kind == "one":
        return Frames(within_days=within if within is not None else trained.within_days)
    text = given
    if text is None:
        text = {"months": MONTHS, "days": "all", "best": str(count)}.get(trained.kind)
    within = within if within is not None else trained.within_days
    if text is None:
        frames = Frames("near", count, trained.slots, within)
        _check_near(frames, stacks, head)
        return frames
    frames = frames_of(text, within, stacks)
    if frames.count != count:
        raise UsageMistake(
            f"the model sees {count} dates; --frames {text} gives {frames.count}: name as many, in the"
            " order of those that it was trained on"
        )
    return frames


def _check_near(frames: Frames, stacks: Sequence[Stack], head: Mapping[str, Any]) -> None:
    """Dates of the training may lie in another year: the user says which of these stand for them."""
    moments = sorted({stack.datetime[:10] for stack in stacks if stack.datetime})
    if not moments:
        raise GeomlError(f"the model sees {frames.count} dates; none of the scenes has a date")
    for slot in frames.slots:
        nearest = min(
            abs((date.fromisoformat(m) - date.fromisoformat(slot[:10])).days) for m in moments
        )
        if nearest > (frames.within_days or FAR_DAYS):
            raise UsageMistake(
                f"the model was trained on {', '.join(frames.slots)}; no scene is near {slot}: say with"
                " --frames DATE,DATE,... which dates stand for them"
            )
