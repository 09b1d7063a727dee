"""The engine on a GPU: samples a second, the share of the bare rate, kept features, and the time to a Dice of 0.88."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.common import SHARED
from benchmarks.engine import PACKAGES, make_task, run_features, run_presets, run_samples
from benchmarks.time_to_dice import measure

__all__ = ["PACKAGES", "TITLE", "run"]
TITLE = "The engine on a GPU: training against nnU-Net and MONAI"
DICE = 0.88


def run(quick: bool) -> list[str]:
    """The engine's parts but preparing, which no GPU does; a quick run may be without one."""
    import torch

    if not (quick or torch.cuda.is_available()):
        sys.exit(
            "torch sees no GPU here, so there is nothing to measure; the CPU's table is python -m benchmarks engine"
        )
    if not (SHARED / "data" / "hippocampus").is_dir():
        sys.exit(f"needs the hippocampus images, which are not under {SHARED} (MONAI_TL_SHARED)")
    blocks: list[str] = []
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        root = Path(name)
        task = make_task(root, quick)
        for part in (run_samples, run_presets, run_features):
            blocks += part(root, task, quick)
        reached = measure(task, DICE, *((2, 1) if quick else ()))
    return [
        *blocks,
        f"### Time to a mean Dice of {DICE:g}",
        "From scratch, the same network, preset and batch; the last 40 cases are held out and scored whole, which is "
        f"no part of the time. {reached}.",
    ]
