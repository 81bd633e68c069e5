"""A web server for range requests, in a process of its own: adds latency, costs little, counts.

python ranges.py FOLDER DELAY_S prints its port, then serves FOLDER until stdin ends. /SCENE/FILE is
FILE of the folder, with an ETag by URL: a few files stand for many. /-/counts tells requests,
bytes of bodies and CPU seconds since the last such request.
"""

import asyncio
import json
import mmap
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen
from zlib import crc32

ASKED = re.compile(rb"(GET|HEAD) (\S+) HTTP/1\.[01]\r\n")
SPAN = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)


class Talk(asyncio.Protocol):
    """One connection; requests on it are answered in their order."""

    files: dict[str, mmap.mmap]
    delay_s: float
    counts = {"requests": 0, "bytes": 0}
    cpu_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.text = transport, b""

    def data_received(self, data: bytes) -> None:
        self.text += data
        while (end := self.text.find(b"\r\n\r\n")) >= 0:
            head, self.text = self.text[: end + 2], self.text[end + 4 :]
            asked = ASKED.match(head)
            assert asked, head
            path, span = asked[2].decode(), SPAN.search(head)
            if path == "/-/counts":
                self.tell()
                continue
            loop = asyncio.get_running_loop()
            loop.call_later(self.delay_s, self.answer, path, span, asked[1] == b"HEAD")

    def tell(self) -> None:
        used = time.process_time()
        body = json.dumps(self.counts | {"cpu_s": used - Talk.cpu_s}).encode()
        Talk.cpu_s, self.counts["requests"], self.counts["bytes"] = used, 0, 0
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def answer(self, path: str, span: re.Match[bytes] | None, bare: bool) -> None:
        self.counts["requests"] += 1
        file = self.files.get(path.rpartition("/")[2])
        if file is None:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        first, last = 0, len(file) - 1
        status, place = b"200 OK", b""
        if span:
            first, last = int(span[1]), min(int(span[2] or last), last)
            status = b"206 Partial Content"
            place = b"Content-Range: bytes %d-%d/%d\r\n" % (first, last, len(file))
        said = (
            b'HTTP/1.1 %s\r\n%sContent-Length: %d\r\nAccept-Ranges: bytes\r\nETag: "%08x"\r\n'
            b"Content-Type: image/tiff\r\n\r\n"
            % (status, place, last - first + 1, crc32(path.encode()))
        )
        if bare:
            self.transport.write(said)
            return
        self.counts["bytes"] += last - first + 1
        self.transport.writelines([said, memoryview(file)[first : last + 1]])


async def serve(folder: Path, delay_s: float) -> None:
    """Serve until stdin ends."""
    Talk.delay_s, Talk.files = delay_s, {}
    for path in folder.iterdir():
        with open(path, "rb") as file:
            Talk.files[path.name] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Talk, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@dataclass(frozen=True)
class Ranges:
    """A server that runs."""

    url: str

    def counts(self) -> dict[str, float]:
        """Requests, bytes and CPU seconds since the last call."""
        with urlopen(f"{self.url}/-/counts", timeout=10) as answer:
            return json.load(answer)


@contextmanager
def ranges(folder: Path, delay_s: float) -> Iterator[Ranges]:
    """Serve the files of a folder until the block ends."""
    with subprocess.Popen(
        [sys.executable, __file__, str(folder), str(delay_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        yield Ranges(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.stdin.close()


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
