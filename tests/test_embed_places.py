"""`geoml embed` of places: tables read in any spelling, published weights, image features beside them."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import save_file

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.errors import TryLater
from geoml_cli.formats.embeddings import open_embeddings
from geoml_cli.formats.wheels import fetched_wheel
from geoml_cli.stages.places_model import encoder_model, published_model

PARITY = Path(__file__).parents[2] / "shared/parity"
ROWS = {
    "name": ["Paris", "Sydney", "Suva"],
    "lon": [2.35, 151.2, 178.4],
    "lat": [48.85, -33.9, -18.1],
}
WRAP = ["--location-encoder", "wrap", "--device", "cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pandas.DataFrame(ROWS).to_csv("c.csv", index=False)
    return tmp_path


@pytest.fixture(scope="module")
def wheel():
    """The published wheel, of the registry or of its cache."""
    try:
        return fetched_wheel("geoclip")
    except TryLater as error:
        pytest.skip(str(error))


def embed(*words):
    return run(["embed", *map(str, words)])


def vectors(path="e.parquet"):
    return open_embeddings(path).vectors()


def wrapped(rows=ROWS):
    lonlat = np.deg2rad(np.stack([rows["lon"], rows["lat"]], 1))
    return np.concatenate([[f(lonlat[:, k]) for f in (np.cos, np.sin)] for k in (0, 1)]).T


def test_any_table_of_places_gives_the_same_vectors():
    table = pandas.DataFrame(ROWS)
    points = geopandas.GeoDataFrame(
        table, geometry=geopandas.points_from_xy(table.lon, table.lat), crs="OGC:CRS84"
    )
    table.to_parquet("plain.parquet")
    points.to_parquet("points.parquet")
    points.drop(columns=["lon", "lat"]).to_crs("EPSG:4326").to_file("points.gpkg")
    points.drop(columns=["lon", "lat"]).to_crs("EPSG:8857").to_file("projected.gpkg")
    table.rename(columns={"lon": "Longitude", "lat": "LATITUDE"}).to_csv("t.tsv", sep="\t")
    table.rename(columns={"lon": "a", "lat": "b"})[["b", "a", "name"]].to_csv(
        "odd.csv", index=False
    )
    asked = {"odd.csv": ["--lonlat", "a,b"]}
    for name in ("c.csv", "plain.parquet", "points.parquet", "points.gpkg", "projected.gpkg", "t.tsv", "odd.csv"):  # fmt: skip
        assert embed(name, *WRAP, *asked.get(name, []), "-o", "e.parquet") == 0
        assert np.abs(vectors() - wrapped()).max() < 1e-6, name
        found = geopandas.read_parquet("e.parquet")
        assert list(found["name"]) == ROWS["name"] and list(found["id"]) == ["0", "1", "2"]
        assert np.abs(found.geometry.x - ROWS["lon"]).max() < 1e-6
    assert embed("c.csv", "points.gpkg", *WRAP, "-o", "both.parquet") == 0
    assert len(vectors("both.parquet")) == 6


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("lat,lon\n151.2,-33.9\n", [], "row 1: latitude 151.2 is beyond 90 degrees; are the columns swapped"),
        ("lat,lon\n1,2\n", ["--lonlat", "lat,lon"], "longitude comes first, then latitude"),
        ("lat,lon\n1,2\n", ["--lonlat", "a,b"], "no column 'a'; it has lat, lon"),
        ("x,y\n0,0\n500000,4649776\n", [], "row 2: 500000, 4.64978e+06 is no longitude"),
        ("name,place\na,b\n", [], "no geometry, and no columns lon and lat"),
        ("lon,lat\n,\n", [], "holds no places"),
        ("lon,lat\na,b\n", [], "bad.csv: "),
    ],
)  # fmt: skip
def test_what_is_no_table_of_places_is_refused_in_one_line(text, words, says, capfd):
    Path("bad.csv").write_text(text)
    assert embed("bad.csv", *WRAP, *words, "-o", "e.parquet") == 1
    error = capfd.readouterr().err
    assert says in error and len(error.splitlines()) == 1 and not Path("e.parquet").exists()


def test_rows_without_a_place_are_left_out_with_a_word(capfd):
    Path("c.csv").write_text("name,lon,lat\na,1,2\nb,,\nc,3,4\n")
    assert embed("c.csv", *WRAP, "-o", "e.parquet") == 0
    assert "1 of 3 rows have no place" in capfd.readouterr().err
    assert list(geopandas.read_parquet("e.parquet")["id"]) == ["0", "2"]


def test_types_of_columns_hold_from_block_to_block(monkeypatch):
    """Numbers that are missing first, and a CSV whose types the beginning does not tell."""
    monkeypatch.setattr("geoml_cli.formats.points.FIRST", 16384)
    lines = [f"{i},{'' if i < 9000 else i},{i if i < 9000 else 'x'},0,0" for i in range(9100)]
    Path("c.csv").write_text("\n".join(["n,some,mixed,lon,lat", *lines]))
    assert embed("c.csv", *WRAP, "-o", "e.parquet") == 0
    found = geopandas.read_parquet("e.parquet")
    assert found["some"].sum() == sum(range(9000, 9100)) and found["mixed"].iloc[-1] == "x"


def test_stored_small_reduced_searched_and_followed():
    rng = np.random.default_rng(0)
    table = {"id": [f"p{i}" for i in range(300)], "lon": rng.uniform(-180, 180, 300), "lat": rng.uniform(-90, 90, 300)}  # fmt: skip
    pandas.DataFrame(table).to_csv("many.csv", index=False)
    deep = ["--location-encoder", "spherical-harmonics:degrees=6", "--device", "cpu"]
    assert embed("many.csv", *deep, "-o", "e.parquet") == 0
    assert embed("many.csv", *deep, "--dtype", "int8", "-o", "small.parquet") == 0
    whole, small = vectors(), vectors("small.parquet")
    assert 0 < np.abs(whole - small).max() < np.abs(whole).max() / 200
    assert embed("many.csv", *deep, "--reduce", "pca:5", "-o", "pca.parquet") == 0
    assert embed("many.csv", "--as", "pca.parquet", "--device", "cpu", "-o", "again.parquet") == 0
    assert np.array_equal(vectors("pca.parquet"), vectors("again.parquet"))
    assert embed("many.csv", *deep, "-o", "flat.gpkg") == 0
    assert np.allclose(geopandas.read_file("flat.gpkg")["d007"], whole[:, 7])
    assert embed("e.parquet", "--search", "p7", "--top", "3", "-o", "found.parquet") == 0
    found = geopandas.read_parquet("found.parquet")
    unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    near = unit @ unit[7]
    near[7] = -2
    assert list(found["id"]) == [f"p{i}" for i in np.argsort(-near)[:3]]
    for k in (1, 2):
        assert embed("many.csv", *deep, "--batch", "64", "--shard", f"{k}/2", "-o", f"{k}.parquet") == 0  # fmt: skip
    assert embed("2.parquet", "1.parquet", "--merge", "-o", "merged.parquet") == 0
    assert np.array_equal(vectors("merged.parquet"), whole)


def test_the_same_run_gives_the_same_bytes_and_is_done_once(capfd):
    net = ["--location-encoder", "wrap:network=siren,hidden=8,out=4", "--device", "cpu"]
    assert embed("c.csv", *net, "-o", "a.parquet") == 0
    assert embed("c.csv", *net, "-o", "b.parquet") == 0
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes()
    before = Path("a.parquet").stat().st_mtime_ns
    assert embed("c.csv", *net, "-o", "a.parquet") == 0
    assert Path("a.parquet").stat().st_mtime_ns == before
    assert embed("c.csv", *net, "--seed", "1", "-o", "b.parquet") == 0
    assert not np.allclose(vectors("a.parquet"), vectors("b.parquet"))
    assert run(["info", "a.parquet"]) == 0
    assert "embed c.csv --location-encoder wrap:network=siren" in capfd.readouterr().out


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_a_checkpoint_of_satclip_loads_and_tells_its_options(kind):
    """In the layout of the published files: Lightning's, twice the network, images and arguments beside it."""
    torch.manual_seed(3)
    made = registry.make("location_encoders", "satclip:degrees=10,hidden=32").double().eval()
    net = {k.removeprefix("nnet."): v for k, v in made.state_dict().items()}
    if kind == "ckpt":
        state = {f"model.location.nnet.{k}": v for k, v in net.items()}
        state |= {f"model.nnet.{k}": v + 1 for k, v in net.items()}
        state |= {"model.visual.conv1.weight": torch.zeros(2), "model.logit_scale": torch.ones([])}
        stale = {"eval_downstream": True, "air_temp_data_path": "/d", "election_data_path": "/e"}
        torch.save(
            {"hyper_parameters": {"le_type": "sphericalharmonics", **stale}, "epoch": 3, "state_dict": state},
            "sat.ckpt",
        )  # fmt: skip
    else:
        save_file({f"nnet.{k}": v for k, v in net.items()}, "sat.safetensors")
    assert embed("c.csv", "--location-encoder", "satclip", "--encoder-weights", f"sat.{kind}", "--device", "cpu", "-o", "e.parquet") == 0  # fmt: skip
    lonlat = torch.tensor(np.stack([ROWS["lon"], ROWS["lat"]], 1))
    assert np.abs(vectors() - made(lonlat).detach().numpy()).max() < 1e-4
    assert open_embeddings("e.parquet").about["encoder"] == "satclip:degrees=10,hidden=32,layers=2,out=256"  # fmt: skip


def test_a_checkpoint_that_does_not_fit_is_refused(capfd):
    save_file({"nnet.layers.0.weight": torch.zeros(4, 9), "x": torch.zeros(1)}, "w.safetensors")
    assert embed("c.csv", "--location-encoder", "satclip", "--encoder-weights", "w.safetensors", "-o", "e.parquet") == 1  # fmt: skip
    assert "w.safetensors: nnet.layers.0.weight is (4, 9)" in capfd.readouterr().err


def clip_table(features, path="clip.parquet"):
    lists = [list(map(float, row)) for row in features]
    pandas.DataFrame({"id": [f"i{k}" for k in range(len(lists))], "features": lists}).to_parquet(
        path
    )


def test_geoclip_is_what_its_authors_say(wheel):
    """Weights of the registry, nothing installed or imported: vectors, logits, and the best of the gallery."""
    if not (PARITY / "geoclip_loc.npz").is_file():
        pytest.skip("geoclip_loc.npz is not here")
    known = np.load(PARITY / "geoclip_loc.npz")
    model = published_model("pkg:geoclip")
    module = model.build()
    lonlat = torch.from_numpy(known["latlon"][:, ::-1].copy()).double()
    with torch.inference_mode():
        found = module(lonlat).numpy()
        assert np.abs(found - known["embedding"]).max() < 1e-4
        fine = model.build().double()(lonlat).numpy()
        assert np.abs(fine - known["embedding_f64"]).max() < 1e-5  # their root of 3 is float32
        part = registry.load("location_encoders", "geoclip")
        point = part.equal_earth(lonlat.float())
        assert np.abs(point.numpy() - known["equal_earth"]).max() < 1e-6
        for k, capsule in enumerate(module.children()):
            assert np.abs(capsule(point).numpy() - known[f"capsule{k}"]).max() < 1e-4  # fmt: skip
    pandas.DataFrame(known["gallery_head"], columns=["LAT", "LON"]).to_csv(
        "gallery.csv", index=False
    )
    clip_table(known["clip_feat"])
    assert (
        embed("gallery.csv", "--model", f"pkg:{wheel}", "--device", "cpu", "-o", "g.parquet") == 0
    )
    assert (
        embed("clip.parquet", "--model", "pkg:geoclip", "--device", "cpu", "-o", "i.parquet") == 0
    )
    images, places = vectors("i.parquet"), vectors("g.parquet")
    assert np.abs(images - known["mlp_out"]).max() < 1e-4
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, places)]
    scale = open_embeddings("i.parquet").about["logit_scale"]
    assert abs(scale - float(known["logit_scale"])) < 1e-4
    assert np.abs(scale * unit[0] @ unit[1].T - known["logits"]).max() < 1e-4
    assert embed("g.parquet", "--search", "i.parquet", "--top", "1", "-o", "found.parquet") == 0
    best = geopandas.read_parquet("found.parquet")
    assert list(best["id"].astype(int)) == list(known["logits"].argmax(1))
    assert np.abs(best["similarity"] * scale - known["logits"].max(1)).max() < 1e-4


def test_a_release_in_a_folder_is_the_package(wheel):
    model = published_model("pkg:geoclip")
    state = {f"location_encoder.{k}": v for k, v in model.build().state_dict().items()}
    state |= {f"image_encoder.mlp.{k}": v for k, v in model.image().state_dict().items()}
    state["logit_scale"] = torch.tensor(3.681)
    Path("release").mkdir()
    save_file(state, "release/model.safetensors")
    config = {"model_type": "geoclip-geolocation", "format_version": 1, "sigma": [1, 16, 256], "gallery_file": "g.csv"}  # fmt: skip
    Path("release/config.json").write_text(json.dumps(config))
    assert embed("c.csv", "--model", "release", "--device", "cpu", "-o", "a.parquet") == 0
    assert embed("c.csv", "--model", "pkg:geoclip", "--device", "cpu", "-o", "b.parquet") == 0
    assert np.array_equal(vectors("a.parquet"), vectors("b.parquet"))
    assert open_embeddings("a.parquet").space == open_embeddings("b.parquet").space
    assert embed("c.csv", "--as", "a.parquet", "--device", "cpu", "-o", "c.parquet") == 0
    assert np.array_equal(vectors("a.parquet"), vectors("c.parquet"))


def test_a_release_of_another_kind_is_refused(capfd):
    Path("release").mkdir()
    save_file({"x": torch.zeros(1)}, "release/model.safetensors")
    for config, says in [({"model_type": "bert"}, "of none of the kinds"), ({"model_type": "geoclip-geolocation", "format_version": 2}, "format 2; 1 is read")]:  # fmt: skip
        Path("release/config.json").write_text(json.dumps(config))
        assert embed("c.csv", "--model", "release", "-o", "e.parquet") == 1
        assert says in capfd.readouterr().err


def test_features_of_another_width_are_refused(wheel, capfd):
    clip_table(np.zeros((2, 5)))
    assert embed("clip.parquet", "--model", "pkg:geoclip", "-o", "e.parquet") == 1
    assert "holds vectors of 5; the image side takes 768" in capfd.readouterr().err


def test_the_gallery_of_the_package_is_read_in_its_own_order(wheel):
    from geoml_cli.formats.points import open_points

    points = open_points("pkg:geoclip/coordinates_100K.csv")
    assert points.columns == ("LON", "LAT") and points.lonlat.shape == (100_000, 2)
    assert np.allclose(points.lonlat[0], (-72.935664, -50.943392))


def test_options_of_satclip_are_kept_where_they_are_given():
    made = registry.make("location_encoders", "satclip:degrees=10,hidden=32")
    save_file(made.state_dict(), "w.safetensors")
    model = encoder_model("satclip:variant=fixed", "w.safetensors", 0)
    assert model.spec == "satclip:degrees=10,hidden=32,layers=2,out=256,variant=fixed"
