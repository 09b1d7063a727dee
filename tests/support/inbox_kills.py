"""A process that works on an inbox and is ended by SIGKILL at a chosen moment of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

_PRELOADED = ["monai_tl.commands.inbox", "monai_tl.sources.kinds", "highdicom", "torch._dynamo"]
MOMENTS = ("seen", "claimed", "half_written", "whole_beside_its_place", "in_its_place", "entered")


def context() -> ForkServerContext:
    """Processes that need not import torch again."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found


def work(workspace: Path, moment: str = "", which: int = 1) -> None:
    """One pass; with a moment the process is killed when it comes for the n-th time."""
    os.environ |= {"MONAI_TL_EXECUTOR": "sequential", "MONAI_TL_JOBS": "1"}
    from monai_tl.commands import inbox, segment
    from monai_tl.inbox import ledger, work

    left = [which]

    def die() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def patch(owner: Any, name: str, *, before: bool) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def patched(*given: Any, **more: Any) -> Any:
            if before:
                die()
            result = real(*given, **more)
            if not before and result is not False:
                die()
            return result

        setattr(owner, name, patched)

    places: dict[str, tuple[Any, str, bool]] = {
        "seen": (ledger.Ledger, "see", False),
        "claimed": (ledger.Ledger, "claim", False),
        "half_written": (segment, "write_image", False),
        "whole_beside_its_place": (work, "write_json", False),
        "in_its_place": (ledger.Ledger, "finish", True),
        "entered": (ledger.Ledger, "finish", False),
    }
    if moment:
        owner, name, before = places[moment]
        patch(owner, name, before=before)
    inbox.run(workspace, once=True, tell=lambda text: None)
