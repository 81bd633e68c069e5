"""Which scenes `geoml fetch` takes: times, conditions, ranks, what was brought before."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
import served
import shapely
from test_fetch import bytes_of, fetch, items_file, one_line, parts, read

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.errors import UsageMistake
from geoml_cli.geo.choice import Choice, choose
from geoml_cli.geo.cql import parse_filter, passes
from geoml_cli.geo.query import Query, matches, parse_sort, parse_times
from geoml_cli.stages.catalog import Hit
from geoml_cli.stages.wants import Want

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LENGTHS = {  # by the calendar, by hand
    "P30D": ("2026-10-24T12:00:00", None),
    "P30D/..": ("2026-10-24T12:00:00", None),
    "PT6H": ("2026-11-23T06:00:00", None),
    "P1M/2024-03-31": ("2024-02-29T23:59:59.999999", "2024-03-31T23:59:59.999999"),
    "2023-05-01/P10D": ("2023-05-01T00:00:00", "2023-05-11T00:00:00"),
    "2023-05-01/P1Y2M1W": ("2023-05-01T00:00:00", "2024-07-08T00:00:00"),
}


@pytest.mark.parametrize("text", LENGTHS)
def test_lengths_of_time_go_back_from_now_or_on_from_a_moment(text):
    want = [when and datetime.fromisoformat(when + "+00:00") for when in LENGTHS[text]]
    assert list(parse_times(text, NOW)) == want


@pytest.mark.parametrize("text", ["P", "PT", "P1D/P2D", "../P3D", "P30X", "P99999Y", "2023/P"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(UsageMistake, match="--datetime"):
        parse_times(text, NOW)


def made(count=60, seed=3):
    """Items with random clouds, times, cells and grounds of 1 x 1 degree."""
    rng = random.Random(seed)
    items = []
    for n in range(count):
        west, south = rng.uniform(10, 13), rng.uniform(40, 43)
        ground = shapely.box(west, south, west + 1, south + 1)
        said = {
            "datetime": f"2023-{rng.randint(1, 6):02}-{rng.randint(1, 28):02}T10:00:00Z",
            "grid:code": rng.choice(["MGRS-33TUL", "MGRS-33TUM", "MGRS-33TVL"]),
            "platform": rng.choice(["sentinel-2a", "sentinel-2b"]),
        }
        if rng.random() < 0.9:
            said["eo:cloud_cover"] = round(rng.uniform(0, 100), 3)
        items.append(
            {
                "type": "Feature",
                "id": f"s{n:03}",
                "collection": "c",
                "geometry": shapely.geometry.mapping(ground),
                "properties": said,
                "links": [],
                "assets": {},
            }
        )
    return items


def cloud(item):
    return item["properties"].get("eo:cloud_cover", 101)


def test_the_newest_are_taken():
    items = made()
    newest = sorted(items, key=lambda i: i["properties"]["datetime"])[-7:]
    taken = [items[i] for i in choose(items, Choice(latest=7), None)]
    assert min(i["properties"]["datetime"] for i in taken) == newest[0]["properties"]["datetime"]
    assert len(taken) == 7


@pytest.mark.parametrize("by_cell", [False, True])
def test_each_month_gives_its_least_cloudy(by_cell):
    items = made()
    taken = {items[i]["id"] for i in choose(items, Choice(per_month=2, per_cell=by_cell), None)}
    groups = {}
    for item in items:
        said = item["properties"]
        groups.setdefault((said["datetime"][:7], by_cell and said["grid:code"]), []).append(item)
    for group in groups.values():
        inside = [cloud(i) for i in group if i["id"] in taken]
        outside = [cloud(i) for i in group if i["id"] not in taken]
        assert len(inside) == min(2, len(group)) and max(inside) <= min(outside, default=102)


def test_each_cell_gives_its_least_cloudy():
    items = made()
    taken = [items[i] for i in choose(items, Choice(per_cell=True), None)]
    for code in {i["properties"]["grid:code"] for i in items}:
        [one] = [i for i in taken if i["properties"]["grid:code"] == code]
        assert cloud(one) == min(cloud(i) for i in items if i["properties"]["grid:code"] == code)


def test_the_area_is_covered_once_by_the_least_cloudy():
    items, area = made(), shapely.box(11, 41, 12.5, 42.5)
    taken = choose(items, Choice(cover=True), area)
    grounds = [shapely.geometry.shape(items[i]["geometry"]) for i in taken]
    assert shapely.union_all(grounds).intersection(area).area == pytest.approx(area.area)
    ranked = sorted(taken, key=lambda i: cloud(items[i]))
    for n, i in enumerate(ranked):  # none is there whose ground the clearer ones have
        before = shapely.union_all(
            [shapely.geometry.shape(items[k]["geometry"]) for k in ranked[:n]]
        )
        mine = shapely.geometry.shape(items[i]["geometry"]).intersection(area)
        assert mine.difference(before).area > 0


def test_an_area_that_cannot_be_covered_takes_what_there_is():
    items = made(3)
    assert choose(items, Choice(cover=True), shapely.box(0, 0, 50, 60)) == [0, 1, 2]


def test_scenes_are_ranked_by_properties_and_the_unknown_come_last():
    items = made()
    order = [
        items[i] for i in choose(items, Choice(sort=parse_sort("platform,-eo:cloud_cover")), None)
    ]
    keys = [
        (i["properties"]["platform"], -i["properties"].get("eo:cloud_cover", -1)) for i in order
    ]
    assert keys == sorted(keys) and len(order) == 60


FILTERS = {
    "eo:cloud_cover <= 20": lambda i: cloud(i) <= 20,
    "platform = 'sentinel-2a' AND eo:cloud_cover > 50": lambda i: (
        i["properties"]["platform"] == "sentinel-2a"
        and 50 < i["properties"].get("eo:cloud_cover", 0)
    ),
    "datetime >= TIMESTAMP('2023-03-01T00:00:00Z')": lambda i: (
        i["properties"]["datetime"] >= "2023-03"
    ),
    "eo:cloud_cover IS NULL": lambda i: cloud(i) == 101,
    '{"op":"in","args":[{"property":"grid:code"},["MGRS-33TUL"]]}': lambda i: (
        i["properties"]["grid:code"] == "MGRS-33TUL"
    ),
    "nowhere > 3": lambda i: False,
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_is_what_it_says(text):
    items, condition = made(), parse_filter(text)
    assert [i["id"] for i in items if passes(condition, i)] == [
        i["id"] for i in items if FILTERS[text](i)
    ]


@pytest.mark.parametrize("text", ["eo:cloud_cover <", "((", "{", "3"])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(UsageMistake, match="--filter"):
        parse_filter(text)


def test_conditions_hold_together():
    items = made()
    query = Query("", ids=("s001", "s002", "s003"), max_cloud=60)
    want = [i["id"] for i in items[1:4] if cloud(i) <= 60]
    assert [i["id"] for i in items if matches(query, i)] == want


# the command


@pytest.fixture
def home(tmp_path, monkeypatch):
    """items.json: ten scenes of one small raster, ten days, ever more cloudy."""
    monkeypatch.chdir(tmp_path)
    scenes = [scene(n) for n in range(10)]
    items_file("items.json", *scenes)
    return tmp_path


def scene(n, **more):
    path = served.noise(Path.cwd() / f"r/{n}.tif", 40, 40, seed=n)
    made = served.item(f"s{n}", {"red": path}, Path.cwd(), f"2023-06-{n + 1:02}T10:00:00Z")
    made["properties"] |= {"eo:cloud_cover": n * 10, "grid:code": f"G-{n % 2}"} | more
    return made


CHOICES = {
    "--max-cloud 30": [0, 1, 2, 3],
    "--ids s3,s5,none": [3, 5],
    "--latest 3": [7, 8, 9],
    "--per-month 2": [0, 1],
    "--per-cell": [0, 1],
    "--per-cell --latest 2": [6, 7, 8, 9],
    "--sort -eo:cloud_cover --limit 2": [8, 9],
    "--filter eo:cloud_cover>75": [8, 9],
    "--bbox 14.9,45,15.1,45.2 --cover": [0],
    "--datetime 2023-06-03/P2D": [2, 3],
    "--max-cloud 50 --latest 1": [5],
}


@pytest.mark.parametrize("options", CHOICES)
def test_options_choose(home, capsys, options):
    assert run(["fetch", "items.json", "--items-only", *options.split()]) == 0
    found = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(found) == [f"s{n}" for n in CHOICES[options]]
    assert parts() == []


def test_items_come_in_the_order_asked_for(home, capsys):
    assert run(["fetch", "items.json", "--items-only", "--sort", "-datetime"]) == 0
    found = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert found == [f"s{n}" for n in range(9, -1, -1)]


def test_matches_are_counted(home, capsys):
    assert run(["fetch", "items.json", "--matched", "--max-cloud", "30"]) == 0
    assert capsys.readouterr().out == "4\n"
    assert run(["fetch", "items.json", "--matched", "--ids", "none"]) == 0
    assert capsys.readouterr().out == "0\n"


def test_items_go_through_a_pipe_and_give_the_same_scenes(home, monkeypatch, capsys):
    import io
    import sys

    assert run(["fetch", "items.json", "--items-only", "--latest", "2"]) == 0
    text = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert fetch(catalog="-") == 0
    assert fetch("--latest", 2, catalog="items.json", out="direct") == 0
    assert list(read()) == list(read("direct")) == ["s8", "s9"]
    assert read()["s9"]["assets"] == read("direct")["s9"]["assets"]


def test_an_area_comes_through_stdin(home, monkeypatch, capsys):
    import io
    import sys

    box = shapely.box(15.0, 45.149, 15.002, 45.1505)
    shape = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(box)}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(shape)))
    assert fetch("--intersects", "-", "--limit", 1, catalog="items.json") == 0
    assert (
        fetch("--bbox", "15,45.149,15.002,45.1505", "--limit", 1, catalog="items.json", out="b")
        == 0
    )
    assert read()["s0"]["assets"] == read("b")["s0"]["assets"]


def test_a_table_of_items_is_a_catalog(home):
    from stac_geoparquet.arrow import parse_stac_items_to_parquet

    items = json.loads(Path("items.json").read_text())["features"]
    parse_stac_items_to_parquet(items, output_path=Path("items.parquet").absolute())
    assert fetch("--max-cloud", 30, catalog="items.parquet") == 0
    assert fetch("--max-cloud", 30, catalog="items.json", out="plain") == 0
    sums = [
        {n: i["assets"]["red"]["file:checksum"] for n, i in read(f).items()}
        for f in ("scenes", "plain")
    ]
    assert sums[0] == sums[1] and len(sums[0]) == 4
    Path("bad.parquet").write_bytes(b"PAR1 nonsense")
    assert fetch(catalog="bad.parquet", out="bad") == 1


WRONG = {
    "no place": ([], 2, "-o scenes/"),
    "cover nothing": (["--cover", "-o", "s"], 2, "--bbox"),
    "crs alone": (["--crs", "EPSG:3857", "-o", "s"], 2, "--resolution"),
    "no crs": (["--crs", "EPSG:1", "--resolution", "9", "-o", "s"], 1, "no CRS"),
    "like and crs": (["--like", "r/0.tif", "--crs", "EPSG:3857", "-o", "s"], 2, "--like"),
    "resampling": (["--resampling", "cubic", "-o", "s"], 2, "--resolution"),
    "resampling how": (["--resampling", "best", "--resolution", "9", "-o", "s"], 2, "nearest"),
    "whole and mask": (["--whole", "--mask", "clouds", "-o", "s"], 2, "--whole"),
    "mask": (["--mask", "clouds", "-o", "s"], 1, "no mask layer"),
    "cursor alone": (["--cursor", "c.json", "-o", "s"], 2, "--since last"),
    "since nowhere": (["--since", "last", "--items-only"], 2, "--cursor"),
    "two ways out": (["--items-only", "-o", "s"], 2, "leave it out"),
    "sort": (["--sort", "-", "-o", "s"], 2, "--sort"),
    "filter": (["--filter", "a <", "-o", "s"], 2, "CQL2"),
    "nothing": (["--max-cloud", "0", "--ids", "s9", "-o", "s"], 4, "none of the 10 items match"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line(home, capsys, name):
    options, status, words = WRONG[name]
    assert run(["fetch", "items.json", *options]) == status
    said = capsys.readouterr().err
    assert one_line(said) and words in said
    assert parts() == [] and not Path("s").exists()


# --since last


def test_only_what_is_new_is_brought_and_the_rest_is_left_alone(home, capsys):
    all_items = json.loads(Path("items.json").read_text())["features"]
    items_file("items.json", *all_items[:4])
    assert fetch("--since", "last", catalog="items.json") == 0
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in Path("scenes").rglob("*.tif")}
    stamp = Path("scenes/items.json").read_bytes()
    assert fetch("--since", "last", catalog="items.json") == 0  # nothing new
    assert Path("scenes/items.json").read_bytes() == stamp
    late = scene(1, updated="2023-08-01T00:00:00Z")  # published anew
    served.noise(Path("r/1.tif"), 40, 40, seed=99)
    items_file("items.json", all_items[0], late, *all_items[2:6])
    assert fetch("--since", "last", catalog="items.json") == 0
    assert list(read()) == [f"s{n}" for n in range(6)]
    kept = [p for p in before if "s1" not in p.parts]
    assert len(kept) == 3
    assert all((p.stat().st_ino, p.stat().st_mtime_ns) == before[p] for p in kept)
    assert fetch(catalog="items.json", out="fresh") == 0
    mine, fresh = bytes_of("scenes"), bytes_of("fresh")
    assert {n for n in fresh if mine[n] != fresh[n]} == {"items.json"}  # how they came to be
    assert read() == read("fresh")


def test_what_is_damaged_is_brought_again(home):
    assert fetch("--since", "last", "--limit", 3, catalog="items.json") == 0
    whole = bytes_of("scenes")
    Path("scenes/s1/red.tif").write_bytes(b"torn")
    assert (
        fetch("--since", "last", "--ids", "s0,s1,s2", catalog="items.json") == 1
    )  # another search
    assert (
        fetch("--since", "last", "--datetime", "2023-06-01/2023-06-03", catalog="items.json") == 0
    )
    torn = {name for name, data in bytes_of("scenes").items() if data != whole[name]}
    assert torn == {"items.json"}


def test_what_failed_is_tried_again(home, capsys):
    good = Path("r/4.tif").read_bytes()
    Path("r/4.tif").write_bytes(b"none")
    assert fetch("--since", "last", "--keep-going", catalog="items.json") == 3
    assert len(read()) == 9
    Path("r/4.tif").write_bytes(good)
    assert fetch("--since", "last", catalog="items.json") == 0
    assert len(read()) == 10
    assert fetch(catalog="items.json", out="fresh") == 0 and read() == read("fresh")


def test_items_alone_are_told_once(home, capsys):
    ask = ["fetch", "items.json", "--items-only", "--since", "last", "--cursor", "c.json"]
    assert run([*ask, "--limit", "6"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert run(ask) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run(ask) == 0 and capsys.readouterr().out == ""
    Path("c.json").write_text("{")
    assert run(ask) == 1 and one_line(capsys.readouterr().err)


def test_new_scenes_without_a_pixel_in_the_area_are_nothing_new(home, capsys):
    tilted = scene(0)  # its outline says more than its pixels
    ring = [[15, 45], [15.2, 45], [15.2, 45.2], [15, 45.2], [15, 45]]
    tilted["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    tilted["bbox"] = [15, 45, 15.2, 45.2]
    items_file("items.json", tilted)
    there = ["--bbox", "15.1,45.05,15.15,45.1"]
    assert fetch(*there, catalog="items.json", out="once") == 4
    assert fetch(*there, "--since", "last", catalog="items.json") == 0
    assert not Path("scenes").exists() and parts() == []


def test_a_misspelt_source_is_told(home, capsys):
    assert fetch(catalog="planetery-computer") == 1
    assert "did you mean planetary-computer?" in capsys.readouterr().err


def test_public_buckets_of_earth_search_are_read_over_https():
    href = "s3://sentinel-cogs/sentinel-s2-l2a-cogs/33/T/UL/B04.tif"
    hit = Hit(
        {"id": "x", "assets": {"red": {"href": href}}}, registry.load("sources", "earth-search")
    )
    where = Want(hit, "red", "red", "x/red.tif").path
    assert where.startswith("https://sentinel-cogs.s3.us-west-2.amazonaws.com/")
    assert where.endswith("/33/T/UL/B04.tif")
