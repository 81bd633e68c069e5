"""Scenes as stacks of bands: assets on one grid read as one image, bands by name, one order for all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band, same_state
from geoml_cli.formats.raster import Raster, Reader
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.stages.inputs import Scene


@dataclass(frozen=True)
class Stack:
    """Rasters on one grid read as one image; plain data."""

    scene: str
    datetime: str | None
    rasters: tuple[Raster, ...]
    order: tuple[int, ...]  # of the bands of all rasters one after another

    @property
    def grid(self) -> Grid:
        """The grid of all its rasters."""
        return self.rasters[0].grid

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
        return replace(self, order=tuple(have[name] for name in names))


def stack_of(scene: Scene) -> Stack:
    """Stack the assets of a scene; they must lie on one grid. A `labels` asset is left aside."""
    named = {
        key: raster for key, raster in scene.rasters.items() if key != "labels"
    } or scene.rasters
    rasters = []
    for key, raster in named.items():
        if len(named) > 1 and len(raster.bands) == 1 and raster.bands[0].name == "B1":
            raster = replace(raster, bands=(replace(raster.bands[0], name=key),))
        rasters.append(raster)
    first = rasters[0]
    for other in rasters[1:]:
        if other.grid != first.grid:
            raise GeomlError(
                f"scene {scene.id}: {first.path} and {other.path} lie on different grids;"
                " name those of one resolution with `geoml fetch --bands`"
            )
    stack = Stack(scene.id, scene.datetime, tuple(rasters), ())
    count = sum(len(r.bands) for r in rasters)
    stack = replace(stack, order=tuple(range(count)))
    names = [band.name for band in stack.bands]
    if len(set(names)) < len(names):
        raise GeomlError(f"scene {scene.id}: two bands share a name ({', '.join(names)})")
    return stack


def agree(stacks: list[Stack], bands: Sequence[str]) -> list[Stack]:
    """Bring all stacks to one list of bands and refuse what does not mix: type, units, scale, offset, GSD."""
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
        ratio = stack.grid.gsd_m() / first.grid.gsd_m()
        if not 0.9 < ratio < 1.1:
            raise GeomlError(
                f"{where}pixels of {stack.grid.gsd_m():.4g} m; {first.rasters[0].path} has"
                f" {first.grid.gsd_m():.4g} m: bring them to one resolution first (gdalwarp -tr)"
            )
        out.append(stack)
    return out


class StackReader:
    """An open stack; one per thread."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._readers = [Reader(raster) for raster in stack.rasters]

    def __enter__(self) -> "StackReader":
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values (C, h, w) in the stack's dtype and valid (h, w): where every raster is."""
        parts = [reader.read(window) for reader in self._readers]
        if len(parts) == 1 and self.stack.order == tuple(range(len(self.stack.order))):
            return parts[0]
        data = np.concatenate([values for values, _ in parts]).astype(self.stack.dtype, copy=False)
        valid = np.logical_and.reduce([mask for _, mask in parts])
        return data[list(self.stack.order)], valid
