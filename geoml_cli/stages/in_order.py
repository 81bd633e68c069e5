"""Work on a list in threads, its results in the list's order, only so far ahead of who takes them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def in_order(
    make: Callable[[Unit], Result], units: Iterable[Unit], workers: int, depth: int
) -> Iterator[Result]:
    """Results of `make` in the order of `units`, at most `depth` made or in the making and not yet taken.

    `workers` 0 makes each when it is asked for. An error is raised where its result is wanted;
    the threads end with the iterator, however it ends.
    """
    if not workers:
        yield from map(make, units)
        return
    coming = iter(units)
    pool = ThreadPoolExecutor(workers, "geoml-batches")
    try:
        waiting = deque(pool.submit(make, unit) for unit in islice(coming, max(depth, 1)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(make, unit) for unit in islice(coming, 1))
            yield result
            del result  # not kept while the next one is waited for
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
