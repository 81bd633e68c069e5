"""Cut scenes and labels into tiles: open, lay places and windows, cut, write, index."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import shapely
from pyarrow import parquet

from geoml_cli.formats.tileset import INDEX, NAME
from geoml_cli.manners import Manners
from geoml_cli.stages.cut import cut, forget
from geoml_cli.stages.finish import finish
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.lay import Order, lay
from geoml_cli.stages.layers import LabelWords
from geoml_cli.stages.merge import leave_part, merge_parts, of_part, share
from geoml_cli.stages.units import map_units


def run(
    inputs: list[str],
    out: str,
    *,
    beside: Sequence[str] = (),
    bands: Sequence[str] = (),
    frames: str | None = None,
    within: float | None = None,
    crs: str | None = None,
    resolution: float | None = None,
    like: str | None = None,
    resampling: str = "bilinear",
    labels: Sequence[str] = (),
    label_column: Sequence[str] = (),
    label_layer: Sequence[str] = (),
    label_kind: Sequence[str] = (),
    label_per: Sequence[str] = (),
    label_buffer: Sequence[str] = (),
    label_area: Sequence[str] = (),
    background: Sequence[str] = (),
    classes: Sequence[str] = (),
    burn_order: Sequence[str] = (),
    all_touched: bool = False,
    folder_classes: bool = False,
    size: str = "128",
    stride: str | None = None,
    sampler: str = "grid",
    split: str | None = None,
    split_by: str | None = None,
    folds: int = 0,
    buffer: str = "8",
    min_valid: float = 0.0,
    min_labelled: int | None = None,
    max_cloud: float | None = None,
    where: str | None = None,
    format: str = "npy",
    shard: str | None = None,
    merge: bool = False,
    seed: int = 0,
    manners: Manners = Manners(),
) -> None:
    """Write a tile set; see `geoml tile --help` for what each argument means."""
    if merge:
        merge_parts(inputs, out, manners)
        return
    part = share(shard) if shard else None
    words = LabelWords(
        *(labels, label_column, label_layer, label_kind, label_per, label_buffer),
        *(label_area, background, classes, burn_order),
    )
    order = Order(
        inputs=inputs,
        beside=beside,
        bands=bands,
        frames=frames,
        within=within,
        crs=crs,
        resolution=resolution,
        like=like,
        resampling=resampling,
        words=words,
        all_touched=all_touched,
        folder_classes=folder_classes,
        size=size,
        stride=stride,
        sampler=sampler,
        split=split,
        split_by=split_by,
        folds=folds,
        buffer=buffer,
        min_valid=min_valid,
        min_labelled=min_labelled,
        max_cloud=max_cloud,
        where=where,
        format=format,
        seed=seed,
    )
    layout, arguments, sources = lay(order)
    if manners.dry_run:
        plan(manners, layout.say(out))
        return
    if part:
        arguments = arguments | {"shard": shard}
    with Job("tile", out, "tiles", NAME, arguments, sources, manners) as job:
        if not job.done:
            shards = layout.shards(job.part)
            chosen = of_part(shards, part)
            done = list(map_units(cut, chosen, manners.jobs, job.check, threads=True))
            forget()
            head = layout.head(job.out)
            if part:
                leave_part(job, head, part, len(shards))
            else:
                finish(job, head, done)
    job.report([job.stamp], _records(job.out, job.named) if manners.ndjson and not part else ())


def _records(folder: Path, named: str) -> Iterable[dict[str, Any]]:
    """One GeoJSON Feature a tile."""
    head = json.loads((folder / NAME).read_text(encoding="utf-8"))
    sensor = head["sensors"][0]["name"]
    for row in parquet.read_table(folder / INDEX).to_pylist():
        wkb = row.pop("geometry")
        shape = json.loads(shapely.to_geojson(shapely.from_wkb(wkb))) if wkb else None
        href = f"{named}/{INDEX}"
        if head["format"] == "npy":
            href = f"{named}/images-{sensor}-{row['shard']:05d}.npy#{row['row']}"
        elif head["format"] == "gtiff":
            href = f"{named}/{row['href']}"
        properties = {k: v for k, v in row.items() if k != "id"}
        yield {"id": row["id"], "href": href, "geometry": shape, "properties": properties}
