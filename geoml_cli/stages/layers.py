"""Label layers as options name them: label files, folders of masks, names of folders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.stamp import Input
from geoml_cli.geo.classes import IGNORE, Class, legend
from geoml_cli.geo.grid import Window
from geoml_cli.stages.inputs import Scene, chips
from geoml_cli.stages.labels import Layer, Wish
from geoml_cli.stages.place import Place
from geoml_cli.stages.tiling import named_values, value_for

LAYER = "class"


class Layered(Protocol):
    """One layer of labels, opened."""

    name: str
    kind: str
    per: str
    classes: list[Class]
    dtype: str

    def inputs(self) -> list[Input]:
        """What it reads."""

    def on_place(self, place: Place) -> Any:
        """What to burn on a place; or a function of a window that gives its label."""

    def to_dict(self) -> dict[str, Any]:
        """As in tileset.json."""


class FileLayer:
    """Labels of one file for all places."""

    def __init__(self, wish: Wish) -> None:
        self.layer = Layer(wish)
        self.name, self.kind, self.per = wish.name, self.layer.kind, self.layer.per
        self.classes, self.dtype = self.layer.classes, str(self.layer.dtype)

    def inputs(self) -> list[Input]:
        """What it reads."""
        return named(self.layer.inputs(), self.name)

    def on_place(self, place: Place) -> Any:
        """What to burn on a place."""
        return self.layer.on(place.grid)

    def to_dict(self) -> dict[str, Any]:
        """As in tileset.json."""
        return self.layer.to_dict()


class FolderLayer:
    """The folder a chip lies in names its class."""

    kind, per, dtype = "classes", "folder", "int16"

    def __init__(self, name: str, scenes: Sequence[Scene]) -> None:
        self.name = name
        without = [scene.id for scene in scenes if not scene.folder]
        if without:
            raise GeomlError(f"{without[0]}: lies in no folder that could name its class")
        self._folders = {scene.id: str(scene.folder) for scene in scenes}
        names = sorted(set(self._folders.values()))
        if len(names) > IGNORE:
            raise GeomlError(f"{len(names)} folders; there is room for {IGNORE} classes")
        self.classes = legend(names)

    def inputs(self) -> list[Input]:
        """Nothing beside the chips."""
        return []

    def on_place(self, place: Place) -> Callable[[Window], int]:
        """The class of its chip."""
        names = [one.name for one in self.classes]
        found = names.index(self._folders[place.shots[0][0].stacks[0].scene])
        return lambda window: found

    def to_dict(self) -> dict[str, Any]:
        """As in tileset.json."""
        classes = [one.to_dict() for one in self.classes]
        said = {"name": self.name, "kind": self.kind, "per": self.per, "dtype": self.dtype}
        return said | {"ignore": None, "classes": classes}


class MaskFolder:
    """A folder of masks, each called as the image that it is of."""

    def __init__(self, wish: Wish, scenes: Sequence[Scene]) -> None:
        folder = Path(wish.path)
        files = {"-".join(f.relative_to(folder).with_suffix("").parts): f for f in chips(folder)}
        missing = [scene.id for scene in scenes if scene.id not in files]
        if missing:
            raise GeomlError(
                f"{wish.path}: no mask for {len(missing)} of {len(scenes)} images, the first is"
                f" {missing[0]}; masks are called as their images"
            )
        self.name, self._files = wish.name, {scene.id: files[scene.id] for scene in scenes}
        self.layer = Layer.of_many(wish, [str(path) for path in self._files.values()])
        self.kind, self.per = self.layer.kind, self.layer.per
        self.classes, self.dtype = self.layer.classes, str(self.layer.dtype)

    def inputs(self) -> list[Input]:
        """The masks."""
        return named(self.layer.inputs(), self.name)

    def on_place(self, place: Place) -> Any:
        """The mask of its image."""
        scene = place.shots[0][0].stacks[0].scene
        return self.layer.on_file(str(self._files[scene]), place.grid)

    def to_dict(self) -> dict[str, Any]:
        """As in tileset.json."""
        return self.layer.to_dict() | {"masks": {k: str(v) for k, v in self._files.items()}}


@dataclass(frozen=True)
class LabelWords:
    """Options about labels, as given: each a repeated `[LAYER=]VALUE`."""

    labels: Sequence[str]
    label_column: Sequence[str]
    label_layer: Sequence[str]
    label_kind: Sequence[str]
    label_per: Sequence[str]
    label_buffer: Sequence[str]
    label_area: Sequence[str]
    background: Sequence[str]
    classes: Sequence[str]
    burn_order: Sequence[str]


def wishes_of(words: LabelWords, all_touched: bool) -> list[Wish]:
    """One wish a layer."""
    files = named_values(words.labels, "--labels", LAYER)
    names = list(files)

    def of(name: str, option: str) -> str | None:
        return value_for(getattr(words, option), name, names, "--" + option.replace("_", "-"))

    for option, given in vars(words).items():
        if given and not files:
            raise UsageMistake(
                f"--{option.replace('_', '-')}: says something of --labels; give them"
            )
    return [
        Wish(
            path=path,
            name=name,
            column=of(name, "label_column"),
            table=of(name, "label_layer"),
            kind=of(name, "label_kind"),
            per=of(name, "label_per") or "pixel",
            all_touched=all_touched,
            buffer_m=_metres(of(name, "label_buffer")),
            order=of(name, "burn_order"),
            background=of(name, "background"),
            area=of(name, "label_area"),
            classes=of(name, "classes"),
        )
        for name, path in files.items()
    ]


def _metres(text: str | None) -> float:
    try:
        found = float((text or "0").removesuffix("m"))
    except ValueError:
        found = -1.0
    if found < 0:
        raise UsageMistake(f"--label-buffer {text!r}: metres on the ground, as 5 or 5m")
    return found


def holds_masks(path: str) -> bool:
    """Whether labels are a folder of masks; a file geodatabase is a folder that is one file."""
    return Path(path).is_dir() and not path.rstrip("/").lower().endswith(".gdb")


def open_layers(
    wishes: Sequence[Wish], folder_classes: bool, scenes: Sequence[Scene]
) -> list[Layered]:
    """Every layer, opened."""
    layers: list[Layered] = [
        MaskFolder(wish, scenes) if holds_masks(wish.path) else FileLayer(wish) for wish in wishes
    ]
    if folder_classes:
        name = LAYER if all(layer.name != LAYER for layer in layers) else "folder"
        layers.append(FolderLayer(name, scenes))
    return layers


def named(inputs: list[Input], name: str) -> list[Input]:
    """Inputs of a layer with roles that say how they are spelled: labels, or labels=NAME."""
    if name == LAYER:
        return inputs
    return [replace(one, role=f"{one.role}={name}") for one in inputs]
