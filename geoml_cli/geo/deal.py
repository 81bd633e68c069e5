"""Dealing things with weights into folds, so that each has its share of every kind of weight.

Whole numbers throughout: the same on every machine.
"""

from dataclasses import dataclass

import numpy as np

FINE = 1 << 14  # of a whole: how finely weights are told apart
EMPTY = np.int64(1 << 56)  # what a fold without anything costs: more than any uneven dealing
MOST_PAIRS = 512  # things among which swaps are tried as well as moves
ROUNDS = 2000


def deal(
    weights: np.ndarray, shares: tuple[int, ...], seed: int, must: np.ndarray | None = None
) -> np.ndarray:
    """Fold (n,) of each of n things; weights (n, kinds) >= 0, shares are whole numbers, one a fold.

    A shuffled greedy start, then moves and swaps for as long as they help. Each fold gets one
    of the things in `must` (n,) (all, where None), where there are enough.
    """
    table = _fine(weights)
    wanted = np.ones(len(table), int) if must is None else must.astype(int)
    hand = _greedy(table, wanted, shares, seed)
    for _ in range(ROUNDS):
        if not hand.improve():
            break
    return hand.folds


def _greedy(table: np.ndarray, must: np.ndarray, shares: tuple[int, ...], seed: int) -> "Hand":
    """Deal in shuffled order, each thing where it costs least; first those that folds must have."""
    sizes = np.array(shares, np.int64)
    cost = Cost(sum(shares), sizes[:, None] * table.sum(axis=0), max(shares) * 3 // sizes)
    hand = Hand(table, must, np.zeros(len(table), int), cost)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(table))
    ids, many = np.arange(len(shares)), np.zeros(len(shares), int)
    held = np.zeros((len(shares), table.shape[1]), np.int64)
    for thing in order[np.argsort(-must[order], kind="stable")]:
        more = cost.of(ids, held + table[thing], many + must[thing]) - cost.of(ids, held, many)
        fold = hand.folds[thing] = int(more.argmin())
        held[fold] += table[thing]
        many[fold] += must[thing]
    return hand


def _fine(weights: np.ndarray) -> np.ndarray:
    """Each kind of weight as whole parts of its total (n, kinds); kinds without any are left out."""
    weights = np.asarray(weights)
    whole = np.array([[int(round(float(w))) for w in row] for row in weights.tolist()], object)
    whole = whole.reshape(weights.shape)
    total = whole.sum(axis=0) if len(whole) else np.zeros(weights.shape[1], object)
    kept = np.array([t > 0 for t in total], bool)
    return (whole[:, kept] * FINE // total[kept]).astype(np.int64)


@dataclass(frozen=True)
class Cost:
    """How far folds are from their shares: squares of what is missing, by the size of the share."""

    whole: int  # what the shares add up to
    wanted: np.ndarray  # (folds, kinds), times `whole`
    factor: np.ndarray  # (folds,): a small share weighs more

    def of(self, folds: np.ndarray, held: np.ndarray, many: np.ndarray) -> np.ndarray:
        """Cost (n,) of folds (n,) that hold (n, kinds) and so many (n,) of the wanted things."""
        away = self.whole * held - self.wanted[folds]
        return (away**2).sum(axis=-1) * self.factor[folds] + EMPTY * (many == 0)


@dataclass(frozen=True)
class Hand:
    """Things as they are dealt: fold (n,) of each, and what that costs; `folds` is changed in place."""

    table: np.ndarray  # (n, kinds)
    must: np.ndarray  # (n,) 0 or 1
    folds: np.ndarray  # (n,)
    cost: Cost

    def improve(self) -> bool:
        """Make the best move or swap; whether there was one that helps."""
        ids = np.arange(len(self.cost.wanted))
        held = np.stack([self.table[self.folds == f].sum(axis=0) for f in ids])
        many = np.array([self.must[self.folds == f].sum() for f in ids])
        now = self.cost.of(ids, held, many)
        gain, thing, fold = self._move(ids, held, many, now)
        if len(self.table) <= MOST_PAIRS:
            swapped, one, other = self._swap(held, many, now)
            if swapped < min(gain, 0):
                self.folds[[one, other]] = self.folds[[other, one]]
                return True
        if gain < 0:
            self.folds[thing] = fold
        return gain < 0

    def _move(
        self, ids: np.ndarray, held: np.ndarray, many: np.ndarray, now: np.ndarray
    ) -> tuple[int, int, int]:
        """The best change by moving one thing: (gain, thing, to which fold)."""
        mine = self.folds
        away = self.cost.of(mine, held[mine] - self.table, many[mine] - self.must) - now[mine]
        best = (0, 0, 0)
        for f in ids:
            there = self.cost.of(np.full(len(mine), f), held[f] + self.table, many[f] + self.must)
            gain = np.where(mine == f, 0, away + there - now[f])
            if gain.min() < best[0]:
                best = int(gain.min()), int(gain.argmin()), int(f)
        return best

    def _swap(self, held: np.ndarray, many: np.ndarray, now: np.ndarray) -> tuple[int, int, int]:
        """The best change by swapping two things of different folds: (gain, one, other)."""
        best = (0, 0, 0)
        for i, mine in enumerate(self.folds):
            others = i + 1 + np.flatnonzero(self.folds[i + 1 :] != mine)
            if not len(others):
                continue
            theirs, here = self.folds[others], np.full(len(others), mine)
            change, count = self.table[others] - self.table[i], self.must[others] - self.must[i]
            gain = self.cost.of(here, held[mine] + change, many[mine] + count) - now[mine]
            gain += self.cost.of(theirs, held[theirs] - change, many[theirs] - count) - now[theirs]
            if gain.min() < best[0]:
                best = int(gain.min()), i, int(others[gain.argmin()])
        return best
