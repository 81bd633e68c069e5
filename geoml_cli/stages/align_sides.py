"""Two images as an aligner sees them: one band each, on grids of one pixel size, what hides them masked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from scipy import ndimage

from geoml_cli.errors import GeomlError
from geoml_cli.formats.presets import MaskRule
from geoml_cli.formats.raster import Raster, Reader
from geoml_cli.formats.views import Plain, View, Warped
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.grid import Grid, Window, apply, same_crs
from geoml_cli.geo.snap import needed, shrinking
from geoml_cli.stages.inputs import Scene

STRIP_PIXELS = 1 << 22
SAME = 1e-6  # of a pixel's size
LEAST_PX = 32  # of common ground


@dataclass(frozen=True)
class Side:
    """One band of a scene, and the layers that say where it is not to be looked at; plain data."""

    scene: Scene
    raster: Raster  # of that band alone
    hidden: tuple[tuple[Raster, MaskRule | None], ...] = ()  # no rule: what is not 0 hides


def bands_of(scene: Scene) -> dict[str, tuple[str, str]]:
    """Bands that can be compared: {name and common name: (asset, band)}, of assets without classes."""
    found: dict[str, tuple[str, str]] = {}
    for key, raster in scene.rasters.items():
        if key in scene.categorical or key == "labels":
            continue
        for band in raster.bands:
            name = key if len(raster.bands) == 1 and band.name == "B1" else band.name
            for word in (name, band.common_name):
                if word:
                    found.setdefault(word, (key, band.name))
    return found


def side_of(scene: Scene, band: str, masks: Sequence[Raster]) -> Side:
    """The scene seen by a band, by name or common name."""
    have = bands_of(scene)
    if band not in have:
        raise GeomlError(f"{scene.id}: no band {band}; it has {', '.join(have)}")
    key, name = have[band]
    hidden: list[tuple[Raster, MaskRule | None]] = [(mask, None) for mask in masks]
    if scene.cloud and scene.cloud[0] in scene.rasters:
        hidden.append((scene.rasters[scene.cloud[0]], scene.cloud[1]))
    return Side(scene, scene.rasters[key].pick([name]), tuple(hidden))


@dataclass(frozen=True)
class Ground:
    """The grids that two images are compared on: same CRS, pixel size and shape; plain data."""

    reference: Grid
    moving: Grid

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.reference.height, self.reference.width


def ground_of(reference: Grid, moving: Grid) -> Ground:
    """Common ground of two grids, in pixels of the coarser; an image whose pixels have that size keeps its own."""
    for grid in (reference, moving):
        if not grid.placed:
            raise GeomlError("an image without CRS has no place that could be mended; give it one")
    ratio = _size_ratio(reference, moving)
    window = needed(moving, reference, 0)
    if window is None or min(window.height, window.width) < 1:
        raise GeomlError("no common ground")
    base = reference.crop(window)
    if ratio > 1 + SAME:  # pixels of the moving image are larger
        t = base.transform
        size = (max(1, int(base.height / ratio)), max(1, int(base.width / ratio)))
        base = Grid(base.crs, Affine(t.a * ratio, 0.0, t.c, 0.0, t.e * ratio, t.f), *size)
    if min(base.height, base.width) < LEAST_PX:
        raise GeomlError(
            f"only {base.width} x {base.height} px of common ground; {LEAST_PX} are needed"
        )
    t, m = base.transform, moving.transform
    close = all(
        abs(abs(p / q) - 1) * max(base.height, base.width) < 0.01
        for p, q in ((t.a, m.a), (t.e, m.e))
    )
    if same_crs(base.crs, moving.crs) and close and (t.a * m.a > 0) and (t.e * m.e > 0):
        cols, rows = apply(~m, t.c, t.f)
        own = moving.crop(Window(round(rows), round(cols), base.height, base.width))
        return Ground(base, own)
    return Ground(base, base)


def _size_ratio(reference: Grid, moving: Grid) -> float:
    """How many pixels of the reference lie along one of the moving image."""
    if same_crs(reference.crs, moving.crs):
        return abs(moving.transform.a / reference.transform.a)
    return moving.gsd_m() / reference.gsd_m()


def overlap(a: Grid, b: Grid) -> float:
    """Common ground of two grids, square degrees."""
    import shapely

    shapes = [shapely.make_valid(footprint(one.outline())) for one in (a, b)]
    return float(shapely.intersection(*shapes).area)


class Sight:
    """An open side on its grid: values (h, w) float32 and what of them is to be looked at."""

    def __init__(self, side: Side, grid: Grid) -> None:
        self.side, self.grid = side, grid
        self._reader = Reader(side.raster)
        self._view = _view(Plain(self._reader), grid, "cubic")
        self._layers = [(Reader(raster), rule) for raster, rule in side.hidden]

    def __enter__(self) -> "Sight":
        return self

    def __exit__(self, *_: object) -> None:
        for reader in (self._reader, *(layer for layer, _ in self._layers)):
            reader.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is seen; outside the image nothing is."""
        data, valid = self._view.read(window)
        for reader, rule in self._layers:
            said, known = _view(Plain(reader), self.grid, "nearest").read(window)
            if rule is None:
                valid &= ~(known & (said != 0).any(0))
            else:
                valid &= known & ~rule.bad(said[0])
        return data[0].astype(np.float32), valid

    def small(self, factor: int, check: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
        """The whole grid shrunk by means of factor x factor pixels, and where at least half is seen."""
        height, width = self.grid.height // factor, self.grid.width // factor
        values, share = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
        rows = max(1, STRIP_PIXELS // (factor * self.grid.width))
        for first in range(0, height, rows):
            check()
            count = min(rows, height - first)
            window = Window(first * factor, 0, count * factor, width * factor)
            data, valid = self.read(window)
            cells = (count, factor, width, factor)
            seen = valid.reshape(cells).sum((1, 3))
            total = np.where(valid, data, 0).reshape(cells).sum((1, 3), dtype=np.float64)
            values[first : first + count] = total / np.maximum(seen, 1)
            share[first : first + count] = seen / factor**2
        return values, share >= 0.5


def _view(inner: View, grid: Grid, how: str) -> View:
    """An image on a grid: its own pixels where they are those of the grid."""
    own = inner.grid
    t, m = own.transform, grid.transform
    if (
        same_crs(own.crs, grid.crs)
        and abs(t.a - m.a) < SAME * abs(t.a)
        and abs(t.e - m.e) < SAME * abs(t.e)
    ):
        cols, rows = apply(~t, m.c, m.f)
        if abs(cols - round(cols)) < 1e-4 and abs(rows - round(rows)) < 1e-4:
            return _Moved(inner, grid, round(rows), round(cols))
    wide = shrinking(own, grid) > 1.5
    return Warped(inner, grid, "average" if wide and how != "nearest" else how)


@dataclass
class _Moved:
    """Pixels of a view, counted from another corner."""

    inner: View
    grid: Grid
    row: int
    col: int

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""
        there = replace_window(window, self.row, self.col)
        return self.inner.read(there)


def replace_window(window: Window, rows: int, cols: int) -> Window:
    """The window moved by rows and cols."""
    return Window(window.row + rows, window.col + cols, window.height, window.width)


PREFERRED = ("red", "green", "nir", "nir08", "pan", "blue", "swir16")


def choose_bands(
    reference: Scene, moving: Scene, given: str | None, check: Callable[[], None] = lambda: None
) -> tuple[str, str]:
    """The bands to compare: those given, one that both have, or the two most alike."""
    if given:
        first, _, second = given.partition(",")
        return first, second or first
    ours, theirs = bands_of(reference), bands_of(moving)
    common = [name for name in ours if name in theirs]
    named = [
        name for name in common if not (name[:1] == "B" and name[1:].isdigit() and len(name) == 2)
    ]
    best = [name for name in PREFERRED if name in common]
    if best or named:
        return ((best or named)[0],) * 2
    if len(ours) == len(theirs) == 1:
        return next(iter(ours)), next(iter(theirs))
    return _most_alike(reference, moving, ours, theirs, check)


def _most_alike(
    reference: Scene,
    moving: Scene,
    ours: dict[str, tuple[str, str]],
    theirs: dict[str, tuple[str, str]],
    check: Callable[[], None],
) -> tuple[str, str]:
    """The pair whose edges correlate most, as they lie, on shrunk images; the sign does not matter."""

    def edges(
        scene: Scene, names: Sequence[str], other: Scene, first: bool
    ) -> dict[str, np.ndarray]:
        out = {}
        for name in names:
            side = side_of(scene, name, ())
            pair = (side.raster.grid, next(iter(other.rasters.values())).grid)
            ground = ground_of(*(pair if first else pair[::-1]))
            grid = ground.reference if first else ground.moving
            factor = max(1, max(ground.shape) // 256)
            with Sight(replace(side, hidden=()), grid) as sight:
                image, seen = sight.small(factor, check)
            smooth = ndimage.gaussian_filter(
                np.where(seen, image, image[seen].mean() if seen.any() else 0), 2
            )
            out[name] = ndimage.gaussian_gradient_magnitude(smooth, 1) * ndimage.binary_erosion(
                seen, iterations=6
            )
        return out

    a, b = edges(reference, list(ours), moving, True), edges(moving, list(theirs), reference, False)
    scores = {
        (p, q): abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) if x.shape == y.shape else -1.0
        for p, x in a.items()
        for q, y in b.items()
    }
    return max(scores, key=lambda pair: np.nan_to_num(scores[pair], nan=-1.0))
