"""`geoml embed` killed at random moments: little is computed twice, and the bytes are those of a quiet run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import made
import pytest

KILLS, BATCH = 10, 2
CODE = """
import sys, time
import geoml_cli.cli as cli
from geoml_cli.stages.embedder import Embedder
def slowed(name):
    work = getattr(Embedder, name)
    def told(self, batch, *rest):
        said = work(self, batch, *rest)
        time.sleep(0.1)
        with open(sys.argv[1], "a") as log:
            print(len(batch.images), file=log, flush=True)
        return said
    setattr(Embedder, name, told)
slowed("tiles")
slowed("ask")
cli.main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("out", ["e.parquet", "patches/"])
def test_many_kills_cost_a_batch_each_and_change_no_byte(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.write(tmp_path / "big.tif", made.image(made.regions(500, 450, sites=60)), nodata=0)
    words = ["embed", "big.tif", "--encoder", "resnet", "--window", "64", "--device", "cpu"]
    words += ["--batch", str(BATCH), "--reduce", "pca:6", "--dtype", "int8"]

    def start(target: str, log: Path) -> subprocess.Popen:
        line = [sys.executable, "-c", CODE, str(log), *words, "-o", target]
        return subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def count(log: Path) -> int:
        return sum(int(line) for line in log.read_text().split())

    quiet = Path("quiet.log")
    quiet.touch()
    assert start(f"quiet-{out}", quiet).wait() == 0
    whole = count(quiet)
    assert whole > 20 * BATCH
    rng, lives = random.Random(0), [Path(f"{k}.log") for k in range(KILLS)]
    for life in lives:
        life.touch()
        process, until = start(out, life), time.monotonic() + 60
        while not life.read_text() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05 * whole / BATCH / KILLS))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not Path(out).exists()
    last = Path("last.log")
    last.touch()
    assert start(out, last).wait() == 0
    work = sum(map(count, [*lives, last]))
    print(f"{out}: {KILLS} kills, {work} windows computed, {whole} in a quiet run")
    if out.endswith("/"):
        assert made.content(Path(out)) == made.content(Path(f"quiet-{out}"))
    else:
        assert work <= whole + KILLS * BATCH
        assert Path(out).read_bytes() == Path(f"quiet-{out}").read_bytes()
