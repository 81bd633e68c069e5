"""Memory of batches that nobody holds any more, used again.

What the system gives afresh it first fills with zeros, page by page, and threads wait for each
other there: as dear as the batch itself.
"""

import math
import weakref
from collections import defaultdict, deque
from functools import partial
from typing import Any

import numpy as np

LARGE = 1 << 20  # bytes from which on it pays
SPARE = 8  # how many of a size wait at most


class Buffers:
    """Gives arrays, and takes back the memory of each when the last view or tensor of it is gone."""

    def __init__(self) -> None:
        self._spare: defaultdict[int, deque[np.ndarray]] = defaultdict(partial(deque, maxlen=SPARE))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """As `np.empty`."""
        count = math.prod(shape)
        size = count * np.dtype(dtype).itemsize
        if size < LARGE:
            return np.empty(shape, dtype)
        try:
            memory = self._spare[size].pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        # numpy lets views of views refer to the first array that lies on no other: that has to be
        # this one, whose end is watched, and not `memory`, hence its memoryview between them
        lent = np.frombuffer(memory.data, dtype, count)
        weakref.finalize(lent, self._spare[size].append, memory).atexit = False
        return lent.reshape(shape)

    def __reduce__(self) -> tuple[type["Buffers"], tuple[()]]:
        """Spare memory does not travel."""
        return Buffers, ()
