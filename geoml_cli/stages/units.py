"""The one seam for work over many units: results come in unit order, whatever the number of workers."""

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

from geoml_cli.errors import GeomlError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def map_units(
    work: Callable[[Unit], Result],
    units: Sequence[Unit],
    jobs: int,
    check: Callable[[], None],
    threads: bool = False,
) -> Iterator[Result]:
    """Yield `work(unit)` in order; `work` is a top-level function and units are plain data.

    Workers are spawned, never forked: neither GDAL nor torch survives a fork. Work that is done
    in C, which lets other threads run, needs no process of its own (`threads`). `check` is
    called between units and may raise to stop; units under way are let finish.
    """
    jobs = min(jobs, len(units))
    if jobs <= 1:
        for unit in units:
            check()
            yield work(unit)
        return
    pool: Executor = (
        ThreadPoolExecutor(jobs)
        if threads
        else ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_leave_signals)
    )
    try:
        coming = iter(units)
        ahead = 2 * jobs  # bounded: results of fast units do not pile up behind a slow one
        waiting = deque(pool.submit(work, unit) for unit in islice(coming, ahead))
        while waiting:
            check()
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, unit) for unit in islice(coming, 1))
            yield result
    except BrokenProcessPool:
        raise GeomlError(
            "a worker process died, out of memory perhaps; run again with a lower -j"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals() -> None:
    """Workers finish their unit; the parent decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
