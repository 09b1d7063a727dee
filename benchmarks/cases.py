"""Inputs: the demo's network, patch and settings; phantoms as its preprocess stage leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.common import ROOT
from monai_tl.config import NetworkConfig, Params, load_params

PATCH = (72, 56, 40)
"""What the plan stage chooses for the demo."""
SPACING_MM = (5.0, 5.0, 5.0)
N_OUTPUTS = 3


def demo_params() -> Params:
    return load_params(ROOT)


def demo_network() -> NetworkConfig:
    card = yaml.safe_load((ROOT / "sources/abdomen_a/card.yaml").read_text())
    return NetworkConfig(name=card["network"]["name"], arguments=card["network"]["arguments"])


def make_array(number: int, shape: tuple[int, int, int] = (72, 60, 36), spacing: float = 5.0) -> tuple[Any, Any]:
    """Image (1, I, J, K) float32 from 0 to 1 and label (I, J, K) uint8: liver 1, tumour 2."""
    from monai_tl.dataset.anatomy import IntegerDraws, build_anatomy
    from monai_tl.dataset.phantom import Scan, render

    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    scan = Scan(shape[1], shape[0], shape[2], affine, "sharp", 16, 14)
    anatomy = build_anatomy(IntegerDraws(0, 2, 1, number), 1)
    values, masks = render(anatomy, scan, IntegerDraws(0, 2, 3, number), ("liver", "tumour"))
    image = np.clip((values.astype(np.float32) + 160.0) / 420.0, 0.0, 1.0).transpose(2, 1, 0)
    label = np.maximum(masks["liver"].astype(np.uint8), 2 * masks["tumour"].astype(np.uint8)).transpose(2, 1, 0)
    return np.ascontiguousarray(image[None]), np.ascontiguousarray(label)


def write_cases(folder: Path, n_cases: int) -> list[Path]:
    """Folders as under artifacts/prepared."""
    found = []
    for number in range(n_cases):
        image, label = make_array(number)
        case = folder / f"case-{number:012x}"
        case.mkdir(parents=True)
        np.save(case / "image.npy", image)
        np.save(case / "label.npy", label)
        found.append(case)
    return found
