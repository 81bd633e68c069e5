"""`geoml info`: what it tells is so, what it checks is found, and its chain of commands can be run."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import made
import matplotlib.image
import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin
from safetensors.numpy import load_file, save_file

from geoml_cli.cli import run
from geoml_cli.formats.digest import sha256_file
from geoml_cli.formats.jsonfile import dumps, read_json

STAMP = {"tiles": "tileset.json", "model": "model.json", "maps": "items.json"}


def info(*argv: object) -> int:
    return run(["info", *map(str, argv)])


@pytest.fixture
def ask(capsys):
    """Status, stdout and stderr of one `geoml info`."""

    def asked(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = info(*argv)
        out, err = capsys.readouterr()
        return status, out, err

    return asked


@pytest.fixture
def told(ask):
    """What --json says of one file."""

    def one(*argv: object) -> dict:
        status, out, err = ask(*argv, "--json")
        assert (status, err) == (0, ""), err
        [found] = json.loads(out)
        return found

    return one


def test_tiles_are_told_as_they_are(project, told, ask):
    found = told("tiles")
    labels = np.load("tiles/labels-class-00000.npy")
    folds = np.load("tiles/folds-00000.npy")
    assert (found["kind"], found["count"], found["size"], found["stride"]) == ("tiles", 9, 32, 32)
    assert [c["name"] for c in found["classes"]] == list(made.NAMES)
    for one in found["classes"]:
        assert one["count"] == (labels == one["id"]).sum()
        per_fold = {
            f"fold {f}": int(((labels == one["id"]) & (folds == f)).sum()) for f in range(3)
        }
        assert one["count_by_fold"] == per_fold
    assert found["valid"] == pytest.approx(np.load("tiles/valid-image-00000.npy").mean())
    split = {k: found["split"][k] for k in ("kind", "blocks", "buffer", "unit", "folds")}
    assert split == {
        "kind": "blocks", "blocks": [4, 4], "buffer": pytest.approx(20), "unit": "metre",
        "folds": ["fold 0", "fold 1", "fold 2"],
    }  # fmt: skip
    assert sum(found["split"]["tiles"].values()) == 9
    assert [b["name"] for b in found["bands"]] == ["red", "nir"]
    assert found["scenes"][0]["grid"]["crs"] == "EPSG:32633"
    _, text, _ = ask("tiles")
    assert text.startswith("tiles: tiles\n") and "9 of 32 x 32 px" in text
    assert (
        f"{found['classes'][0]['count']:>14}" in text
        and "4 x 4 blocks of ground into 3 folds" in text
    )


def test_a_model_is_told_with_its_contract(project, told, ask):
    found, head = told("model"), read_json("model/model.json")
    for key in ("bands", "classes", "halo", "stride", "window", "members", "best", "gsd_m"):
        assert found[key] == head[key]
    tensors = load_file("model/weights.safetensors")
    moments = ("running", "batches", ".mean", ".std")  # kept with the weights, but not learnt
    learnt = [v.size for k, v in tensors.items() if not any(word in k for word in moments)]
    assert found["parameters"] == sum(learnt)
    assert found["made"]["arguments"]["epochs"] == 3
    _, text, _ = ask("model")
    assert f"halo {head['halo']} px" in text
    for best in head["best"]:
        assert (
            f"member {best['member']}: validation score {best['watch']:.3f} after epoch {best['epoch']}"
            in text
        )


def test_maps_are_told_in_a_folder_and_alone(project, told, ask):
    found = told("maps")
    assert (found["kind"], found["count"], found["out_of_fold"]) == ("predictions", 1, True)
    assert found["items"][0]["assets"]["map"]["shape"] == [96, 80]
    with rasterio.open("map.tif") as dataset:
        values = dataset.read(1)
    alone = told("map.tif")
    assert alone["kind"] == "predictions" and "member_of" not in alone
    assert {c["id"]: c["count"] for c in alone["classes"]} == {
        i: int((values == i).sum()) for i in range(3)
    }
    assert alone["bands"][0]["nodata"] == 255 and alone["storage"]["cog"] is True
    member = told("maps/scene.tif")
    assert member["member_of"] == "maps" and member["made"]["command"] == found["made"]["command"]
    assert told("maps/items.json")["items"] == found["items"] and "member_of" not in told(
        "maps/items.json"
    )
    _, text, _ = ask("maps")
    assert "out of fold" in text and "undated" in text


def test_scores_are_told_with_their_intervals(project, told, ask):
    found, scores = told("scores.json"), read_json("scores.json")
    assert found["metrics"] == scores["metrics"] and found["by_class"] == scores["classes"]
    _, text, _ = ask("scores.json")
    miou = scores["metrics"]["miou"]
    assert f"{miou['value']:.3f} [{miou['lo']:.3f}, {miou['hi']:.3f}]" in text
    assert f"{scores['scored']['n']} samples of labels.gpkg" in text


def test_members_of_any_kind_are_told_by_whose_they_are(project, told):
    assert told("tiles/images-image-00000.npy") == {
        "path": "tiles/images-image-00000.npy", "kind": "array", "member_of": "tiles",
        "shape": [9, 1, 2, 32, 32], "dtype": "uint8",
    }  # fmt: skip
    found = told("model/weights.safetensors")
    assert (found["kind"], found["member_of"]) == ("file", "model")
    ground = told("model/ground.parquet")
    assert ground["member_of"] == "model" and ground["layers"][0]["crs"] == "OGC:CRS84"
    assert ground["layers"][0]["values"]["role"].keys() == {"train", "val", "test"}


def test_a_vector_file_shows_the_columns_that_may_hold_classes(project, told, ask):
    [layer] = told("labels.gpkg")["layers"]
    table = geopandas.read_file("labels.gpkg")
    assert layer["values"]["class"] == table["class"].value_counts().sort_index().to_dict()
    assert (layer["count"], layer["crs"], layer["geometry"]) == (
        len(table),
        "EPSG:32633",
        "Polygon",
    )
    assert layer["bounds"] == pytest.approx(table.total_bounds)
    for name in ("labels.geojson", "labels.parquet", "labels.fgb", "labels.shp"):
        plain = table.to_crs(4326) if name.endswith("geojson") else table
        plain.to_parquet(name) if name.endswith("parquet") else plain.to_file(name)
        again = told(name)["layers"][0]
        assert (again["values"]["class"], again["count"]) == (
            layer["values"]["class"],
            len(table),
        ), name
    assert "class  object: field (" in ask("labels.gpkg")[1]


def test_a_raster_is_told_band_by_band(tmp_path, told, ask):
    path = made.write(
        tmp_path / "a.tif", np.ones((2, 40, 30), np.int16), nodata=-7, names=("B04", "B08")
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (1e-4, 1), (-0.1, 0), ("reflectance", None)
    found = told(path)
    assert found["bands"][0] == {
        "name": "B04", "unit": "reflectance", "scale": 1e-4, "offset": -0.1, "nodata": -7.0,
    }  # fmt: skip
    assert (found["kind"], found["shape"], found["dtypes"], found["mask"]) == (
        "raster",
        [40, 30],
        ["int16"],
        "nodata value",
    )
    assert found["grid"]["gsd_m"] == pytest.approx(10, rel=1e-3) and found["grid"]["pixel"] == [
        10,
        10,
    ]
    assert (
        found["grid"]["lonlat"][:2] == pytest.approx([15.0, 45.15], abs=0.01)
        and "note" not in found
    )
    text = ask(path)[1]
    assert "B04 in reflectance = stored * 0.0001 - 0.1 nodata -7; B08 nodata -7" in text
    assert "EPSG:32633, WGS 84 / UTM zone 33N" in text


def awkward(name: str, path: Path) -> str:
    """Write a raster that no command takes; give the word that says why."""
    data = np.ones((1, 20, 20), np.uint8)
    if name == "nowhere":
        made.write(path, data, crs=None, transform=rasterio.Affine.identity())
        return "no CRS"
    if name == "turned":
        made.write(path, data, transform=rasterio.Affine(8, -6, 5e5, -6, -8, 5e6))
        return "rotated grid"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=20, width=20, dtype="uint8"
    ) as out:
        out.write(data)
        corners = [(0, 0, 10, 50), (0, 20, 11, 50), (20, 0, 10, 49), (20, 20, 11, 49)]
        out.gcps = [GroundControlPoint(r, c, x, y) for r, c, x, y in corners], "EPSG:4326"
    return "ground control points"


@pytest.mark.parametrize("name", ["nowhere", "turned", "points"])
def test_a_raster_that_no_command_takes_is_told_with_the_reason(name, tmp_path, told, ask):
    word = awkward(name, tmp_path / "a.tif")
    assert word in told(tmp_path / "a.tif")["note"]
    status, text, err = ask(tmp_path / "a.tif")
    assert (status, err) == (0, "") and "no command takes it as it is" in text
    if name == "turned":
        assert told(tmp_path / "a.tif")["grid"]["pixel"] == [10, 10]
    assert ask(tmp_path / "a.tif", "--check")[0] == 0
    assert ask(tmp_path / "a.tif", "--picture", tmp_path / "a.png")[0] == 0


def test_a_place_across_the_antimeridian_has_west_beyond_east(tmp_path, told):
    path = made.write(
        tmp_path / "a.tif",
        np.ones((1, 9, 9), np.uint8),
        crs="EPSG:32660",
        transform=from_origin(6.5e5, 7e6, 1e4, 1e4),
    )
    west, south, east, north = told(path)["grid"]["lonlat"]
    assert west > 170 and east < -170 and south < north


def test_items_of_others_are_told_and_none_of_their_rasters_opened(tmp_path, told):
    item = {
        "type": "Feature", "id": "s", "geometry": None, "bbox": [1, 2, 3, 4], "links": [],
        "properties": {"datetime": "2023-01-02T00:00:00Z"},
        "assets": {"red": {
            "href": "https://nowhere.invalid/a.tif", "eo:bands": [{"name": "B04", "common_name": "red", "center_wavelength": 0.665}],
            "proj:code": "EPSG:32633", "proj:transform": [10, 0, 5e5, 0, -10, 5e6], "proj:shape": [7, 8],
        }, "odd": {"href": "b.tif", "proj:code": "EPSG:1", "proj:transform": [1], "proj:shape": [1]}},
    }  # fmt: skip
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item]})
    )
    for path in (tmp_path, tmp_path / "items.json"):
        found = told(path)
        assert (found["kind"], found["count"], found["dates"]) == (
            "items",
            1,
            ["2023-01-02T00:00:00Z"] * 2,
        )
        red = found["items"][0]["assets"]["red"]
        assert red["bands"] == [{"name": "B04", "common_name": "red", "wavelength_nm": 665.0}]
        assert red["shape"] == [7, 8] and red["grid"]["crs"] == "EPSG:32633"


UNREADABLE = [
    ("gone.tif", None, "no such file or folder"),
    ("empty.tif", b"", "is empty (zero bytes)"),
    ("text.txt", b"hello", "no raster or vector file that can be read"),
    ("torn.json", b'{"a": ', "damaged JSON"),
    ("torn.npy", b"\x93NUMPY", "not readable as an array"),
    ("folder", "folder", "holds no artifact of geoml's"),
    ("later.json", b'{"geoml": {"format": 99}}', "written by a later geoml"),
]


@pytest.mark.parametrize(("name", "content", "says"), UNREADABLE, ids=[u[0] for u in UNREADABLE])
@pytest.mark.parametrize("option", [(), ("--check",), ("--why",)], ids=str)
def test_what_cannot_be_read_is_one_line_and_status_1(name, content, says, option, tmp_path, ask):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    status, out, err = ask(path, *option)
    assert status == 1 and err.count("\n") + out.count("\n") <= 2 and str(path) in out + err
    assert "fault in geoml" not in err
    if option != ("--why",):
        assert says in out + err


def test_of_several_files_the_good_ones_are_told(project, ask):
    status, out, err = ask("scene.tif", "gone.tif", "labels.gpkg")
    assert (
        status == 1 and out.startswith("scene.tif: raster\n") and "\n\nlabels.gpkg: vector\n" in out
    )
    assert err.splitlines() == [
        "geoml: error: gone.tif: no such file or folder",
        "geoml: info: gone.tif: could not be looked at",
    ]


def test_names_come_from_stdin_too(project, ask, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("scene.tif\nmodel\n"))
    status, out, _ = ask("-", "--ndjson")
    assert status == 0 and [json.loads(line)["kind"] for line in out.splitlines()] == [
        "raster",
        "model",
    ]


def test_a_part_folder_is_unfinished(project, ask):
    shutil.copytree("tiles", ".tiles.part")
    (project / ".tiles.part/.part.json").write_text("{}")
    status, _, err = ask(".tiles.part")
    assert status == 1 and ".tiles.part: unfinished" in err


# --check


def restamp(folder: str) -> None:
    """Make a stamp agree with what lies there: only the content can give it away."""
    stamp = Path(folder) / STAMP[folder]
    head = read_json(stamp)
    for name in head["geoml"]["members"]:
        head["geoml"]["members"][name] = sha256_file(Path(folder) / name)
    stamp.write_text(dumps(head))


def edit(path: str, change) -> None:
    head = read_json(path)
    change(head)
    Path(path).write_text(dumps(head))


def test_what_was_written_is_whole(project, ask):
    names = ["tiles", "model", "maps", "map.tif", "scores.json", "tiles/index.parquet"]
    assert ask(*names, "--check") == (0, "".join(f"{name}: whole\n" for name in names), "")
    status, out, _ = ask("scene.tif", "labels.gpkg", "--check")
    assert status == 0 and out.count("reads to its end; it has no stamp") == 2


@pytest.mark.parametrize(
    "name",
    [
        "tiles/images-image-00000.npy",
        "tiles/index.parquet",
        "model/weights.safetensors",
        "model/curves.png",
        "maps/scene.tif",
        "maps/ground.parquet",
    ],
)
def test_one_bit_is_found(name, project, ask):
    path = project / name
    data, seen = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    folder = name.split("/")[0]
    status, out, err = ask(folder, "--check")
    assert (status, out) == (
        1,
        f"{folder}/{name.split('/')[1]}: changed or damaged (its sha256 is not the stamp's)\n",
    )
    assert err == f"geoml: info: {folder}: damaged\n"
    assert ask(name, "--check")[:2] == (1, out)
    path.unlink()
    assert ask(folder, "--check")[1] == f"{name}: missing\n"
    assert json.loads(ask(folder, "--check", "--json")[1])[0]["damage"] == [f"{name}: missing"]


def array(name: str, change) -> None:
    np.save(f"tiles/{name}-00000.npy", change(np.load(f"tiles/{name}-00000.npy")))


def strange_label(a):
    a[0, 0, 0] = 9
    return a


def spoil_weights(change) -> None:
    path = "model/weights.safetensors"
    tensors = {k: np.array(v) for k, v in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def nan_weight(tensors) -> None:
    tensors["1.sensors.0.mean"][:] = np.nan


LIES = [
    ("tiles", lambda: array("images-image", lambda a: a[:-1]), "images-image-00000.npy: shape (8, 1, 2, 32, 32), not (9,"),
    ("tiles", lambda: array("images-image", lambda a: a.astype(np.int16)), "int16, not uint8"),
    ("tiles", lambda: array("labels-class", lambda a: a[:, :-1]), "labels-class-00000.npy: shape"),
    ("tiles", lambda: array("labels-class", strange_label), "holds 9, which is no class"),
    ("tiles", lambda: array("folds", lambda a: a + 3), "holds fold 5 of 3"),
    ("tiles", lambda: edit("tiles/tileset.json", lambda j: j.update(count=10)), "index.parquet: 9 rows, 10 in tileset.json"),
    ("tiles", lambda: edit("tiles/tileset.json", lambda j: j.pop("sensors")), "damaged (KeyError('sensors'))"),
    ("model", lambda: spoil_weights(nan_weight), "weights of member 1 are missing or not finite"),
    ("model", lambda: spoil_weights(lambda t: [t.pop(k) for k in list(t) if k[0] == "2"]), "weights of member 2"),
    ("model", lambda: spoil_weights(lambda t: t.pop("0.sensors.0.mean")), "do not fit the network of member 0"),
    ("model", lambda: Path("model/history.jsonl").write_text("{"), "history.jsonl: damaged"),
    ("maps", lambda: shutil.copy("map.tif", "maps/scene.tif"), "its checksum is not the one in maps/items.json"),
    ("maps", lambda: edit("maps/items.json", lambda j: j["features"][0]["assets"]["map"].update({"proj:shape": [9, 9]})), "lies elsewhere than"),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "spoil", "says"), LIES, ids=[says for *_, says in LIES])
def test_what_does_not_agree_is_found_behind_a_good_stamp(folder, spoil, says, project, ask):
    spoil()
    restamp(folder)
    status, out, err = ask(folder, "--check")
    assert status == 1 and says in out and out.count("\n") == 1, out
    assert err == f"geoml: info: {folder}: damaged\n"


def test_an_edited_record_and_edited_scores_are_found(project, ask):
    edit("model/model.json", lambda j: j["geoml"]["arguments"].update(epochs=99))
    assert "model/model.json: its record has been changed" in ask("model", "--check")[1]
    edit("scores.json", lambda j: j["confusion"]["matrix"][0].__setitem__(0, 10**6))
    assert "samples in the confusion matrix" in ask("scores.json", "--check")[1]


def test_a_truncated_cog_without_a_stamp_does_not_pass(project, ask):
    source = Path("map.tif").read_bytes()
    Path("cut.tif").write_bytes(source[:-300])
    status, out, err = ask("cut.tif", "--check")
    assert status == 1 and "cut.tif" in out


# --why


def test_the_chain_is_told_oldest_first(project, ask, told):
    status, out, err = ask("scores.json", "--why")
    assert (status, err) == (0, "")
    heads = [line for line in out.splitlines() if line.startswith("# ") and line[2] != " "]
    assert heads == [f"# {name}: up to date" for name in ("tiles", "model", "maps", "scores.json")]
    steps = told("scores.json", "--why")["why"]
    assert [s["verb"] for s in steps] == ["tile", "train", "predict", "evaluate"]
    assert [(i["path"], i["role"], i["state"]) for i in steps[0]["inputs"]] == [
        ("scene.tif", "scene", "unchanged"), ("labels.gpkg", "labels", "unchanged"),
    ]  # fmt: skip
    assert not any(s["stale"] for s in steps)


def test_a_chain_is_a_script_that_makes_the_same_again(project, ask, tmp_path):
    """Run in a folder with the sources alone, it gives every artifact to the byte."""
    score = [
        "--truth",
        "labels.gpkg",
        "--label-column",
        "class",
        "--bootstrap",
        "50",
        "--report",
        "page.html",
    ]
    assert run(["evaluate", "maps", *score, "-o", "paged.json"]) == 0
    script = ask("paged.json", "map.tif", "--why")[1]
    assert script.count("geoml train") == 1  # told once
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for name in ("scene.tif", "labels.gpkg"):
        shutil.copy(name, fresh)
    os.chdir(fresh)
    (fresh / "chain.sh").write_text(script)
    lines = subprocess.run(
        ["bash", "-c", 'geoml() { printf "%q " "$@"; echo; }; . ./chain.sh'],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in lines.stdout.splitlines():
        assert run(shlex.split(line)) == 0, line
    for name in ("tiles", "model", "maps"):
        assert made.content(fresh / name) == made.content(project / name), name
    for name in ("map.tif", "paged.json", "page.html"):
        assert (fresh / name).read_bytes() == (project / name).read_bytes(), name


def test_what_changed_makes_all_that_follows_stale(project, ask, told):
    table = geopandas.read_file("labels.gpkg")
    table.iloc[1:].to_file("labels.gpkg")
    status, out, _ = ask("maps", "--why")
    assert status == 0  # to be stale is no mistake
    assert [line for line in out.splitlines() if line.startswith("# ") and line[2] != " "] == [
        "# tiles: stale: labels.gpkg is changed",
        "# model: stale: tiles/tileset.json is stale",
        "# maps: stale: model/model.json is stale",
    ]
    assert [s["stale"] for s in told("maps", "--why")["why"]] == [True] * 3
    assert ask("maps", "--why", "--check")[0] == 1 and ask("maps", "--check")[0] == 0
    os.utime("scene.tif")
    assert "unchanged     scene    scene.tif" in out  # touched is not changed


def test_what_is_gone_is_missing(project, ask):
    shutil.rmtree("tiles")
    status, out, _ = ask("map.tif", "--why")
    assert status == 0 and out.startswith("# model: stale: tiles/tileset.json is missing\n")
    assert "missing       tiles    tiles/tileset.json" in out


def test_a_damaged_link_of_the_chain_is_a_changed_one(project, ask):
    Path("tiles/tileset.json").write_text("{")
    status, out, _ = ask("map.tif", "--why")
    assert status == 0 and "# model: stale: tiles/tileset.json is changed" in out


def test_a_moved_project_keeps_its_chain_from_wherever_it_is_asked(
    project, ask, tmp_path, monkeypatch
):
    (tmp_path / "else where").mkdir()
    shutil.move(project, tmp_path / "else where/moved")
    monkeypatch.chdir(tmp_path / "else where")
    status, out, _ = ask("moved/maps/scene.tif", "--why")  # a member leads to its folder
    assert status == 0 and out.count("up to date") == 3 and "-o moved/maps\n" in out
    monkeypatch.chdir("moved/model")
    status, out, _ = ask("../maps", "--why")
    assert out.count("up to date") == 3 and "geoml train ../tiles" in out
    monkeypatch.chdir("/")
    out = ask(tmp_path / "else where/moved/model", "--why")[1]
    word = next(
        w for w in shlex.split(out.replace("\\\n", ""), comments=True) if w.endswith("moved/tiles")
    )
    assert (Path("/") / word).samefile(tmp_path / "else where/moved/tiles")


def test_a_chain_goes_back_to_a_catalog(project, ask, told):
    assert run(["predict", "scene.tif", "--model", "model", "-o", "aside", "--device", "cpu"]) == 0
    catalog = read_json("aside/items.json")  # any items will do for a catalog
    catalog.pop("geoml")
    for item in catalog["features"]:
        item["properties"] = {"datetime": "2023-05-01T00:00:00Z"}
        item["assets"]["data"] = item["assets"].pop("map") | {"href": "../scene.tif"}
    os.mkdir("catalog")
    Path("catalog/items.json").write_text(json.dumps(catalog))
    asked = ["--bbox", "14.9,45.0,15.0051234567,45.2", "--datetime", "2023-05", "--bands", "data"]
    assert run(["fetch", "catalog/items.json", *asked, "-o", "scenes"]) == 0
    assert run(["tile", "scenes", "--size", "32", "-o", "plain"]) == 0
    found = told("plain", "--why")["why"]
    assert [step["verb"] for step in found] == ["fetch", "tile"]
    assert [i["state"] for i in found[0]["inputs"]] == ["unchanged"] * 2
    before = made.content(project / "scenes")
    shutil.rmtree("scenes")
    assert run(found[0]["command"][1:]) == 0
    assert made.content(project / "scenes") == before
    assert told("scenes")["items"][0]["datetime"] == "2023-05-01T00:00:00Z"


def test_a_part_of_ones_own_is_in_the_chain(project, told):
    head = "from geoml_cli.heads.unet import build as known\nimport torch\n\n\ndef build(channels: list, strides: list, outputs: int, *, width: int = 8) -> torch.nn.Module:\n    return known(channels, strides, outputs)\n"
    Path("mine.py").write_text('"""A head."""\n\n' + head)
    fit = ["--encoder", "unet:width=4,depth=1", "--head", "./mine.py:width=4", "--epochs", "1"]
    assert run(["train", "tiles", *fit, "--device", "cpu", "-o", "own"]) == 0
    steps = told("own", "--why")["why"]
    command = steps[-1]["command"]
    assert command[command.index("--head") + 1] == "./mine.py:width=4"
    assert told("own", "--check")["damage"] == []
    before = made.content(project / "own")
    shutil.rmtree("own")
    assert run(command[1:]) == 0 and made.content(project / "own") == before


def test_nothing_is_known_of_a_file_of_others(project, ask):
    status, out, err = ask("scene.tif", "--why")
    assert (status, out) == (1, "") and err.count("\n") == 1 and "not known what made it" in err


# --picture


def picture(path: str) -> np.ndarray:
    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.uint8)


def share(image: np.ndarray, color: str) -> float:
    return (image == list(bytes.fromhex(color[1:]))).all(axis=-1).mean()


def test_a_map_is_drawn_in_the_colours_of_its_classes(project, ask, told):
    assert ask("map.tif", "--picture", "out.png") == (0, "out.png\n", "")
    image = picture("out.png")
    classes = told("map.tif")["classes"]
    total = sum(c["count"] for c in classes)
    shares = np.array([share(image, c["color"]) for c in classes])
    assert shares.sum() > 0.4  # most of the picture is map
    np.testing.assert_allclose(
        shares / shares.sum(), [c["count"] / total for c in classes], atol=0.02
    )


@pytest.mark.parametrize("name", ["map.tif", pytest.param("maps", marks=pytest.mark.slow), "scene.tif", "tiles", "model"])  # fmt: skip
def test_equal_content_gives_equal_pictures(name, project, ask):
    assert ask(name, "--picture", "a.png")[0] == 0
    before = Path("a.png").read_bytes()
    assert ask(name, "--picture", "a.png")[0] == 0  # ours: replaced without --force
    assert ask(name, "--picture", "b.png")[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() == before
    assert picture("a.png").std() > 5
    assert not list(project.glob(".*"))


def test_red_is_red_by_its_name(tmp_path, ask):
    data = np.zeros((4, 60, 60), np.uint16)
    data[3, :30], data[0, 30:] = 9000, 3000  # the band called red is the last one
    data[1], data[2] = np.arange(60) * 9, 77
    made.write(tmp_path / "a.tif", data, names=("blue", "nir", "green", "red"))
    assert ask(tmp_path / "a.tif", "--picture", tmp_path / "a.png")[0] == 0
    image = picture(tmp_path / "a.png")
    assert share(image, "#ff0000") > 0.15 and share(image, "#0000ff") > 0.15


def test_a_map_of_values_has_a_bar_that_says_what_its_colours_mean(tmp_path, ask):
    from geoml_cli.stages.picture import figure_of

    values = np.linspace(-3, 9, 200, dtype=np.float32).repeat(100).reshape(1, 200, 100)
    values[0, 0, 0] = 3e5  # one odd pixel does not set the colours
    values[:, 100:] = -9999
    path = made.write(tmp_path / "a.tif", values, nodata=-9999, names=("height",))
    with rasterio.open(path, "r+") as file:
        file.units, file.scales, file.offsets = ["m"], [0.1], [100]
    figure = figure_of(str(path))
    map_, bar = figure.axes
    known = values[:, :100] * 0.1 + 100
    assert bar.get_ylabel() == "height (m)"
    assert map_.images[0].get_clim() == pytest.approx(np.percentile(known, [2, 98]), abs=1e-4)
    assert map_.images[0].get_array().mask.mean() == 0.5
    assert ask(path, "--picture", tmp_path / "a.png")[0] == 0
    values[:, 100:] = np.finfo("f4").min  # as some write it, and do not say so
    far = np.where(values < -1e30, -1.79e308, values.astype(np.float64))
    made.write(tmp_path / "b.tif", far, names=("height",))
    assert ask(tmp_path / "b.tif", "--picture", tmp_path / "b.png")[0] == 0


def test_assets_called_red_green_and_blue_make_one_picture(project, ask):
    scene = rasterio.open("scene.tif").read()
    os.mkdir("sentinel")
    assets = {}
    for key, level in [("red", 200), ("green", 100), ("blue", 50)]:
        ramp = np.linspace(0, level, 96 * 80).reshape(1, 96, 80).astype(np.uint8)
        made.write(
            Path(f"sentinel/{key}.tif"), ramp if key == "red" else 0 * ramp + level, names=("B1",)
        )
        assets[key] = {"href": f"./{key}.tif", "type": "image/tiff"}
    item = {
        "type": "Feature",
        "id": "s",
        "geometry": None,
        "properties": {"datetime": None},
        "links": [],
        "assets": assets,
    }
    Path("sentinel/items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item]})
    )
    assert ask("sentinel", "--picture", "s.png")[0] == 0
    image = picture("s.png")
    assert share(image, "#ff0000") > 0.005 and scene.any()
    assert not ((image[..., 1] > 250) & (image[..., 0] < 100)).any()


def test_a_picture_replaces_no_file_of_others(project, ask):
    made_by_others = b"\x89PNG\r\n\x1a\n of mine"
    Path("mine.png").write_bytes(made_by_others)
    status, _, err = ask("map.tif", "--picture", "mine.png")
    assert status == 1 and "mine.png: exists and is no picture of geoml's" in err
    assert Path("mine.png").read_bytes() == made_by_others
    assert ask("map.tif", "--picture", "mine.png", "--force")[0] == 0 and picture("mine.png").any()


def test_pictures_that_cannot_be(project, ask):
    assert ask("map.tif", "--picture", "a.jpg")[0] == 2
    assert ask("map.tif", "maps", "--picture", "a.png")[0] == 2
    for name in ("labels.gpkg", "scores.json", "gone.tif"):
        status, _, err = ask(name, "--picture", "a.png")
        assert status == 1 and err.count("\n") == 1 and name in err
    status, _, err = ask("map.tif", "--picture", "nowhere/a.png")
    assert status == 1 and "no such file" in err and err.count("\n") == 1
    assert not list(project.glob("*.png"))


@pytest.mark.slow
def test_pictures_need_no_display_and_no_global_state(project):
    code = (
        "import sys; from geoml_cli.cli import run; status = run(sys.argv[1:]);"
        "print(status, 'matplotlib.pyplot' in sys.modules)"
    )
    argv = ["info", "map.tif", "--picture", "a.png"]
    got = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert got.stdout == "a.png\n0 False\n", got.stderr


def test_info_writes_nothing(project, ask):
    before = made.content(project)
    times = {p: p.stat().st_mtime_ns for p in project.rglob("*")}
    ask("tiles", "model", "maps", "map.tif", "scene.tif", "labels.gpkg", "scores.json")
    ask("tiles", "model", "maps", "map.tif", "--check", "--why")
    assert made.content(project) == before
    assert {p: p.stat().st_mtime_ns for p in project.rglob("*")} == times
