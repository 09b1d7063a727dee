"""Networks run by ONNX Runtime: exported here, in memory, once for each size of window."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from monai_tl.errors import ConfigError, ContractError

_SESSIONS_KEPT = 2
"""Windows of one case are of one size; a session holds a copy of the weights."""
_OPSET = 18


def export_onnx(network: nn.Module, window: Tensor) -> bytes:
    """A network as an ONNX file, for windows of one size.

    Args:
        network: In eval mode, on the CPU.
        window: (1, C, i, j, k) float32; only its shape counts.

    Returns:
        The file: input ``image``, output ``logits``.

    Raises:
        ConfigError: The package onnx is missing.
        ContractError: The network has an operation that ONNX has not.
    """
    _import("onnx")
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # it warns of the exporter's age and of Python numbers that are traced; both are meant
        warnings.simplefilter("ignore")
        try:
            # the newer exporter needs onnxscript besides, and takes five times as long
            torch.onnx.export(
                network,
                (window,),
                stream,  # type: ignore[arg-type]
                dynamo=False,
                input_names=["image"],
                output_names=["logits"],
                opset_version=_OPSET,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ContractError(f"the network cannot be written as ONNX ({reason}); use the engine torch") from error
    return stream.getvalue()


class OnnxNetwork:
    """A network that ONNX Runtime runs on the CPU, in float32; stands for it wherever windows are passed.

    Args:
        network: In eval mode.
        n_threads: CPU threads; results depend on it to the last bit.

    Raises:
        ConfigError: onnx or onnxruntime is missing.
    """

    def __init__(self, network: nn.Module, n_threads: int) -> None:
        _import("onnx")
        self._runtime = _import("onnxruntime")
        # the exporter has no convolution with weights laid out channels last
        self.network = network.cpu()
        self._n_threads = n_threads
        self._sessions: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, windows: Tensor) -> Tensor:
        """Logits of windows (B, C, i, j, k), passed one after another."""
        session = self._session(windows[:1])
        found = [
            session.run(None, {"image": window.contiguous().numpy()})[0]
            for window in (windows[one : one + 1] for one in range(len(windows)))
        ]
        return torch.cat([torch.from_numpy(one) for one in found])

    def _session(self, window: Tensor) -> Any:
        shape = tuple(window.shape)
        if shape in self._sessions:
            self._sessions.move_to_end(shape)
            return self._sessions[shape]
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._n_threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        # only errors: it warns of processors that it does not know by name
        options.log_severity_level = 3
        with torch.inference_mode(False), torch.no_grad():
            content = export_onnx(self.network, torch.zeros(shape))
        self._sessions[shape] = self._runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        if len(self._sessions) > _SESSIONS_KEPT:
            self._sessions.popitem(last=False)
        return self._sessions[shape]


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"engine: onnx needs the package {name}; install it with pip install -c constraints.txt 'monai_tl[onnx]'",
            "arguments",
        ) from None
