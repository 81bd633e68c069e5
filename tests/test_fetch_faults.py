"""`geoml fetch` against servers that fail on purpose, and kills at any moment."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rasterio
import served
from faulty import PASSING, failing
from rasterio.transform import from_origin
from tenacity import wait_none
from test_fetch import bytes_of, parts, read

from geoml_cli.cli import run
from geoml_cli.formats import web
from geoml_cli.formats.stamp import damage

LAG_S = 0.05  # of each answer, so that a run is long enough to be hit
SCENES = 6  # of two rasters each; larger than the header that is asked for first


def scenes(folder, count=SCENES, seed=0, **profile):
    """items.json in a folder, and its rasters: 10 by 9 blocks of 32 px."""
    items = []
    for n in range(count):
        at = from_origin(500_000 + 4000 * n, 5_000_000, 10, 10)
        look = {"blockxsize": 32, "blockysize": 32, "transform": at, "compress": "deflate"}
        rasters = {
            key: served.noise(folder / f"s{n}/{key}.tif", 300, 260, 1, seed + 2 * n + k, **look)
            for k, key in enumerate(("red", "nir"))
        }
        items.append(served.item(f"s{n}", rasters, folder, f"2023-01-{n + 1:02}T00:00:00Z"))
    write(folder, items)
    return items


def write(folder, items):
    served.put(folder / "items.json", {"type": "FeatureCollection", "features": items})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder `cat` with scenes, and a web that is asked again at once."""
    scenes(tmp_path / "cat")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(web, "BACK_OFF", wait_none())
    return tmp_path


def fetch(server, *more, out="scenes"):
    return run(["fetch", f"{server.url}/items.json", "-o", out, *map(str, more)])


def pixels_of(log):
    """Paths of rasters of which more than the beginning was asked for."""
    return {
        path for _, path, span in log if ".tif" in path and not (span or "").startswith("bytes=0-")
    }


def names(*keys):
    return {f"/{key}.tif" for key in keys}


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 16])
@pytest.mark.parametrize("how", [(), ("--whole",)])
def test_when_one_request_in_ten_fails_everything_arrives(home, jobs, how):
    with failing(home / "cat", seed=3) as server:
        assert fetch(server, "-j", 4, *how, out="calm") == 0
        server.share = 0.1
        for turn in range(12):  # until each fault has struck, under threads in any order
            assert fetch(server, "-j", jobs, "--timeout", 5, *how, out=f"{turn}") == 0
            assert bytes_of(f"{turn}") == bytes_of("calm")
            if set(server.happened) == set(PASSING):
                break
        assert set(server.happened) == set(PASSING)
    assert parts() == []


@pytest.mark.parametrize("fate", ["503", "reset", "short"])
def test_a_server_that_only_fails_is_for_a_later_run(home, capsys, fate):
    with failing(home / "cat", share=0.0) as server:
        server.fates["/s3/nir.tif"] = fate
        assert fetch(server, "--retries", 2) == 75
        error = capsys.readouterr().err.splitlines()[-1]
        assert "/s3/nir.tif" in error and "try again later" in error
        assert server.happened[fate] == 3 and not Path("scenes").exists()
        server.fates.clear()
        assert fetch(server) == 0 and fetch(server, out="calm") == 0
    assert bytes_of("scenes") == bytes_of("calm")


@pytest.mark.parametrize("how", [(), pytest.param(("--whole",), marks=pytest.mark.slow)])
@pytest.mark.parametrize("fate", [pytest.param("silence", marks=pytest.mark.slow), "trickle"])
def test_a_server_that_stalls_for_ever_is_given_up(home, capsys, fate, how):
    with failing(home / "cat") as server:
        server.fates["/s2/red.tif"] = fate
        began = time.monotonic()
        assert fetch(server, "-j", 2, "--timeout", 1, "--retries", 1, *how) == 75
        assert time.monotonic() - began < 5
        error = capsys.readouterr().err.splitlines()[-1]
        assert "/s2/red.tif" in error and "try again later" in error
        assert fetch(server, "--timeout", 1, "--retries", 0, "--keep-going", *how) == 3
        assert damage("scenes") == [] and set(read()["s2"]["assets"]) == {"nir"}


@pytest.mark.parametrize("how", [(), ("--whole",)])
@pytest.mark.parametrize("fate", ["page", "404"])
def test_what_is_no_raster_is_an_error_at_once(home, capsys, fate, how):
    with failing(home / "cat") as server:
        server.fates["/s1/red.tif"] = fate
        assert fetch(server, "-j", 4, *how) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "/s1/red.tif" in error and "later" not in error
        assert "HTTP 404" in error if fate == "404" else "page" in error or "no raster" in error
        assert not Path("scenes").exists()
        assert fetch(server, "--keep-going", *how) == 3
        assert set(read()["s1"]["assets"]) == {"nir"} and len(read()) == SCENES
        assert damage("scenes") == [] and parts() == []


def checked(folder, **wrong):
    """Say size and checksum of every raster in the catalog, and wrong ones of s0/red."""
    items = json.loads((folder / "items.json").read_text())["features"]
    for item in items:
        for key, asset in item["assets"].items():
            body = (folder / item["id"] / f"{key}.tif").read_bytes()
            asset["file:size"] = len(body)
            asset["file:checksum"] = f"1220{hashlib.sha256(body).hexdigest()}"
    items[0]["assets"]["red"].update(wrong)
    write(folder, items)


def test_whole_files_hold_what_their_catalog_says(home):
    checked(home / "cat")
    with failing(home / "cat") as server:
        assert fetch(server, "--whole", "-j", 4) == 0
    for path in (home / "cat").glob("*/*.tif"):
        assert Path("scenes", path.parent.name, path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("wrong", [{"file:size": 12}, {"file:checksum": "1220" + "ab" * 32}])
def test_a_whole_file_that_is_not_what_its_catalog_says_is_refused(home, capsys, wrong):
    checked(home / "cat", **wrong)
    with failing(home / "cat") as server:
        assert fetch(server, "--whole") == 1
        err = capsys.readouterr().err
        assert (
            "/s0/red.tif" in err.splitlines()[-1]
            and "its catalog says" in " ".join(err.split())
            or "one its catalog" in err
        )
        assert not Path("scenes").exists()
        assert fetch(server, "--whole", "--keep-going") == 3
        assert set(read()["s0"]["assets"]) == {"nir"} and damage("scenes") == []


def test_a_file_spoilt_on_the_way_never_arrives(home, capsys):
    checked(home / "cat")
    with failing(home / "cat") as server:
        server.fates["/s0/red.tif"] = "wrong"
        assert fetch(server, "--whole") == 1
        assert "/s0/red.tif" in capsys.readouterr().err
        server.fates.clear()
        assert fetch(server, "--whole") == 0
    got, want = Path("scenes/s0/red.tif"), home / "cat/s0/red.tif"
    assert got.read_bytes() == want.read_bytes()


def states(folder="scenes"):
    found = {}
    for path in Path(folder).rglob("*.tif"):
        told = path.stat()
        found[f"/{path.relative_to(folder)}"] = (told.st_ino, told.st_mtime_ns)
    return found


@pytest.mark.parametrize("how", [(), ("--whole",)])
def test_when_the_catalog_changes_only_what_is_new_is_fetched(home, how):
    items = scenes(home / "cat")
    write(home / "cat", items[:-2])
    with failing(home / "cat") as server:
        assert fetch(server, *how) == 0
        before = states()
        write(home / "cat", items[1:])  # one gone, two new
        served.noise(home / "cat/s3/nir.tif", 300, 260, seed=99, blockxsize=32, blockysize=32)
        server.log.clear()
        server.sent.clear()
        assert fetch(server, "-j", 4, *how) == 0
        after = states()
        changed = names("s3/nir", "s4/red", "s4/nir", "s5/red", "s5/nir")
        if how:
            assert {p for p, n in server.sent.items() if n > 2**14 and ".tif" in p} == changed
        else:
            assert pixels_of(server.log) == changed
        assert set(after) == set(before) - names("s0/red", "s0/nir") | changed
        same = set(after) - changed
        assert len(same) == 5 and {p: after[p] for p in same} == {p: before[p] for p in same}
        assert fetch(server, *how, out="fresh") == 0
    assert bytes_of("scenes") == bytes_of("fresh") and parts() == []


@pytest.mark.parametrize("spoil", ["truncated", "changed", "gone"])
def test_of_a_damaged_output_only_what_is_damaged_is_fetched(home, spoil):
    with failing(home / "cat") as server:
        assert fetch(server) == 0
        whole, before = bytes_of("scenes"), states()
        path = Path("scenes/s5/red.tif")
        body = path.read_bytes()
        if spoil == "gone":
            path.unlink()
        else:
            path.write_bytes(body[:-999] if spoil == "truncated" else body[:-9] + b"\1" * 9)
        server.log.clear()
        assert fetch(server) == 0
        assert pixels_of(server.log) == names("s5/red")
    assert bytes_of("scenes") == whole
    after = states()
    assert {p for p in before if after[p] != before[p]} == names("s5/red")


def killed_runs(home, kills, how):
    """Kill runs at random moments; after each, a second run must finish, and take what is done over."""
    dice, kept = random.Random(11), 0
    with failing(home / "cat") as server:
        words = ["fetch", f"{server.url}/items.json", "-j", "2", *how, "-o"]
        server.delay_s = LAG_S
        start = [sys.executable, "-m", "geoml_cli", *words]
        server.log.clear()
        subprocess.run([*start, "calm"], check=True, stdout=subprocess.DEVNULL)
        asked, want = len(server.log), bytes_of("calm")
        for n in range(kills):
            server.log.clear()
            running = subprocess.Popen([*start, "out"], stdout=subprocess.DEVNULL)
            # a kill in each part of the run, told by what it has asked for, and a moment later
            upto = asked * (n + dice.random()) / kills
            while len(server.log) < upto and running.poll() is None:
                time.sleep(0.002)
            time.sleep(LAG_S * dice.random())
            running.send_signal(signal.SIGKILL)
            running.wait()
            done = _whole_ones(Path("out" if Path("out").is_dir() else ".out.part"), want)
            kept += 0 < len(done) < 2 * SCENES
            server.log.clear()
            server.sent.clear()
            server.delay_s = 0
            assert run([*words, "out"]) == 0
            assert bytes_of("out") == want and parts() == []
            again = done & (pixels_of(server.log) if not how else _sent(server))
            assert not again, f"kill {n}: fetched again: {sorted(again)}"
            server.delay_s = LAG_S
            subprocess.run(["rm", "-r", "out"], check=True)
    return kept


def _whole_ones(folder, want):
    """Paths of copies in a folder that are what they should be; none is there and is not."""
    found = set()
    for path in folder.rglob("[a-z]*.tif"):
        name = str(path.relative_to(folder))
        assert path.read_bytes() == want[name], f"{path} has its name and is not whole"
        found.add(f"/{name}")
    return found


def _sent(server):
    """Paths of rasters of which more was sent than a first look."""
    return {path for path, size in server.sent.items() if size > 2**14}


@pytest.mark.slow
@pytest.mark.parametrize(("how", "kills"), [((), 5), (("--whole",), 3)])
def test_a_run_killed_at_any_moment_is_made_whole_by_the_next(home, how, kills):
    assert killed_runs(home, kills, how) > 0  # some kill struck half way


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--whole",)])
def test_runs_killed_at_fifty_moments(home, how):
    assert killed_runs(home, 50, how) > 10


MOMENTS = [  # (the function a run is killed in, whether before its work)
    pytest.param("geoml_cli.stages.fetch:sweep", True, marks=pytest.mark.slow),
    ("geoml_cli.stages.fetch:sweep", False),
    pytest.param("geoml_cli.stages.job:put_folder", True, marks=pytest.mark.slow),
    ("geoml_cli.stages.job:put_folder", False),
]
DIE = """
import os, sys
from importlib import import_module
module, _, name = sys.argv[1].partition(":")
inner = getattr(import_module(module), name)
def dying(*words):
    if sys.argv[2] == "False":
        inner(*words)
    os._exit(9)
setattr(import_module(module), name, dying)
from geoml_cli.cli import run
run(sys.argv[3:])
"""


@pytest.mark.parametrize(("place", "before"), MOMENTS)
def test_a_run_killed_at_its_very_end_need_not_be_done_again(home, place, before):
    with failing(home / "cat") as server:
        words = ["fetch", f"{server.url}/items.json", "-j", "4", "-o"]
        assert run([*words, "calm"]) == 0
        dying = subprocess.run([sys.executable, "-c", DIE, place, str(before), *words, "out"])
        assert dying.returncode == 9
        server.log.clear()
        assert run([*words, "out"]) == 0
        assert pixels_of(server.log) == set()
    assert bytes_of("out") == bytes_of("calm") and parts() == []


def test_a_killed_run_leaves_no_lock(home):
    with failing(home / "cat", delay_s=0.05) as server:
        words = ["fetch", f"{server.url}/items.json", "-o", "scenes"]
        running = subprocess.Popen([sys.executable, "-m", "geoml_cli", *words])
        while not pixels_of(server.log):
            time.sleep(0.01)
        running.kill()
        running.wait()
        server.delay_s = 0
        assert run(words) == 0
        for path in Path("scenes").rglob("*.tif"):
            with rasterio.open(path) as copy:
                assert copy.read(1).shape == (300, 260)


def test_a_catalog_is_asked_as_often_as_is_said(home, capsys):
    with failing(home / "cat") as server:
        server.fates["/items.json"] = "503"
        assert fetch(server, "--retries", 2) == 75
        assert server.happened["503"] == 3
