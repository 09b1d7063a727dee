"""The report with how long the run took and its energy: ``reports/report.html``, beside the one that DVC keeps.

``reports/html/report.html`` is the same file whenever the run is the same, so what differs from run to run is no part
of it (docs/decisions/0013-effort.md). A person who reads or mails a report wants one file that holds both.
"""

from __future__ import annotations

import html
from pathlib import Path

from monai_tl.effort import Effort, describe_effort, read_effort
from monai_tl.files import write_text
from monai_tl.report.provenance import EFFORT

WHOLE_PAGE, BARE_PAGE = "reports/report.html", "reports/html/report.html"
"""In the workspace; neither git nor DVC tracks the first."""


def write_whole_page(workspace: Path, state: Path) -> bool:
    """Write ``reports/report.html`` from the report that DVC keeps and from the times of the stages; atomic.

    Args:
        workspace: Where evaluate has run; without a report nothing is written.
        state: Its state folder, which holds the times.

    Returns:
        Whether it was written.
    """
    bare = workspace / BARE_PAGE
    if not bare.is_file():
        return False
    write_text(workspace / WHOLE_PAGE, add_effort(bare.read_text(encoding="utf-8"), read_effort(state)))
    return True


def add_effort(page: str, effort: Effort) -> str:
    """The page with the times in the place of the words that say where they are.

    Args:
        page: As ``render_page`` makes it.
        effort: Of the stages; the page stays as it is where nothing is known, and where it is of another version.
    """
    text = describe_effort(effort)
    if not text:
        return page
    by_stage = ", ".join(f"{name} {one.seconds:.1f} s" for name, one in effort.stages.items())
    told = f"each stage's last run in this workspace: {text}. Stage by stage: {by_stage}"
    return page.replace(html.escape(EFFORT), html.escape(told))
