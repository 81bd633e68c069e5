"""Scores of a network on held ground: counts for each block of it, exact over batches and processes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from geoml_cli.core.aim import Aim
from geoml_cli.core.filling import filled, hidden
from geoml_cli.core.scoring import Stats, bootstrap, merge
from geoml_cli.formats.scores import number, scores_of
from geoml_cli.geo.classes import IGNORE
from geoml_cli.stages.feed import Feed

SIDE = 8  # blocks along each side of a scene, as `geoml evaluate` lays them
DRAWS = 1000  # of the bootstrap


class Held:
    """What a network says of held tiles, against their labels."""

    def __init__(
        self, feed: Feed, metric: Any, device: Any, ranks: Any, tta: str, hide: Any = None
    ) -> None:
        """`hide` is an objective's: what of images is hidden, to be scored."""
        self.feed, self.metric, self.device, self.ranks, self.tta = feed, metric, device, ranks, tta
        self.hide = hide

    def blocks(self, network: Any, side: str, micro: int, of: np.ndarray) -> dict[int, Stats]:
        """Stats of every block; `of` gives the block of each tile of the index."""
        import torch

        from geoml_cli.core.tta import averaged

        feed, aim = self.feed, self.feed.aim
        every = feed.held(side)
        rows = self.ranks.share(every)
        found: dict[int, Stats] = {}
        network.eval()
        with torch.no_grad():
            for batch in feed.held_batches(rows, side, micro):
                if self.hide:
                    batch = self.hide(network, batch, drawn(batch.rows))
                moved = batch.to(self.device.torch)

                def spread(one: Any) -> Any:
                    with self.device.autocast():
                        outputs = network(one)
                    said = aim.spread(network.physical(outputs.float()))
                    return filled(one, said) if aim.fills else said

                said = averaged(spread, moved, self.tta)
                scored = getattr(self.metric, "SCORES", False)
                guess = (said if scored else aim.decode(said)).cpu().numpy()
                truth, seen = self._truth(batch)
                where = of[list(batch.rows)]
                for block in np.unique(where).tolist():
                    mine = where == block
                    stats = self._stats(truth[mine], guess[mine], seen[mine])
                    found[block] = merge(found[block], stats) if block in found else stats
        nothing = self._stats(*_none(aim))
        return {
            block: {k: self.ranks.sum(v) for k, v in found.get(block, nothing).items()}
            for block in np.unique(of[every]).tolist()
        }

    def _truth(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        """Labels as they are told, and where they are."""
        target, aim = batch.target.numpy(), self.feed.aim
        if aim.kind == "classes":
            return target, target != IGNORE
        whole = self.feed.whole(batch).numpy()
        seen = np.isfinite(target)
        return whole, seen & hidden(batch).numpy() if self.hide else seen

    def _stats(self, truth: np.ndarray, guess: np.ndarray, seen: np.ndarray) -> Stats:
        if self.feed.aim.fills:  # the range of values is taken to be four standard deviations
            found: Stats = self.metric.stats(
                truth, guess, seen, truth.shape[1], 4 * self.feed.spread
            )
            return found
        return stats_of(self.metric, self.feed.aim, truth, guess, seen)

    def loss(
        self, network: Any, objective: Callable[[Any, Any], Any], side: str, micro: int
    ) -> float:
        """Mean of an objective over a side, each batch by what its labels weigh."""
        import torch

        rows = self.ranks.share(self.feed.held(side))
        found = np.zeros(2)
        network.eval()
        torch.manual_seed(0)  # what an objective draws is the same each time
        with torch.no_grad(), self.device.autocast():
            for batch in self.feed.held_batches(rows, side, micro):
                loss = objective(network, batch.to(self.device.torch))["loss"]
                found += np.array([float(loss) * batch.total, batch.total])
        total, weight = self.ranks.sum(found)
        return float(total / weight) if weight else float("nan")

    def score(
        self, side: str, micro: int, watch: Callable[[Any], float], objective: Any = None
    ) -> Callable[[Any], dict[str, float]]:
        """A function that scores a network on a side, with the key `watch`: what the task watches, or an objective's
        loss, turned round.
        """
        one = np.zeros(len(self.feed.tiles.index), int)

        def score(network: Any) -> dict[str, float]:
            blocks = self.blocks(network, side, micro, one)
            scores = self.metric.score(blocks[0])
            plain = {k: float(v) for k, v in scores.items() if np.ndim(v) == 0 and np.isfinite(v)}
            if objective is None:
                value = watch(scores)
            else:
                value = -self.loss(network, objective, side, micro)
                plain |= {"held_loss": -value} if np.isfinite(value) else {}
            return {**plain, "watch": value if np.isfinite(value) else -1e30}

        return score


def drawn(rows: tuple[int, ...]) -> Callable[[int], Any]:
    """Noise (B, count) that is each tile's own, whatever it is scored with."""
    import torch

    def noise(count: int) -> Any:
        each = [torch.Generator().manual_seed(row) for row in rows]
        return torch.stack([torch.rand(count, generator=one) for one in each])

    return noise


def _none(aim: Aim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """No sample at all, in the shapes that a metric takes."""
    nothing = np.zeros((1, len(aim.names)), np.uint8)
    if aim.fills:
        none = np.zeros((0, len(aim.names), 1, 1))
        return none, none, none.astype(bool)
    if aim.kind == "classes":
        return nothing[:0, 0], nothing[:0, 0], nothing[:0, 0].astype(bool)
    return nothing[:0].astype(float), nothing[:0].astype(float), nothing[:0].astype(bool)


def stats_of(
    metric: Any, aim: Aim, truth: np.ndarray, guess: np.ndarray, seen: np.ndarray
) -> Stats:
    """Stats of some samples: ids (b, *S), or (b, K, *S) put as (n, K)."""
    if aim.kind == "classes":
        return metric.stats(truth, guess, seen, len(aim.names))
    flat = [np.moveaxis(one, 1, -1).reshape(-1, len(aim.names)) for one in (truth, guess, seen)]
    kind = float if aim.kind == "values" else np.uint8
    truth = np.where(flat[2], flat[0], 0).astype(kind)
    said = float if getattr(metric, "SCORES", False) else kind
    return metric.stats(truth, flat[1].astype(said), flat[2], len(aim.names))


def blocks_of(feed: Feed) -> np.ndarray:
    """Block of ground of each tile (tiles,): 8 x 8 over the extent of each place's tiles; an
    unplaced tile is one of its own."""
    index = feed.tiles.index
    places = feed.centres
    out = np.arange(len(index)) + (1 << 40)
    known = np.isfinite(places).all(axis=1)
    if not known.any():
        return out
    x, y = places[known].T.astype(float)
    cell = [
        np.minimum((SIDE * (v - v.min()) / (np.ptp(v) or 1)).astype(int), SIDE - 1) for v in (x, y)
    ]
    out[known] = cell[1] * SIDE + cell[0]
    return out


def document(
    aim: Aim, metric: Any, blocks: dict[int, Stats], scored: dict[str, Any], seed: int
) -> dict[str, Any]:
    """scores.json of held ground: each metric with the 95 % interval of a bootstrap over blocks."""
    stacked = {
        k: np.stack([blocks[b][k] for b in sorted(blocks)]) for k in next(iter(blocks.values()))
    }
    total = {k: v.sum(axis=0) for k, v in stacked.items()}
    scores, spans = metric.score(total), bootstrap(stacked, metric.score, DRAWS, seed)
    scored = scored | {"blocks": len(blocks), "bootstrap": DRAWS}
    if "confusion" in total:
        scored["n"] = int(total["confusion"].sum())
        return scores_of(aim.names, scores, spans, total["confusion"], scored)
    n = np.asarray(total["n"])
    scored["n"] = int(n.sum())
    metrics: dict[str, Any] = {}
    classes: dict[str, dict[str, Any]] = {name: {} for name in aim.names}
    for key, value in scores.items():
        low, high = spans[key]
        if np.ndim(value) == 0:
            metrics[key] = _entry(value, low, high, scored["n"])
            continue
        for i, name in enumerate(aim.names):
            classes[name][key] = _entry(
                value[i], low[i], high[i], int(np.broadcast_to(n, len(aim.names))[i])
            )
    return {"metrics": metrics, "classes": classes, "scored": scored}


def _entry(value: Any, low: Any, high: Any, n: int) -> dict[str, Any]:
    return {"value": number(value), "lo": number(low), "hi": number(high), "n": n}
