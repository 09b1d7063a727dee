"""Small workspaces for the pipeline tests: one with the real stages on phantoms, one with stand-ins that take time."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from monai_tl.commands import key, phantom
from monai_tl.stages import STAGES

ROOT = Path(__file__).parents[2]
MARK = "MONAI_TL_TEST_MARK"
CURVE = """
curve:
  labels: [all]
  strategies: [scratch]
  seeds: [0]
  steps: [2]
  steps_labels: all
  training: {max_steps: null, validate_every: null, val_fraction: 0.25, keep_weights: false}
"""
"""A section of params.yaml for a curve of two points."""


@dataclass
class Place:
    """A workspace and the environment of all processes started for it, which a mark in it makes countable.

    Attributes:
        folder: The workspace.
        site: Holds the package as a wheel installs it; a copy, so an edit of the source during a test changes nothing.
    """

    folder: Path
    site: Path
    extra: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MONAI_TL"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
        own = {"PATH": path, "PYTHONPATH": str(self.site), MARK: self.mark, "DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}
        names = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@localhost"}
        names |= {"GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@localhost"}
        return {**kept, **own, **names, **self.extra}

    def start(self, *module: str, output: Path | None = None) -> subprocess.Popen[bytes]:
        """``python -m MODULE …`` in the workspace; its output goes to a file."""
        log = (output or self.folder.parent / f"{uuid.uuid4().hex}.log").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, *module: str, check: bool = True) -> str:
        """The output of ``python -m MODULE …``."""
        done = subprocess.run(
            [sys.executable, "-m", *module],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{module}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started for this workspace, however indirectly."""
        return [process for process in psutil.process_iter() if _environment_of(process).get(MARK) == self.mark]

    def find(self, *words: str) -> psutil.Process | None:
        """A process of this workspace whose command line holds all words, and which is no supervisor of such a one."""
        for process in self.processes():
            line = _command_line(process)
            if "monai_tl.supervise" not in line and all(word in line for word in words):
                return process
        return None

    def wait_for_end(self, seconds: float = 30.0) -> None:
        """Wait until nothing is alive that was started for this workspace.

        Raises:
            AssertionError: Something stayed; its command lines.
        """
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"alive after {seconds:g} s: {[_command_line(process) for process in left]}"

    def commit(self, message: str) -> None:
        """All that git does not ignore."""
        _git(self, "add", "--all")
        _git(self, "commit", "-q", "-m", message)

    @property
    def lock(self) -> bytes:
        return (self.folder / "dvc.lock").read_bytes()


def _environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except (psutil.Error, OSError):
        return {}


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of a condition.

    Raises:
        AssertionError: There was none in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes], number: int = signal.SIGINT, seconds: float = 40.0) -> int:
    process.send_signal(number)
    return process.wait(seconds)


def make_site(folder: Path) -> Path:
    """A copy of the package in the layout of its wheel."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "monai_tl", folder / "monai_tl", ignore=skipped)
    shutil.copytree(ROOT / "flows", folder / "monai_tl/template/flows", ignore=skipped)
    shutil.copyfile(ROOT / "prefect.yaml", folder / "monai_tl/template/prefect.yaml")
    return folder


def _git(place: Place, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=place.folder, env=place.environment, check=True, capture_output=True)


def _new_workspace(folder: Path, site: Path) -> Place:
    Place(folder.parent, site).run("monai_tl", "init", folder.name)
    return Place(folder, site)


def make_stand_in(folder: Path, site: Path) -> Place:
    """A workspace by ``init`` whose stages are stand-ins; see stand_in.py and STAND_IN_SLOW."""
    place = _new_workspace(folder, site)
    content = yaml.safe_load((folder / "dvc.yaml").read_text().replace("monai_tl.version", "stand_in.py"))
    for stage in STAGES:
        entry = content["stages"][stage.name]
        files = [next(iter(item)) for name in ("metrics", "plots") for item in entry.get(name, [])]
        address = f"{stage.name}@${{item.arm}}-${{item.fold}}-${{item.seed}}" if stage.matrix else stage.name
        entry["cmd"] = f"python stand_in.py {address} {','.join([*entry['outs'], *files])} {','.join(entry['deps'])}"
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.copyfile(ROOT / "tests/support/stand_in.py", folder / "stand_in.py")
    for name in ("data", "sources/pretrained"):
        (folder / name).mkdir(parents=True)
        (folder / name / "content.txt").write_text(name)
    return _committed(place)


def _committed(place: Place) -> Place:
    place.run("dvc", "add", "-q", "data")
    place.commit("Inputs")
    return place


def make_real(folder: Path, site: Path) -> Place:
    """A workspace by ``init`` with a handful of coarse phantoms, a made-up source, and a few training steps."""
    place = _new_workspace(folder, site)
    cohort = folder.parent / "cohort"
    phantom.run(cohort, seed=0, n_a=1, n_b=8, coarse=2)
    shutil.copytree(cohort / "hospital_b", folder / "data")
    secret = folder.parent / "pseudonym.key"
    key.run(secret, seed=0)
    write_made_up_source(folder / "sources/pretrained")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["ingest"]["key_file"] = str(secret)
    params["split"] |= {"n_folds": 2, "test_fraction": 0.4}
    params["plan"] |= {"max_patch_voxels": 4096}
    params["finetune"] |= {"max_steps": 4, "head_steps": 2, "warmup_steps": 1, "validate_every": 2, "n_threads": 1}
    params["predict"] |= {"n_threads": 1, "overlap": 0.0}
    params["evaluate"] |= {"n_bootstrap": 200}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return _committed(place)


def clone(origin: Place, folder: Path) -> Place:
    """A clone of a workspace in git, with its data beside it as ``dvc pull`` would bring them."""
    _git(origin, "clone", "-q", str(origin.folder), str(folder))
    shutil.copytree(origin.folder / "data", folder / "data")
    # the imports of a worker take longer than these few coarse cases
    return Place(folder, origin.site, {"MONAI_TL_EXECUTOR": "sequential"})


def write_made_up_source(folder: Path) -> None:
    """A source with random weights: liver and spleen, voxels of 12 mm."""
    from monai_tl.config import NetworkConfig
    from monai_tl.networks.builders import build_network
    from monai_tl.networks.groups import named_tensors
    from monai_tl.sources.card import Card, write_source

    arguments: dict[str, Any] = {"channels": [4, 8], "strides": [2], "num_res_units": 1, "norm": "instance"}
    network = NetworkConfig(name="unet", arguments=arguments)
    card = Card.model_validate(
        {
            "name": "made_up",
            "network": {**network.model_dump(), "n_channels": 1, "n_outputs": 3},
            "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
            "licence": "CC0-1.0",
            "citation": "nobody",
            "input": {
                "modality": "CT",
                "channels": ["CT"],
                "orientation": "RAS",
                "spacing_mm": [12.0, 12.0, 12.0],
                "intensity": {"rule": "window", "low": -160.0, "high": 260.0},
                "size_rule": {"divisor": 2, "min_vox": [4, 4, 4]},
            },
            "classes": ["liver", "spleen"],
        }
    )
    write_source(folder, card, named_tensors(build_network(network, 1, 3, seed=1)))


def events(log: Path) -> Sequence[str]:
    return log.read_text(errors="replace").splitlines() if log.is_file() else []
