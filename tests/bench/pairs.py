"""Time two pieces of work in turn and print the ratio, pair by pair."""

import statistics
import time
from collections.abc import Callable


def compare(
    what: str, ours: Callable[[], object], theirs: Callable[[], object], pairs: int = 5
) -> None:
    """Run A B A B ...; print the medians and the median of the ratios A / B, after one warm-up."""
    ours(), theirs()
    times = [(_seconds(ours), _seconds(theirs)) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{what}: {statistics.median(ratios):.2f}  (pairs {ratios[0]:.2f} - {ratios[-1]:.2f};"
        f" {a:.3f} s against {b:.3f} s)",
        flush=True,
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
