"""The rasters of one map in the making: written block by block together, done together."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from geoml_cli.formats.cog import Journal, Layout, drop_journal
from geoml_cli.geo.grid import Window

MAP = "map"


def stem(name: str, asset: str) -> str:
    """File name, without suffix, of an asset of a map."""
    return name if asset == MAP else f"{name}_{asset}"


class Making:
    """Assets of one map, each a Journal; a block is done where it is in all of them."""

    def __init__(
        self, folder: Path, name: str, layouts: Mapping[str, Layout], blocks: Sequence[Window]
    ) -> None:
        self.folder, self.name, self.layouts = folder, name, dict(layouts)
        self.journals: dict[str, Journal] = {}
        try:
            for asset, layout in layouts.items():
                if (folder / f"{stem(name, asset)}.tif").is_file():
                    continue  # a run was killed between two of them
                self.journals[asset] = Journal(folder, stem(name, asset), layout, blocks)
        except BaseException:
            self.close()
            raise
        self.blocks = list(blocks)

    @property
    def done(self) -> np.ndarray:
        """Which blocks (n,) are on disk in all assets."""
        return np.logical_and.reduce([one.done for one in self.journals.values()])

    @property
    def empty(self) -> bool:
        """Whether no block holds a valid pixel."""
        return next(iter(self.journals.values())).empty

    def write(
        self, i: int, arrays: Mapping[str, np.ndarray] | None, seen: np.ndarray | None
    ) -> None:
        """Write block `i`: arrays (C, h, w) by asset, nodata where not seen (h, w); None: nothing is."""
        block = self.blocks[i]
        for asset, journal in self.journals.items():
            layout = self.layouts[asset]
            none = layout.bands[0].nodata
            if arrays is None or seen is None or not seen.any():
                shape = (len(layout.bands), block.height, block.width)
                journal.write(i, np.full(shape, none, layout.dtype), empty=True)
            else:
                journal.write(i, np.where(seen, arrays[asset], np.array(none, layout.dtype)))

    def sync(self) -> None:
        """Flush what is written; it counts as done from now on."""
        for journal in self.journals.values():
            journal.sync()

    def close(self) -> None:
        """Let go of the files."""
        for journal in self.journals.values():
            journal.close()

    def finish(self, options: Mapping[str, str]) -> None:
        """Translate to COGs, the map's last: with it all are there."""
        self.sync()
        self.close()
        for asset in sorted(self.journals, key=lambda one: one == MAP):
            path = self.folder / f"{stem(self.name, asset)}.tif"
            self.journals[asset].finish(path, options)

    @staticmethod
    def drop(folder: Path, name: str, assets: Sequence[str]) -> None:
        """Forget a map that will not be finished."""
        for asset in assets:
            drop_journal(folder, stem(name, asset))
            (folder / f"{stem(name, asset)}.tif").unlink(missing_ok=True)
