"""Weights from disk as plain tensors: hash first, nothing executed, nothing silently damaged."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from monai_tl.errors import WeightsError

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "network_weights",
    "network",
    "net",
    "model",
    "module",
    "generator",
    "params",
    "weights",
)
"""Keys under which training programs keep the weights, best first."""
_INFLATION_CAP = 4
"""A torch file stores its records uncompressed; one that inflates to more than so many times its size is a bomb."""


@dataclass(frozen=True)
class State:
    """Weights as they were found.

    Attributes:
        tensors: Name in the file → tensor on the CPU.
        sha256: Of the file's bytes.
        notes: What was done to find them.
    """

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...] = ()


def load_state(path: Path, sha256: str | None) -> State:
    """Read a weights file without running anything in it.

    The bytes that are hashed are the bytes that are parsed. safetensors is read as such; all else goes through
    ``torch.load(weights_only=True)``, which an environment variable cannot turn off.

    Args:
        path: A safetensors file, or one of ``torch.save`` that holds tensors in plain dictionaries.
        sha256: Expected hash, lower-case hex; None only for a file that was made in this process.

    Raises:
        WeightsError: The file is missing, has another hash, is damaged, would run code, or holds unusable tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); copy the weights there") from None
    return parse_state(content, path, sha256)


def parse_state(content: bytes, path: Path, sha256: str | None) -> State:
    """The same for bytes that are in memory: a member of a zip file, say.

    Args:
        content: Of the weights file.
        path: What messages call it.
        sha256: Expected hash, or None.

    Raises:
        WeightsError: As :func:`load_state`.
    """
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"{path}: sha256 is {found[:12]}…, the card says {sha256[:12]}…; fetch the file again, "
            "or correct the card if the weights were changed on purpose"
        )
    if not content:
        raise WeightsError(f"{path}: the file is empty; fetch it again")
    if _looks_like_safetensors(content):
        tensors = _parse_safetensors(content, path)
        notes: tuple[str, ...] = ()
    else:
        tensors, notes = _unwrap(_parse_torch(content, path), path)
    _check_tensors(tensors, path)
    return State(tensors, found, notes)


def _looks_like_safetensors(content: bytes) -> bool:
    return content[8:9] == b"{" or content[:2] not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _parse_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_safetensors(content)
    except (SafetensorError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise WeightsError(
            f"{path}: is neither whole safetensors nor a torch file ({_first_line(error)}); fetch it again"
        ) from None
    return tensors


def _parse_torch(content: bytes, path: Path) -> Any:
    if content[:2] == b"PK":
        _check_archive(content, path)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: is a pickle that would run code or holds more than tensors, so it is not opened "
            f"({_first_line(error)}); ask its maker for safetensors, or convert it on an isolated machine"
        ) from None
    except Exception as error:
        # torch gives EOFError, RuntimeError, KeyError and others for damaged files
        raise WeightsError(f"{path}: is damaged or no torch file ({_first_line(error)}); fetch it again") from None


def _check_archive(content: bytes, path: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inflated = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise WeightsError(f"{path}: is a truncated or damaged torch file ({error}); fetch it again") from None
    if inflated > _INFLATION_CAP * len(content) + (1 << 20):
        raise WeightsError(f"{path}: would inflate from {len(content)} to {inflated} bytes; do not use this file")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(item, Tensor) for item in value.values())
        and all(isinstance(key, str) for key in value)
    )


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the mapping of names to tensors, at most two wrappers deep."""
    steps: list[str] = []
    while isinstance(content, Mapping) and not _is_state(content) and len(steps) < 2:
        held = {key: value for key, value in content.items() if isinstance(value, Mapping)}
        named = [key for key in WRAPPERS if key in held]
        states = [key for key in held if isinstance(key, str) and _is_state(held[key])]
        known = [key for key in named if key in states] or named or (states if len(states) == 1 else [])
        if not known:
            break
        steps.append(str(known[0]))
        content = held[known[0]]
    if not _is_state(content):
        keys = ", ".join(sorted(map(str, content))[:8]) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(
            f"{path}: no dictionary of tensors found (there is: {keys}); save the network's state_dict() alone"
        )
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    notes = [f"the weights were found under {' / '.join(repr(step) for step in steps)}"] if steps else []
    if len(tensors) < len(content):
        notes.append(f"{len(content) - len(tensors)} entries are no tensors and were left out")
    return tensors, tuple(notes)


def _check_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    if not tensors:
        raise WeightsError(f"{path}: holds no tensor; fetch it again")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise WeightsError(f"{path}: tensor {name} is not a plain dense one; save it as such")
        # a view with stride 0 can claim a terabyte from a file of a kilobyte, and the first copy would ask for it
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path}: tensor {name} claims shape {tuple(tensor.shape)}, more than the file holds; "
                "do not use this file"
            )
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{path}: tensor {name} has NaN or infinite values; the weights are broken, fetch others"
            )
