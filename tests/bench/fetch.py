"""fetch of an area of 200 scenes x 4 bands over a slow web, against other ways to the same pixels.

Each way reads the same windows of the same files, behind URLs that answer after 20 ms, and is
checked to have read the same pixels. Every way runs in a process of its own, as a user runs it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from bench.ranges import Ranges, ranges

SCENES, SIDE, FILES, JOBS, DELAY_S = 200, 2048, 8, 16, 0.02
KEYS = ("blue", "green", "red", "nir")
CORNER, SIZE = 700, 600  # of the window, px: in four blocks of 512
PEERS = Path(__file__).with_name("fetch_peers.py")
WAYS = {  # name: (what must be installed, what it does)
    "loop": ((), "plain loop of rasterio windows, into memory"),
    "loop-tif": ((), "plain loop of rasterio windows, into GeoTIFFs"),
    "odc": (("odc.stac",), f"odc-stac, pool={JOBS}"),
    "odc-dask": (("odc.stac", "dask"), f"odc-stac, dask, {JOBS} threads"),
    "stackstac": (("stackstac",), f"stackstac, dask, {JOBS} threads"),
}


def scene(path: Path, seed: int) -> None:
    """A COG like a band of Sentinel-2: fields and slopes with fine texture, some 1.3 bytes a pixel."""
    rng = np.random.default_rng(seed)
    data = np.zeros((SIDE, SIDE))
    for cell, height in ((256, 900), (64, 500), (16, 200), (4, 60)):
        data += np.kron(rng.normal(0, height, (SIDE // cell,) * 2), np.ones((cell, cell)))
    data = np.clip(data + 3000 + rng.normal(0, 25, data.shape), 1, 10000).astype("uint16")
    with rasterio.open(
        path, "w", driver="COG", height=SIDE, width=SIDE, count=1, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 10, 10),
        blocksize=512, compress="DEFLATE", predictor="YES",
    ) as out:  # fmt: skip
        out.write(data, 1)


def item(number: int, url: str, outline: tuple[float, float, float, float]) -> dict[str, Any]:
    """The STAC item of a scene, with the fields that other tools need not to open every file."""
    west, south, east, north = outline
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    day = np.datetime64("2020-01-01") + number * 3
    asset = {
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "raster:bands": [{"nodata": 0, "data_type": "uint16"}],
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": f"s{number:03}",
        "collection": "made",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(outline),
        "properties": {
            "datetime": f"{day}T10:00:00Z",
            "proj:epsg": 32633,
            "proj:shape": [SIDE, SIDE],
            "proj:transform": [10, 0, 5e5, 0, -10, 5e6],
        },
        "links": [],
        "assets": {
            key: asset | {"href": f"{url}/s{number:03}/{(number * 4 + band) % FILES}.tif"}
            for band, key in enumerate(KEYS)
        },
    }


def blocks_bytes(path: Path, window: Window) -> int:
    """Bytes of the compressed blocks of a file that a window lies in, by its TIFF directory."""
    size, (row, col) = 0, (window.row_off, window.col_off)
    with rasterio.open(path) as dataset:
        for r in range(int(row) // 512, -(-int(row + window.height) // 512)):
            for c in range(int(col) // 512, -(-int(col + window.width) // 512)):
                said = dataset.get_tag_item(f"BLOCK_SIZE_{c}_{r}", "TIFF", bidx=1)
                size += int(said)
    return size


def measure(server: Ranges, command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a command, requests and bytes it asked for, CPU seconds of the server."""
    server.counts()
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    found = server.counts()
    return {"wall_s": took, "cpu_s": used, "served_cpu_s": found.pop("cpu_s"), **found}


def main(scenes: int = SCENES) -> None:
    """Print one line a way: seconds, ratio to fetch, requests an asset, bytes over those needed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        for number in range(FILES):
            scene(folder / "files" / f"{number}.tif", number)
        with rasterio.open(folder / "files" / "0.tif") as dataset:
            inner = Window(CORNER, CORNER, SIZE, SIZE)
            box = transform_bounds(dataset.crs, "OGC:CRS84", *dataset.window_bounds(inner))
            outline = transform_bounds(dataset.crs, "OGC:CRS84", *dataset.bounds)
        with ranges(folder / "files", DELAY_S) as server:
            items = [item(number, server.url, outline) for number in range(scenes)]
            (folder / "items.json").write_text(
                json.dumps({"type": "FeatureCollection", "features": items})
            )
            compare(folder, server, box)


def compare(folder: Path, server: Ranges, box: tuple[float, ...]) -> None:
    """Run fetch first, then the other ways on the very window that it kept."""
    catalog, copies = str(folder / "items.json"), folder / "scenes"
    bbox = ",".join(f"{v:.9f}" for v in box)
    ours = [sys.executable, "-m", "geoml_cli", "fetch", catalog, "--bbox", bbox]
    ours = [*ours, "-j", str(JOBS), "-o", str(copies), "-q"]
    found = measure(server, ours)
    assets = len(json.loads(Path(catalog).read_text())["features"]) * len(KEYS)
    with rasterio.open(next(copies.glob("*/*.tif"))) as copy:
        left, top = copy.transform.c, copy.transform.f
        window = Window((left - 5e5) / 10, (5e6 - top) / 10, copy.width, copy.height)
    need = sum(blocks_bytes(folder / "files" / f"{n}.tif", window) for n in range(FILES))
    need *= assets / FILES
    print(f"{assets} assets, windows of {window.height} x {window.width} px, {JOBS} jobs,"
          f" {DELAY_S * 1e3:.0f} ms a request, blocks of {need / 2**20:.0f} MiB", flush=True)  # fmt: skip
    _say("geoml fetch, into COGs", found, found, assets, need)
    spec = [catalog, *(str(int(v)) for v in window.flatten())]
    checked = {}
    for way, (wants, what) in WAYS.items():
        missing = [name for name in wants if not _there(name)]
        if missing:
            print(f"{what}: skipped, {missing[0]} is missing: pip install 'geoml-cli[bench]'")
            continue
        saved = folder / f"{way}.sum"
        theirs = measure(server, [sys.executable, str(PEERS), way, *spec, str(saved)])
        checked[way] = saved.read_text()
        _say(what, theirs, found, assets, need)
    checked["fetch"] = _sum_of_copies(copies, catalog)
    assert len(set(checked.values())) == 1, f"not the same pixels: {checked}"


def _sum_of_copies(copies: Path, catalog: str) -> str:
    sums = []
    for one in json.loads(Path(catalog).read_text())["features"]:
        for key in KEYS:
            with rasterio.open(copies / one["id"] / f"{key}.tif") as copy:
                sums.append(int(copy.read(1).sum(dtype="int64")))
    return json.dumps(sums)


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _say(what: str, it: dict[str, float], ours: dict[str, float], assets: int, need: float) -> None:
    print(
        f"{what:46} {it['wall_s']:6.1f} s = {it['wall_s'] / ours['wall_s']:5.2f} x fetch;"
        f" CPU {it['cpu_s']:5.1f} s; {it['requests'] / assets:.2f} requests an asset;"
        f" bytes / blocks needed {it['bytes'] / need:.2f};"
        f" server {1e3 * it['served_cpu_s'] / max(1, it['requests']):.2f} ms CPU a request",
        flush=True,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
