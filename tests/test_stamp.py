"""Artifacts that are damaged, foreign, of a later format, or that point elsewhere: one clear line each."""

import json
import os
import shutil
from pathlib import Path

import made
import numpy as np
import pytest
import served
from safetensors.numpy import load_file, save_file

from geoml_cli.cli import run
from geoml_cli.errors import GeomlError, TryLater
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Layout, save_cog
from geoml_cli.formats.commit import exchange, put_folder, whole_file
from geoml_cli.formats.digest import sha256_file
from geoml_cli.formats.jsonfile import canonical, dumps, read_json
from geoml_cli.formats.model import read_model
from geoml_cli.formats.stamp import (
    FORMAT,
    Input,
    damage,
    fingerprint,
    member_path,
    read_record,
    read_stamp,
    record,
)
from geoml_cli.formats.tileset import read_tileset
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.inputs import digest_source

OPEN = {"tiles": read_tileset, "model": read_model}
STAMP = {"tiles": "tileset.json", "model": "model.json"}
MEMBER = {"tiles": "images-image-00000.npy", "model": "weights.safetensors"}


def edit(path: Path, change) -> None:
    content = read_json(path)
    change(content)
    path.write_text(dumps(content))


def complaint(kind: str) -> str:
    """What opening an artifact says: always one line that starts with a path."""
    with pytest.raises(GeomlError) as caught:
        OPEN[kind](kind)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(kind)
    return said


def test_what_a_command_wrote_is_whole(project):
    for kind, name in [
        ("tiles", "tile"),
        ("model", "train"),
        ("maps", "predict"),
        ("scores.json", "evaluate"),
    ]:
        found = read_record(kind)
        assert found and found["verb"] == name and damage(kind, read_again=True) == []
        assert found["fingerprint"] == fingerprint(
            found["verb"], found["arguments"], [Input(**i) for i in found["inputs"]]
        )
    for kind in OPEN:
        assert OPEN[kind](kind).folder == Path(kind)
        assert OPEN[kind](f"{kind}/{STAMP[kind]}").folder == Path(kind)
    assert read_record("map.tif")["arguments"]["out_of_fold"] is False


@pytest.mark.parametrize("kind", OPEN)
def test_a_stamp_of_damaged_json(kind, project):
    stamp = project / kind / STAMP[kind]
    stamp.write_text(stamp.read_text()[:-40])
    assert f"{kind}/{STAMP[kind]}: damaged JSON" in complaint(kind)


@pytest.mark.parametrize("kind", OPEN)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda j: j.pop("geoml"),
        lambda j: j.update(geoml="yes"),
        lambda j: j["geoml"].pop("format"),
        lambda j: j["geoml"].update(format="1"),
        lambda j: j["geoml"].pop("fingerprint"),
        lambda j: j["geoml"].update(inputs={}),
        lambda j: j["geoml"].update(members=["a"]),
    ],
)
def test_a_damaged_record(kind, spoil, project):
    edit(project / kind / STAMP[kind], spoil)
    said = complaint(kind)
    assert STAMP[kind] in said and ("damaged" in said or "not a file of geoml's" in said)


@pytest.mark.parametrize("kind", OPEN)
def test_a_later_format_asks_for_an_update(kind, project):
    edit(project / kind / STAMP[kind], lambda j: j.update(geoml={"format": FORMAT + 1, "new": 1}))
    said = complaint(kind)
    assert (
        f"written by a later geoml (format {FORMAT + 1}, this one reads {FORMAT}); update geoml"
        in said
    )
    with pytest.raises(GeomlError, match="later geoml"):
        read_record(kind)
    with pytest.raises(GeomlError, match="later geoml"):
        damage(kind)


@pytest.mark.parametrize("kind", OPEN)
def test_a_member_that_is_missing_cut_or_changed(kind, project):
    path = project / kind / MEMBER[kind]
    whole, seen = path.read_bytes(), path.stat()
    path.write_bytes(whole[:-1])
    assert f"{kind}/{MEMBER[kind]}: changed or damaged" in complaint(kind)
    path.unlink()
    assert f"{kind}/{MEMBER[kind]}: missing" in complaint(kind)
    path.mkdir()
    assert f"{kind}/{MEMBER[kind]}: missing" in complaint(kind)
    path.rmdir()
    path.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))  # same size, same time
    assert f"{kind}/{MEMBER[kind]}: changed or damaged" in complaint(kind)


def test_reading_again_does_not_trust_the_cache(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("good")
    head = {
        "geoml": record("tile", "tiles", {}, []) | {"members": {"a": sha256_file(tmp_path / "a")}}
    }
    (tmp_path / "tileset.json").write_text(dumps(head))
    monkeypatch.setattr(
        "geoml_cli.formats.stamp.digest_file", lambda path: head["geoml"]["members"]["a"]
    )
    (tmp_path / "a").write_text("evil")
    assert damage(tmp_path) == []
    assert damage(tmp_path, read_again=True) == [
        f"{tmp_path}/a: changed or damaged (its sha256 is not the stamp's)"
    ]


OUTSIDE = ["../labels.gpkg", "/etc/passwd", "a/../../labels.gpkg", "", "..", "a\\..\\b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_member_that_leads_outside_is_refused(name, project):
    with pytest.raises(GeomlError, match="points outside the folder"):
        member_path(Path("tiles"), name)
    edit(project / "tiles/tileset.json", lambda j: j["geoml"]["members"].update({name: "0" * 64}))
    assert "points outside the folder" in complaint("tiles")


@pytest.mark.parametrize("through", ["file", "folder"])
def test_a_link_that_leads_outside_is_refused(through, project):
    if through == "file":
        path = project / "tiles" / MEMBER["tiles"]
        shutil.move(path, project / "elsewhere.npy")
        path.symlink_to(project / "elsewhere.npy")  # the same bytes, but not in the folder
    else:
        (project / "far").mkdir()
        (project / "far/x").write_text("x")
        (project / "tiles/in").symlink_to(project / "far")
        digest = sha256_file(project / "far/x")
        edit(
            project / "tiles/tileset.json", lambda j: j["geoml"]["members"].update({"in/x": digest})
        )
    assert "points outside the folder" in complaint("tiles")


def test_foreign_files_and_folders_are_not_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    (tmp_path / "folder/items.json").write_text('{"type": "FeatureCollection", "features": []}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "not.tif").write_text("text")
    (tmp_path / "not.parquet").write_text("text")
    made.write(tmp_path / "plain.tif", np.ones((1, 4, 4), np.uint8))
    for name in ("folder", "list.json", "not.tif", "not.parquet", "plain.tif", "gone.tif", "gone"):
        assert read_record(name) is None, name
        assert damage(name) == []
    for name, says in [
        ("folder", "folder: holds no tileset.json"),
        ("gone", "gone: no such folder"),
    ]:
        with pytest.raises(GeomlError, match=f"{says}; `geoml tile` writes one"):
            read_stamp(name, "tileset.json", "tile")


@pytest.mark.parametrize("suffix", ["tif", "TIF", "tiff"])
@pytest.mark.parametrize("tag", ['{"format": 99, "kind": "x"}', '{"format": 1}', "[]", "{", None])
def test_the_record_in_the_tag_of_a_geotiff(tag, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    good = record("predict", "predictions", {"a": 1}, [])
    text = canonical(good).decode() if tag is None else tag
    grid = Grid("EPSG:32633", made.from_origin(0, 0, 1, 1), 4, 4)
    save_cog(
        path,
        np.ones((1, 4, 4), np.uint8),
        Layout(grid, (Band("a"),), "uint8", tags={"GEOML": text}),
    )
    if tag is None:
        assert read_record(path) == good
    elif tag == "{":
        assert read_record(path) is None
    else:
        with pytest.raises(GeomlError, match=f"a.{suffix}: .*(later geoml|record is damaged)"):
            read_record(path)


def test_a_command_says_in_one_line_what_is_wrong_with_its_input(project, capsys):
    weights = project / "model/weights.safetensors"
    tensors = load_file(weights)
    save_file({k: v * 1.001 if v.dtype == np.float32 else v for k, v in tensors.items()}, weights)
    capsys.readouterr()
    assert run(["predict", "scene.tif", "--model", "model", "-o", "again"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("geoml: predict: model/weights.safetensors: changed or damaged")
    assert not (project / "again").exists() and not list(project.glob(".again*"))


def test_a_fingerprint_is_of_content_alone():
    one = [Input("a.tif", "scene", "d1"), Input("b.gpkg", "labels", "d2")]
    base = fingerprint("tile", {"size": 1, "seed": 0}, one)
    assert base == fingerprint(
        "tile", {"seed": 0, "size": 1}, [Input("/x/y.tif", "scene", "d1"), one[1]]
    )
    others = [
        fingerprint("train", {"size": 1, "seed": 0}, one),
        fingerprint("tile", {"size": 2, "seed": 0}, one),
        fingerprint("tile", {"size": 1, "seed": 0}, one[::-1]),
        fingerprint("tile", {"size": 1, "seed": 0}, one[:1]),
        fingerprint("tile", {"size": 1, "seed": 0}, [Input("a.tif", "scene", "d2"), one[1]]),
        fingerprint("tile", {"size": 1, "seed": 0}, [Input("a.tif", "labels", "d1"), one[1]]),
    ]
    assert len({base, *others}) == 7 and len(base) == 64


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with whole_file(path) as temporary:
        temporary.write_text("new")
        os.chmod(temporary, 0o600)  # as some libraries leave it
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("kernel", [True, False], ids=["exchange", "two renames"])
def test_folders_change_places(kernel, tmp_path, monkeypatch):
    if not kernel:
        monkeypatch.setattr("geoml_cli.formats.commit.ctypes.CDLL", lambda *_, **__: object())
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / n / "x").read_text() for n in "ab"] == ["b", "a"]
    put_folder(tmp_path / "b", tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a/x").read_text() == "a"
    (tmp_path / "c").mkdir()
    (tmp_path / "file").write_text("in the way")
    put_folder(tmp_path / "c", tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["a", "file"] and (tmp_path / "file").is_dir()


def test_a_record_holds_relative_paths_alone(project):
    for name in ("tiles/tileset.json", "model/model.json", "maps/items.json", "scores.json"):
        text = (project / name).read_text()
        assert (
            str(project.parent) not in text
            and "/tmp" not in text
            and os.uname().nodename not in text
        )
        inputs = json.loads(text)["geoml"]["inputs"]
        folder = (project / name).parent
        assert all((folder / i["path"]).is_file() for i in inputs) and inputs


def test_a_damaged_folder_of_rasters_is_refused_before_any_work(project, capsys):
    path = project / "maps/scene.tif"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for verb in (["tile", "maps", "--size", "32"], ["tile", "maps/items.json", "--size", "32"]):
        capsys.readouterr()
        assert run([*verb, "-o", "out"]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("geoml: tile: maps/scene.tif: changed or damaged")
        assert not (project / "out").exists()


def test_the_digest_of_a_remote_raster_is_of_its_version_not_of_the_moment(tmp_path, monkeypatch):
    monkeypatch.setattr("geoml_cli.formats.web.BACK_OFF", lambda _: 0)
    made.write(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint8))
    with served.serving(tmp_path) as server:
        one = digest_source(f"{server.url}/a.tif?sig=1")
        assert digest_source(f"{server.url}/a.tif?sig=2") == one  # a signature is no content
        server.rule = lambda path, span: 503
        with pytest.raises(TryLater, match="a.tif: the server fails"):
            digest_source(f"{server.url}/a.tif")
        server.rule = lambda path, span: 403
        with pytest.raises(GeomlError, match="a.tif: may not be read"):
            digest_source(f"{server.url}/a.tif?sig=secret")
        server.rule = None
        made.write(tmp_path / "a.tif", np.zeros((1, 4, 4), np.uint8))
        assert digest_source(f"{server.url}/a.tif") != one
