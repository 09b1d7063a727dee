"""Labels that come through the inbox, each added to the data once and each counted once towards a new training.

They lie in the ledger's file, in a table of their own.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from monai_tl.inbox.ledger import BUSY_S, ledger_faults

Step = Literal["seen", "taken", "added", "training", "used", "refused"]
"""``seen``: waits, for its images or its turn; ``taken``: lies in the data; ``added``: DVC knows it; ``training``: a
run was asked for; ``used``: that run has ended well; ``refused``: no label to learn from, see its reason."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS corrections (
    content TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    arrived REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('seen', 'taken', 'added', 'training', 'used', 'refused')),
    series TEXT NOT NULL DEFAULT '',
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    changed REAL NOT NULL DEFAULT 0,
    run TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
"""
_LATER = {"attempts": "INTEGER NOT NULL DEFAULT 0", "not_before": "REAL NOT NULL DEFAULT 0"}
"""Columns that the table of an earlier version has not."""
FAILED = "training_failed"
"""Code of a label whose training failed."""
_LONGER = 4.0
_RELEASE = "'monai-tl inbox --release all'"


@dataclass(frozen=True)
class Correction:
    """One row.

    Attributes:
        content: Digest of the label's data set: the key.
        study: ``study-`` and 12 hex digits.
        series: Of the image series it draws on, ``series-`` and 12 hex digits, with commas between; empty before that
            is known.
        changed: When it came into its state, Unix seconds.
        run: Of the training that was asked for; of an ended one where that has to be done again.
        attempts: So many trainings that it was part of have failed.
        not_before: No training is asked for on its account before, Unix seconds.
    """

    content: str
    study: str
    arrived: float
    state: Step
    series: str
    code: str
    reason: str
    changed: float
    run: str
    attempts: int
    not_before: float


_COLUMNS = ", ".join(field.name for field in fields(Correction))


class Corrections:
    """The open table. Each method is one transaction, on the disk when it returns.

    Args:
        path: The ledger's file, which exists.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._base = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        self._base.execute("PRAGMA synchronous = FULL")
        self._base.executescript(_SCHEMA)
        self._bring_columns()

    def _bring_columns(self) -> None:
        """Two processes may open the table at once."""
        self._base.execute("BEGIN IMMEDIATE")
        there = {row[1] for row in self._base.execute("PRAGMA table_info(corrections)")}
        for name, kind in _LATER.items():
            if name not in there:
                self._base.execute(f"ALTER TABLE corrections ADD COLUMN {name} {kind}")
        self._base.execute("COMMIT")

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    def rows(self, *states: Step) -> list[Correction]:
        """Rows in these states, or all; those that arrived first come first."""
        where = f"WHERE state IN ({','.join('?' * len(states))})" if states else ""
        query = f"SELECT {_COLUMNS} FROM corrections {where} ORDER BY arrived, content"  # noqa: S608 - our own words
        return [Correction(*row) for row in self._base.execute(query, states)]

    def see(self, content: str, study: str, arrived: float) -> bool:
        """Note that a label is there; whether it is new."""
        cursor = self._base.execute(
            "INSERT OR IGNORE INTO corrections (content, study, arrived, state, changed) VALUES (?, ?, ?, 'seen', ?)",
            (content, study, arrived, self._clock()),
        )
        return cursor.rowcount > 0

    def wait(self, content: str, code: str, reason: str) -> None:
        """Something that may come, such as its images."""
        self._base.execute(
            "UPDATE corrections SET code = ?, reason = ? WHERE content = ? AND state = 'seen'", (code, reason, content)
        )

    def refuse(self, content: str, code: str, reason: str) -> None:
        """It cannot be learnt from."""
        self._move([content], "seen", "refused", code=code, reason=reason)

    def take(self, content: str, series: str) -> None:
        """It lies in the data."""
        self._move([content], "seen", "taken", series=series, code="", reason="")

    def add(self, contents: Collection[str]) -> None:
        """DVC knows them."""
        self._move(contents, "taken", "added")

    def start(self, contents: Collection[str], run: str) -> None:
        """A training was asked for."""
        self._move(contents, "added", "training", run=run, code="", reason="")

    def end(self, run: str, is_done: bool) -> None:
        """What became of that run; one that did not come to its end is wanted again."""
        asked = [row.content for row in self.rows("training") if row.run == run]
        self._move(asked, "training", "used" if is_done else "added")

    def fail(self, run: str, max_attempts: int, pause_s: float) -> None:
        """That run failed, which may pass: its labels are wanted again after a pause, until they failed often enough.

        Args:
            run: Of the training.
            max_attempts: After so many a person is asked.
            pause_s: Each pause is four times as long as the one before, for a training costs more than a study.
        """
        for row in [row for row in self.rows("training") if row.run == run]:
            attempts, pause = row.attempts + 1, pause_s * _LONGER ** (row.attempts + 1)
            if attempts < max_attempts:
                words = f"attempt {attempts} of {max_attempts} failed; the next comes in {pause:g} s at the earliest"
            else:
                words = f"given up after {attempts} attempts; look at run {run}, mend the cause, then {_RELEASE}"
            self._move([row.content], "training", "added", attempts=attempts, not_before=self._clock() + pause,
                       code=FAILED, reason=f"the training with it: {words}")  # fmt: skip

    def due(self, max_attempts: int) -> list[Correction]:
        """Rows on whose account a training may be asked for now."""
        now = self._clock()
        return [row for row in self.rows("added") if row.attempts < max_attempts and row.not_before <= now]

    def release(self, study: str) -> int:
        """Forget the trainings that failed; so many labels are wanted at once again.

        Args:
            study: Of the labels, or ``all``.
        """
        rows = [row for row in self.rows("added") if row.attempts and study in ("all", row.study)]
        self._move([row.content for row in rows], "added", "added", attempts=0, not_before=0.0, code="", reason="")
        return len(rows)

    def _move(self, contents: Collection[str], before: Step, after: Step, **values: str | float) -> None:
        names = "".join(f", {name} = ?" for name in values)
        # all or none: a half would be asked for again by itself
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany(
            f"UPDATE corrections SET state = ?, changed = ?{names} WHERE content = ? AND state = ?",  # noqa: S608
            [(after, self._clock(), *values.values(), content, before) for content in contents],
        )
        self._base.execute("COMMIT")


@contextmanager
def corrections_at(path: Path, clock: Callable[[], float] = time.time) -> Iterator[Corrections]:
    """The table for a block.

    Raises:
        MonaiTLError: The ledger cannot be used.
    """
    with ledger_faults(path):
        table = Corrections(path, clock)
        try:
            yield table
        finally:
            table.close()


def n_cases(rows: Sequence[Correction]) -> int:
    """So many series have a new label; two labels of one series are one case."""
    return len({name for row in rows for name in row.series.split(",") if name})
