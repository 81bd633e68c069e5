"""An ONNX graph as a network: physical values in, outputs out, run by onnxruntime."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.errors import GeomlError

TINY = 1e-12  # a probability that is 0 has no logarithm


def session_of(graph: bytes, where: str, device: str = "cpu") -> Any:
    """Open a graph; one line where onnxruntime is missing or the file is none."""
    try:
        import onnxruntime
    except ImportError:
        raise GeomlError(f"{where}: needs onnxruntime; pip install 'geoml-cli[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    wanted = ["CPUExecutionProvider"]
    if device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        wanted.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=wanted)
    except Exception as error:  # its errors have no common type
        said = str(error).strip().splitlines()[-1][:200]
        raise GeomlError(
            f"{where}: not readable as an ONNX graph ({said}); export it again"
        ) from None


class OnnxNetwork(nn.Module):
    """(B, 1, C, H, W) physical values to outputs (B, K, H, W); what is not valid enters as the mean.

    The graph's probabilities become logarithms, of which `Aim.spread` makes probabilities again.
    """

    per = "pixel"

    def __init__(self, graph: bytes, where: str, how: Mapping[str, Any]) -> None:
        super().__init__()
        self.graph, self.where, self.how = graph, where, dict(how)
        self.stride = int(how["stride"])
        self.spec = {"outputs": how["outputs_count"]}
        self._sessions: dict[str, Any] = {}
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(how["mean"], dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(how["std"], dtype=torch.float32).view(shape))

    def physical(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs as they are."""
        return outputs

    def forward(self, batch: Batch) -> torch.Tensor:
        """Outputs of a batch of one date of one sensor."""
        x = (batch.images[:, 0] * self.how["scale"] - self.mean) / self.std
        x = torch.where(batch.valid[:, 0, None], x, 0.0)
        kind = batch.images.device.type
        if kind not in self._sessions:
            self._sessions[kind] = session_of(self.graph, self.where, kind)
        said = self._run(self._sessions[kind], x.cpu().numpy())
        outputs = torch.from_numpy(said.astype(np.float32)).to(batch.images.device)
        if self.how["outputs"] == "logits":
            return outputs
        shares = outputs.clamp(TINY, 1.0)
        return torch.logit(shares, TINY) if outputs.shape[1] == 1 else shares.log()

    def _run(self, session: Any, x: np.ndarray) -> np.ndarray:
        [first, *_], [out, *_] = session.get_inputs(), session.get_outputs()
        last = self.how["layout"] == "NHWC"
        x = np.moveaxis(x, 1, -1) if last else x
        x = np.ascontiguousarray(x, np.float16 if "16" in first.type else np.float32)
        size = first.shape[0] if isinstance(first.shape[0], int) else len(x)
        pieces: Sequence[np.ndarray] = [x[i : i + size] for i in range(0, len(x), size)]
        found = []
        for piece in pieces:
            short = size - len(piece)
            full = np.concatenate([piece, np.repeat(piece[-1:], short, 0)]) if short else piece
            try:
                [said] = session.run([out.name], {first.name: full})
            except Exception as error:  # its errors have no common type
                text = str(error).strip().splitlines()[-1][:200]
                raise GeomlError(f"{self.where}: {text}") from None
            found.append(said[: len(piece)])
        said = np.concatenate(found)
        return np.moveaxis(said, -1, 1) if last else said
