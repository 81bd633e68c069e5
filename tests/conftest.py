"""What all tests share: a private cache, repeatable property tests, and a small finished project."""

import os
import shutil
from pathlib import Path

import made
import pytest
from hypothesis import settings

from geoml_cli.cli import run

# before torch is imported, here and in processes that tests start: on arrays this small, threads that
# wait for each other cost far more than they give, the more so on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=40, database=None
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Digests are remembered in a folder of this session, also by processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with scene.tif, labels.gpkg, tiles/, model/, maps/ and scores.json; only to read."""
    folder = tmp_path_factory.mktemp("project")
    made.scene(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        labels = ["--labels", "labels.gpkg", "--label-column", "class"]
        cut = ["--size", "32", "--split", "blocks:4", "--folds", "3", "--buffer", "2"]
        fit = ["--encoder", "unet:width=4,depth=1", "--epochs", "3", "--lr", "1e-2", "--batch", "4"]
        score = ["--truth", "labels.gpkg", "--label-column", "class", "--bootstrap", "50"]
        assert run(["tile", "scene.tif", *labels, *cut, "-o", "tiles"]) == 0
        assert run(["train", "tiles", *fit, "--device", "cpu", "-o", "model"]) == 0
        mapped = ["predict", "scene.tif", "--model", "model", "--device", "cpu"]
        assert run([*mapped, "--out-of-fold", "-o", "maps"]) == 0
        assert run([*mapped, "-o", "map.tif"]) == 0
        assert run(["evaluate", "maps", *score, "-o", "scores.json"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of the finished project, the folder one is in: to spoil."""
    folder = tmp_path / "project"
    shutil.copytree(finished, folder)  # keeps the times
    monkeypatch.chdir(folder)
    return folder
