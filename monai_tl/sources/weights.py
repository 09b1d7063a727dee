"""Weights from disk as plain tensors: hash first, nothing executed, nothing silently damaged."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torch.nn import Parameter

from monai_tl.errors import WeightsError
from monai_tl.sources.pickles import allowed_bytes, check_torch_file

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "network_weights",
    "network",
    "net",
    "model",
    "module",
    "checkpoint",
    "generator",
    "params",
    "weights",
)
"""Keys under which training programs keep the weights, best first."""
_NESTED = 4
_LONGEST_NAME = 512
_LONGEST_HEADER = 32 << 20
"""Of a safetensors file, bytes; a tensor takes about a hundred."""


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
    return parse_state(_read(path), path, sha256)


def parse_state(content: bytes, path: Path, sha256: str | None) -> State:
    """The same for bytes that are in memory: a member of a zip file, say.

    Args:
        content: Of the weights file.
        path: What messages call it.
        sha256: Expected hash, or None.

    Raises:
        WeightsError: As ``load_state``.
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
    _check_tensors(tensors, len(content), path)
    return State(tensors, found, notes)


def _read(path: Path) -> bytes:
    try:
        # a pipe or a device would be waited for, or read without end
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: cannot be read (it is no file); copy the weights there")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); copy the weights there") from None
    except (MemoryError, OverflowError):
        raise WeightsError(f"{path}: is larger than the memory; use a machine with more, or other weights") from None


def _looks_like_safetensors(content: bytes) -> bool:
    return content[8:9] == b"{" or content[:2] not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _parse_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    length = int.from_bytes(content[:8], "little")
    if _LONGEST_HEADER < length < len(content):
        raise WeightsError(f"{path}: has a header of {length} bytes, too long for weights; do not use this file")
    try:
        tensors: dict[str, Tensor] = load_safetensors(content)
    except (SafetensorError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise WeightsError(
            f"{path}: is neither whole safetensors nor a torch file ({_first_line(error)}); fetch it again"
        ) from None
    return tensors


def _parse_torch(content: bytes, path: Path) -> Any:
    check_torch_file(content, path)
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


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


def _is_state(value: Any) -> bool:
    """Whether this is a mapping of names to tensors, and no mapping inside it holds more of them."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    tensors = sum(isinstance(item, Tensor) for item in value.values())
    inside = (sum(isinstance(item, Tensor) for item in held.values()) for held in _mappings_in(value).values())
    return tensors > max(inside, default=0)


def _mappings_in(content: Mapping[Any, Any]) -> dict[Any, Mapping[Any, Any]]:
    return {key: value for key, value in content.items() if isinstance(value, Mapping)}


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the mapping of names to tensors, at most four wrappers deep; a content that holds itself ends there too."""
    steps: list[str] = []
    notes: list[str] = []
    while isinstance(content, Mapping) and not _is_state(content) and len(steps) < _NESTED:
        held = _mappings_in(content)
        named = [key for key in WRAPPERS if key in held]
        states = [key for key in held if isinstance(key, str) and _is_state(held[key])]
        known = [key for key in named if key in states] or named or (states if len(states) == 1 else [])
        if not known:
            break
        others = [str(key)[:64] for key in states if key != known[0] and "optim" not in key.casefold()]
        notes += [f"other tensors were left under {', '.join(map(repr, others))}"] if others else []
        steps.append(known[0])
        content = held[known[0]]
    if not _is_state(content):
        # of keys that are no text, the text could be endless
        named = [key[:64] for key in content if isinstance(key, str)] if isinstance(content, Mapping) else []
        keys = ", ".join(sorted(named)[:8]) or type(content).__name__
        raise WeightsError(
            f"{path}: no dictionary of tensors found (there is: {keys[:160]!r}); save the network's state_dict() alone"
        )
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    found = [f"the weights were found under {' / '.join(repr(step) for step in steps)}"] if steps else []
    if len(tensors) < len(content):
        notes.append(f"{len(content) - len(tensors)} entries are no tensors and were left out")
    return tensors, (*found, *notes)


def _check_tensors(tensors: Mapping[str, Tensor], n_bytes: int, path: Path) -> None:
    if not tensors:
        raise WeightsError(f"{path}: holds no tensor; fetch it again")
    claimed = 0
    for name, tensor in tensors.items():
        # names go to the terminal and into reports
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise WeightsError(f"{path}: a tensor is called {name[:64]!r}, which is no name; do not use this file")
        if type(tensor) not in (Tensor, Parameter) or tensor.layout != torch.strided or tensor.is_quantized:
            raise WeightsError(f"{path}: tensor {name} is not a plain dense one; save it as such")
        if tensor.device.type != "cpu":
            raise WeightsError(f"{path}: tensor {name} is not a plain dense one; save it as such")
        n_claimed = tensor.numel() * tensor.element_size()
        claimed += n_claimed
        # a view with stride 0 can claim a terabyte from a file of a kilobyte, and the first copy would ask for it
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes() or claimed > allowed_bytes(
            n_bytes
        ):
            raise WeightsError(
                f"{path}: tensor {name} claims shape {tuple(tensor.shape)}, more than the file holds; "
                "do not use this file"
            )
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise WeightsError(
                f"{path}: tensor {name} has NaN or infinite values; the weights are broken, fetch others"
            )


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_complex():
        return bool(torch.isfinite(tensor).all())
    if not tensor.is_floating_point():
        return True
    # types of one byte know no isfinite
    return bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all())
