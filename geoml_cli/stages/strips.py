"""Where windows fade into each other: what a window says beyond its block, kept until the next one is computed."""

import math
import os
from pathlib import Path

import numpy as np

from geoml_cli.core.lattice import Lattice

ROWS = 3  # of windows


class Strips:
    """Rows of windows in a file of their own, beside the journal, so that a killed run goes on.

    The row before the one that is computed, that one, and one to spare are kept: a batch lies in
    one row, so that what it stands on is there when it is computed again. The file grows with
    the width alone.
    """

    def __init__(self, path: Path, lattice: Lattice, channels: int) -> None:
        self.path, self.lattice = path, lattice
        rows, cols = lattice.rows, lattice.cols
        below = (ROWS, cols.count, channels, rows.strip, cols.block + cols.strip)
        beside = (ROWS, cols.count, channels, rows.block, cols.strip)
        sizes = [4 * math.prod(shape) for shape in (below, beside)]
        total = sizes[0] + sizes[1]
        self.new = not (path.is_file() and path.stat().st_size == total)
        if self.new:
            with open(path, "wb") as file:
                if hasattr(os, "posix_fallocate") and total:
                    os.posix_fallocate(file.fileno(), 0, total)
                file.truncate(total)
        self._maps = [
            np.memmap(path, np.float32, "r+", offset, shape)
            if size
            else np.zeros(shape, np.float32)
            for shape, size, offset in zip((below, beside), sizes, (0, sizes[0]), strict=True)
        ]

    def joined(self, i: int, said: np.ndarray) -> np.ndarray:
        """Channels (C, h, w) of block i, of what window i and those before it say, `said` (C, H, W) of its reach."""
        below, beside = self._maps
        block, (r, c) = self.lattice.blocks[i], self.lattice.place(i)
        h, w, slot = block.height, block.width, r % ROWS
        here = below[slot, c]
        here[:, : said.shape[1] - h, : said.shape[2]] = said[:, h:]
        lead = self.lattice.rows.lead(r)[:, None]
        if len(lead):
            above = below[(r - 1) % ROWS, c][:, : len(lead), : said.shape[2]]
            said[:, : len(lead)] = lead * said[:, : len(lead)] + (1 - lead) * above
        said = said[:, :h]
        beside[slot, c][:, :h, : said.shape[2] - w] = said[:, :, w:]
        lead = self.lattice.cols.lead(c)
        if len(lead):
            left = beside[slot, c - 1][:, :h, : len(lead)]
            said[:, :, : len(lead)] = lead * said[:, :, : len(lead)] + (1 - lead) * left
        return said[:, :, :w]

    def sync(self) -> None:
        """Flush to the disk."""
        for one in self._maps:
            if isinstance(one, np.memmap):
                one.flush()

    @staticmethod
    def nbytes(lattice: Lattice, channels: int) -> int:
        """Bytes of the file."""
        rows, cols = lattice.rows, lattice.cols
        across = rows.strip * (cols.block + cols.strip) + rows.block * cols.strip
        return 4 * ROWS * cols.count * channels * across
