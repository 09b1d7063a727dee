"""Versions of the model and the one in production: git tags in the format of GTO, made and read by GTO itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_tl.commands import promote
from monai_tl.commands.compare import judge_pair
from monai_tl.commands.compare_runs import RUN_CASES, fetch_of_revision, find_cases, read_run
from monai_tl.errors import ConfigError, DataError, PromotionError
from monai_tl.files import held, temporary_folder
from monai_tl.stages import STATE_FOLDER
from monai_tl.stages.export import EXPORT_FOLDER, MODEL_FOLDER
from monai_tl.verdict_words import WORDS

MODEL, PROD, CANDIDATE = "model", "prod", "candidate"
_MODELS = "models"
_COMMITTED = (
    "params.yaml", "dvc.yaml", "dvc.lock", promote.PROMOTED_FILE, promote.CANDIDATE_FILE,
    promote.METRICS_FILE, RUN_CASES,
)  # fmt: skip
_TIME_OUT_S = 120.0
_GTO = "from gto.cli import app; app()"


@dataclass(frozen=True)
class Version:
    """A registered model.

    Attributes:
        name: E.g. ``v0.0.1``.
        commit: That holds its lock file, scores and record.
        is_prod: Whether it is the one in production.
        is_candidate: Whether it is the latest that a scheduled run has left for a person to judge.
        record: Of ``promoted.json`` or ``candidate.json`` at this commit; empty where it has none.
    """

    name: str
    commit: str
    is_prod: bool
    is_candidate: bool
    record: dict[str, Any]

    @property
    def tag(self) -> str:
        """Its git tag."""
        return f"{MODEL}@{self.name}"


def versions(workspace: Path) -> list[Version]:
    """All registered versions, the latest first.

    Raises:
        ConfigError: The workspace is in no git repository.
    """
    if not _git(workspace, "for-each-ref", f"refs/tags/{MODEL}@*"):
        # GTO takes an artifact without a tag for a mistake
        return []
    found = json.loads(_gto(workspace, "show", MODEL, "--json"))
    in_prod, candidates = _in_stage(workspace, PROD), _in_stage(workspace, CANDIDATE)
    return [
        Version(
            one["version"],
            one["commit_hexsha"],
            one["version"] in in_prod,
            one["version"] in candidates,
            _record(workspace, one["commit_hexsha"]),
        )
        for one in found
        if one["registrations"]
    ]


def _in_stage(workspace: Path, stage: str) -> set[str]:
    return {one["version"] for one in json.loads(_gto(workspace, "show", f"{MODEL}#{stage}", "--json"))}


def register(workspace: Path, revision: str) -> str:
    """Give the model of a commit a version, and leave it as the candidate; nothing is promoted.

    The same model again changes nothing, so a run may do it as often as it likes.

    Args:
        workspace: In a git repository that has the commit.
        revision: That holds the model's lock file and ``candidate.json``.

    Raises:
        ConfigError: There is no such commit, or it holds no record of a model.
    """
    (commit,) = _git(workspace, "rev-parse", "--verify", f"{revision}^{{commit}}")
    digest = _record(workspace, commit).get("model_sha256")
    if not digest:
        raise ConfigError(f"--register: {revision} holds no record of a model ({promote.CANDIDATE_FILE})", "arguments")
    with held(workspace):
        known = next((one for one in versions(workspace) if one.record.get("model_sha256") == digest), None)
        if known is None:
            _gto(workspace, "register", MODEL, commit)
            known = next(one for one in versions(workspace) if one.commit == commit)
        if not (known.is_candidate or known.is_prod):
            _gto(workspace, "assign", MODEL, "--version", known.name, "--stage", CANDIDATE)
    if known.is_prod:
        return f"{known.name}, which is in production, is the same model; nothing was changed."
    return f"{known.name} is the candidate. Look at it with 'monai-tl compare', take it with 'git merge {revision}'."


def describe_models(workspace: Path) -> str:
    """``monai-tl models``: a table in Markdown."""
    found = versions(workspace)
    if not found:
        return (
            "No version yet: 'monai-tl promote' records a model, 'monai-tl promote --stage prod --approve' takes it in."
        )
    lines = ["| version | stage | verdict | data | source | licence | weights |", "|---|---|---|---|---|---|---|"]
    for one in found:
        verdict, source = one.record.get("verdict") or {}, one.record.get("source") or {}
        data = ", ".join(f"{path} {digest[:8]}" for path, digest in (one.record.get("data") or {}).items())
        word = verdict.get("verdict", "none")
        if word != "none":
            # nothing comparable was tested, or an older record: no number
            difference = verdict.get("difference")
            word = WORDS.get(word, word) + ("" if difference is None else f" ({difference:+.3f})")
        cells = (
            one.name, _stages(one), word, data or "–", source.get("name") or "from scratch",
            source.get("licence") or "–", str(one.record.get("model_sha256", "–"))[:12],
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _stages(one: Version) -> str:
    return PROD if one.is_prod else CANDIDATE if one.is_candidate else ""


def weigh(workspace: Path, *, accept_undecided: bool = False) -> str:
    """How the workspace's model compares with the one in production; empty when it is that one.

    Refused: what ``promote`` refuses; files of the run that are not committed; a model that the one in production
    surpasses, or that is not shown to be better over the test cases both have scored.

    Args:
        workspace: Of a finished run, in git.
        accept_undecided: Take it although it is not shown to be better.

    Raises:
        PromotionError: See above; nothing was changed but the record in promoted.json.
    """
    said = promote.run(workspace, accept_undecided)
    dirty = _git(workspace, "status", "--porcelain", "--ignored", "--", *_COMMITTED)
    if dirty:
        names = ", ".join(sorted(line[3:] for line in dirty))
        raise PromotionError(f"{said} Not committed yet: {names}; commit them, since a version is a commit")
    champion = next((one for one in versions(workspace) if one.is_prod), None)
    record = _record(workspace, "HEAD")
    if champion is not None and champion.record.get("model_sha256") == record.get("model_sha256"):
        return ""
    return _compare(champion, record, workspace, accept_undecided) if champion else "There was none before."


def to_prod(workspace: Path, *, approve: bool, accept_undecided: bool = False) -> str:
    """Put the workspace's model in production: a tag on the commit that holds it. See ``weigh``.

    Args:
        workspace: Of a finished run, in git.
        approve: Somebody has looked at it and says so.
        accept_undecided: Take it although it is not shown to be better.

    Raises:
        PromotionError: It is refused, or nobody has approved.
    """
    comparison = weigh(workspace, accept_undecided=accept_undecided)
    if not comparison:
        return "It is in production already; nothing was changed."
    if not approve:
        raise PromotionError(f"{comparison} Look at the report, then say --approve to put the model in production")
    with held(workspace):
        _gto(workspace, "assign", MODEL, "HEAD", "--stage", PROD)
        now = next(one for one in versions(workspace) if one.is_prod)
    return f"{now.name} is in production. {comparison} Undo: monai-tl promote --stage {PROD} --undo"


def undo(workspace: Path) -> str:
    """Take the version in production out of it: the one before is there again.

    Raises:
        PromotionError: There is none.
    """
    with held(workspace):
        live = next((one for one in versions(workspace) if one.is_prod), None)
        if live is None:
            raise PromotionError(f"no version is in stage {PROD}; there is nothing to undo")
        _gto(workspace, "deprecate", MODEL, live.name, PROD)
        before = next((one for one in versions(workspace) if one.is_prod), None)
    return f"{live.name} is out of production; {before.name if before else 'none'} is in it now."


def _compare(champion: Version, record: dict[str, Any], workspace: Path, accept_undecided: bool) -> str:
    try:
        first = read_run(champion.name, find_cases(champion.tag, workspace), "dice", champion.record.get("arm"))
        second = read_run("the candidate", find_cases(str(workspace), workspace), "dice", record.get("arm"))
        word, sentence = judge_pair(first, second)
    except (ConfigError, DataError) as error:
        raise PromotionError(
            f"the model cannot be compared with {champion.name}, which is in production: {error}"
        ) from None
    if word == "worse":
        raise PromotionError(f"{sentence} A model that the one in production surpasses is not taken")
    if word != "better" and not accept_undecided:
        raise PromotionError(f"{sentence} Add test cases or seeds, or take it knowingly with {promote.ACCEPT}")
    return sentence


def stage_mark(workspace: Path) -> str:
    """Changes whenever another version is put in production; cheap to ask for."""
    return "\n".join(_git(workspace, "for-each-ref", "--format=%(refname)", f"refs/tags/{MODEL}#{PROD}*"))


def fetch_prod(workspace: Path) -> Path:
    """The folder of the model in production, brought from DVC where it is not here yet or was changed here.

    Raises:
        ConfigError: No version is in production, nothing records what it is, or DVC has it no more.
        DataError: Code ``integrity``: what DVC has is not the model that was promoted.
    """
    live = next((one for one in versions(workspace) if one.is_prod), None)
    if live is None:
        raise ConfigError(
            f"inbox.model: is null, and no version is in stage {PROD}; promote one (monai-tl promote --stage {PROD} "
            "--approve), or give the folder of a model"
        )
    expected = live.record.get("model_sha256")
    if not expected:
        raise ConfigError(
            f"inbox.model: the commit of {live.name} has no record of its model ({promote.PROMOTED_FILE}), so nothing "
            f"tells whether it is whole; promote it with 'monai-tl promote --stage {PROD} --approve'"
        )
    folder = workspace / STATE_FOLDER / _MODELS / f"{live.name}-{live.commit[:12]}"
    if folder.is_dir() and promote.model_digest(folder) == expected:
        return folder
    path = f"{EXPORT_FOLDER}/{MODEL_FOLDER}"
    with temporary_folder(folder.parent, folder.name) as temporary:
        fetched = temporary / MODEL_FOLDER
        fetch_of_revision(live.commit, path, fetched, workspace)
        if (found := promote.model_digest(fetched)) != expected:
            raise DataError(
                f"the model of {live.name} ({path} at commit {live.commit[:12]}) is not the one that was promoted: DVC "
                f"gives sha256 {found[:12]}, {promote.PROMOTED_FILE} has {expected[:12]}. DVC's copy of it is damaged "
                "or was changed: 'monai-tl doctor --cache' names damaged copies in its cache; remove these, bring them "
                "back from the remote ('dvc fetch'), or put another version in production",
                "integrity",
            )
        if folder.exists():
            # goes with the temporary folder
            folder.rename(temporary / "changed")
        fetched.rename(folder)
    return folder


def _record(workspace: Path, commit: str) -> dict[str, Any]:
    """What is known of a commit's model: as a run has left it; a promotion takes that file away."""
    candidate = _shown(workspace, commit, promote.CANDIDATE_FILE).get("candidate")
    promoted = _shown(workspace, commit, promote.PROMOTED_FILE).get("promotions") or [{}]
    found: dict[str, Any] = candidate if isinstance(candidate, dict) else promoted[-1]
    return found


def _shown(workspace: Path, commit: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads("\n".join(_git(workspace, "show", f"{commit}:./{name}")))
    except (ValueError, ConfigError):
        return {}
    return found if isinstance(found, dict) else {}


def _git(workspace: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=workspace, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"git {arguments[0]} failed in the workspace; it must be in a git repository", "workspace")
    # a file that somebody edited may have no newline at its end
    return done.stdout.removesuffix("\n").split("\n") if done.stdout else []


def _gto(workspace: Path, *arguments: str) -> str:
    root = _git(workspace, "rev-parse", "--show-toplevel")[0]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-c", _GTO, *arguments, "--repo", root],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=_TIME_OUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise PromotionError(f"gto {arguments[0]}: {_last(done.stderr)}")
    return done.stdout


def _last(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
