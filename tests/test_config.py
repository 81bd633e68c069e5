"""`--config` and `--print-config`: options of any verb in a TOML file, under the names of the flags."""

import tomllib
from pathlib import Path

import made
import pytest

from geoml_cli.cli import COMMANDS, run
from geoml_cli.config import as_toml, read_config
from geoml_cli.errors import UsageMistake
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.program import program, surface_of

VERBS = [verb for verb in COMMANDS if verb != "help"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.scene(tmp_path)
    return tmp_path


def config(text):
    Path("run.toml").write_text(text)
    return ["--config", "run.toml"]


TILE = """
inputs = ["scene.tif"]
out = "tiles/"
labels = "labels.gpkg"
label-column = "class"
[tile]
size = 32
buffer = 2
[train]
epochs = 3
"""


def test_a_file_is_as_good_as_the_command_line(here):
    words = ["--labels", "labels.gpkg", "--label-column", "class", "--size", "32", "--buffer", "2"]
    assert run(["tile", "scene.tif", *words, "-o", "plain/"]) == 0
    assert run(["tile", *config(TILE)]) == 0
    assert made.content(here / "plain") == made.content(here / "tiles")


def test_the_command_line_wins(here):
    assert run(["tile", *config(TILE), "--size", "16"]) == 0
    assert read_json("tiles/tileset.json")["size"] == 16


def test_what_is_printed_is_the_same_run_again(here, capsys):
    words = ["scene.tif", "--labels", "labels.gpkg", "--label-column", "class", "--size", "16"]
    assert run(["tile", *words, "--stride", "8", "-o", "tiles/", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed)["stride"] == "8" and not Path("tiles").exists()
    assert run(["tile", *config(printed)]) == 0
    first = read_json("tiles/tileset.json")["geoml"]["fingerprint"]
    assert run(["tile", *words, "--stride", "8", "-o", "again/"]) == 0
    assert read_json("again/tileset.json")["geoml"]["fingerprint"] == first


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_and_prints_one(verb):
    surface = surface_of(program(verb))
    assert {"config", "print_config"} <= {given.name for given in surface}
    values = {
        given.parameter: ["a", "b"] if given.many else "x" for given in surface if given.value
    }
    again = tomllib.loads(as_toml(surface, values))
    assert len(again) == len([g for g in surface if g.value and g.name != "config"])


@pytest.mark.parametrize(
    "text, status, words",
    [
        ("epocs = 3", 2, ["epocs", "did you mean epochs?"]),
        ("epochs = 'many'", 2, ["run.toml", "--epochs", "integer"]),
        ("compile = 'yes'", 2, ["run.toml", "compile", "true or false"]),
        ("config = 'other.toml'", 2, ["config"]),
        ("epochs = [", 1, ["run.toml", "no TOML"]),
        ("[trian]\nepochs = 3", 2, ["trian"]),
    ],
)
def test_a_wrong_file_is_one_line(here, capsys, text, status, words):
    assert run(["train", "tiles/", "-o", "m/", *config(text)]) == status
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(word in line for word in words), line


def test_names_may_be_written_either_way_and_lists_are_lists(here):
    surface = surface_of(program("train"))
    config("class_weights = 'none'\nlayer = ['a', 'b']\ncodes = ['place', 'season']\nlr = 1e-3\n")
    found = read_config("run.toml", "train", VERBS, surface)
    assert found == {
        "class_weights": "none",
        "layer": ["a", "b"],
        "codes": "place,season",
        "lr": "0.001",
    }
    config("[train]\nlr = {peak = 1}\n")
    with pytest.raises(UsageMistake, match="is a table"):
        read_config("run.toml", "train", VERBS, surface)
