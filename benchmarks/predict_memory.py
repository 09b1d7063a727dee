"""Peak memory of one large case from prepared image to native label map, in a process of its own.

``python -m benchmarks.predict_memory MODE [I J K [N_CLASSES]]`` prints the peaks in GiB.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path


def main(mode: str, shape: tuple[int, int, int], n_classes: int) -> None:
    import numpy as np

    from monai_tl.config import IntensityConfig, NetworkConfig, PredictConfig, PreprocessConfig
    from monai_tl.dataset.transforms import prepare_image
    from monai_tl.inference import Predictor
    from monai_tl.labels import ClassSpec, LabelScheme
    from monai_tl.networks.builders import build_network, size_rule_of
    from monai_tl.networks.device import place_network, set_up_torch
    from monai_tl.records import Plan

    config = NetworkConfig(name="unet", arguments={"channels": [4, 8, 8], "strides": [2, 2], "norm": "batch"})
    plan = Plan(
        modality="CT",
        n_channels=1,
        scheme=LabelScheme(classes=tuple(ClassSpec(name=f"organ_{number}") for number in range(n_classes))),
        spacing_mm=(0.8, 0.8, 1.0),
        intensity=IntensityConfig(rule="window", low=-200.0, high=300.0),
        patch_size_vox=(96, 96, 96),
        size_rule=size_rule_of(config),
        network=config,
        source=None,
    )
    network = place_network(build_network(config, 1, n_classes + 1, 0).eval(), set_up_torch(2))
    before = peak_gib()
    rng = np.random.default_rng(0)
    image = np.empty(shape, dtype=np.int16)
    for number in range(shape[0]):
        image[number] = rng.integers(-1000, 1000, size=shape[1:], dtype=np.int16)
    # another grid than the native one, so that the way back interpolates every class
    prepared, record = prepare_image(image, np.diag([0.78, 0.78, 1.0, 1.0]), plan, PreprocessConfig())
    after_preparing = peak_gib()
    started = time.perf_counter()
    settings = PredictConfig(mode=mode)  # type: ignore[arg-type]
    predictor = Predictor((network,), plan)
    label = predictor.predict_label(prepared, record, settings)
    seconds = time.perf_counter() - started
    tiling = predictor.tiling(prepared.shape[1:], settings)
    print(
        f"{mode}: {label.shape}, {n_classes} classes, {tiling.n_windows} windows of {tiling.window}: "
        f"peak {peak_gib():.2f} GiB "
        f"(imports {before:.2f}, after preparing {after_preparing:.2f}), {seconds:.0f} s"
    )


def peak_gib() -> float:
    """Largest resident size of this process since it began to count."""
    status = Path("/proc/self/status").read_text()
    found = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
    if found is not None:
        return int(found.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[2:]]
    main(
        sys.argv[1],
        (given[0], given[1], given[2]) if len(given) >= 3 else (512, 512, 600),
        given[3] if len(given) > 3 else 20,
    )
