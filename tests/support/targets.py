"""A target's fingerprint and a source's card, to be held against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_tl.config import IntensityConfig, NetworkConfig
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.records import Adaptation, Fingerprint, Plan, SizeRule
from monai_tl.sources.card import Card, CardInput, CardNetwork, CardWeights, Source

SCHEME = LabelScheme(classes=(ClassSpec(name="liver"), ClassSpec(name="tumour")))
UNET = NetworkConfig(name="unet", arguments={"channels": [4, 8, 16], "strides": [2, 2]})
WINDOW = IntensityConfig(rule="window", low=-150.0, high=250.0)


def make_fingerprint(**changes: Any) -> Fingerprint:
    values = {
        "n_cases": 9,
        "modality": "CT",
        "n_channels": 1,
        "spacing_mm_median": (2.0, 2.0, 5.0),
        "spacing_mm_min": (1.5, 1.5, 3.0),
        "spacing_mm_max": (2.5, 2.5, 6.0),
        "shape_median": (160, 160, 40),
        "extent_mm_median": (300.0, 200.0, 200.0),
        "foreground_share": 0.6,
        "intensity": {"mean": 60.0, "std": 30.0, "p00_5": -20.4, "p99_5": 140.2, "min": -90.0, "max": 210.0},
        "class_volumes_ml": {"liver": 1400.0, "tumour": 20.0},
        "class_present": {"liver": 9, "tumour": 7},
    }
    return Fingerprint.model_validate({**values, **changes})


def make_source(
    *, classes: tuple[str, ...] = ("spleen", "liver"), output: str = "softmax", fingerprint: Any = None, **changes: Any
) -> Source:
    contract = {
        "modality": "CT",
        "channels": ("CT",),
        "orientation": "RAS",
        "spacing_mm": (5.0, 5.0, 5.0),
        "intensity": WINDOW,
        "size_rule": SizeRule(divisor=4, min_vox=(8, 8, 8)),
        **changes,
    }
    n_outputs = len(classes) + (output == "softmax")
    network = {"name": "unet", "arguments": UNET.arguments, "n_channels": len(contract["channels"])}
    card = Card(
        name="organs",
        network=CardNetwork.model_validate({**network, "n_outputs": n_outputs}),
        weights=CardWeights(file="weights.safetensors", sha256="a" * 64),
        licence="Apache-2.0",
        citation="none",
        input=CardInput.model_validate(contract),
        classes=classes,
        output=output,  # type: ignore[arg-type]
        fingerprint=fingerprint,
    )
    return Source(card, Path("sources/organs"))


def lines_of(plan: Plan) -> dict[str, Adaptation]:
    return {line.item: line for line in plan.adaptations}
