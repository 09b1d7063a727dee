"""``monai-tl doctor``: what is wrong with an installation or a workspace, and how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet
from rich.console import Console

from monai_tl.commands.doctor_service import dvc_lock, examine_service
from monai_tl.commands.finding import Finding
from monai_tl.config import PARAMS_FILE, Params, load_params
from monai_tl.dicom.deidentify import load_key
from monai_tl.errors import ConfigError, MonaiTLError
from monai_tl.integrity import check_if_sealed, damaged_copies
from monai_tl.parallel import n_jobs
from monai_tl.pipeline_file import REFRESH, check_sections, pipeline_text
from monai_tl.records import Plan
from monai_tl.sources.card import read_source
from monai_tl.sources.opening import hash_weights
from monai_tl.workspace import FLOWS_FOLDER, PIPELINE_FILE, check_installed_version

PINS = (
    ("prefect", "==3.8.8", "the flow was tested with it"),
    ("fastapi", "<0.151", "Prefect's server does not start with a later one"),
    ("sqlalchemy", "<2.1", "Prefect's schedules never fire with a later one"),
    ("dvc", "==3.67.1", "the flow reads its lock file"),
    ("torch", "==2.13.0", "results depend on it"),
    ("monai", "==1.6.1", "results depend on it"),
)
"""What a plain installation can get wrong without pip noticing."""

PLAN_PATH = "artifacts/plan/plan.json"
MIN_FREE_BYTES = 2 << 30


def run(folder: Path, console: Console | None = None, check_cache: bool = False) -> int:
    """Look at the installation and, where there is one, at the workspace; print a line for each thing.

    Args:
        folder: A workspace, or any folder to look at the installation alone.
        console: None prints on standard output.
        check_cache: Read every object in DVC's cache, which takes as long as reading all data there.

    Returns:
        0, or 1 when there is a problem.
    """
    console = console or Console()
    problems = 0
    for finding in (*examine(folder), *(_cache(folder) if check_cache else ())):
        problems += bool(finding.mend)
        mark = "[red]problem[/]" if finding.mend else "[green]ok[/]     "
        console.print(mark, end="  ")
        console.print(f"{finding.subject}: {finding.note}", highlight=False, markup=False, soft_wrap=True)
        if finding.mend:
            console.print(f"         → {finding.mend}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{problems} problem{'' if problems == 1 else 's'}.", highlight=False)
    return 1 if problems else 0


def examine(folder: Path) -> Iterator[Finding]:
    """All findings, of the installation first."""
    yield from _installation()
    if not (folder / PARAMS_FILE).exists():
        yield Finding("workspace", f"{folder} is none (no {PARAMS_FILE})", "make one with 'monai-tl init DIR'")
        return
    yield from _files(folder)
    yield dvc_lock(folder)
    params, faults = _params(folder)
    yield from examine_service(folder, params)
    if params is None:
        yield from (Finding(PARAMS_FILE, *_halves(fault, f"correct it in {PARAMS_FILE}")) for fault in faults)
        return
    try:
        check_sections(folder)
        yield Finding(PARAMS_FILE, "valid")
    except ConfigError as error:
        # what is wrong with the pipeline file has been said
        yield from (Finding(PARAMS_FILE, *_halves(fault)) for fault in error.faults if not fault.endswith(REFRESH))
    yield from _inputs(folder, params)


def _params(folder: Path) -> tuple[Params | None, Sequence[str]]:
    try:
        return load_params(folder), ()
    except ConfigError as error:
        return None, error.faults


def _installation() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    is_right = sys.version_info[:2] == (3, 11)
    yield Finding("python", version, "" if is_right else "make the virtual environment with Python 3.11")
    for name, wanted, why in PINS:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "is not installed", "pip install -c constraints.txt monai_tl")
            continue
        # a local label such as +cpu says how it was built, not which version it is
        fits = SpecifierSet(wanted).contains(found.split("+")[0], prereleases=True)
        yield Finding(name, found, "" if fits else f"pip install '{name}{wanted}': {why}")
    git = shutil.which("git")
    yield Finding("git", git or "is not installed", "" if git else "install git; DVC and workspaces need it")
    yield Finding("processes", f"{n_jobs()} for work over cases (MONAI_TL_JOBS)")


def _files(folder: Path) -> Iterator[Finding]:
    for name, mend in (
        (".git", "run 'git init'"),
        (".dvc", "run 'dvc init'"),
        (f"{FLOWS_FOLDER}/pipeline.py", "copy flows/ from a new workspace ('monai-tl init')"),
        (f"{FLOWS_FOLDER}/clock.py", "copy flows/ from a new workspace ('monai-tl init')"),
    ):
        is_there = (folder / name).exists()
        yield Finding(name, "there" if is_there else "missing", "" if is_there else mend)
    refresh = f"run 'monai-tl init --refresh {folder}'"
    try:
        check_installed_version(folder)
        yield Finding("monai_tl.version", "is the installed version")
    except ConfigError as error:
        yield Finding("monai_tl.version", _halves(error.faults[0])[0], refresh)
    try:
        wanted = yaml.safe_load(pipeline_text(folder))["stages"]
        found = yaml.safe_load((folder / PIPELINE_FILE).read_text(encoding="utf-8"))["stages"]
        other = [name for name, entry in wanted.items() if found.get(name) != entry]
        note = (
            f"differs from what {PARAMS_FILE} and monai_tl ask for, in {', '.join(other)}" if other else "as rendered"
        )
        yield Finding(PIPELINE_FILE, note, refresh if other else "")
    except ConfigError:
        pass  # params.yaml's own faults are told for themselves
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        yield Finding(PIPELINE_FILE, "missing or no pipeline", refresh)
    free = shutil.disk_usage(folder).free
    mend = "" if free >= MIN_FREE_BYTES else "make room: cases and arrays take several times the size of the input"
    yield Finding("disk", f"{free / 2**30:.1f} GiB free", mend)


def _cache(folder: Path) -> Iterator[Finding]:
    damaged = damaged_copies(folder)
    for path in damaged:
        yield Finding("DVC cache", f"{path} is not what it was", "remove it; the next run makes or pulls it again")
    if not damaged:
        yield Finding("DVC cache", "every object is what its name says")


def _inputs(folder: Path, params: Params) -> Iterator[Finding]:
    yield _guarded("pseudonym key", lambda: _key(Path(params.ingest.key_file)))
    yield _guarded("ingest.source", lambda: _data(folder, params.ingest.source))
    source = params.plan.source
    if source is not None:
        yield _guarded("plan.source", lambda: _source(folder / source))
        if (folder / PLAN_PATH).exists():
            yield _guarded("contract", lambda: _contract(folder))
    threads, cores = max(params.finetune.n_threads, params.predict.n_threads), os.cpu_count() or 1
    mend = "" if threads <= cores else "lower finetune.n_threads and predict.n_threads; results depend on them"
    yield Finding("threads", f"{threads} of {cores} cores", mend)


def _guarded(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except OSError as error:
        return Finding(subject, f"cannot be read: {error.strerror}", "mend its permissions")


def _key(path: Path) -> Finding:
    try:
        load_key(path)
    except MonaiTLError as error:
        return Finding("pseudonym key", *_halves(str(error)))
    return Finding("pseudonym key", f"{path}, for you alone")


def _data(folder: Path, source: str) -> Finding:
    if (folder / source).is_dir() and any((folder / source).iterdir()):
        return Finding("ingest.source", source)
    return Finding(
        "ingest.source", f"{source} is missing or empty", f"put the studies there, then run 'dvc add {source}'"
    )


def _source(folder: Path) -> Finding:
    try:
        source = read_source(folder)
    except MonaiTLError as error:
        return Finding("plan.source", str(error), "put a source folder (card.yaml and weights) there; see the README")
    if hash_weights(source) != source.card.weights.sha256:
        return Finding("plan.source", "the weights are not those of card.yaml", "fetch or copy the source folder again")
    return Finding("plan.source", f"{source.card.name}, weights as its card says")


def _contract(folder: Path) -> Finding:
    """What the last plan found broken; one that is not accepted was made by an older version."""
    try:
        check_if_sealed((folder / PLAN_PATH).parent)
        broken = [line for line in Plan.read(folder / PLAN_PATH).adaptations if line.status == "broken"]
    except MonaiTLError as error:
        return Finding("contract", *_halves(str(error)))
    if not broken:
        return Finding("contract", f"no line is broken in {PLAN_PATH}")
    told = "; ".join(f"{line.item}: {line.reason}" for line in broken)
    mend = "" if all(line.accepted for line in broken) else "run the plan stage again ('monai-tl run')"
    return Finding("contract", f"broken{'' if mend else ', and accepted in params.yaml'}: {told}", mend)


def _halves(message: str, otherwise: str = "see the message") -> tuple[str, str]:
    """What is wrong, and how to mend it, which our messages say after a semicolon."""
    note, _, mend = message.partition("; ")
    return note, mend or otherwise
