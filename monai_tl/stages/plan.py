"""Stage plan: the training cases' fingerprint against the source's contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from monai_tl.config import Params
from monai_tl.dataset.fingerprint import fingerprint
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.splits import check_split
from monai_tl.files import whole_folder
from monai_tl.progress import Progress
from monai_tl.records import Split
from monai_tl.sources.card import read_source
from monai_tl.stages.trying import try_orientation
from monai_tl.transfer.planning import make_plan
from monai_tl.transfer.shift_words import describe_shift

PLAN_FILE, FINGERPRINT_FILE = "plan.json", "fingerprint.json"


def run(workspace: Path, params: Params) -> None:
    """Write ``artifacts/plan/plan.json`` and ``fingerprint.json``; test cases are not looked at.

    Raises:
        ConfigError: A patch size or network that cannot be.
        ContractError: The source's contract is broken, and ``plan.accept_broken`` does not name the line.
        LabelError: A class is in no training case.
        DataError: Cases or split are missing or damaged.
        SourceError: The source is missing or damaged.
    """
    manifest = read_manifest(workspace / "artifacts/cases")
    split = Split.read(workspace / "artifacts/split/split.json")
    check_split(split, manifest.cases)
    # the source first: a wrong path should not cost a pass over the images
    source = None if params.plan.source is None else read_source(workspace / params.plan.source)
    pool = sorted({case_id for fold in split.folds for case_id in (*fold.train, *fold.val)})
    chosen = manifest.select(tuple(pool))
    found = fingerprint(chosen, manifest)
    try_out = None
    if source is not None and params.plan.orientation_trial:
        try_out = partial(try_orientation, source, manifest, chosen, params.plan.orientation_trial)
    plan = make_plan(found, manifest.dataset.scheme, params.plan, source, try_out)
    with whole_folder(workspace / "artifacts/plan") as folder:
        found.write(folder / FINGERPRINT_FILE)
        plan.write(folder / PLAN_FILE)
    progress = Progress("plan", len(pool), len(pool))
    for line in plan.adaptations:
        accepted = " BUT ACCEPTED (plan.accept_broken)" if line.accepted else ""
        progress.show(f"{line.item} {line.status}{accepted}: {line.reason}")
    if plan.shift is not None:
        progress.show(f"shift: {describe_shift(plan.shift)}")
    for note in plan.notes:
        progress.show(f"note: {note}")
