"""Statistics of the pixels that train, counted while tiles are cut; counts of shards add up.

Whole numbers of up to 16 bits are counted value by value, so mean, deviation and percentiles are
exact. Of floats the sums are exact to double precision; their percentiles come from bins that are
1/128 of the value wide (the sixteen high bits of a float32).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geoml_cli.formats.bands import Band
from geoml_cli.geo.splits import NONE

BINS = 1 << 16
PERCENTILES = (0, 1, 2, 5, 10, 25, 50, 75, 90, 95, 98, 99, 100)
CHUNK_PX = 1 << 16  # what is counted at once stays in the processor's cache


@dataclass
class Tally:
    """Counts of one sensor. `sums` by near bits: count, sum, sum of squares (3, C); `bins` (C, 65536).

    With folds each member trains on ground of its own, so only the sums are kept, by near bits.
    """

    sums: dict[int, np.ndarray] = field(default_factory=dict)
    bins: np.ndarray | None = None

    def add(self, other: "Tally") -> None:
        """Add the counts of another part of the set."""
        for bits, more in other.sums.items():
            self.sums[bits] = self.sums[bits] + more if bits in self.sums else more
        if other.bins is not None:
            self.bins = other.bins if self.bins is None else self.bins + other.bins

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """As named arrays."""
        found = {f"{name}/{bits}": sums for bits, sums in self.sums.items()}
        return found if self.bins is None else found | {f"{name}/bins": self.bins}

    @classmethod
    def of_arrays(cls, arrays: Any, name: str) -> "Tally":
        """Read what `arrays` gave."""
        made = cls()
        for key in arrays:
            head, _, tail = key.rpartition("/")
            if head == name and tail == "bins":
                made.bins = arrays[key]
            elif head == name:
                made.sums[int(tail)] = arrays[key]
        return made


def tally(
    images: np.ndarray,
    valid: np.ndarray,
    folds: np.ndarray | None,
    near: np.ndarray | None,
    held: int | None,
) -> Tally:
    """Count tiles: images (n, T, C, H, W), valid (n, T, H, W), folds and near (n, H, W) or None.

    `held` are the near bits of ground that does not train; None counts by near bits, for folds.
    """
    made = Tally()
    if near is None or folds is None:
        _count(made, images, valid, 0, held is not None)
        return made
    if held is not None:
        may = (near & held == 0) & (folds != NONE)
        _count(made, images, valid & may[:, None], 0, True)
        return made
    for bits in np.unique(near).tolist():
        mine = (near == bits) & (folds != NONE)
        if mine.any():
            _count(made, images, valid & mine[:, None], bits, False)
    return made


def _count(made: Tally, images: np.ndarray, valid: np.ndarray, bits: int, bins: bool) -> None:
    """Count valid pixels, a few tiles at a time."""
    bands = images.shape[2]
    fine = bins and _binned(images.dtype)
    sums = np.zeros((3, bands))
    found = np.zeros((bands, BINS), np.int64) if bins else None
    each = max(1, CHUNK_PX // max(images[0, :, 0].size, 1)) if len(images) else 1
    for start in range(0, len(images), each):
        part, seen = images[start : start + each], valid[start : start + each]
        if not seen.any():
            continue
        whole = seen.all()
        for c in range(bands):
            values = part[:, :, c].ravel() if whole else part[:, :, c][seen]
            if found is not None:
                counts = np.bincount(_bin_of(values))
                found[c, : len(counts)] += counts
            if not fine:
                x = values.astype(np.float64)
                sums[:, c] += len(x), x.sum(), np.dot(x, x)
    if found is not None:
        made.bins = found
    if not fine and sums[0].any():
        made.sums[bits] = sums


def _binned(kind: np.dtype) -> bool:
    """Whether every value of a type has a bin of its own."""
    return kind.kind in "iub" and kind.itemsize <= 2


def _bin_of(values: np.ndarray) -> np.ndarray:
    """Bin (uint16) of each value."""
    kind = values.dtype
    if kind == np.int16:
        return values.view(np.uint16) ^ np.uint16(1 << 15)
    if kind == np.int8:
        return values.view(np.uint8) ^ np.uint8(1 << 7)
    if _binned(kind):
        return values
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _value_of_bins(kind: np.dtype) -> np.ndarray:
    """Value (65536,) of each bin: of floats its middle."""
    bins = np.arange(BINS)
    if kind.kind == "i" and kind.itemsize <= 2:
        return bins.astype(float) - (1 << (8 * kind.itemsize - 1))
    if _binned(kind):
        return bins.astype(float)
    with np.errstate(invalid="ignore"):  # some bins are of what is no number
        low = (bins.astype(np.uint32) << 16).view(np.float32).astype(float)
        return low * (1 + 1 / 256)


def summary(
    made: Tally, bands: Sequence[Band], dtype: str, parts: Iterable[tuple[int, int]]
) -> dict[str, Any]:
    """What tileset.json says of one sensor, in physical units; `parts` are (member, held bits)."""
    kind = np.dtype(dtype)
    scale = np.array([band.scale for band in bands])
    offset = np.array([band.offset for band in bands])
    told: dict[str, Any] = {"parts": []}
    for member, held in parts:
        count, mean, std = _moments(made, kind, held)
        told["parts"].append(
            {
                "member": member,
                "count": count.astype(int).tolist(),
                "mean": (mean * scale + offset).tolist(),
                "std": (std * np.abs(scale)).tolist(),
            }
        )
    if made.bins is not None and made.bins.any():
        found = _percentiles(made.bins, _value_of_bins(kind))
        values = np.where(scale[:, None] < 0, found[:, ::-1], found)
        told["percentiles"] = {
            str(p): (values[:, i] * scale + offset).tolist() for i, p in enumerate(PERCENTILES)
        }
        told["bin"] = "one value" if _binned(kind) else "1/128 of the value"
    return told


def _moments(made: Tally, kind: np.dtype, held: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and standard deviation (C,) of stored values that train while `held` is held out."""
    if made.bins is not None and _binned(kind):
        value = _value_of_bins(kind)
        count = made.bins.sum(axis=1).astype(float)
        mean = made.bins @ value / np.maximum(count, 1)
        spread = np.stack([row @ (value - m) ** 2 for row, m in zip(made.bins, mean, strict=True)])
        return count, mean, np.sqrt(spread / np.maximum(count, 1))
    kept = [sums for bits, sums in sorted(made.sums.items()) if not bits & held]
    if not kept:
        bands = next(iter(made.sums.values())).shape[1] if made.sums else 0
        return np.zeros(bands), np.zeros(bands), np.zeros(bands)
    count, total, squares = np.sum(kept, axis=0)
    mean = total / np.maximum(count, 1)
    return count, mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))


def _percentiles(bins: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Nearest-rank percentiles (C, P): the least value that so many of a hundred do not exceed."""
    order = np.argsort(np.where(np.isnan(value), np.inf, value), kind="stable")
    rising = np.cumsum(bins[:, order], axis=1)
    total = rising[:, -1:]
    ranks = np.maximum(np.ceil(np.array(PERCENTILES) / 100 * total), 1)
    places = [np.searchsorted(row, rank) for row, rank in zip(rising, ranks, strict=True)]
    return np.stack([value[order][np.minimum(p, BINS - 1)] for p in places])
