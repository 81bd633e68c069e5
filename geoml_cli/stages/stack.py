"""Scenes as stacks of bands: assets read as one image on one grid, bands by name, one order for all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band, same_state
from geoml_cli.formats.presets import MaskRule
from geoml_cli.formats.raster import Raster, Reader
from geoml_cli.formats.views import Plain, Warped
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.snap import shift_between
from geoml_cli.stages.inputs import Scene

NEAREST = "nearest"


@dataclass(frozen=True)
class Stack:
    """Rasters read as one image; plain data. `how` resamples each raster that lies on another grid."""

    scene: str
    datetime: str | None
    rasters: tuple[Raster, ...]
    order: tuple[int, ...]  # of the bands of all rasters one after another
    how: tuple[str, ...]
    grid: Grid
    cloud: tuple[Raster, MaskRule] | None = None

    @property
    def bands(self) -> tuple[Band, ...]:
        """Bands in reading order."""
        every = [band for raster in self.rasters for band in raster.bands]
        return tuple(every[i] for i in self.order)

    @property
    def dtype(self) -> str:
        """Type that holds the values of all rasters."""
        return str(np.result_type(*(r.dtype for r in self.rasters)))

    def pick(self, names: Sequence[str]) -> "Stack":
        """The same stack with these bands, by name or common name, in this order."""
        have = {band.name: i for i, band in zip(self.order, self.bands, strict=True)}
        for i, band in zip(self.order, self.bands, strict=True):
            if band.common_name:
                have.setdefault(band.common_name, i)
        for name in names:
            if name not in have:
                known = ", ".join(band.name for band in self.bands)
                raise GeomlError(f"{self.rasters[0].path}: no band {name}; it has {known}")
        return self._with_bands([have[name] for name in names])

    def _with_bands(self, order: Sequence[int]) -> "Stack":
        """These bands; of rasters only what they need is read."""
        source = [(r, n) for r, raster in enumerate(self.rasters) for n in range(len(raster.bands))]
        wanted = [source[i] for i in order]
        used = sorted({r for r, _ in wanted})
        kept = {r: [n for n in range(len(self.rasters[r].bands)) if (r, n) in wanted] for r in used}
        rasters = []
        for r in used:
            raster = self.rasters[r]
            bands = tuple(raster.bands[n] for n in kept[r])
            indexes = tuple(raster.indexes[n] for n in kept[r])
            rasters.append(replace(raster, bands=bands, indexes=indexes))
        after = [(r, n) for r in used for n in kept[r]]
        return replace(
            self,
            rasters=tuple(rasters),
            order=tuple(after.index(one) for one in wanted),
            how=tuple(self.how[r] for r in used),
        )

    def on(self, grid: Grid) -> "Stack":
        """The same bands brought onto another grid."""
        return replace(self, grid=grid)

    def to_dict(self, name: Callable[[str], str]) -> dict[str, Any]:
        """As plain JSON values without the grid; `name` spells the path of a raster."""
        rasters = [raster.to_dict() | {"path": name(raster.path)} for raster in self.rasters]
        said = {"scene": self.scene, "datetime": self.datetime, "order": list(self.order)}
        return {**said, "how": list(self.how), "rasters": rasters}

    @classmethod
    def from_dict(cls, plain: dict[str, Any], grid: Grid, path: Callable[[str], str]) -> "Stack":
        """Read what `to_dict` gave; `path` undoes its `name`. What tells clouds is not kept."""
        rasters = [Raster.from_dict(one | {"path": path(one["path"])}) for one in plain["rasters"]]
        order, how = tuple(plain["order"]), tuple(plain["how"])
        return cls(plain["scene"], plain["datetime"], tuple(rasters), order, how, grid)


def stack_of(scene: Scene, bands: Sequence[str] = (), resampling: str = "bilinear") -> Stack:
    """Stack the assets of a scene on the grid of its finest one.

    A `labels` asset and layers of quality flags are left aside, unless `bands` names them;
    whatever holds classes is resampled by its nearest pixel.
    """
    aside = {"labels", *scene.categorical} - set(bands)
    named = {key: r for key, r in scene.rasters.items() if key not in aside} or scene.rasters
    rasters = []
    for key, raster in named.items():
        if len(named) > 1 and len(raster.bands) == 1 and raster.bands[0].name == "B1":
            raster = replace(raster, bands=(replace(raster.bands[0], name=key),))
        rasters.append(raster)
    cloud = scene.cloud and (scene.rasters[scene.cloud[0]], scene.cloud[1])
    stack = Stack(
        scene.id,
        scene.datetime,
        tuple(rasters),
        tuple(range(sum(len(r.bands) for r in rasters))),
        tuple(NEAREST if key in scene.categorical else resampling for key in named),
        min((r.grid for r in rasters), key=_coarseness),
        cloud,
    )
    names = [band.name for band in stack.bands]
    if len(set(names)) < len(names):
        raise GeomlError(f"scene {scene.id}: two bands share a name ({', '.join(names)})")
    return stack.pick(bands) if bands else stack


def _coarseness(grid: Grid) -> float:
    """Pixel size on the ground, to 1 %: nearly equal ones count as equal, and the first wins."""
    return float(np.round(np.log(grid.gsd_m()) * 100)) if grid.placed else 0.0


def agree(stacks: list[Stack], bands: Sequence[str], resized: bool = False) -> list[Stack]:
    """Bring all stacks to one list of bands and refuse what does not mix: type, units, scale, offset, GSD.

    `resized`: they will be brought to one resolution, so theirs may differ.
    """
    first = stacks[0].pick(bands) if bands else stacks[0]
    names = [band.name for band in first.bands]
    out = []
    for stack in stacks:
        stack = stack.pick(bands or names)
        where = f"{stack.rasters[0].path}: "
        for a, b in zip(first.bands, stack.bands, strict=True):
            if not same_state(a, b):
                raise GeomlError(
                    f"{where}band {b.name} has scale {b.scale}, offset {b.offset}, unit {b.unit or 'none'};"
                    f" {first.rasters[0].path} has {a.scale}, {a.offset}, {a.unit or 'none'}: they do not mix"
                )
        if stack.dtype != first.dtype:
            raise GeomlError(
                f"{where}values are {stack.dtype}, in {first.rasters[0].path} {first.dtype}"
            )
        if not resized and stack.grid.placed and first.grid.placed:
            ratio = stack.grid.gsd_m() / first.grid.gsd_m()
            if not 0.9 < ratio < 1.1:
                raise GeomlError(
                    f"{where}pixels of {stack.grid.gsd_m():.4g} m; {first.rasters[0].path} has"
                    f" {first.grid.gsd_m():.4g} m: bring them to one resolution with --resolution"
                )
        out.append(stack)
    return out


class StackReader:
    """An open stack; one per thread."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._looks = [
            Look(raster, stack.grid, how)
            for raster, how in zip(stack.rasters, stack.how, strict=True)
        ]
        kinds = {raster.dtype for raster in stack.rasters}
        self._straight = len(kinds) == 1 and stack.order == tuple(range(len(stack.order)))
        self._cloud: Look | None = None

    def __enter__(self) -> "StackReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files."""
        for look in [*self._looks, *([self._cloud] if self._cloud else [])]:
            look.reader.close()

    def read(self, window: Window, out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Values (C, h, w) in the stack's dtype and valid (h, w): where every raster is."""
        shape = (len(self.stack.order), window.height, window.width)
        if out is None:
            out = np.empty(shape, self.stack.dtype)
        held = out if self._straight else np.empty(shape, out.dtype)
        valid, first = None, 0
        for look in self._looks:
            part = held[first : first + look.bands]
            first += look.bands
            mask = look.read(window, part)
            valid = mask if valid is None else valid & mask
        assert valid is not None
        if held is not out:
            np.take(held, self.stack.order, axis=0, out=out)
        return out, valid

    def cloudy(self, window: Window) -> float | None:
        """Share of the known pixels of a window that are cloud; None where no layer tells."""
        if self.stack.cloud is None:
            return None
        raster, rule = self.stack.cloud
        self._cloud = self._cloud or Look(raster, self.stack.grid, NEAREST)
        said = np.empty((self._cloud.bands, window.height, window.width), raster.dtype)
        known = self._cloud.read(window, said)
        return float(rule.bad(said[0])[known].mean()) if known.any() else None


class Look:
    """An open raster as seen from a grid: its own pixels where they coincide, else resampled."""

    def __init__(self, raster: Raster, grid: Grid, how: str) -> None:
        self.reader, self.bands = Reader(raster), len(raster.bands)
        self._shift = (0, 0) if raster.grid == grid else shift_between(raster.grid, grid)
        self._warped = None if self._shift else Warped(Plain(self.reader), grid, how)

    def read(self, window: Window, out: np.ndarray) -> np.ndarray:
        """Put values into `out` (C, h, w), of any type that holds them; give valid (h, w)."""
        if self._warped:
            out[:], valid = self._warped.read(window)
            return valid
        assert self._shift
        rows, cols = self._shift
        there = Window(window.row + rows, window.col + cols, window.height, window.width)
        if out.dtype == self.reader.raster.dtype and out.flags.c_contiguous:
            return self.reader.read(there, out)[1]
        out[:], valid = self.reader.read(there)
        return valid
