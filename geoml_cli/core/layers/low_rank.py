"""Attention over channels and over positions apart, put together as a sum of outer products.

Source: Si et al. 2025 (LESS ViT, arXiv:2503.12843), section 3. Tokens lie on a grid (B, C, N, D) of channels and
positions, the class tokens at 0 of both. Key names are the authors'; equal to their modules to float noise.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from geoml_cli.core.layers.masked import Mlp
from geoml_cli.errors import UsageMistake

EPS = 1e-6
Turn = tuple[
    torch.Tensor, torch.Tensor
]  # sine and cosine (B or 1, N, head dims) of every place but the class token's
Turns = tuple[Turn, Turn]  # of positions, of channels
Real = tuple[
    torch.Tensor, torch.Tensor
]  # which channels (B, C) and positions (B, N) there are; nothing looks at others


class Pool(nn.Module):
    """Attention of the first of some tokens to all of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(B, M, N, d) -> (B, M, d); of the N those that are `real` (B, N) are seen."""
        b, m = x.shape[:2]
        q = self.q(x[:, :, 0]).reshape(b * m, self.heads, 1, -1)
        k, v = self.kv(x).reshape(b * m, x.shape[2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if real is None else real.repeat_interleave(m, 0)[:, None, None]
        return self.proj(scaled_dot_product_attention(q, k, v, mask).reshape(b, m, -1))


class Pools(nn.Module):
    """What every channel, and every position, has to say: its class token and what that sees."""

    def __init__(self, width: int, channel: int, spatial: int, heads: int) -> None:
        super().__init__()
        self.channel_norm, self.spatial_norm = (
            nn.LayerNorm(channel, EPS),
            nn.LayerNorm(spatial, EPS),
        )
        self.channel_pool, self.spatial_pool = Pool(channel, heads), Pool(spatial, heads)
        self.channel_linear = nn.Linear(width, channel)
        self.spatial_linear = nn.Linear(width, spatial)

    def forward(
        self, x: torch.Tensor, real: Real | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, N, D) -> (B, C, channel), (B, N, spatial)."""
        there, at = real if real is not None else (None, None)
        c, s = self.channel_linear(x), self.spatial_linear(x)
        channels = c[:, :, 0] + self.channel_pool(self.channel_norm(c), at)
        return channels, s[:, 0] + self.spatial_pool(self.spatial_norm(s).transpose(1, 2), there)


class Branch(nn.Module):
    """Attention along one axis, of several ranks that share their values."""

    def __init__(self, width: int, heads: int, rank: int) -> None:
        super().__init__()
        self.heads, self.rank = heads, rank
        self.qk, self.v = nn.Linear(width, 2 * width * rank), nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, turn: Turn | None, drop: float
    ) -> torch.Tensor:
        """(B, N, heads d) -> (B, heads, rank, N, d); one fused attention over heads and ranks."""
        b, n, _ = x.shape
        q, k = self.qk(x).view(b, n, 2, self.heads * self.rank, -1).permute(2, 0, 3, 1, 4)
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        v = self.v(x).view(b, n, self.heads, 1, -1).expand(-1, -1, -1, self.rank, -1)
        v = v.flatten(2, 3).transpose(1, 2)
        found = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        return found.unflatten(1, (self.heads, self.rank))


def turned(x: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Queries or keys (B, H, 1 + N, d), all but the first turned by the angles of their places (RoPE)."""
    sine, cosine = (one[:, None] for one in turn)
    rest = x[:, :, 1:]
    a, b = rest.chunk(2, dim=-1)
    rest = rest * cosine + torch.cat([-b, a], dim=-1) * sine
    return torch.cat([x[:, :, :1], rest.to(x.dtype)], dim=2)


class LowRankAttention(nn.Module):
    """Sum over ranks of the outer product of what both branches say."""

    def __init__(self, width: int, channel: int, spatial: int, heads: int, rank: int) -> None:
        super().__init__()
        self.channel_branch = Branch(channel, heads, rank)
        self.spatial_branch = Branch(spatial, heads, rank)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        channels: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None = None,
        turns: Turns | None = None,
        real: Real | None = None,
        drop: float = 0.0,
    ) -> torch.Tensor:
        """(B, C, channel), (B, N, spatial) -> (B, C, N, D); `mask` (N, N) or (B, 1, N, N) is of positions, True: may be
        seen.
        """
        at, along = turns if turns is not None else (None, None)
        there = None if real is None else real[0][:, None, None]
        if real is not None:
            seen = real[1][:, None, None]
            mask = seen if mask is None else mask & seen
        c = self.channel_branch(channels, there, along, drop)
        s = self.spatial_branch(positions, mask, at, drop)
        return self.proj(outer_sum(c, s))


def outer_sum(c: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """Sum over r of c[h, r, C, a] s[h, r, N, b], as (B, C, N, h a b): a product of matrices a head, not of vectors a rank."""
    b, h, r, count, a = c.shape
    n, width = s.shape[3:]
    left = c.permute(0, 1, 3, 4, 2).reshape(b * h, count * a, r)
    found = torch.bmm(left, s.reshape(b * h, r, n * width))
    found = found.view(b, h, count, a, n, width).permute(0, 2, 4, 1, 3, 5)
    return found.reshape(b, count, n, h * a * width)


class Scale(nn.Module):
    """A learnt factor a channel."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> the same."""
        return x * self.gamma


class LowRankBlock(nn.Module):
    """Low-rank attention and MLP, each normed before and beside its input."""

    def __init__(
        self,
        width: int,
        heads: int,
        share: int,
        rank: int,
        *,
        ratio: float = 4.0,
        start: float = 1.0,
        drop: float = 0.0,
    ) -> None:
        """`share` is the numbers a head has for a channel; `start` that of the layer scales, 0: there are none."""
        super().__init__()
        channel, spatial = shares_of(width, heads, share)
        self.drop = drop
        self.norm1 = nn.LayerNorm(width, EPS)
        self.spatial_norm, self.channel_norm = (
            nn.LayerNorm(spatial, EPS),
            nn.LayerNorm(channel, EPS),
        )
        self.low_dim_pool = Pools(width, channel, spatial, heads)
        self.attn = LowRankAttention(width, channel, spatial, heads, rank)
        self.ls1 = Scale(width, start) if start else nn.Identity()
        self.norm2, self.mlp = nn.LayerNorm(width, EPS), Mlp(width, int(width * ratio))
        self.ls2 = Scale(width, start) if start else nn.Identity()

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        turns: Turns | None = None,
        real: Real | None = None,
    ) -> torch.Tensor:
        """(B, C, N, D) -> the same."""
        drop = self.drop if self.training else 0.0
        c, s = self.low_dim_pool(self.norm1(x), real)
        said = self.attn(self.channel_norm(c), self.spatial_norm(s), mask, turns, real, drop)
        x = x + self.ls1(dropout(said, drop, drop > 0))
        return x + self.ls2(dropout(self.mlp(self.norm2(x)), drop, drop > 0))


def shares_of(width: int, heads: int, share: int) -> Sequence[int]:
    """Widths of the channels' and the positions' branch; raises where they do not multiply to the width of a head."""
    if min(width, heads, share) < 1 or width % (heads * share):
        raise UsageMistake(f"width={width}: no multiple of heads x share = {heads} x {share}")
    return share * heads, width // share
