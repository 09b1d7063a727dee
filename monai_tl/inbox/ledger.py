"""The ledger: one row a study's content, and what became of it. SQLite, since a transaction is what makes it once.

It holds digests, keyed hashes, counts and reasons; no tag value, no name of a file (docs/decisions/0014).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from monai_tl.errors import MonaiTLError
from monai_tl.inbox.entries import Entry, Known, State

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS studies (
    content TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    n_instances INTEGER NOT NULL,
    arrived REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('seen', 'working', 'done', 'failed', 'quarantined', 'superseded')),
    attempts INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    not_before REAL NOT NULL DEFAULT 0,
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    started REAL NOT NULL DEFAULT 0,
    finished REAL NOT NULL DEFAULT 0,
    n_segmented INTEGER NOT NULL DEFAULT 0,
    n_refused INTEGER NOT NULL DEFAULT 0,
    model TEXT NOT NULL DEFAULT '',
    measures TEXT NOT NULL DEFAULT '',
    sent TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS one_at_a_time ON studies (study) WHERE state = 'working';
-- without these each new study reads all rows, and so does each that is taken
CREATE INDEX IF NOT EXISTS of_study ON studies (study);
CREATE INDEX IF NOT EXISTS waiting ON studies (attempts, arrived, content) WHERE state IN ('seen', 'failed');
CREATE TABLE IF NOT EXISTS files (
    place TEXT PRIMARY KEY, stamp TEXT NOT NULL, study TEXT NOT NULL, is_image INTEGER NOT NULL, digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remote (
    study TEXT PRIMARY KEY, n_instances INTEGER NOT NULL, since REAL NOT NULL, fetched INTEGER NOT NULL
) WITHOUT ROWID;
"""
BUSY_S = 30.0
"""How long a process waits for another's transaction."""
_LONGEST_PAUSE_S = 3600.0


_COLUMNS = ", ".join(field.name for field in fields(Entry))


class Ledger:
    """An open ledger.

    Args:
        path: Its file; made if missing, mode 0600.
        key_id: Of the pseudonym key; a ledger of another key is refused, for in it no study would be known.
        clock: Unix seconds.

    Raises:
        MonaiTLError: It cannot be opened, is of another version or key, or is no ledger.
    """

    def __init__(self, path: Path, key_id: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        with ledger_faults(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            # one statement a transaction unless told otherwise; each is on the disk before it returns
            self._base = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.executescript(_SCHEMA)
            for name, value in (("version", str(_VERSION)), ("key_id", key_id)):
                self._base.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
            facts = dict(self._base.execute("SELECT name, value FROM facts"))
        if facts["version"] != str(_VERSION):
            raise MonaiTLError(f"{path} was written by another version of monai_tl; take that, or another inbox.outbox")
        if facts["key_id"] != key_id:
            raise MonaiTLError(
                f"{path} was written with another pseudonym key, so no study in it can be recognised; point "
                "ingest.key_file to that key, or take another inbox.outbox"
            )

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything in this block or nothing; no other process is in such a block at the same time."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._base.execute("COMMIT")
        except BaseException:
            # a full disk has ended it already, and an error of that would stand in the place of the first
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise

    def entries(self, *states: State) -> list[Entry]:
        """Rows in these states, or all; those that arrived first come first."""
        where = f"WHERE state IN ({','.join('?' * len(states))})" if states else ""
        query = f"SELECT {_COLUMNS} FROM studies {where} ORDER BY arrived, content"  # noqa: S608 - our own words
        return [Entry(*row) for row in self._base.execute(query, states)]

    def settled(self) -> set[str]:
        """Content of which ``see`` has nothing to note: it is known, and was not superseded."""
        rows = self._base.execute("SELECT content FROM studies WHERE state != 'superseded'")
        return {row[0] for row in rows}

    def see(self, content: str, study: str, n_instances: int, arrived: float) -> bool:
        """Note that a settled study is there; whether it is new.

        Earlier content of the same study that waits no longer needs to be done.
        """
        return self.see_all([(content, study, n_instances, arrived)]) == 1

    def see_all(self, studies: Iterable[tuple[str, str, int, float]]) -> int:
        """The same for several at once, which waits for the disk once; how many are new.

        Args:
            studies: Content, study, number of instances and time of arrival of each.
        """
        with self._transaction():
            return sum(self._see(*study) for study in studies)

    def _see(self, content: str, study: str, n_instances: int, arrived: float) -> bool:
        cursor = self._base.execute(
            "INSERT OR IGNORE INTO studies (content, study, n_instances, arrived, state) VALUES (?, ?, ?, ?, 'seen')",
            (content, study, n_instances, arrived),
        )
        if cursor.rowcount:
            self._base.execute(
                "UPDATE studies SET state = 'superseded', finished = ? "
                "WHERE study = ? AND content != ? AND state IN ('seen', 'failed')",
                (self._clock(), study, content),
            )
        else:
            # what was cut short and comes back as it was before is wanted again
            self._base.execute(
                "UPDATE studies SET state = 'seen', attempts = 0 WHERE content = ? AND state = 'superseded'",
                (content,),
            )
        return cursor.rowcount > 0

    def claim(self, owner: str, present: Collection[str]) -> Entry | None:
        """Take the next study: the one tried least often, and of those the oldest. None when nothing is due.

        Args:
            owner: Of ``monai_tl.inbox.owners``.
            present: Content that lies in the inbox.
        """
        now = self._clock()
        with self._transaction():
            waiting = self._base.execute(
                # no pause is so long: the clock was set back since
                "SELECT content FROM studies AS one WHERE state IN ('seen', 'failed') "
                "AND (not_before <= ? OR not_before > ?) "
                "AND NOT EXISTS (SELECT 1 FROM studies WHERE study = one.study AND state = 'working') "
                "ORDER BY attempts, arrived, content",
                (now, now + _LONGEST_PAUSE_S),
            )
            content = next((row[0] for row in waiting if row[0] in present), None)
            if content is None:
                return None
            self._base.execute(
                "UPDATE studies SET state = 'working', owner = ?, attempts = attempts + 1, started = ?, finished = 0 "
                "WHERE content = ?",
                (owner, now, content),
            )
        return self._entry(content)

    def finish(self, entry: Entry, *, n_segmented: int, n_refused: int, model: str, measures: str) -> None:
        """The results of a claimed study are in their place."""
        made: dict[str, float | str] = {"n_segmented": n_segmented, "n_refused": n_refused, "model": model}
        self._leave(entry, "done", **made, measures=measures, code="", reason="", sent="")

    def fail(self, entry: Entry, code: str, reason: str, max_attempts: int, pause_s: float) -> State:
        """Something that can pass: tried again later, and later each time, until it was tried often enough.

        Returns:
            ``failed``, or ``quarantined``.
        """
        if entry.attempts >= max_attempts:
            self.quarantine(entry, code, f"{reason}; given up after {entry.attempts} attempts")
            return "quarantined"
        pause = min(pause_s * 2.0 ** (entry.attempts - 1), _LONGEST_PAUSE_S)
        self._leave(entry, "failed", code=code, reason=reason, not_before=self._clock() + pause)
        return "failed"

    def quarantine(self, entry: Entry, code: str, reason: str) -> None:
        """Nothing that will pass: waits for a person."""
        self._leave(entry, "quarantined", code=code, reason=reason)

    def give_back(self, entry: Entry) -> None:
        """Claimed, but the work ended for a reason that is not the study's: as if it had never been begun."""
        self._leave(entry, "seen", attempts=entry.attempts - 1)

    def _leave(self, entry: Entry, state: State, **values: float | str) -> None:
        values = {"finished": self._clock(), **values, "state": state, "owner": ""}
        names = ", ".join(f"{name} = ?" for name in values)
        cursor = self._base.execute(
            f"UPDATE studies SET {names} WHERE content = ? AND state = 'working' AND owner = ?",  # noqa: S608
            (*values.values(), entry.content, entry.owner),
        )
        if cursor.rowcount != 1:
            raise MonaiTLError(
                f"{entry.study} was taken by another process while this one worked on it; the file system of "
                "inbox.outbox does not hold its locks: put it on another one"
            )

    def take_over(self, is_alive: Callable[[str], bool], max_attempts: int) -> int:
        """Free what dead processes had claimed; what ended so many of them is quarantined. How many were freed."""
        dead = [entry for entry in self.entries("working") if not is_alive(entry.owner)]
        for entry in dead:
            if entry.attempts >= max_attempts:
                words = f"the process ended without a word {entry.attempts} times while it worked on it; see its memory"
                self.quarantine(entry, "crashed", words)
            else:
                self._leave(entry, "seen", code="crashed", reason="a process that worked on it ended without a word")
        return len(dead)

    def release(self, study: str) -> int:
        """Let studies out of quarantine, with all their attempts before them; how many.

        Args:
            study: As reported, or ``all``.
        """
        return self._base.execute(
            "UPDATE studies SET state = 'seen', attempts = 0, not_before = 0 "
            "WHERE state = 'quarantined' AND (study = ? OR ? = 'all')",
            (study, study),
        ).rowcount

    def mark_sent(self, content: str, sent: str) -> None:
        """Note what became of the SEG on its way to the PACS."""
        self._base.execute("UPDATE studies SET sent = ? WHERE content = ?", (sent, content))

    def _entry(self, content: str) -> Entry:
        row = self._base.execute(f"SELECT {_COLUMNS} FROM studies WHERE content = ?", (content,)).fetchone()  # noqa: S608
        return Entry(*row)

    def known_files(self) -> dict[str, Known]:
        """What is remembered of files, by place."""
        rows = self._base.execute("SELECT place, stamp, study, is_image, digest FROM files")
        return {row[0]: Known(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows}

    def remember(self, files: Iterable[Known], gone: Iterable[str]) -> None:
        """Keep what was read of files, and forget those that are gone."""
        with self._transaction():
            self._base.executemany("DELETE FROM files WHERE place = ?", ((place,) for place in gone))
            self._base.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                ((one.place, one.stamp, one.study, int(one.is_image), one.digest) for one in files),
            )

    def look_remote(self, study: str, n_instances: int) -> tuple[float, bool]:
        """Note how many images of a study the PACS has.

        Returns:
            For how long it has been so many, s; and whether so many were fetched.
        """
        now = self._clock()
        with self._transaction():
            row = self._base.execute(
                "SELECT n_instances, since, fetched FROM remote WHERE study = ?", (study,)
            ).fetchone()
            if row is None or row[0] != n_instances:
                fetched = row[2] if row else 0
                self._base.execute(
                    "INSERT OR REPLACE INTO remote VALUES (?, ?, ?, ?)", (study, n_instances, now, fetched)
                )
                return 0.0, fetched == n_instances
        return abs(now - row[1]), row[2] == n_instances

    def mark_fetched(self, study: str, n_instances: int) -> None:
        """So many images of a study were fetched."""
        self._base.execute("UPDATE remote SET fetched = ? WHERE study = ?", (n_instances, study))


@contextmanager
def ledger_at(path: Path, key_id: str, clock: Callable[[], float] = time.time) -> Iterator[Ledger]:
    """A ledger for a block.

    Raises:
        MonaiTLError: See ``Ledger``; or it cannot be written, now or later in the block.
    """
    ledger = Ledger(path, key_id, clock)
    try:
        with ledger_faults(path):
            yield ledger
    finally:
        ledger.close()


@contextmanager
def ledger_faults(path: Path) -> Iterator[None]:
    """What SQLite and the disk say of the file, in words."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        if isinstance(error, OSError) and error.filename not in (str(path), str(path.parent)):
            raise
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise MonaiTLError(
            f"the ledger {path} cannot be used: {words}; check disk space and permissions of inbox.outbox, then run "
            "again: nothing is lost"
        ) from None
    except sqlite3.DatabaseError:
        raise MonaiTLError(
            f"{path} is damaged or no ledger; move it away and run again: studies whose results are in the outbox are "
            "recognised by those"
        ) from None
