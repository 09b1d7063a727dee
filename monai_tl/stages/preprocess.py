"""Stage preprocess: every case onto the plan's grid, as arrays that can be memory-mapped."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from monai_tl.cache import CaseCache, tidy_cache
from monai_tl.config import Params, PreprocessConfig
from monai_tl.dataset.manifest import IMAGE_FILE, LABEL_FILE, UNPREPARED_FILE, read_manifest
from monai_tl.dataset.nifti import read_image, read_label
from monai_tl.dataset.transforms import prepare_case
from monai_tl.errors import StageError, WorkerLostError, describe_fault
from monai_tl.files import code_digest, sha256_file, sha256_of, to_json, whole_folder
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import CaseRecord, Plan, Rejection, RejectionList
from monai_tl.stages import STATE_FOLDER

META_FILE, IMAGE_ARRAY, LABEL_ARRAY = "meta.json", "image.npy", "label.npy"
_CODE = (
    "config", "dataset.intensity", "dataset.nifti", "dataset.orientation", "dataset.resampling", "dataset.transforms",
    "geometry", "records", "stages.preprocess",
)  # fmt: skip
"""Code that decides what comes out; a cached case made by other code is made again."""


@dataclass(frozen=True)
class _Work:
    """What each process needs beside the case; not the other cases, for it goes along with each."""

    cases: Path
    plan: Plan
    config: PreprocessConfig
    code: str
    cache: CaseCache
    out: Path


def run(workspace: Path, params: Params) -> None:
    """Write ``artifacts/prepared/<case_id>/`` for all cases, labelled or not.

    A case that cannot be prepared is listed in ``artifacts/prepared/failed.json`` with its reason; the others go on.

    Raises:
        StageError: More than ``max_failed_fraction`` of the cases cannot be prepared, or none can; names the file that
            gives each reason.
        DataError: Cases or plan are missing or damaged.
    """
    manifest = read_manifest(workspace / "artifacts/cases")
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    cache = CaseCache(workspace / STATE_FOLDER / "cache")
    progress = Progress("preprocess", total=len(manifest.cases))
    failed: list[Rejection] = []
    # the output is dropped where the stage fails, the reasons must not be
    kept_reasons = workspace / STATE_FOLDER / "preprocess_failed.json"
    kept_reasons.unlink(missing_ok=True)
    with tidy_cache(cache.root), whole_folder(workspace / "artifacts/prepared") as folder:
        work = _Work(manifest.folder, plan, params.preprocess, code_digest(*_CODE), cache, folder)
        prepare = partial(_prepare, work=work)
        for _, fault in map_cases(prepare, manifest.cases, finished=partial(_tell, progress), lost=_lose):
            failed += [fault] if fault is not None else []
        listed = RejectionList(rejected=tuple(failed))
        if failed:
            listed.write(kept_reasons)
            _check_share(failed, len(manifest.cases), params.preprocess, kept_reasons)
        listed.write(folder / UNPREPARED_FILE)
    kept_reasons.unlink(missing_ok=True)
    if failed:
        progress.warn(f"{_count(failed, len(manifest.cases))}; artifacts/prepared/{UNPREPARED_FILE} gives the reasons")


def _check_share(failed: Sequence[Rejection], n_cases: int, config: PreprocessConfig, reasons: Path) -> None:
    if len(failed) == n_cases or len(failed) > config.max_failed_fraction * n_cases:
        raise StageError(
            "preprocess",
            f"{_count(failed, n_cases)}; preprocess.max_failed_fraction {config.max_failed_fraction:g} allows no more, "
            f"and one must be left. {reasons} gives the reasons: mend the cases, change the plan (plan.intensity, "
            "plan.spacing_mm), or raise the limit",
        )


def _count(failed: Sequence[Rejection], n_cases: int) -> str:
    codes = Counter(one.code for one in failed)
    listed = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
    return f"{len(failed)} of {n_cases} cases failed ({listed})"


def _tell(progress: Progress, case: CaseRecord, result: tuple[bool, Rejection | None]) -> None:
    cached, fault = result
    note = f"{case.case_id}{' (cached)' if cached else ''}{f' {fault.code}' if fault else ''}"
    progress.advance(note, is_warning=fault is not None)


def _lose(case: CaseRecord, fault: WorkerLostError) -> tuple[bool, Rejection | None]:
    """What becomes of a case whose work ends each process that takes it."""
    return False, Rejection(item=case.case_id, kind="case", code="process_ended", reason=str(fault))


def _prepare(case: CaseRecord, work: _Work) -> tuple[bool, Rejection | None]:
    """Prepare one case; whether it came from the cache, and its fault if it has one."""
    destination = work.out / case.case_id
    try:
        key = _cache_key(case, work)
        return work.cache.fetch(key, destination, partial(_write_arrays, case=case, work=work)), None
    except Exception as error:
        code, reason = describe_fault(error)
        shutil.rmtree(destination, ignore_errors=True)
        return False, Rejection(item=case.case_id, kind="case", code=code, reason=reason)


def _cache_key(case: CaseRecord, work: _Work) -> str:
    files = [work.cases / case.case_id / IMAGE_FILE]
    if case.has_label:
        files.append(work.cases / case.case_id / LABEL_FILE)
    # what changes no voxel must not cost the cache
    unseen = {"adaptations", "source", "source_sha256", "patch_size_vox", "network", "shift", "notes"}
    plan = work.plan.model_dump(mode="json", exclude=unseen)
    settings = to_json([plan, work.config.model_dump(mode="json", exclude={"max_failed_fraction"})])
    return sha256_of("preprocess", case.case_id, *(sha256_file(path) for path in files), settings, work.code)


def _write_arrays(folder: Path, case: CaseRecord, work: _Work) -> None:
    image, affine = read_image(work.cases / case.case_id / IMAGE_FILE)
    label = None
    if case.has_label:
        label = read_label(work.cases / case.case_id / LABEL_FILE)[0].astype(np.uint8, copy=False)
    prepared, new_label, record = prepare_case(image, affine, work.plan, work.config, label, case.case_id)
    np.save(folder / IMAGE_ARRAY, prepared, allow_pickle=False)
    if new_label is not None:
        np.save(folder / LABEL_ARRAY, new_label, allow_pickle=False)
    record.write(folder / META_FILE)
