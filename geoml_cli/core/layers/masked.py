"""Masked autoencoder over space and time, as Prithvi has it.

Sources: He et al. 2022 (CVPR, MAE); Jakubik et al. 2023 (arXiv:2310.18660, Prithvi-EO-1.0); Szwarcman et al. 2024
(arXiv:2412.02732, Prithvi-EO-2.0). Tokens lie in the order time, row, column; key names are the authors'.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import avg_pool3d, interpolate, scaled_dot_product_attention

Size = tuple[int, int, int]
WAVE = 10_000.0
PARTLY = 0.25  # of a patch: it is seen while no more of it is missing


def waves(places: torch.Tensor, width: int) -> torch.Tensor:
    """Sines, then cosines (..., width) of places (...), in float64; width is even."""
    step = torch.arange(width // 2, dtype=torch.float64, device=places.device) / (width / 2)
    angle = places.double()[..., None] / WAVE**step
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def place_codes(width: int, grid: Size, cls: bool = True) -> torch.Tensor:
    """Codes (1, T h w (+ 1), width) float32 of the tokens of a grid (T, h, w): column, row, time one after
    another, in parts of 6, 6 and 4 sixteenths; the class token's is 0.
    """
    t, h, w = grid
    parts = (width // 16 * 6, width // 16 * 6, width // 16 * 4)
    across, down, along = (
        waves(torch.arange(n), part) for n, part in zip((w, h, t), parts, strict=True)
    )
    found = torch.cat(
        [
            across.view(1, 1, w, -1).expand(t, h, w, -1),
            down.view(1, h, 1, -1).expand(t, h, w, -1),
            along.view(t, 1, 1, -1).expand(t, h, w, -1),
        ],
        dim=-1,
    ).reshape(1, t * h * w, -1)
    zero = found.new_zeros(1, 1, width)
    return (torch.cat([zero, found], dim=1) if cls else found).float()


class Attention(nn.Module):
    """Self-attention, fused."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, D) -> the same; nothing looks at tokens that are not `real` (B, N)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if real is None else real[:, None, None]
        return self.proj(scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> the same."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each normed before and beside its input."""

    def __init__(self, width: int, heads: int, ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps), Mlp(width, int(width * ratio))

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(B, N, D) -> the same; nothing looks at tokens that are not `real` (B, N)."""
        x = x + self.attn(self.norm1(x), real)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Images (B, C, T, H, W) to tokens (B, N, D), by a convolution over a patch."""

    def __init__(self, bands: int, width: int, patch: Size) -> None:
        super().__init__()
        self.proj = nn.Conv3d(bands, width, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens in the order time, row, column."""
        return self.proj(x).flatten(2).transpose(1, 2)


class DateCode(nn.Module):
    """Year and day of the year of every frame, half of the width each, by a learnt scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, dates: torch.Tensor, a_frame: int) -> torch.Tensor:
        """Codes (B, T a_frame, D) of (B, T, 2) year and day, each frame's repeated for its tokens."""
        half = self.width // 2
        year, day = waves(dates[..., 0], half), waves(dates[..., 1], self.width - half)
        code = torch.cat([year, day], dim=-1).to(self.scale.dtype)
        return self.scale * code.repeat_interleave(a_frame, dim=1)


class PlaceCode(nn.Module):
    """Two coordinates of the sample, half of the width each, by a learnt scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Codes (B, 1, D) of (B, 2) degrees, in the order that they are given in."""
        half = self.width // 2
        first, second = waves(places[:, 0], half), waves(places[:, 1], self.width - half)
        code = torch.cat([first, second], dim=-1).to(self.scale.dtype)
        return self.scale * code[:, None]


def _added(
    x: torch.Tensor,
    date: nn.Module | None,
    place: nn.Module | None,
    known: "Known | None",
    frames: int,
) -> torch.Tensor:
    """Tokens (B, N, D) with the codes of what is known; a sample of which it is not gets none."""
    if known is None:
        return x
    dates, places = known
    if date is not None and dates is not None:
        some = torch.isfinite(dates).all((1, 2))
        code = date(dates.nan_to_num(), x.shape[1] // frames)
        x = x + torch.where(some[:, None, None], code, 0)
    if place is not None and places is not None:
        some = torch.isfinite(places).all(1)
        x = x + torch.where(some[:, None, None], place(places.nan_to_num()), 0)
    return x


Known = tuple[torch.Tensor | None, torch.Tensor | None]  # dates (B, T, 2), places (B, 2)


class Tokens(NamedTuple):
    """What an encoder says of the patches of images that it was shown.

    latent (B, 1 + K, D): the class token, then K patches, of which only the `real` (B, K) were seen (None:
    all). restore (B, N): where each of the N patches of `grid` is, among these and then those that were not seen.
    """

    latent: torch.Tensor
    grid: Size
    restore: torch.Tensor
    real: torch.Tensor | None
    known: "Known | None"


def hidden_patches(missing: torch.Tensor, patch: Size) -> torch.Tensor:
    """Patches (B, N) of which more than a quarter of the pixels (B, T, H, W) are missing."""
    share = avg_pool3d(missing[:, None].float(), patch)
    return share.flatten(1) > PARTLY


class Encoder(nn.Module):
    """Tokens of patches through transformer blocks; some of them only, if so asked."""

    pos_embed: torch.Tensor

    def __init__(
        self,
        bands: int,
        frames: int,
        image: int,
        patch: Size,
        width: int,
        depth: int,
        heads: int,
        ratio: float = 4.0,
        codes: Sequence[str] = (),
        eps: float = 1e-5,
    ) -> None:
        """`codes` are of `time` and `location`; `image` is the side that the place codes are laid for."""
        super().__init__()
        self.patch, self.width, self.frames, self.codes = patch, width, frames, tuple(codes)
        self.grid: Size = (frames // patch[0], image // patch[1], image // patch[2])
        self.patch_embed = PatchEmbed(bands, width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", place_codes(width, self.grid))
        if "time" in codes:
            self.temporal_embed_enc = DateCode(width)
        if "location" in codes:
            self.location_embed_enc = PlaceCode(width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps)
        self._start()

    def _start(self) -> None:
        """Initial weights as in MAE."""
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def codes_for(self, grid: Size) -> torch.Tensor:
        """Place codes of another grid: of other dates anew, of other sides resized bicubically."""
        if grid == self.grid:
            return self.pos_embed
        codes = self.pos_embed
        if grid[0] != self.grid[0]:
            codes = place_codes(self.width, (grid[0], *self.grid[1:])).to(codes)
        if grid[1:] == self.grid[1:]:
            return codes
        table = codes[0, 1:].view(grid[0], *self.grid[1:], -1).permute(0, 3, 1, 2)
        table = interpolate(table, size=grid[1:], mode="bicubic", align_corners=True)
        return torch.cat(
            [codes[:, :1], table.permute(0, 2, 3, 1).reshape(1, -1, self.width)], dim=1
        )

    def embed(self, x: torch.Tensor, known: Known | None) -> tuple[torch.Tensor, Size]:
        """Tokens (B, N, D) of images (B, C, T, H, W) with their codes, without the class token; their grid."""
        t, h, w = (n // p for n, p in zip(x.shape[2:], self.patch, strict=True))
        grid = (t, h, w)
        tokens = self.patch_embed(x) + self.codes_for(grid)[:, 1:]
        date = getattr(self, "temporal_embed_enc", None)
        place = getattr(self, "location_embed_enc", None)
        return _added(tokens, date, place, known, t), grid

    def through(
        self, tokens: torch.Tensor, each: bool = False, real: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Tokens through all blocks: outputs (B, 1 + N, D) of the last, or of each; the last one normed."""
        cls = self.cls_token + self.pos_embed[:, :1]
        x = torch.cat([cls.expand(len(tokens), -1, -1), tokens], dim=1)
        if real is not None:
            real = torch.cat([real.new_ones(len(real), 1), real], dim=1)
        found = []
        for i, block in enumerate(self.blocks):
            x = block(x, real)
            if each and i + 1 < len(self.blocks):
                found.append(x)
        return [*found, self.norm(x)]

    def forward(
        self, x: torch.Tensor, known: Known | None = None, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Size]:
        """Latent tokens (B, 1 + K, D) of those at `keep` (B, K), or of all; and the grid."""
        tokens, grid = self.embed(x, known)
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2]))
        return self.through(tokens)[0], grid

    def seen(self, x: torch.Tensor, known: Known | None, hidden: torch.Tensor) -> Tokens:
        """What is said of the patches that are not hidden (B, N), of which samples may have unlike many."""
        tokens, grid = self.embed(x, known)
        order = hidden.byte().argsort(dim=1, stable=True)  # those that are seen first
        counts = (~hidden).sum(1)
        most = int(counts.max())
        kept = order[:, :most]
        real = torch.arange(most, device=kept.device) < counts[:, None]
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        told = None if bool(real.all()) else real
        return Tokens(self.through(tokens, real=told)[0], grid, order.argsort(dim=1), told, known)


class Decoder(nn.Module):
    """Latent tokens, and a learnt one wherever a token is missing, to the pixels of every patch."""

    decoder_pos_embed: torch.Tensor

    def __init__(
        self,
        bands: int,
        grid: Size,
        patch: Size,
        latent: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        ratio: float = 4.0,
        codes: Sequence[str] = (),
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.grid, self.width = grid, width
        self.decoder_embed = nn.Linear(latent, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("decoder_pos_embed", place_codes(width, grid))
        if "time" in codes:
            self.temporal_embed_dec = DateCode(width)
        if "location" in codes:
            self.location_embed_dec = PlaceCode(width)
        self.decoder_blocks = nn.ModuleList(Block(width, heads, ratio, eps) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width, eps)
        self.decoder_pred = nn.Linear(width, patch[0] * patch[1] * patch[2] * bands)
        nn.init.normal_(self.mask_token, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def codes_for(self, grid: Size) -> torch.Tensor:
        """Place codes of a grid."""
        if grid == self.grid:
            return self.decoder_pos_embed
        codes = place_codes(self.width, (grid[0], *self.grid[1:])).to(self.decoder_pos_embed)
        if grid[1:] == self.grid[1:]:
            return codes
        table = codes[0, 1:].view(grid[0], *self.grid[1:], -1).permute(0, 3, 1, 2)
        table = interpolate(table, size=grid[1:], mode="bicubic", align_corners=True)
        return torch.cat(
            [codes[:, :1], table.permute(0, 2, 3, 1).reshape(1, -1, self.width)], dim=1
        )

    def enter(
        self,
        latent: torch.Tensor,
        grid: Size,
        restore: torch.Tensor | None = None,
        known: Known | None = None,
        real: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens (B, 1 + N, D) of all patches, a learnt one where one was not seen, with their codes."""
        x = self.decoder_embed(latent)
        cls, tokens = x[:, :1], x[:, 1:]
        if real is not None:
            tokens = torch.where(real[..., None], tokens, self.mask_token)
        if restore is not None:
            missing = restore.shape[1] - tokens.shape[1]
            tokens = torch.cat([tokens, self.mask_token.expand(len(x), missing, -1)], dim=1)
            tokens = tokens.gather(1, restore[..., None].expand(-1, -1, tokens.shape[2]))
        codes = self.codes_for(grid)
        tokens = tokens + codes[:, 1:]
        date = getattr(self, "temporal_embed_dec", None)
        place = getattr(self, "location_embed_dec", None)
        tokens = _added(tokens, date, place, known, grid[0])
        return torch.cat([cls + codes[:, :1], tokens], dim=1)

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        """Patches (B, N, pT pH pW C) of tokens that went through the blocks."""
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def forward(
        self,
        latent: torch.Tensor,
        grid: Size,
        restore: torch.Tensor | None = None,
        known: Known | None = None,
    ) -> torch.Tensor:
        """Patches (B, N, pT pH pW C) of latent (B, 1 + K, D); `restore` (B, N) is where each token is among
        those that were kept, followed by those that are missing.
        """
        x = self.enter(latent, grid, restore, known)
        for block in self.decoder_blocks:
            x = block(x)
        return self.leave(x)


def patches_of(x: torch.Tensor, patch: Size) -> torch.Tensor:
    """Images (B, C, T, H, W) as patches (B, N, pT pH pW C)."""
    b, c, t, h, w = x.shape
    p, q, r = patch
    x = x.reshape(b, c, t // p, p, h // q, q, w // r, r).permute(0, 2, 4, 6, 3, 5, 7, 1)
    return x.reshape(b, (t // p) * (h // q) * (w // r), p * q * r * c)


def images_of(patches: torch.Tensor, grid: Size, patch: Size) -> torch.Tensor:
    """The inverse of `patches_of`."""
    (t, h, w), (p, q, r) = grid, patch
    x = patches.reshape(len(patches), t, h, w, p, q, r, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(len(patches), -1, t * p, h * q, w * r)


def shuffled(noise: torch.Tensor, ratio: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What noise (B, N) keeps (B, K), where each token is then (B, N), and a mask (B, N), 1 where it is missing."""
    count = noise.shape[1]
    kept = int(count * (1 - ratio))
    order = noise.argsort(dim=1, stable=True)
    restore = order.argsort(dim=1)
    mask = torch.ones_like(noise)
    mask[:, :kept] = 0
    return order[:, :kept], restore, mask.gather(1, restore)
