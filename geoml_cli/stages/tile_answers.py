"""What a model says of whole tiles, as a table: one row a tile, a point in its middle."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import torch

from geoml_cli.core import device as devices
from geoml_cli.core.infer import Answers, Mapper
from geoml_cli.core.lattice import Lattice
from geoml_cli.core.lattice import tiles as tiled
from geoml_cli.errors import UsageMistake
from geoml_cli.formats.tileset import Tiles
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.geo.grid import LONLAT
from geoml_cli.manners import Manners
from geoml_cli.stages.gather import centres
from geoml_cli.stages.in_order import in_order
from geoml_cli.stages.inputs import scene_inputs
from geoml_cli.stages.job import Job, plan
from geoml_cli.stages.models import Opened
from geoml_cli.stages.networks import aim_of
from geoml_cli.stages.sides import chunks
from geoml_cli.stages.targets import check_tiles
from geoml_cli.stages.tile_batches import TileBatches
from geoml_cli.stages.tiles import open_tiles

SUFFIXES = (".parquet", ".geoparquet", ".gpkg")


def answer_tiles(
    sets: Sequence[str], opened: Opened, out: str, how: Any, device: str, manners: Manners
) -> None:
    """Write the table of some tile sets."""
    if not out.lower().endswith(SUFFIXES):
        raise UsageMistake(
            f"-o {out}: answers of tiles are a table; name NAME.parquet or NAME.gpkg"
        )
    for name in ("out_of_fold", "uncertainty", "polygons", "shard"):
        if getattr(how, name):
            raise UsageMistake(f"--{name.replace('_', '-')}: is for maps, not for a table of tiles")
    opened_sets = [open_tiles(path, opened.head["sensors"], how.lonlat) for path in sets]
    for path, tiles in zip(sets, opened_sets, strict=True):
        check_tiles(path, tiles, opened.head)
    sources = [*scene_inputs(list(sets), [], "tiles"), *opened.inputs]
    count = sum(len(tiles.index) for tiles in opened_sets)
    if manners.dry_run:
        plan(manners, [f"say of {count} tiles what they show, and write a table to {out}"])
        return
    with Job("predict", out, "predictions", None, how.recorded(), sources, manners) as job:
        if not job.done:
            answers = Answers(aim_of(opened.model), probabilities=True)
            used = devices.pick(device, how.precision)
            tta = how.tta or opened.head["tta"] or "none"
            mapper = Mapper(opened.load(), answers, used, tta)
            tables = []
            for tiles in opened_sets:
                said = list(_ask(tiles, opened, mapper, how.batch or 32, job))
                tables.append(_table(tiles, np.concatenate(said), opened))
            table = geopandas.GeoDataFrame(pandas.concat(tables, ignore_index=True), crs=LONLAT)
            built = job.part / f"table{Path(out).suffix.lower()}"
            write_vectors(built, table, job.record)
            job.commit_file(built)
    job.report([job.named])


def _ask(tiles: Tiles, opened: Opened, mapper: Mapper, size: int, job: Job) -> Iterator[np.ndarray]:
    """Averaged channels (n, K) of tiles, in batches."""
    names = [one["name"] for one in opened.head["sensors"]]
    read = TileBatches(tiles, names, opened.head["codes"]).read
    axis = tiled(tiles.size, tiles.size)
    laid = Lattice(axis, axis, per_tile=True)
    groups = chunks(np.arange(len(tiles.index)), size)
    for batch in in_order(read, groups, job.manners.jobs, job.manners.jobs + 1):
        job.check()
        said = mapper.ask(batch, [(0, 0)] * len(batch.images), laid)
        yield torch.stack(said)[..., 0, 0].cpu().numpy()


def _table(tiles: Tiles, said: np.ndarray, opened: Opened) -> geopandas.GeoDataFrame:
    """One row a tile: its id, scene and time, a point in its middle, and what the model says."""
    aim, index = aim_of(opened.model), tiles.index
    found: dict[str, Any] = {
        k: index[k].to_numpy() for k in ("id", "scene", "datetime") if k in index
    }
    if aim.kind == "classes":
        ids = said[:, : len(aim.names)].argmax(axis=1)
        found |= {"class": np.array(aim.names, object)[ids], "class_id": ids}
        found["probability"] = said[np.arange(len(ids)), ids]
    elif aim.kind == "present":
        found |= {name: (said[:, k] > 0.5).astype(np.uint8) for k, name in enumerate(aim.names)}
    if aim.kind == "values":
        found |= {name: said[:, k] for k, name in enumerate(aim.names)}
    else:
        found |= {f"p_{name}": said[:, k] for k, name in enumerate(aim.names)}
    lon, lat = centres(tiles).astype(float).T
    points = geopandas.GeoSeries(geopandas.points_from_xy(lon, lat), crs=LONLAT)
    points[np.isnan(lon)] = None
    return geopandas.GeoDataFrame(found, geometry=points, crs=LONLAT)
