"""Exact nearest neighbours among vectors, block by block, on any device."""

from collections.abc import Callable

import numpy as np
import torch

BLOCK = 1 << 22  # values of a block of similarities that is looked at at a time
SPAN = 64  # values of a row of it that one peak stands for


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (n, D) float32 of length 1; zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


@torch.inference_mode()
def top(
    base: np.ndarray,
    queries: np.ndarray,
    count: int,
    device: torch.device | str = "cpu",
    own: np.ndarray | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (q, count) of `base` (n, D) with the largest dot products with `queries` (q, D), and these.

    Largest first; of equals the lower row first. `own` (q,) is a row that each query is not compared
    with, -1 none. Where there are fewer rows the rest is -1 and -inf.
    """
    n, width = base.shape
    rows = np.full((len(queries), count), -1, np.int64)
    values = np.full((len(queries), count), -np.inf, np.float32)
    wide = min(len(queries), 1024)
    deep = max(
        1, min(n, BLOCK // max(wide, width) // 1024 * 1024 or 1024)
    )  # whole lines of the cache
    for start in range(0, len(queries), wide):
        asked = torch.from_numpy(np.ascontiguousarray(queries[start : start + wide])).to(device)
        best: torch.Tensor | None = None
        where: torch.Tensor | None = None
        for first in range(0, n, deep):
            check()
            some = torch.from_numpy(base[first : first + deep]).to(device)
            near = asked @ some.T  # (q, m)
            if own is not None:
                mine = own[start : start + wide]
                hit = np.flatnonzero((mine >= first) & (mine < first + len(some)))
                near[torch.from_numpy(hit), torch.from_numpy(mine[hit] - first)] = -torch.inf
            found, at = _largest(near, min(count, len(some)))
            at = at + first
            if best is None or where is None:
                best, where = found, at
            else:
                both, ids = torch.cat([best, found], 1), torch.cat([where, at], 1)
                order = both.sort(dim=1, descending=True, stable=True).indices[:, :count]
                best, where = both.gather(1, order), ids.gather(1, order)
        assert best is not None and where is not None
        stop = start + len(asked)
        values[start:stop, : best.shape[1]] = best.float().cpu().numpy()
        rows[start:stop, : best.shape[1]] = where.cpu().numpy()
    rows[values == -np.inf] = -1
    return rows, values


def _largest(near: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest `count` of every row, sorted, of equals the first.

    Of a long row only the spans with the `count` largest peaks are looked into: no other can hold one.
    """
    whole = near.shape[1] // SPAN * SPAN
    if whole < 4 * SPAN * count:
        return _sorted(near, count)
    peaks = near[:, :whole].unflatten(1, (-1, SPAN)).amax(2)
    best, spans = peaks.topk(count, dim=1)
    inside = torch.arange(SPAN, device=near.device)
    at = (spans.sort(dim=1).values[:, :, None] * SPAN + inside).flatten(1)
    rest = torch.arange(whole, near.shape[1], device=near.device).expand(len(near), -1)
    at = torch.cat([at, rest], 1)
    values, place = _sorted(near.gather(1, at), count)
    at = at.gather(1, place)
    tied = (peaks >= best[:, -1:]).sum(
        1
    ) > count  # another span may hold an equal, further to the left
    if tied.any():
        values[tied], at[tied] = _sorted(near[tied], count)
    return values, at


def _sorted(near: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = near.topk(count, dim=1)
    # topk says nothing of the order of equals: rows with a tie at the end are sorted whole
    tied = (near >= found.values[:, -1:]).sum(1) > count
    values, at = found.values, found.indices
    order = at.sort(dim=1).indices
    values, at = values.gather(1, order), at.gather(1, order)
    order = values.sort(dim=1, descending=True, stable=True).indices
    values, at = values.gather(1, order), at.gather(1, order)
    if tied.any():
        whole = near[tied].sort(dim=1, descending=True, stable=True)
        values[tied], at[tied] = whole.values[:, :count], whole.indices[:, :count]
    return values, at


@torch.inference_mode()
def pairs(
    base: np.ndarray,
    least: float,
    device: torch.device | str = "cpu",
    check: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs a < b of rows whose dot product is at least `least`: (m,), (m,), products (m,)."""
    n = len(base)
    side = max(1, min(n, int(BLOCK**0.5)))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for i in range(0, n, side):
        one = torch.from_numpy(base[i : i + side]).to(device)
        for j in range(i, n, side):
            check()
            near = one @ torch.from_numpy(base[j : j + side]).to(device).T
            hit = near >= least
            if i == j:
                hit = hit.triu(1)
            a, b = hit.nonzero(as_tuple=True)
            found.append(((a + i).cpu().numpy(), (b + j).cpu().numpy(), near[a, b].cpu().numpy()))
    first, second, products = (np.concatenate(part) for part in zip(*found, strict=True))
    return first, second, products


@torch.inference_mode()
def farthest(
    base: np.ndarray,
    count: int,
    seen: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    check: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (count,), each the one least like all those before it, and its similarity to the most alike of them.

    Farthest-first traversal (Gonzalez 1985): no other choice of as many covers the rows more than twice as
    well. `seen` (m,) are rows that are there already; without any it begins with the row most like the mean.
    """
    x = torch.from_numpy(base).to(device)
    closest = torch.full((len(base),), -torch.inf, device=x.device)
    chosen: list[int] = []
    likeness: list[float] = []
    if seen is not None and len(seen):
        for first in range(0, len(seen), 256):
            check()
            closest = torch.maximum(
                closest, (x @ x[torch.from_numpy(seen[first : first + 256])].T).amax(1)
            )
        closest[torch.from_numpy(seen)] = torch.inf
    while len(chosen) < count and len(chosen) + (0 if seen is None else len(seen)) < len(base):
        check()
        if not chosen and (seen is None or not len(seen)):
            pick, alike = int((x @ x.mean(0)).argmax()), float("nan")
        else:
            pick = int(closest.argmin())
            alike = float(closest[pick])
        chosen.append(pick)
        likeness.append(alike)
        closest = torch.maximum(closest, x @ x[pick])
        closest[pick] = torch.inf
    return np.array(chosen, int), np.array(likeness, np.float32)
