"""What a scheduled run leaves of its model: ``python -m monai_tl.commands.candidate record``, ``… register REVISION``.

The workspace's flow calls both: the first in the clone before it commits, the second in the workspace afterwards.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_tl.commands import promote, registry
from monai_tl.errors import MonaiTLError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is the error's."""
    parser = argparse.ArgumentParser(prog="python -m monai_tl.commands.candidate")
    parser.add_argument("step", choices=("record", "register"))
    parser.add_argument("revision", nargs="?", default="HEAD")
    given = parser.parse_args(arguments)
    try:
        if given.step == "record":
            # one of an earlier run says nothing of this one
            (Path.cwd() / promote.CANDIDATE_FILE).unlink(missing_ok=True)
            promote.record_candidate(Path.cwd())
        else:
            sys.stdout.write(f"{registry.register(Path.cwd(), given.revision)}\n")
    except MonaiTLError as error:
        sys.stderr.write(f"monai-tl: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
