"""Encoder and decoder of LESS ViT: channels and positions on a grid, masked apart.

Source: Si et al. 2025 (LESS ViT, arXiv:2503.12843). Key names are the authors'; equal to their modules to float noise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear, pad, relu

from geoml_cli.core.layers.low_rank import EPS, LowRankBlock, Real, Turns, shares_of
from geoml_cli.core.layers.masked import lowest
from geoml_cli.core.layers.spectral import band_codes, ground_codes, near, periods, turns_of

Grid = tuple[int, int]
KINDS = ("optical", "radar")


class Spectrum(NamedTuple):
    """What is known of the channels: wavelengths, which of them are radar, and the size of a pixel."""

    nm: tuple[float, ...]
    radar: tuple[bool, ...]
    gsd_m: float


class Kept(NamedTuple):
    """Channels (B, K) and positions (B, L) that are seen, and where each of all of them is then (B, C), (B, N)."""

    channels: torch.Tensor
    positions: torch.Tensor
    channel_back: torch.Tensor
    position_back: torch.Tensor
    real: Real | None = (
        None  # of those channels and positions the ones that are (B, K), (B, L); None: all
    )


class Tokens(NamedTuple):
    """What is said of images of `dates` dates each, folded: (B T, 1 + K, 1 + L, D), and of what it is said."""

    latent: torch.Tensor
    grid: Grid
    seen: Spectrum
    kept: Kept
    dates: int


def hidden_of(
    noise: torch.Tensor, channels: int, shares: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which channels (B, C) and positions (B, N) are hidden, of noise (B, C + N) and the shares to hide; two channels are
    kept at least.
    """
    first, rest = noise[:, :channels], noise[:, channels:]
    kept = min(max(int(channels * (1 - shares[0])), 2), channels)
    at = int(rest.shape[1] * (1 - shares[1]))
    return lowest(first, kept)[2] > 0, lowest(rest, max(at, 1))[2] > 0


def kept_of(channels: torch.Tensor, positions: torch.Tensor) -> Kept:
    """What is left when channels (B, C) and positions (B, N) are hidden, of which samples may have unlike many."""
    orders, sizes, real = [], [], []
    for hidden in (channels, positions):
        order = hidden.byte().argsort(dim=1, stable=True)  # those that are seen first
        counts = (~hidden).sum(1)
        most = max(int(counts.max()), 1)
        orders.append(order)
        sizes.append(most)
        real.append(torch.arange(most, device=order.device) < counts[:, None])
    kept = [order[:, :size] for order, size in zip(orders, sizes, strict=True)]
    back = [order.argsort(dim=1) for order in orders]
    whole = all(bool(one.all()) for one in real)
    return Kept(kept[0], kept[1], back[0], back[1], None if whole else (real[0], real[1]))


class PatchEmbed(nn.Module):
    """Patches of single channels to tokens, by two layers; the weights are those of convolutions."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj: Any = nn.Sequential(
            nn.Conv3d(1, 2 * width, (1, patch, patch), (1, patch, patch)),
            nn.ReLU(),
            nn.Conv3d(2 * width, width, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., p p) -> (..., D)."""
        first, last = self.proj[0], self.proj[2]
        x = relu(linear(x, first.weight.flatten(1), first.bias))
        return linear(x, last.weight.flatten(1), last.bias)


def cut(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Images (B, C, H, W) as patches (B, C, h w, p p)."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // patch, patch, w // patch, patch).transpose(3, 4)
    return x.reshape(b, c, (h // patch) * (w // patch), patch * patch)


def joined(patches: torch.Tensor, grid: Grid, patch: int) -> torch.Tensor:
    """The inverse of `cut`."""
    x = patches.unflatten(2, grid).unflatten(4, (patch, patch)).transpose(3, 4)
    return x.flatten(4).flatten(2, 3)


def _picked(x: torch.Tensor, kept: Kept) -> torch.Tensor:
    """(B, C, N, d) at the channels and positions that are kept (B, K, L, d)."""
    rows = torch.arange(len(x), device=x.device)[:, None, None]
    return x[rows, kept.channels[:, :, None], kept.positions[:, None]]


class Encoder(nn.Module):
    """Tokens of the patches of every channel through low-rank blocks; some of them only, if so asked."""

    cls_token: torch.Tensor
    spatial_cls_token: torch.Tensor
    channel_cls_token: torch.Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        patch: int = 16,
        share: int = 2,
        rank: int = 8,
        radius_m: float = 0.0,
        rope: float = 0.0,
        span_nm: Sequence[float] = (0.0, 1.0),
        kinds: Sequence[str] = KINDS,
        ratio: float = 4.0,
        start: float = 1.0,
        drop: float = 0.0,
    ) -> None:
        """`radius_m` 0: every position sees all; `rope` is the base of the periods, 0: codes are added instead."""
        super().__init__()
        self.side, self.width, self.radius_m, self.span_nm = patch, width, radius_m, span_nm
        self.patch = (1, patch, patch)  # dates, rows, columns
        for kind in kinds:
            self.add_module(f"{kind}_patch_embed", PatchEmbed(patch, width))
        for name in ("cls_token", "spatial_cls_token", "channel_cls_token"):
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 1, width)))
        self.rope = rope > 0
        if self.rope:
            channel, spatial = (one // heads for one in shares_of(width, heads, share))
            self.pos_chan_embed = nn.Module()
            self.pos_chan_embed.register_buffer("periods_hw", periods(spatial, 2, rope))
            self.pos_chan_embed.register_buffer("periods_c", periods(channel, 1, rope))
        self.blocks = nn.ModuleList(
            LowRankBlock(width, heads, share, rank, ratio=ratio, start=start, drop=drop)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, EPS)
        _start(self)

    def embed(self, x: torch.Tensor, seen: Spectrum, kept: Kept | None) -> torch.Tensor:
        """Tokens (B, C, N, D) of patches, or (B, K, L, D) of those kept, by the embedding of their kind."""
        patches = cut(x, self.side)
        if kept is not None:
            patches = _picked(patches, kept)
        if len(set(seen.radar)) == 1:
            return self.of_kind(KINDS[seen.radar[0]])(patches)
        radar = torch.tensor(seen.radar, device=x.device)
        radar = radar.expand(len(x), -1) if kept is None else radar[kept.channels]
        tokens = patches.new_empty(*patches.shape[:3], self.width)
        for kind, here in zip(KINDS, (~radar, radar), strict=True):
            tokens = tokens.masked_scatter(
                here[:, :, None, None], self.of_kind(kind)(patches[here]).to(tokens.dtype)
            )
        return tokens

    def of_kind(self, kind: str) -> nn.Module:
        """The embedding of patches of optical or radar channels."""
        return self.get_submodule(f"{kind}_patch_embed")

    def on_grid(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, C, N, D) with the class tokens before them (B, 1 + C, 1 + N, D)."""
        b, c, n, _ = tokens.shape
        x = torch.cat([self.channel_cls_token[None].expand(b, 1, n, -1), tokens], dim=1)
        corner = self.cls_token[None].expand(b, 1, 1, -1)
        edge = torch.cat([corner, self.spatial_cls_token[None].expand(b, c, 1, -1)], dim=1)
        return torch.cat([edge, x], dim=2)

    def forward(
        self, x: torch.Tensor, seen: Spectrum, kept: Kept | None = None, each: bool = False
    ) -> list[torch.Tensor]:
        """Tokens (B, 1 + C, 1 + N, D) of images (B, C, H, W) after all blocks, normed; with `each` after every block."""
        grid = (x.shape[2] // self.side, x.shape[3] // self.side)
        tokens = self.on_grid(self.embed(x, seen, kept))
        turns = self._turns(grid, seen, kept) if self.rope else None
        if not self.rope:
            tokens = tokens + coded(grid, seen, self.width, tokens, kept)
        mask = _mask(self, grid, seen.gsd_m, tokens.device)
        real = None
        if kept is not None:
            at = pad(kept.positions + 1, (1, 0))
            mask = None if mask is None else mask[at[:, :, None], at[:, None]][:, None]
            real = (
                None
                if kept.real is None
                else tuple(pad(one, (1, 0), value=True) for one in kept.real)
            )
        found = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, mask, turns, real)
            if each and i + 1 < len(self.blocks):
                found.append(tokens)
        return [*found, self.norm(tokens)]

    def _turns(self, grid: Grid, seen: Spectrum, kept: Kept | None) -> Turns:
        low, high = self.span_nm
        unit = [(nm - low) / (high - low) for nm in seen.nm]
        periods = self.pos_chan_embed
        at, along = turns_of(grid, unit, periods.periods_hw, periods.periods_c)  # type: ignore[arg-type]
        if kept is None:
            return at, along
        return (
            (at[0][0][kept.positions], at[1][0][kept.positions]),
            (along[0][0][kept.channels], along[1][0][kept.channels]),
        )


def coded(
    grid: Grid, seen: Spectrum, width: int, like: torch.Tensor, kept: Kept | None = None
) -> torch.Tensor:
    """Codes (1 or B, 1 + C, 1 + N, D) of the tokens of a grid: the mean of those of band and ground."""
    bands = band_codes(seen.nm, width).to(like)[None]
    ground = ground_codes(grid, seen.gsd_m, width).to(like)[None]
    if kept is not None:
        bands, ground = _rows(bands[0], kept.channels), _rows(ground[0], kept.positions)
    return (bands[:, :, None] + ground[:, None]) / 2


def _rows(codes: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The class token's row, and those kept (B, K), of codes (1 + C, D)."""
    return codes[pad(kept + 1, (1, 0))]


def _mask(
    part: "Encoder | Decoder", grid: Grid, gsd_m: float, device: torch.device
) -> torch.Tensor | None:
    if not part.radius_m:
        return None
    return near(grid, part.side * gsd_m, part.radius_m).to(device)


class Decoder(nn.Module):
    """Latent tokens, and learnt ones wherever a channel or a position is missing, to the pixels of every patch."""

    mask_token: torch.Tensor
    spatial_mask_token: torch.Tensor
    channel_mask_token: torch.Tensor

    def __init__(
        self,
        latent: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        *,
        patch: int = 16,
        share: int = 2,
        rank: int = 8,
        radius_m: float = 0.0,
        kinds: Sequence[str] = KINDS,
        ratio: float = 4.0,
        start: float = 1.0,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.side, self.width, self.radius_m = patch, width, radius_m
        for name in ("mask_token", "spatial_mask_token", "channel_mask_token"):
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 1, 1, width)))
        self.decoder_embed = nn.Linear(latent, width)
        self.decoder_blocks = nn.ModuleList(
            LowRankBlock(width, heads, share, rank, ratio=ratio, start=start, drop=drop)
            for _ in range(depth)
        )
        self.decoder_norm = nn.LayerNorm(width, EPS)
        for kind in kinds:
            self.add_module(f"decoder_{kind}_pred", nn.Linear(width, patch * patch))
        _start(self)

    def forward(self, latent: torch.Tensor, grid: Grid, seen: Spectrum, kept: Kept) -> torch.Tensor:
        """Patches (B, C, N, p p) of latent (B, 1 + K, 1 + L, D)."""
        x = self.filled(self.decoder_embed(latent), kept)
        x = x + coded(grid, seen, self.width, x)
        mask = _mask(self, grid, seen.gsd_m, x.device)
        for block in self.decoder_blocks:
            x = block(x, mask)
        x = self.decoder_norm(x)[:, 1:, 1:]
        rows = torch.tensor(seen.radar, device=x.device)
        found = x.new_empty(*x.shape[:3], self.side**2)
        for kind, here in zip(KINDS, (~rows, rows), strict=True):
            if bool(here.any()):
                said = self.get_submodule(f"decoder_{kind}_pred")(x[:, here])
                found = found.to(said.dtype).index_copy(1, here.nonzero()[:, 0], said)
        return found

    def filled(self, x: torch.Tensor, kept: Kept) -> torch.Tensor:
        """(B, 1 + K, 1 + L, D) -> (B, 1 + C, 1 + N, D), with what is missing in its place."""
        b, k, _, d = x.shape
        if kept.real is not None:
            x = self._without(x, kept.real)
        n, c = kept.position_back.shape[1], kept.channel_back.shape[1]
        gone = n - kept.positions.shape[1]
        gap = torch.cat(
            [
                self.channel_mask_token.expand(b, 1, gone, d),
                self.mask_token.expand(b, k - 1, gone, d),
            ],
            dim=1,
        )
        rest = torch.cat([x[:, :, 1:], gap], dim=2)
        back = kept.position_back[:, None, :, None].expand(-1, k, -1, d)
        x = torch.cat([x[:, :, :1], rest.gather(2, back)], dim=2)
        gone = c - kept.channels.shape[1]
        gap = torch.cat(
            [self.spatial_mask_token.expand(b, gone, 1, d), self.mask_token.expand(b, gone, n, d)],
            dim=2,
        )
        rest = torch.cat([x[:, 1:], gap], dim=1)
        back = kept.channel_back[:, :, None, None].expand(-1, -1, n + 1, d)
        return torch.cat([x[:, :1], rest.gather(1, back)], dim=1)

    def _without(self, x: torch.Tensor, real: Real) -> torch.Tensor:
        """What stands for a channel or a position that is not there is put in its place."""
        there, at = (pad(one, (1, 0), value=True) for one in real)
        x = torch.where(at[:, None, :, None], x, self.mask_token)
        row = torch.where(at[:, None, :, None], x[:, :1], self.channel_mask_token)
        x = torch.where(there[:, :, None, None], torch.cat([row, x[:, 1:]], 1), self.mask_token)
        column = torch.where(there[:, :, None, None], x[:, :, :1], self.spatial_mask_token)
        return torch.cat([column, x[:, :, 1:]], dim=2)


def _start(part: nn.Module) -> None:
    """Initial weights as the authors have them."""
    for name, one in part.named_parameters(recurse=False):
        if name.endswith("_token"):
            nn.init.normal_(one, std=0.02)
    for inner in part.modules():
        if isinstance(inner, nn.Linear):
            nn.init.xavier_uniform_(inner.weight)
            nn.init.zeros_(inner.bias)
