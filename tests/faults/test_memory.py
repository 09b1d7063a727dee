"""Row 9: when memory runs out, the message says what to lower, whoever noticed it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_tl.errors import DataError, describe_fault, is_out_of_memory


def _ask_torch() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def _ask_numpy() -> None:
    np.empty(1 << 60, np.uint8)


def _ask_the_system() -> None:
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize("ask", [_ask_torch, _ask_numpy, _ask_the_system])
def test_every_way_to_run_out_is_known(ask) -> None:
    """torch says it by a plain RuntimeError."""
    with pytest.raises((RuntimeError, MemoryError, OSError)) as caught:
        ask()
    assert is_out_of_memory(caught.value)
    assert describe_fault(caught.value)[0] == "too_large"


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), OSError(28, "No space left on device"), DataError("a"), ValueError("a")]
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("stage", "options", "advice"),
    [
        ("finetune", ("--arm", "scratch", "--fold", "0", "--seed", "0"), ("finetune.batch_size", "max_patch_voxels")),
        ("predict", (), ("predict.batch_size", "max_patch_voxels")),
        ("preprocess", (), ("MONAI_TL_JOBS=1",)),
    ],
)
def test_a_stage_says_what_to_lower(stage, options, advice, tmp_path, monkeypatch, capsys) -> None:
    import shutil

    from monai_tl import cli
    from monai_tl.stages import sealing

    monkeypatch.setattr(sealing, "run_sealed_stage", lambda *_: _ask_torch())
    shutil.copyfile(Path(__file__).parents[2] / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.setattr(sys, "argv", ["monai-tl", "stage", stage, *options, "-w", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 6
    told = " ".join(capsys.readouterr().err.split())
    assert all(word in told for word in ("out of memory", *advice)), told


_TRAIN = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from balls import make_config, make_plan
from monai_tl.config import NetworkConfig
from monai_tl.records import Fold, Split
from monai_tl.stages.finetune import finetune
from monai_tl.errors import is_out_of_memory

workspace = Path(sys.argv[1])
network = NetworkConfig(name="unet", arguments={"channels": [32, 64], "strides": [2], "num_res_units": 2})
plan = make_plan((160, 160, 160)).model_copy(update={"network": network})
fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
try:
    finetune(workspace, plan, fold, make_config(), None, "scratch", 0)
except Exception as error:
    sys.exit(7 if is_out_of_memory(error) else 8)
"""


@pytest.mark.long
def test_training_past_a_limit_of_address_space(tmp_path: Path) -> None:
    from balls import write_workspace

    workspace = write_workspace(tmp_path)
    support = Path(__file__).parents[1] / "support"
    command = [sys.executable, "-c", _TRAIN, str(workspace), str(support)]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 7, done.stderr[-2000:]
    assert not list((workspace / "artifacts").glob("models/*"))
    # nothing half made is left, and the folder of checkpoints can be taken again
    assert not list(workspace.rglob("*.part"))
