"""A workspace as it is before the evaluate stage: cases, split, plan, models and predictions, made up but whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import softmax

from monai_tl.certainty_records import CaseCertainty, Certainty, RunCertainty
from monai_tl.config import IntensityConfig, NetworkConfig, Params, parse_params
from monai_tl.dataset.nifti import write_image
from monai_tl.files import sha256_of, write_bytes, write_json, write_text
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.metrics.counting import CaseCounting
from monai_tl.records import (
    Adaptation,
    Audit,
    CaseRecord,
    Dataset,
    Fold,
    Plan,
    Provenance,
    Rejection,
    RejectionList,
    Split,
    TensorAudit,
)

SCHEME = LabelScheme(
    classes=(
        ClassSpec(name="liver", type="SCT|10200004|Liver"),
        ClassSpec(name="tumour", type="SCT|108369006|Neoplasm", anatomic_region="SCT|10200004|Liver"),
    )
)
GROUPS = (("stem", 432), ("encoder_1", 6_944), ("encoder_2", 27_712), ("bottleneck", 110_720), ("decoder_2", 69_184),
          ("decoder_1", 17_328), ("head", 51))  # fmt: skip
TEMPERATURE = 2.0
CITATION = "The monai_tl authors, abdomen_a: a small abdominal network trained on phantoms, 2026."


@dataclass(frozen=True)
class RunShape:
    """What to make up.

    Attributes:
        errors_mm: Arm → how far its outlines stray.
        n_test: Test cases; 0 leaves the set empty.
        shape: Voxels of each case.
        seeds: With which each arm was trained; further ones stray otherwise.
    """

    errors_mm: dict[str, float]
    n_test: int = 9
    n_train: int = 9
    n_val: int = 3
    shape: tuple[int, int, int] = (72, 60, 30)
    spacing_mm: tuple[float, float, float] = (4.2, 4.2, 6.0)
    seed: int = 0
    seeds: tuple[int, ...] = (0,)


def case_id(index: int) -> str:
    return f"case-{sha256_of(f'made up {index}')[:12]}"


def make_params(arms: Sequence[str], seeds: Sequence[int] = (0,)) -> Params:
    return parse_params(
        {
            "ingest": {"source": "data", "classes": [spec.model_dump(mode="json") for spec in SCHEME.classes]},
            "plan": {"source": "sources/abdomen_a"},
            "finetune": {"arms": list(arms), "folds": [0], "seeds": list(seeds)},
            "evaluate": {"surface_tolerance_mm": 5.0, "n_bootstrap": 2000, "lesions": ["tumour"]},
        }
    )


def make_finished_run(workspace: Path, run: RunShape) -> Params:
    """Write everything that evaluate reads; the same bytes each time.

    Args:
        workspace: An empty folder.
        run: What to make up.

    Returns:
        The parameters of the run.
    """
    artifacts = workspace / "artifacts"
    ids = [case_id(index) for index in range(run.n_test + run.n_train + run.n_val)]
    test, val, train = ids[: run.n_test], ids[run.n_test : run.n_test + run.n_val], ids[run.n_test + run.n_val :]
    known: dict[tuple[str, int], dict[str, CaseCertainty]] = {pair: {} for pair in product(run.errors_mm, run.seeds)}
    for index, name in enumerate(ids):
        for pair, certainty in _write_case(artifacts, name, index, run, [*test, *(val if not test else [])]).items():
            known[pair][name] = certainty
    runs = tuple(
        RunCertainty(
            arm=arm, seed=seed, temperature=TEMPERATURE if test else None, n_validation_cases=len(val) if test else 0,
            members="mirrored passes", n_members=2, cases=dict(sorted(cases.items())),
        )
        for (arm, seed), cases in known.items()
    )  # fmt: skip
    Certainty(runs=runs).write(artifacts / "predictions/certainty.json")
    dataset = Dataset(modality="CT", n_channels=1, scheme=SCHEME, key_id="0123456789ab", case_ids=tuple(sorted(ids)))
    dataset.write(artifacts / "cases/dataset.json")
    _rejections().write(artifacts / "cases/rejected.json")
    RejectionList().write(artifacts / "prepared/failed.json")
    fold = Fold(train=tuple(sorted(train)), val=tuple(sorted(val)))
    Split(test=tuple(sorted(test)), folds=(fold,)).write(artifacts / "split/split.json")
    plan = _plan(run)
    plan.write(artifacts / "plan/plan.json")
    write_json(artifacts / "predictions/failed.json", {"failed": []})
    names = [f"{arm}-0-{seed}" for arm in run.errors_mm for seed in run.seeds]
    made = {name: sha256_bytes(_weights(name)) for name in names}
    write_json(artifacts / "predictions/models.json", made)
    for arm in run.errors_mm:
        for seed in run.seeds:
            _write_model(artifacts / "models" / f"{arm}-0-{seed}", arm, seed, plan)
    return make_params(list(run.errors_mm), run.seeds)


def remove_prediction(workspace: Path, arm: str, name: str, seed: int = 0) -> None:
    """Make a case fail, as predict would tell it."""
    predictions = workspace / "artifacts/predictions"
    (predictions / arm / f"seed-{seed}" / f"{name}.nii.gz").unlink()
    known = Certainty.read(predictions / "certainty.json")
    runs = tuple(
        run.model_copy(update={"cases": {one: case for one, case in run.cases.items() if one != name}})
        if (run.arm, run.seed) == (arm, seed)
        else run
        for run in known.runs
    )
    Certainty(runs=runs).write(predictions / "certainty.json")
    entry = {"case_id": name, "arm": arm, "seed": seed, "code": "geometry_error"}
    write_json(predictions / "failed.json", {"failed": [entry]})


def _write_case(
    artifacts: Path, name: str, index: int, run: RunShape, predicted: Sequence[str]
) -> dict[tuple[str, int], CaseCertainty]:
    generator = np.random.default_rng([run.seed, index])
    image, label, depth = _anatomy(generator, run)
    affine = np.diag([*run.spacing_mm, 1.0])
    affine[:3, 3] = [-150.0, -120.0, 40.0]
    write_image(artifacts / "cases" / name / "image.nii.gz", image, affine)
    write_image(artifacts / "cases" / name / "label.nii.gz", label, affine)
    CaseRecord(
        case_id=name,
        patient_key=f"patient-{index:04d}",
        site=("site-a", "site-b")[index % 2],
        modality="CT",
        has_label=True,
        spacing_mm=run.spacing_mm,
        spatial_shape=run.shape,
        affine=tuple(tuple(float(value) for value in row) for row in affine),
        class_voxels={spec.name: int((label == k + 1).sum()) for k, spec in enumerate(SCHEME.classes)},
        provenance=Provenance(kind="dicom", study="s", series="s", input_sha256="", image_sha256=f"{index:064x}"),
    ).write(artifacts / "cases" / name / "case.json")
    if name not in predicted:
        return {}
    known = {}
    for (arm, error_mm), seed in product(run.errors_mm.items(), run.seeds):
        strays = np.random.default_rng([run.seed, index, sum(arm.encode()), *([seed] if seed else [])])
        scale = error_mm * strays.uniform(0.5, 1.8)
        prediction = np.zeros_like(label)
        for value in (1, 2):
            noise = ndimage.gaussian_filter(strays.standard_normal(run.shape), 4.0)
            shift = noise / noise.std() * scale * (1.0 if value == 1 else 0.7)
            prediction[depth[value - 1] + shift > 0] = value
        write_image(artifacts / "predictions" / arm / f"seed-{seed}" / f"{name}.nii.gz", prediction, affine)
        known[arm, seed] = _certainty(label, depth, noise / noise.std(), scale, run)
    return known


def _certainty(
    label: NDArray[np.uint8], depth: list[NDArray[np.float64]], noise: NDArray[np.float64], scale: float, run: RunShape
) -> CaseCertainty:
    """Of two members that stray apart by half the error, and are surer than they should be."""
    members = []
    for side in (-0.25, 0.25):
        liver, tumour = (part + (1.0 + side) * scale * noise for part in depth)
        logits = np.stack([np.zeros_like(liver), liver, np.minimum(liver, tumour) + tumour]) / 3.0
        members.append(softmax(logits, axis=0))
    counting = CaseCounting(label, 2, TEMPERATURE if run.n_test else None)
    counting.add(0, 0, np.concatenate([np.mean(members, axis=0), *(1.0 - one[:1] for one in members)]))
    return counting.record()


def _anatomy(
    generator: np.random.Generator, run: RunShape
) -> tuple[NDArray[np.int16], NDArray[np.uint8], list[NDArray[np.float64]]]:
    """Image in HU, label map, and the depth of each voxel inside liver and tumour, mm."""
    size = np.array(run.shape) * run.spacing_mm
    grid = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * s for n, s in zip(run.shape, run.spacing_mm, strict=True)],
                                indexing="ij"))  # fmt: skip
    wobble = [ndimage.gaussian_filter(generator.standard_normal(run.shape), 5.0) for _ in range(3)]
    wobble = [noise / noise.std() for noise in wobble]

    def depth(centre: Sequence[float], radii: Sequence[float], rough_mm: float, which: int) -> NDArray[np.float64]:
        offsets = [(grid[a] - centre[a] * size[a]) / (radii[a] * size[a]) for a in range(3)]
        radius = min(radii[a] * size[a] for a in range(3))
        inside: NDArray[np.float64] = (1.0 - np.sqrt(sum(o**2 for o in offsets))) * radius + rough_mm * wobble[which]
        return inside

    jitter = generator.uniform(-0.03, 0.03, 3)
    body = depth((0.5, 0.5, 0.5), (0.46, 0.42, 2.0), 1.0, 0)
    liver = depth((0.66 + jitter[0], 0.55 + jitter[1], 0.55 + jitter[2]), (0.2, 0.26, 0.3), 4.0, 1)
    at = (0.68 + jitter[1], 0.6 + jitter[0], 0.55 - jitter[2])
    tumour = depth(at, np.array((0.06, 0.08, 0.1)) * generator.uniform(0.8, 1.5), 2.0, 2)
    spine = depth((0.5, 0.24, 0.5), (0.07, 0.09, 2.0), 0.5, 0)
    spleen = depth((0.26, 0.38, 0.55), (0.09, 0.14, 0.18), 2.0, 0)
    hu = np.full(run.shape, -1000.0)
    for region, value in (
        (body, -90.0),
        (body - 14.0, 45.0),
        (spleen, 115.0),
        (spine, 320.0),
        (liver, 105.0),
        (tumour, 62.0),
    ):
        hu += (value - hu) / (1.0 + np.exp(-np.clip(region / 2.0, -30, 30)))
    hu += generator.normal(0.0, 14.0, run.shape)
    label = np.zeros(run.shape, dtype=np.uint8)
    label[liver > 0] = 1
    label[tumour > 0] = 2
    return hu.round().astype(np.int16), label, [liver, tumour]


def _rejections() -> RejectionList:
    def item(kind: str, index: int) -> str:
        return f"{kind}-{sha256_of(f'{kind} {index}')[:12]}"

    def refuse(kind: str, index: int, code: str, reason: str, n_files: int = 1) -> Rejection:
        return Rejection.model_validate(
            {"item": item(kind, index), "kind": kind, "code": code, "reason": reason, "n_files": n_files}
        )

    return RejectionList(
        rejected=(
            refuse("series", 1, "localizer", "the series is a localizer; it holds no volume", 2),
            refuse(
                "series", 2, "missing_slice", "slice 17 of 41 is missing: a gap of 10 mm where 5 mm is expected", 40
            ),
            refuse("series", 3, "missing_slice", "slice 9 of 36 is missing: a gap of 12 mm where 6 mm is expected", 35),
            refuse("series", 4, "duplicate", "the series holds the same slices as another one", 38),
            refuse("file", 5, "not_dicom", "the file is no DICOM: it lacks the mark at byte 128"),
        )
    )


def _plan(run: RunShape) -> Plan:
    def line(item: str, source: str, target: str, status: str, reason: str) -> Adaptation:
        return Adaptation.model_validate(
            {"item": item, "source": source, "target": target, "status": status, "reason": reason}
        )

    return Plan(
        modality="CT",
        n_channels=1,
        scheme=SCHEME,
        spacing_mm=(4.0, 4.0, 5.0),
        intensity=IntensityConfig(rule="window", low=-160.0, high=240.0),
        patch_size_vox=(48, 48, 32),
        network=NetworkConfig(name="monai.BasicUNet"),
        source="sources/abdomen_a",
        source_sha256=sha256_of("weights"),
        adaptations=(
            line("modality", "CT", "CT", "equal", ""),
            line("channels", "1 (CT)", "1 (CT)", "equal", ""),
            line("orientation", "RAS", "RAS", "equal", ""),
            line("spacing", "4 × 4 × 5 mm", "4.2 × 4.2 × 6 mm (median)", "adapted",
                 "each case is resampled to the source's spacing; predictions go back to the case's own grid"),
            line("intensity", "window −160 to 240 HU", "HU", "adapted",
                 "stored values are clipped to the window and scaled to 0..1"),
            line("classes", "liver, spleen, kidneys, spine", "liver, tumour", "adapted",
                 "the row of liver is kept by name; tumour starts fresh"),
        ),
    )  # fmt: skip


def _weights(name: str) -> bytes:
    return f"no weights are needed to evaluate {name}".encode()


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_model(folder: Path, arm: str, seed: int, plan: Plan) -> None:
    plan.write(folder / "plan.json")
    write_bytes(folder / "weights.safetensors", _weights(folder.name))
    is_scratch = arm == "scratch"
    card = {
        "name": folder.name,
        "network": {"name": "monai.BasicUNet", "n_channels": 1, "n_outputs": 3},
        "weights": {"file": "weights.safetensors", "sha256": sha256_bytes(_weights(folder.name))},
        "licence": "not stated" if is_scratch else "Apache-2.0",
        "citation": "none" if is_scratch else CITATION,
        "input": {"modality": "CT", "channels": ["CT"], "orientation": "RAS", "spacing_mm": [4.0, 4.0, 5.0],
                  "intensity": {"rule": "window", "low": -160.0, "high": 240.0}},
        "classes": ["liver", "tumour"],
    }  # fmt: skip
    write_text(folder / "card.yaml", yaml.safe_dump(card, sort_keys=False))
    _audit(is_scratch).write(folder / "audit.json")
    generator = np.random.default_rng(sum(arm.encode()))
    rows = ["step,phase,learning_rate,train_loss,val_dice"]
    best = (0, 0.0)
    for step in range(4, 161, 4):
        pace = 40.0 if is_scratch else 16.0
        loss = 0.35 + (1.3 if is_scratch else 0.9) * np.exp(-step / pace) + generator.normal(0.0, 0.025)
        dice = (0.78 if is_scratch else 0.87) * (1.0 - np.exp(-step / (1.4 * pace))) + generator.normal(0.0, 0.008)
        phase = "head" if not is_scratch and step <= 40 else "all"
        if step % 20 == 0 and dice > best[1]:
            best = (step, float(dice))
        rows.append(f"{step},{phase},0.001,{loss:.6f},{f'{dice:.6f}' if step % 20 == 0 else ''}")
    write_text(folder / "history.csv", "\n".join(rows) + "\n")
    write_json(
        folder / "training.json",
        {
            "arm": arm, "fold": 0, "seed": seed, "strategy": "scratch" if is_scratch else "lp_ft", "n_steps": 160,
            "max_steps": 160, "stop_reason": "budget", "best_step": best[0], "best_val_dice": round(best[1], 6),
            "n_threads": 2, "versions": {"monai": "1.6.1", "monai_tl": "0.1.0", "torch": "2.13.0"},
        },
    )  # fmt: skip


def _audit(is_scratch: bool) -> Audit:
    tensors = []
    for group, n_parameters in GROUPS:
        for name, share in (("weight", 0.98), ("bias", 0.02)):
            status, detail = "matched", ""
            if is_scratch:
                status, detail = "fresh", "trained from scratch"
            elif group == "head":
                status, detail = "adapted", "rows background and liver reused by name; tumour is fresh"
            elif (group, name) == ("decoder_1", "bias"):
                status, detail = "fresh", "not in the source"
            record = {"name": f"{group}.conv.{name}", "group": group, "n_parameters": round(n_parameters * share),
                      "status": status, "detail": detail}  # fmt: skip
            tensors.append(TensorAudit.model_validate(record))
    if not is_scratch:
        tensors.append(
            TensorAudit(name="projection.weight", group="", n_parameters=4096, status="unused", detail="no such layer")
        )
    share = 0.0 if is_scratch else 0.9985
    return Audit(
        source=None if is_scratch else "abdomen_a",
        source_sha256=None if is_scratch else sha256_of("weights"),
        share_body=share,
        share_all=share,
        groups={group: share for group, _ in GROUPS},
        tensors=tuple(tensors),
    )
