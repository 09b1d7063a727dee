"""Stage split: patients into a test set and folds."""

from __future__ import annotations

from pathlib import Path

from monai_tl.config import Params
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.splits import read_test_ids, split_patients
from monai_tl.files import whole_folder
from monai_tl.progress import Progress

SPLIT_FILE = "split.json"


def run(workspace: Path, params: Params) -> None:
    """Write ``artifacts/split/split.json`` from ``artifacts/cases``.

    Raises:
        DataError: Too few patients, or unusable test ids.
        LeakageError: The test ids hold part of a patient.
    """
    progress = Progress("split", total=1)
    manifest = read_manifest(workspace / "artifacts/cases")
    given = params.split.test_ids_file
    split = split_patients(manifest.cases, params.split, None if given is None else read_test_ids(workspace / given))
    with whole_folder(workspace / "artifacts/split") as folder:
        split.write(folder / SPLIT_FILE)
    for note in split.notes:
        progress.show(note)
    n_pool = len(split.folds[0].train) + len(split.folds[0].val)
    n_bare = len(split.unlabelled)
    progress.advance(
        f"{n_pool} cases in {len(split.folds)} folds, {len(split.test)} for testing, {n_bare} without a label"
    )
