"""Spectral indices (NDVI, NBR ...) of reflectance, mean and spread: nothing learnt, a baseline.

Formulas and sources: data/spectral_indices.toml. Those are computed whose bands are there.
"""

import ast
import operator
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.patches import patched, statistics
from geoml_cli.errors import UsageMistake

time = "native"
POOL = "cls"
BANDS = True  # is told the common name and the wavelength of each band
KINDS = ("mean", "std")
MOST = 10.0  # indices are ratios: beyond this the denominator was all but nothing
STEPS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@cache
def table() -> dict[str, Any]:
    """Bands and formulas."""
    text = resources.files("geoml_cli.data").joinpath("spectral_indices.toml").read_text("utf-8")
    return tomllib.loads(text)


def evaluate(formula: str, values: Mapping[str, Any]) -> Any:
    """The value of a formula of names, numbers, + - * / and brackets."""

    def of(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp):
            return STEPS[type(node.op)](of(node.left), of(node.right))
        return values[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

    return of(ast.parse(formula, mode="eval").body)


def placed(named: Sequence[Sequence[Any]]) -> dict[str, int]:
    """Which of the bands (common name, wavelength in nm, each or None) each variable is."""
    found = {}
    for variable, about in table()["bands"].items():
        low, high = about["nm"]
        by_name = [i for i, (name, _) in enumerate(named) if name in about["names"]]
        by_wave = [i for i, (name, nm) in enumerate(named) if not name and nm and low <= nm <= high]
        if by_name or by_wave:
            found[variable] = (by_name or by_wave)[0]
    return found


def usable(bands: Mapping[str, int]) -> dict[str, str]:
    """Formulas by index whose variables are there."""
    words = {
        name: {n.id for n in ast.walk(ast.parse(one["formula"])) if isinstance(n, ast.Name)}
        for name, one in table()["indices"].items()
    }
    return {n: table()["indices"][n]["formula"] for n, used in words.items() if used <= set(bands)}


class SpectralIndices(nn.Module):
    """(B, T, C, H, W) -> one map: mean and spread of every index in a patch, a date."""

    def __init__(self, frames: int, bands: Mapping[str, int], patch: int) -> None:
        super().__init__()
        self.patch, self.bands, self.formulas = patch, dict(bands), usable(bands)
        self.channels, self.strides = [len(KINDS) * len(self.formulas) * frames], [patch]

    def indices(self, images: torch.Tensor) -> torch.Tensor:
        """Every index (B, T, I, H, W) of physical values (B, T, C, H, W)."""
        values = {name: images[:, :, i] for name, i in self.bands.items()}
        each = [evaluate(formula, values) for formula in self.formulas.values()]
        # 0 / 0 says nothing; NaN that was given is passed on
        known = ~images.isnan().any(2, keepdim=True)
        found = torch.stack(each, dim=2)
        tidy = found.nan_to_num(0.0, MOST, -MOST).clamp(-MOST, MOST)
        return torch.where(known, tidy, found)

    def forward(self, x: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
        """Statistics of patches."""
        valid = patched(batch.valid[:, :, None].to(x.dtype), self.patch) > 0
        found = statistics(patched(self.indices(batch.images), self.patch), valid, KINDS)
        return [found.movedim(-1, 1).flatten(1, 3).to(x.dtype)]

    def summary(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Statistics (B, D) of the whole image."""
        valid = batch.valid[:, :, None].flatten(3)
        found = statistics(self.indices(batch.images).flatten(3), valid, KINDS)
        return found.movedim(-1, 1).flatten(1).to(x.dtype)


def build(
    in_channels: int,
    frames: int,
    named: Sequence[Sequence[Any]] = (),
    *,
    bands: str = "",
    patch: int = 16,
) -> nn.Module:
    """Build for maps of one value for each `patch` x `patch` pixels.

    `bands` names the bands in their order, as blue-green-red-nir-swir16; else metadata does.
    """
    if bands:
        named = [(name, None) for name in bands.split("-")]
        if len(named) != in_channels:
            raise UsageMistake(
                f"spectral-indices:bands={bands}: names {len(named)} bands, there are {in_channels}"
            )
    found = placed(named)
    if not usable(found):
        raise UsageMistake(
            "spectral-indices: the metadata does not say which band is red, nir and so on; name them in"
            " order: spectral-indices:bands=blue-green-red-nir"
        )
    return SpectralIndices(frames, found, patch)
