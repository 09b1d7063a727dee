"""Progress of a stage as lines on standard output: readable by a person, or by the flow that watches."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass

MARK = "@progress "
"""Prefix of a machine-readable line; the rest is JSON with stage, done, total, note."""
VARIABLE = "MONAI_TL_PROGRESS"
"""Set to ``json`` by the flow to ask for machine-readable lines."""


@dataclass
class Progress:
    """Counts the work of one stage.

    Args:
        stage: The stage's name, with arm and fold where it has them.
        total: Steps of work; 0 when not yet known.
    """

    stage: str
    total: int = 0
    done: int = 0

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Report that work was done; ``note`` holds pseudonymous ids and numbers only."""
        self.done += steps
        self.show(note)

    def show(self, note: str = "") -> None:
        """Print the present state."""
        if os.environ.get(VARIABLE) == "json":
            record = {"stage": self.stage, "done": self.done, "total": self.total, "note": note}
            line = MARK + json.dumps(record, ensure_ascii=True)
        else:
            line = f"{self.stage}: {self.done}/{self.total} {note}".rstrip()
        print(line, file=sys.stdout, flush=True)
