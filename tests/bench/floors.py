"""What a random forest on single pixels (or tiles of one) scores on the same ground: the floor of a set."""

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from geoml_cli import registry
from geoml_cli.stages.loader import TileDataset

MOST = 60_000  # pixels that it learns from


def pixels(path: str, side: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, T x C of all sensors) and class ids (n,) of one side."""
    found = TileDataset(path, split=side)
    names = [one.name for one in found.images]
    xs, ys = [], []
    for start in range(0, len(found), 64):
        batch = found.read(np.arange(start, min(start + 64, len(found))))
        images = [batch["image" if i == 0 else name] for i, name in enumerate(names)]
        masks = [batch["valid" if i == 0 else f"{name}_valid"] for i, name in enumerate(names)]
        x = np.concatenate([one.flatten(1, 2).numpy() for one in images], axis=1)  # (n, K, H, W)
        seen = np.concatenate([one.numpy() for one in masks], axis=1).all(1)
        y = batch[found.labels[0].name].numpy()
        if y.ndim == 1:
            y = np.broadcast_to(y[:, None, None], seen.shape)
        at = seen & (y != 255)
        xs.append(np.moveaxis(x, 1, -1)[at]), ys.append(y[at])
    return np.concatenate(xs), np.concatenate(ys)


def forest(path: str, seed: int) -> dict[str, float | np.ndarray]:
    """Scores on the test side of 200 trees grown on training and validation pixels."""
    rng = np.random.default_rng(seed)
    sides = [pixels(path, side, rng) for side in ("train", "val")]
    x, y = (np.concatenate(each) for each in zip(*sides, strict=True))
    if len(x) > MOST:
        kept = rng.choice(len(x), MOST, replace=False)
        x, y = x[kept], y[kept]
    grown = RandomForestClassifier(200, n_jobs=2, random_state=seed).fit(np.nan_to_num(x), y)
    tx, ty = pixels(path, "test", rng)
    metric, count = registry.load("metrics", "segmentation"), int(max(y.max(), ty.max())) + 1
    guess = grown.predict(np.nan_to_num(tx))
    return metric.score(metric.stats(ty, guess, np.ones(len(ty), bool), count))
