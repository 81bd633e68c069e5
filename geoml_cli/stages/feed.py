"""From a tile set to batches: which pixels train, which validate, with what weight."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from geoml_cli.core.batch import Batch
from geoml_cli.formats.raster import physical
from geoml_cli.formats.tileset import TileSet
from geoml_cli.geo.classes import IGNORE

TRAIN, VAL, TEST = 0, 1, 2  # folds of a plain split


@dataclass(frozen=True)
class Part:
    """The share of the ground one member trains and validates on; `held` folds never train."""

    member: int
    val: int | None
    test: int | None

    @property
    def held(self) -> tuple[int, ...]:
        """Folds kept away from training."""
        return tuple(f for f in (self.val, self.test) if f is not None)


def parts_of(tiles: TileSet) -> list[Part]:
    """One part for a plain split or none; with folds, part k tests on fold k and validates on the next."""
    if tiles.lattice is None:
        return [Part(0, None, None)]
    if not tiles.folds:
        return [Part(0, VAL, TEST)]
    return [Part(k, (k + 1) % tiles.folds, k) for k in range(tiles.folds)]


class Feed:
    """Tiles of one part. Arrays stay mapped; a batch is read when its turn comes."""

    def __init__(self, tiles: TileSet, part: Part) -> None:
        self.tiles, self.part = tiles, part
        every = np.arange(len(tiles.index))
        counts = np.concatenate([self._count(rows) for rows in _chunks(every)])
        self.counts = counts.sum(axis=0)  # labelled training pixels of each class
        self.rows = every[counts.any(axis=1)]
        self.val_rows = every[:0]
        if part.val is not None:
            in_fold = [sum(by_fold[part.val]) > 0 for by_fold in tiles.index["fold_counts"]]
            self.val_rows = every[in_fold]

    def _count(self, rows: np.ndarray) -> np.ndarray:
        labels = self._train_labels(rows)
        return np.stack([(labels == c.id).sum(axis=(1, 2)) for c in self.tiles.classes], axis=1)

    def _may_train(self, rows: np.ndarray) -> np.ndarray:
        """Pixels (n, H, W) whose ground is neither held out nor within the buffer of such."""
        if not self.part.held:
            return np.ones((len(rows), self.tiles.size, self.tiles.size), bool)
        near = self.tiles.take("near", rows)
        held = np.bitwise_or.reduce([near.dtype.type(1 << f) for f in self.part.held])
        return (near & held) == 0

    def _train_labels(self, rows: np.ndarray) -> np.ndarray:
        return np.where(self._may_train(rows), self.tiles.take("labels", rows), IGNORE)

    def _val_labels(self, rows: np.ndarray) -> np.ndarray:
        own = self.tiles.take("folds", rows) == self.part.val
        return np.where(own, self.tiles.take("labels", rows), IGNORE)

    def _images(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Physical values (n, T, C, H, W) float32 and valid (n, T, H, W)."""
        raw = self.tiles.take("images", rows)
        values = physical(np.moveaxis(raw, 2, 0), self.tiles.bands)
        return np.moveaxis(values, 0, 2), self.tiles.take("valid", rows)

    def norm(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (C,) of physical values, over valid pixels that may train."""
        total = np.zeros((3, len(self.tiles.bands)))
        for rows in _chunks(self.rows):
            images, valid = self._images(rows)
            seen = valid & self._may_train(rows)[:, None]
            x = np.moveaxis(images, 2, 0)[:, seen].astype(np.float64)  # (C, pixels)
            total += np.stack([np.full(len(x), x.shape[1]), x.sum(1), (x**2).sum(1)])
        mean = total[1] / np.maximum(total[0], 1)
        variance = total[2] / np.maximum(total[0], 1) - mean**2
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def _batch(self, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Batch:
        images, valid = self._images(rows)
        target = torch.from_numpy(labels.astype(np.int64))
        table = torch.zeros(IGNORE + 1)
        table[: len(weights)] = torch.from_numpy(weights).float()
        weight = table[target]
        return Batch(
            images=torch.from_numpy(np.ascontiguousarray(images)),
            valid=torch.from_numpy(valid),
            target=target,
            weight=weight,
            total=float(weight.sum()),
        )

    def epoch(
        self, number: int, size: int, micro: int, seed: int, weights: np.ndarray
    ) -> Iterator[list[Batch]]:
        """Effective batches of `size` tiles in parts of `micro`, shuffled by (seed, epoch)."""
        rng = np.random.Generator(np.random.PCG64([seed, self.part.member, number]))
        order = rng.permutation(self.rows)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            whole = self._batch(rows, self._train_labels(rows), weights)
            yield [_slice(whole, i, i + micro) for i in range(0, len(rows), micro)]

    def validation(self, micro: int, weights: np.ndarray) -> Iterator[Batch]:
        """Validation tiles in order, only validation pixels labelled."""
        for start in range(0, len(self.val_rows), micro):
            rows = self.val_rows[start : start + micro]
            yield self._batch(rows, self._val_labels(rows), weights)


def _chunks(rows: np.ndarray, size: int = 64) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    assert batch.target is not None and batch.weight is not None
    return Batch(
        images=batch.images[start:stop],
        valid=batch.valid[start:stop],
        target=batch.target[start:stop],
        weight=batch.weight[start:stop],
        total=batch.total,
    )


def class_weights(counts: np.ndarray, how: str) -> np.ndarray:
    """Weight of each class (mean over pixels 1): `none`, `balanced` (1 / n) or `sqrt` (1 / sqrt n)."""
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[how]
    raw = np.where(counts > 0, np.maximum(counts, 1.0) ** -power, 0.0)
    return raw * counts.sum() / max((raw * counts).sum(), 1e-12)


def ahead(
    make: Callable[[], Iterator[list[Batch]]], device: torch.device, depth: int = 2
) -> Iterator[list[Batch]]:
    """Read the next batches in a thread while the device works on this one.

    Where the device is the CPU itself a thread only takes cores from the arithmetic.
    """
    if device.type == "cpu":
        yield from make()
        return
    box: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                return box.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in make():
                put(item)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # handed over, raised where the batch is wanted
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := box.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
