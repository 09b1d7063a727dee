"""One pass over the inbox: each whole study is claimed, worked on beside its place, and put there by one rename."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monai_tl.errors import ConfigError, DataError, MonaiTLError, SourceError, reason_of_unexpected
from monai_tl.files import read_json, sweep_abandoned, temporary_folder, whole_folder, write_json
from monai_tl.inbox.arrivals import Arrived, Look
from monai_tl.inbox.entries import Entry, State
from monai_tl.inbox.ledger import Ledger
from monai_tl.inbox.owners import is_alive, owner_in, sweep
from monai_tl.inbox.settings import LEDGER_FOLDER
from monai_tl.progress import Progress

RESULT_FILE = "result.json"
"""In a study's folder of the outbox: of which content and model it is. With it a lost ledger is made up for."""
PASSING_CODES = frozenset(("unreadable", "unreadable_folder"))
"""What a series can be refused with that may be otherwise in a minute."""
_PASSING_ERRORS = frozenset((
    errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY,
    errno.ENOLCK, errno.EDEADLK, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE,
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOMEM,
))  # fmt: skip


@dataclass(frozen=True)
class Worked:
    """What was made of a study.

    Attributes:
        n_segmented: Series with a result.
        refused: Code and reason of each that has none.
        measures: JSON for the drift; empty where nothing is known.
    """

    n_segmented: int
    refused: tuple[tuple[str, str], ...]
    measures: str = ""


Process = Callable[[Path, Path], Worked]
"""From a folder with the files of one study to a folder for its results."""


@dataclass(frozen=True)
class Rules:
    """How often, and with what.

    Attributes:
        model: Digest of the weights: a result of other weights is none of these.
    """

    model: str
    max_attempts: int
    retry_s: float


class _Passing(Exception):
    """May go well another time."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Lasting(_Passing):
    """Will not."""


def work(found: Look, outbox: Path, ledger: Ledger, rules: Rules, process: Process) -> list[Entry]:
    """Work on all that is due, the oldest first.

    Whatever ends this process, at whatever moment: a study's folder in the outbox is whole or absent, and the next pass
    takes again what was claimed. A pass that finds the results of this content and model in their place only enters
    them, so what lies there is made once.

    Args:
        found: What lies in the inbox.
        outbox: Gets ``study-…/`` for each study with a result.
        ledger: Open.
        rules: See there.
        process: Gets the paths of a folder with links to the study's files, and of an empty folder for the results.

    Returns:
        The rows that were worked on, as they are now.

    Raises:
        MonaiTLError: Nothing can be segmented at all, for a reason that is no study's: the model, the machine's set-up.
    """
    owners = outbox / LEDGER_FOLDER
    for folder in (outbox, owners):
        sweep_abandoned(folder, "study-*")
    sweep(owners)
    touched: list[str] = []
    with owner_in(owners) as owner:
        ledger.take_over(lambda other: is_alive(owners, other), rules.max_attempts)
        progress = Progress("inbox", total=len(found.whole))
        while (entry := ledger.claim(owner, found.whole)) is not None:
            touched.append(entry.content)
            state, words = _work_on(entry, found.whole[entry.content], outbox, ledger, rules, process)
            progress.advance(f"{entry.study} {state}{words}", is_warning=state in ("failed", "quarantined"))
        progress.end()
    return [entry for entry in ledger.entries() if entry.content in touched]


def _work_on(
    entry: Entry, arrived: Arrived, outbox: Path, ledger: Ledger, rules: Rules, process: Process
) -> tuple[State, str]:
    """One claimed study to its end; what it is now, and a few words."""
    try:
        worked = _recovered(entry, outbox, rules) or _make(entry, arrived, outbox, rules, process)
    except _Lasting as fault:
        ledger.quarantine(entry, fault.code, str(fault))
        return "quarantined", f": {fault.code}"
    except _Passing as fault:
        return ledger.fail(entry, fault.code, str(fault), rules.max_attempts, rules.retry_s), f": {fault.code}"
    except BaseException:
        # an order to stop, or a fault that every other study would meet too
        ledger.give_back(entry)
        raise
    ledger.finish(
        entry,
        n_segmented=worked.n_segmented,
        n_refused=len(worked.refused),
        model=rules.model,
        measures=worked.measures,
    )
    return "done", f": {worked.n_segmented} segmented, {len(worked.refused)} refused"


def _recovered(entry: Entry, outbox: Path, rules: Rules) -> Worked | None:
    """What a process has put in its place before it ended without entering it."""
    try:
        found = read_json(outbox / entry.study / RESULT_FILE)
        if found["content"] != entry.content or found["model"] != rules.model:
            return None
        refused = tuple((str(code), str(reason)) for code, reason in found["refused"])
        return Worked(int(found["n_segmented"]), refused, str(found["measures"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(entry: Entry, arrived: Arrived, outbox: Path, rules: Rules, process: Process) -> Worked:
    if arrived.fault is not None:
        kind = _Passing if arrived.fault[0] in PASSING_CODES else _Lasting
        raise kind(*arrived.fault)
    try:
        with whole_folder(outbox / entry.study) as folder:
            with temporary_folder(outbox / LEDGER_FOLDER, entry.study) as links:
                for number, path in enumerate(arrived.paths):
                    (links / f"{number:06d}").symlink_to(path.resolve())
                worked = process(links, folder)
            if not arrived.is_unchanged():
                raise _Passing("changed", "files of the study changed while it was worked on")
            _judge(worked, is_last=entry.attempts >= rules.max_attempts)
            write_json(folder / RESULT_FILE, _result(entry, rules, worked))
    except (ConfigError, SourceError, _Passing):
        raise
    except DataError as error:
        raise (_Passing if error.code in PASSING_CODES else _Lasting)(error.code, str(error)) from error
    except MonaiTLError as error:
        raise _Passing("failed", str(error)) from error
    except MemoryError:
        raise _Passing("too_large", "the study does not fit in memory; use a machine with more") from None
    except OSError as error:
        # the text would name a file
        words = f"input or output failed ({error.strerror or type(error).__name__}); check disk space and permissions"
        raise (_Passing if error.errno in _PASSING_ERRORS else _Lasting)("machine", words) from None
    except Exception as error:
        raise _Lasting("failed", reason_of_unexpected(error)) from error
    return worked


def _judge(worked: Worked, is_last: bool) -> None:
    """Whether what was made may stay.

    Raises:
        _Passing: A series could not be read, and there is another attempt.
        _Lasting: There is no result.
    """
    passing = [one for one in worked.refused if one[0] in PASSING_CODES]
    if passing and not is_last:
        raise _Passing(*passing[0])
    if not worked.n_segmented:
        codes = sorted({code for code, _ in worked.refused})
        if not codes:
            raise _Lasting("no_image", "no image series was found in it")
        first = next(reason for code, reason in worked.refused if code == codes[0])
        also = f" (also: {', '.join(codes[1:])})" if codes[1:] else ""
        raise _Lasting(codes[0], f"{first}{also}")


def _result(entry: Entry, rules: Rules, worked: Worked) -> dict[str, object]:
    return {
        "content": entry.content,
        "model": rules.model,
        "n_segmented": worked.n_segmented,
        "refused": [list(one) for one in worked.refused],
        "measures": worked.measures,
    }
