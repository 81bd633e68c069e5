"""Low-rank attention over channels and positions against full attention over both, and against its maths as einsum says it.

Of one block of width 768, 12 heads, rank 8, 2 numbers a head for a channel, on 64 patches: floating-point operations of the
attentions, seconds of a forward pass, and how much memory a pass takes at its peak.
"""

import multiprocessing
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from bench.pairs import compare
from geoml_cli.core.layers.low_rank import Branch, LowRankBlock
from geoml_cli.core.layers.masked import Attention

WIDTH, HEADS, SHARE, RANK, PATCHES = 768, 12, 2, 8, 64
BANDS = (13, 64, 202)
PAIRS = 3


class Low(torch.nn.Module):
    """Pools and low-rank attention, as in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.block = LowRankBlock(WIDTH, HEADS, SHARE, RANK)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, N, D) -> the same."""
        c, s = self.block.low_dim_pool(x)
        return self.block.attn(self.block.channel_norm(c), self.block.spatial_norm(s))


class Plain(Low):
    """The same weights and numbers, the outer products of every rank put down before they are added."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, N, D) -> the same."""
        c, s = self.block.low_dim_pool(x)
        attn = self.block.attn
        c = self._branch(attn.channel_branch, self.block.channel_norm(c))
        s = self._branch(attn.spatial_branch, self.block.spatial_norm(s))
        found = torch.einsum("...ca,...nb->...cnab", c, s).flatten(-2).sum(1)
        return attn.proj(found.permute(0, 2, 3, 1, 4).flatten(3))

    def _branch(self, branch: Branch, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k = branch.qk(x).view(b, n, 2, HEADS, RANK, -1).permute(2, 0, 4, 3, 1, 5)
        v = branch.v(x).view(b, n, HEADS, -1).transpose(1, 2)
        weights = torch.einsum("brhnd,brhmd->brhnm", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
        return torch.einsum("brhnm,bhmd->brhnd", weights, v)


class Full(torch.nn.Module):
    """Fused attention of every token of the grid to every other."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(WIDTH, HEADS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, N, D) -> the same."""
        return self.attention(x.flatten(1, 2)).view_as(x)


KINDS = {"low": Low, "einsum": Plain, "full": Full}


def given(bands: int) -> torch.Tensor:
    """Tokens of a grid, class tokens included."""
    return torch.randn(1, 1 + bands, 1 + PATCHES, WIDTH)


def attention_gigaflops(kind: str, bands: int) -> float:
    """Operations of the attentions alone, products of queries and keys and with values."""

    def counted(q: Any, k: Any, v: Any, *more: Any, out_shape: Any = None, **others: Any) -> int:
        return sdpa_flop_count(q, k, v)

    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={op: counted}) as counter:
        KINDS[kind]()(given(bands))
    whole = counter.get_flop_counts()["Global"]
    return sum(v for k, v in whole.items() if "scaled_dot_product" in str(k)) / 1e9


def _peak(kind: str, bands: int, answer: Any) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    part, x = KINDS[kind](), given(bands)
    scaled_dot_product_attention(*torch.randn(3, 1, 1, 8, 8))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here (Linux)
    before = _kilobytes("VmRSS")
    with torch.no_grad():
        part(x)
    answer.put((_kilobytes("VmHWM") - before) / 1024)


def _kilobytes(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(one for one in lines if one.startswith(what)).split()[1])


def peak_mb(kind: str, bands: int) -> float:
    """Memory of a pass above what weights and input take, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_peak, args=(kind, bands, answer))
    process.start()
    found = answer.get()
    process.join()
    return float(found)


def main() -> None:
    """Print operations, ratios of seconds and peaks for each number of bands."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for bands in BANDS:
        low, full = (attention_gigaflops(kind, bands) for kind in ("low", "full"))
        print(f"{bands} bands: attention {low:.3f} GF, full {full:.3g} GF", flush=True)
        parts, x = {name: kind() for name, kind in KINDS.items()}, given(bands)
        parts["einsum"].load_state_dict(parts["low"].state_dict())
        with torch.no_grad():
            torch.testing.assert_close(parts["low"](x), parts["einsum"](x), atol=1e-4, rtol=1e-3)

            def passed(name: str, parts: Any = parts, x: torch.Tensor = x) -> None:
                with torch.no_grad():
                    parts[name](x)

            for other in ("einsum", "full"):
                compare(
                    f"{bands} bands, seconds: low-rank / {other}",
                    lambda: passed("low"),
                    lambda other=other: passed(other),  # type: ignore[misc]
                    PAIRS,
                )
        peaks = ", ".join(f"{kind} {peak_mb(kind, bands):.0f} MB" for kind in KINDS)
        print(f"{bands} bands, memory of a pass: {peaks}", flush=True)


if __name__ == "__main__":
    main()
