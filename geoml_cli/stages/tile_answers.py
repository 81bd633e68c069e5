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
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.points import is_places
from geoml_cli.formats.tileset import Tiles
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.geo.grid import LONLAT
from geoml_cli.manners import Manners
from geoml_cli.stages.answered_ground import Ground
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

TILES, ROWS = 32, 4096  # that are asked about at a time, of tiles and of tables
SUFFIXES = (".parquet", ".geoparquet", ".gpkg")


def answer_tiles(
    sets: Sequence[str], opened: Opened, out: str, how: Any, device: str, manners: Manners
) -> None:
    """Write the table of some tile sets."""
    if not out.lower().endswith(SUFFIXES):
        raise UsageMistake(
            f"-o {out}: answers of tiles are a table; name NAME.parquet or NAME.gpkg"
        )
    tables = all(is_embeddings(path) or is_places(path) for path in sets)
    for name in ("out_of_fold", "uncertainty", "polygons", "shard"):
        if getattr(how, name) and not (name == "out_of_fold" and tables):
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
            made = []
            for tiles in opened_sets:
                words, member = None, None
                if tables and opened.ground is not None:
                    ground = Ground(opened.ground, opened.model.split, int(opened.head["folds"]))
                    words, member = ground.sides(_points(tiles), how.out_of_fold)
                size = how.batch or (ROWS if tables else TILES)
                said = list(
                    _ask(tiles, opened, mapper, size, job, member if how.out_of_fold else None)
                )
                one = _table(tiles, np.concatenate(said), opened)
                if words is not None:
                    one.insert(one.shape[1] - 1, "ground", words)
                made.append(one)
            table = geopandas.GeoDataFrame(pandas.concat(made, ignore_index=True), crs=LONLAT)
            built = job.part / f"table{Path(out).suffix.lower()}"
            write_vectors(built, table, job.record)
            job.commit_file(built)
    job.report([job.named])


def _ask(
    tiles: Tiles, opened: Opened, mapper: Mapper, size: int, job: Job, member: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Averaged channels (n, K) of tiles, in batches; `member` (n,) tells the one that answers, 255 all."""
    names = [one["name"] for one in opened.head["sensors"]]
    read = TileBatches(tiles, names, opened.head["codes"]).read
    axis = tiled(tiles.size, tiles.size)
    laid = Lattice(axis, axis, per_tile=True)
    groups, at = chunks(np.arange(len(tiles.index)), size), 0
    for batch in in_order(read, groups, job.manners.jobs, job.manners.jobs + 1):
        job.check()
        count = len(batch.images)
        folds = None
        if member is not None:
            folds = [one[None, None] for one in member[at : at + count]]
        said = mapper.ask(batch, [(0, 0)] * count, laid, folds)
        at += count
        yield torch.stack(said)[..., 0, 0].cpu().numpy()


def _points(tiles: Tiles) -> np.ndarray:
    """Longitude and latitude (n, 2) of what rows of a table, or tiles, stand for."""
    if tiles.size == 1 and tiles.index.geometry.notna().all():
        points = tiles.index.geometry.representative_point()
        return np.column_stack([points.x, points.y])
    return centres(tiles).astype(float)


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
    lon, lat = _points(tiles).T
    points = geopandas.GeoSeries(geopandas.points_from_xy(lon, lat), crs=LONLAT)
    points[np.isnan(lon)] = None
    return geopandas.GeoDataFrame(found, geometry=points, crs=LONLAT)
