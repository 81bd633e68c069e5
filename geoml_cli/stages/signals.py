"""What a run does when it is asked to stop: finish the block, then leave."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Signals:
    """First SIGINT or SIGTERM asks for a stop at the next block; the second dies."""

    def __init__(self) -> None:
        self.caught = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _catch(self, signum: int, _: FrameType | None) -> None:
        if self.caught:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.caught = signum
        if signum == signal.SIGINT:
            os.write(2, b"geoml: stopping at the next block; Ctrl-C again to die at once\n")
