"""An inbox's settings and where its ledger lies; cheap to import."""

from __future__ import annotations

from pathlib import Path

from monai_tl.config import InboxConfig, Params
from monai_tl.errors import ConfigError

LEDGER_FOLDER = ".ledger"
"""In the outbox: the ledger and who works."""
LEDGER_FILE = "ledger.sqlite"
FROM_INBOX = "from_inbox"
"""In ``ingest.source``: a folder for each series that got a label through the inbox."""


def section_of(params: Params) -> InboxConfig:
    """The section ``inbox``.

    Raises:
        ConfigError: There is none.
    """
    if params.inbox is None:
        raise ConfigError("inbox: is missing; add the section, docs/how-to/inbox.md shows one")
    return params.inbox


def ledger_of(workspace: Path, config: InboxConfig) -> Path:
    """The ledger's file."""
    return workspace / config.outbox / LEDGER_FOLDER / LEDGER_FILE
