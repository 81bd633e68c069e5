"""Cut one shard of tiles: the unit of work that workers share."""

import threading
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.formats.commit import whole_file, write_text
from geoml_cli.formats.jsonfile import dumps, read_json
from geoml_cli.formats.tileset import save_array
from geoml_cli.geo.field import Pick
from geoml_cli.geo.grid import Window
from geoml_cli.geo.splits import NONE
from geoml_cli.stages.cut_plan import Plan, Shard
from geoml_cli.stages.kept import kept_of
from geoml_cli.stages.labels import burn, nothing, of_tile
from geoml_cli.stages.place import Place
from geoml_cli.stages.place_reader import PlaceReader, Read
from geoml_cli.stages.sides import labelled
from geoml_cli.stages.statistics import Tally, tally
from geoml_cli.stages.tile_files import write_tiles

_here = threading.local()  # room that the next shard of the same thread may use


def forget() -> None:
    """Give back the room that this thread's last shard took."""
    _here.last = None


class Held:
    """The arrays of a shard while it is cut: filled in place, cut to what is kept, written once."""

    def __init__(self, plan: Plan, count: int) -> None:
        """Room for `count` tiles; where no image is looked at, for one, that is filled again and again."""
        self.looks, count = plan.looks, count if plan.looks else 1
        h, w = plan.size
        self.images, self.valid = [], []
        for sensor in plan.sensors:
            t, c = sensor["frames"], len(sensor["bands"])
            self.images.append(np.empty((count, t, c, h, w), sensor["dtype"]))
            self.valid.append(np.zeros((count, t, h, w), bool))
        self.labels = [
            np.empty((count, h, w), layer["dtype"]) if layer["per"] == "pixel" else None
            for layer in plan.layers
        ]
        self.folds = np.empty((count, h, w), np.uint8) if plan.split else None
        self.near = np.empty((count, h, w), near_type(plan.split.count)) if plan.split else None

    @classmethod
    def of(cls, plan: Plan, count: int) -> "Held":
        """Room for a shard; the last one's, if this thread cut it: fresh memory costs more than filling it."""
        last: tuple[Plan, int, Held] | None = getattr(_here, "last", None)
        if last is None or last[0] is not plan or last[1] < count:
            _here.last = last = (plan, count, cls(plan, count))
        held = copy(last[2])
        if plan.looks:
            held.keep(range(count))
        return held

    def slot(self, n: int) -> int:
        """Position of tile `n` in the arrays."""
        return n if self.looks else 0

    def keep(self, rows: Sequence[int]) -> None:
        """Move the tiles that are kept to the front, in order; drop the others."""
        every = [*self.images, *self.valid, *self.labels, self.folds, self.near]
        for array in every:
            if array is not None and len(rows) < len(array):
                for to, row in enumerate(rows):
                    if to != row:
                        array[to] = array[row]
        first = len(rows)
        self.images = [a[:first] for a in self.images]
        self.valid = [a[:first] for a in self.valid]
        self.labels = [a if a is None else a[:first] for a in self.labels]
        self.folds = None if self.folds is None else self.folds[:first]
        self.near = None if self.near is None else self.near[:first]


def cut(shard: Shard) -> tuple[list[dict[str, Any]], list[Tally]]:
    """Cut one shard and write its arrays; give index rows and counts of every sensor. Done before: read back."""
    plan = shard.plan
    folder = Path(plan.folder)
    notes, counts = notes_of(folder, shard.number)
    if notes.is_file():
        with np.load(counts) as before:
            return list(read_json(notes)), [Tally.of_arrays(before, n) for n in _names(plan)]
    looks = plan.looks
    held = Held.of(plan, len(shard.picks))
    rows = []
    with PlaceReader(plan.frames, [sensor["frames"] for sensor in plan.sensors]) as reader:
        for n, pick in enumerate(shard.picks):
            rows.append(_cut_one(shard, pick, n, held, reader if looks else None))
    kept = kept_of(rows, plan)
    rows = [row | {"row": to} for to, row in enumerate(rows[i] for i in kept)]
    found = [Tally() for _ in plan.sensors]
    if looks:
        held.keep(kept)
        found = [
            tally(images, valid, held.folds, held.near, plan.held)
            for images, valid in zip(held.images, held.valid, strict=True)
        ]
    if plan.format != "virtual" and rows:
        (_write_arrays if plan.format == "npy" else write_tiles)(shard, held, rows)
    with whole_file(counts) as temporary, open(temporary, "wb") as file:
        arrays: dict[str, Any] = {}
        for name, one in zip(_names(plan), found, strict=True):
            arrays |= one.arrays(name)
        np.savez(file, **arrays)
    write_text(notes, dumps(rows))
    return list(read_json(notes)), found  # as a run that is taken up again, or a merge, sees them


def _names(plan: Plan) -> list[str]:
    return [sensor["name"] for sensor in plan.sensors]


def notes_of(folder: Path, number: int) -> tuple[Path, Path]:
    """Where the rows and the counts of a finished shard wait for the end."""
    return folder / f"shard-{number:05d}.json", folder / f"shard-{number:05d}.npz"


def near_type(folds: int) -> str:
    """Type that has a bit for every fold."""
    return "uint8" if folds <= 8 else "uint16" if folds <= 16 else "uint32"


def _cut_one(
    shard: Shard, pick: Pick, n: int, held: Held, reader: PlaceReader | None
) -> dict[str, Any]:
    """Read, label and place one tile at position `n` of the arrays; give its row of the index."""
    plan, place, window = shard.plan, shard.places[pick.place], pick.window
    grid = place.grid.crop(window)
    stack = place.shots[0][0].stacks[0]
    row: dict[str, Any] = {
        "id": shard.ids[n],
        "place": pick.place,
        "scene": stack.scene,
        "datetime": stack.datetime,
        "shard": shard.number,
        "row": n,
        "window_row": window.row,
        "window_col": window.col,
        **{k: v for k, v in grid.to_dict().items() if k != "proj:shape"},
    }
    if plan.format == "virtual":  # its labels are burnt again, each time
        row["own"] = pick.own and list(pick.own)
    slot = held.slot(n)
    seen: np.ndarray = np.ones((0, 0), bool)
    if reader:
        reads = reader.read(place, window, [images[slot] for images in held.images])
        for valid, read in zip(held.valid, reads, strict=True):
            valid[slot] = read.valid
        row |= _told(plan, reads)
        row["cloud"] = reader.cloudy(place, window, reads[0].dates)
        seen = np.logical_or.reduce(reads[0].valid, axis=0)
    else:
        row["valid"] = None
        seen = _inside(place, window) if plan.layers else seen
    if plan.split:
        _side(plan, grid, row, slot, held)
    for i, layer in enumerate(plan.layers):
        _label(layer, shard.labels[pick.place][i], pick, place, seen, row, held, i, slot, plan)
    return row


def _inside(place: Place, window: Window) -> np.ndarray:
    """Pixels (h, w) of a window that lie on the place's grid."""
    rows = np.arange(window.row, window.row + window.height)
    cols = np.arange(window.col, window.col + window.width)
    inner = (rows >= 0) & (rows < place.grid.height)
    return np.asarray(inner[:, None] & (cols >= 0) & (cols < place.grid.width))


def owned(window: Window, own: Window | None) -> np.ndarray:
    """Pixels (h, w) of a tile whose ground no earlier tile holds; `own` None: all."""
    mine = np.full((window.height, window.width), own is None)
    if own is not None:
        top, left = own.row - window.row, own.col - window.col
        mine[top : top + own.height, left : left + own.width] = True
    return mine


def _told(plan: Plan, reads: Sequence[Read]) -> dict[str, Any]:
    """What the index says of the frames of a tile."""
    row: dict[str, Any] = {"valid": _share(reads[0].valid)}
    for sensor, read in list(zip(plan.sensors, reads, strict=True))[1:]:
        row[f"valid_{sensor['name']}"] = _share(read.valid)
    if len(plan.sensors) > 1 or plan.sensors[0]["frames"] > 1:
        for sensor, read in zip(plan.sensors, reads, strict=True):
            row[f"dates_{sensor['name']}"] = read.dates
    return row


def _share(valid: np.ndarray) -> float:
    return float(np.count_nonzero(valid) / valid.size)


def _side(plan: Plan, grid: Any, row: dict[str, Any], n: int, held: Held) -> None:
    """Which side the ground of a tile falls on."""
    assert held.folds is not None and held.near is not None
    if grid.placed:
        held.folds[n], held.near[n] = plan.split.on(grid)
    else:  # a picture: only whole tiles can be dealt, by their names
        fold = plan.split.named(row["id"])
        held.folds[n], held.near[n] = fold, 1 << fold
    first = int(held.folds[n, 0, 0])
    one = first != NONE and bool((held.folds[n] == first).all())
    row["fold"] = first if one else None
    row["near"] = int(np.bitwise_or.reduce(held.near[n], axis=None))


def _label(
    layer: dict[str, Any],
    labels: Any,
    pick: Pick,
    place: Place,
    seen: np.ndarray,
    row: dict[str, Any],
    held: Held,
    i: int,
    n: int,
    plan: Plan,
) -> None:
    """Burn one layer into a tile, and say in its row what is labelled."""
    name, window = layer["name"], pick.window
    if callable(labels):  # a label of the whole tile that needs no pixels
        row[name] = labels(window)
        return
    pixels = burn(labels, place.grid, window)
    pixels[~seen] = nothing(layer["kind"])
    pixels[~owned(window, pick.own)] = nothing(layer["kind"])
    if layer["per"] != "pixel":
        row[name] = of_tile(labels, pixels, place.grid, window)
        return
    array = held.labels[i]
    assert array is not None
    array[n] = pixels
    known = labelled(pixels, layer["ignore"])
    row[f"labelled_{name}"] = int(np.count_nonzero(known))
    folds = held.folds[n] if held.folds is not None else None
    if folds is not None:
        by_fold = np.bincount(folds[known], minlength=NONE + 1)
        row[f"fold_labelled_{name}"] = by_fold[: plan.split.count].tolist()
    if layer["kind"] == "classes":
        count = len(layer["classes"])
        row[f"counts_{name}"] = np.bincount(pixels[known], minlength=count).tolist()
        if folds is not None:
            pairs = folds[known].astype(np.intp) * count + pixels[known]
            both = np.bincount(pairs, minlength=(NONE + 1) * count).reshape(-1, count)
            row[f"fold_counts_{name}"] = both[: plan.split.count].tolist()


def _write_arrays(shard: Shard, held: Held, rows: list[dict[str, Any]]) -> None:
    """Write what is kept of a shard as arrays that can be mapped."""
    plan, number = shard.plan, f"{shard.number:05d}.npy"
    folder = Path(plan.folder)
    save: Callable[[str, np.ndarray], None] = lambda n, a: save_array(folder / f"{n}-{number}", a)  # noqa: E731
    for sensor, images, valid in zip(plan.sensors, held.images, held.valid, strict=True):
        save(f"images-{sensor['name']}", images)
        save(f"valid-{sensor['name']}", valid)
    for layer, array in zip(plan.layers, held.labels, strict=True):
        if array is not None:
            save(f"labels-{layer['name']}", array)
    if held.folds is not None and held.near is not None:
        save("folds", held.folds)
        save("near", held.near)
