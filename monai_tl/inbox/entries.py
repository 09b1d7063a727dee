"""What the ledger holds of a study, and of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["seen", "working", "done", "failed", "quarantined", "superseded"]
"""``failed`` is tried again; ``quarantined`` waits for a person; ``superseded``: more of it came before its turn."""


@dataclass(frozen=True)
class Entry:
    """One row.

    Attributes:
        content: Hex sha256 over the study's instances: the key.
        study: ``study-`` and 12 hex digits of a keyed hash.
        arrived: Of the oldest of its files, Unix seconds.
        attempts: How often work on it was begun.
        started, finished: Unix seconds of the last attempt; 0 before.
        model: Digest of the weights.
        measures: JSON, see ``monai_tl.inbox.drift``.
        sent: ``stored`` when the PACS has the SEG; else empty or why not.
    """

    content: str
    study: str
    n_instances: int
    arrived: float
    state: State
    attempts: int
    owner: str
    not_before: float
    code: str
    reason: str
    started: float
    finished: float
    n_segmented: int
    n_refused: int
    model: str
    measures: str
    sent: str


@dataclass(frozen=True)
class Known:
    """What the ledger remembers of a file, so that its bytes are read once.

    Attributes:
        place: Keyed hash of its path.
        stamp: Size and times; a file with another one is read again.
        study: Of the study it belongs to; empty where nothing in it tells.
        digest: Of an image or a label; empty for anything else.
    """

    place: str
    stamp: str
    study: str
    is_image: bool
    digest: str
