"""One share of the maps of a run, and shares put together: the same bytes as one run."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geoml_cli.core.lattice import Lattice
from geoml_cli.errors import GeomlError
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Layout
from geoml_cli.formats.jsonfile import canonical
from geoml_cli.formats.model import GROUND
from geoml_cli.formats.raster import Reader, describe
from geoml_cli.formats.stamp import Input, damage, read_stamp
from geoml_cli.geo.classes import read_classes
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.manners import Manners
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.making import MAP, Making, stem
from geoml_cli.stages.merge import check_shares
from geoml_cli.stages.products import Made, describe_maps
from geoml_cli.stages.spelled import place_of
from geoml_cli.stages.targets import Target

BLOCK = 512


def shares_of(targets: Sequence[Target], part: tuple[int, int]) -> list[Target]:
    """The i-th of n shares of some maps: whole rows of windows, as many windows as the others, nearly."""
    rows = [(t, r) for t, target in enumerate(targets) for r in range(target.lattice.rows.count)]
    number, of = part
    mine = rows[(number - 1) * len(rows) // of : number * len(rows) // of]
    found = []
    for t, target in enumerate(targets):
        bands = [r for one, r in mine if one == t]
        if bands and (kept := _rows(target, target.lattice, bands[0], bands[-1] + 1)):
            found.append(kept)
    return found


def _rows(target: Target, laid: Lattice, first: int, stop: int) -> Target | None:
    keep = target.keep
    top = max(keep.row, laid.rows.edges[first])
    bottom = min(keep.row + keep.height, laid.rows.edges[stop])
    if bottom <= top:
        return None
    return replace(target, keep=Window(top, keep.col, bottom - top, keep.width), whole=keep)


def said_of_share(run: Any, job: Job) -> dict[str, Any]:
    """What `--merge` must know of a share."""
    number, of = run.how.shard.split("/")
    targets = {target.name: target for target in run.targets}
    maps = []
    for one in run.made:
        target = targets[one.name]
        layouts = run.layouts(target.grid.crop(target.whole), {})
        maps.append(
            {
                "name": one.name,
                "id": one.id,
                "times": dict(one.times),
                "row": target.keep.row - target.whole.row,
                "assets": {key: _plain(layout) for key, layout in layouts.items()},
                **target.grid.crop(target.whole).to_dict(),
            }
        )
    return {"number": int(number), "of": int(of), "maps": maps, "per": run.aim.per}


def _plain(layout: Layout) -> dict[str, Any]:
    return {
        "bands": [band.to_dict() for band in layout.bands],
        "dtype": layout.dtype,
        "categorical": layout.categorical,
        "colors": {str(k): list(v) for k, v in layout.colors.items()},
        "tags": {k: v for k, v in layout.tags.items() if k != "GEOML"},
    }


def _layout(plain: dict[str, Any], grid: Grid, record: dict[str, Any]) -> Layout:
    return Layout(
        grid,
        tuple(Band.from_dict(band) for band in plain["bands"]),
        plain["dtype"],
        categorical=plain["categorical"],
        colors={int(k): tuple(v) for k, v in plain["colors"].items()},
        tags={**plain["tags"], "GEOML": canonical(record).decode()},
    )


def merge_maps(
    folders: Sequence[str],
    out: str,
    polygons: str | None,
    sieve: int,
    simplify: float,
    manners: Manners,
) -> None:
    """Put shares together."""
    heads = {}
    for folder in folders:
        _, head = read_stamp(folder, stac.NAME, "predict")
        for line in damage(folder):
            raise GeomlError(f"{line}; run the `geoml predict --shard` that made it")
        if "part" not in head:
            raise GeomlError(
                f"{folder}: is no share; --merge takes what `geoml predict --shard i/n` wrote"
            )
        heads[folder] = head
    check_shares(heads)
    first_folder, first = next(iter(heads.items()))
    arguments = {k: v for k, v in first["geoml"]["arguments"].items() if k != "shard"}
    arguments |= {"polygons": polygons is not None, "sieve": sieve, "simplify": simplify}
    sources = [
        Input(place_of(one["path"], Path(first_folder)), one["role"], one["digest"])
        for one in first["geoml"]["inputs"]
    ]
    pieces: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder, head in sorted(heads.items(), key=lambda one: one[1]["part"]["number"]):
        for one in head["part"]["maps"]:
            pieces.setdefault(one["name"], []).append((Path(folder), one))
    if manners.dry_run:
        plan(manners, [f"put {len(heads)} shares of {len(pieces)} map(s) into {out}"])
        return
    beside = [Path(polygons)] if polygons else []
    with Job(
        "predict", out, "predictions", stac.NAME, arguments, sources, manners, beside=beside
    ) as job:
        if not job.done:
            for name, found in pieces.items():
                if not (job.part / f"{name}.tif").is_file():
                    _join(job, name, found, dict(one.split("=", 1) for one in arguments["co"]))
            made = [Made(n, f[0][1]["id"], f[0][1]["times"]) for n, f in sorted(pieces.items())]
            if polygons:
                kept = read_classes(first["geoml:classes"])
                from geoml_cli.stages.drawing import draw_maps

                per = first["part"]["per"]
                draw_maps(job, Path(polygons), made, kept, per, sieve, simplify)
            if GROUND in first["geoml"]["members"]:
                shutil.copyfile(Path(first_folder) / GROUND, job.part / GROUND)
            assets = list(next(iter(pieces.values()))[0][1]["assets"]) if pieces else []
            features = describe_maps(job.part, made, assets, read_classes(first["geoml:classes"]))
            said = {k: v for k, v in first.items() if k.startswith("geoml:")}
            job.commit(stac.collection_of(features) | said)
    document = stac.read_collection(job.out)
    paths = [f"{job.named}/{item['assets'][MAP]['href'][2:]}" for item in document["features"]]
    paths += [polygons] if polygons else []
    job.report(paths, stac.anchor(document["features"], job.named))


def _join(
    job: Job, name: str, pieces: list[tuple[Path, dict[str, Any]]], options: dict[str, str]
) -> None:
    """One map of its bands of rows."""
    plain = pieces[0][1]
    grid = Grid.from_dict(plain)
    layouts = {key: _layout(one, grid, job.record) for key, one in plain["assets"].items()}
    windows, sources = [], []
    for folder, one in pieces:
        height = describe(str(folder / f"{name}.tif"), picture=True).grid.height
        for row in range(0, height, BLOCK):
            inner = Window(row, 0, min(BLOCK, height - row), grid.width)
            windows.append(inner._replace(row=row + one["row"]))
            sources.append((folder, inner))
    if sum(w.height for w in windows) != grid.height:
        raise GeomlError(f"{name}: the shares do not make up all of its rows; make them again")
    making = Making(job.part, name, layouts, windows)
    for asset, journal in making.journals.items():
        for i, (folder, inner) in enumerate(sources):
            job.check()
            with Reader(describe(str(folder / f"{stem(name, asset)}.tif"), picture=True)) as reader:
                journal.write(i, reader.read(inner)[0])
    making.finish({"NUM_THREADS": "ALL_CPUS"} | options)
