"""A small, coarse phantom cohort; as a program: ``small_cohort.py FOLDER``."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from monai_tl.commands.phantom import write_cohort
from monai_tl.dicom.deidentify import create_key

SEED, N_A, N_B, COARSE = 0, 3, 4, 2


def write_small_cohort(out: Path, seed: int = SEED) -> dict[str, dict[str, int]]:
    return write_cohort(out, seed, N_A, N_B, COARSE)


def write_cohort_and_key(folder: Path) -> None:
    """``data`` and ``key`` in a folder, for a fixture of a module: one process, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        write_small_cohort(folder / "data")
    create_key(folder / "key", seed=0)


def tree_digest(root: Path) -> str:
    """Over names and contents."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(root)}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    write_small_cohort(Path(sys.argv[1]))
