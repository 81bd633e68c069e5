"""Tile sets of any format for PyTorch: a dataset, and batches that are quick, seeded and can be taken up again.

ds = TileDataset("tiles/", split="train")
for batch in batches(ds, size=32, epoch=3, augment="dihedral"): ...
torch.utils.data.DataLoader(ds, batch_size=32, num_workers=2, collate_fn=ds.collate)
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.tileset import Tiles
from geoml_cli.stages.gather import Images, Labels, centres
from geoml_cli.stages.in_order import in_order
from geoml_cli.stages.sides import Sides, parts_of
from geoml_cli.stages.tiles import open_tiles

SIDES = ("train", "val", "test", "all")
AUGMENTS = ("none", "dihedral")
Sample = dict[str, Any]


class Samples(list[Sample]):
    """Samples that are views of one batch, and the batch."""

    batch: Sample


class TileDataset(Dataset[Sample]):
    """Tiles of one side of a tile set, as dictionaries of tensors.

    `split` is `train`, `val`, `test` or `all` (every tile, every label); of a tile set with folds,
    `member` k tests on fold k and validates on the next. `sensors` and `layers` name what is
    wanted; None is all of them. A sample holds

    image (T, C, H, W) float32 physical values and valid (T, H, W) bool of the first sensor, of
    each further one NAME, NAME_valid and NAME_day; day (T,) float32 days since 1970-01-01, NaN where unknown;
    lonlat (2,) float32 the middle, degrees; id str; and for each layer its NAME: (H, W) int64
    classes, 255 where there is no label or its ground is not of this side, or float32 values,
    there NaN; of a layer with a label a tile (), or (classes,) float32 0 and 1 where a tile holds several.
    """

    def __init__(
        self,
        path: str | Tiles,
        split: str = "train",
        member: int = 0,
        sensors: Sequence[str] | None = None,
        layers: Sequence[str] | None = None,
    ) -> None:
        if split not in SIDES:
            raise UsageMistake(f"split {split!r}: one of {', '.join(SIDES)}")
        self.tiles = open_tiles(path) if isinstance(path, str) else path
        parts = parts_of(self.tiles)
        if not 0 <= member < len(parts):
            raise UsageMistake(f"member {member}: the tile set has {len(parts)}")
        self.split = split
        names = _chosen(self.tiles.head["sensors"], sensors, "sensor")
        self.images = [Images(self.tiles, name) for name in names]
        self.labels = [
            Labels(self.tiles, name) for name in _chosen(self.tiles.head["layers"], layers, "layer")
        ]
        _check_keys([image.name for image in self.images[1:]], [one.name for one in self.labels])
        self.sides = Sides(self.tiles, parts[member])
        self.rows = self.sides.labelled(split, [one.head for one in self.labels])
        self._whole = self.sides.tiles_of(split)
        self._days = [image.days() for image in self.images]
        self._centres = centres(self.tiles)
        self._ids = self.tiles.index["id"].to_numpy(object)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Sample:
        return self.__getitems__([i])[0]

    def __getitems__(self, chosen: Sequence[int]) -> Samples:
        """Samples of several tiles, read as one batch; what PyTorch's DataLoader asks for."""
        batch = self.read(chosen)
        samples = Samples({k: v[i] for k, v in batch.items()} for i in range(len(chosen)))
        samples.batch = batch
        return samples

    def collate(self, samples: list[Sample]) -> Sample:
        """The batch behind the samples of `__getitems__`, without the copy that PyTorch's own makes."""
        return samples.batch if isinstance(samples, Samples) else default_collate(samples)

    def read(self, chosen: Sequence[int] | np.ndarray, turns: np.ndarray | None = None) -> Sample:
        """A batch of tiles (positions in this dataset), each turned by its symmetry (0..7) of the square."""
        rows = self.rows[np.asarray(chosen)]
        batch: dict[str, np.ndarray] = {}
        for image, days in zip(self.images, self._days, strict=True):
            value, valid, day = _keys(None if image is self.images[0] else image.name)
            batch[value] = image.values(rows, turns)
            batch[valid] = image.valid(rows, turns)
            batch[day] = days[rows]
        if any(not one.a_tile for one in self.labels):
            hold = self.sides.pixels(self.split, rows)
        for one in self.labels:
            batch[one.name] = one.read(rows, self._whole[rows] if one.a_tile else hold, turns)
        batch["lonlat"] = self._centres[rows]
        tensors: Sample = {name: torch.from_numpy(array) for name, array in batch.items()}
        return tensors | {"id": list(self._ids[rows])}


def _keys(sensor: str | None) -> tuple[str, str, str]:
    """Keys of a sensor's values, validity and days; None: the first one's."""
    if sensor is None:
        return "image", "valid", "day"
    return sensor, f"{sensor}_valid", f"{sensor}_day"


def _chosen(listed: list[dict[str, Any]], wanted: Sequence[str] | None, what: str) -> list[str]:
    """Names of sensors or layers, in the order they are wanted."""
    have = [one["name"] for one in listed]
    for name in wanted or ():
        if name not in have:
            raise UsageMistake(f"{what} {name!r}: the tile set has {', '.join(have) or 'none'}")
    return have if wanted is None else list(wanted)


def _check_keys(sensors: list[str], layers: list[str]) -> None:
    """Every name of a sample means one thing."""
    keys = [*_keys(None), "lonlat", "id", *(k for s in sensors for k in _keys(s)), *layers]
    for key in keys:
        if keys.count(key) > 1:
            raise GeomlError(
                f"two things of a sample are called {key}; name sensors and layers otherwise"
            )


def batches(
    ds: TileDataset,
    *,
    size: int = 32,
    seed: int = 0,
    epoch: int = 0,
    start: int = 0,
    shuffle: bool = True,
    augment: str = "none",
    workers: int = 2,
    depth: int | None = None,
) -> Iterator[Sample]:
    """Batches of an epoch from the batch `start` on, read by threads ahead of who takes them.

    Order and symmetries follow from (seed, epoch) alone: an epoch that is taken up at `start`
    goes on as if it had not stopped, whatever `workers` and `depth` are. At most `depth` batches
    (None: one more than there are workers) are read and not yet taken. The last one may be smaller.
    """
    if augment not in AUGMENTS:
        raise UsageMistake(f"augment {augment!r}: one of {', '.join(AUGMENTS)}")
    if size < 1 or start < 0 or workers < 0:
        raise UsageMistake(f"size {size}, start {start}, workers {workers}: too small")
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = rng.permutation(len(ds)) if shuffle else np.arange(len(ds))
    turns = rng.integers(8, size=len(ds)) if augment == "dihedral" else None
    pieces = [slice(i, i + size) for i in range(start * size, len(ds), size)]

    def make(piece: slice) -> Sample:
        return ds.read(order[piece], None if turns is None else turns[piece])

    return in_order(make, pieces, workers, workers + 1 if depth is None else depth)
