"""A model's way into production, with an approver's word on the dashboard: the other way beside ``--approve``.

A run says how the workspace's model compares with the one in production, then is suspended: no process waits. Whoever
approves presses Resume and answers; the run starts again, looks again, and acts on the answer.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows import naming
from flows.processes import run_supervised
from monai_tl.errors import PromotionError

_TAIL_LINES = 6
_WEEK_S = 7 * 86_400


class Approval(RunInput):
    """What the approver is asked."""

    approve: bool = Field(default=False, description="I have looked at the report; the model may go into production.")


@flow(name="promotion", flow_run_name=naming.of_promotion, persist_result=False, validate_parameters=True)
def promotion(accept_undecided: bool = False, wait_s: int = _WEEK_S) -> str:
    """Ask for an approval, and put the workspace's model in production when it is given.

    Args:
        accept_undecided: Take a model that is not shown to be better; never one that is worse or did harm.
        wait_s: An approval that has not come by then is none, and the run fails.

    Returns:
        What was done, in a sentence.

    Raises:
        PromotionError: The model may not go out, whoever approves.
    """
    workspace, logger = Path.cwd(), get_run_logger()
    more = ["--accept-undecided"] if accept_undecided else []
    compared = _promote(workspace, "--weigh", *more)
    create_markdown_artifact(
        f"{compared}\n\n{_table(workspace)}", key="promotion", description="What an approver decides by"
    )
    asked = Approval.with_initial_data(description=compared)
    answer = suspend_flow_run(wait_for_input=asked, timeout=wait_s, key="approval")
    # typed as a value, None or a coroutine
    if not getattr(answer, "approve", False):
        logger.info("not approved; nothing was changed")
        return "not approved; nothing was changed"
    said = _promote(workspace, "--approve", *more)
    logger.info(said)
    return said


def _promote(workspace: Path, *options: str) -> str:
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    code = run_supervised(
        ["monai_tl", "promote", "--stage", "prod", *options], workspace, tail.append, progress="plain"
    )
    text = "\n".join(tail)
    if code != 0:
        raise PromotionError(text.partition("monai-tl: ")[2] or text)
    return text


def _table(workspace: Path) -> str:
    lines: list[str] = []
    run_supervised(["monai_tl", "models"], workspace, lines.append, progress="plain")
    return "\n".join(lines)
