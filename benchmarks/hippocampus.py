"""Real hippocampi as workspaces: 160 labelled cases to draw from, 40 that no training sees.

Results of single trainings are kept under ``ROOT/.monai_tl/benchmarks/hippocampus``: a benchmark that was cut off goes
on, and one more point costs one point.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, SHARED

KEPT = ROOT / ".monai_tl" / "benchmarks" / "hippocampus"
N_TEST = 40
CLASSES = ("anterior", "posterior")
PATCH = [36, 52, 36]
"""About the size of a case."""
SETTINGS: dict[str, Any] = {
    "precision": "bfloat16",
    "augmentation": "elastic",
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
    "head_steps": 60,
    "warmup_steps": 20,
    "schedule": "constant",
    "average_power": 2,
    "batch_size": 1,
    "norm_statistics": "source",
    "n_threads": 1,
}
"""Of every training, whatever it starts from. One thread, so that two benchmarks can share two cores; the number of
steps is what two threads do in the time given, and threads change a result by rounding alone."""
TIMED = (("n_threads", 2),)
"""Of a training whose time is a goal."""
SCRATCH_NETWORKS: dict[str, dict[str, Any]] = {
    "hippodeep": {"network": {"name": "hippodeep", "arguments": {"side_path": True}}, "patch_size_vox": PATCH},
    "MONAI UNet": {
        "network": {
            "name": "unet",
            "arguments": {
                "channels": [16, 32, 64, 128],
                "strides": [2, 2, 2],
                "num_res_units": 2,
                "norm": "instance",
            },
        },
        "patch_size_vox": [40, 56, 40],
    },
    "MONAI DynUNet": {
        "network": {
            "name": "dynunet",
            "arguments": {
                "kernel_size": [3, 3, 3, 3],
                "strides": [1, 2, 2, 2],
                "upsample_kernel_size": [2, 2, 2],
                "filters": [24, 48, 96, 192],
                "norm_name": "instance",
            },
        },
        "patch_size_vox": [40, 56, 40],
    },
}
"""Networks without a source, sized to some million parameters."""


@dataclass(frozen=True)
class Point:
    """One training and its test.

    Attributes:
        workspace: Prepared by ``workspace``.
        labels: How many, as text, or ``all``; none of them is for validation, the last (averaged) weights count.
        seconds: Of training everything on two threads at the rate measured on this machine; gives the number of steps.
        changes: Of section finetune, beside ``SETTINGS``.
    """

    workspace: Path
    labels: str
    strategy: str
    seed: int
    seconds: float
    changes: tuple[tuple[str, Any], ...] = ()


def write_decathlon(folder: Path) -> Path:
    """The shared images under the names of the Decathlon's layout."""
    source = SHARED / "data" / "hippocampus"
    names = sorted(path.name for path in (source / "images").glob("*.nii.gz"))
    for kind in ("images", "labels"):
        (folder / f"{kind}Tr").mkdir(parents=True, exist_ok=True)
        for name in names:
            target = folder / f"{kind}Tr" / name
            if not target.exists():
                shutil.copyfile(source / kind / name, target)
    listed = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    content = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
        "training": listed,
        "numTraining": len(listed),
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def workspace(root: Path, name: str, plan: dict[str, Any]) -> Path:
    """A workspace whose cases are ingested, split and prepared by a plan; made once.

    Args:
        root: Of all workspaces; the cases and the split are shared.
        name: Of this one.
        plan: Section plan.
    """
    import yaml

    from monai_tl.commands import key
    from monai_tl.config import parse_params
    from monai_tl.files import read_json, write_json
    from monai_tl.stages import run_stage

    folder = root / name
    if (folder / "artifacts" / "prepared").is_dir():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    # a key may not lie in a repository, where it could be shared; this one is of public images and has a known seed
    key_file = Path(tempfile.mkdtemp()) / "key"
    key.run(key_file, seed=0)
    data = write_decathlon(root / "data")
    content = {
        "ingest": {
            "source": str(data),
            "layout": "decathlon",
            "key_file": str(key_file),
            "classes": [{"name": name, "values": [value]} for value, name in enumerate(CLASSES, start=1)],
        },
        "split": {"test_ids_file": "test.json"},
        "plan": plan,
        "finetune": {"arms": ["scratch"]},
        "evaluate": {"surface_tolerance_mm": 1.0},
    }
    cases = root / "cases"
    if not cases.is_dir():
        work = root / "ingest"
        run_stage("ingest", work, parse_params(content), {})
        shutil.copytree(work / "artifacts" / "cases", cases)
    (folder / "artifacts").mkdir(exist_ok=True)
    if not (folder / "artifacts" / "cases").exists():
        (folder / "artifacts" / "cases").symlink_to(cases, target_is_directory=True)
    ids = sorted(read_json(cases / "dataset.json")["case_ids"])
    # ids are keyed hashes, so their order has nothing to do with the images
    write_json(folder / "test.json", ids[:N_TEST])
    params = parse_params(content)
    (folder / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    for stage in ("split", "plan", "preprocess"):
        run_stage(stage, folder, params, {})
    return folder


def hippodeep_source(
    folder: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    orientation: str = "RAS",
    side_path: bool = True,
) -> Path:
    """The published network as a source folder; ``change`` gives other tensors in place of the weights.

    With ``side_path`` the fine branch may see the coarse one's features; without training it is the same function.
    """
    import yaml
    from safetensors.torch import load_file

    from monai_tl.sources.card import Card, write_source

    content = yaml.safe_load((ROOT / "examples" / "hippodeep" / "card.yaml").read_text())
    content["input"]["orientation"] = orientation
    content["network"]["arguments"] = {"side_path": side_path}
    tensors = load_file(SHARED / "weights" / "hippodeep" / "weights.safetensors")
    write_source(folder, Card.model_validate(content), tensors if change is None else change(tensors))
    return folder


def measure(root: Path, points: Iterable[Point]) -> dict[Point, dict[str, Any]]:
    """Train and test each point that has no result yet; results are kept under ``root/points``."""
    done = {}
    for point in points:
        done[point] = _measure(root, point)
        line = done[point]
        print(
            f"{point.workspace.name} {point.strategy} {point.labels} labels seed {point.seed} {dict(point.changes)}: "
            f"{line['mean']:.4f} ({', '.join(f'{v:.4f}' for v in line['classes'])}), {line['n_steps']} steps, "
            f"{line['training_s']:.0f} s",
            flush=True,
        )
    return done


def curve_point_of(root: Path, point: Point) -> Any:
    """The package's own record of a measured point."""
    from monai_tl.stages.curve_point import POINT_FILE
    from monai_tl.transfer.curve_point import CurvePoint

    return CurvePoint.read(_folder(root, point, _n_steps(root, point)) / POINT_FILE)


def model_of(root: Path, point: Point) -> Path:
    """The model folder of a measured point."""
    return _folder(root, point, _n_steps(root, point)).with_suffix(".model")


def _n_steps(root: Path, point: Point) -> int:
    return max(80, int(point.seconds / seconds_a_step(root, point.workspace)))


def _folder(root: Path, point: Point, n_steps: int) -> Path:
    from monai_tl.files import sha256_of

    settings = json.dumps(SETTINGS | dict(point.changes), sort_keys=True)
    key = sha256_of(point.workspace.name, point.labels, point.strategy, str(point.seed), settings, str(n_steps))
    return root / "points" / key[:24]


def _measure(root: Path, point: Point) -> dict[str, Any]:
    from monai_tl.config import CurveConfig, CurveTraining, load_params
    from monai_tl.files import write_json
    from monai_tl.stages import curve_point
    from monai_tl.transfer.curve_point import CurvePoint

    settings = SETTINGS | dict(point.changes)
    n_steps = _n_steps(root, point)
    out = _folder(root, point, n_steps)
    kept = out.with_suffix(".json")
    if kept.is_file():
        result: dict[str, Any] = json.loads(kept.read_text())
        return result
    params = load_params(point.workspace)
    steps = {"max_steps": n_steps, "validate_every": max(1, n_steps // 8)}
    arms = ("scratch",) if point.strategy == "scratch" else ("transfer",)
    finetune = params.finetune.model_validate(settings | steps | {"arms": arms})
    labels = "all" if point.labels == "all" else int(point.labels)
    curve = CurveConfig(
        labels=(labels,),
        strategies=(finetune.strategy,),
        seeds=(point.seed,),
        steps=(1,),
        steps_labels=labels,
        training=CurveTraining(val_fraction=0.0),
    )
    params = params.model_copy(update={"finetune": finetune, "curve": curve})
    training_s, training_cpu_s = [0.0], [0.0]
    train = curve_point.finetune

    def timed(*arguments: Any, **named: Any) -> Any:
        started, cpu_started = time.monotonic(), time.process_time()
        model = train(*arguments, **named)
        training_s[0], training_cpu_s[0] = time.monotonic() - started, time.process_time() - cpu_started
        shutil.copytree(model, out.with_suffix(".model"), dirs_exist_ok=True)
        return model

    curve_point.finetune = timed  # type: ignore[assignment]
    try:
        curve_point.measure_point(point.workspace, params, out, point.labels, point.strategy, str(point.seed), None)
    finally:
        curve_point.finetune = train
    found = CurvePoint.read(out / curve_point.POINT_FILE)
    dice = [tuple(0.0 if value is None else value for value in found.dice[case]) for case in sorted(found.dice)]
    classes = [sum(row[k] for row in dice) / len(dice) for k in range(len(CLASSES))]
    training = json.loads((out / "training.json").read_text())
    result = {
        "mean": sum(classes) / len(classes),
        "classes": classes,
        "cases": {case: sum(found.dice[case]) / len(CLASSES) for case in sorted(found.dice)},  # type: ignore[arg-type]
        "n_steps": found.n_steps,
        "training_s": training_s[0],
        # of all threads: what other work on the machine does not lengthen much
        "training_cpu_s": training_cpu_s[0],
        "share_trained": training.get("share_trained", training.get("facts", {}).get("share_trained")),
        "decision": training.get("decision"),
    }
    write_json(kept, result)
    return result


_STEP_S: dict[Path, float] = {}


def seconds_a_step(root: Path, folder: Path) -> float:
    """Seconds of one optimiser step that trains everything, measured once a workspace: (90 steps - 10 steps) / 80.

    Of small networks more steps, until they take five seconds longer: what a start takes differs by tenths of a
    second, and the same network in two workspaces must get the same number of steps within a few in a hundred.
    """
    kept = root / "points" / f"{folder.name}.seconds"
    if folder not in _STEP_S and kept.is_file():
        _STEP_S[folder] = float(kept.read_text())
    if folder not in _STEP_S:
        for n_steps in (80, 320, 1280):
            longer_s = [_time_steps(folder, 10 + n_steps) - _time_steps(folder, 10) for _ in range(3)]
            _STEP_S[folder] = min(longer_s) / n_steps
            if min(longer_s) > 5.0:
                break
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(f"{_STEP_S[folder]:.4f}")
    return _STEP_S[folder]


def _time_steps(folder: Path, n_steps: int) -> float:
    from monai_tl.config import load_params
    from monai_tl.records import Fold, Plan, Split
    from monai_tl.stages.finetune import finetune

    plan = Plan.read(folder / "artifacts/plan/plan.json")
    fold = Split.read(folder / "artifacts/split/split.json").folds[0]
    few = Fold(train=fold.train[:4], val=())
    steps = {"max_steps": n_steps, "head_steps": 0, "validate_every": n_steps, "arms": ("scratch",)}
    config = load_params(folder).finetune.model_validate(SETTINGS | dict(TIMED) | steps)
    with tempfile.TemporaryDirectory() as models:
        started = time.monotonic()
        finetune(folder, plan, few, config, None, "scratch", 0, models=Path(models))
        return time.monotonic() - started
