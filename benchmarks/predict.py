"""A network over a whole volume: our sliding window against MONAI's inferer and the bare forward passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import contestant, table, take_turns, verdict

TITLE = "Predict: a volume, window by window"
PACKAGES = ("torch", "monai", "numpy")
Turn = Callable[[], Any]


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
        "one window in memory, weights channels last as we use them, no softmax, no sum; a pass over two windows in "
        "the layout as built is a little cheaper a window, so a contestant may come out below it. MONAI: "
        "`SlidingWindowInferer` with the same settings, softmax at the end, network as built; and with four windows a "
        "pass, as its tutorials have it."
    ]
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        path = Path(name) / "image.npy"
        np.save(path, make_array(0, shape, 360.0 / shape[0])[0])
        contestants = [
            contestant("limit", "limit", prepare_limit, n_windows),
            contestant("monai_tl", "ours", prepare_ours, path),
            contestant("MONAI SlidingWindowInferer", "peer", prepare_monai, path, settings.batch_size),
            contestant("MONAI SlidingWindowInferer, 4 a pass", "peer", prepare_monai, path, 4),
        ]
        times = take_turns(contestants, 2 if quick else 7, budget_s=80.0)
        own, other = np.load(path.with_suffix(".ours.npy")), np.load(path.with_suffix(".monai.npy"))
    apart = float(np.abs(own - other).max())
    same = f"Largest difference between our probabilities and MONAI's, where it too blends probabilities: {apart:.1e}."
    return [*blocks, table(contestants, times), verdict(contestants, times), same]


def count_windows(shape: Sequence[int], overlap: float) -> int:
    from monai.data.utils import dense_patch_slices

    from benchmarks.cases import PATCH

    steps = [int(voxels * (1 - overlap)) for voxels in PATCH]
    return len(dense_patch_slices(shape, PATCH, steps))


def _network(is_ours: bool) -> Any:
    import torch

    from benchmarks.cases import N_OUTPUTS, demo_network, demo_params
    from monai_tl.networks.builders import build_network
    from monai_tl.networks.device import place_network, set_up_torch

    settings = demo_params().predict
    network = build_network(demo_network(), 1, N_OUTPUTS, 0).eval()
    if is_ours:
        return place_network(network, set_up_torch(settings.n_threads))
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


def prepare_ours(path: Path) -> Turn:
    import numpy as np

    from benchmarks.cases import PATCH, demo_network, demo_params
    from monai_tl.networks.builders import size_rule_of
    from monai_tl.networks.windows import predict_probabilities

    settings = demo_params().predict
    network, rule = _network(True), size_rule_of(demo_network())

    def turn() -> float:
        image = np.load(path, mmap_mode="r")
        started = time.perf_counter()
        found = predict_probabilities(
            [network], image, PATCH, rule, settings.overlap, settings.blending, settings.batch_size
        )
        seconds = time.perf_counter() - started
        np.save(path.with_suffix(".ours.npy"), found)
        return seconds

    return turn


def prepare_monai(path: Path, n_at_once: int) -> Turn:
    import numpy as np
    import torch
    from monai.inferers import SlidingWindowInferer

    from benchmarks.cases import PATCH, demo_params

    settings = demo_params().predict
    network = _network(False)
    inferer = SlidingWindowInferer(PATCH, n_at_once, settings.overlap, settings.blending)

    def probabilities(windows: Any) -> Any:
        return torch.softmax(network(windows), dim=1)

    with torch.no_grad():
        same = inferer(torch.from_numpy(np.load(path))[None], probabilities)[0].numpy()
    np.save(path.with_suffix(".monai.npy"), same)

    def turn() -> float:
        image = np.load(path, mmap_mode="r")
        started = time.perf_counter()
        with torch.no_grad():
            torch.softmax(inferer(torch.from_numpy(np.array(image))[None], network), dim=1)[0].numpy()
        return time.perf_counter() - started

    return turn
