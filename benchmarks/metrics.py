"""Surface Dice, HD95 and mean surface distance of a case: ours against MONAI's three calls and DeepMind's package."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common import contestant, goals, table, take_turns, verdict

TITLE = "Metrics: the surfaces of a case"
PACKAGES = ("numpy", "scipy", "torch", "monai", "surface-distance")
TOLERANCE_MM = 2.0
MONAI = "MONAI, three calls"
Turn = Callable[[], float]


@dataclass(frozen=True)
class Scene:
    """Ellipsoids with bumps as references; the predictions' surfaces wander from them.

    Attributes:
        organs: Centre as a share of the volume, semi-axes in mm.
        error_mm: Standard deviation of the wandering.
    """

    name: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    organs: Sequence[tuple[tuple[float, float, float], tuple[float, float, float]]]
    error_mm: float


_ABDOMEN = (
    ((0.30, 0.45, 0.50), (60.0, 50.0, 75.0)),
    ((0.68, 0.40, 0.55), (38.0, 33.0, 55.0)),
    ((0.42, 0.75, 0.35), (20.0, 20.0, 45.0)),
    ((0.66, 0.75, 0.35), (20.0, 20.0, 45.0)),
    ((0.50, 0.62, 0.75), (25.0, 12.0, 40.0)),
)
_SMALL = tuple((centre, (5.0, 4.0, 7.0)) for centre, _ in _ABDOMEN)
_GRID = ((192, 192, 160), (0.8, 0.8, 2.0))
SCENES = (
    Scene("Five organs, good predictions", *_GRID, _ABDOMEN, 1.0),
    Scene("Five organs, rough predictions", *_GRID, _ABDOMEN, 3.0),
    Scene("Five organs, bad predictions", *_GRID, _ABDOMEN, 6.0),
    Scene("Five small structures", *_GRID, _SMALL, 1.0),
)


def run(quick: bool) -> list[str]:
    size = " × ".join(str(voxels) for voxels in SCENES[0].shape)
    spacing = " × ".join(f"{step:g}" for step in SCENES[0].spacing_mm)
    blocks = [
        f"Label maps of {size} voxels of {spacing} mm with five classes, in memory; processor time for one case, "
        "one thread each, each contestant in a process of its own. monai_tl: `score_case`, which gives Dice, IoU, "
        "HD100 and volume errors as well. MONAI: `compute_hausdorff_distance(percentile=95)`, `compute_surface_dice` "
        "and `compute_average_surface_distance(symmetric=True)`, one-hot tensors made beforehand; and with "
        "`use_subvoxels=True`, without which its surface Dice is another number. DeepMind: `compute_surface_distances` "
        "class by class and the three metrics of it. Limit: what cannot be left out: each class cut out of both maps, "
        "the codes of the surface and the list of its elements; no distance at all."
    ]
    for scene in SCENES[:1] if quick else SCENES:
        contestants = [
            contestant("limit", "limit", prepare_limit, scene),
            contestant("monai_tl", "ours", prepare_ours, scene),
            contestant(MONAI, "peer", prepare_monai, scene, False),
            contestant("MONAI, three calls, subvoxels", "peer", prepare_monai, scene, True),
            contestant("DeepMind surface-distance", "peer", prepare_deepmind, scene, needs="surface_distance"),
        ]
        times = take_turns(contestants, 2 if quick else 7, budget_s=60.0)
        blocks += [f"### {scene.name} (mean Dice {mean_dice(scene):.3f})", table(contestants, times, "ms")]
        blocks += [verdict(contestants, times), goals(contestants, times, {MONAI: 6.0})]
    return blocks


def make_maps(scene: Scene) -> tuple[Any, Any]:
    """Reference and prediction, (I, J, K) uint8."""
    import numpy as np

    generator = np.random.default_rng(0)
    grid = [np.arange(n, dtype=np.float32) * step for n, step in zip(scene.shape, scene.spacing_mm, strict=True)]
    extent = [n * step for n, step in zip(scene.shape, scene.spacing_mm, strict=True)]
    bumps, wandering = _waves(generator, scene, 8.0), _waves(generator, scene, 6.0)
    reference, prediction = (np.zeros(scene.shape, dtype=np.uint8) for _ in range(2))
    for value, (centre, axes) in enumerate(scene.organs, start=1):
        i, j, k = ((grid[axis] - centre[axis] * extent[axis]) / axes[axis] for axis in range(3))
        radius = np.sqrt(i[:, None, None] ** 2 + j[:, None] ** 2 + k**2)
        outside_mm = (radius - 1.0) * np.mean(axes) + 0.05 * np.mean(axes) * bumps
        reference[outside_mm < 0] = value
        prediction[outside_mm + scene.error_mm * wandering < 0] = value
    return reference, prediction


def _waves(generator: Any, scene: Scene, length_mm: float) -> Any:
    import numpy as np
    from scipy import ndimage

    noise = generator.standard_normal(scene.shape).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, [length_mm / step for step in scene.spacing_mm], mode="wrap")
    return noise / noise.std()


def mean_dice(scene: Scene) -> float:
    from monai_tl.metrics.overlap import dice

    reference, prediction = make_maps(scene)
    values = range(1, len(scene.organs) + 1)
    return sum(dice(reference == value, prediction == value) for value in values) / len(values)


def _timed(work: Callable[[], Any]) -> Turn:
    def turn() -> float:
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
        return time.process_time() - started

    return turn


def prepare_limit(scene: Scene) -> Turn:
    import numpy as np

    from monai_tl.metrics.case import _cut_classes
    from monai_tl.metrics.surfels import neighbour_codes

    reference, prediction = make_maps(scene)

    def work() -> None:
        for pair in _cut_classes(reference, prediction, len(scene.organs)):
            for mask in pair:
                np.flatnonzero((neighbour_codes(mask) - np.uint8(1)) < 254)

    return _timed(work)


def prepare_ours(scene: Scene) -> Turn:
    from monai_tl.metrics.case import score_case

    reference, prediction = make_maps(scene)
    return _timed(lambda: score_case(reference, prediction, len(scene.organs), scene.spacing_mm, TOLERANCE_MM))


def prepare_monai(scene: Scene, use_subvoxels: bool) -> Turn:
    import numpy as np
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    torch.set_num_threads(1)
    n_classes = len(scene.organs)
    reference, prediction = (
        torch.from_numpy(np.stack([volume == value for value in range(n_classes + 1)])[None].astype(np.float32))
        for volume in make_maps(scene)
    )
    spacing = scene.spacing_mm

    def work() -> None:
        compute_hausdorff_distance(prediction, reference, percentile=95, spacing=spacing)
        compute_surface_dice(
            prediction, reference, [TOLERANCE_MM] * n_classes, spacing=spacing, use_subvoxels=use_subvoxels
        )
        compute_average_surface_distance(prediction, reference, symmetric=True, spacing=spacing)

    return _timed(work)


def prepare_deepmind(scene: Scene) -> Turn:
    import surface_distance

    reference, prediction = make_maps(scene)

    def work() -> None:
        for value in range(1, len(scene.organs) + 1):
            found = surface_distance.compute_surface_distances(
                reference == value, prediction == value, scene.spacing_mm
            )
            surface_distance.compute_robust_hausdorff(found, 95)
            surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)
            surface_distance.compute_average_surface_distance(found)

    return _timed(work)
