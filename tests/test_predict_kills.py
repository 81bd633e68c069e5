"""`geoml predict` killed at random moments: little is computed twice, and the bytes are those of a quiet run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import made
import pytest

from geoml_cli.cli import run

KILLS, BATCH, WINDOW = 10, 2, 96
CODE = """
import sys, time
import geoml_cli.cli as cli
from geoml_cli.core.infer import Mapper
ask = Mapper.ask
def told(self, batch, places, lattice, folds=None):
    with open(sys.argv[1], "a") as log:
        print("begin", len(places), file=log, flush=True)
        said = ask(self, batch, places, lattice, folds)
        time.sleep(0.1)
        print("end", len(places), file=log, flush=True)
    return said
Mapper.ask = told
cli.main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["unet:width=8,depth=2", "vit:width=32,layers=2,heads=2,patch=8,image=32"])  # fmt: skip
def test_many_kills_cost_a_batch_each_and_change_no_byte(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.scene(tmp_path)
    cut = ["--label-column", "class", "--size", "32", "--split", "blocks:4", "-o", "tiles/"]
    assert run(["tile", "scene.tif", "--labels", "labels.gpkg", *cut]) == 0
    head = ["--head", "fcn"] if encoder.startswith("vit") else []
    assert run(["train", "tiles/", "--encoder", encoder, *head, "--epochs", "5", "-o", "model/"]) == 0  # fmt: skip
    made.write(tmp_path / "big.tif", made.image(made.regions(1100, 1000, sites=60)), nodata=0)
    words = ["predict", "big.tif", "--model", "model/", "--device", "cpu", "--uncertainty"]
    words += ["--batch", str(BATCH), "--window", str(WINDOW)]

    def start(out: str, log: Path) -> subprocess.Popen:
        line = [sys.executable, "-c", CODE, str(log), *words, "-o", out]
        return subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def windows(log: Path, what: str) -> int:
        return sum(int(x.split()[1]) for x in log.read_text().splitlines() if x.startswith(what))

    whole = Path("whole.log")
    began = time.monotonic()
    assert start("whole/", whole).wait() == 0
    lasts, count = time.monotonic() - began - 4, windows(whole, "end")
    assert count > 20 * BATCH
    rng, within, costs, kills = random.Random(0), 0, [], 0
    lives = [Path(f"{k}.log") for k in range(KILLS)]
    marks = [Path(f".killed.part/{name}.done") for name in ("big", "big_uncertainty")]

    def done() -> int:
        """Windows with a block on disk in both assets."""
        if not all(m.is_file() for m in marks):
            return 0
        each = [m.read_bytes() for m in marks]
        return sum(all(pair) for pair in zip(*each, strict=True))

    for life in lives:
        life.touch()
        process, before = start("killed/", life), done()
        until = time.monotonic() + 60
        while not life.read_text() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, lasts / KILLS))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kills += 1
        within += windows(life, "begin") > windows(life, "end")
        costs.append(before + windows(life, "end") - done())
        assert not Path("killed").exists()
    last = Path("last.log")
    assert start("killed/", last).wait() == 0
    print(f"{encoder}: {kills} kills, {within} within a batch, windows lost {costs} of {count}")
    assert within > 0 and max(costs) <= BATCH
    assert sum(windows(one, "end") for one in [*lives, last]) <= count + KILLS * BATCH
    assert made.content(Path("whole")) == made.content(Path("killed"))
