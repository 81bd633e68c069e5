"""What `geoml evaluate` writes and when: scores, the report, stdout."""

import json
import os
from base64 import b64decode
from collections import Counter
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import scored
from matplotlib.image import imread
from scored import (
    COLUMN,
    GRID,
    NAMES,
    evaluate,
    folder_of,
    line_of,
    lonlat_box,
    save,
    scores_of,
)

from geoml_cli.formats.jsonfile import dumps
from geoml_cli.geo.classes import legend

scene = scored.scene


def test_without_o_the_json_is_on_stdout_and_nothing_is_written(scene, capsys, monkeypatch):
    before = set(scene["path"].iterdir())
    evaluate("map.tif", "--truth", "check.gpkg", *COLUMN)
    text = capsys.readouterr().out
    scores = json.loads(text)
    assert set(scores) == {"metrics", "classes", "confusion", "scored", "geoml"}
    assert text == dumps(scores)
    evaluate("map.tif", "--truth", "check.gpkg", *COLUMN, "--ndjson")
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and json.loads(line) == scores
    assert set(scene["path"].iterdir()) == before
    monkeypatch.setattr("sys.stdin", StringIO("map.tif\n"))
    evaluate("-", "--truth", "check.gpkg", *COLUMN, "--ndjson")
    piped = json.loads(capsys.readouterr().out)
    assert piped["metrics"] == scores["metrics"]


def test_items_on_stdin_are_maps_too(scene, capsys, monkeypatch):
    folder_of(
        scene["path"] / "maps", {"a": (scene["guess"], GRID)}, [("train", lonlat_box(0, 0, 96, 40))]
    )
    direct = scores_of("maps", "--truth", "check.gpkg", *COLUMN)
    item = json.loads(Path("maps/items.json").read_text())["features"][0]
    item["assets"]["map"]["href"] = "maps/a.tif"
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(item) + "\n"))
    capsys.readouterr()
    evaluate("-", "--truth", "check.gpkg", *COLUMN)
    piped = json.loads(capsys.readouterr().out)
    assert piped["scored"] == direct["scored"] and piped["confusion"] == direct["confusion"]


def test_reruns_are_byte_equal_and_up_to_date(scene, capsys):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html", "-o", "s.json"]
    evaluate(*argv, "--depfile", "s.d")
    assert capsys.readouterr().out.splitlines() == ["s.json", "r.html"]
    assert Path("s.d").read_text().splitlines()[0] == "s.json: check.gpkg map.tif"
    files = {p: Path(p).read_bytes() for p in ("s.json", "r.html")}
    times = {p: os.stat(p).st_mtime_ns for p in files}
    evaluate(*argv)
    assert {p: os.stat(p).st_mtime_ns for p in files} == times
    evaluate(*argv, "--fail-if", "miou<0.1", "-j", 3)  # gates and manners change no byte
    assert {p: os.stat(p).st_mtime_ns for p in files} == times
    for p in files:
        os.unlink(p)
    evaluate(*argv)
    assert {p: Path(p).read_bytes() for p in files} == files
    assert not list(scene["path"].glob(".*"))
    evaluate(*argv, "--seed", 1)
    assert Path("s.json").read_bytes() != files["s.json"]


def test_a_report_that_is_missing_or_edited_is_made_again(scene):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html", "-o", "s.json"]
    evaluate(*argv)
    whole = Path("r.html").read_bytes()
    Path("r.html").write_bytes(whole.replace(b"accuracy", b"perfection"))
    evaluate(*argv)
    assert Path("r.html").read_bytes() == whole
    Path("r.html").unlink()
    evaluate(*argv)
    assert Path("r.html").read_bytes() == whole
    evaluate(*argv[:-4], "-o", "s.json")  # without the page the scores stand alone
    assert "members" not in json.loads(Path("s.json").read_text())["geoml"]


def test_what_is_not_ours_is_not_replaced(scene, capsys):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html", "-o", "s.json"]
    Path("r.html").write_text("<html>mine</html>")
    evaluate(*argv, status=1)
    assert "r.html: exists and was not written by geoml" in line_of(capsys)
    Path("r.html").unlink()
    Path("s.json").write_text('{"mine": 1}')
    evaluate(*argv, status=1)
    assert "s.json: exists and was not written by geoml" in line_of(capsys)
    assert Path("s.json").read_text() == '{"mine": 1}' and not Path("r.html").exists()
    evaluate(*argv, "--force")
    assert json.loads(Path("s.json").read_text())["geoml"]["verb"] == "evaluate"


def test_dry_run_says_what_it_would_do_and_does_nothing(scene, capsys):
    before = set(scene["path"].iterdir())
    evaluate(
        "map.tif", "--truth", "check.gpkg", *COLUMN, "-o", "s.json", "--report", "r.html", "-n"
    )
    captured = capsys.readouterr()
    assert captured.out == "" and "would write s.json and r.html" in captured.err
    assert set(scene["path"].iterdir()) == before


class Page(HTMLParser):
    """Tags, what they point to, and the text."""

    VOID = {"meta", "br", "image", "rect", "path"}

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.links, self.words = [], Counter(), [], []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_needs_no_other_file_and_shows_every_point(scene):
    scores = scores_of("map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html")
    text = Path("r.html").read_text()
    page = Page(text)
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "url(" not in text and "@import" not in text
    assert "crop <&> grass" in page.words and "crop <&> grass" not in text  # escaped
    outcome = Counter()
    for word in page.words:
        if word.startswith("truth: ") and "; " in word:
            truth, said = word.removeprefix("truth: ").split("; ")
            outcome["out" if said.startswith("left") else truth == said.removeprefix("map: ")] += 1
    matrix = np.array(scores["confusion"]["matrix"])
    assert outcome[True] == np.trace(matrix)
    assert outcome[False] == matrix.sum() - np.trace(matrix)
    assert outcome["out"] == scores["scored"]["left_out"]["nodata"]
    assert sum(outcome.values()) == 300
    for number in [*matrix.ravel(), *matrix.sum(axis=0), *matrix.sum(axis=1)]:
        assert f">{number:,}<" in text or (number == 0 and ">·<" in text)
    entry = scores["metrics"]["accuracy"]
    assert f"{100 * entry['lo']:.1f} to {100 * entry['hi']:.1f} %" in text
    assert str(scene["path"]) not in text  # no absolute path, no clock


def test_the_picture_of_pixel_truth_is_blue_where_right_and_red_where_wrong(scene):
    save(scene["path"] / "truth.tif", scene["truth"])
    scores_of("map.tif", "--truth", "truth.tif", "--report", "r.html")
    links = Page(Path("r.html").read_text()).links
    images = [
        (imread(BytesIO(b64decode(link.partition(",")[2]))) * 255).round().astype(int)
        for link in links
    ]
    shown, agreed = images
    seen = scene["guess"] != 255
    np.testing.assert_array_equal(shown[..., 3] == 255, seen)
    for one in legend(NAMES):
        np.testing.assert_array_equal(
            (shown[..., :3] == one.rgb).all(-1) & seen, scene["guess"] == one.id
        )
    right = scene["truth"] == scene["guess"]
    np.testing.assert_array_equal((agreed[..., :3] == (0x2A, 0x7F, 0x9E)).all(-1), right & seen)
    np.testing.assert_array_equal((agreed[..., :3] == (0xC2, 0x15, 0x2B)).all(-1), ~right & seen)
