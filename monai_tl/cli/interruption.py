"""What Ctrl-C leaves of a verb's work, and how its user goes on."""

from __future__ import annotations

from collections.abc import Sequence

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
TERMINATED = 143
"""Exit status after SIGTERM."""
_RUN = "Stopped. Finished stages, finished cases and training up to its last checkpoint are kept; run again to go on."
_WORDS = {
    "run": _RUN,
    "curve": _RUN,
    "stage": _RUN,
    "serve": "Stopped, with all that it started. A run that was going on goes on with the next one.",
    "inbox": "Stopped. Studies that are done stay done; the one that was being worked on is taken again.",
    "rank": "Stopped. Networks that are scored are kept; the same command goes on with the others.",
    "pull": "Stopped. What was fetched is kept; the same command goes on from there.",
    "segment": "Stopped. Series that are finished are in the output folder, whole; the same command begins again.",
    "convert": "Stopped. Volumes that are finished are in the output folder, whole; the same command begins again.",
}
_OTHERS = "Stopped. Nothing half-made is left; the same command begins again."


def how_to_go_on(arguments: Sequence[str]) -> str:
    """The words for the verb of a command line.

    Args:
        arguments: All that follows ``monai-tl``.
    """
    return next((_WORDS[word] for word in arguments if word in _WORDS), _OTHERS)
