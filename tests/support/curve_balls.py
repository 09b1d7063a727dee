"""A workspace of balls that is prepared for a curve: cases, split with a test set, plan, arrays, and a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from balls import make_arrays, make_config, make_plan

from monai_tl.config import Params, parse_params
from monai_tl.dataset.nifti import write_image
from monai_tl.files import sha256_of
from monai_tl.records import CaseRecord, Dataset, Fold, Plan, PreparedCase, Provenance, RejectionList, Split

N_TEST, N_POOL = 6, 12
CURVE = {"labels": [4, "all"], "strategies": ["full", "scratch"], "seeds": [0], "steps": [6], "steps_labels": "all"}
AFFINE = ((2.0, 0.0, 0.0, -20.0), (0.0, 2.0, 0.0, -20.0), (0.0, 0.0, 2.0, 5.0), (0.0, 0.0, 0.0, 1.0))


def ids(first: int, n: int) -> tuple[str, ...]:
    return tuple(f"case-{number:012x}" for number in range(first, first + n))


TEST, POOL = ids(0, N_TEST), ids(N_TEST, N_POOL)


def write_curve_workspace(workspace: Path) -> Path:
    """Each patient has one case, but the last two cases are one patient's."""
    artifacts = workspace / "artifacts"
    for number, case_id in enumerate((*TEST, *POOL)):
        _write_case(artifacts, case_id, number)
    scheme = make_plan().scheme
    Dataset(modality="CT", n_channels=1, scheme=scheme, key_id="0" * 12, case_ids=(*TEST, *POOL)).write(
        artifacts / "cases/dataset.json"
    )
    RejectionList().write(artifacts / "prepared/failed.json")
    folds = tuple(
        Fold(train=POOL[4 * (1 - k) : 4 * (1 - k) + 4] + POOL[8:], val=POOL[4 * k : 4 * k + 4]) for k in (0, 1)
    )
    Split(test=TEST, folds=folds).write(artifacts / "split/split.json")
    make_plan().write(artifacts / "plan/plan.json")
    return workspace


def _write_case(artifacts: Path, case_id: str, number: int) -> None:
    image, label = make_arrays(number)
    affine = np.asarray(AFFINE)
    case, prepared = artifacts / "cases" / case_id, artifacts / "prepared" / case_id
    write_image(case / "image.nii.gz", image[0], affine)
    write_image(case / "label.nii.gz", label, affine)
    shape: Any = label.shape
    CaseRecord(
        case_id=case_id,
        patient_key=f"patient-{min(number, N_TEST + N_POOL - 2):02d}",
        site="a",
        modality="CT",
        has_label=True,
        spacing_mm=(2.0, 2.0, 2.0),
        spatial_shape=shape,
        affine=AFFINE,
        class_voxels={"ball": int(label.sum())},
        provenance=Provenance(
            kind="nifti", study="s", series="t", input_sha256="0", image_sha256=sha256_of(str(number))
        ),
    ).write(case / "case.json")
    prepared.mkdir(parents=True)
    np.save(prepared / "image.npy", image)
    np.save(prepared / "label.npy", label)
    PreparedCase(
        case_id=case_id,
        native_affine=AFFINE,
        native_shape=shape,
        crop_start=(0, 0, 0),
        crop_stop=shape,
        affine=AFFINE,
        spatial_shape=shape,
        has_label=True,
        class_voxels=(int(label.sum()),),
    ).write(prepared / "meta.json")


def pretrain(workspace: Path, max_steps: int = 150) -> None:
    """Train a source on balls that are in no set, and make it the plan's."""
    from monai_tl.sources.card import read_source
    from monai_tl.stages.finetune import finetune

    others = ids(100, 6)
    for number, case_id in enumerate(others, start=100):
        _write_case(workspace / "source/artifacts", case_id, number)
    plan = make_plan()
    config = make_config(max_steps=max_steps, warmup_steps=2, validate_every=max_steps, patience=99)
    folder = finetune(workspace / "source", plan, Fold(train=others, val=()), config, None, "scratch", 0)
    source = read_source(folder)
    Plan(
        **{
            **plan.model_dump(),
            "source": str(folder.relative_to(workspace)),
            "source_sha256": source.card.weights.sha256,
        }
    ).write(workspace / "artifacts/plan/plan.json")


def make_params(curve: dict[str, Any] | None = None, **finetune: Any) -> Params:
    settings = make_config(**{"max_steps": 12, **finetune}).model_dump(mode="json")
    return parse_params(
        {
            "ingest": {"source": "data", "classes": [{"name": "ball"}]},
            "plan": {"source": "source"},
            "finetune": settings | {"n_threads": 1},
            "predict": {"n_threads": 1, "overlap": 0.0},
            "evaluate": {"n_bootstrap": 300},
            "curve": CURVE | (curve or {}),
        }
    )
