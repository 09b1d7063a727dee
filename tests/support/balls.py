"""A tiny prepared workspace: bright balls in noise, as the preprocess stage would leave it, with split and plan."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from targets import make_fingerprint

from monai_tl.config import FinetuneConfig, IngestConfig, IntensityConfig, NetworkConfig, Params, PlanConfig
from monai_tl.files import write_json
from monai_tl.integrity import seal
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.records import Fold, Plan, PreparedCase, Rejection, RejectionList, SizeRule, Split

CASE_IDS = tuple(f"case-{number:012x}" for number in range(4))
NETWORK = NetworkConfig(
    name="unet", arguments={"channels": [6, 12], "strides": [2], "norm": "instance", "dropout": 0.2}
)


def make_plan(patch: tuple[int, int, int] = (16, 16, 16), source: str | None = None) -> Plan:
    return Plan(
        modality="CT",
        n_channels=1,
        scheme=LabelScheme(classes=(ClassSpec(name="ball"),)),
        spacing_mm=(2.0, 2.0, 2.0),
        intensity=IntensityConfig(rule="window", low=-100.0, high=300.0),
        size_rule=SizeRule(divisor=2, min_vox=(4, 4, 4)),
        patch_size_vox=patch,
        network=NETWORK,
        source=source,
    )


def make_config(**changes: object) -> FinetuneConfig:
    settings: dict[str, object] = {
        "max_steps": 12,
        "head_steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "validate_every": 4,
        "n_threads": 1,
        "augmentation": "light",
    }
    return FinetuneConfig(**{**settings, **changes})  # type: ignore[arg-type]


def make_params(**changes: object) -> Params:
    """Parameters of the scratch arm, with changes of section finetune."""
    return Params(
        ingest=IngestConfig(source="data", classes=(ClassSpec(name="ball"),)),
        plan=PlanConfig(source=None, network=NETWORK),
        finetune=make_config(**{"arms": ("scratch",), **changes}),
    )


def make_runnable(workspace: Path, **changes: object) -> list[str]:
    """Seal a workspace and give it params.yaml, with changes of section finetune; words that run its stage."""
    for name in ("prepared", "split", "plan"):
        seal(workspace / "artifacts" / name)
    write_json(workspace / "params.yaml", make_params(**changes).model_dump(mode="json"))
    options = ["--arm", "scratch", "--fold", "0", "--seed", "0", "--workspace", str(workspace)]
    return ["-m", "monai_tl", "stage", "finetune", *options]


def make_arrays(seed: int, shape: tuple[int, int, int] = (20, 22, 18)) -> tuple[np.ndarray, np.ndarray]:
    """Image (1, I, J, K) float32 and label (I, J, K) uint8."""
    generator = np.random.default_rng(seed)
    centre = np.asarray(shape) / 2 + generator.uniform(-2, 2, 3)
    distance = np.sqrt(sum((index - c) ** 2 for index, c in zip(np.indices(shape), centre, strict=True)))
    label = (distance < 5.0).astype(np.uint8)
    image = 0.2 + 0.5 * label + 0.05 * generator.standard_normal(shape)
    return image[np.newaxis].astype(np.float32), label


def write_workspace(workspace: Path, plan: Plan | None = None, test: tuple[str, ...] = ()) -> Path:
    """Write artifacts/{prepared,split,plan}; the first case validates, the others train."""
    plan = plan or make_plan()
    for number, case_id in enumerate(CASE_IDS):
        image, label = make_arrays(number)
        folder = workspace / "artifacts/prepared" / case_id
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", image)
        np.save(folder / "label.npy", label)
        affine = ((2.0, 0.0, 0.0, 0.0), (0.0, 2.0, 0.0, 0.0), (0.0, 0.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        shape = label.shape
        PreparedCase(
            case_id=case_id,
            native_affine=affine,
            native_shape=shape,
            crop_start=(0, 0, 0),
            crop_stop=shape,
            affine=affine,
            spatial_shape=shape,
            has_label=True,
            class_voxels=(int(label.sum()),),
        ).write(folder / "meta.json")
    RejectionList().write(workspace / "artifacts/prepared/failed.json")
    rest = tuple(case_id for case_id in CASE_IDS if case_id not in test)
    Split(test=test, folds=(Fold(train=rest[1:], val=rest[:1]),)).write(workspace / "artifacts/split/split.json")
    plan.write(workspace / "artifacts/plan/plan.json")
    make_fingerprint().write(workspace / "artifacts/plan/fingerprint.json")
    return workspace


def make_unprepared(workspace: Path, *case_ids: str) -> None:
    """Make cases that preprocess could not prepare."""
    for case_id in case_ids:
        shutil.rmtree(workspace / "artifacts/prepared" / case_id)
    failed = tuple(
        Rejection(item=case_id, kind="case", code="constant", reason="the image is constant") for case_id in case_ids
    )
    RejectionList(rejected=failed).write(workspace / "artifacts/prepared/failed.json")


def train_scratch(workspace: Path, **changes: object) -> Path:
    """Fine-tune the scratch arm on fold 0 with the first seed; gives the model's folder."""
    from monai_tl.stages.finetune import finetune

    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    config = make_config(**changes)
    finetune(workspace, plan, fold, config, None, "scratch", 0)
    return workspace / f"artifacts/models/scratch-0-{config.seed}"
