"""Training with compiled code: the same function, the same bits after a cut, and clear words where it cannot be had."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from balls import make_runnable, write_workspace
from ladder_runs import KilledError, assert_same, make_settings, make_trainer, make_unet, train
from pydantic import ValidationError

import monai_tl.training.loop
from monai_tl.errors import ConfigError
from monai_tl.training.checkpoint import read_newest
from monai_tl.training.compiled import CACHE_VARIABLE, CompiledNetwork, _marked, _was_cut_off

ROOT = Path(__file__).parents[2]
REQUIRED = "MONAI_TL_REQUIRE_COMPILER"
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and not os.environ.get(REQUIRED), reason="there is no g++ to compile with"
)


@pytest.fixture(autouse=True)
def _like_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    forget()
    yield
    forget()


def forget() -> None:
    """What torch keeps of compiled code in memory."""
    from torch._inductor.utils import clear_caches

    torch._dynamo.reset()
    clear_caches()


def cache_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))


APART = """
import hashlib, os, sys
os.umask(0o002)
from pathlib import Path
from ladder_runs import make_settings, train
run = train(Path(sys.argv[1]), make_settings("full", max_steps=1, compile=True))
tensors = run.network.state_dict().values()
print(hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest())
"""


def train_apart(folder: Path, **environment: str) -> str:
    """One compiled step in a process of its own; digest of the weights."""
    return run_apart(APART, folder, **environment)


def run_apart(program: str, folder: Path, **environment: str) -> str:
    """The last line of a program, which is given the folder."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
    # set in this process as soon as torch.compile is imported
    base = {key: value for key, value in os.environ.items() if key != CACHE_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={**base, "PYTHONPATH": paths, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()[-1]


@needs_compiler
@pytest.mark.slow
def test_a_compiled_step_is_the_step_within_rounding(tmp_path: Path) -> None:
    """Running statistics, gradients and weights of one step each against the network as it is, without dropout."""
    config = make_settings("full", max_steps=3, validate_every=3, augmentation="none")
    network = make_unet(dropout=0.0)
    plain = train(tmp_path / "plain", config, network)
    compiled = train(tmp_path / "compiled/run", config.model_copy(update={"compile": True}), network)
    assert compiled.outcome.facts["compiled"] is True
    one, two = plain.network.state_dict(), compiled.network.state_dict()
    moved = max(float((one[name] - before).abs().max()) for name, before in plain.before.items())
    apart = max(float((one[name].float() - two[name].float()).abs().max()) for name in one)
    assert moved > 0.02
    # Adam's first steps have full length in the sign of the gradient, so a gradient of nothing but rounding may differ
    assert apart < 0.05 * moved
    rows = zip(plain.outcome.position.history, compiled.outcome.position.history, strict=True)
    assert all(a.train_loss == pytest.approx(b.train_loss, abs=1e-4) for a, b in rows)


@needs_compiler
@pytest.mark.slow
@pytest.mark.long
def test_cut_off_again_and_again_and_compiled_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout is on, statistics move, each phase has its code: on the bits of a run that was never cut off."""
    monkeypatch.setattr(monai_tl.training.loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    config = make_settings("lp_ft", ema_decay=0.7, compile=True)
    cache_in(tmp_path / "code", monkeypatch)
    expected = train(tmp_path / "whole", config)
    folder, reached = tmp_path / "cut", []
    for step in (2, 3, 7):
        # compiled from nothing, and from what the run before left
        if step == 3:
            cache_in(tmp_path / "other_code", monkeypatch)
        with pytest.raises(KilledError):
            train(folder, config, stop_at=step)
        state = read_newest(folder)
        assert state is not None
        reached.append(state["step"])
    assert reached == [1, 2, 6]
    assert_same(train(folder, config), expected)


@needs_compiler
@pytest.mark.slow
def test_a_stop_while_a_later_phase_is_compiled_loses_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is due by time or validation; what was saved goes on to the bits of an uninterrupted run."""
    config = make_settings("lp_ft", ema_decay=0.7, validate_every=9, compile=True)
    cache_in(tmp_path / "code", monkeypatch)
    expected = train(tmp_path / "whole", config)
    folder = tmp_path / "cut"
    cut = make_trainer(folder, config)
    call = CompiledNetwork.__call__

    def end(self: CompiledNetwork, image: torch.Tensor) -> torch.Tensor:
        if cut.position.step == config.head_steps:
            raise KilledError
        return call(self, image)

    monkeypatch.setattr(CompiledNetwork, "__call__", end)
    with pytest.raises(KilledError):
        cut.run()
    monkeypatch.setattr(CompiledNetwork, "__call__", call)
    state = read_newest(folder)
    assert state is not None
    assert (state["step"], state["phase"]) == (config.head_steps, "all")
    assert_same(train(folder, config), expected)


def test_a_mark_is_held_before_it_is_seen_and_one_that_went_meanwhile_is_no_kill_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    seen: list[list[Path]] = []

    def note(stream: Any, how: int) -> None:
        seen.append(list(tmp_path.glob("compiling.*")))
        lock(stream, how)

    monkeypatch.setattr(fcntl, "flock", note)
    with _marked(tmp_path):
        assert seen == [[]]
        assert len(list(tmp_path.glob("compiling.*"))) == 1
        assert not _was_cut_off(tmp_path)
    (tmp_path / "compiling.1").touch()

    def end_first(stream: Any, how: int) -> None:
        (tmp_path / "compiling.1").unlink()
        lock(stream, how)

    assert _was_cut_off(tmp_path)
    monkeypatch.setattr(fcntl, "flock", end_first)
    assert not _was_cut_off(tmp_path)


@needs_compiler
@pytest.mark.slow
def test_the_code_is_where_its_user_alone_can_write(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    train_apart(tmp_path / "train/run", TMPDIR=str(temporary))
    parent = tmp_path / "train/compiled"
    (folder,) = parent.iterdir()
    assert list(folder.rglob("*.so"))
    assert {stat.S_IMODE(one.stat().st_mode) for one in (parent, folder)} == {0o700}
    # torch's own place
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("how", ["open", "link"])
def test_a_folder_that_others_can_write_is_not_run_from(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "train/compiled"
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    folder.parent.mkdir()
    if how == "link":
        folder.symlink_to(other)
    else:
        folder.mkdir()
        folder.chmod(0o770)
    with pytest.raises(ConfigError, match=r"others can write .*compiled, and code is run from there; remove it"):
        make_trainer(tmp_path / "train/run", make_settings("full", compile=True)).run()


@needs_compiler
@pytest.mark.slow
def test_what_a_kill_left_half_written_is_not_run(tmp_path: Path) -> None:
    """torch runs a library that is there without a look: cut short, it ends the process."""
    expected = train_apart(tmp_path / "train/one")
    (folder,) = (tmp_path / "train/compiled").iterdir()
    for library in folder.rglob("*.so"):
        library.write_bytes(library.read_bytes()[:4000])
    mark = folder / "compiling.1"
    mark.touch()
    assert train_apart(tmp_path / "train/two") == expected
    assert not mark.exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_of_the_environment_is_named_and_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_in(tmp_path / "code", monkeypatch)
    (tmp_path / "code").mkdir()
    for name in ("compiling.1", "mine"):
        (tmp_path / "code" / name).touch()
    with pytest.raises(ConfigError, match=r"killed or failed while it compiled, .*; empty .*code"):
        make_trainer(tmp_path / "run", make_settings("full", compile=True)).run()
    assert (tmp_path / "code/mine").exists()


@needs_compiler
@pytest.mark.slow
def test_each_of_many_phases_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch goes on without compiling after eight compilations of one function."""
    cache_in(tmp_path / "code", monkeypatch)
    from torch._dynamo.utils import counters

    counters.clear()
    network = torch.nn.Sequential(*(torch.nn.Conv3d(1, 1, 1) for _ in range(10)))
    forward = CompiledNetwork(network, tmp_path)
    for number, layer in enumerate(network):
        layer.requires_grad_(False)
        forward.restart()
        forward(torch.zeros(1, 1, 2, 2, 2))
        assert counters["stats"]["unique_graphs"] == number + 1


def test_a_blank_in_the_path_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the path of this workspace has a blank, .* set TORCHINDUCTOR_CACHE_DIR to"):
        make_trainer(tmp_path / "my work/run", make_settings("full", compile=True)).run()


UNCHANGED = """
import sys
from pathlib import Path
import torch
from ladder_runs import make_settings, make_trainer
from monai_tl.training.compiled import NotCompiledError
trainer = make_trainer(Path(sys.argv[1]), make_settings("full", compile=True))
before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
try:
    trainer.run()
except NotCompiledError:
    print(all(torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items()))
"""


@pytest.mark.parametrize("compiler", ["/does/not/exist", "false"])
def test_without_a_compiler_nothing_of_the_network_has_changed(tmp_path: Path, compiler: str) -> None:
    assert run_apart(UNCHANGED, tmp_path / "run", CXX=compiler) == "True"
    assert read_newest(tmp_path / "run") is None


@pytest.mark.parametrize("compiler", ["/does/not/exist", "false"])
def test_without_a_compiler_no_step_is_taken_and_the_words_say_what_is_missing(tmp_path: Path, compiler: str) -> None:
    """In a process of its own: torch asks once what the processor's instructions are, and keeps that it found none."""
    workspace = write_workspace(tmp_path)
    command = make_runnable(workspace, compile=True)
    environment = {**os.environ, "CXX": compiler, CACHE_VARIABLE: str(tmp_path / "code")}
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=workspace, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "finetune.compile: UNet cannot be compiled here" in done.stderr
    assert "needs a C++ compiler: install g++, or give its path in CXX, or set it to false" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((workspace / ".monai_tl/train").rglob("step-*"))


def test_kept_features_need_no_code(tmp_path: Path) -> None:
    run = train(tmp_path / "train/run", make_settings("feature_extraction", compile=True))
    assert "compiled" not in run.outcome.facts
    assert not (tmp_path / "train/compiled").exists()


def test_private_steps_refuse_it() -> None:
    with pytest.raises(ValidationError, match="set it to false with dp_sgd"):
        make_settings("full", privacy="dp_sgd", compile=True)
