"""Displacements of things on an ortho, coarse to fine: votes, neighbours, and how sure it all is."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from scipy.stats import norm

from geoml_cli.formats.raster import Raster
from geoml_cli.geo.displacements import (
    Gaussians,
    Known,
    Scales,
    already_right,
    belief,
    nearest,
    scales_of,
    settle,
    share_within,
)
from geoml_cli.stages.align_things import Things
from geoml_cli.stages.align_votes import collect

SIDE_PX = 50.0  # of the median thing in the finest image that is looked at
SMALL_PX = 8.0  # in the coarsest
COARSER = (2, 1)  # a quarter of the size finds fewer of those that are far off
REACH = 2.5  # sizes of a thing that it may be off by
RADIUS = (20, 40)  # of finer levels, reduced pixels
WIDE = 3.5  # standard deviations that a finer level looks about
CLOSE = 0.1  # of its size, that a thing may be off by and be right
SCATTER = 0.02  # of its size, that people draw beside the rim
UNSURE = 0.2  # confidence below which a thing is held back
BETTER = 0.8  # chance of coming nearer with which it is moved all the same
GIVEN_PX = 1.0  # standard deviation of what people told
log = logging.getLogger("geoml")

MOVED, RIGHT, NEIGHBOURS, STAYED, GIVEN = "moved", "right", "neighbours", "stayed", "given"


class Found(NamedTuple):
    """Of each thing: its shift (n, 2) px, standard deviation (n,) px, confidence (n,), and why."""

    shift: np.ndarray
    sd: np.ndarray
    confidence: np.ndarray
    status: np.ndarray
    scales: Scales
    factors: list[int]


def factors_of(size: float) -> list[int]:
    """By how much an ortho is reduced, coarse to fine, for things of a size in its pixels."""
    finest = max(1, round(size / SIDE_PX))
    return [k * finest for k in COARSER if k == 1 or size / (k * finest) >= SMALL_PX]


def find(
    things: Things,
    dataset: rasterio.DatasetReader,
    raster: Raster,
    *,
    reach_px: float | None,
    confidence: float | None,
    given: dict[int, np.ndarray],
    folder: Path,
    check: Callable[[], None],
) -> Found:
    """Find the shifts of things; those `given` (thing: shift) by people are kept and tell their neighbours."""
    size = float(np.median(things.size))
    reach = REACH * size if reach_px is None else reach_px
    factors = factors_of(size)
    near = nearest(things.xy)
    spacing = float(np.median(near.far[:, 0])) if near.far.shape[1] else size
    grid = scales_of(size, spacing)
    known = None
    if given:
        known = Known(np.array(list(given)), np.array(list(given.values())), GIVEN_PX**2)
    told = Gaussians(np.zeros((things.count, 2)), np.full((things.count, 2), (reach / 2) ** 2))
    sure = belief_at = np.ones(things.count)
    believed = np.ones(things.count, bool)
    found = votes = field = None
    for factor in factors:
        if found is None:
            centre, radius = np.zeros((things.count, 2), int), int(np.ceil(reach / factor))
        else:
            assert votes is not None and field is not None
            spread = np.quantile(np.sqrt(found.var), 0.9)
            radius = int(np.clip(np.ceil(WIDE * spread / factor), *RADIUS))
            centre = np.rint(found.mean / factor).astype(int)
            far = np.full(things.count, radius * float(factor))
            sure = sure * share_within(votes, told, centre * float(factor), far)
            votes.grid.close()  # type: ignore[attr-defined]
        path = folder / f"votes-{factor}.raw"
        votes = collect(things, dataset, raster, factor, centre, radius, path, check)
        field = settle(votes, told, grid, near, known)
        told, found = field.told, field.found
        if factor == factors[0]:  # later ones look only where this one found something
            sure = belief_at = belief(field, near)
            believed = sure >= 0.5
        log.info(
            "1:%d: %d px about; off by %.1f px, sd %.1f px", factor, radius * factor,
            np.hypot(*found.mean.T).mean(), np.sqrt(found.var.mean()),
        )  # fmt: skip
    assert votes is not None and field is not None and found is not None
    close = np.maximum(CLOSE * things.size, 1.0)
    scatter = max(SCATTER * size, 1.0)
    sure = sure * share_within(votes, told, found.mean, close)
    right = already_right(votes, told, near, scatter)
    there = Gaussians(np.zeros_like(told.mean), np.full_like(told.var, scatter**2))
    sure_right = share_within(votes, there, there.mean, close)
    votes.grid.close()  # type: ignore[attr-defined]
    out = Found(
        found.mean.copy(),
        np.sqrt(found.var.mean(1)),
        sure,
        np.full(things.count, MOVED, object),
        field.scales,
        factors,
    )
    _hold_back(out, told, close, confidence)
    yes = right.yes & believed
    out.shift[yes], out.status[yes], out.confidence[yes] = 0, RIGHT, sure_right[yes]
    out.sd[yes] = np.sqrt((right.found.var + right.found.mean**2).mean(1))[yes]
    out.shift[~believed], out.status[~believed] = 0, STAYED
    out.confidence[:] = np.minimum(out.confidence, belief_at)
    for thing, vector in given.items():
        out.shift[thing], out.sd[thing] = vector, GIVEN_PX
        out.confidence[thing], out.status[thing] = 1.0, GIVEN
    return out


def _hold_back(out: Found, told: Gaussians, close: np.ndarray, asked: float | None) -> None:
    """Let the unsure follow their neighbours, or stay where they are.

    Below UNSURE a thing is moved only if it is likely to come nearer to its place by it. Below the
    confidence that was `asked` for, it is moved where its neighbours are as sure, or not at all.
    """
    weak = out.confidence < (UNSURE if asked is None else asked)
    by_others = 1 - np.exp(-(close**2) / told.var.sum(1))
    follow = weak & (by_others > out.confidence) & (asked is None or by_others >= asked)
    out.shift[follow], out.confidence[follow] = told.mean[follow], by_others[follow]
    out.sd[follow], out.status[follow] = np.sqrt(told.var.mean(1))[follow], NEIGHBOURS
    better = norm.cdf(np.hypot(*out.shift.T) / 2 / out.sd)
    still = weak & (~follow if asked is not None else better < BETTER)
    out.shift[still], out.status[still] = 0, STAYED
