"""Source folders: what a card may say, all its faults at once, and equal bytes for equal sources."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from targets import make_fingerprint

from monai_tl.errors import SourceError
from monai_tl.sources.card import Card, read_source, write_source

CONTENT: dict[str, Any] = {
    "name": "organs",
    "network": {
        "name": "unet",
        "arguments": {"channels": [4, 8], "strides": [2]},
        "n_channels": 1,
        "n_outputs": 3,
    },
    "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
    "licence": "CC0-1.0",
    "citation": "nobody",
    "input": {
        "modality": "CT",
        "channels": ["CT"],
        "orientation": "RAS",
        "spacing_mm": [1.0, 1.0, 2.5],
        "intensity": {"rule": "window", "low": -100, "high": 200},
        "size_rule": {"divisor": 2, "min_vox": [4, 4, 4]},
    },
    "classes": ["liver", "spleen"],
}
FINGERPRINT = make_fingerprint().model_dump(mode="json")
STATE = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2)}


def _with(path: str, value: Any) -> dict[str, Any]:
    """The content with one entry set; the path is dotted."""
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(CONTENT))
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


def _write(folder: Path, content: Any) -> Path:
    (folder / "card.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    (folder / "weights.safetensors").write_bytes(b"not looked at yet")
    return folder


def test_a_card_is_read(tmp_path: Path) -> None:
    source = read_source(_write(tmp_path, CONTENT))
    assert source.card.network.config.arguments == {"channels": [4, 8], "strides": [2]}
    assert source.card.input.spacing_mm == (1.0, 1.0, 2.5)
    assert source.card.output == "softmax"
    assert source.weights_path == tmp_path / "weights.safetensors"


def test_aliases_of_a_card_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    """The types take them as they are; the network's arguments would be 9**12 numbers."""
    levels = ["&a0 [1]", *(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 13))]
    text = yaml.safe_dump(CONTENT).replace("channels:\n    - 4\n", f"channels:\n    - [{', '.join(levels)}]\n", 1)
    assert "&a12" in text
    with pytest.raises(SourceError, match=r"card\.yaml: 1 fault\n.*no valid YAML: aliases stand for more"):
        read_source(_write(tmp_path, text))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("colour", "red", "colour: no such parameter"),
        ("licence", "", "licence: "),
        ("network.n_outputs", 2, "n_outputs is 2, but 2 classes with softmax need 3"),
        ("output", "sigmoid", "n_outputs is 3, but 2 classes with sigmoid need 2"),
        ("classes", ["liver", "Liver"], "classes must differ"),
        ("classes", ["liver", "background"], "none may be 'background'"),
        ("input.channels", ["T1", "T2"], "input.channels names 2"),
        ("input.orientation", "RAR", "'RAR' is no axis code"),
        ("input.spacing_mm", [1.0, 0.0, 1.0], "input.spacing_mm.1: "),
        ("input.trained_window_vox", [96, 0, 96], "input.trained_window_vox.1: "),
        ("input.trained_window_vox", [96, 96, 10**400], "input.trained_window_vox.2: "),
        ("fingerprint", {"n_cases": 3}, "fingerprint.modality: "),
        ("fingerprint", FINGERPRINT | {"foreground_share": float("nan")}, "fingerprint.foreground_share: "),
        ("input.intensity", {"rule": "window", "low": 5, "high": 1}, "a window needs low < high"),
        ("weights.sha256", "abc", "weights.sha256: "),
        ("weights.file", "../weights.safetensors", "weights.file: "),
        ("weights.file", "/etc/passwd", "weights.file: "),
        ("weights.file", "sub/weights.safetensors", "weights.file: "),
        ("weights.file", "..\\weights.safetensors", "weights.file: "),
        ("weights.file", ".hidden", "weights.file: "),
        ("weights.file", "a\n../b", "weights.file: "),
        ("weights.file", "absent.safetensors", "absent.safetensors is not beside the card"),
        ("card_version", 2, "card_version: "),
    ],
)
def test_a_fault_is_named(tmp_path: Path, path: str, value: Any, fault: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_source(_write(tmp_path, _with(path, value)))
    assert fault in str(caught.value)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    content = _with("network.n_channels", 0)
    content["weights"]["sha256"] = "short"
    del content["citation"]
    content["extra"] = 1
    with pytest.raises(SourceError, match="4 faults") as caught:
        read_source(_write(tmp_path, content))
    for key in ("network.n_channels", "weights.sha256", "citation: is missing", "extra"):
        assert key in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "- 1\n", "name: [", "a: 1\na: 2\n", "? [1]\n: 2\n", "!!python/object/apply:os.system ['true']", "a: &x [*x]"],
    ids=["empty", "list", "broken", "twice", "list as key", "code", "endless"],
)
def test_what_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"card\.yaml"):
        read_source(_write(tmp_path, text))


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no card\.yaml"):
        read_source(tmp_path)
    with pytest.raises(SourceError, match="is no source"):
        read_source(tmp_path / "absent")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, CONTENT)
    (tmp_path / "card.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        read_source(tmp_path)


def test_equal_sources_have_equal_bytes(tmp_path: Path) -> None:
    card = Card.model_validate(CONTENT)
    # another order and another memory layout are the same weights
    write_source(tmp_path / "one", card, STATE)
    shuffled = {"a": STATE["a"].clone(), "b": STATE["b"].T.contiguous().T}
    write_source(tmp_path / "elsewhere" / "two", card, shuffled)
    for name in ("card.yaml", "weights.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "elsewhere" / "two" / name).read_bytes()


def test_a_written_source_reads_back(tmp_path: Path) -> None:
    written = write_source(tmp_path, Card.model_validate(CONTENT), STATE)
    source = read_source(tmp_path)
    assert source == written
    assert source.card.weights.sha256 == hashlib.sha256(source.weights_path.read_bytes()).hexdigest()
    loaded = load_file(source.weights_path)
    assert set(loaded) == set(STATE)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in STATE.items())


def test_the_window_of_the_training_is_kept(tmp_path: Path) -> None:
    card = Card.model_validate(_with("input.trained_window_vox", [36, 52, 36]))
    write_source(tmp_path, card, STATE)
    assert read_source(tmp_path).card.input.trained_window_vox == (36, 52, 36)
    assert Card.model_validate(CONTENT).input.trained_window_vox is None


def test_tensors_that_share_memory_are_written_once(tmp_path: Path) -> None:
    source = write_source(tmp_path, Card.model_validate(CONTENT), {**STATE, "again": STATE["b"], "part": STATE["b"][0]})
    assert set(load_file(source.weights_path)) == {"a", "b", "part"}


def test_reading_a_card_needs_no_torch(tmp_path: Path) -> None:
    _write(tmp_path, CONTENT)
    program = (
        "import sys; from pathlib import Path; from monai_tl.sources.card import read_source; "
        f"read_source(Path({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
