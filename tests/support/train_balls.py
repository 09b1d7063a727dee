"""Train on a workspace of balls in a process of its own: ``train_balls.py WORKSPACE STEPS [SOURCE SETTINGS]``.

Without a source the scratch arm; with one the transfer arm, with settings as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parent))

from balls import make_config, train_scratch

from monai_tl.records import Plan, Split


class PacedOutput:
    """Waits after each line, so that whoever reads them can act between two steps."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        n_written = self.stream.write(text)
        if text.endswith("\n"):
            self.stream.flush()
            time.sleep(0.05)
        return n_written

    def flush(self) -> None:
        self.stream.flush()


if __name__ == "__main__":
    sys.stdout = PacedOutput(sys.stdout)  # type: ignore[assignment]
    workspace = Path(sys.argv[1])
    if len(sys.argv) == 3:
        train_scratch(workspace, max_steps=int(sys.argv[2]))
    else:
        from monai_tl.sources.card import read_source
        from monai_tl.stages.finetune import finetune

        config = make_config(arms=("transfer",), **json.loads(sys.argv[4]))
        fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
        plan = Plan.read(workspace / "artifacts/plan/plan.json")
        finetune(workspace, plan, fold, config, read_source(Path(sys.argv[3])), "transfer", 0)
