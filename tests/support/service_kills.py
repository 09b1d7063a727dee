"""Kills in a running service: who, when, what must be gone after it, and what must hold at any moment."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from inbox_world import study_uid, write_model, write_study
from orthanc import AUTH, orthanc_in
from service_world import WORKERS, World, write_schedules
from workspaces import Place, free_port, make_real, make_site, until

from monai_tl.looks import LOOKS_FILE
from monai_tl.report.whole_page import WHOLE_PAGE

KINDS = ("flow", "dvc", "stage", "worker", "server", "orthanc")
EVERY_S, SILENCE_S = 30, 75
"""Between runs by the schedule: each that comes too early is cancelled, which costs the server as much as a run; and
until a run that shows no life is taken for dead."""
LONGEST_WAIT_S = {"flow": 10.0, "dvc": 2.0, "stage": 6.0, "worker": 5.0, "server": 5.0, "orthanc": 5.0}
"""From the moment on when there is a victim: about as long as its work takes."""
_PATIENCE_S = 420.0
"""Longer than the lease of a run whose process and server were killed together (300 s)."""


def plan(seed: int, n_kills: int) -> list[str]:
    """Who is killed in a round, in order: each kind as often as any other, give or take one."""
    draw = random.Random(seed)
    more = [KINDS[(seed * n_kills + number) % len(KINDS)] for number in range(n_kills)]
    draw.shuffle(more)
    return more


@dataclass
class Undisturbed:
    """What a run without faults leaves.

    Attributes:
        lock: dvc.lock.
        products: Path → digest of all that stages made.
        outbox: Path → digest of all that the inbox made.
        ledger: Rows without times and attempts.
        stored: SOPInstanceUID → digest of each SEG in the PACS.
    """

    lock: bytes
    products: dict[str, str]
    outbox: dict[str, str]
    ledger: list[tuple[Any, ...]]
    stored: dict[str, str]


def digests(folder: Path) -> dict[str, str]:
    """Of every file that is in its place; what is being made has a name with a dot."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def products(workspace: Path) -> dict[str, str]:
    """Path → digest of what stages have made, their outputs and the count of looks at the test set."""
    found = {f"artifacts/{name}": digest for name, digest in digests(workspace / "artifacts").items()}
    found |= {f"reports/{name}": digest for name, digest in digests(workspace / "reports").items()}
    # it holds how long the stages took, and is no output
    found.pop(WHOLE_PAGE, None)
    return found | {LOOKS_FILE: hashlib.sha256((workspace / LOOKS_FILE).read_bytes()).hexdigest()}


def ledger_rows(workspace: Path) -> list[tuple[Any, ...]]:
    base = sqlite3.connect(workspace / "outbox/.ledger/ledger.sqlite", timeout=30)
    columns = "content, study, n_instances, state, owner, code, n_segmented, n_refused, model, measures, sent"
    try:
        return list(base.execute(f"SELECT {columns} FROM studies ORDER BY content"))
    finally:
        base.close()


def stored_segs(pacs: Any) -> dict[str, str]:
    """Each SEG in the PACS, as its own REST interface gives it out."""
    found = {}
    for name in pacs.call("/instances"):
        tags = pacs.call(f"/instances/{name}/simplified-tags")
        if tags["Modality"] == "SEG":
            token = base64.b64encode(AUTH.encode()).decode()
            url = f"http://127.0.0.1:{pacs.port}/instances/{name}/file"
            request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                found[tags["SOPInstanceUID"]] = hashlib.sha256(answer.read()).hexdigest()
    return found


def snapshot(workspace: Path, pacs: Any) -> Undisturbed:
    return Undisturbed(
        (workspace / "dvc.lock").read_bytes(), products(workspace), digests(workspace / "outbox"),
        ledger_rows(workspace), stored_segs(pacs),
    )  # fmt: skip


@dataclass
class Base:
    """A workspace before its first run, and what it comes to without faults."""

    place: Place
    pacs_port: int
    studies: list[list[Path]]
    undisturbed: Undisturbed


def make_workspace(home: Path, n_attempts: int) -> tuple[Place, int]:
    """A workspace for a service: small real stages, an inbox that a PACS on the returned port feeds, schedules on."""
    place = make_real(home / "workspace", make_site(home / "site"))
    place.extra |= {"MONAI_TL_EXECUTOR": "sequential", "OMP_NUM_THREADS": "1", "MONAI_TL_PACS_AUTH": AUTH}
    port = free_port()
    write_model(place.folder / "model")
    params = yaml.safe_load((place.folder / "params.yaml").read_text())
    pacs = {"url": f"http://127.0.0.1:{port}/dicom-web", "days": None, "timeout_s": 20}
    params["inbox"] = {"model": "model", "settle_s": 2, "retry_s": 1, "max_attempts": n_attempts, "pacs": pacs}
    (place.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_schedules(place.folder, EVERY_S, SILENCE_S)
    # waiting for what is dead is most of a round; Prefect lets runs show life every 30 s and no oftener
    guards = place.folder / "flows/guards.py"
    text = guards.read_text()
    for name in ("SILENCE_S", "PENDING_S"):
        text, n_changed = re.subn(rf"^{name} = \d+$", f"{name} = {SILENCE_S}", text, flags=re.MULTILINE)
        assert n_changed == 1
    guards.write_text(text)
    return place, port


def make_base(home: Path, n_studies: int) -> Base:
    """The workspace, and what plain commands make of it."""
    # as many attempts as there are kills: what is at test is that nothing is lost, not when a study is given up
    place, port = make_workspace(home, n_studies + 1)
    studies = [study_of(number, home / "studies") for number in range(n_studies)]
    plain = Place(shutil.copytree(place.folder, home / "undisturbed", symlinks=True), place.site, place.extra)
    plain.run("monai_tl", "run", "--plain")
    with orthanc_in(home / "pacs", port) as running:
        for paths in studies:
            running.put(paths)
        # the first look at a study in the PACS begins to count the time it must be quiet
        plain.run("monai_tl", "inbox", "--once")
        time.sleep(3)
        plain.run("monai_tl", "inbox", "--once")
        found = snapshot(plain.folder, running)
    assert len(found.stored) == len(found.ledger) == n_studies
    return Base(place, port, studies, found)


def study_of(number: int, folder: Path) -> list[Path]:
    return sorted(write_study(folder / study_uid(number), number))


@dataclass
class Round:
    """Kills in one service, each followed by the checks.

    Attributes:
        killed: Kind and command line of each kill.
        seen: Study in the outbox → what its result was when it was first seen there.
    """

    world: World
    undisturbed: Undisturbed
    draw: random.Random
    killed: list[tuple[str, str]] = field(default_factory=list)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.world.workspace.folder

    def kill(self, kind: str) -> None:
        """SIGKILL to a process of a kind at a random moment; one that is gone by then is replaced by the next."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if not self._victims(kind):
                time.sleep(0.1)
                continue
            time.sleep(self.draw.uniform(0.0, LONGEST_WAIT_S[kind]))
            found = self._victims(kind)
            if not found:
                continue
            victim = self.draw.choice(found)
            try:
                line = " ".join(victim.cmdline())
                below = victim.children(recursive=True)
                victim.kill()
            except psutil.NoSuchProcess:
                continue
            self.killed.append((kind, line))
            print(f"{time.strftime('%X')} killed {kind}: {line[-80:]}", flush=True)
            if kind in ("flow", "dvc", "stage"):
                self._await_end_of(below, line)
            return
        raise AssertionError(f"no {kind} to kill within {_PATIENCE_S:g} s; killed so far: {self.killed}")

    def _victims(self, kind: str) -> list[psutil.Process]:
        if kind in ("server", "orthanc"):
            return self.world.services[kind].place.processes()
        if kind == "worker":
            started = [self.world.services[name].process for name in WORKERS]
            return [psutil.Process(one.pid) for one in started if one is not None and one.poll() is None]
        found = {one: _words(one) for one in self.world.at_work()}
        found = {one: words for one, words in found.items() if _IS[kind](words)}
        own = [one for one, words in found.items() if _OF_THE_TRAINING.get(kind) in words]
        # every second time the training's own work, while there is any: the rest of them comes more often
        n_before = sum(known == kind for known, _ in self.killed)
        wants_own = kind in _OF_THE_TRAINING and n_before % 2 == 0 and not self._is_trained()
        return own if wants_own else list(found)

    def _await_end_of(self, processes: list[psutil.Process], line: str) -> None:
        _, left = psutil.wait_procs(processes, timeout=20)
        assert not left, f"outlives {line}: {[_words(one) for one in left]}"

    def check(self) -> None:
        """At any moment: what is taken for done is whole, and what was done once stays."""
        until(self._locked_stages_hold, 240, "each output that dvc.lock names is the one of a run without faults")
        outbox = self.workspace / "outbox"
        visible = digests(outbox) if outbox.is_dir() else {}
        other = visible.items() - self.undisturbed.outbox.items()
        assert not other, f"not as without faults: {sorted(other)}"
        for study in {name.split("/")[0] for name in visible}:
            expected = {name for name in self.undisturbed.outbox if name.startswith(f"{study}/")}
            assert expected <= set(visible), f"{study} is seen in part: {expected - set(visible)}"
            status = (outbox / study / "result.json").stat()
            first = self.seen.setdefault(study, (status.st_ino, status.st_ctime_ns))
            assert first == (status.st_ino, status.st_ctime_ns), f"{study} was made twice"

    def _locked_stages_hold(self) -> bool:
        """Asked until it is so: DVC writes its lock in place, and a run that follows a kill mends it."""
        whole = yaml.safe_load(self.undisturbed.lock)["stages"]
        try:
            found = (yaml.safe_load((self.workspace / "dvc.lock").read_text()) or {}).get("stages", {})
        except FileNotFoundError:
            return True
        except (yaml.YAMLError, AttributeError):
            return False
        return all(whole.get(name) == entry and self._is_sealed(entry) for name, entry in found.items())

    def _is_sealed(self, entry: Mapping[str, Any]) -> bool:
        folders = [self.workspace / one["path"] for one in entry["outs"] if "nfiles" in one]
        return all(
            subprocess.run(["sha256sum", "--check", "--strict", "--status", "SHA256SUMS"], cwd=folder).returncode == 0
            if (folder / "SHA256SUMS").is_file()
            else False
            for folder in folders
        )

    def _is_trained(self) -> bool:
        path = self.workspace / "dvc.lock"
        return path.is_file() and path.read_bytes() == self.undisturbed.lock

    def is_finished(self) -> bool:
        """Nothing is left to do: training and inbox have come as far as without faults."""
        try:
            return self._is_trained() and ledger_rows(self.workspace) == self.undisturbed.ledger
        except sqlite3.Error:
            return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _is_module(words: list[str], name: str) -> bool:
    return len(words) > 2 and words[1:3] == ["-m", name]


def _is_stage(words: list[str]) -> bool:
    return _is_module(words, "monai_tl") and any(word in words for word in ("stage", "inbox"))


_IS: dict[str, Callable[[list[str]], bool]] = {
    # one process: what prepares the run becomes what runs it
    "flow": lambda words: (
        _is_module(words, "prefect.engine") or _is_module(words, "prefect.runner._workspace_supervisor")
    ),
    "dvc": lambda words: _is_module(words, "dvc"),
    "stage": _is_stage,
}


_OF_THE_TRAINING = {"dvc": "repro", "stage": "stage"}
"""A word of their command lines; the other ones ask for DVC's status, or are passes over the inbox."""


def no_lock_blocks(workspace: Path) -> None:
    """Kernel locks can be had, and files that mean a lock name nobody who is dead."""
    for path in (workspace / ".monai_tl/run.lock", workspace / ".dvc/tmp/lock"):
        if path.exists():
            handle = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(handle)
    assert [path.name for path in (workspace / "outbox/.ledger").iterdir()] == ["ledger.sqlite"]
    half_made = [path for path in workspace.rglob(".*.part") if ".git" not in path.parts]
    assert half_made == []
