"""Run the scratch arm on a workspace of balls in a process of its own: ``train_balls.py WORKSPACE STEPS``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parent))

from balls import train_scratch


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
    train_scratch(Path(sys.argv[1]), max_steps=int(sys.argv[2]))
