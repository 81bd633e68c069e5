"""Values of an image between its pixels: nearest, bilinear or cubic, what is invalid left out of the sum."""

import numpy as np

RADIUS = {"nearest": 1, "bilinear": 1, "cubic": 2}  # pixels to either side that are looked at


def sample(
    data: np.ndarray, valid: np.ndarray, u: np.ndarray, v: np.ndarray, how: str
) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, n...) at columns u and rows v (pixel centres are whole numbers), and what is valid (n...).

    A place is valid where its nearest pixel is; invalid neighbours give their weight to the others.
    """
    height, width = valid.shape
    near_col, near_row = np.floor(u + 0.5).astype(int), np.floor(v + 0.5).astype(int)
    inside = (near_col >= 0) & (near_col < width) & (near_row >= 0) & (near_row < height)
    there = inside & valid[near_row.clip(0, height - 1), near_col.clip(0, width - 1)]
    if how == "nearest":
        return data[:, near_row.clip(0, height - 1), near_col.clip(0, width - 1)], there
    radius = RADIUS[how]
    col, row = np.floor(u).astype(int), np.floor(v).astype(int)
    across, down = _taps(u - col, how), _taps(v - row, how)
    out = np.zeros((len(data), *u.shape), data.dtype)
    total = np.zeros(u.shape, data.dtype)
    for i in range(-radius + 1, radius + 1):
        for j in range(-radius + 1, radius + 1):
            r, c = row + i, col + j
            known = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            r, c = r.clip(0, height - 1), c.clip(0, width - 1)
            weight = down[i + radius - 1] * across[j + radius - 1] * (known & valid[r, c])
            out += np.where(valid[r, c], data[:, r, c], 0) * weight.astype(data.dtype)
            total += weight.astype(data.dtype)
    sound = total > 0.4  # negative weights of a cubic alone would blow up
    nearest = data[:, near_row.clip(0, height - 1), near_col.clip(0, width - 1)]
    return np.where(sound, out / np.where(sound, total, 1), nearest), there


def _taps(t: np.ndarray, how: str) -> list[np.ndarray]:
    """Weights of the pixels round a place t (0 to 1) between two; the cubic is Catmull and Rom's."""
    if how == "bilinear":
        return [1 - t, t]
    return [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
