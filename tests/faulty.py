"""A web server that fails on purpose: it refuses, breaks off, stalls, lies; by a rule or at random."""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from served import Handler, Server, running

# what may become of one request in ten; each is a passing fault
PASSING = ("429", "429 later", "503", "hang up", "reset", "reset inside", "short", "stall")
STALL_S = 0.4  # shorter than any time-out of the tests
TRICKLE_S = 3.0  # of a byte now and then, so that no test hangs
PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>" * 40


class Faulty(Server):
    """Serves a folder; `fate` says what becomes of a request, None that it is answered."""

    def __init__(self, share: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.RequestHandlerClass = FaultyHandler
        self.share, self.happened = share, Counter[str]()
        self.sent: Counter[str] = Counter()  # bytes of bodies, by path
        self.fates: dict[str, str] = {}  # of a path, for good
        self.ended = threading.Event()
        self._random, self._lock = random.Random(seed), threading.Lock()

    def fate(self, path: str, span: str | None) -> str | None:
        """What is to become of a request."""
        with self._lock:
            named = self.fates.get(path.partition("?")[0])
            if named is None and self._random.random() < self.share:
                named = PASSING[sum(self.happened.values()) % len(PASSING)]  # all in turn
            if named:
                self.happened[named] += 1
            return named


class FaultyHandler(Handler):
    server: Faulty

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.log.append((self.command, self.path, span))
        time.sleep(self.server.delay_s)
        fate = self.server.fate(self.path, span)
        file = self.server.root / self.path.partition("?")[0].lstrip("/")
        if fate == "reset":
            self.reset()
        elif fate == "hang up":
            self.close_connection = True
        elif fate == "page":
            self.refuse(200, PAGE, {"Content-Type": "text/html"})
        elif fate == "silence":
            self.server.ended.wait()
            self.close_connection = True
        elif fate and fate.split()[0].isdigit():
            self.refuse(int(fate.split()[0]), b"", {"Retry-After": "1"} if "later" in fate else {})
        elif not file.is_file():
            self.refuse(404, b"", {})
        else:
            self.broken(file.read_bytes(), span, fate)

    do_HEAD = do_GET

    def refuse(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def broken(self, body: bytes, span: str | None, fate: str | None) -> None:
        """Answer, if need be with a body that breaks off, waits or is wrong."""
        whole, plain = self.wfile, Held()
        self.wfile = plain
        if fate == "wrong":
            body = body[:-100] + bytes(100)
        self.answer(body, span, half=False)
        self.wfile = whole
        head, _, body = bytes(plain).partition(b"\r\n\r\n")
        self.server.sent[self.path.partition("?")[0]] += len(body)
        middle = len(body) // 2
        with suppress(OSError):  # nobody listens any more
            whole.write(head + b"\r\n\r\n")
            if fate == "trickle":
                for n in range(min(len(body), int(TRICKLE_S / 0.1))):
                    whole.write(body[n : n + 1])
                    if self.server.ended.wait(0.1):
                        break
                self.close_connection = True
                return
            whole.write(body[:middle])
            if fate == "stall":
                time.sleep(STALL_S)
            if fate == "reset inside":
                self.reset()
            elif fate == "short":
                self.close_connection = True
            else:
                whole.write(body[middle:])

    def reset(self) -> None:
        """Close so that the other side gets a reset, not an end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.rfile, self.wfile = Held(), Held()


class Held(bytearray):
    """A place to write to that goes nowhere."""

    closed = False

    def write(self, data: bytes) -> int:
        self.extend(data)
        return len(data)

    def readline(self, *_: int) -> bytes:
        return b""

    def flush(self) -> None:
        """There is nothing behind it."""

    def close(self) -> None:
        """It stays."""


@contextmanager
def failing(
    root: Path, share: float = 0.0, seed: int = 0, delay_s: float = 0.0
) -> Iterator[Faulty]:
    """Serve a folder until the block ends; a `share` of the requests fail, in all passing ways."""
    server = Faulty(share, seed)
    server.root, server.delay_s = root, delay_s
    with running(server):
        try:
            yield server
        finally:
            server.ended.set()
