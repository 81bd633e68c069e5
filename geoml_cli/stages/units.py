"""The one seam for work over many units: results come in unit order, whatever the number of workers."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def map_units(
    work: Callable[[Unit], Result], units: Sequence[Unit], jobs: int, check: Callable[[], None]
) -> Iterator[Result]:
    """Yield `work(unit)` in order; `work` is a top-level function and units are plain data.

    Workers are spawned, never forked: neither GDAL nor torch survives a fork. `check` is
    called between units and may raise to stop; units under way are let finish.
    """
    jobs = min(jobs, len(units))
    if jobs <= 1:
        for unit in units:
            check()
            yield work(unit)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_leave_signals)
    try:
        ahead = 2 * jobs  # bounded: results of fast units do not pile up behind a slow one
        waiting = [pool.submit(work, unit) for unit in units[:ahead]]
        for i in range(len(units)):
            check()
            result = waiting[i].result()
            if i + ahead < len(units):
                waiting.append(pool.submit(work, units[i + ahead]))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals() -> None:
    """Workers finish their unit; the parent decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
