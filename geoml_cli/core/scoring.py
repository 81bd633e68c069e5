"""Numbers from counts: the confusion matrix, sums over blocks of ground, bootstrap intervals."""

from collections.abc import Callable, Mapping

import numpy as np

Stats = dict[str, np.ndarray]
Scores = dict[str, float | np.ndarray]


def confusion(truth: np.ndarray, guess: np.ndarray, valid: np.ndarray, classes: int) -> np.ndarray:
    """Count pairs of class ids where `valid`: (classes, classes) int64, rows truth, columns guess.

    The three arrays have one shape, any shape; what is not valid may hold any value.
    """
    pair = np.stack([np.asarray(truth)[valid], np.asarray(guess)[valid]]).astype(np.int64)
    if pair.size and not (0 <= pair.min() and pair.max() < classes):
        raise ValueError(f"class ids {pair.min()}..{pair.max()}, expected 0..{classes - 1}")
    flat = np.bincount(pair[0] * classes + pair[1], minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


class Tally:
    """Stats of a metric, added up for each block of ground apart."""

    def __init__(self, stats: Callable[..., Stats], classes: int) -> None:
        self._stats, self.classes = stats, classes
        self.blocks: dict[int, Stats] = {}

    def add(self, block: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> None:
        """Add samples: block number, true class id and guessed class id, each (n,)."""
        if not len(block):
            return
        order = np.argsort(block, kind="stable")
        numbers, firsts = np.unique(block[order], return_index=True)
        for number, mine in zip(numbers.tolist(), np.split(order, firsts[1:]), strict=True):
            found = self._count(truth[mine], guess[mine])
            have = self.blocks.get(number)
            self.blocks[number] = found if have is None else merge(have, found)

    def _count(self, truth: np.ndarray, guess: np.ndarray) -> Stats:
        every = np.ones(truth.shape, bool)
        # the matrix is reported whatever the metric is
        own = {"confusion": confusion(truth, guess, every, self.classes)}
        return own | self._stats(truth, guess, every, self.classes)

    def stacked(self) -> Stats:
        """Stats of every block that holds samples, (blocks, ...), in order of their numbers."""
        rows = [self.blocks[number] for number in sorted(self.blocks)]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def merge(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Stats:
    """Add the stats of two sets of samples."""
    return {key: a[key] + b[key] for key in a}


def bootstrap(
    stacked: Stats, score: Callable[[Stats], Scores], draws: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """2.5 and 97.5 percentiles of each score over `draws` samples of blocks with replacement.

    `stacked` holds (blocks, ...). A draw where a score is undefined does not count for it; NaN
    where no draw defines it, and everywhere when there is one block: it says nothing of spread.
    """
    count = len(next(iter(stacked.values())))
    if count < 2 or draws < 1:
        one = score({key: rows.sum(axis=0) for key, rows in stacked.items()})
        return {key: (_blank(value), _blank(value)) for key, value in one.items()}
    rng = np.random.Generator(np.random.PCG64(seed))
    found: list[Scores] = []
    for _ in range(draws):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        found.append(score({key: np.tensordot(times, rows, 1) for key, rows in stacked.items()}))
    return {key: _interval(np.array([one[key] for one in found], float)) for key in found[0]}


def _blank(value: float | np.ndarray) -> np.ndarray:
    return np.full(np.shape(value), np.nan)


def _interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles down the first axis, (...); NaN where nothing is defined."""
    low, high = _blank(values[0]), _blank(values[0])
    for place in np.ndindex(values.shape[1:]):
        column = values[(slice(None), *place)]
        column = column[np.isfinite(column)]
        if len(column):
            low[place], high[place] = np.percentile(column, (2.5, 97.5))
    return low, high
