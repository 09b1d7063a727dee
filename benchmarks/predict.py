"""A network over a whole volume: our sliding window against MONAI's inferer and the bare forward passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import EQUAL, Contestant, Times, contestant, judged, ratio, table, take_turns, verdict

TITLE = "Predict: a volume, window by window"
PACKAGES = ("torch", "monai", "nnunetv2", "numpy")
Turn = Callable[[], Any]
EXACT, FAST_BATCH = "monai_tl, exact", "monai_tl, fast, batch normalisation"
FAST = {
    "patch": "monai_tl, fast, less overlap",
    "exact": "monai_tl, fast, windows as exact",
}
"""By the windows that a model's validation cases allowed; larger ones are not tried with this network."""
MONAI, MONAI_4 = "MONAI SlidingWindowInferer", "MONAI SlidingWindowInferer, 4 a pass"
MONAI_BATCH = "MONAI SlidingWindowInferer, batch normalisation"
MEMORY = "MiB at the peak"


def run(quick: bool) -> list[str]:
    import tempfile

    import numpy as np

    from benchmarks.cases import PATCH, demo_network, demo_params, make_array

    settings = demo_params().predict
    shape = (96, 80, 56) if quick else (160, 160, 96)
    n_windows = count_windows(shape, settings.overlap)
    of = " × ".join(str(voxels) for voxels in shape)
    size = " × ".join(str(voxels) for voxels in PATCH)
    blocks = [
        f"The demo's network ({demo_network().name}) over {of} voxels: {n_windows} windows of {size}, overlap "
        f"{settings.overlap:g}, {settings.blending} blending, {settings.batch_size} windows a pass, "
        f"{settings.n_threads} threads, each contestant in a process of its own. Limit: that many forward passes over "
        "one window in memory, in the layout that we use, no softmax, no sum. MONAI: "
        "`SlidingWindowInferer` with the same settings, softmax at the end, network as built; and with four windows a "
        "pass, as its tutorials have it. nnU-Net: `nnUNetPredictor.predict_sliding_window_return_logits` with the same "
        "network, patch, overlap and blending, one window a pass, sums in float16, and its label manager's labels; it "
        "spreads its windows evenly, so their number may differ a little; and with mirroring along all axes, its "
        "default, eight times the passes. Ours: from the prepared image to the label map in exact mode; in fast mode, "
        "in bfloat16 where the processor has it, in each of the ways of which a model's validation cases allow one "
        "(docs/inference.md; the section on precision has what they cost in Dice); by ONNX Runtime in both modes; and "
        "fast with the same network under batch normalisation, which may pass larger windows, beside MONAI's inferer "
        "with that one. "
        "Peak memory is the process's largest resident size in the last turn, less what it had after one window and "
        "before any volume: what a process keeps from turn to turn counts."
    ]
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        path = Path(name) / "image.npy"
        np.save(path, make_array(0, shape, 360.0 / shape[0])[0])
        contestants = [
            contestant("limit", "limit", prepare_limit, n_windows),
            contestant(EXACT, "ours", prepare_ours, path, "exact"),
            contestant(MONAI, "peer", prepare_monai, path, settings.batch_size),
            contestant(MONAI_4, "peer", prepare_monai, path, 4),
            contestant("nnU-Net", "peer", prepare_nnunet, path, False, needs="nnunetv2"),
            contestant("nnU-Net, mirrored", "other", prepare_nnunet, path, True, needs="nnunetv2"),
            *(contestant(FAST[windows], "other", prepare_ours, path, "fast", windows) for windows in FAST),
            contestant("monai_tl, exact, ONNX", "other", prepare_ours, path, "exact", "", "onnx", needs="onnxruntime"),
            contestant(
                f"{FAST['patch']}, ONNX", "other", prepare_ours, path, "fast", "patch", "onnx", needs="onnxruntime"
            ),
            contestant(FAST_BATCH, "other", prepare_ours, path, "fast", "large", "torch", "batch"),
            contestant(MONAI_BATCH, "other", prepare_monai, path, settings.batch_size, "batch"),
        ]
        times = take_turns(contestants, 2 if quick else 7, budget_s=240.0)
        own, other = np.load(path.with_suffix(".exact.npy")), np.load(path.with_suffix(".monai.npy"))
    apart = float(np.abs(own - other).max())
    same = f"Largest difference between our exact probabilities and MONAI's, where it blends them too: {apart:.1e}."
    return [*blocks, table(contestants, times), verdict(contestants, times), goals(contestants, times), same]


def goals(contestants: Sequence[Contestant], times: Times) -> str:
    """Whether the goals of both modes are met, each against the faster of MONAI's rows with the same network."""
    facts = {one.name: one.facts for one in contestants}
    monai = [name for name in (MONAI, MONAI_4) if name in times]
    lines = []
    batch = [name for name in (MONAI_BATCH,) if name in times]
    for ours, peers in (*((name, monai) for name in FAST.values()), (FAST_BATCH, batch)):
        if ours in times and peers:
            gain, peer = min((ratio(times, name, ours), name) for name in peers)
            lines.append(judged(gain >= 3.0, f"{ours}: {gain:.2f} times the speed of {peer} (goal: 3)"))
    if monai:
        share, peer = max((ratio(times, EXACT, name), name) for name in monai)
        equal = f"goal: not slower; up to {EQUAL[1]:g} counts as equal"
        lines.append(judged(share <= EQUAL[1], f"{EXACT}: {share:.2f} of the time of {peer} ({equal})"))
        # against the one of theirs that takes less
        least = min(float(facts[name][MEMORY]) for name in monai)
        memory = float(facts[EXACT][MEMORY]) / least
        words = f"{EXACT}: {memory:.2f} of the peak memory of MONAI's inferer (goal: a fraction, judged as a half)"
        lines.append(judged(memory <= 0.5, words))
    return "\n".join(lines)


def count_windows(shape: Sequence[int], overlap: float) -> int:
    from monai.data.utils import dense_patch_slices

    from benchmarks.cases import PATCH

    steps = [int(voxels * (1 - overlap)) for voxels in PATCH]
    return len(dense_patch_slices(shape, PATCH, steps))


def _network(is_ours: bool, norm: str = "") -> Any:
    import torch

    from benchmarks.cases import N_OUTPUTS, demo_network, demo_params
    from monai_tl.networks.builders import build_network
    from monai_tl.networks.device import place_to_predict, set_up_torch

    settings = demo_params().predict
    config = demo_network()
    if norm:
        config = config.model_copy(update={"arguments": config.arguments | {"norm": norm}})
    network = build_network(config, 1, N_OUTPUTS, 0).eval()
    if is_ours:
        return place_to_predict(network, set_up_torch(settings.n_threads))
    torch.set_num_threads(settings.n_threads)
    return network


def prepare_limit(n_windows: int) -> Turn:
    import torch

    from benchmarks.cases import PATCH, demo_params

    n_at_once = demo_params().predict.batch_size
    network = _network(True)
    windows = torch.rand(n_at_once, 1, *PATCH)

    def turn() -> float:
        with torch.inference_mode():
            started = time.perf_counter()
            for first in range(0, n_windows, n_at_once):
                network(windows[: min(n_at_once, n_windows - first)])
            return time.perf_counter() - started

    return turn


def prepare_ours(path: Path, mode: str, windows: str = "", engine: str = "torch", norm: str = "") -> Turn:
    import numpy as np

    from benchmarks.cases import demo_params
    from monai_tl.fast_records import FastRecord
    from monai_tl.inference import with_engine
    from monai_tl.networks.windows import collect_probabilities

    settings = demo_params().predict.model_copy(update={"mode": mode})
    fast = FastRecord.model_validate({"windows": windows, "precision": "bfloat16"}) if windows else None
    predictor = with_engine(replace(_predictor(norm), fast=fast), engine, settings.n_threads)
    image = np.load(path, mmap_mode="r")
    record = _record_of(image.shape[1:])
    window = one_window(image)
    predictor.predict_label(window, _record_of(window.shape[1:]), settings)
    idle = _start_counting_memory()
    if mode == "exact" and engine == "torch":
        np.save(
            path.with_suffix(".exact.npy"), collect_probabilities(predictor.stream(image, settings), image.shape[1:])
        )
    # what loading and the first pass take is no part of a turn
    predictor.predict_label(image, record, settings)

    return lambda: _watched(lambda: predictor.predict_label(image, record, settings), idle)


def _predictor(norm: str) -> Any:
    from benchmarks.cases import N_OUTPUTS, PATCH, demo_network
    from monai_tl.config import IntensityConfig
    from monai_tl.inference import Predictor
    from monai_tl.labels import ClassSpec, LabelScheme
    from monai_tl.networks.builders import size_rule_of
    from monai_tl.records import Plan

    config = demo_network()
    if norm:
        config = config.model_copy(update={"arguments": config.arguments | {"norm": norm}})
    plan = Plan(
        modality="CT",
        n_channels=1,
        scheme=LabelScheme(classes=tuple(ClassSpec(name=f"class_{number}") for number in range(1, N_OUTPUTS))),
        spacing_mm=(1.0, 1.0, 1.0),
        intensity=IntensityConfig(rule="window", low=-160.0, high=260.0),
        patch_size_vox=PATCH,
        size_rule=size_rule_of(config),
        network=config,
        source=None,
    )
    return Predictor((_network(True, norm),), plan)


def _record_of(shape: Sequence[int]) -> Any:
    import numpy as np

    from monai_tl.dataset.transforms import to_matrix
    from monai_tl.records import PreparedCase

    i, j, k = shape
    grid = to_matrix(np.eye(4))
    return PreparedCase(
        case_id="",
        native_affine=grid,
        native_shape=(i, j, k),
        crop_start=(0, 0, 0),
        crop_stop=(i, j, k),
        affine=grid,
        spatial_shape=(i, j, k),
        has_label=False,
    )


def _start_counting_memory() -> float:
    from benchmarks.predict_memory import peak_gib

    # sets the largest resident size back to the present one (Linux)
    Path("/proc/self/clear_refs").write_text("5")
    return peak_gib()


def one_window(image: Any) -> Any:
    """A corner of the image: with it, all that is loaded or built on the first pass is."""
    from benchmarks.cases import PATCH

    return image[(slice(None), *(slice(size) for size in PATCH))]


def _watched(work: Callable[[], Any], idle: float) -> tuple[float, str, dict[str, str]]:
    """Seconds of the work, no remark, and the peak of memory above ``idle`` GiB."""
    from benchmarks.predict_memory import peak_gib

    _start_counting_memory()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return seconds, "", {MEMORY: f"{1024 * (peak_gib() - idle):.0f}"}


def prepare_monai(path: Path, n_at_once: int, norm: str = "") -> Turn:
    import numpy as np
    import torch
    from monai.inferers import SlidingWindowInferer

    from benchmarks.cases import PATCH, demo_params

    settings = demo_params().predict
    network = _network(False, norm)
    inferer = SlidingWindowInferer(PATCH, n_at_once, settings.overlap, settings.blending)

    def probabilities(windows: Any) -> Any:
        return torch.softmax(network(windows), dim=1)

    image = np.load(path, mmap_mode="r")

    def predict(volume: Any) -> None:
        with torch.no_grad():
            torch.softmax(inferer(torch.from_numpy(np.array(volume))[None], network), dim=1)[0].numpy().argmax(axis=0)

    predict(one_window(image))
    idle = _start_counting_memory()
    if not norm:
        with torch.no_grad():
            same = inferer(torch.from_numpy(np.array(image))[None], probabilities)[0].numpy()
        np.save(path.with_suffix(".monai.npy"), same)
    return lambda: _watched(lambda: predict(image), idle)


def prepare_nnunet(path: Path, is_mirrored: bool) -> Turn:
    """nnU-Net's predictor as its trainer makes one for validation, on a plan that names the patch alone."""
    import tempfile

    import numpy as np
    import torch

    from benchmarks.cases import N_OUTPUTS, PATCH, demo_params
    from benchmarks.nnunet import CONFIGURATION, set_folders

    # it wants to be told folders when it is imported; nothing is put there
    set_folders(Path(tempfile.mkdtemp(dir=path.parent)))
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    predictor = nnUNetPredictor(
        tile_step_size=1.0 - demo_params().predict.overlap,
        use_gaussian=True,
        use_mirroring=is_mirrored,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    plans = PlansManager({"configurations": {CONFIGURATION: {"patch_size": list(PATCH), "architecture": {}}}})
    labels = {"labels": {"background": 0, **{f"class_{value}": value for value in range(1, N_OUTPUTS)}}}
    configuration, axes = plans.get_configuration(CONFIGURATION), (0, 1, 2)
    predictor.manual_initialization(_network(False), plans, configuration, None, labels, "nnUNetTrainer", axes)
    image = np.load(path, mmap_mode="r")

    def predict(volume: Any) -> None:
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(volume)))
        predictor.label_manager.convert_logits_to_segmentation(logits)

    predict(one_window(image))
    idle = _start_counting_memory()
    return lambda: _watched(lambda: predict(image), idle)
