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
from collections import Counter
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


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(4).to_sparse(),
        torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        torch.ones(4, device="meta"),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["sparse", "quantised", "meta", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_dense_tensor_is_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(WeightsError, match=r"not a plain dense one|holds more than tensors"):
        _load(tmp_path, _saved({"a": torch.ones(2), "b": tensor}))


def _with_pickle(payload: bytes, before: bytes = b"") -> bytes:
    """A torch archive whose content is this pickle, behind other bytes."""
    made = io.BytesIO(before)
    made.seek(len(before))
    with zipfile.ZipFile(io.BytesIO(_saved({"a": torch.ones(2)}))) as whole, zipfile.ZipFile(made, "w") as archive:
        for item in whole.infolist():
            archive.writestr(item.filename, payload if item.filename.endswith("data.pkl") else whole.read(item))
    return made.getvalue()


def _called(what: bytes, n: int) -> bytes:
    """A pickle ``{"a": what(n)}``."""
    return b"\x80\x02}X\x01\x00\x00\x00ac" + what + b"\n\x8a\x05" + n.to_bytes(5, "little") + b"\x85Rs."


def _hex_of_hex(n: int) -> bytes:
    """A pickle that writes a text as hex, and the result again, n times: 2**n as long."""
    text = b"X\x40\x00\x00\x00" + b"a" * 64
    first, more = b"X\x06\x00\x00\x00latin1\x86R", b"X\x03\x00\x00\x00hEx\x86R"
    return b"\x80\x02" + b"c_codecs\nencode\n" * (n + 1) + text + first + more * n + b"."


def _key_of_tuples(n: int) -> bytes:
    """A pickle whose key is a tuple that holds one tuple twice, and so on: hashing it takes 2**n steps."""
    return b"\x80\x02}K\x01" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(n)) + b"K\x01s."


def _set_of_tuples(n: int) -> bytes:
    return b"\x80\x02c__builtin__\nset\n]" + _key_of_tuples(n)[3:-4] + b"a\x85R."


def _copied_often(n: int) -> bytes:
    """A pickle that makes bytes of one text n times."""
    text, codec = b"X" + n.to_bytes(4, "little") + b"a" * n, b"X\x06\x00\x00\x00latin1"
    made = b"]q\x00c_codecs\nencode\nq\x01" + text + codec + b"\x86q\x02"
    return b"\x80\x02" + made + b"h\x00" + b"h\x01h\x02Ra" * n + b"."


def _encoded(text: str, codec: bytes) -> bytes:
    words = (b"X" + len(word).to_bytes(4, "little") + word for word in (text.encode(), codec))
    return b"\x80\x02}X\x01\x00\x00\x00ac_codecs\nencode\n" + b"".join(words) + b"\x86Rs."


def _loaded_often(n: int) -> bytes:
    """A torch file whose one record is asked for by many names that are one for torch."""
    record = b"A" * 24
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        pids = []
        for k in range(n):
            name = bytes(byte + 32 * (k >> bit & 1) for bit, byte in enumerate(record))
            pids.append(
                b"(X\x07\x00\x00\x00storagectorch\nByteStorage\nX\x18\x00\x00\x00"
                + name
                + b"X\x03\x00\x00\x00cpuJ"
                + (1 << 20).to_bytes(4, "little")
                + b"tQa"
            )
        archive.writestr("a/data.pkl", b"\x80\x02]" + b"".join(pids) + b".")
        archive.writestr("a/version", b"3\n")
        archive.writestr("a/data/" + record.decode(), b"\x01" * (1 << 20))
    return made.getvalue()


def _two_archives() -> tuple[bytes, bytes]:
    """One pickle that fills the memory and one that does not, of one length."""
    evil = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (3 << 30).to_bytes(5, "little") + b"\x85R."
    n = len(evil) - 11
    return evil, b"\x80\x02}X" + n.to_bytes(4, "little") + b"k" * n + b"Ns."


def _behind_another() -> bytes:
    """Python corrects the places in an archive that begins later; torch does not, and reads the first."""
    evil, good = _two_archives()
    return _with_pickle(evil) + _with_pickle(good)


def _two_lists() -> bytes:
    """Python takes the list of records right before the end; torch the one that the end names."""

    def listed(archive: bytes) -> bytes:
        n, size, place = struct.unpack("<HII", archive[-12:-2])
        numbers = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, n, n, size, place)
        return archive[:-22] + b"PK\x06\x06" + numbers

    evil, good = _two_archives()
    first = listed(_with_pickle(evil))
    end = b"PK\x06\x07" + struct.pack("<IQI", 0, len(first) - 56, 1)
    return listed(both := _with_pickle(good, before=first)) + end + both[-22:]


def _many_records() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for k in range(70_000):
            archive.writestr(zipfile.ZipInfo(f"a/{k}"), b"")
    return made.getvalue()


def _safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


_SHARED = torch.zeros(1 << 20)
BOMBS = {
    "bytearray in an archive": lambda: _with_pickle(_called(b"builtins\nbytearray", 3 << 30)),
    "bytearray of python 2": lambda: _with_pickle(_called(b"__builtin__\nbytearray", 3 << 30)),
    "bytearray in an old file": lambda: _called(b"builtins\nbytearray", 3 << 30),
    "tensor by size": lambda: _with_pickle(_called(b"torch\nTensor", 1 << 30)),
    "old tensor by size": lambda: _with_pickle(_called(b"torch\nFloatTensor", 1 << 30)),
    "storage by size": lambda: _with_pickle(_called(b"torch.storage\nUntypedStorage", 3 << 30)),
    "hex of hex": lambda: _with_pickle(_hex_of_hex(26)),
    "call without an end": lambda: _called(b"__builtin__\nbytearray", 3 << 30)[:-2],
    "call without an end in an archive": lambda: _with_pickle(_called(b"__builtin__\nbytearray", 3 << 30)[:-2]),
    "call before what is no pickle": lambda: _called(b"__builtin__\nbytearray", 3 << 30)[:-1] + b"\xff.",
    "hex of hex without an end": lambda: _with_pickle(_hex_of_hex(26)[:-1]),
    "one text made bytes often": lambda: _with_pickle(_copied_often(40_000)),
    "one record by many names": lambda: _loaded_often(3000),
    "key of tuples": lambda: _with_pickle(_key_of_tuples(40)),
    "key of tuples in an old file": lambda: _key_of_tuples(40),
    "set of tuples": lambda: _with_pickle(_set_of_tuples(40)),
    "codec that takes for ever": lambda: _with_pickle(
        _encoded("".join(chr(0x4E00 + 7919 * k % 20_000) for k in range(100_000)), b"punycode")
    ),
    "archive behind another": _behind_another,
    "archive of two lists": _two_lists,
    "stride of none": lambda: _saved({"a": torch.zeros(1).as_strided((2**38,), (0,))}),
    "one buffer claimed often": lambda: _saved({str(k): _SHARED[k:] for k in range(3000)}),
    "seventy thousand records": _many_records,
    "huge shape": lambda: _safetensors(
        b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}' + b"\0" * 4
    ),
    "offsets beyond the file": lambda: _safetensors(
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    ),
    "shape that overflows": lambda: _safetensors(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
}
_MEASURE = """
import sys
from pathlib import Path
from monai_tl.errors import WeightsError
from monai_tl.sources.weights import load_state

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024

for path in sorted(Path(sys.argv[1]).iterdir()):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    try:
        load_state(path, None)
        answer = "loaded"
    except WeightsError:
        answer = "refused"
    print(path.name, answer, peak() - before, sep="\\t")
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_bombs_are_refused_within_the_memory_of_their_file(tmp_path: Path) -> None:
    """Torch itself takes 3 GB for the first of these, which has a few hundred bytes, and more for others."""
    for name, make in BOMBS.items():
        content = make()
        assert len(content) < 20 << 20
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == sorted(BOMBS), done.stderr[-500:]
    assert {row[1] for row in rows} == {"refused"}, rows
    assert all(int(row[2]) < 200 for row in rows), rows


def test_records_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two readers may take different ones."""
    made = io.BytesIO(_saved(TENSORS))
    with zipfile.ZipFile(made, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"\x80\x02}.")
    with pytest.raises(WeightsError, match="two records of one name"):
        _load(tmp_path, made.getvalue())


@pytest.mark.parametrize("name", ["conv\x1b[2J", "a\nb", "x" * 600])
def test_names_that_would_write_to_the_terminal_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="which is no name") as caught:
        _load(tmp_path, save({name: torch.ones(1)}))
    assert "\x1b" not in str(caught.value)


def test_keys_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no dictionary of tensors"):
        _load(tmp_path, _saved({1: torch.ones(1), "a": torch.ones(1)}))


def test_a_content_that_holds_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["model"] = content
    with pytest.raises(WeightsError, match="no dictionary of tensors"):
        _load(tmp_path, _saved(content))
    whole: dict[str, Any] = {"state_dict": TENSORS}
    whole["self"] = whole
    assert _same(_load(tmp_path, _saved(whole)))


def test_three_wrappers_are_found_and_named(tmp_path: Path) -> None:
    state = _load(tmp_path, _saved({"checkpoint": {"model": {"state_dict": TENSORS}}}))
    assert _same(state)
    assert state.notes == ("the weights were found under 'checkpoint' / 'model' / 'state_dict'",)


@pytest.mark.parametrize("new", [True, False])
def test_what_training_programs_keep_beside_the_weights_is_read(tmp_path: Path, new: bool) -> None:
    """Optimiser, shared tuples, sets, bytes: nothing of it is taken for a bomb."""
    betas = (0.9, 0.999)
    optimiser = {
        "state": {k: {"exp_avg": tensor} for k, tensor in enumerate(TENSORS.values())},
        "param_groups": [{"lr": 0.1, "betas": betas, "params": [k]} for k in range(100)],
    }
    network = torch.nn.Conv3d(1, 2, 3)
    shape = (96, 96, 96)
    beside = {
        "optimizer": optimiser,
        "logging": [{"loss of training": 0.5, "shape": shape, "n": Counter("ab")} for _ in range(200)],
        "by size": {shape: {1, 2}, (shape, shape): b"\xff", 2**70: 1j},
    }
    content = {**beside, "state_dict": network.state_dict()}
    state = _load(tmp_path, _saved(content, _use_new_zipfile_serialization=new))
    assert set(state.tensors) == {"weight", "bias"}


@pytest.mark.parametrize("key", [(1, (2, 3)), 3, b"\xff"])
def test_keys_that_are_no_text_are_not_shown(tmp_path: Path, key: object) -> None:
    """Text of what a stranger nested could be endless."""
    with pytest.raises(WeightsError, match=r"there is: 'epoch'\)"):
        _load(tmp_path, _saved({key: 1, "epoch": 2}))


def test_a_tensor_beside_the_weights_is_not_taken_for_them(tmp_path: Path) -> None:
    state = _load(
        tmp_path, _saved({"epoch": torch.tensor(3), "lr": torch.tensor(0.1), "net": TENSORS | {"x": torch.ones(1)}})
    )
    assert set(state.tensors) == {*TENSORS, "x"}


def test_an_averaged_copy_beside_the_weights_is_said(tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in TENSORS.items()}
    optimiser = {"exp_avg": torch.ones(2)}
    state = _load(tmp_path, _saved({"model_ema": averaged, "optimizer": optimiser, "model": TENSORS}))
    assert _same(state)
    assert state.notes[1] == "other tensors were left under 'model_ema'"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.float8_e4m3fn])
def test_types_are_read_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    state = _load(tmp_path, save({"a": torch.ones(3).to(dtype)}))
    assert state.tensors["a"].dtype == dtype
    if dtype.is_floating_point:
        with pytest.raises(WeightsError, match="NaN or infinite"):
            _load(tmp_path, save({"a": torch.full((3,), float("nan")).to(dtype)}))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_state(tmp_path / "pipe", None)


def test_a_script_of_torch_is_refused(tmp_path: Path) -> None:
    made = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Conv3d(1, 1, 1)), made)
    with pytest.raises(WeightsError):
        _load(tmp_path, made.getvalue())
