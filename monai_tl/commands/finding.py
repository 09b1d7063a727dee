"""One thing that ``monai-tl doctor`` looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        note: What was found; of a problem, what is wrong.
        mend: How to mend it; empty when all is well.
    """

    subject: str
    note: str
    mend: str = ""
