"""Windows on their way: read ahead in threads, in order, in batches that never change, through the model."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any

import numpy as np

from geoml_cli.formats.cog import Journal
from geoml_cli.formats.raster import physical
from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.splits import Split
from geoml_cli.stages.stack import Stack, StackReader

Read = tuple[int, np.ndarray, np.ndarray]  # block, image (T, C, H, W) physical, valid (T, H, W)


def undone(done: np.ndarray, batch: int) -> list[int]:
    """Blocks to compute: every batch with a block missing, whole, so that a batch is always the same."""
    groups = (range(i, min(i + batch, len(done))) for i in range(0, len(done), batch))
    return [i for group in groups if not done[group].all() for i in group]


def read_ahead(
    stack: Stack, journal: Journal, todo: list[int], lay: Any, jobs: int, batch: int
) -> Iterator[Read]:
    """Read windows in `jobs` threads ahead of the device, in order; at most two batches wait."""
    open_readers: list[StackReader] = []
    mine = local()

    def work(i: int) -> Read:
        if not hasattr(mine, "reader"):
            mine.reader = StackReader(stack)
            open_readers.append(mine.reader)
        image, valid = read_mirrored(mine.reader, lay.around(journal.blocks[i]))
        return i, physical(image, stack.bands)[None], valid[None]

    with ThreadPoolExecutor(jobs) as pool:
        try:
            depth = max(2 * batch, 2 * jobs)
            waiting = [pool.submit(work, i) for i in todo[:depth]]
            for n in range(len(todo)):
                result = waiting[n].result()
                waiting[n] = None  # type: ignore[call-overload]
                if n + depth < len(todo):
                    waiting.append(pool.submit(work, todo[n + depth]))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
            for reader in open_readers:
                reader.__exit__()


def read_mirrored(reader: StackReader, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, H, W) and valid (H, W) of a window; beyond the rim the raster is mirrored."""
    from geoml_cli.core.infer import mirror

    grid = reader.stack.grid
    rows = mirror(window.row, window.height, grid.height)
    cols = mirror(window.col, window.width, grid.width)
    top, left = int(rows.min()), int(cols.min())
    data, valid = reader.read(
        Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
    )
    return data[:, rows - top][:, :, cols - left], valid[rows - top][:, cols - left]


def batched(reads: Iterator[Read], size: int) -> Iterator[list[Read]]:
    """Lists of `size` reads; the last may be shorter."""
    group: list[Read] = []
    for one in reads:
        group.append(one)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def compute(
    group: list[Read],
    journal: Journal,
    grid: Grid,
    mapper: Any,
    halo: int,
    split: Split | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Class ids (1, h, w) of the blocks of one batch; nodata where the input is not valid."""
    inner = slice(halo, group[0][1].shape[-2] - halo), slice(halo, group[0][1].shape[-1] - halo)
    seen = [valid[(0, *inner)] for _, _, valid in group]
    ids = np.full((len(group), *seen[0].shape), IGNORE, np.uint8)
    busy = [n for n, mask in enumerate(seen) if mask.any()]  # all-nodata windows cost nothing
    if busy:
        images = np.stack([group[n][1] for n in busy])
        valids = np.stack([group[n][2] for n in busy])
        folds = None
        if split:
            shape = seen[0].shape
            wheres = [journal.blocks[group[n][0]] for n in busy]
            folds = np.stack([split.on(grid.crop(Window(w.row, w.col, *shape)))[0] for w in wheres])
        ids[busy] = mapper.classes(images, valids, halo, folds)
    for n, (i, _, _) in enumerate(group):
        block = journal.blocks[i]
        kept = np.where(seen[n], ids[n], IGNORE)[: block.height, : block.width]
        yield i, kept[None]
