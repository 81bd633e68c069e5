"""Examples run as they are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import pytest
import rasterio

ROOT = Path(__file__).parents[1]


def copied(tmp_path, *names):
    """Examples as they are in a checkout, without what was made in them."""
    for name in names:
        line = ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", f"examples/{name}"]
        found = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
        assert found, name
        for one in found:
            out = tmp_path / Path(one).relative_to("examples")
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / one, out)


def twice(folder):
    """What `make` says in an example, and what it says where all is made."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    line = ["make", "-C", str(folder)]
    said = [subprocess.run(line, env=environment, capture_output=True, text=True) for _ in range(2)]
    for one in said:
        assert one.returncode == 0, one.stderr
    return said


@pytest.mark.network
def test_clouds_are_mapped_by_a_network_out_of_a_wheel(tmp_path):
    pytest.importorskip("onnxruntime")
    copied(tmp_path, "landcover/data", "cloud-mask")
    _, second = twice(tmp_path / "cloud-mask")
    assert "geoml predict toa.tif" not in second.stdout.split("made by")[0]  # nothing to do
    with rasterio.open(tmp_path / "cloud-mask/clouds/toa.tif") as dataset:
        assert (dataset.read(1) == 0).mean() > 0.99  # a clear day
    table = geopandas.read_file(tmp_path / "cloud-mask/clouds.gpkg")
    assert table["class"].isin(["background", "cloud", "cloud shadow"]).all()


@pytest.mark.slow
def test_tiles_like_a_beach_are_found(tmp_path):
    copied(tmp_path, "landcover/data", "find-similar")
    _, second = twice(tmp_path / "find-similar")
    assert "geoml embed embeddings.parquet" not in second.stdout  # nothing to do
    found = geopandas.read_parquet(tmp_path / "find-similar/found.parquet")
    assert len(found) == 11 and found["similarity"].is_monotonic_decreasing
    sea = geopandas.read_file(tmp_path / "landcover/data/training_polygons.gpkg").query(
        "`class` == 'water'"
    )
    near = found.head(4).to_crs(sea.crs).distance(sea.union_all())
    assert (near < 1000).all()  # metres: the beaches lie by the sea
    assert (tmp_path / "find-similar/found.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain-mae", "prithvi"])
def test_masked_pretraining_fills_embeds_and_is_tuned(tmp_path, name):
    copied(tmp_path, "landcover/data", "pretrain-mae", "prithvi")
    first, second = twice(tmp_path / name)
    assert "geoml train" in first.stdout and "geoml train" not in second.stdout


@pytest.mark.slow
def test_displaced_images_are_brought_back(tmp_path):
    copied(tmp_path, "landcover/data", "coregister")
    _, second = twice(tmp_path / "coregister")
    assert "geoml align" not in second.stdout  # nothing to do
    said = json.loads((tmp_path / "coregister/aligned/later_estimate.json").read_text())
    assert said["shift_m"] == pytest.approx([67, -41], abs=1)
    bent = json.loads((tmp_path / "coregister/unbent/bent_estimate.json").read_text())
    assert bent["correlation"]["after"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name, made", [
    ("less-vit", "map.png"), ("satvision", "model/model.json"), ("earth-adapter", "adapted/model.json"),
])  # fmt: skip
def test_pretrained_encoders_of_three_papers_are_fine_tuned(tmp_path, name, made):
    pytest.importorskip("transformers")
    copied(tmp_path, "landcover/data", name)
    _, second = twice(tmp_path / name)
    assert "geoml train" not in second.stdout.split("made by")[0]  # nothing to do
    assert (tmp_path / name / made).stat().st_size > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "worse"), [("air-temperature", "rmse", max), ("land-ocean", "accuracy", min)]
)
def test_maps_of_places_are_scored_on_held_ground_beside_a_random_split(
    tmp_path, name, metric, worse
):
    copied(tmp_path, name)
    _, second = twice(tmp_path / name)
    assert "geoml train" not in second.stdout  # nothing to do
    held, drawn = (
        json.loads((tmp_path / name / file).read_text())["metrics"][metric]["value"]
        for file in ("scores.json", "random.json")
    )
    assert worse(held, drawn) == held  # the random split flatters
    with rasterio.open(tmp_path / name / "map.tif") as dataset:
        assert dataset.crs.is_geographic and (dataset.read_masks(1) > 0).all()
