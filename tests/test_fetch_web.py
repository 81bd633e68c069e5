"""`geoml fetch` over HTTP: slow servers, failing ones, and kills half way."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import rasterio
import served
from rasterio.transform import from_origin
from tenacity import wait_none
from test_fetch import AT, bytes_of, fetch, one_line, parts, read

from geoml_cli.cli import run
from geoml_cli.formats import remote, web
from geoml_cli.formats.stamp import damage


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A catalog in a folder `cat`, and a web that is asked again at once."""
    served.two_scenes(tmp_path / "cat")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(web, "BACK_OFF", wait_none())
    return tmp_path


def inside(path, span):
    """Whether a request is for the inside of red.tif of scene b1: its header goes well."""
    return path.startswith("/b/b1/red.tif") and bool(span) and not span.startswith("bytes=0-")


def test_over_the_web_the_same_pixels_arrive(home, capsys):
    assert fetch("--bbox", AT, out="local") == 0
    with served.serving(home / "cat") as server:
        assert fetch("--bbox", AT, catalog=f"{server.url}/catalog.json") == 0
        local, far = bytes_of("local"), bytes_of("scenes")
        assert {k: v for k, v in local.items() if ".tif" in k} == {
            k: v for k, v in far.items() if ".tif" in k
        }
        links = {link["rel"]: link["href"] for link in read()["a1"]["links"]}
        assert links["derived_from"] == f"{server.url}/a/a1/item.json"
        assert links["collection"] == f"{server.url}/a/collection.json"
        server.log.clear()
        stat = os.stat("scenes/items.json")
        assert fetch("--bbox", AT, catalog=f"{server.url}/catalog.json") == 0
        assert server.pixels() == 0 and os.stat("scenes/items.json").st_mtime_ns == stat.st_mtime_ns
        served.noise(home / "cat/a/a1/red.tif", 300, 260, seed=5)  # another ETag
        assert fetch("--bbox", AT, catalog=f"{server.url}/catalog.json") == 0
        new = bytes_of("scenes")
        assert new["a1/red.tif"] != far["a1/red.tif"] and new["a1/nir.tif"] == far["a1/nir.tif"]


def test_a_small_area_of_a_large_scene_is_a_small_part_of_its_bytes(home):
    served.noise(home / "cat/a/a1/red.tif", 2000, 2000)
    with served.serving(home / "cat") as server:
        box = "15.005,45.14,15.01,45.145"
        assert fetch("--bbox", box, "--bands", "red", catalog=f"{server.url}/a/a1/item.json") == 0
        spans = [
            r.removeprefix("bytes=").split("-")
            for _, p, r in server.log
            if r and p.endswith(".tif")
        ]
        got = sum(int(b) - int(a) for a, b in spans)
        assert got < (home / "cat/a/a1/red.tif").stat().st_size / 10


def test_signatures_are_used_and_never_written_down(home):
    item = json.loads(Path("cat/a/a1/item.json").read_text())
    with served.serving(
        home / "cat", rule=lambda path, _: None if "sig=hush" in path or "json" in path else 403
    ) as server:
        for key, asset in item["assets"].items():
            asset["href"] = f"{server.url}/a/a1/{key}.tif?sig=hush"
        item["links"].append({"rel": "self", "href": f"{server.url}/a/a1/item.json?sig=hush"})
        served.put(home / "items.json", item)
        assert fetch("--bbox", AT, catalog="items.json") == 0
        assert "hush" not in Path("scenes/items.json").read_text()
        before = bytes_of("scenes")
        for asset in item["assets"].values():
            asset["href"] += "&se=2030"
        served.put(home / "items.json", item)
        server.log.clear()
        assert fetch("--bbox", AT, catalog="items.json") == 0
        assert server.pixels() == 0  # the same files, signed anew
        assert {k: v for k, v in bytes_of("scenes").items() if ".tif" in k} == {
            k: v for k, v in before.items() if ".tif" in k
        }


def test_a_catalog_of_another_machine_cannot_name_files_of_this_one(home, capsys):
    item = json.loads(Path("cat/a/a1/item.json").read_text())
    item["assets"]["red"]["href"] = "file://" + str(home / "cat/a/a1/red.tif")
    served.put(home / "cat/a/a1/item.json", item)
    with served.serving(home / "cat") as server:
        assert fetch(catalog=f"{server.url}/catalog.json") == 1
        assert "on its author's own disk" in capsys.readouterr().err
        assert fetch("--keep-going", catalog=f"{server.url}/catalog.json") == 3
        assert list(read()) == ["b1"]


FATES = {  # what becomes of requests for the inside of one asset: (status, what is said)
    "404": (404, 1, "HTTP 404"),
    "403": (403, 1, "HTTP 403"),
    "500": (500, 75, "HTTP 500"),
    "503": (503, 75, "HTTP 503"),
    "429": (429, 75, "HTTP 429"),
    "hangs up": ("drop", 75, "network"),
}


@pytest.mark.parametrize("name", FATES)
def test_a_server_that_fails_ends_the_run_and_never_becomes_nodata(home, capsys, name):
    fate, status, said = FATES[name]
    with served.serving(home / "cat", rule=lambda *a: fate if inside(*a) else None) as server:
        catalog = f"{server.url}/catalog.json"
        assert fetch("-j", 2, catalog=catalog) == status
        err = capsys.readouterr().err
        error = err.splitlines()[-1]
        assert said in error and "/b/b1/red.tif" in error and err.count("\n") <= 2
        assert not Path("scenes").exists()
        assert fetch("--keep-going", catalog=catalog) == 3
        assert set(read()["b1"]["assets"]) == {"nir"} and damage("scenes") == [] and parts() == []
        capsys.readouterr()
        server.rule = None
        assert fetch(catalog=catalog) == 0  # what had failed is fetched, nothing else
        assert fetch(catalog=catalog, out="fresh") == 0
    got, want = bytes_of("scenes"), bytes_of("fresh")
    assert got == want


@pytest.mark.parametrize("fate", [500, "drop", "half"])
def test_a_server_that_comes_back_is_waited_for(home, fate):
    assert fetch(out="local") == 0
    seen = set()

    def rule(path, span):
        first = path.endswith(".tif") and (path, span) not in seen
        seen.add((path, span))
        return fate if first else None  # each request fails once

    with served.serving(home / "cat", rule=rule) as server:
        assert fetch(catalog=f"{server.url}/catalog.json") == 0
    assert {k: v for k, v in bytes_of("local").items() if ".tif" in k} == {
        k: v for k, v in bytes_of("scenes").items() if ".tif" in k
    }


def test_a_whole_asset_that_is_gone(home, capsys):
    Path("cat/b/b1/red.tif").unlink()
    with served.serving(home / "cat") as server:
        assert fetch(catalog=f"{server.url}/catalog.json") == 1
        assert "b/b1/red.tif: cannot be had (HTTP 404)" in capsys.readouterr().err


@pytest.mark.parametrize("spoiler", ["truncated", "corrupt", "page"])
def test_a_damaged_file_behind_a_url_is_bad_data_not_bad_weather(home, capsys, spoiler):
    path = home / "cat/b/b1/red.tif"
    served.noise(
        path, 300, 260, compress="deflate", transform=from_origin(520_000, 5_000_000, 10, 10)
    )
    body = path.read_bytes()
    middle = len(body) // 2
    path.write_bytes(
        {
            "truncated": body[:middle],
            "corrupt": bytes(b if n % 200 or n < 9000 else 255 - b for n, b in enumerate(body)),
            "page": b"<html>" * 99,
        }[spoiler]
    )
    said = {
        "truncated": "is truncated",
        "corrupt": "damaged",
        "page": "no raster",
    }[spoiler]
    with served.serving(home / "cat") as server:
        assert fetch(catalog=f"{server.url}/catalog.json") == 1
        assert said in capsys.readouterr().err


def test_catalog_files_that_fail(home, capsys):
    with served.serving(
        home / "cat", rule=lambda path, _: 503 if "catalog" in path else None
    ) as server:
        assert fetch(catalog=f"{server.url}/catalog.json") == 75
        assert len(server.log) == 6 and "HTTP 503" in capsys.readouterr().err
        server.rule = lambda path, _: 404 if path == "/b/b1/item.json" else None
        assert fetch(catalog=f"{server.url}/catalog.json") == 1
        err = capsys.readouterr().err
        assert one_line(err) and "/b/b1/item.json: cannot be had (HTTP 404)" in err
        assert fetch("--keep-going", catalog=f"{server.url}/catalog.json") == 3
        assert list(read()) == ["a1"]
    capsys.readouterr()
    for nowhere in ("http://127.0.0.1:1/catalog.json", "http://no.such.host.invalid/catalog.json"):
        assert fetch(catalog=nowhere, out="none") == 75 and one_line(capsys.readouterr().err)
    assert fetch(catalog="ftp://x/catalog.json", out="none") == 1
    assert parts() == [] and not Path("none").exists()


def test_readers_read_side_by_side_and_change_no_byte(home):
    folder = home / "many"
    rasters = {f"b{n}": served.noise(folder / f"b{n}.tif", 256, 256, seed=n) for n in range(8)}
    served.put(folder / "item.json", served.item("m", rasters, folder, "2023-01-01T00:00:00Z"))
    meeting = Barrier(4)

    def meet(path, span):
        """Hold a request for pixels until three others are there too."""
        if span and not span.startswith("bytes=0-"):
            meeting.wait(timeout=30)

    assert fetch(catalog=folder / "item.json", out="out1") == 0
    with served.serving(folder, rule=meet) as server:
        assert fetch("-j", 4, catalog=f"{server.url}/item.json", out="out4") == 0
    assert not meeting.broken
    one, four = bytes_of("out1"), bytes_of("out4")
    assert {k: v for k, v in one.items() if ".tif" in k} == {
        k: v for k, v in four.items() if ".tif" in k
    }


def start(server, out):
    argv = [
        sys.executable,
        "-m",
        "geoml_cli",
        "fetch",
        f"{server.url}/item.json",
        "-o",
        out,
        "-j",
        "2",
    ]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def blocks_done(out):
    """Of 12: 6 for each asset that is finished, and those marked as done of the others."""
    count = 0
    for path in Path(f".{out}.part").rglob("*"):
        with suppress(FileNotFoundError):  # finished between the listing and the look
            count += 6 * (path.suffix == ".tif") + (
                sum(path.read_bytes()) if path.suffix == ".done" else 0
            )
    return count


@pytest.fixture
def big(home):
    """An item of two rasters, one of them masked, of 6 blocks each."""
    folder = home / "big"
    rasters = {"plain": served.noise(folder / "plain.tif", 1024, 1536, compress="deflate")}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
        rasters["masked"] = served.noise(folder / "masked.tif", 1024, 1536, seed=1)
        with rasterio.open(rasters["masked"], "r+") as dataset:
            mask = dataset.read(1) > 6000
            dataset.write_mask(mask)
    served.put(folder / "item.json", served.item("x", rasters, folder, "2023-01-01T00:00:00Z"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_half_way_goes_on_to_the_same_bytes(home, big, signum):
    with served.serving(big) as server:
        assert run(["fetch", f"{server.url}/item.json", "-o", "whole"]) == 0
        undisturbed = server.pixels()
        server.log.clear()
        server.delay_s = 0.05
        running = start(server, "scenes")
        deadline = time.monotonic() + 60
        while blocks_done("scenes") < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(signum)
        _, err = running.communicate(timeout=30)
        assert running.returncode == (-9 if signum == signal.SIGKILL else 143), err
        done = blocks_done("scenes")
        assert 4 <= done < 12 and not Path("scenes").exists()
        server.log.clear()
        server.delay_s = 0
        assert run(["fetch", f"{server.url}/item.json", "-o", "scenes", "-j", "2"]) == 0
        # blocks that were done are not asked for again
        assert server.pixels() < undisturbed * (1 - 0.6 * done / 12)
    assert bytes_of("scenes") == bytes_of("whole") and parts() == []


def test_a_deadline_saves_what_is_done(home, big):
    with served.serving(big, delay_s=0.08) as server:
        argv = ["fetch", f"{server.url}/item.json", "-o", "scenes"]
        assert run([*argv, "--deadline", "1.5s"]) == 75
        done = blocks_done("scenes")
        assert done > 0 and not Path("scenes").exists()
        server.delay_s = 0
        assert run(argv) == 0 and run([*argv[:3], "whole"]) == 0
    assert bytes_of("scenes") == bytes_of("whole")


def test_a_mask_that_a_server_will_not_send_is_not_taken_for_none(home, big, capsys):
    """The mask's directory lies behind the pixels: without it all would look valid."""
    start = 1024 * 1536 * 2 // remote.CHUNK_BYTES * remote.CHUNK_BYTES
    behind = f"bytes={start}-{start + remote.CHUNK_BYTES - 1}"

    def rule(path, span):
        return 500 if path == "/masked.tif" and span == behind else None

    with served.serving(big, rule=rule) as server:
        assert run(["fetch", f"{server.url}/item.json", "-o", "scenes"]) == 75
        assert any(span == behind for _, _, span in server.log)
        assert "masked.tif: the server fails (HTTP 500)" in capsys.readouterr().err
        server.rule = None
        assert run(["fetch", f"{server.url}/item.json", "-o", "scenes"]) == 0
    with rasterio.open(big / "masked.tif") as source, rasterio.open("scenes/x/masked.tif") as copy:
        valid = source.dataset_mask() > 0
        assert not valid.all() and np.array_equal(copy.read_masks(1) > 0, valid)
        assert np.array_equal(copy.read(1)[valid], source.read(1)[valid])


def test_a_file_that_changes_while_it_is_read_is_noticed(home, capsys):
    path = home / "cat/a/a1/red.tif"
    served.noise(path, 1500, 1500)
    seen = []

    def rule(where, span):
        if where == "/a/a1/red.tif" and span and not span.startswith("bytes=0-"):
            seen.append(span)
            if len(seen) == 2:
                served.noise(path, 1500, 1500, seed=8)

    with served.serving(home / "cat", rule=rule) as server:
        assert fetch("--bands", "red", catalog=f"{server.url}/a/a1/item.json") == 1
    assert "a1/red.tif: changed while it was read" in capsys.readouterr().err
    assert not Path("scenes").exists()


def test_a_server_without_ranges_will_do(home):
    assert fetch("--bbox", AT, out="local") == 0

    class Plain(SimpleHTTPRequestHandler):
        def __init__(self, *more):
            super().__init__(*more, directory=home / "cat")

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        assert (
            fetch("--bbox", AT, catalog=f"http://127.0.0.1:{server.server_port}/catalog.json") == 0
        )
        server.shutdown()
    local, far = bytes_of("local"), bytes_of("scenes")
    assert local["a1/red.tif"] == far["a1/red.tif"] and local["a1/nir.tif"] == far["a1/nir.tif"]
