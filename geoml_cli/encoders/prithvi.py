"""Prithvi-EO: a vision transformer over space and time, pretrained by masking.

Sources: Jakubik et al. 2023 (arXiv:2310.18660); Szwarcman et al. 2024 (arXiv:2412.02732). Code and weights of
the authors: Apache-2.0, MIT. Their key names; equal to their modules to float noise.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.masked import Encoder, Known, Tokens, hidden_patches
from geoml_cli.core.layers.necks import Pyramid, Upscale
from geoml_cli.core.layers.pad import cropped, fitted
from geoml_cli.core.layers.sizes import size_called
from geoml_cli.errors import UsageMistake

time = "native"
DECODER = "mae"  # the head that makes images of its tokens
BANDS = True  # is told the common name and the wavelength of each band
SIZES = {  # width, layers, heads, patch
    "tiny": (192, 12, 3, 16),
    "100": (768, 12, 12, 16),
    "300": (1024, 24, 16, 16),
    "600": (1280, 32, 16, 14),
}
PUBLISHED = (
    "blue",
    "green",
    "red",
    "nir08",
    "swir16",
    "swir22",
)  # bands of the checkpoints, in order
SAME = {"nir": "nir08", "nir_narrow": "nir08"}
TAPS = 4  # maps that are given, of layers evenly apart
LAYOUTS = ("stack", "interleave", "mean")


class Prithvi(Encoder):
    """(B, T, C, H, W) -> four maps of one stride, of layers at each quarter of the depth."""

    equivariant = False

    def __init__(
        self,
        codes: Sequence[str],
        layout: str,
        lon_first: bool,
        first_day: int,
        named: Any,
        neck: str,
        upscaled: int | None,
        **how: Any,
    ) -> None:
        super().__init__(codes=codes, **how)
        self.layout, self.lon_first, self.first_day = layout, lon_first, first_day
        self.named = [SAME.get(str(name), name) for name, _ in named]
        depth, taps = len(self.blocks), min(TAPS, len(self.blocks))
        self._taps = [(i + 1) * depth // taps - 1 for i in range(taps)]
        wide = self.width * (1 if layout == "mean" else self.grid[0])
        self.channels, self.strides = [wide] * taps, [self.patch[1]] * taps
        if neck == "pyramid":
            self.neck: Any = Pyramid(wide, self.patch[1])
        elif neck == "upscale":
            self.neck = Upscale(wide, wide if upscaled is None else upscaled, self.patch[1])
        else:
            self.neck = None
        if self.neck is not None:
            self.channels, self.strides = self.neck.channels, self.neck.strides

    def by_depth(self) -> list[nn.Module]:
        """Embedding and codes, blocks and the last norm, from input to output."""
        inside = (self.blocks, self.norm)
        first = nn.ModuleList(one for one in self.children() if all(one is not x for x in inside))
        first.register_parameter("cls_token", self.cls_token)
        return [first, *self.blocks, self.norm]

    def known(self, batch: Batch) -> Known:
        """Year and day of the year of every frame, and the place; NaN where they are not known."""
        dates = None
        if batch.day is not None and hasattr(self, "temporal_embed_enc"):
            dates = calendar(batch.day, self.first_day)[:, :: self.patch[0]]
        places = batch.lonlat
        if places is not None and not self.lon_first:
            places = places.flip(1)
        return dates, places

    def laid(self, x: torch.Tensor) -> torch.Tensor:
        """What is given (B, T, C, H, W) as the blocks take it (B, C, T, H', W'), padded to whole patches."""
        return fitted(x.flatten(1, 2), self.patch[1]).unflatten(1, x.shape[1:3]).transpose(1, 2)

    def forward(self, x: torch.Tensor, batch: Batch) -> list[torch.Tensor]:  # type: ignore[override]
        """Maps (B, T D, h, w), or (B, D, h, w); the last one is normed."""
        tokens, grid = self.embed(self.laid(x), self.known(batch))
        every = self.through(tokens, each=True)
        maps = [self.map_of(every[i][:, 1:], grid) for i in self._taps]
        if self.neck is not None:
            maps = self.neck(maps)
        return cropped(maps, x.shape[-2:], self.strides)

    def summary(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The class token (B, D), normed."""
        tokens, _ = self.embed(self.laid(x), self.known(batch))
        return self.through(tokens)[0][:, 0]

    def tokens(self, x: torch.Tensor, batch: Batch) -> Tokens:
        """What is said of the patches that are seen, for a head that makes images of it."""
        laid = fitted(batch.missing.float(), self.patch[1]) > 0
        hidden = hidden_patches(laid, self.patch)
        return self.seen(self.laid(x), self.known(batch), hidden)

    def map_of(self, tokens: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        """Tokens (B, T h w, D) as a map: frames one after another, by turns within each channel, or their mean."""
        x = tokens.unflatten(1, grid)  # (B, T, h, w, D)
        if self.layout == "mean":
            return x.mean(1).permute(0, 3, 1, 2)
        order = (0, 1, 4, 2, 3) if self.layout == "stack" else (0, 4, 1, 2, 3)
        return x.permute(order).flatten(1, 2)


def calendar(day: torch.Tensor, first: int) -> torch.Tensor:
    """Year and day of the year (..., 2), counted from `first`, of days since 1970-01-01; NaN is passed on."""
    import numpy as np

    plain = day.double().cpu().numpy()
    known = np.isfinite(plain)
    moment = (
        np.where(known, np.floor(np.nan_to_num(plain)), 0).astype("int64").astype("datetime64[D]")
    )
    year = moment.astype("datetime64[Y]")
    since = (moment - year).astype("int64") + first
    found = np.stack([year.astype("int64") + 1970, since], axis=-1).astype(float)
    found[~known] = np.nan
    return torch.from_numpy(found).to(day.device)


def build(
    in_channels: int,
    frames: int,
    named: Sequence[Sequence[Any]] = (),
    *,
    size: str = "300",
    width: int | None = None,
    layers: int | None = None,
    heads: int | None = None,
    patch: int | None = None,
    tubelet: int = 1,
    image: int = 224,
    codes: str = "",
    order: str = "lat-lon",
    first_day: int = 0,
    layout: str = "stack",
    neck: str = "none",
    upscaled: int | None = None,
    eps: float = 1e-5,
) -> nn.Module:
    """Build `size` tiny, 100, 300 or 600, or of the numbers given; `tubelet` frames a token.

    `codes=time-location` for the TL checkpoints: `order` of the coordinates and the day that a year begins with are
    as the authors train; samples without date or place go without. `layout`: frames become channels one after
    another (`stack`), by turns (`interleave`, as the 2023 heads want them), or their `mean`. `neck`: `pyramid` makes four
    scales as the heads of 2.0 want them, `upscale` one map of a sixteenth of the stride, of `upscaled` channels, as those of 1.0.
    """
    usual = size_called(size, SIZES)
    wanted = codes.split("-") if codes else []
    if set(wanted) - {"time", "location"}:
        raise UsageMistake(f"prithvi:codes={codes}: time, location, or time-location")
    if order not in ("lat-lon", "lon-lat"):
        raise UsageMistake(f"prithvi:order={order}: lat-lon or lon-lat")
    if layout not in LAYOUTS:
        raise UsageMistake(f"prithvi:layout={layout}: one of {', '.join(LAYOUTS)}")
    if neck not in ("none", "pyramid", "upscale"):
        raise UsageMistake(f"prithvi:neck={neck}: none, pyramid or upscale")
    if neck != "none" and (patch or usual[3]) % 16 and neck == "upscale":
        raise UsageMistake("prithvi:neck=upscale: is for patches of 16 px")
    if neck == "pyramid" and (patch or usual[3]) % 4:
        raise UsageMistake("prithvi:neck=pyramid: is for patches of a multiple of 4 px")
    if neck == "pyramid" and (layers or usual[1]) < TAPS:
        raise UsageMistake(f"prithvi:neck=pyramid: wants {TAPS} layers or more")
    if frames % tubelet:
        raise UsageMistake(f"prithvi:tubelet={tubelet}: does not divide {frames} dates")
    side = patch or usual[3]
    return Prithvi(
        wanted,
        layout,
        order == "lon-lat",
        first_day,
        named,
        neck,
        upscaled,
        bands=in_channels,
        frames=frames,
        image=image,
        patch=(tubelet, side, side),
        width=width or usual[0],
        depth=layers or usual[1],
        heads=heads or usual[2],
        eps=eps,
    )


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of either checkpoint layout: with or without `encoder.`, with `_timm_module.`; the decoder is left out."""
    found = {}
    for key, value in state.items():
        key = key.replace("_timm_module.", "")
        for prefix in ("module.", "model.", "backbone.", "encoder."):
            key = key.removeprefix(prefix)
        if not key.startswith(("decoder", "mask_token", "decode_head", "auxiliary_head", "head.")):
            found[key] = value
    return found


def adapt(state: dict[str, torch.Tensor], encoder: Any) -> dict[str, torch.Tensor]:
    """Place codes are computed, never loaded; bands are taken by name where both sides have names: what is
    known is copied, what the checkpoint does not know begins as it was made, what is not wanted is dropped.
    """
    state = dict(state) | {"pos_embed": encoder.pos_embed}
    for key in ("temporal_embed_enc.scale", "location_embed_enc.scale"):
        if key in state and key not in encoder.state_dict():
            state.pop(key)  # the codes were not asked for: as for samples without date or place
    if encoder.neck is None:
        state = {k: v for k, v in state.items() if not k.startswith("neck.")}
    key = "patch_embed.proj.weight"
    given, own = state.get(key), encoder.patch_embed.proj.weight.detach()
    if given is None or given.shape[0] != own.shape[0] or given.shape[2:] != own.shape[2:]:
        return state
    if given.shape[1] == len(PUBLISHED) and any(name in PUBLISHED for name in encoder.named):
        new = own.clone()
        for i, name in enumerate(encoder.named):
            if name in PUBLISHED:
                new[:, i] = given[:, PUBLISHED.index(name)]
        state[key] = new
    return state
