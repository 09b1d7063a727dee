"""Peak memory of ``monai-tl segment`` on one large study: every byte from the DICOM files to the SEG that is read back.

``python -m benchmarks.predict_memory [fast|exact [SLICES [N_CLASSES]]]`` prints the command's peak in GiB.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

SIZE = 512


def main(mode: str, n_slices: int, n_classes: int) -> None:
    from benchmarks.cohort import write_phantom
    from benchmarks.processes import python_environment, python_line, watch
    from monai_tl.commands import key

    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        root = Path(name)
        write_phantom(root / "study", n_slices, SIZE, 1)
        write_model(root / "model", n_classes)
        key.run(root / "key", seed=0)
        given = ["segment", root / "study", root / "out", "--model", root / "model", "--key-file", root / "key"]
        used = watch([[*python_line("monai_tl", *given), "--mode", mode]], python_environment())
        written = sum(path.stat().st_size for path in (root / "out").rglob("segmentation.dcm")) / 2**20
    print(
        f"monai-tl segment --mode {mode}: {SIZE} x {SIZE} x {n_slices}, {n_classes} classes: peak "
        f"{used.peaks[0] / 2**30:.2f} GiB, {used.wall_s:.0f} s; SEG of {written:.0f} MiB"
    )


def write_model(folder: Path, n_classes: int) -> None:
    """A model folder with weights drawn at random, on another grid than the study's, so that the way back interpolates
    every class."""
    from monai_tl.config import IntensityConfig, NetworkConfig
    from monai_tl.labels import ClassSpec, LabelScheme
    from monai_tl.networks.builders import build_network, size_rule_of
    from monai_tl.networks.groups import named_tensors
    from monai_tl.records import Plan
    from monai_tl.sources.card import Card, write_source

    config = NetworkConfig(name="unet", arguments={"channels": [4, 8, 8], "strides": [2, 2], "norm": "batch"})
    classes = tuple(f"organ_{number}" for number in range(n_classes))
    plan = Plan(
        modality="CT",
        n_channels=1,
        scheme=LabelScheme(classes=tuple(ClassSpec(name=name) for name in classes)),
        spacing_mm=(0.72, 0.72, 0.3),
        intensity=IntensityConfig(rule="window", low=-200.0, high=300.0),
        patch_size_vox=(96, 96, 96),
        size_rule=size_rule_of(config),
        network=config,
        source=None,
    )
    contract = {
        "modality": "CT",
        "channels": ["CT"],
        "orientation": plan.orientation,
        "spacing_mm": list(plan.spacing_mm),
        "intensity": plan.intensity.model_dump(),
        "size_rule": plan.size_rule.model_dump(),
    }
    card = Card.model_validate(
        {
            "name": "scratch-0-0",
            "network": {**config.model_dump(), "n_channels": 1, "n_outputs": n_classes + 1},
            "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
            "licence": "CC0-1.0",
            "citation": "nobody",
            "input": contract,
            "classes": list(classes),
        }
    )
    folder.mkdir(parents=True)
    write_source(folder, card, named_tensors(build_network(config, 1, n_classes + 1, 0)))
    plan.write(folder / "plan.json")


def peak_gib() -> float:
    """Largest resident size of this process since it began to count."""
    status = Path("/proc/self/status").read_text()
    found = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
    if found is not None:
        return int(found.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    mode, n_slices, n_classes = (sys.argv[1:] + ["fast", "600", "20"][len(sys.argv) - 1 :])[:3]
    main(mode, int(n_slices), int(n_classes))
