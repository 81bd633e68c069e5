"""LESS ViT: low-rank attention over space and spectrum, for any list of bands, optical and radar.

Source: Si et al. 2025 (arXiv:2503.12843); turned positions as in its successor (arXiv:2605.18541). The authors' key
names; equal to their modules to float noise.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.less import KINDS, Encoder, Spectrum, Tokens, kept_of
from geoml_cli.core.layers.masked import PARTLY
from geoml_cli.core.layers.pad import Fitted, cropped, fitted
from geoml_cli.core.layers.sizes import size_called
from geoml_cli.core.sensor import mean_of_dates
from geoml_cli.errors import UsageMistake

time = "native"
DECODER = "hyper-mae"  # the head that makes images of its tokens
BANDS = True  # is told the common name and the wavelength of each band
SIZES = {"tiny": (192, 4, 6), "small": (384, 12, 6), "base": (768, 12, 12)}  # width, layers, heads
RADAR_NM = {"vv": 5500.0, "hh": 5500.0, "vh": 5700.0, "hv": 5700.0}  # as the authors place them
LONG_NM = 1e6  # radar that is given as a wavelength
SPAN_NM = (400.0, 2500.0)  # of which the turned variant counts shares
TAPS = 4  # maps that are given, of layers evenly apart
READOUTS = ("patches", "class", "channels")


class LessViT(Encoder):
    """(B, T, C, H, W) -> four maps of one stride, of layers at each quarter of the depth; the mean of the dates."""

    equivariant = False

    def __init__(
        self, bands: Sequence[tuple[float, bool]], gsd_m: float, clipped: bool, readout: str,
        best: int, **how: Any,
    ) -> None:  # fmt: skip
        kinds = [
            kind for i, kind in enumerate(KINDS) if any(radar == bool(i) for _, radar in bands)
        ]
        super().__init__(kinds=kinds, **how)
        self.bands, self.gsd_m, self.clipped = tuple(bands), gsd_m, clipped
        self.readout, self.best = readout, best
        self.fit = Fitted(self.side)
        if readout == "channels":
            self.gate = nn.Linear(self.width, 1)
        depth, taps = len(self.blocks), min(TAPS, len(self.blocks))
        self._taps = [(i + 1) * depth // taps - 1 for i in range(taps)]
        self.channels, self.strides = [self.width] * taps, [self.side] * taps

    def by_depth(self) -> list[nn.Module]:
        """Embeddings and class tokens, blocks and the last norm, from input to output."""
        last = nn.ModuleList([self.norm, *([self.gate] if self.readout == "channels" else [])])
        inside = (self.blocks, *last)
        first = nn.ModuleList(one for one in self.children() if all(one is not x for x in inside))
        for name, one in self.named_parameters(recurse=False):
            first.register_parameter(name, one)
        return [first, *self.blocks, last]

    def transformer(self) -> tuple[list[nn.Module], int]:
        """Blocks over tokens (B, 1 + C, 1 + N, D), and D."""
        return list(self.blocks), self.width

    def spectrum(self, count: int, batch: Batch) -> Spectrum:
        """What is known of the bands of a batch: as the encoder was told, or for other ones as the batch says."""
        bands = self.bands
        if len(bands) != count:
            told = batch.wavelength_nm
            if told is None or len(told) != count or not bool(told.isfinite().all()):
                raise UsageMistake(
                    f"less-vit: {count} bands, of which the wavelengths are not known"
                )
            bands = tuple(placed(None, nm) for nm in told.tolist())
        nm, radar = zip(*bands, strict=True)
        return Spectrum(nm, radar, float(batch.gsd_m or self.gsd_m))

    def shown(self, x: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, Spectrum]:
        """What is given (B, T, C, H, W) as the blocks take it (B T, C, H', W'), padded to whole patches."""
        seen = self.spectrum(x.shape[2], batch)
        if self.clipped:
            x = (x / 4 + 0.5).clamp(0, 1)
        return self.fit(x.flatten(0, 1)), seen

    def forward(self, x: torch.Tensor, batch: Batch) -> list[torch.Tensor]:  # type: ignore[override]
        """Maps (B, D, h, w) of what the channels say together; the last one is normed."""
        laid, seen = self.shown(x, batch)
        every = super().forward(laid, seen, each=True)
        maps = [self.map_of(every[i], self.fit.grid) for i in self._taps]
        maps = cropped(maps, x.shape[-2:], self.strides)
        if x.shape[1] == 1:
            return maps
        return [mean_of_dates(one.unflatten(0, x.shape[:2]), batch.valid) for one in maps]

    def map_of(self, tokens: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """A map (B, D, h, w) of tokens (B, 1 + C, 1 + N, D)."""
        if self.readout == "patches":
            return tokens[:, 0, 1:].transpose(1, 2).unflatten(2, tuple(size))
        said = tokens[:, 0, 0] if self.readout == "class" else self.mixed(tokens[:, 1:, 0])
        return said[:, :, None, None].expand(-1, -1, *size)

    def mixed(self, channels: torch.Tensor) -> torch.Tensor:
        """Class tokens (B, C, D) of the channels, mixed: those of the best scores, by their softmax."""
        scores = self.gate(channels)[..., 0]
        best, at = scores.topk(min(self.best, scores.shape[1]), dim=1)
        weights = torch.zeros_like(scores).scatter(1, at, best.softmax(1))
        return (weights[..., None] * channels).sum(1)

    def summary(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The class token (B, D), normed; the mean of the dates that show anything."""
        laid, seen = self.shown(x, batch)
        said = super().forward(laid, seen)[0][:, 0, 0].unflatten(0, x.shape[:2])
        weight = batch.valid.flatten(2).any(2)[..., None].to(said.dtype) + 1e-3
        return (said * weight).sum(1) / weight.sum(1)

    def tokens(self, x: torch.Tensor, batch: Batch) -> Tokens:
        """What is said of the channels and patches that are seen, for a head that makes images of it."""
        missing = ~batch.valid[:, :, None]
        if batch.hide is not None:
            missing = missing | batch.hide
        flat = fitted(missing.expand(x.shape).flatten(0, 1).float(), self.side)
        hidden = avg_pool2d(flat, self.side).flatten(2) > PARTLY  # (B T, C, N)
        channels = hidden.all(2)
        kept = kept_of(channels, (hidden & ~channels[:, :, None]).any(1))
        laid, seen = self.shown(x, batch)
        grid, self.fit.size = self.fit.grid, (0, 0)  # the tokens are those of no grid
        return Tokens(super().forward(laid, seen, kept)[-1], grid, seen, kept, x.shape[1])


def placed(name: str | None, nm: float | None) -> tuple[float, bool]:
    """Where a band is put in the spectrum, and whether it is radar; NaN where nothing is known."""
    if name in RADAR_NM:
        return RADAR_NM[name], True
    if nm is None or not math.isfinite(nm):
        return math.nan, False
    return (RADAR_NM["vv"], True) if nm > LONG_NM else (float(nm), False)


def bands_of(
    count: int, named: Sequence[Sequence[Any]], wavelengths: str
) -> list[tuple[float, bool]]:
    """Where every band is put: by what was given as an option, or by what is known of it; raises where nothing is."""
    if wavelengths:
        try:
            words = [w if w in RADAR_NM else float(w) for w in wavelengths.split("-")]
        except ValueError:
            raise UsageMistake(f"less-vit:wavelengths={wavelengths}: nanometres, vv, vh, hh or hv joined by -, as 490-560-vv") from None  # fmt: skip
        found = [placed(w, None) if isinstance(w, str) else placed(None, w) for w in words]
    else:
        found = [placed(name, nm) for name, nm in named]
    if len(found) != count:
        raise UsageMistake(f"less-vit: {count} bands, and wavelengths of {len(found)}; give wavelengths=490-560-..., and no --codes")  # fmt: skip
    for i, (nm, _) in enumerate(found):
        if math.isnan(nm):
            raise UsageMistake(f"less-vit: no wavelength of band {i + 1} is known; give those of all as wavelengths=490-560-...")  # fmt: skip
    return found


def build(
    in_channels: int,
    frames: int,
    named: Sequence[Sequence[Any]] = (),
    *,
    size: str = "small",
    width: int | None = None,
    layers: int | None = None,
    heads: int | None = None,
    patch: int = 16,
    rank: int = 8,
    share: int = 2,
    radius_m: float = 0.0,
    positions: str = "added",
    base: float = 100.0,
    wavelengths: str = "",
    gsd_m: float = 10.0,
    clipped: bool = False,
    readout: str = "patches",
    best: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """Build `size` tiny, small or base, or of the numbers given; `share` numbers of a head are a channel's.

    Bands are told apart by their `wavelengths` in nm (490-560-665; vv, vh, hh, hv are radar) where the input does not say, positions
    by metres: `gsd_m` where it is not known. With `radius_m` patches see no further. `positions=turned` is the
    later variant (RoPE), of periods up to `base`. `clipped`: inputs to 0..1 over two standard deviations either side, as the authors
    train. `readout`: maps of `patches`, or everywhere the `class` token, or the `channels` mixed, the `best` of them: for labels a tile.
    """
    usual = size_called(size, SIZES)
    if positions not in ("added", "turned"):
        raise UsageMistake(f"less-vit:positions={positions}: added or turned")
    if readout not in READOUTS:
        raise UsageMistake(f"less-vit:readout={readout}: one of {', '.join(READOUTS)}")
    if rank < 1 or best < 1 or patch < 1 or radius_m < 0 or gsd_m <= 0 or not 0 <= dropout < 1:
        raise UsageMistake(f"less-vit: rank={rank},best={best},patch={patch},radius_m={radius_m},gsd_m={gsd_m},dropout={dropout}: out of range")  # fmt: skip
    many, wide = heads or usual[2], width or usual[0]
    turned = positions == "turned"
    if turned and (share % 2 or wide // (many * share) % 4):
        raise UsageMistake("less-vit:positions=turned: wants an even share, and heads of a multiple of 4 numbers a position")  # fmt: skip
    return LessViT(
        bands_of(in_channels, named, wavelengths), gsd_m, clipped, readout, best,
        width=wide, depth=layers or usual[1], heads=many, patch=patch, share=share, rank=rank,
        radius_m=radius_m, rope=base if turned else 0.0, span_nm=SPAN_NM, drop=dropout,
    )  # fmt: skip


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of a whole autoencoder: those of its encoder."""
    mine = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    return mine or state


def adapt(state: dict[str, torch.Tensor], encoder: Any) -> dict[str, torch.Tensor]:
    """The embedding of a kind of bands that this encoder has none of is left out; no other weight knows the bands."""
    own = encoder.state_dict()
    gone = tuple(f"{k}_patch_embed." for k in KINDS if not any(o.startswith(k) for o in own))
    return {k: v for k, v in state.items() if not (gone and k.startswith(gone))}
