"""Weights from files of strangers: damaged, malicious, wrapped."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from monai_tl.errors import WeightsError
from monai_tl.sources.weights import State, load_state

TENSORS = {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "conv.bias": torch.zeros(2)}


def _load(folder: Path, content: bytes, name: str = "weights") -> State:
    path = folder / name
    path.write_bytes(content)
    return load_state(path, hashlib.sha256(content).hexdigest())


def _saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _same(state: State) -> bool:
    return set(state.tensors) == set(TENSORS) and all(torch.equal(state.tensors[k], v) for k, v in TENSORS.items())


@pytest.mark.parametrize(
    "content",
    [save(TENSORS), _saved(TENSORS), _saved(TENSORS, _use_new_zipfile_serialization=False)],
    ids=["safetensors", "torch", "torch of old"],
)
def test_whole_files_are_read(tmp_path: Path, content: bytes) -> None:
    state = _load(tmp_path, content)
    assert _same(state)
    assert state.notes == ()
    assert state.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", "network_weights", "my_own_key"])
def test_a_wrapper_is_found_and_named(tmp_path: Path, wrapper: str) -> None:
    optimiser = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    state = _load(tmp_path, _saved({"epoch": 3, "optimizer_state": optimiser, wrapper: TENSORS}))
    assert _same(state)
    assert wrapper in state.notes[0]


def test_two_wrappers_are_found_and_named(tmp_path: Path) -> None:
    state = _load(tmp_path, _saved({"checkpoint": 1, "model": {"state_dict": {**TENSORS, "version": 2}}}))
    assert _same(state)
    assert "'model' / 'state_dict'" in state.notes[0]
    assert "1 entries are no tensors" in state.notes[1]


class _Payload:
    """Runs a command when unpickled the ordinary way."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("form", ["torch", "torch of old", "pickle", "pickle named safetensors"])
def test_a_pickle_runs_nothing(tmp_path: Path, form: str) -> None:
    canary = tmp_path / "ran"
    value = {"state_dict": TENSORS, "extra": _Payload(canary)}
    content = (
        pickle.dumps(value)
        if form.startswith("pickle")
        else _saved(value, _use_new_zipfile_serialization=form == "torch")
    )
    with pytest.raises(WeightsError, match="pickle that would run code"):
        _load(tmp_path, content, "weights.safetensors" if "named" in form else "weights.pt")
    assert not canary.exists()


def test_a_variable_that_turns_the_guard_off_changes_nothing(tmp_path: Path) -> None:
    canary, path = tmp_path / "ran", tmp_path / "weights.pt"
    path.write_bytes(_saved({"extra": _Payload(canary)}))
    program = (
        "from pathlib import Path; from monai_tl.sources.weights import load_state; "
        f"load_state(Path({str(path)!r}), None)"
    )
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "WeightsError" in done.stderr
    assert not canary.exists()


def test_the_hash_is_checked_before_anything_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"\x80\x04garbage")
    with pytest.raises(WeightsError, match=r"sha256 is [0-9a-f]{12}…, the card says 000000000000…"):
        load_state(path, "0" * 64)


@pytest.mark.parametrize("whole", [save(TENSORS), _saved(TENSORS)], ids=["safetensors", "torch"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path: Path, whole: bytes, share: float) -> None:
    with pytest.raises(WeightsError, match=r"fetch it again|empty"):
        _load(tmp_path, whole[: int(len(whole) * share)])


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 72) + b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000]}}',
        b"just some text that is no file of weights at all",
        b"PK\x03\x04 and then nothing of an archive",
        b"\x00" * 64,
        save({}),
        _saved({}),
        _saved([1, 2, 3]),
        _saved(torch.ones(3)),
        _saved({"a": {"b": {"c": TENSORS}}}),
    ],
    ids=[
        "huge header",
        "4 TB claim",
        "text",
        "half zip",
        "zeros",
        "no tensor",
        "nothing",
        "list",
        "tensor",
        "too deep",
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(WeightsError):
        _load(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent.*cannot be read"):
        load_state(tmp_path / "absent", None)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_state(tmp_path, None)


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    """A kilobyte that says it is a terabyte: with stride 0 torch itself accepts it."""
    bomb = torch.zeros(1).as_strided((2**38,), (0,))
    content = _saved({"conv.weight": bomb})
    assert len(content) < 4096
    assert torch.load(io.BytesIO(content), weights_only=True)["conv.weight"].numel() == 2**38
    with pytest.raises(WeightsError, match="claims shape"):
        _load(tmp_path, content)


def test_an_archive_that_inflates_is_refused(tmp_path: Path) -> None:
    """The same torch file with its records compressed; torch would allocate what the directory says."""
    squeezed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_saved({"a": torch.zeros(4_000_000)}))) as whole,
        zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for item in whole.infolist():
            archive.writestr(item.filename, whole.read(item))
    with pytest.raises(WeightsError, match="would inflate"):
        _load(tmp_path, squeezed.getvalue())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    broken = TENSORS["conv.weight"].to(dtype).clone()
    broken[1, 2, 3] = value
    with pytest.raises(WeightsError, match=r"conv\.weight has NaN or infinite"):
        _load(tmp_path, save({**TENSORS, "conv.weight": broken}))


def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not a plain dense one|no torch file"):
        _load(tmp_path, _saved({"a": torch.eye(4).to_sparse()}))
