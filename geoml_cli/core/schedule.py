"""Learning rates over a run, as shares of the peak."""

import math

SCHEDULES = ("cosine", "one-cycle", "poly", "constant")
LOW, LOWEST = 1 / 25, 1e-4  # one-cycle: where it starts from, where it ends (share of the start)


def rate(step: int, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Share of the peak learning rate at a step of a run.

    `warmup` is the share of the steps in which the rate rises linearly from 0. Then `cosine` is
    half a cosine down to zero, `poly` falls as (1 - t)^0.9, `constant` stays. `one-cycle` (Smith,
    Topin 2017) has its own rise: half a cosine from 1/25, over `warmup` or 30 % of the steps, and
    half a cosine down to 1/250000.
    """
    if schedule == "one-cycle":
        return _cycle(step, steps, max(warmup, 0.3))
    rise = max(1, round(steps * warmup)) if warmup > 0 else 0
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return (1 - done) ** 0.9 if schedule == "poly" else 1.0


def _cycle(step: int, steps: int, rising: float) -> float:
    rise = max(1.0, steps * rising - 1)
    if step <= rise:
        return LOW + (1 - LOW) * _half(step / rise)
    return 1 - (1 - LOW * LOWEST) * _half((step - rise) / max(1.0, steps - 1 - rise))


def _half(done: float) -> float:
    """Half a cosine from 0 to 1."""
    return 0.5 * (1 - math.cos(math.pi * min(done, 1.0)))
