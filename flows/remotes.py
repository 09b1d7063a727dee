"""Data and models between a workspace, its clone and the remote: brought, pushed, and tried again where that can help.

What can pass by itself is tried again after growing pauses: a line that was cut, a server that is busy or away for a
moment, another DVC command that holds the lock. A remote that is not there, credentials that are refused, data that are
nowhere and a full disk are the same a minute later, and end the run at once; the next scheduled one tries again.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flows import versioning
from flows.processes import git_said
from monai_tl.errors import ConfigError

PAUSES_S = (2.0, 8.0, 30.0)
"""Before the second, third and fourth try. What has come over stays, so each try has only the rest to do."""
_PASSES = re.compile(
    # of the line
    r"could not connect|cannot connect|connect call failed|connection (was |is )?(reset|refused|aborted|closed|lost)"
    r"|connection error|connection timeout|connect timeout|timed? ?out|unreachable|no route to host|broken pipe"
    r"|disconnected|name resolution|name or service not known|incomplete(read| read)|payload is not completed"
    # of a server that is busy
    r"|slow ?down|too many requests|service ?unavailable|internal ?error|bad gateway|\((429|500|502|503|504)\)"
    # of another command of DVC
    r"|another dvc command",
    re.IGNORECASE,
)
_STAYS = re.compile(
    r"denied|forbidden|unauthori[sz]ed|credential|invalidaccesskey|signaturedoesnotmatch|expiredtoken|no such bucket"
    r"|nosuchbucket|bucket does not exist|no remote specified|config file error|\((401|403)\)|no space left|disk quota"
    r"|read-only file system",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"\S*/\S*")
"""Of a remote or a file; their names may be any word."""


def _quiet(words: str) -> None:
    """For who need not know of a second try."""


def can_pass(words: str) -> bool:
    """Whether what DVC says of a failed transfer may be otherwise in a minute."""
    said = _ADDRESS.sub("", words)
    return bool(_PASSES.search(said)) and not _STAYS.search(said)


def share_cache(workspace: Path, clone: Path) -> None:
    """Let a clone use the cache, the remotes and the passwords of its workspace.

    Raises:
        ConfigError: DVC failed.
    """
    cache = versioning.run_alone(["cache", "dir"], workspace)[-1]
    own = workspace / ".dvc" / "config.local"
    if own.is_file():
        shutil.copyfile(own, clone / ".dvc" / "config.local")
    versioning.run_alone(["config", "--local", "cache.dir", cache], clone)


def bring_data(workspace: Path, tell: Callable[[str], None] = _quiet, pauses_s: Sequence[float] = PAUSES_S) -> None:
    """Put in place what is pinned: from the cache, and what is not there from the remote.

    Args:
        workspace: Of the ``.dvc`` files that git knows.
        tell: Gets a sentence before each further try.
        pauses_s: Before the second try, the third, …

    Raises:
        ConfigError: It is nowhere, git failed, or the remote did to the last try.
    """
    # its names end with a NUL, and so are as they are
    pins = git_said(["ls-files", "-z", "--", "*.dvc"], workspace, {}).split("\0")[:-1]
    # not by whether the folders exist: one may hold a part, after a kill
    if pins and not _is_in_cache(pins, workspace):
        _over_the_line(["pull", "--force", *pins], workspace, tell, pauses_s)
    versioning.run_alone(["checkout", "--force", "--allow-missing"], workspace)


def _is_in_cache(pins: Sequence[str], workspace: Path) -> bool:
    """Whether all of it could be put in place without the remote."""
    try:
        versioning.run_alone(["checkout", "--force", *pins], workspace)
    except ConfigError:
        return False
    return True


def push_data(workspace: Path, tell: Callable[[str], None] = _quiet, pauses_s: Sequence[float] = PAUSES_S) -> bool:
    """Push what the lock file names to the default remote; False where there is none.

    Args:
        workspace: Of the lock file.
        tell: Gets a sentence before each further try.
        pauses_s: Before the second try, the third, …

    Raises:
        ConfigError: The remote failed to the last try.
    """
    if not any(line.startswith("core.remote=") for line in versioning.run_alone(["config", "--list"], workspace)):
        return False
    _over_the_line(["push", "--run-cache"], workspace, tell, pauses_s)
    return True


def _over_the_line(
    arguments: Sequence[str], workspace: Path, tell: Callable[[str], None], pauses_s: Sequence[float]
) -> None:
    for pause_s in pauses_s:
        try:
            versioning.run_alone(arguments, workspace)
        except ConfigError as error:
            if not can_pass(str(error)):
                raise
            # not what DVC said: it names files
            tell(f"dvc {arguments[0]} did not come through to the remote; it is tried again in {pause_s:g} s")
            time.sleep(pause_s)
        else:
            return
    versioning.run_alone(arguments, workspace)
