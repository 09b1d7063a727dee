"""Which process this is among those that torchrun started, told without torch: most stages never load it."""

from __future__ import annotations

import os


def started_ranks() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are; (0, 1) where torchrun did not start it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
