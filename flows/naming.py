"""Names of flow runs: by which data and by which model, e.g. ``data 1a2b3c4d, model 9f8e7d6c``.

Digests and versions alone: names are seen by everybody on the dashboard. A name is made when its run begins, so nothing
here raises: what cannot be told is ``none``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from httpx import HTTPError
from prefect import get_client
from prefect.runtime import flow_run

from flows.inputs import pin_of
from flows.revision import git_lines
from monai_tl.config import load_params
from monai_tl.errors import MonaiTLError

_NONE, _N_DIGITS = "none", 8
_TRAINED_FROM = ("params.yaml", "dvc.yaml", "monai_tl.version", "monai_tl")
"""What decides a training beside its data; the last is the package itself, in a checkout of it."""
_MODEL, _PROD, _CANDIDATE = "artifacts/export/model", "prod", "candidate"
_RECORD = "candidate.json"


def of_training() -> str:
    """Of a training in place: its pinned data and its commit, ``-changed`` where parameters are not the commit's."""
    return _name(_pin_here, _commit)


def of_training_in_clone() -> str:
    """Of a training in the clone: all of it is the commit's."""
    return _name(_pin_of_commit, _head)


def of_inbox() -> str:
    """Of a pass over the inbox: the version in production, or by which weights the model of params.yaml works."""
    return _name(_pin_here, _inbox_model)


def of_promotion() -> str:
    """Of a promotion: the candidate's version, or the weights of the workspace's model where it is no candidate."""
    return _name(_pin_here, _promoted_model)


def rename(name: str) -> None:
    """Give the run that goes on another name: its data were not yet pinned when it began."""
    # a server that is busy for a moment must not end the run
    with suppress(HTTPError), get_client(sync_client=True) as client:
        client.set_flow_run_name(flow_run.id, name)


def _name(data: Callable[[Path], str], model: Callable[[Path], str]) -> str:
    return f"data {_told(data)}, model {_told(model)}"


def _told(tell: Callable[[Path], str]) -> str:
    """A file that is damaged or missing, or no git, is the run's to complain of."""
    try:
        return tell(Path.cwd()) or _NONE
    except (MonaiTLError, OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return _NONE


def _pin_here(workspace: Path) -> str:
    pin = pin_of(workspace, load_params(workspace).ingest.source)
    return _digest_in((workspace / pin).read_text(encoding="utf-8")) if pin else ""


def _pin_of_commit(workspace: Path) -> str:
    pin = pin_of(workspace, load_params(workspace).ingest.source)
    return _digest_in("\n".join(git_lines(workspace, "show", f"HEAD:./{pin}"))) if pin else ""


def _digest_in(pin: str) -> str:
    return str(yaml.safe_load(pin)["outs"][0]["md5"])[:_N_DIGITS]


def _head(workspace: Path) -> str:
    return "".join(git_lines(workspace, "rev-parse", "--verify", "--quiet", f"--short={_N_DIGITS}", "HEAD"))


def _commit(workspace: Path) -> str:
    head = _head(workspace)
    changed = git_lines(workspace, "diff", "--name-only", "HEAD", "--", *_TRAINED_FROM) if head else []
    return f"{head}-changed" if changed else head


def _inbox_model(workspace: Path) -> str:
    settings = load_params(workspace).inbox
    if settings is None:
        return ""
    return _version_in(workspace, _PROD) if settings.model is None else _weights_of(workspace / settings.model)


def _promoted_model(workspace: Path) -> str:
    tag = _assignment(workspace, _CANDIDATE)
    tagged = git_lines(workspace, "rev-parse", f"{tag}:./{_RECORD}") if tag else []
    if tagged and tagged == git_lines(workspace, "hash-object", _RECORD):
        return _version_in(workspace, _CANDIDATE)
    return _weights_of(workspace / _MODEL)


def _assignment(workspace: Path, stage: str) -> str:
    """The latest tag by which GTO has put a version in a stage, ``model#prod#3``; empty where it was taken out."""
    tags = git_lines(workspace, "for-each-ref", "--format=%(refname:strip=2)", f"refs/tags/model#{stage}*")
    found = [one for tag in tags if (one := re.fullmatch(rf"model#{stage}(!?)#(\d+)", tag))]
    latest = max(found, key=lambda one: int(one[2]), default=None)
    return "" if latest is None or latest[1] else latest[0]


def _version_in(workspace: Path, stage: str) -> str:
    """The version in a stage, e.g. ``v0.0.1``."""
    tag = _assignment(workspace, stage)
    points = ["--points-at", f"{tag}^{{commit}}", "refs/tags/model@v*"]
    names = git_lines(workspace, "for-each-ref", "--format=%(refname:strip=2)", *points) if tag else []
    return max((name.partition("@")[2] for name in names), default="")


def _weights_of(model: Path) -> str:
    """Of one model the digest of its weights as its card has it; of several also how many more there are."""
    cards = [model / "card.yaml"] if (model / "card.yaml").is_file() else sorted(model.glob("*/card.yaml"))
    contents: list[Any] = [yaml.safe_load(card.read_text(encoding="utf-8")) for card in cards]
    digests = [str(content["weights"]["sha256"])[:_N_DIGITS] for content in contents]
    return " and ".join([*digests[:1], *([f"{len(digests) - 1} more"] if len(digests) > 1 else [])])
