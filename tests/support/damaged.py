"""All damaged kinds by name: a seeded generator of what must never stop or mislead a conversion.

A kind is written into an empty folder by ``KINDS[name].make(folder, rng)``, which returns the outcomes that are right
for it; the same seed gives the same bytes. ``python damaged.py FOLDER [SEED]`` writes all of them, a folder a kind.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import damaged_files
import damaged_folders
import damaged_geometry
import damaged_identity
import damaged_labels
import damaged_objects
import damaged_pixels
import numpy as np
from damage import KINDS, Outcome

MODULES = (
    damaged_files, damaged_pixels, damaged_geometry, damaged_objects, damaged_labels, damaged_identity, damaged_folders,
)  # fmt: skip


def make(name: str, folder: Path, seed: int = 0) -> Sequence[Outcome]:
    """Write one kind into a new folder; it does not depend on the other kinds."""
    folder.mkdir(parents=True)
    return KINDS[name].make(folder, np.random.default_rng([seed, zlib.crc32(name.encode())]))


if __name__ == "__main__":
    for kind in KINDS:
        make(kind, Path(sys.argv[1]) / kind, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
