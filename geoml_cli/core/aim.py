"""What a model is to say of a pixel or a tile, and how its outputs are read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoml_cli.errors import GeomlError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Aim:
    """Kind of answer, and the label layers that it is learnt from.

    kind `classes`: one of several, class ids are the positions of `names`; with `binary` a
    single output is the logit of the second. `present`: each of `names` is there or not.
    `values`: a number for each of `names`. per: `pixel` or `tile`. `fills`: the values are those
    of the images themselves, of which gaps are to be filled.
    """

    kind: str
    per: str
    layers: tuple[str, ...]
    names: tuple[str, ...]
    binary: bool = False
    fills: bool = False

    @property
    def outputs(self) -> int:
        """Channels that the head is to give, where the objective wants one a name."""
        return 1 if self.binary else len(self.names)

    @property
    def target(self) -> str:
        """What an objective is given: `classes`, `present`, `values` or `images`."""
        return "images" if self.fills else self.kind

    def spread(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Outputs (B, K, *S) to what ensembles and overlaps average: probabilities, or values as they are."""
        import torch

        if self.kind == "values":
            return outputs
        if self.binary:
            p = outputs.sigmoid()
            return torch.cat([1 - p, p], dim=1)
        return outputs.softmax(dim=1) if self.kind == "classes" else outputs.sigmoid()

    def decode(self, spread: "torch.Tensor") -> "torch.Tensor":
        """What was spread, decided: class ids (B, *S) uint8, the first of equals wins; 0 and 1, or
        values float32, (B, K, *S)."""
        if self.kind == "classes":
            return spread.max(dim=1).indices.byte()  # much faster than argmax over this axis
        if self.kind == "present":
            return (spread > 0.5).byte()
        return spread[:, : len(self.names)].float()


def layers_for(
    listed: list[dict], wanted: tuple[str, ...], kind: str, per: str | None, task: str
) -> list[dict]:
    """The label layers that a task is to learn: those named, or the first that fits it.

    `per` None: a pixel or a tile, but all alike. Raises where none fits, in words.
    """
    have = [one["name"] for one in listed]
    for name in wanted:
        if name not in have:
            raise GeomlError(f"no label layer called {name}; the tiles have {', '.join(have)}")
    chosen = [one for one in listed if one["name"] in wanted] if wanted else listed
    fit = [one for one in chosen if one["kind"] == kind and fits(one, per)]
    if wanted and len(fit) < len(chosen):
        odd = next(one for one in chosen if one not in fit)
        raise GeomlError(f"{odd['name']} {told(odd)}; --task {task} learns {hope(kind, per)}")
    if not fit:
        about = "; ".join(f"{one['name']} {told(one)}" for one in listed)
        raise GeomlError(f"{about}; --task {task} learns {hope(kind, per)}")
    if wanted and len({one["per"] == "pixel" for one in fit}) > 1:
        raise GeomlError(f"--layer: some of {', '.join(wanted)} are labels a pixel, some a tile")
    return sorted(fit, key=lambda one: wanted.index(one["name"])) if wanted else fit[:1]


def fits(layer: dict, per: str | None) -> bool:
    """Whether a layer's labels are for what is wanted: a pixel or a tile."""
    return per is None or (layer["per"] == "pixel") == (per == "pixel")


def told(layer: dict) -> str:
    """What a layer holds, in words."""
    what = "holds classes" if layer["kind"] == "classes" else "holds values"
    return f"{what}, one label a {'pixel' if layer['per'] == 'pixel' else 'tile'}"


def hope(kind: str, per: str | None) -> str:
    """What a task wants, in words."""
    return f"{kind}, one a {per}" if per else f"{kind}, one a pixel or a tile"
