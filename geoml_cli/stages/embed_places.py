"""Embed places without imagery, and features of images beside them: rows into one file."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import pyarrow as pa
import shapely
import torch

from geoml_cli.core import device as devices
from geoml_cli.core.reduction import Reduction, from_plain
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.embeddings import Embeddings, open_embeddings
from geoml_cli.formats.package import PKG
from geoml_cli.formats.points import Points, open_points
from geoml_cli.formats.stamp import Input, read_record
from geoml_cli.formats.vectors import GPKG, PARQUET
from geoml_cli.geo.grid import LONLAT
from geoml_cli.manners import Manners
from geoml_cli.stages.embed_run import Wanted
from geoml_cli.stages.embed_table import Table
from geoml_cli.stages.embedder import Way
from geoml_cli.stages.job import plan
from geoml_cli.stages.places_model import PlaceModel, encoder_model, published_model
from geoml_cli.stages.spelled import place_of

GROUP = 8192  # rows that are computed at a time


class PointRows:
    """Every place of a table."""

    extra = 0

    def __init__(self, name: str, points: Points, schema: pa.Schema) -> None:
        """`schema` has the columns of all tables of a run; those that this one lacks are empty."""
        self.name, self.points, self.count = name, points, len(points.lonlat)
        self.schema = schema

    def groups(self, size: int) -> list[range]:
        """See Rows."""
        return [range(i, min(i + size, self.count)) for i in range(0, self.count, size)]

    def read(self, group: range) -> torch.Tensor:
        """See Rows; (n, 2) degrees."""
        return torch.from_numpy(self.points.lonlat[group.start : group.stop])

    def batch(self, read: torch.Tensor) -> None:
        """See Rows: no image is shown."""

    def compute(self, embedder: "PlaceEmbedder", read: torch.Tensor) -> np.ndarray:
        """See Rows."""
        return embedder.vectors(read)

    def finished(
        self, raw: np.ndarray, rows: int
    ) -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
        """See Rows."""
        start = 0
        for plain, lonlat in self.points.blocks(rows):
            part = np.array(raw[start : start + len(lonlat)])
            start += len(lonlat)
            some = ~np.isnan(part[:, 0])  # those of this share
            if not some.any():
                continue
            columns = [
                plain[f.name] if f.name in plain.column_names else pa.nulls(len(plain), f.type)
                for f in self.schema
            ]
            table = pa.Table.from_arrays(columns, schema=self.schema).filter(pa.array(some))
            shapes = shapely.points(lonlat[some])
            plainly = table.to_pandas(types_mapper=pandas.ArrowDtype)
            yield geopandas.GeoDataFrame(plainly, geometry=shapes, crs=LONLAT), part[some]

    def close(self) -> None:
        """See Rows."""


class FeatureRows(PointRows):
    """Every row of a file of image features; one whose place is not known has none."""

    def __init__(self, name: str, opened: Embeddings, width: int) -> None:
        if opened.width != width:
            raise GeomlError(
                f"{opened.path}: holds vectors of {opened.width}; the image side takes {width}, features of"
                " CLIP ViT-L/14. For its places name --location-encoder geoclip"
            )
        self.name, self.opened, self.count = name, opened, opened.count
        sizes = [
            opened.file.metadata.row_group(k).num_rows for k in range(opened.file.num_row_groups)
        ]
        self._ends = np.cumsum(sizes)
        self._held = lru_cache(1)(self._row_group)

    def groups(self, size: int) -> list[range]:
        """See Rows; none spans two row groups of the file."""
        found, start = [], 0
        for end in map(int, self._ends):
            found += [range(i, min(i + size, end)) for i in range(start, end, size)]
            start = end
        return found

    def _row_group(self, k: int) -> np.ndarray:
        lists = self.opened.file.read_row_group(k, columns=[self.opened.column]).column(0)
        return self.opened.matrix(lists.combine_chunks())

    def read(self, group: range) -> torch.Tensor:
        """See Rows; (n, width)."""
        k = int(np.searchsorted(self._ends, group.start, "right"))
        first = int(self._ends[k - 1]) if k else 0
        return torch.from_numpy(self._held(k)[group.start - first : group.stop - first])

    def finished(
        self, raw: np.ndarray, rows: int
    ) -> Iterator[tuple[geopandas.GeoDataFrame, np.ndarray]]:
        """See Rows."""
        table = self.opened.columns()
        for start in range(0, self.count, rows):
            part = table.iloc[start : start + rows].reset_index(drop=True)
            yield part, raw[start : start + rows]


class PlaceEmbedder:
    """A module on a device, asked for vectors; places are not looked at in half precision."""

    def __init__(self, module: torch.nn.Module, device: devices.Device) -> None:
        self.device, self.module = device, module.to(device.torch)

    @torch.inference_mode()
    def vectors(self, rows: torch.Tensor) -> np.ndarray:
        """One vector a row, (n, D) float32."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # angles are large
        try:
            exact = getattr(self.module, "exact", False) and self.device.torch.type != "mps"
            rows = rows if exact else rows.float()
            return self.module(rows.to(self.device.torch)).float().cpu().numpy()
        finally:
            torch.set_float32_matmul_precision(before)


def run_places(
    given: Sequence[Any],
    out: str,
    files: Sequence[str],
    which: tuple[str | None, str | None, str | None, str | None],
    stored: tuple[str, str | None, str | None, int | None, str, int],
    lonlat: Sequence[str],
    manners: Manners,
    trust_code: bool = False,
) -> None:
    """Embed tables of places, or files of image features for a model that has a side for them.

    `which` are model, location encoder, its weights and a file to follow; `stored` dtype, reduction, shard,
    batch, device and seed, as `geoml embed` takes them.
    """
    dtype, reduce, shard, batch, device, seed = stored
    if not out.lower().endswith((*PARQUET, GPKG)):
        raise UsageMistake(f"-o {out}: places are rows of a table; name NAME.parquet or NAME.gpkg")
    tables = [one for one in given if isinstance(one, str)]
    if len(tables) < len(given):
        raise UsageMistake("-: items are imagery; places are named as files")
    model, followed = _model(which, seed, reduce, trust_code)
    if shard and not followed and (reduce or dtype == "int8"):
        raise UsageMistake(
            "--shard: --reduce and int8 must be one for all shares: embed some places first, and give that file with --as"
        )
    wanted = Wanted(tables, dtype=dtype, reduce=reduce, shard=shard, batch=batch, device=device)
    reduction = followed.about.get("reduction") if followed else None
    extra = [Input(followed.path, "as", digest_file(Path(followed.path)))] if followed else []
    table = PlaceTable(model, wanted, extra, lonlat=lonlat, reduction=reduction)
    if files and not which[1] and model.image:
        if len(files) < len(tables):
            raise UsageMistake(
                f"{files[0]}: image features and places in one run; embed them apart"
            )
        table.of_images(files)
    else:
        table.of_places(tables)
    if manners.dry_run:
        plan(manners, table.say(out))
        return
    table.make(out, manners)


def _model(
    which: tuple[str | None, str | None, str | None, str | None],
    seed: int,
    reduce: str | None,
    trust_code: bool,
) -> tuple[PlaceModel, Embeddings | None]:
    model, encoder, weights, like_file = which
    if sum(one is not None for one in (model, encoder, like_file)) > 1:
        raise UsageMistake("name --location-encoder, --model or --as, one of them")
    if weights and not encoder:
        raise UsageMistake("--encoder-weights: are of --location-encoder NAME")
    if like_file is None:
        if model:
            return published_model(model, trust_code), None
        assert encoder
        return encoder_model(encoder, weights, seed), None
    if reduce:
        raise UsageMistake(f"--as {like_file}: says all of that itself; leave --reduce out")
    followed = open_embeddings(like_file)
    roles = {
        one["role"]: place_of(one["path"], Path(like_file))
        for one in (read_record(like_file) or {"inputs": []})["inputs"]
    }
    if "model" in roles:
        named = roles["model"]
        folder = named if named.startswith(PKG) else str(Path(named).parent)
        found = published_model(folder, trust_code)
    else:
        spec = followed.about["location_encoder"]
        found = encoder_model(spec, roles.get("encoder_weights"), followed.about["seed"] or 0)
    if found.weights != followed.about["weights"]:
        raise GeomlError(f"{found.name}: is not what {like_file} was made with any more")
    return found, followed


class PlaceTable(Table):
    """Rows of places, or of image features, into one file."""

    def __init__(
        self,
        model: PlaceModel,
        wanted: Wanted,
        extra: Sequence[Input],
        *,
        lonlat: Sequence[str],
        reduction: dict[str, Any] | None,
    ) -> None:
        self.model, self.wanted, self.window = model, wanted, 1
        self.sets, self.source = [], model  # type: ignore[assignment]
        self.way = Way(seed=model.seed, reduction=reduction)
        self.lonlat = lonlat
        self.inputs = [*model.inputs, *extra]
        self.rows = []
        self.images = False

    def of_places(self, names: Sequence[str]) -> "PlaceTable":
        """Take the places of tables."""
        found = [open_points(name, self.lonlat) for name in names]
        try:
            schema = pa.unify_schemas([one.schema for one in found])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise GeomlError(
                f"{names[0]}: tables disagree on the type of a column ({error})"
            ) from None
        for k, points in enumerate(found):
            self.rows.append(PointRows(f"rows-{k}", points, schema))  # type: ignore[arg-type]
            self.inputs.append(Input(points.path, "places", points.digest))
        return self

    def of_images(self, names: Sequence[str]) -> "PlaceTable":
        """Take features of images, for the side of the model that brings them beside places."""
        if self.model.image is None:
            raise GeomlError(f"{self.model.name}: has no image side; it takes places")
        self.images = True
        width = next(self.model.image().parameters()).shape[1]
        for k, name in enumerate(names):
            self.rows.append(FeatureRows(f"rows-{k}", open_embeddings(name), width))  # type: ignore[arg-type]
            self.inputs.append(Input(name, "features", digest_file(Path(name))))
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """What decides the bytes, besides inputs."""
        about = self.model.about()
        named = any(one.role == "model" for one in self.inputs)
        own = {
            "location_encoder": None if named else about["encoder"],
            "lonlat": list(self.lonlat) or None,
        }
        names = ("dtype", "reduce", "batch", "shard")
        asked = {k: getattr(self.wanted, k) for k in names if getattr(self.wanted, k)}
        return own | asked | {"seed": about["seed"]}

    def say(self, out: str) -> Iterator[str]:
        """Lines for --dry-run."""
        count = sum(one.count for one in self.rows)
        what = "features of images" if self.images else "places"
        yield f"embed {count} {what} with {self.model.name} and write them to {out}"

    def size(self, pixels: int) -> int:
        """Rows that are computed at a time."""
        return self.wanted.batch or GROUP

    def embedder(self, source: Any, shown: Any) -> tuple[Any, list[Any]]:
        """The module on its device."""
        device = devices.pick(self.wanted.device, "32")
        build = self.model.image if self.images else self.model.build
        assert build
        return PlaceEmbedder(build(), device), []

    def _width(self, embedder: Any, rows: Any, groups: Sequence[range]) -> int:
        probe = rows.read(range(0, 1))
        return int(embedder.vectors(probe).shape[1])

    def reduction(self) -> Reduction | None:
        """That of the file that is followed."""
        return from_plain(dict(self.way.reduction)) if self.way.reduction else None
