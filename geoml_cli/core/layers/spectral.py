"""Codes of where a token lies on the ground, in metres, and in the spectrum, in nanometres.

Sources: Si et al. 2025 (LESS ViT, arXiv:2503.12843); the turned variant (RoPE) of its successor (arXiv:2605.18541).
Angles of thousands of radians are rounded, so they are worked out in float32 by NumPy, as the authors' are.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from geoml_cli.core.layers.low_rank import Turn, Turns

LADDER, TABLE = 10_000, 16


def ladder(count: int) -> np.ndarray:
    """Rates (count,) float32, 10000^(-i / count), to the last bit as where the authors' models ran.

    There float32 powers come from a table of 16 powers of two, a polynomial and one rounding (SVML, AVX-512), at
    times a unit off in the last place: which turns the code of a wavelength of 5700 by up to 0.001.
    """
    exponent = (np.arange(count, dtype=np.float32) / np.float32(count)) * np.log2(float(LADDER))
    whole, step = np.floor(exponent), np.floor(exponent * TABLE) / TABLE
    rest = (exponent - step).astype(np.float32)
    told = np.exp2(step - whole).astype(np.float32)
    slope = np.expm1(rest * np.log(2.0)) / np.where(rest > 0, rest, 1).astype(np.float64)
    slope = np.where(rest > 0, slope, np.log(2)).astype(np.float32)
    power = told.astype(np.float64) + (told * rest).astype(np.float64) * slope
    return np.float32(1) / (power.astype(np.float32) * np.exp2(whole).astype(np.float32))


def waves(places: np.ndarray, width: int) -> np.ndarray:
    """Sines, then cosines (M, width) of places (M,), all in float32; width is even."""
    angle = places.astype(np.float32)[:, None] * ladder(width // 2)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


@lru_cache(maxsize=64)
def band_codes(nm: tuple[float, ...], width: int) -> torch.Tensor:
    """Codes (1 + C, width) of wavelengths; 0 for the class token."""
    found = waves(np.array(nm), width)
    return torch.from_numpy(np.concatenate([np.zeros_like(found[:1]), found]))


@lru_cache(maxsize=64)
def ground_codes(grid: tuple[int, int], gsd_m: float, width: int) -> torch.Tensor:
    """Codes (1 + h w, width) of a grid's rows and columns, as metres of pixels of the ground sample distance: half of it
    for the column, half for the row; 0 for the class token.
    """
    rows, cols = (np.arange(n, dtype=np.float32) * np.float32(gsd_m) for n in grid)
    across, down = waves(cols, width // 2), waves(rows, width // 2)
    found = np.concatenate(
        [np.tile(across, (grid[0], 1)), np.repeat(down, grid[1], axis=0)], axis=1
    )
    return torch.from_numpy(np.concatenate([np.zeros_like(found[:1]), found]))


@lru_cache(maxsize=16)
def near(grid: tuple[int, int], step_m: float, radius_m: float) -> torch.Tensor:
    """Which positions may see which (1 + N, 1 + N): those within the radius, and all the class token and it them."""
    rows, cols = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    at = torch.stack([rows.flatten(), cols.flatten()], dim=1)
    apart = (at[:, None] - at).square().sum(-1).float().sqrt() * step_m
    seen = torch.ones(1 + len(at), 1 + len(at), dtype=torch.bool)
    seen[1:, 1:] = apart <= radius_m
    return seen


def periods(width: int, parts: int, base: float) -> torch.Tensor:
    """Periods of the angles of a head of some width that tells of so many coordinates."""
    count = width // (2 * parts)
    return base ** (torch.arange(count, dtype=torch.float32) / count)


def turn_of(places: torch.Tensor, period: torch.Tensor) -> Turn:
    """Sine and cosine (1, M, d) of places (M, parts) in -1..1, by periods."""
    angle = (2 * math.pi * places[:, :, None] / period).flatten(1).tile(2)[None]
    return angle.sin(), angle.cos()


def turns_of(
    grid: tuple[int, int],
    unit: Sequence[float],
    at: torch.Tensor,
    along: torch.Tensor,
) -> Turns:
    """Turns of the positions of a grid, and of channels whose wavelengths are given as 0..1 of the spectrum, by the
    periods of both.
    """
    middle = [(torch.arange(n, device=at.device) + 0.5) / n * 2 - 1 for n in grid]
    rows, cols = torch.meshgrid(*middle, indexing="ij")
    spots = torch.stack([rows.flatten(), cols.flatten()], dim=1)
    bands = torch.tensor([[2 * u - 1] for u in unit], device=along.device)
    return turn_of(spots, at), turn_of(bands, along)
