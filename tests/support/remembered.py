"""Cases that can only be known by heart: noise with a label that has nothing to do with it, one or two a patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from balls import make_plan
from targets import make_fingerprint

from monai_tl.config import NetworkConfig, Params, parse_params
from monai_tl.dataset.nifti import write_image
from monai_tl.records import (
    CaseRecord,
    Dataset,
    Fold,
    Plan,
    PreparedCase,
    Provenance,
    RejectionList,
    Split,
)

SIZE = 12
NETWORK = NetworkConfig(name="unet", arguments={"channels": [8, 16], "strides": [2], "norm": "instance"})
AFFINE = tuple(tuple(float(value) for value in row) for row in np.diag([2.0, 2.0, 2.0, 1.0]))


def case_name(index: int) -> str:
    return f"case-{index:012x}"


def plan_of(network: NetworkConfig = NETWORK) -> Plan:
    return make_plan(patch=(SIZE, SIZE, SIZE)).model_copy(update={"network": network})


def write_cases(workspace: Path, n_cases: int, patients: Sequence[str] | None = None, plan: Plan | None = None) -> Path:
    """artifacts/cases (records alone), prepared, plan; case n belongs to patient n where nothing else is said."""
    plan = plan or plan_of()
    artifacts, shape = workspace / "artifacts", (SIZE, SIZE, SIZE)
    names = [case_name(index) for index in range(n_cases)]
    for index, name in enumerate(names):
        generator = np.random.default_rng([7, index])
        label = (generator.random((SIZE // 4,) * 3) < 0.4).repeat(4, 0).repeat(4, 1).repeat(4, 2).astype(np.uint8)
        folder = artifacts / "prepared" / name
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", generator.standard_normal((1, *shape)).astype(np.float32))
        np.save(folder / "label.npy", label)
        PreparedCase(
            case_id=name, native_affine=AFFINE, native_shape=shape, crop_start=(0, 0, 0), crop_stop=shape,
            affine=AFFINE, spatial_shape=shape, has_label=True, class_voxels=(int(label.sum()),),
        ).write(folder / "meta.json")  # fmt: skip
        record = artifacts / "cases" / name / "case.json"
        record.parent.mkdir(parents=True)
        write_image(record.with_name("image.nii.gz"), np.zeros(shape, dtype=np.int16), np.asarray(AFFINE))
        write_image(record.with_name("label.nii.gz"), label, np.asarray(AFFINE))
        CaseRecord(
            case_id=name, patient_key=f"patient-{index:012x}" if patients is None else patients[index], site="site-0",
            modality="CT", has_label=True, spacing_mm=(2.0, 2.0, 2.0), spatial_shape=shape, affine=AFFINE,
            class_voxels={"ball": int(label.sum())},
            provenance=Provenance(
                kind="nifti", study="s", series=f"{index}", input_sha256=f"{index:064x}", image_sha256=f"{index:064x}"
            ),
        ).write(record)  # fmt: skip
    Dataset(modality="CT", n_channels=1, scheme=plan.scheme, key_id="0" * 12, case_ids=tuple(names)).write(
        artifacts / "cases/dataset.json"
    )
    RejectionList().write(artifacts / "prepared/failed.json")
    plan.write(artifacts / "plan/plan.json")
    make_fingerprint().write(artifacts / "plan/fingerprint.json")
    return workspace


def write_split(workspace: Path, test: range, *folds: tuple[range, range]) -> None:
    """Folds are (train, val)."""

    def names(indices: range) -> tuple[str, ...]:
        return tuple(case_name(index) for index in indices)

    made = tuple(Fold(train=names(train), val=names(val)) for train, val in folds)
    Split(test=names(test), folds=made).write(workspace / "artifacts/split/split.json")


def make_params(n_folds: int = 1, **finetune: object) -> Params:
    return parse_params(
        {
            "ingest": {"source": "data", "classes": [{"name": "ball", "structures": ["ball"]}]},
            "split": {"n_folds": max(2, n_folds)},
            "plan": {"source": None, "network": NETWORK.model_dump()},
            "predict": {"n_threads": 1, "batch_size": 1},
            "evaluate": {"n_bootstrap": 400},
            "finetune": {
                "arms": ["scratch"], "folds": list(range(n_folds)), "max_steps": 160, "head_steps": 0, "batch_size": 4,
                "learning_rate": 1e-2, "augmentation": "none", "validate_every": 1000, "n_threads": 1, **finetune,
            },
        }
    )  # fmt: skip
