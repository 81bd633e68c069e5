"""Which tiles, and which of their pixels, train, validate or test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.splits import NONE

TRAIN, VAL, TEST = 0, 1, 2  # folds of a plain split
MIXED = -1  # the tile lies in several folds
NO, YES, LOOK = 0, 1, 2  # none of a tile's pixels, all of them, or the arrays have to say


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

    @property
    def bits(self) -> int:
        """The same as near bits."""
        return sum(1 << fold for fold in self.held)


def parts_of(tiles: Tiles) -> list[Part]:
    """The parts of a tile set, a member of a model each."""
    return parts_for(tiles.head["split"] is not None, int(tiles.head["folds"]))


def parts_for(split: bool, folds: int) -> list[Part]:
    """One part for a plain split or none; with folds, part k tests on fold k and validates on the next."""
    if not split:
        return [Part(0, None, None)]
    if not folds:
        return [Part(0, VAL, TEST)]
    return [Part(k, (k + 1) % folds, k) for k in range(folds)]


class Sides:
    """The pixels and tiles of each side of a part: `train`, `val`, `test`, or `all`.

    What the index tells of a tile as a whole is not read from the arrays.
    """

    def __init__(self, tiles: Tiles, part: Part) -> None:
        self.tiles, self.part = tiles, part
        self._bits = part.bits
        if part.held:
            self._fold = tiles.index["fold"].fillna(MIXED).to_numpy(np.int16)
            self._near = tiles.index["near"].to_numpy(np.int64)

    def fold_of(self, side: str) -> int | None:
        """The fold that validates or tests; None where nothing does."""
        return self.part.val if side == "val" else self.part.test

    def state(self, side: str, rows: np.ndarray) -> np.ndarray:
        """NO, YES or LOOK for every tile (n,)."""
        if side == "all" or (side == "train" and not self.part.held):
            return np.full(len(rows), YES, np.uint8)
        if not self.part.held:
            return np.full(len(rows), NO, np.uint8)
        fold = self._fold[rows]
        if side == "train":
            free, no = (self._near[rows] & self._bits) == 0, [NONE, *self.part.held]
        else:
            free, no = (
                fold == self.fold_of(side),
                [f for f in range(NONE + 1) if f != self.fold_of(side)],
            )
        state = np.where(free & (fold != MIXED), YES, LOOK)
        return np.where(np.isin(fold, no), NO, state).astype(np.uint8)

    def tiles_of(self, side: str) -> np.ndarray:
        """Tiles (all of the index) that as a whole are of a side: of a train tile no pixel is near held ground."""
        every = np.arange(len(self.tiles.index))
        state = self.state(side, every)
        if side != "train" or not self.part.held:
            return state == YES
        return (state != NO) & ((self._near & self._bits) == 0)

    def pixels(self, side: str, rows: np.ndarray) -> np.ndarray | None:
        """Pixels (n, H, W) of a side; None: all of them."""
        state = self.state(side, rows)
        if (state == YES).all():
            return None
        out = np.empty((len(rows), self.tiles.size, self.tiles.size), bool)
        out[state != LOOK] = (state[state != LOOK] == YES)[:, None, None]
        look = np.flatnonzero(state == LOOK)
        if side == "train":
            self._may_train(rows, look, out)
        elif len(look):
            out[look] = self.tiles.take("folds", rows[look]) == self.fold_of(side)
        return out

    def _may_train(self, rows: np.ndarray, look: np.ndarray, out: np.ndarray) -> None:
        """Pixels whose ground has a fold, and is neither held out nor within the buffer of such."""
        out[look] = True
        close = look[(self._near[rows[look]] & self._bits) != 0]
        if len(close):
            near = self.tiles.take("near", rows[close])
            out[close] = (near & near.dtype.type(self._bits)) == 0
        mixed = look[self._fold[rows[look]] == MIXED]
        if len(mixed):
            out[mixed] &= self.tiles.take("folds", rows[mixed]) != NONE

    def touched(self, side: str) -> np.ndarray:
        """Positions of the tiles with a pixel of a side."""
        state = self.state(side, np.arange(len(self.tiles.index)))
        has = state != NO
        for rows in chunks(np.flatnonzero(state == LOOK)):
            may = self.pixels(side, rows)
            has[rows] = may is None or may.any(axis=(1, 2))
        return np.flatnonzero(has)

    def labelled(self, side: str, layers: Sequence[dict[str, Any]]) -> np.ndarray:
        """Positions of the tiles with a label of a side in any of some layers; of no layers, tiles of the side."""
        every = np.arange(len(self.tiles.index))
        if side == "all":
            return every
        if not layers:
            return every[self.tiles_of(side)]
        return every[np.any([self._labelled(side, layer) for layer in layers], axis=0)]

    def _labelled(self, side: str, layer: dict[str, Any]) -> np.ndarray:
        index, name = self.tiles.index, layer["name"]
        if layer["per"] != "pixel":
            return self.tiles_of(side) & index[name].notna().to_numpy()
        has = index[f"labelled_{name}"].to_numpy() > 0
        state = self.state(side, np.arange(len(index)))
        has &= state != NO
        if not (state == LOOK).any():
            return has
        by_fold = np.stack(index[f"fold_labelled_{name}"].to_list())  # (n, folds)
        if side != "train":
            return has & (by_fold[:, self.fold_of(side)] > 0)
        has &= np.delete(by_fold, self.part.held, axis=1).any(axis=1)
        for rows in chunks(np.flatnonzero(has & (state == LOOK))):
            seen = labelled(self.tiles.take("labels", rows, name), layer["ignore"])
            may = self.pixels(side, rows)
            has[rows] = (seen if may is None else seen & may).any(axis=(1, 2))
        return has


def labelled(labels: np.ndarray, ignore: int | None) -> np.ndarray:
    """Where labels hold; `ignore` None: where they are no NaN."""
    return ~np.isnan(labels) if ignore is None else labels != ignore


def chunks(rows: np.ndarray, size: int = 64) -> Iterator[np.ndarray]:
    """Pieces of a few tiles: what is worked on stays in bounds."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
