"""Windows centred on pixels of each class, as many for one class as for another."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from geoml_cli.errors import UsageMistake
from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.field import Field, Pick
from geoml_cli.geo.grid import Window
from geoml_cli.geo.windows import blocks

FILES = ("stratum",)
BLOCK = 512  # pixels a side: what is looked at at once
MOST_TRIED = 1 << 18  # pixels of a class, in search of windows that differ
Strata = Callable[[int, Window], np.ndarray]
log = logging.getLogger("geoml")


def draw(
    field: Field,
    rng: np.random.Generator,
    *,
    count: int | None = None,
    stratum: str | None = None,
) -> list[Pick]:
    """Draw `count` windows in equal shares for the classes of the labels, or the strata of a file.

    The file `stratum` is a class raster or holds polygons. A window is centred on a pixel of its
    class, each with the same chance, and moved inside the scene. No window comes twice before
    all that its class offers have come; a class that is nowhere gives its share to the others.
    Without a count there are as many as windows side by side would need.
    """
    read = field.read_strata(stratum) if stratum else field.strata
    if read is None:
        raise UsageMistake("balanced needs classes: give --labels, or balanced:stratum=FILE")
    many, census = field.how_many(count), Census(field, read)
    rarest_first = sorted(census.totals, key=lambda c: (census.totals[c], c))
    share, over = divmod(many, max(len(rarest_first), 1))
    shares = {c: share + (i < over) for i, c in enumerate(rarest_first)}
    pools = {c: Pool(s) for c, s in shares.items() if s}
    uses: Counter[int] = Counter()
    census.fill(pools, rng)
    for c, pool in pools.items():
        while pool.lacks(uses) and pool.widen():
            census.fill({c: pool}, rng)
        pool.deal(uses)
        if pool.share > len(pool.found):
            log.warning(
                "class %d: %d tiles asked, %d that differ show it; the others repeat these",
                c,
                pool.share,
                len(pool.found),
            )
    return field.picks(np.fromiter(uses.elements(), np.int64))


class Pool:
    """Windows that one class offers, by number, in the order drawn; all differ."""

    def __init__(self, share: int) -> None:
        self.share = share
        self.tries = share + share // 4 + 16  # pixels to draw; some windows coincide at the rim
        self.whole = False  # every pixel of the class was drawn
        self.found: list[int] = []

    def lacks(self, uses: Counter[int]) -> bool:
        """Whether windows that no class has used yet do not suffice for the share."""
        return sum(not uses[number] for number in self.found) < self.share

    def widen(self) -> bool:
        """Ask for more pixels; False where there are no more, or enough were tried."""
        if self.whole or self.tries > MOST_TRIED:
            return False
        self.tries *= 4
        return True

    def deal(self, uses: Counter[int]) -> None:
        """Use windows up to the share, those used least before others."""
        left = self.share
        while left:
            least = min(uses[number] for number in self.found)
            chosen = [number for number in self.found if uses[number] == least][:left]
            uses.update(chosen)
            left -= len(chosen)


class Census:
    """How many pixels of each class lie in each block of the scenes that hold a tile."""

    def __init__(self, field: Field, read: Strata) -> None:
        self._positions, self._read = field.positions, read
        self._blocks: list[tuple[int, Window]] = []
        found: list[np.ndarray] = []
        for place in np.flatnonzero(field.positions.fits).tolist():
            grid = field.grids[place]
            for window in blocks(grid.height, grid.width, (BLOCK, BLOCK)):
                counts = np.bincount(read(place, window).ravel(), minlength=IGNORE + 1)
                seen = np.flatnonzero(counts[:IGNORE])
                if len(seen):
                    at = np.full(len(seen), len(self._blocks))
                    found.append(np.stack([seen, at, counts[seen]], axis=1))
                    self._blocks.append((place, window))
        table = np.concatenate(found) if found else np.zeros((0, 3), np.int64)
        self._of = {
            int(c): table[table[:, 0] == c, 1:] for c in np.unique(table[:, 0])
        }  # class: (n, 2) block, pixels
        self.totals = {c: int(rows[:, 1].sum()) for c, rows in self._of.items()}

    def fill(self, pools: Mapping[int, Pool], rng: np.random.Generator) -> None:
        """Draw pixels for pools by class, and find the windows round them; a block is read once."""
        wanted = []
        for c, pool in pools.items():
            ranks = self._ranks(c, pool, rng)
            ends = np.cumsum(self._of[c][:, 1])
            entry = np.searchsorted(ends, ranks, side="right")
            within = ranks - (ends[entry] - self._of[c][entry, 1])
            block = self._of[c][entry, 0]
            wanted.append(np.stack([block, np.full(len(ranks), c), within], axis=1))
        numbers = self._locate(np.concatenate(wanted)) if wanted else np.zeros(0, np.int64)
        cuts = np.cumsum([len(one) for one in wanted])[:-1]
        for pool, those in zip(pools.values(), np.split(numbers, cuts), strict=False):
            pool.found = _distinct(those).tolist()

    def _ranks(self, c: int, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Pixels of a class by their rank, in random order, none twice: all where it has few."""
        total = self.totals[c]
        pool.whole = total <= 4 * pool.tries
        if pool.whole:
            return rng.permutation(total)
        return _distinct(rng.integers(0, total, pool.tries + pool.tries // 2))[: pool.tries]

    def _locate(self, wanted: np.ndarray) -> np.ndarray:
        """Numbers (n,) of the windows round pixels (n, 3): block, class, rank among its pixels there."""
        numbers = np.empty(len(wanted), np.int64)
        order = np.argsort(wanted[:, 0], kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(wanted[order, 0])) + 1):
            place, window = self._blocks[wanted[group[0], 0]]
            strata = self._read(place, window).ravel()
            for c in np.unique(wanted[group, 1]):
                those = group[wanted[group, 1] == c]
                pixels = np.flatnonzero(strata == c)[wanted[those, 2]]
                rows, cols = np.divmod(pixels, window.width)
                here = np.full(len(those), place)
                numbers[those] = self._positions.around(here, window.row + rows, window.col + cols)
        return numbers


def _distinct(values: np.ndarray) -> np.ndarray:
    """Values in their order, each where it comes first."""
    return values[np.sort(np.unique(values, return_index=True)[1])]
