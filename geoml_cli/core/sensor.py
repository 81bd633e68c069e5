"""One sensor's part of a network: normalise, bring the dates together, encode."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.temporal import Attention
from geoml_cli.core.location import ALONE, Location

TIMES = ("stack", "mean", "attention")  # native encoders see to the dates themselves


class Sensor(nn.Module):
    """Batch of one sensor to feature maps, fine to coarse.

    `time` says how dates meet: `stack` as further channels, in order; `mean` and `attention` run
    the encoder on every date and average the maps, over valid pixels or by learnt weights.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        encoder: nn.Module,
        bands: int,
        time: str,
        neck: nn.Module | None,
        location: Location | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.time, self.neck = encoder, time, neck
        last = neck or encoder
        self.channels: list[int] = list(last.channels)  # type: ignore[arg-type]
        self.strides: list[int] = list(last.strides)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))
        self.attention = Attention(self.channels) if time == "attention" else None
        self.location = location
        if location is not None:
            self.channels, self.strides = location.channels, location.strides
        self.channels_last = False  # the layout of what the encoder is given

    def forward(self, batch: Batch) -> list[torch.Tensor]:
        """Feature maps; what is not valid enters as the mean. Where it lies is joined to them."""
        if self.location is None:
            return self._maps(batch)
        maps = [] if self.location.join == ALONE else self._maps(batch)
        return self.location(maps, batch)

    def _maps(self, batch: Batch) -> list[torch.Tensor]:
        """Maps of what is seen."""
        x = self._entered(batch)
        b, t = x.shape[:2]
        if self.time == "native":
            return self._necked(self.encoder(x, batch))
        if self.time == "stack":
            return self._necked(self.encoder(self._laid(x.flatten(1, 2)), **self._told(batch)))
        told = self._told(batch, each=True)
        maps = self._necked(self.encoder(self._laid(x.flatten(0, 1)), **told))
        dated = [one.unflatten(0, (b, t)) for one in maps]  # (B, T, C, h, w)
        if self.attention is not None:
            return self.attention(dated, batch)
        return [mean_of_dates(one, batch.valid) for one in dated]

    def summary(self, batch: Batch) -> torch.Tensor:
        """What the encoder says of each sample as one (B, D), the mean of the dates that show anything."""
        x, said = self._entered(batch), self.encoder.summary
        if self.time == "native":
            return said(x, batch)  # type: ignore[operator]
        if self.time == "stack":
            return said(self._laid(x.flatten(1, 2)))  # type: ignore[operator]
        dated = said(self._laid(x.flatten(0, 1))).unflatten(0, x.shape[:2])  # type: ignore[operator]
        weight = batch.valid.flatten(2).any(2)[..., None].to(dated.dtype) + 1e-3
        return (dated * weight).sum(1) / weight.sum(1)

    def tokens(self, batch: Batch) -> Any:
        """What the encoder says of the patches that are seen, for a head that makes images of it."""
        return self.encoder.tokens(self._entered(batch), batch)  # type: ignore[operator]

    def _told(self, batch: Batch, each: bool = False) -> dict[str, torch.Tensor]:
        """What is hidden (B, H, W), on every date, or of `each` date (B T, H, W), for encoders that want to know."""
        if batch.hide is None or not getattr(self.encoder, "hides", False):
            return {}
        hide = batch.hide.any(2)
        return {"hide": hide.flatten(0, 1) if each else hide.all(1)}

    def _entered(self, batch: Batch) -> torch.Tensor:
        """What the encoder is given (B, T, C, H, W)."""
        x = (batch.images - self.mean[:, None, None]) / self.std[:, None, None]
        x = torch.where(batch.valid[:, :, None], x, 0.0)
        if batch.hide is not None:
            x = torch.where(batch.hide, 0.0, x)
        if batch.codes is not None:
            codes = batch.codes if batch.codes.ndim == 5 else batch.codes[..., None, None]
            codes = codes.expand(*codes.shape[:3], *x.shape[-2:])
            x = torch.cat([x, codes.to(x.dtype)], dim=2)
        return x

    def _laid(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def _necked(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        return maps if self.neck is None else self.neck(maps)


def mean_of_dates(maps: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean over dates (B, C, h, w), each weighted by the share of valid pixels (B, T, H, W) beneath."""
    weight = resized(valid.float(), maps.shape[-2:])[:, :, None].to(maps.dtype)
    weight = weight + 1e-3  # where no date is valid: the plain mean
    return (maps * weight).sum(1) / weight.sum(1)


def resized(share: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Shares (B, K, H, W) at another resolution: means of what lies beneath, or nearest if finer."""
    if share.shape[-2:] == size:
        return share
    if share.shape[-2] >= size[0] and share.shape[-1] >= size[1]:
        return adaptive_avg_pool2d(share, (size[0], size[1]))
    return interpolate(share, size=size, mode="nearest")


def presence(batch: Batch) -> torch.Tensor:
    """1 for every sample (B,) that has a valid pixel, else 0."""
    return batch.valid.flatten(1).any(1).float()
