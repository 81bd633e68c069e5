"""From a tile set to a model's batches: which pixels train, validate and test, with what weight."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from geoml_cli.core.aim import Aim
from geoml_cli.core.batch import Batch
from geoml_cli.core.filling import shown, side_by_side
from geoml_cli.core.network import own_scales
from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.classes import IGNORE
from geoml_cli.stages.codes import codes_of
from geoml_cli.stages.gather import Images, Labels, centres
from geoml_cli.stages.in_order import in_order
from geoml_cli.stages.sides import LOOK, YES, Part, Sides, chunks, parts_of

__all__ = ["Feed", "Part", "class_weights", "parts_of"]


class Feed:
    """Tiles of one part; a batch is read when its turn comes.

    `counts` (K,) are the labelled training pixels, or tiles, of each class (of each thing that is
    present; of each value those that have one), `rows` the tiles that have such, or of which it is known that they
    have none.
    """

    def __init__(
        self,
        tiles: Tiles,
        part: Part,
        aim: Aim,
        sensors: Sequence[str] = (),
        codes: Sequence[str] = (),
        log: bool = False,
    ) -> None:
        self.tiles, self.part, self.aim, self.codes, self.log = tiles, part, aim, tuple(codes), log
        self.sides = Sides(tiles, part)
        names = sensors or [one["name"] for one in tiles.head["sensors"]]
        self.images = [Images(tiles, name) for name in names]
        self.labels = [Labels(tiles, name) for name in aim.layers]
        self._held: dict[str, np.ndarray] = {}
        self.each = self._count()  # (tiles, K)
        self.counts = self.each.sum(axis=0)
        self.tells_none = (
            aim.kind == "present" and aim.per == "tile"
        )  # where none is, that is known too
        self.rows = (
            self.sides.labelled("train", [one.head for one in self.labels])
            if self.tells_none
            else np.flatnonzero(self.each.any(axis=1))
        )
        self.weights = np.ones(len(aim.names))
        self.shift, self.spread = np.zeros(len(aim.names)), np.ones(len(aim.names))
        self._days = [one.days() for one in self.images]
        self.centres = centres(tiles)
        self._norms = [self._norm(one) for one in self.images]
        self._fixed = [self._about(i) for i in range(len(self.images))]

    def held(self, side: str) -> np.ndarray:
        """Tiles with a label on validation or test ground; none where there is no such side."""
        if side not in ("val", "test") or self.sides.fold_of(side) is None:
            return self.rows[:0]
        if side not in self._held:
            if self.aim.fills:
                self._held[side] = self.sides.touched(side)
            else:
                self._held[side] = self.sides.labelled(side, [one.head for one in self.labels])
        return self._held[side]

    def _count(self) -> np.ndarray:
        """Training labels of each name in each tile; from the index where the whole tile trains."""
        count = len(self.tiles.index)
        found = np.zeros((count, len(self.aim.names)), np.int64)
        every = np.arange(count)
        if self.aim.fills:  # what is seen of a tile is what there is to learn
            found[self.sides.touched("train")] = self.tiles.size**2
            found[self.tiles.index["valid"].to_numpy() == 0] = 0
            return found
        if self.aim.per == "pixel":
            state = self.sides.state("train", every)
            if self.aim.kind == "classes":
                found = np.stack(self.tiles.index[f"counts_{self.labels[0].name}"].to_list())
                found[state != YES] = 0
                look = every[state == LOOK]
            else:
                look = self.sides.labelled("train", [one.head for one in self.labels])
        else:
            look = every[self.sides.tiles_of("train")]
        for rows in chunks(look):
            found[rows] = self._named(self.targets(rows, "train"))
        return found

    def _named(self, target: np.ndarray) -> np.ndarray:
        """Labels of each name in each tile of a raw target."""
        space = tuple(range(2 if self.aim.kind != "classes" else 1, target.ndim))
        if self.aim.kind == "classes":
            of = range(len(self.aim.names))
            return np.stack([(target == i).sum(axis=space) for i in of], axis=1)
        seen = target > 0.5 if self.aim.kind == "present" else np.isfinite(target)
        return seen.sum(axis=space)

    def targets(self, rows: np.ndarray, side: str) -> np.ndarray:
        """Labels of some tiles on one side: ids (n, *S), 255 where ignored; or float (n, K, *S), NaN."""
        if self.aim.per == "pixel":
            hold = self.sides.pixels(side, rows)
        else:
            hold = self.sides.tiles_of(side)[rows]
        found = [one.read(rows, hold) for one in self.labels]
        if self.aim.kind == "classes":
            return found[0]
        if self.aim.kind == "present":
            if self.aim.per == "tile":
                return found[0]
            found = [np.where(one == IGNORE, np.nan, one).astype(np.float32) for one in found]
        stacked = np.stack(found, axis=1)
        return logged(stacked) if self.log else stacked

    def fit_values(self) -> None:
        """Measure mean and spread of the values that train; targets are then in units of them."""
        total = np.zeros((3, len(self.aim.names)))
        origin = None
        for rows in chunks(self.rows):
            target = self.targets(rows, "train").astype(np.float64)
            flat = np.moveaxis(target, 1, 0).reshape(len(self.aim.names), -1)
            if origin is None:  # sums about a value of the data lose no digits
                origin = np.nan_to_num(np.nanmean(flat, axis=1, keepdims=True))
            seen = np.isfinite(flat)
            off = np.where(seen, flat - origin, 0)
            total += np.stack([seen.sum(1), off.sum(1), (off**2).sum(1)])
        assert origin is not None
        count = np.maximum(total[0], 1)
        mean = total[1] / count
        std = np.sqrt(np.maximum(total[2] / count - mean**2, 0))
        self.shift, self.spread = mean + origin[:, 0], np.where(std > 0, std, 1.0)

    def as_images(self) -> None:
        """Targets in the units of the standardised images."""
        frames = [one.head["frames"] for one in self.images]
        each = [np.tile(np.stack(norm), n) for norm, n in zip(self._norms, frames, strict=True)]
        self.shift, self.spread = np.concatenate(each, axis=1)

    @property
    def norms(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean and standard deviation (C,) of each sensor's physical values, over valid pixels that may train."""
        return self._norms

    def scale(self, encoder: str) -> None:
        """Take the scales that an encoder has of its own instead of those of the data."""
        for i, one in enumerate(self.images):
            own = own_scales(encoder, len(one.head["bands"]))
            if own is not None:
                self._norms[i] = (np.array(own[0]), np.array(own[1]))

    def _norm(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        statistics = (self.tiles.head.get("statistics") or {}).get(images.name) or {}
        usual = self.part in parts_of(self.tiles)  # those that the tile set was counted for
        for part in statistics.get("parts", ()) if usual else ():
            if part["member"] == self.part.member:
                return np.array(part["mean"]), np.maximum(part["std"], 1e-6)
        return self._measure(images)

    def _measure(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros((3, len(images.head["bands"])))
        for rows in chunks(self.rows):
            values, seen = images.values(rows), images.valid(rows)
            may = self.sides.pixels("train", rows)
            seen = seen if may is None else seen & may[:, None]
            x = np.moveaxis(values, 2, 0)[:, seen].astype(np.float64)  # (C, pixels)
            total += np.stack([np.full(len(x), x.shape[1]), x.sum(1), (x**2).sum(1)])
        mean = total[1] / np.maximum(total[0], 1)
        variance = total[2] / np.maximum(total[0], 1) - mean**2
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def _about(self, i: int) -> tuple[torch.Tensor, torch.Tensor, float | None]:
        """What is the same for all tiles of a sensor: spread, wavelengths, GSD."""
        head = self.images[i].head
        waves = [Band.from_dict(b).wavelength_nm for b in head["bands"]]
        known = torch.tensor([np.nan if w is None else w for w in waves], dtype=torch.float32)
        return torch.from_numpy(self._norms[i][1]).float(), known, head["gsd_m"]

    def _seen(self, i: int, rows: np.ndarray) -> Batch:
        """Some tiles as one sensor sees them."""
        images, (std, waves, gsd) = self.images[i], self._fixed[i]
        days, places = self._days[i][rows], self.centres[rows]
        codes = codes_of(self.codes, places, days) if self.codes else None
        return Batch(
            images=torch.from_numpy(images.values(rows)),
            valid=torch.from_numpy(images.valid(rows)),
            lonlat=torch.from_numpy(places),
            day=torch.from_numpy(days),
            wavelength_nm=waves,
            gsd_m=gsd,
            std=std,
            codes=None if codes is None else torch.from_numpy(codes),
        )

    def batch(self, rows: np.ndarray, side: str) -> Batch:
        """Some tiles, only the pixels of one side labelled."""
        first = self._seen(0, rows)
        others = tuple(self._seen(i, rows) for i in range(1, len(self.images)))
        raw = (
            self._seen_values(first, others, side, rows)
            if self.aim.fills
            else self.targets(rows, side)
        )
        if self.aim.kind == "classes":
            target = torch.from_numpy(raw)
            table = torch.zeros(IGNORE + 1)
            table[: len(self.weights)] = torch.from_numpy(self.weights).float()
            weight = table[target]
        else:
            shape = (1, -1) + (1,) * (raw.ndim - 2)
            raw = (raw - self.shift.reshape(shape)) / self.spread.reshape(shape)
            target = torch.from_numpy(raw.astype(np.float32))
            weight = target.isfinite().float()
            if self.aim.kind == "present":  # what is rarely there weighs more where it is
                more = torch.from_numpy(self.weights).float().view(shape)
                weight = weight * torch.where(target > 0.5, more, 1.0)
        total = float(weight.sum(dtype=torch.float64))
        return replace(
            first,
            others=others,
            target=target,
            weight=weight,
            total=total,
            rows=tuple(rows.tolist()),
        )

    def whole(self, batch: Batch) -> torch.Tensor:
        """Targets of a batch in the units of the labels."""
        assert batch.target is not None
        shape = (1, -1) + (1,) * (batch.target.ndim - 2)
        spread, shift = (torch.from_numpy(v).view(shape) for v in (self.spread, self.shift))
        found = batch.target * spread + shift
        return found.expm1() if self.log else found

    def _seen_values(
        self, first: Batch, others: tuple[Batch, ...], side: str, rows: np.ndarray
    ) -> np.ndarray:
        """The images themselves (n, K, H, W), NaN where not valid or not on the side."""
        whole = replace(first, others=others)
        hold = shown(whole).numpy()
        may = self.sides.pixels(side, rows)
        if may is not None:
            hold &= may[:, None]
        return np.where(hold, side_by_side(whole).numpy(), np.nan)

    def order(self, number: int, seed: int, sampling: str = "shuffle") -> np.ndarray:
        """Training tiles of an epoch: each once, or drawn so that every class, and none of them, is met as often."""
        rng = np.random.Generator(np.random.PCG64([seed, self.part.member, number]))
        if sampling == "shuffle":
            return rng.permutation(self.rows)
        each = self.each[self.rows]
        each = np.column_stack([each, ~each.any(axis=1)])
        share = (each / np.maximum(each.sum(axis=0), 1)).sum(axis=1)
        share /= share.sum()
        return rng.choice(self.rows, len(self.rows), p=share)

    def epoch(
        self, order: np.ndarray, size: int, start: int = 0, workers: int = 0
    ) -> Iterator[Batch]:
        """Batches of `size` tiles in an order, from batch `start` on.

        `workers` threads read the next ones meanwhile; where the device is the CPU itself they
        would only take cores from the arithmetic.
        """

        def make(rows: np.ndarray) -> Batch:
            return self.batch(rows, "train")

        return in_order(make, chunks(order[start * size :], size), workers, workers + 1)

    def held_batches(
        self, rows: np.ndarray, side: str, size: int, workers: int = 0
    ) -> Iterator[Batch]:
        """Tiles in order, only the labels of a held side."""

        def make(rows: np.ndarray) -> Batch:
            return self.batch(rows, side)

        return in_order(make, chunks(rows, size), workers, workers + 1)


def logged(values: np.ndarray) -> np.ndarray:
    """log(1 + value) of values, which must be above -1; NaN stays."""
    if (values <= -1).any():
        raise GeomlError(f"--log-target: a label is {np.nanmin(values):g}; it must be above -1")
    return np.log1p(values)


def class_weights(counts: np.ndarray, how: str) -> np.ndarray:
    """Weight of each class (mean over pixels 1): `none`, `balanced` (1 / n) or `sqrt` (1 / sqrt n)."""
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[how]
    raw = np.where(counts > 0, np.maximum(counts, 1.0) ** -power, 0.0)
    return raw * counts.sum() / max((raw * counts).sum(), 1e-12)


def share_of(feed: Feed, share: float, seed: int) -> np.ndarray:
    """A share of the training tiles, the rarest classes first so that none goes missing while there is room.

    Shares of one seed are nested: those of a smaller one are among those of a larger.
    """
    rng = np.random.Generator(np.random.PCG64([seed, feed.part.member, 7]))
    rows = rng.permutation(feed.rows)
    present = feed.each[rows] > 0
    first: list[int] = []
    for c in np.argsort(present.sum(axis=0)):
        if present[:, c].any() and not present[first, c].any():
            first.append(int(present[:, c].argmax()))
    order = np.concatenate([rows[first], np.delete(rows, first)])
    return np.sort(order[: max(1, round(share * len(rows)))])
