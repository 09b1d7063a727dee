from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_tl.errors import CheckpointError, TrainingError
from monai_tl.training.checkpoint import (
    locked,
    random_state,
    read_newest,
    restore_random_state,
    seed_everything,
    write_checkpoint,
)


def _draw() -> tuple[list[float], list[float], list[float]]:
    return torch.rand(4).tolist(), np.random.rand(4).tolist(), [random.random() for _ in range(4)]  # noqa: NPY002


def test_the_newest_of_three_is_read_and_only_two_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 1000):
        write_checkpoint(tmp_path, step, {"weights": torch.full((3,), float(step))})
    assert len(list(tmp_path.glob("step-*"))) == 2
    state = read_newest(tmp_path)
    assert state is not None
    assert state["step"] == 1000
    assert torch.equal(state["weights"], torch.full((3,), 1000.0))


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert read_newest(tmp_path / "absent") is None
    assert read_newest(tmp_path) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, 1, {"value": 1})
    path = write_checkpoint(tmp_path, 2, {"value": 2})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flip": bytes(content), "truncate": bytes(content[:-20]), "empty": b""}[damage])
    notes: list[str] = []
    state = read_newest(tmp_path, notes)
    assert state is not None
    assert state["value"] == 1
    assert notes == ["checkpoint of step 2 is damaged and was passed over"]


def test_a_second_one_of_the_same_step_replaces_the_first(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3, {"value": "before validation"})
    write_checkpoint(tmp_path, 3, {"value": "after validation"})
    state = read_newest(tmp_path)
    assert state is not None
    assert state["value"] == "after validation"
    assert len(list(tmp_path.glob("step-*"))) == 1


def test_a_half_written_file_is_not_seen(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {"value": 1})
    (tmp_path / ".step-000000002.abc.part").write_bytes(b"half")
    state = read_newest(tmp_path)
    assert state is not None
    assert state["step"] == 1


def test_a_full_disk_is_a_clear_error_and_leaves_the_last_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {"value": 1})
    program = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from monai_tl.errors import CheckpointError\n"
        "from monai_tl.training.checkpoint import write_checkpoint\n"
        # files larger than 64 KiB fail as on a full disk
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    write_checkpoint(Path(sys.argv[1]), 2, {'weights': torch.zeros(100_000)})\n"
        "except CheckpointError as error:\n"
        "    sys.exit(7 if 'run again' in str(error) else 8)\n"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=root, timeout=120).returncode == 7
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["step-000000001"]
    state = read_newest(tmp_path)
    assert state is not None
    assert state["value"] == 1


def test_a_folder_that_cannot_be_read_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, {"value": 1})
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_newest(tmp_path)


def test_random_state_brings_all_three_generators_back(tmp_path: Path) -> None:
    kept = random_state()
    try:
        seed_everything(5)
        torch.rand(3)
        np.random.standard_normal(3)  # noqa: NPY002 - leaves a half-used pair in the generator
        write_checkpoint(tmp_path, 1, {"random": random_state()})
        expected = _draw()
        seed_everything(6)
        assert _draw() != expected
        state = read_newest(tmp_path)
        assert state is not None
        restore_random_state(state["random"])
        assert _draw() == expected
    finally:
        restore_random_state(kept)


def test_a_second_run_in_the_same_folder_is_refused_at_once(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(TrainingError, match="in use by process"), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_a_lock_left_by_a_dead_process_does_not_hold(tmp_path: Path) -> None:
    tmp_path.joinpath("lock").write_text("999999")
    with locked(tmp_path):
        pass
