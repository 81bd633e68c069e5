"""Catalogs made for tests, and a web server on this machine that can be slow, fail and hang up."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

Rule = Callable[
    [str, str | None], int | str | None
]  # path, Range -> status, "drop", "half" or None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    root: Path
    delay_s = 0.0
    rule: Rule | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.log: list[tuple[str, str, str | None]] = []  # method, path, Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is nothing to print."""

    def pixels(self) -> int:
        """Number of requests for the inside of a raster."""
        return sum(bool(r) and not r.startswith("bytes=0-") for m, p, r in self.log if ".tif" in p)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits 40 ms for the head to be acknowledged
    server: Server

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.log.append((self.command, self.path, span))
        time.sleep(self.server.delay_s)
        fate = self.server.rule(self.path, span) if self.server.rule else None
        if fate == "drop":
            self.close_connection = True
            return
        file = self.server.root / self.path.partition("?")[0].lstrip("/")
        if isinstance(fate, int) or not file.is_file():
            self.send_response(fate if isinstance(fate, int) else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.answer(file.read_bytes(), span, fate == "half")

    do_HEAD = do_GET

    def answer(self, body: bytes, span: str | None, half: bool) -> None:
        tag, total = hashlib.sha256(body).hexdigest()[:16], len(body)
        first = 0
        if span:
            start, end = re.match(r"bytes=(\d+)-(\d*)", span).groups()
            first, last = int(start), min(int(end or total), total - 1)
            if first >= total:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = body[first : last + 1]
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if half else body)
            self.close_connection = half

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """A server answers until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(root: Path, delay_s: float = 0.0, rule: Rule | None = None) -> Iterator[Server]:
    """Serve a folder until the block ends."""
    server = Server()
    server.root, server.delay_s, server.rule = root, delay_s, rule
    with running(server):
        yield server


def noise(
    path: Path, height: int, width: int, count: int = 1, seed: int = 0, **profile: Any
) -> Path:
    """A tiled GeoTIFF of random values 1..60000, 10 m pixels in UTM 33N."""
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 60000, (count, height, width)).astype(profile.pop("dtype", "uint16"))
    profile = {
        "crs": "EPSG:32633",
        "transform": from_origin(500_000, 5_000_000, 10, 10),
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
    } | profile
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=data.dtype,
        **profile,
    ) as out:
        out.write(data)
    return path


def item(
    name: str, rasters: dict[str, Path], folder: Path, when: str, **more: Any
) -> dict[str, Any]:
    """An item of rasters, hrefs relative to `folder`; its outline is that of the first."""
    with rasterio.open(next(iter(rasters.values()))) as dataset:
        west, south, east, north = transform_bounds(dataset.crs, "OGC:CRS84", *dataset.bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": when},
        "links": [],
        "assets": {
            key: {
                "href": f"./{path.relative_to(folder).as_posix()}",
                "type": "image/tiff",
                "roles": ["data"],
            }
            for key, path in rasters.items()
        },
    } | more


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def collection(folder: Path, name: str, items: list[dict[str, Any]]) -> None:
    """A collection.json and its item files; hrefs of the items are relative to their own folder."""
    for one in items:
        links = [{"rel": "collection", "href": "../collection.json", "type": "application/json"}]
        put(folder / one["id"] / "item.json", one | {"collection": name, "links": links})
    put(
        folder / "collection.json",
        {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "other",
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [["2000-01-01T00:00:00Z", None]]},
            },
            "links": [{"rel": "item", "href": f"./{one['id']}/item.json"} for one in items],
        },
    )


def catalog(folder: Path, children: list[str]) -> Path:
    """A catalog.json over collections in folders below it."""
    return put(
        folder / "catalog.json",
        {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "made",
            "description": "made",
            "links": [{"rel": "child", "href": f"./{name}/collection.json"} for name in children],
        },
    )


def two_scenes(root: Path, height: int = 300, width: int = 260) -> Path:
    """A static catalog: one scene of collection `a` (June 2023), one of `b` (June 2024, 20 km east)."""
    for number, (name, when) in enumerate(
        {"a": "2023-06-01T10:20:30Z", "b": "2024-06-01T00:00:00Z"}.items()
    ):
        folder = root / name / f"{name}1"
        shift = from_origin(500_000 + 20_000 * number, 5_000_000, 10, 10)
        rasters = {
            "red": noise(folder / "red.tif", height, width, seed=number, transform=shift),
            "nir": noise(folder / "nir.tif", height, width, seed=number + 9, transform=shift),
        }
        collection(root / name, name, [item(f"{name}1", rasters, folder, when)])
    return catalog(root, ["a", "b"])
