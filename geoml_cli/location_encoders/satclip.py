"""SatCLIP: spherical harmonics and a network of sines; continuous everywhere.

Source: Klemmer et al. 2025 (AAAI). The published networks, of L = 10 or 40, were trained on a basis whose order 0
is pi times too large: the variant `satclip`.
"""

import math

import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.core.layers.on_places import network_on
from geoml_cli.core.places import PlaceEncoder

DATELINE = True  # whether it is continuous there
POLES = True


def build(
    *,
    degrees: int = 40,
    variant: str = "satclip",
    hidden: int = 512,
    layers: int = 2,
    out: int = 256,
    dropout: float = 0.5,
) -> nn.Module:
    """Build it as the published networks are, of `degrees` 40 or 10; `variant` fixed has every order in scale."""
    basis = registry.load("location_encoders", "spherical-harmonics").Harmonics(degrees, variant)
    return PlaceEncoder(basis, network_on(degrees**2, "siren", hidden, layers, out, dropout))


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of the network on places, `nnet.`, in a checkpoint of the whole model; the rest is left out."""
    inside = [key for key in state if ".nnet." in f".{key}"]
    whole = [key for key in inside if "location.nnet." in key]  # stored a second time without it
    return {"nnet." + key.rpartition("nnet.")[2]: state[key] for key in whole or inside}


def told(state: dict[str, torch.Tensor]) -> dict[str, int]:
    """Options that the shapes of a renamed checkpoint tell."""
    shapes = [tuple(v.shape) for k, v in state.items() if k.endswith("weight") and ".layers." in k]
    last = state.get("nnet.last_layer.weight")
    if not shapes or last is None:
        return {}
    first = state["nnet.layers.0.weight"].shape
    return {
        "degrees": math.isqrt(first[1]),
        "hidden": first[0],
        "layers": len(shapes),
        "out": last.shape[0],
    }
