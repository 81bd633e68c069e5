"""Weights that a fixture does not store: normal numbers seeded by the seed and the key's name."""

import hashlib
import math

import numpy as np
import torch


def fill(shapes, seed, scale=0.1, gain=None):
    """key -> tensor: N(0, scale), norms' weights 1 + that; kernels N(0, gain / sqrt(fan in)) with a gain."""
    return {
        key: _one(f"{seed}:{key}", key, tuple(shape), scale, gain) for key, shape in shapes.items()
    }


def _one(name, key, shape, scale, gain):
    if key.endswith("num_batches_tracked") or not shape:
        return torch.zeros(shape, dtype=torch.int64)
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))
    if key.endswith("running_var"):
        return torch.from_numpy(1 + 0.5 * rng.random(shape, dtype=np.float32))
    drawn = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    if len(shape) > 1:
        return drawn * (scale if gain is None else gain / math.sqrt(math.prod(shape[1:])))
    return drawn * scale + (1.0 if key.endswith("weight") else 0.0)
