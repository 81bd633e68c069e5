"""Compare maps with truth, window by window: counts for each block of ground, and what is left out."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from affine import Affine

from geoml_cli.core.scoring import Tally
from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.formats.raster import Reader
from geoml_cli.geo.classes import Class
from geoml_cli.geo.grid import Bounds, Grid, Window, between
from geoml_cli.geo.nearest import inside, overlap, pixels_under
from geoml_cli.stages.ground import Ground
from geoml_cli.stages.maps import ClassMap
from geoml_cli.stages.truth import Fate, Samples, Truth

DRAWN_PX = 640  # longer side of the picture of where a map is right
PICTURES = 4


@dataclass
class Drawn:
    """What a picture of one map shows: points with their fate, or shares of right and wrong pixels."""

    map: ClassMap
    n: int = 0
    points: list[tuple[int, int, int, int, int]] = field(
        default_factory=list
    )  # row, col, truth, guess, Fate
    right: np.ndarray | None = None  # (h, w) counts
    wrong: np.ndarray | None = None


@dataclass
class Agreement:
    """What came of a comparison."""

    tally: Tally
    n: dict[str, int]  # scored samples by map id
    on_trained: int  # scored samples on ground that the model trained on
    drawn: list[Drawn]


class Comparison:
    """One pass over maps and truth."""

    def __init__(
        self,
        maps: Sequence[ClassMap],
        classes: Sequence[Class],
        truth: Truth,
        tally: Tally,
        blocks: int,
        include_trained: bool,
        draw: bool,
        check: Callable[[], None],
    ) -> None:
        self.maps, self.truth, self.tally = maps, truth, tally
        self.ids = np.array([c.id for c in classes])
        self.include_trained, self.draw, self.check = include_trained, draw, check
        self.lattice = lay_lattice(maps, truth, blocks)
        self.found = Agreement(tally, {}, 0, [])

    def run(self) -> Agreement:
        """Compare every map."""
        for number, one in enumerate(self.maps):
            self._compare(one, [m for m in self.maps[:number] if overlap(m.grid, one.grid)])
            self.found.drawn.sort(key=lambda d: -d.n)  # stable: the first of equals stays
            del self.found.drawn[PICTURES:]
        return self.found

    def _compare(self, one: ClassMap, earlier: list[ClassMap]) -> None:
        ground = Ground(one.ground, one.grid) if one.ground and not one.out_of_fold else None
        drawn = Drawn(one)
        placed = self.truth.place(one.grid)
        with ExitStack() as stack:
            reader = stack.enter_context(Reader(one.raster))
            before = [stack.enter_context(Reader(m.raster)) for m in earlier]
            for window in placed.windows():
                self.check()
                samples = placed.samples(window)
                if self.truth.kind != "points":
                    samples = self._once(one.grid, window, samples, before)
                if len(samples.rows):
                    self._judge(one, window, samples, reader, ground, drawn)
        self.found.n[one.id] = drawn.n
        if self.draw:
            self.found.drawn.append(drawn)

    def _once(self, grid: Grid, window: Window, samples: Samples, before: list[Reader]) -> Samples:
        """Drop pixels whose centre lies on a pixel with data of an earlier map: scored there."""
        for reader in before:
            if not len(samples.rows):
                break
            rows, cols = (
                v[samples.rows, samples.cols]
                for v in pixels_under(grid, window, reader.raster.grid)
            )
            seen = _has_data(reader, rows, cols)
            self.truth.repeated += int(seen.sum())
            samples = Samples(samples.rows[~seen], samples.cols[~seen], samples.label[~seen])
        return samples

    def _judge(
        self,
        one: ClassMap,
        window: Window,
        samples: Samples,
        reader: Reader,
        ground: Ground | None,
        drawn: Drawn,
    ) -> None:
        values, valid = reader.read(window)
        at = samples.rows, samples.cols
        trained = ground.mask(window)[at] if ground else np.zeros(len(at[0]), bool)
        fate = np.where(samples.label < 0, Fate.CONFLICTING, Fate.SCORED)
        if not self.include_trained:
            fate[trained] = Fate.TRAINED
        fate[~valid[at]] = Fate.NODATA
        self.truth.note(samples, fate)
        scored = fate == Fate.SCORED
        guess = np.full(len(fate), -1)
        guess[scored] = self._positions(one, values[0][at][scored])
        self.found.on_trained += int((trained & scored).sum())
        drawn.n += int(scored.sum())
        if scored.any():
            block = self._block(one.grid, window)[at][scored]
            self.tally.add(block, samples.label[scored], guess[scored])
        if self.draw:
            _draw(drawn, window, samples, guess, fate)

    def _positions(self, one: ClassMap, values: np.ndarray) -> np.ndarray:
        """Positions in the legend of map values."""
        place = np.minimum(np.searchsorted(self.ids, values), len(self.ids) - 1)
        strange = np.unique(values[self.ids[place] != values])
        if len(strange):
            raise GeomlError(
                f"{one.raster.path}: holds class {strange[0]}, which its legend does not name; make it again"
            )
        return place

    def _block(self, grid: Grid, window: Window) -> np.ndarray:
        """Block of ground (h, w) of every pixel; ground beyond the lattice counts to its rim."""
        side = self.lattice.height
        rows, cols = pixels_under(grid, window, self.lattice)
        return np.clip(rows, 0, side - 1) * side + np.clip(cols, 0, side - 1)


def _has_data(reader: Reader, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Whether pixels (n,) of a raster lie on it and are valid."""
    seen = inside(reader.raster.grid, rows, cols)
    if seen.any():
        r, c = rows[seen], cols[seen]
        box = Window(int(r.min()), int(c.min()), int(np.ptp(r)) + 1, int(np.ptp(c)) + 1)
        _, valid = reader.read(box)
        seen[seen] = valid[r - box.row, c - box.col]
    return seen


def lay_lattice(maps: Sequence[ClassMap], truth: Truth, blocks: int) -> Grid:
    """`blocks` x `blocks` blocks of ground over the truth that lies on the maps, in the first map's CRS."""
    crs = maps[0].grid.crs
    parts = []
    for one in maps:
        found = truth.extent(one.grid)
        if found:
            parts.append(_moved(found, one.grid.crs, crs))
    if not parts:
        raise NothingMatched("no truth lies on the maps; check the places and CRS of both")
    corners = np.array(parts)
    west, south = corners[:, :2].min(axis=0)
    east, north = corners[:, 2:].max(axis=0)
    pixel = abs(maps[0].grid.transform.a), abs(maps[0].grid.transform.e)
    width, height = (
        max(east - west, pixel[0]),
        max(north - south, pixel[1]),
    )  # one point has no extent
    transform = Affine(width / blocks, 0, west, 0, -height / blocks, north)
    return Grid(crs, transform, blocks, blocks)


def _moved(bounds: Bounds, source: str, target: str) -> Bounds:
    return (
        bounds if source == target else Bounds(*between(source, target).transform_bounds(*bounds))
    )


def _draw(
    drawn: Drawn, window: Window, samples: Samples, guess: np.ndarray, fate: np.ndarray
) -> None:
    rows, cols = samples.rows + window.row, samples.cols + window.col
    if samples.point is not None:
        columns = (rows, cols, samples.label, guess, fate)
        drawn.points += list(zip(*(v.tolist() for v in columns), strict=True))
        return
    grid = drawn.map.grid
    height, width = drawn_size(grid)
    if drawn.right is None or drawn.wrong is None:
        drawn.right, drawn.wrong = np.zeros((2, height * width), np.int64)
    cell = rows * height // grid.height * width + cols * width // grid.width
    scored = fate == Fate.SCORED
    right = guess == samples.label
    drawn.right += np.bincount(cell[scored & right], minlength=height * width)
    drawn.wrong += np.bincount(cell[scored & ~right], minlength=height * width)


def drawn_size(grid: Grid) -> tuple[int, int]:
    """Height and width of a map's picture, px."""
    scale = min(1.0, DRAWN_PX / max(grid.height, grid.width))
    return max(1, round(grid.height * scale)), max(1, round(grid.width * scale))
