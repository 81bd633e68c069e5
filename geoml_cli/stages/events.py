"""Rows of the history as TensorBoard events, where a folder for them is named."""

from typing import Any

from geoml_cli.errors import GeomlError


class Events:
    """A writer of scalars by epoch, one run a member; does nothing without a folder."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._writers: dict[int, Any] = {}
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise GeomlError(
                "--tensorboard needs tensorboard: pip install 'geoml-cli[tensorboard]'"
            ) from None
        self._writer = SummaryWriter

    def add(self, row: dict[str, Any]) -> None:
        """Write the numbers of one epoch."""
        if self._folder is None:
            return
        member = row["member"]
        if member not in self._writers:
            self._writers[member] = self._writer(f"{self._folder}/member-{member}")
        for key, value in row.items():
            if key not in ("member", "epoch"):
                self._writers[member].add_scalar(key, value, row["epoch"])

    def close(self) -> None:
        """Write what waits."""
        for writer in self._writers.values():
            writer.close()
