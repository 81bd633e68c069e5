"""Displacements of many things from votes that may be wrong: a smooth field, and each thing's own part.

Each thing has votes on a grid of displacements. Votes are made likelihoods: of all places the right
one has odds exp(KAPPA z), z being its vote in standard deviations of its own grid, but for a share
EPS of things whose votes say nothing. The displacements are a Gaussian process: a mean
that is not known, a smooth part, a part of each thing's own. Expectation propagation (Minka 2001)
makes a Gaussian of each thing's likelihood in the light of its neighbours, and again; what a thing is
told by its neighbours is kriging (with an unknown mean) from the nearest of them. The scales of the
field are those under which the neighbours tell best.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.spatial import cKDTree

KAPPA, EPS = 3.0, 0.02
NEAREST = 20
ROUNDS = 10
CHOOSE = (0, 2, 5)  # rounds in which scales are chosen
STEP = 0.7  # how far a round goes of what it finds
LEAST = 1e-6  # precision of a thing that tells nothing
ROWS = 1024  # things at a time
SCORED = 500  # things that scales are chosen by
PRICE = 0.5  # of a thing, in logs: over noise a field that is fitted to it finds about .1
TURNS = 20  # in which neighbours agree on whether they lie right


class Scales(NamedTuple):
    """Of a field: standard deviations of the smooth and the own part, and how far the smooth one reaches."""

    smooth: float
    reach: float
    own: float


class Gaussians(NamedTuple):
    """Of displacements (x, y): means (n, 2) and variances (n, 2)."""

    mean: np.ndarray
    var: np.ndarray


class Grids(Protocol):
    """Likelihoods (n, side, side) that may lie on a disk: a slice of rows is an array."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Some rows."""


class Votes(NamedTuple):
    """Likelihoods (n, side, side) of displacements (row, column) every `step` about `centre` (n, 2) (x, y)."""

    grid: Grids
    centre: np.ndarray
    step: float
    side: int


def likelihood(votes: np.ndarray) -> np.ndarray:
    """Likelihoods of votes (..., side, side): over each grid their mean is about 1."""
    mean = votes.mean((-2, -1), keepdims=True)
    spread = votes.std((-2, -1), keepdims=True)
    odds = np.exp(KAPPA * (votes - mean) / np.maximum(spread, 1e-9))
    return (1 - EPS) * odds / odds.mean((-2, -1), keepdims=True) + EPS


def tilt(votes: Votes, told: Gaussians) -> tuple[np.ndarray, Gaussians]:
    """What votes make of what was `told`: log of the evidence (n,), and moments after.

    Where what was told lies beyond the grid, it stays.
    """
    n = len(votes.centre)
    evidence, mean, var = np.empty(n), np.empty((n, 2)), np.empty((n, 2))
    for rows, at, grid, x, y, top in _leaning(votes, told):
        along_x = x * np.einsum("nij,ni->nj", grid, y)
        along_y = y * np.einsum("nij,nj->ni", grid, x)
        total = along_x.sum(1)
        lost = ~(total > 1e-30)
        marginal = np.stack([along_x, along_y], 1) / np.where(lost, 1, total)[:, None, None]
        found = (marginal * at).sum(2)
        spread = ((at - found[:, :, None]) ** 2 * marginal).sum(2) + votes.step**2 / 12
        mean[rows] = np.where(lost[:, None], told.mean[rows], found)
        var[rows] = np.where(lost[:, None], told.var[rows], spread)
        prior = np.log(2 * np.pi * np.sqrt(told.var[rows].prod(1)))
        seen = np.log(np.maximum(total, 1e-30)) + top + 2 * np.log(votes.step) - prior
        evidence[rows] = np.where(lost, np.log(EPS), seen)
    return evidence, Gaussians(mean, var)


def share_within(votes: Votes, told: Gaussians, about: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Share (n,) of what votes make of what was told that lies within `reach` (n,) of `about` (n, 2)."""
    out = np.zeros(len(votes.centre))
    for rows, at, grid, x, y, _ in _leaning(votes, told):
        weight = grid * y[:, :, None] * x[:, None, :]
        apart = (at[:, None, 0] - about[rows, 0, None, None]) ** 2 + (
            at[:, 1, :, None] - about[rows, 1, None, None]
        ) ** 2
        near = apart <= reach[rows, None, None] ** 2
        out[rows] = (weight * near).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1e-30)
    return out


def _leaning(votes: Votes, told: Gaussians) -> Iterator[tuple[Any, ...]]:
    """Rows, their displacements (n, 2, side), likelihoods, and what was told along x and y."""
    ticks = (np.arange(votes.side) - votes.side // 2) * votes.step
    for rows in (slice(k, k + ROWS) for k in range(0, len(votes.centre), ROWS)):
        at = votes.centre[rows, :, None] + ticks
        lean = -0.5 * (at - told.mean[rows, :, None]) ** 2 / told.var[rows, :, None]
        top = lean.max(2)
        weight = np.exp(lean - top[:, :, None]).astype(np.float32)
        grid = np.asarray(votes.grid[rows], np.float32)
        yield rows, at, grid, weight[:, 0], weight[:, 1], top.sum(1)


class Nearest(NamedTuple):
    """The nearest others of each thing: who (n, k) and how far (n, k); `xy` is where all things are."""

    who: np.ndarray
    far: np.ndarray
    xy: np.ndarray

    def only(self, rows: np.ndarray) -> "Nearest":
        """Of some things."""
        return Nearest(self.who[rows], self.far[rows], self.xy)

    def apart(self, rows: slice) -> np.ndarray:
        """How far the nearest of some things are from each other (n, k, k)."""
        around = self.xy[self.who[rows]]
        return np.sqrt(((around[:, :, None] - around[:, None]) ** 2).sum(-1))


def nearest(xy: np.ndarray, places: np.ndarray | None = None, most: int = NEAREST) -> Nearest:
    """Of things at `xy` (n, 2) their nearest others; of `places`, if given, the nearest things."""
    at, skip = (xy, 1) if places is None else (places, 0)
    k = min(most, len(xy) - skip)
    if k < 1:
        return Nearest(np.zeros((len(at), 0), np.int64), np.zeros((len(at), 0)), xy)
    far, who = cKDTree(xy).query(at, k + skip)
    far, who = far.reshape(len(at), -1), who.reshape(len(at), -1)
    if skip:  # itself is not always the first, where things lie at one place
        order = np.argsort(who == np.arange(len(xy))[:, None], axis=1, kind="stable")[:, :k]
        far, who = np.take_along_axis(far, order, 1), np.take_along_axis(who, order, 1)
    return Nearest(who, far, xy)


def told_by_others(
    near: Nearest, sites: Gaussians, scales: Scales, apart: np.ndarray | None = None
) -> Gaussians:
    """What the nearest of each thing tell of it: kriging with an unknown mean of each axis.

    `apart` is near.apart of all things, where it is at hand.
    """
    n, k = near.far.shape
    mean, var = np.zeros((n, 2)), np.full((n, 2), np.inf)
    smooth = scales.smooth**2
    for rows in (slice(i, i + ROWS) for i in range(0, n, ROWS)):
        between = near.apart(rows) if apart is None else apart[rows]
        like = smooth * np.exp(-0.5 * (between / scales.reach) ** 2)
        here = smooth * np.exp(-0.5 * (near.far[rows] / scales.reach) ** 2)
        value = sites.mean[near.who[rows]].swapaxes(1, 2)  # (rows, 2, k)
        noise = sites.var[near.who[rows]].swapaxes(1, 2) + scales.own**2 + 1e-9
        matrix = np.repeat(like[:, None], 2, axis=1)
        matrix[..., np.arange(k), np.arange(k)] += noise
        here = np.repeat(here[:, None], 2, axis=1)
        solved = np.linalg.solve(matrix, np.stack([value, np.ones_like(value), here], -1))
        weight = solved[..., 1].sum(-1)
        middle = solved[..., 0].sum(-1) / weight
        pull = solved[..., 2]
        mean[rows] = middle + (pull * (value - middle[..., None])).sum(-1)
        left = (1 - pull.sum(-1)) ** 2 / weight
        var[rows] = smooth + scales.own**2 - (here * pull).sum(-1) + left
    return Gaussians(mean, np.maximum(var, 1e-9))


class Known(NamedTuple):
    """Things `who` (k,) whose displacement people told: `shift` (k, 2), with a variance."""

    who: np.ndarray
    shift: np.ndarray
    var: float


class Sample(NamedTuple):
    """Some of all things, that scales are chosen by: their nearest, those apart, and their votes."""

    near: Nearest
    apart: np.ndarray
    votes: Votes


def draw_sample(near: Nearest, votes: Votes, known: Known | None) -> Sample:
    """At most SCORED of the things that nobody told of, evenly over their numbers."""
    free = np.ones(len(near.far), bool)
    if known is not None:
        free[known.who] = False
    rows = np.flatnonzero(free) if free.any() else np.arange(len(free))
    if len(rows) > SCORED:
        rows = rows[np.linspace(0, len(rows) - 1, SCORED).astype(int)]
    grid = np.concatenate([votes.grid[slice(i, i + 1)] for i in rows]).astype(np.float32)
    picked = near.only(rows)
    few = votes._replace(grid=grid, centre=votes.centre[rows])
    return Sample(picked, picked.apart(slice(None)), few)


def choose_scales(sample: Sample, sites: Gaussians, grid: list[Scales]) -> Scales:
    """Those scales under which votes are likeliest, of each thing by what others tell of it."""

    def evidence(scales: Scales) -> float:
        told = told_by_others(sample.near, sites, scales, sample.apart)
        return float(tilt(sample.votes, told)[0].sum())

    return max(grid, key=evidence)


class Field(NamedTuple):
    """What was found: each thing's displacement, what others told of it, what it told, and the scales."""

    found: Gaussians
    told: Gaussians
    sites: Gaussians
    scales: Scales
    evidence: np.ndarray  # (n,) its log


def settle(
    votes: Votes, start: Gaussians, grid: list[Scales], near: Nearest, known: Known | None = None
) -> Field:
    """Find displacements of things, first looked for where `start` says; those `known` stay as they are."""
    told = start
    evidence, found = _tilted(votes, told, known)
    if not near.far.shape[1]:
        return Field(found, told, found, grid[0], evidence)
    precision, shift = _sites(found, told)
    scales, sample = grid[0], draw_sample(near, votes, known)
    for turn in range(ROUNDS):
        sites = Gaussians(shift / precision, 1 / precision)
        if turn in CHOOSE:
            scales = choose_scales(sample, sites, grid)
        told = told_by_others(near, sites, scales)
        evidence, found = _tilted(votes, told, known)
        new, new_shift = _sites(found, told)
        precision = STEP * new + (1 - STEP) * precision
        shift = STEP * new_shift + (1 - STEP) * shift
    sites = Gaussians(shift / precision, 1 / precision)
    return Field(found, told, sites, scales, evidence)


def _tilted(votes: Votes, told: Gaussians, known: Known | None) -> tuple[np.ndarray, Gaussians]:
    evidence, found = tilt(votes, told)
    if known is not None:
        var = 1 / (1 / told.var[known.who] + 1 / known.var)
        found.mean[known.who] = var * (
            told.mean[known.who] / told.var[known.who] + known.shift / known.var
        )
        found.var[known.who] = var
        evidence[known.who] = 0
    return evidence, found


def belief(field: Field, near: Nearest) -> np.ndarray:
    """How likely (n,) it is that votes tell of displacements at all, by each thing and its nearest.

    The evidence is against votes that would be as likely anywhere; PRICE is what a fit finds in noise.
    """
    each = field.evidence - PRICE
    around = each + each[near.who].sum(1)
    return np.asarray(1 / (1 + np.exp(np.clip(-around, -500, 500))))


def _sites(found: Gaussians, told: Gaussians) -> tuple[np.ndarray, np.ndarray]:
    """What each thing said itself: precisions and precision times mean (n, 2)."""
    precision = 1 / found.var - 1 / told.var
    shift = found.mean / found.var - told.mean / told.var
    says = precision > LEAST
    return np.where(says, precision, LEAST), np.where(says, shift, LEAST * found.mean)


def scales_of(size: float, spacing: float) -> list[Scales]:
    """Scales to choose from, for things of a size (side) and a distance between neighbours."""
    smooth, own = (0.1, 0.2, 0.4, 0.8), (0.04, 0.08, 0.16, 0.3)
    return [
        Scales(a * size, r * spacing, b * size) for a in smooth for r in (2, 4, 8, 16) for b in own
    ]


class Right(NamedTuple):
    """Things that lie right already (n,) bool, and what votes make of it that they do."""

    yes: np.ndarray
    found: Gaussians


def already_right(votes: Votes, told: Gaussians, near: Nearest, scatter: float) -> Right:
    """Tell things that need no move: votes and neighbours do not speak against it.

    Two accounts of a thing are held against each other, that it lies right but for the `scatter` of
    drawing, and what others `told` of it. How likely the first is to begin with is the share of the
    nearest that lie right; of two accounts that say the same the first is taken.
    """
    nowhere = Gaussians(np.zeros_like(told.mean), np.full_like(told.var, scatter**2))
    here, found = tilt(votes, nowhere)
    there, _ = tilt(votes, told)
    odds = np.exp(np.clip(here - there, -30, 30))
    share = np.full(len(odds), 0.5)
    for _ in range(TURNS):
        right = share * odds / (share * odds + 1 - share)
        around = right[near.who].mean(1) if near.who.shape[1] else right
        share = np.clip((around + right / 4) / 1.25, 0.01, 0.99)
    return Right(right >= 0.5, found)
