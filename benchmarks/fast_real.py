"""Fast mode on real images: hippodeep tuned on hippocampi, against MONAI's inferer and against exact mode's Dice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.common import contestant, judged, ratio, table, take_turns, verdict
from benchmarks.hippocampus import KEPT, PATCH, TIMED, Point, hippodeep_source, measure, model_of, workspace

if TYPE_CHECKING:
    from monai_tl.dataset.patches import TrainingCase

TITLE = "Fast mode on real images"
PACKAGES = ("torch", "monai", "numpy")
FAST, EXACT = "monai_tl, fast", "monai_tl, exact"
MONAI, MONAI_4 = "MONAI SlidingWindowInferer", "MONAI SlidingWindowInferer, 4 a pass"
N_THREADS, N_TIMED = 2, 8
"""Cases that are timed, so that a turn takes seconds; Dice is of all."""
Turn = Callable[[], float]


def run(quick: bool) -> list[str]:
    root = KEPT / "quick" if quick else KEPT
    source = hippodeep_source(root / "sources" / "hippodeep")
    folder = workspace(root, "hippodeep", {"source": str(source), "patch_size_vox": PATCH})
    point = Point(folder, "16", "auto", 0, 6.0 if quick else 140.0, TIMED)
    measure(root, [point])
    model = model_of(root, point)
    blocks = [
        "hippodeep tuned on 16 labels (the section on transfer, seed 0), over the same 40 test cases, of which "
        f"{N_TIMED} are timed; window {' × '.join(map(str, PATCH))}, overlap 0.5, gaussian blending, {N_THREADS} "
        "threads, each contestant in a "
        "process of its own; from prepared images to labels. The network looks at neighbourhoods alone, and no case "
        "was kept for validation, so that fast mode goes without a trial: the whole image in one pass, in bfloat16 "
        "where the processor has it. MONAI: `SlidingWindowInferer` in float32, network as built, with two windows a "
        "pass as ours and with four."
    ]
    for n_a_side, words in ((1, "each case by itself"), (2, "eight cases side by side")):
        contestants = [
            contestant(FAST, "ours", prepare_ours, folder, model, n_a_side, "fast"),
            contestant(EXACT, "other", prepare_ours, folder, model, n_a_side, "exact"),
            contestant(MONAI, "peer", prepare_monai, folder, model, n_a_side, 2),
            contestant(MONAI_4, "peer", prepare_monai, folder, model, n_a_side, 4),
        ]
        times = take_turns(contestants, 2 if quick else 4, budget_s=45.0)
        dice = {mode: dice_of(folder, model, n_a_side, mode) for mode in ("exact", "fast")}
        apart = [fast - exact for fast, exact in zip(dice["fast"], dice["exact"], strict=True)]
        gain, peer = min((ratio(times, name, FAST), name) for name in (MONAI, MONAI_4) if name in times)
        blocks += [
            f"### {words.capitalize()}",
            table(contestants, times),
            verdict(contestants, times),
            "\n".join(
                [
                    judged(gain >= 3.0, f"fast: {gain:.2f} times the speed of {peer} (goal: 3)"),
                    judged(
                        abs(fmean(apart)) < 0.001,
                        f"mean Dice {fmean(dice['fast']):.4f}, {fmean(apart):+.5f} of exact mode's (goal: within "
                        f"0.001; image by image {min(apart):+.4f} to {max(apart):+.4f})",
                    ),
                ]
            ),
        ]
    return blocks


def _images(folder: Path, n_a_side: int) -> list[tuple[Any, Any]]:
    """Image (1, I, J, K) and label of each case, or of blocks of cases with air between them."""
    import numpy as np

    from monai_tl.dataset.patches import load_case
    from monai_tl.records import Split

    split = Split.read(folder / "artifacts/split/split.json")
    cases = [load_case(folder / "artifacts/prepared" / case_id) for case_id in split.test]
    size = n_a_side**3
    groups = [cases[first : first + size] for first in range(0, len(cases) - size + 1, size)]
    if n_a_side == 1:
        return [(np.asarray(case.image), np.asarray(case.label)) for (case,) in groups]
    return [_side_by_side(group, n_a_side) for group in groups]


def _side_by_side(cases: Sequence[TrainingCase], n_a_side: int) -> tuple[Any, Any]:
    import numpy as np

    gap = 8
    block = np.max([case.label.shape for case in cases], axis=0) + gap
    image = np.zeros((1, *(n_a_side * block)), dtype=cases[0].image.dtype)
    label = np.zeros(image.shape[1:], dtype=np.uint8)
    for number, case in enumerate(cases):
        corner = np.array(np.unravel_index(number, (n_a_side,) * 3)) * block
        place = tuple(slice(int(start), int(start + size)) for start, size in zip(corner, block, strict=True))
        wanted = [(gap // 2, int(size) - own - gap // 2) for own, size in zip(case.label.shape, block, strict=True)]
        image[0][place] = np.pad(case.image[0], wanted, mode="edge")
        label[place] = np.pad(case.label, wanted)
    return image, label


def _labels(predictor: Any, image: Any, mode: str) -> Any:
    import numpy as np

    from monai_tl.config import PredictConfig

    label = np.empty(image.shape[1:], np.uint8)
    for slab in predictor.stream(image, PredictConfig(mode=mode)):  # type: ignore[arg-type]
        planes = slice(slab.start, slab.start + slab.values.shape[1 + slab.axis])
        label[(*[slice(None)] * slab.axis, planes)] = slab.values.argmax(axis=0)
    return label


def dice_of(folder: Path, model: Path, n_a_side: int, mode: str) -> list[float]:
    """Mean of both classes, image by image."""
    from monai_tl.inference import load_models
    from monai_tl.metrics.overlap import dice

    predictor = load_models([model], N_THREADS)
    return [
        fmean(dice(label == k, found == k) for k in (1, 2))
        for image, label in _images(folder, n_a_side)
        for found in (_labels(predictor, image, mode),)
    ]


def prepare_ours(folder: Path, model: Path, n_a_side: int, mode: str) -> Turn:
    from monai_tl.inference import load_models

    predictor, images = load_models([model], N_THREADS), _timed_images(folder, n_a_side)
    return _timed(lambda image: _labels(predictor, image, mode), images)


def prepare_monai(folder: Path, model: Path, n_a_side: int, n_at_once: int) -> Turn:
    import torch
    from monai.inferers import SlidingWindowInferer

    from monai_tl.sources.audit import load_trained

    torch.set_num_threads(N_THREADS)
    network = load_trained(model)[0].eval()
    inferer = SlidingWindowInferer(PATCH, n_at_once, 0.5, "gaussian")

    def work(image: Any) -> Any:
        with torch.inference_mode():
            values = inferer(torch.from_numpy(image).float()[None], lambda x: torch.softmax(network(x), dim=1))
        return values[0].argmax(dim=0).to(torch.uint8).numpy()  # type: ignore[index]

    return _timed(work, _timed_images(folder, n_a_side))


def _timed_images(folder: Path, n_a_side: int) -> list[Any]:
    import numpy as np

    # in memory, and writable, as torch would have it
    return [np.array(image) for image, _ in _images(folder, n_a_side)][: max(1, N_TIMED // n_a_side**3)]


def _timed(work: Callable[[Any], Any], images: Sequence[Any]) -> Turn:
    def turn() -> float:
        started = time.perf_counter()
        for image in images:
            work(image)
        return time.perf_counter() - started

    return turn
