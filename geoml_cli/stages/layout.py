"""Everything about a tile set that is known before a pixel is cut: places, windows, layers, split."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.geo.field import Pick
from geoml_cli.stages.cut_plan import Plan, Shard, Wanted
from geoml_cli.stages.layers import Layered
from geoml_cli.stages.place import Frames, Place
from geoml_cli.stages.sides import parts_for

SHARD_BYTES = 1 << 26
MOST_ROWS = 1 << 13  # tiles in a shard, at most


@dataclass(frozen=True)
class Layout:
    """A tile set laid out; `picks` are its tiles, in order, before any is dropped."""

    places: Sequence[Place]
    sensors: Sequence[dict[str, Any]]
    frames: Frames
    layers: Sequence[Layered]
    split: Any
    folds: int
    size: tuple[int, int]
    stride: tuple[int, int]
    picks: Sequence[Pick]
    format: str
    wanted: Wanted

    def tile_bytes(self) -> int:
        """Bytes of a tile's images."""
        h, w = self.size
        each = [len(s["bands"]) * s["frames"] * np.dtype(s["dtype"]).itemsize for s in self.sensors]
        return sum(each) * h * w

    def shards(self, part: Path) -> list[Shard]:
        """Deal the picks into shards of about 64 MiB of pixels, whatever is dropped later."""
        plan = self.plan(str(part))
        count = max(1, SHARD_BYTES // self.tile_bytes()) if plan.looks else MOST_ROWS
        burns: dict[int, tuple[Any, ...]] = {}
        ids = self.ids()
        shards = []
        for number, start in enumerate(range(0, len(self.picks), count)):
            chosen = tuple(self.picks[start : start + count])
            used = sorted({pick.place for pick in chosen})
            for i in used:
                if i not in burns:
                    burns[i] = tuple(layer.on_place(self.places[i]) for layer in self.layers)
            places = {i: self.places[i] for i in used}
            named = tuple(ids[start : start + count])
            shards.append(Shard(plan, number, chosen, named, places, {i: burns[i] for i in used}))
        return shards

    def ids(self) -> list[str]:
        """A name for every tile: its place, row and column; of equal ones the second ends in -2."""
        seen: dict[str, int] = {}
        names = []
        for pick in self.picks:
            name = f"{self.places[pick.place].id}-{pick.window.row}-{pick.window.col}"
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
        return names

    def plan(self, part: str) -> Plan:
        """What holds for every shard, which are built in the folder `part`."""
        [first, *others] = parts_for(self.split is not None, self.folds)
        return Plan(
            folder=part,
            format=self.format,
            size=self.size,
            sensors=tuple(self.sensors),
            frames=self.frames,
            layers=tuple(layer.to_dict() for layer in self.layers),
            split=self.split,
            held=None if others else first.bits,
            wanted=self.wanted,
        )

    def head(self, out: Path) -> dict[str, Any]:
        """The content of tileset.json in the folder `out`, but for what is counted.

        `places` are grids that the index needs; a virtual set keeps them, with what shows them.
        """
        scenes = []
        for place in self.places:
            for sensor, shots in zip(self.sensors, place.shots, strict=True):
                for stack in (stack for shot in shots for stack in shot.stacks):
                    said = {"id": stack.scene, "datetime": stack.datetime}
                    grid = stack.rasters[0].grid
                    scenes.append({**said, "sensor": sensor["name"], **grid.to_dict()})
        unique = {(s["sensor"], s["id"]): s for s in scenes}
        live = self.format == "virtual"

        def name(path: str) -> str:
            return os.path.relpath(path, out) if os.path.exists(path) else path

        return {
            "format": self.format,
            "sensors": list(self.sensors),
            "layers": [_kept(layer.to_dict(), name if live else None) for layer in self.layers],
            "size": self.size[0],
            "stride": self.stride[0],
            "split": self.split.to_dict() if self.split else None,
            "folds": self.folds,
            "frames": self.frames.to_dict(),
            "scenes": list(unique.values()),
            "places": [p.to_dict(name) if live else p.grid.to_dict() for p in self.places],
        }

    def say(self, out: str) -> Iterable[str]:
        """Lines for --dry-run."""
        for i, sensor in enumerate(self.sensors):
            scenes = {s.scene for p in self.places for shot in p.shots[i] for s in shot.stacks}
            names = ", ".join(band["name"] for band in sensor["bands"])
            frames = f", {sensor['frames']} frames a tile" if sensor["frames"] > 1 else ""
            yield f"read {len(scenes)} scene(s) of {sensor['name']}, bands {names}{frames}"
        for layer in self.layers:
            what = f"{len(layer.classes)} classes" if layer.kind == "classes" else "values"
            yield f"label {layer.name}: {what} per {layer.per}"
        size = len(self.picks) * self.tile_bytes() / 1e6 if self.format != "virtual" else 0
        h, w = self.size
        yield f"write up to {len(self.picks)} tiles of {h} x {w} px, {size:.1f} MB, to {out}"


def _kept(layer: dict[str, Any], name: Callable[[str], str] | None) -> dict[str, Any]:
    """A layer as in tileset.json: with what it takes to burn it again only where `name` spells files."""
    if name is None:
        return {k: v for k, v in layer.items() if k not in ("wish", "masks")}
    wish = {
        k: name(v) if k in ("path", "area", "classes") else v
        for k, v in layer.get("wish", {}).items()
    }
    masks = {k: name(v) for k, v in layer.get("masks", {}).items()}
    return layer | {"wish": wish} | ({"masks": masks} if masks else {})
