"""How far each stage of a run is, on the dashboard: one progress artifact a stage, ``progress-ingest`` and so on.

A stage that trains several networks has one bar for all of them, and its text says which of them goes on. A stage that
was up to date gets none: the table of stages says so, and a night in which nothing changed costs the server nothing.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import cast
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.versioning import Step
from monai_tl.json_lines import MARK, parse_marked

UPDATE_EVERY_S = 2.0
"""An artifact is written no more often than this, but for its end."""


class ProgressBoard:
    """The progress artifact of one stage; made when there is first something to show.

    Args:
        stage: Its name.
        n_steps: How many steps it has, e.g. trainings; each takes an equal share of the bar.
    """

    def __init__(self, stage: str, n_steps: int) -> None:
        self.key = f"progress-{stage.replace('_', '-')}"
        self._n_steps = n_steps
        self._n_finished = 0
        self._last = -math.inf
        self._id: UUID | None = None

    def take(self, line: str) -> None:
        """Follow a stage's own progress line; other lines are not for here."""
        record = parse_marked(line, MARK)
        if record is None or not self._is_time():
            return
        done, total = float(record.get("done", 0)), float(record.get("total", 0))
        part = min(done / total, 1.0) if total > 0 else 0.0
        self._show(part, f"{record.get('stage', '')} {done:g}/{total:g}")

    def finish(self, name: str, outcome: str) -> None:
        """Count a step as finished; those that were up to date go by too fast to be shown one by one."""
        self._n_finished += 1
        is_last = self._n_finished == self._n_steps
        # one of several may have begun the bar
        is_told = outcome != "unchanged" or self._id is not None
        if is_told and (is_last or self._is_time()):
            self._show(0.0, f"{name}: {outcome}")

    def _is_time(self) -> bool:
        return time.monotonic() - self._last >= UPDATE_EVERY_S

    def _show(self, part: float, text: str) -> None:
        percent = min(100.0 * (self._n_finished + part) / self._n_steps, 100.0)
        words = f"{text} ({self._n_finished} of {self._n_steps} done)" if self._n_steps > 1 else text
        self._last = time.monotonic()
        # a server that is busy for a moment must not end hours of training
        with suppress(HTTPError):
            if self._id is None:
                # Prefect types its twin functions as "value or coroutine"; from synchronous code it is the value
                self._id = cast("UUID", create_progress_artifact(percent, key=self.key, description=words))
            else:
                update_progress_artifact(self._id, percent, description=words)


def boards_of(steps: Sequence[Step]) -> dict[str, ProgressBoard]:
    """A board for each stage of a pipeline, by its name."""
    return {stage: ProgressBoard(stage, n_steps) for stage, n_steps in Counter(step.stage for step in steps).items()}
