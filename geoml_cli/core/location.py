"""Where a sample lies, told to a network: a location encoder alone, or joined to an encoder's maps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from geoml_cli.core.batch import Batch

ALONE, CONCAT, FILM = "alone", "concat", "film"
JOINS = (CONCAT, FILM)
WIDTH = 32  # channels that a place becomes where it is concatenated
Find = Callable[
    [torch.Tensor], torch.Tensor | None
]  # vectors (N, D) of places (N, 2), of all or none
KNOWN = 1 << 28  # numbers, of all places that are encoded once
AT_ONCE = 1 << 15  # places that are encoded at a time where nothing is learnt


class Location(nn.Module):
    """Maps of an encoder, and where they lie, to maps; or what a place says alone, as a map of stride 1.

    `concat` puts `WIDTH` further channels beside every map, `film` scales and shifts its channels
    (Perez et al. 2018, AAAI), at first by nothing. Every cell of the coarsest map has a place of its
    own, and finer cells have that of the coarse one they lie in: no window shows. In training a sample's
    place is left out with probability `dropout`, so that a network does not stand on it alone; one whose
    place is unknown is treated alike.
    """

    kind: torch.Tensor

    def __init__(
        self,
        encoder: nn.Module,
        channels: Sequence[int],
        strides: Sequence[int],
        join: str,
        dropout: float,
    ) -> None:
        super().__init__()
        assert join in (ALONE, *JOINS), join
        self.encoder, self.join, self.dropout = encoder, join, dropout
        self._known: Find | None = None
        width = int(encoder.out_channels)  # type: ignore[arg-type]
        self.channels, self.strides = [int(c) for c in channels], [int(s) for s in strides]
        self.register_buffer("kind", torch.zeros(()), persistent=False)  # tells device and dtype
        self.norm = nn.LayerNorm(width) if join != ALONE else nn.Identity()
        if join == ALONE:
            self.channels, self.strides = [width], [1]
        elif join == CONCAT:
            self.squeeze = nn.Linear(width, WIDTH)
            self.channels = [c + WIDTH for c in self.channels]
        else:
            self.turns = nn.ModuleList(nn.Linear(width, 2 * c) for c in self.channels)
            for one in self.turns:
                nn.init.zeros_(one.weight)  # type: ignore[arg-type]
                nn.init.zeros_(one.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[torch.Tensor], batch: Batch) -> list[torch.Tensor]:
        """Maps (B, C, h, w) fine to coarse; of `alone` one map of the pixels, whatever `maps` are."""
        size = batch.images.shape[-2:] if self.join == ALONE else maps[-1].shape[-2:]
        vectors, share = self._vectors(batch, size, self.strides[-1])  # (B, h, w, D), (B, h, w, 1)
        if self.join == ALONE:
            shape = (len(batch.images), *size, vectors.shape[-1])
            return [(vectors * share).expand(shape).movedim(-1, 1)]
        vectors = self.norm(vectors)
        if self.join == CONCAT:
            beside = (self.squeeze(vectors) * share).movedim(-1, 1)
            return [torch.cat([m, self._laid(beside, m, i)], 1) for i, m in enumerate(maps)]
        out = []
        for i, (turn, one) in enumerate(zip(self.turns, maps, strict=True)):
            found = self._laid((turn(vectors) * share).movedim(-1, 1), one, i)
            scale, shift = found.chunk(2, dim=1)
            out.append(one * (1 + scale) + shift)
        return out

    def _vectors(
        self, batch: Batch, size: Sequence[int], stride: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of cells, and 1 where they count, else 0; of one place a sample h and w are 1."""
        count, place = len(batch.images), batch.lonlat
        if place is None:
            place = self.kind.new_full((count, 2), torch.nan)
        if place.ndim == 2:
            place = place[..., None, None]
        else:
            at = [_middle(n, stride, whole) for n, whole in zip(size, place.shape[2:], strict=True)]
            place = place[:, :, at[0]][..., at[1]]
        place = place.movedim(1, -1).to(self.kind.dtype)  # (B, h, w, 2)
        share = place.isfinite().all(-1, keepdim=True)
        if self.training and self.dropout:
            kept = torch.rand(count, device=share.device) >= self.dropout
            share = share & kept[:, None, None, None]
        flat = torch.where(place.isfinite(), place, 0.0).reshape(-1, 2)
        return self.encode(flat).unflatten(0, place.shape[:3]), share.to(place.dtype)

    def encode(self, lonlat: torch.Tensor) -> torch.Tensor:
        """Vectors (N, D) of places (N, 2), longitude and latitude in degrees; never in half precision.

        What an encoder has to `hide` in training is hidden.
        """
        found = None if self._known is None else self._known(lonlat)
        if found is None:
            found = self._encoded(lonlat)
        hide = getattr(self.encoder, "hide", None)
        return found if hide is None else hide(found)

    def _encoded(self, lonlat: torch.Tensor) -> torch.Tensor:
        with torch.autocast(lonlat.device.type, enabled=False):
            if torch.is_grad_enabled():
                return self.encoder(lonlat)
            return torch.cat([self.encoder(some) for some in lonlat.split(AT_ONCE)])

    @torch.no_grad()
    def know(self, lonlat: torch.Tensor) -> None:
        """Encode places (N, 2) once, to be looked up from then on: of an encoder that does not change."""
        self.encoder.eval()
        lonlat = lonlat[lonlat.isfinite().all(1)].to(self.kind)
        if len(lonlat) * int(self.encoder.out_channels) <= KNOWN:  # type: ignore[arg-type]
            self._known = _table(_keys(lonlat), self._encoded(lonlat))

    def forget(self) -> None:
        """Encode places as ever."""
        self._known = None

    def _laid(self, cells: torch.Tensor, like: torch.Tensor, level: int) -> torch.Tensor:
        """Cells of the coarsest map on the cells of another one."""
        if cells.shape[-2:] == (1, 1):
            return cells.to(like.dtype).expand(-1, -1, *like.shape[-2:])
        for dim, n in enumerate(like.shape[-2:], 2):
            steps = torch.arange(n, device=cells.device) * self.strides[level]
            at = (steps // self.strides[-1]).clamp(max=cells.shape[dim] - 1)
            cells = cells.index_select(dim, at)
        return cells.to(like.dtype)


def _table(keys: Sequence[bytes], vectors: torch.Tensor) -> Find:
    """What looks up the vectors of places that are known, all of them."""
    rows = {key: i for i, key in enumerate(keys)}

    # not compiled: it looks at bits of a batch, and would be compiled for each; `disable` takes seconds to import
    @torch.compiler.disable
    def find(lonlat: torch.Tensor) -> torch.Tensor | None:
        at = [rows.get(key) for key in _keys(lonlat)]
        return None if None in at else vectors[at].to(lonlat.device)

    return find


def _keys(lonlat: torch.Tensor) -> list[bytes]:
    """What tells places from each other: their bits."""
    return [row.tobytes() for row in lonlat.cpu().numpy()]


def _middle(cells: int, stride: int, pixels: int) -> Any:
    """The pixel in the middle of each of some cells, along one axis."""
    return (torch.arange(cells) * stride + stride // 2).clamp(max=pixels - 1)
