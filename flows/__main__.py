"""``python -m flows``: the training flow once, in the current workspace."""

import sys
from pathlib import Path

from flows import versioning

if __name__ == "__main__":
    # DVC looks at the files while Prefect is imported: each takes more than a second
    versioning.begin(Path.cwd())
    from flows.pipeline import main

    sys.exit(main())
