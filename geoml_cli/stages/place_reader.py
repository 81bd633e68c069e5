"""Tiles of places read: which date becomes which frame, files kept open, clouds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from geoml_cli.geo.grid import Window
from geoml_cli.stages.place import Frames, Place, Shot
from geoml_cli.stages.stack import Stack, StackReader

OPEN = 48  # stacks that a reader keeps open


@dataclass
class Read:
    """What a tile shows to one sensor: images (T, C, H, W), valid (T, H, W), a date or None a frame."""

    images: np.ndarray
    valid: np.ndarray
    dates: list[str | None]


class PlaceReader:
    """Reads tiles of places; one per thread. Files stay open until others need the room."""

    def __init__(self, frames: Frames, counts: Sequence[int]) -> None:
        self.frames, self.counts = frames, counts
        self._open: dict[int, StackReader] = {}

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> "PlaceReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reader(self, stack: Stack) -> StackReader:
        found = self._open.pop(id(stack), None) or StackReader(stack)  # it holds the stack
        while len(self._open) >= OPEN:
            self._open.pop(next(iter(self._open))).close()
        self._open[id(stack)] = found  # the last used is the last to go
        return found

    def read(
        self, place: Place, window: Window, out: Sequence[np.ndarray] | None = None
    ) -> list[Read]:
        """What every sensor shows of a window; `out` (T, C, H, W) a sensor is written to, if given."""
        found: list[Read] = []
        for sensor, shots in enumerate(place.shots):
            count = self.counts[sensor]
            stack = shots[0].stacks[0]
            shape = (count, len(stack.order), window.height, window.width)
            images = np.empty(shape, stack.dtype) if out is None else out[sensor]
            read = Read(images, np.zeros((count, *shape[2:]), bool), [None] * count)
            self._fill(read, shots, window, found[0].dates if found else None)
            found.append(read)
        return found

    def _fill(
        self, read: Read, shots: Sequence[Shot], window: Window, beside: list[str | None] | None
    ) -> None:
        """Choose and read the frames of one sensor; `beside` are the dates of the first sensor."""
        frames = self.frames
        if len(read.dates) == 1 and (beside is None and frames.kind == "one" or len(shots) == 1):
            self.put(read, 0, shots[0], window)
        elif beside is not None:
            for frame, when in enumerate(beside):
                self._nearest(read, frame, shots, when, window)
        elif frames.kind == "near":
            for frame, slot in enumerate(frames.slots):
                self._nearest(read, frame, shots, slot, window)
        elif frames.kind == "best":
            self._best(read, shots, window)
        else:
            self._slots(read, shots, window)

    def put(self, read: Read, frame: int, shot: Shot, window: Window) -> int:
        """Read a shot into a frame; give the number of valid pixels."""
        image, valid = read.images[frame], read.valid[frame]
        for n, stack in enumerate(shot.stacks):
            reader = self._reader(stack)
            if n == 0:
                _, valid[:] = reader.read(window, image)
            else:
                more, seen = reader.read(window)
                fresh = seen & ~valid
                image[:, fresh] = more[:, fresh]
                valid |= fresh
            if valid.all():
                break
        read.dates[frame] = shot.datetime
        return int(np.count_nonzero(valid))

    def _clear(self, read: Read, frame: int) -> None:
        read.images[frame], read.valid[frame], read.dates[frame] = 0, False, None

    def _nearest(
        self, read: Read, frame: int, shots: Sequence[Shot], when: str | None, window: Window
    ) -> None:
        limit = self.frames.within_days
        for shot in sorted(shots, key=lambda shot: _days_between(shot.datetime, when)):
            away = _days_between(shot.datetime, when)
            if limit is not None and when and away > limit:
                break
            if self.put(read, frame, shot, window):
                return
        self._clear(read, frame)

    def _best(self, read: Read, shots: Sequence[Shot], window: Window) -> None:
        """The frames that show most, in order of time; of equals the later."""
        count = len(read.dates)
        one = self._spare(read)
        shown = [self.put(one, 0, shot, window) for shot in shots]
        order = sorted(range(len(shots)), key=lambda i: (shown[i], i), reverse=True)
        chosen = sorted(i for i in order[:count] if shown[i])
        for frame in range(count):
            if frame < len(chosen):
                self.put(read, frame, shots[chosen[frame]], window)
            else:
                self._clear(read, frame)

    def _slots(self, read: Read, shots: Sequence[Shot], window: Window) -> None:
        """In each slot the shot that shows most; of equals the earlier."""
        wide = 7 if self.frames.kind == "months" else 10
        one = self._spare(read)
        for frame, slot in enumerate(self.frames.slots):
            best = 0
            self._clear(read, frame)
            for shot in shots:
                if shot.datetime and shot.datetime[:wide] == slot:
                    shown = self.put(one, 0, shot, window)
                    if shown > best:
                        best = shown
                        read.images[frame], read.valid[frame] = one.images[0], one.valid[0]
                        read.dates[frame] = shot.datetime

    def _spare(self, read: Read) -> Read:
        return Read(np.empty_like(read.images[:1]), np.zeros_like(read.valid[:1]), [None])

    def cloudy(self, place: Place, window: Window, dates: Sequence[str | None]) -> float | None:
        """Share of a window that is cloud, over those shots of the first sensor that its frames are of."""
        shares = [
            share
            for shot in place.shots[0]
            for stack in shot.stacks
            if stack.cloud and shot.datetime in dates
            if (share := self._reader(stack).cloudy(window)) is not None
        ]
        return float(np.mean(shares)) if shares else None


def _days_between(a: str | None, b: str | None) -> float:
    """Days between two moments; a day that is not known is further than any that is."""
    if a is None or b is None:
        return 1e9 if a is None else 0.0
    return abs((_moment(a) - _moment(b)).total_seconds()) / 86400


def _moment(text: str) -> datetime:
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return when if when.tzinfo else when.replace(tzinfo=UTC)
