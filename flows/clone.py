"""The training on a schedule, apart from where people work: ``python -m flows.clone`` runs it once.

A run works in a clone of the workspace's repository, on what its commit pins, with the workspace's DVC cache. What came
out is committed to a branch ``runs/<date>-<id>`` of the workspace, and pushed to the DVC remote where there is one. Its
model gets a version (a tag of GTO) and is the candidate until a person promotes it or another run leaves one. The clone
stays for the next run: with it the case cache, and the checkpoints of a run that was killed.

Looks at the test set are counted in the workspace's own file and not on the branch: there each night's would be another
version of one file, to be merged by hand.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
from pydantic import SecretStr

from flows import artifacts, naming, remotes, versioning
from flows.disk import disk_faults_told
from flows.pipeline import main
from flows.processes import git_said, last_words, run_git, run_supervised
from flows.takeover import take_over
from monai_tl.errors import ConfigError, StageError
from monai_tl.looks import bring_looks
from monai_tl.stages import STATE_FOLDER

_WHO = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "monai-tl"), ("EMAIL", "monai-tl@localhost"))}  # fmt: skip
_KEPT = ("candidate.json", "dvc.lock", "reports/metrics.json", "reports/plots")
_LOCK = "clone.lock"
"""Beside the workspace's own: whoever runs in the workspace and whoever runs in its clone do not meet."""
_CANDIDATE = "monai_tl.commands.candidate"
_TAIL_LINES = 12


@flow(
    name="training-in-clone",
    flow_run_name=naming.of_training_in_clone,
    persist_result=False,
    validate_parameters=True,
    on_running=[take_over],
)
def training_in_clone(stage_time_out_s: float | None = None) -> str:
    """Train on what the workspace's commit pins, and put the result on a branch.

    Args:
        stage_time_out_s: As of the training.

    Returns:
        The branch; empty where nothing has changed.

    Raises:
        WorkspaceBusyError: Another run works in the clone.
        ConfigError: There is no commit to train from, or git or DVC failed.
        StageError: The training failed.
    """
    workspace = Path.cwd()
    with disk_faults_told():
        # held from before the checkout to after the push: another run's checkout would change what this one trains on
        lock_handle = versioning.lock_workspace(workspace, _LOCK)
        try:
            return _train(workspace, stage_time_out_s, lock_handle)
        finally:
            os.close(lock_handle)


def _train(workspace: Path, stage_time_out_s: float | None, lock_handle: int) -> str:
    """One run in the clone, which is held; its branch."""
    logger = get_run_logger()
    clone = bring_clone(workspace)
    remotes.bring_data(clone, logger.warning)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def take(line: str) -> None:
        tail.append(line)
        logger.info(line)

    auth: str | SecretStr | None = PREFECT_API_AUTH_STRING.value()
    more = {"PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    if auth is not None:
        # a server that a run has started for itself asks for it too
        more["PREFECT_API_AUTH_STRING"] = auth.get_secret_value() if isinstance(auth, SecretStr) else auth
    if stage_time_out_s:
        more["MONAI_TL_STAGE_TIME_OUT_S"] = f"{stage_time_out_s:g}"
    bring_looks(workspace, clone)
    try:
        # with the lock: after a kill the next run waits for what this one has started
        code = run_supervised(["flows"], clone, take, None, [lock_handle], more=more, progress="plain")
    finally:
        bring_looks(clone, workspace)
    if code:
        raise StageError("training in the clone", last_words(tail, code))
    is_recorded = run_supervised([_CANDIDATE, "record"], clone, take) == 0
    branch = keep(clone)
    if branch:
        remotes.push_data(clone, logger.warning)
        is_registered = is_recorded and run_supervised([_CANDIDATE, "register", branch], workspace, take) == 0
        if not is_registered:
            logger.warning("the model of %s got no version: %s", branch, tail[-1] if tail else "see above")
        artifacts.publish_version(branch, tail[-1] if is_registered else "")
    logger.info("branch %s", branch or "none: nothing has changed")
    return branch


def is_going_on(workspace: Path) -> bool:
    """Whether a training works in the clone, also one that a person has started."""
    try:
        os.close(versioning.lock_workspace(workspace, _LOCK, wait_s=0.0))
    except versioning.WorkspaceBusyError:
        return True
    return False


def bring_clone(workspace: Path) -> Path:
    """The clone at the commit that is checked out in the workspace; made where there is none or no whole one.

    Call with the clone held: what a kill has left in it is undone.

    Raises:
        ConfigError: The workspace is not the root of a git repository with a commit that DVC knows.
    """
    head = _git(workspace, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not head or not (workspace / ".git").exists():
        raise ConfigError(
            "must be the root of a git repository with a commit; commit params.yaml and data.dvc", "clone"
        )
    clone = workspace / STATE_FOLDER / "clone"
    # of a run that was killed, before a new clone or the commit's own file takes their place
    bring_looks(clone, workspace)
    if not _git(clone, "rev-parse", "--is-inside-work-tree") or not (clone / ".git").is_dir():
        shutil.rmtree(clone, ignore_errors=True)
        clone.parent.mkdir(parents=True, exist_ok=True)
        _must(clone.parent, "clone", "--quiet", "--no-checkout", str(workspace.resolve()), clone.name)
    # the clone is held, so a lock in it is a dead command's
    (clone / ".git/index.lock").unlink(missing_ok=True)
    _must(clone, "fetch", "--quiet", "origin", head)
    _must(clone, "checkout", "--quiet", "--force", "--detach", head)
    if not (clone / ".dvc").is_dir():
        # DVC would take the workspace around it for the clone's own
        raise ConfigError("the commit holds no .dvc/config; commit what 'dvc init' wrote", "clone")
    remotes.share_cache(workspace, clone)
    return clone


def keep(clone: Path) -> str:
    """Commit what came out to a branch of the workspace's repository; empty where nothing did."""
    there = [name for name in _KEPT if (clone / name).exists()]
    _must(clone, "add", "--", *there)
    if not _git(clone, "diff", "--cached", "--name-only"):
        return ""
    digest = hashlib.sha256((clone / "dvc.lock").read_bytes()).hexdigest()[:8]
    branch = f"runs/{datetime.now(UTC):%Y%m%d}-{digest}"
    _must(
        clone,
        "commit",
        "--quiet",
        "--no-verify",
        "-m",
        f"Run {digest} on what {_must(clone, 'rev-parse', '--short', 'HEAD')} pins",
    )
    _must(clone, "push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
    return branch


def commit_pin(workspace: Path, pin: str, message: str) -> None:
    """Commit the file that pins the data, and nothing else that the user may have changed or staged.

    Raises:
        ConfigError: git failed.
    """
    if _git(workspace, "status", "--porcelain", "--", pin):
        _must(workspace, "commit", "--quiet", "--no-verify", "--only", "-m", message, "--", pin)


def _git(folder: Path, *arguments: str) -> str:
    """What git says, in one line; empty where it fails."""
    if not folder.is_dir():
        return ""
    done = run_git(arguments, folder, _WHO)
    return done.stdout.strip() if done.returncode == 0 else ""


def _must(folder: Path, *arguments: str) -> str:
    return git_said(arguments, folder, _WHO)


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main(training_in_clone))
