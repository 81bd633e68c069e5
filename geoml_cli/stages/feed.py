"""From a tile set to a model's batches: which pixels train, which validate, with what weight."""

from collections.abc import Iterator

import numpy as np
import torch

from geoml_cli.core.batch import Batch
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.classes import IGNORE, read_classes
from geoml_cli.stages.gather import Images, Labels
from geoml_cli.stages.in_order import in_order
from geoml_cli.stages.sides import LOOK, YES, Part, Sides, chunks, parts_of

__all__ = ["Feed", "Part", "class_weights", "parts_of"]


class Feed:
    """Tiles of one part, the first sensor's and the first layer's; a batch is read when its turn comes."""

    def __init__(self, tiles: Tiles, part: Part) -> None:
        self.tiles, self.part = tiles, part
        self.sides = Sides(tiles, part)
        self.images, self.labels = Images(tiles), Labels(tiles, tiles.head["layers"][0]["name"])
        self._ids = [c.id for c in read_classes(self.labels.head["classes"])]
        counts = self._count()  # (tiles, classes)
        self.counts = counts.sum(axis=0)  # labelled training pixels of each class
        self.rows = np.flatnonzero(counts.any(axis=1))
        self.val_rows = self.rows[:0]
        if part.val is not None:
            self.val_rows = self.sides.labelled("val", [self.labels.head])

    def _count(self) -> np.ndarray:
        """Training pixels of each class in each tile; from the index where the whole tile trains."""
        every = np.arange(len(self.tiles.index))
        state = self.sides.state("train", every)
        counts = np.stack(self.tiles.index[f"counts_{self.labels.name}"].to_list())
        counts[state != YES] = 0
        for rows in chunks(every[state == LOOK]):
            labels = self._train_labels(rows)
            counts[rows] = np.stack([(labels == i).sum(axis=(1, 2)) for i in self._ids], axis=1)
        return counts

    def _train_labels(self, rows: np.ndarray) -> np.ndarray:
        return self.labels.read(rows, self.sides.pixels("train", rows))

    def _val_labels(self, rows: np.ndarray) -> np.ndarray:
        return self.labels.read(rows, self.sides.pixels("val", rows))

    def norm(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (C,) of physical values, over valid pixels that may train."""
        statistics = (self.tiles.head.get("statistics") or {}).get(self.images.name) or {}
        usual = self.part in parts_of(self.tiles)  # those that the tile set was counted for
        for part in statistics.get("parts", ()) if usual else ():
            if part["member"] == self.part.member:
                return np.array(part["mean"]), np.maximum(part["std"], 1e-6)
        return self._measure()

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros((3, len(self.images.head["bands"])))
        for rows in chunks(self.rows):
            values, seen = self.images.values(rows), self.images.valid(rows)
            may = self.sides.pixels("train", rows)
            seen = seen if may is None else seen & may[:, None]
            x = np.moveaxis(values, 2, 0)[:, seen].astype(np.float64)  # (C, pixels)
            total += np.stack([np.full(len(x), x.shape[1]), x.sum(1), (x**2).sum(1)])
        mean = total[1] / np.maximum(total[0], 1)
        variance = total[2] / np.maximum(total[0], 1) - mean**2
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def _batch(self, rows: np.ndarray, side: str, weights: np.ndarray) -> Batch:
        target = torch.from_numpy(self.labels.read(rows, self.sides.pixels(side, rows)))
        table = torch.zeros(IGNORE + 1)
        table[: len(weights)] = torch.from_numpy(weights).float()
        weight = table[target]
        return Batch(
            images=torch.from_numpy(self.images.values(rows)),
            valid=torch.from_numpy(self.images.valid(rows)),
            target=target,
            weight=weight,
            total=float(weight.sum()),
        )

    def epoch(
        self, number: int, size: int, micro: int, seed: int, weights: np.ndarray, workers: int = 0
    ) -> Iterator[list[Batch]]:
        """Effective batches of `size` tiles in parts of `micro`, shuffled by (seed, epoch).

        `workers` threads read the next ones meanwhile; where the device is the CPU itself they
        would only take cores from the arithmetic.
        """
        rng = np.random.Generator(np.random.PCG64([seed, self.part.member, number]))
        order = rng.permutation(self.rows)

        def make(rows: np.ndarray) -> list[Batch]:
            whole = self._batch(rows, "train", weights)
            return [_slice(whole, i, i + micro) for i in range(0, len(rows), micro)]

        return in_order(make, chunks(order, size), workers, workers + 1)

    def validation(self, micro: int, weights: np.ndarray, workers: int = 0) -> Iterator[Batch]:
        """Validation tiles in order, only validation pixels labelled."""

        def make(rows: np.ndarray) -> Batch:
            return self._batch(rows, "val", weights)

        return in_order(make, chunks(self.val_rows, micro), workers, workers + 1)


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
