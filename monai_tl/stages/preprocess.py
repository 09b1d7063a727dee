"""Stage preprocess: every case onto the plan's grid, as arrays that can be memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from monai_tl.cache import CaseCache
from monai_tl.config import Params, PreprocessConfig
from monai_tl.dataset.manifest import Manifest, read_manifest
from monai_tl.dataset.nifti import read_image, read_label
from monai_tl.dataset.transforms import prepare_case
from monai_tl.errors import MonaiTLError, StageError
from monai_tl.files import code_digest, sha256_file, sha256_of, to_json, whole_folder
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import CaseRecord, Plan
from monai_tl.stages import STATE_FOLDER

META_FILE, IMAGE_ARRAY, LABEL_ARRAY = "meta.json", "image.npy", "label.npy"
_CODE = (
    "config", "dataset.intensity", "dataset.nifti", "dataset.orientation", "dataset.resampling", "dataset.transforms",
    "geometry", "records", "stages.preprocess",
)  # fmt: skip
"""Code that decides what comes out; a cached case made by other code is made again."""


@dataclass(frozen=True)
class _Work:
    """What each process needs beside the case."""

    manifest: Manifest
    plan: Plan
    config: PreprocessConfig
    code: str
    cache: CaseCache
    out: Path


def run(workspace: Path, params: Params) -> None:
    """Write ``artifacts/prepared/<case_id>/`` for all cases, labelled or not.

    Raises:
        StageError: A case cannot be prepared; all cases that cannot are named.
        DataError: Cases or plan are missing or damaged.
    """
    manifest = read_manifest(workspace / "artifacts/cases")
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    cache = CaseCache(workspace / STATE_FOLDER / "cache")
    progress = Progress("preprocess", total=len(manifest.cases))
    faults: dict[str, str] = {}
    with whole_folder(workspace / "artifacts/prepared") as folder:
        work = _Work(manifest, plan, params.preprocess, code_digest(*_CODE), cache, folder)
        results = map_cases(partial(_prepare, work=work), manifest.cases)
        for case, (cached, fault) in zip(manifest.cases, results, strict=True):
            if fault is not None:
                faults[case.case_id] = fault
            progress.advance(f"{case.case_id}{' (cached)' if cached else ''}{' failed' if fault else ''}")
        if faults:
            lines = "\n".join(f"  {case_id}: {fault}" for case_id, fault in faults.items())
            raise StageError(
                "preprocess",
                f"{len(faults)} of {len(manifest.cases)} cases failed; mend them or leave them out\n{lines}",
            )


def _prepare(case: CaseRecord, work: _Work) -> tuple[bool, str | None]:
    """Prepare one case; whether it came from the cache, and its fault if it has one."""
    try:
        key = _cache_key(case, work)
        cached = work.cache.fetch(key, work.out / case.case_id, partial(_write_arrays, case=case, work=work))
    except MonaiTLError as error:
        return False, str(error)
    return cached, None


def _cache_key(case: CaseRecord, work: _Work) -> str:
    files = [work.manifest.image_path(case.case_id)]
    if case.has_label:
        files.append(work.manifest.label_path(case.case_id))
    # what changes no voxel must not cost the cache
    unseen = {"adaptations", "source", "source_sha256", "patch_size_vox", "network"}
    plan = work.plan.model_dump(mode="json", exclude=unseen)
    settings = to_json([plan, work.config.model_dump(mode="json")])
    return sha256_of("preprocess", case.case_id, *(sha256_file(path) for path in files), settings, work.code)


def _write_arrays(folder: Path, case: CaseRecord, work: _Work) -> None:
    image, affine = read_image(work.manifest.image_path(case.case_id))
    label = None
    if case.has_label:
        label = read_label(work.manifest.label_path(case.case_id))[0].astype(np.uint8, copy=False)
    prepared, new_label, record = prepare_case(image, affine, work.plan, work.config, label, case.case_id)
    np.save(folder / IMAGE_ARRAY, prepared, allow_pickle=False)
    if new_label is not None:
        np.save(folder / LABEL_ARRAY, new_label, allow_pickle=False)
    record.write(folder / META_FILE)
