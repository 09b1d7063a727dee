"""The scores of one source: voxels sampled from prepared cases, and what its network says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.errors import DataError
from monai_tl.files import sha256_of
from monai_tl.networks.builders import groups_of
from monai_tl.networks.features import HEAD_INPUT, decoder_layers, sample_features
from monai_tl.records import Plan
from monai_tl.transfer.rank import CCFV, GBC, LOGME
from monai_tl.transfer.transferability import (
    CaseFeatures,
    class_consistency_feature_variety,
    gaussian_bhattacharyya,
    log_maximum_evidence,
)

VOXELS_A_CLASS = 100
"""Sampled from each case, and as many from the whole image."""


def case_features(network: Any, plan: Plan, folder: Path, case_id: str, seed: int) -> dict[str, CaseFeatures]:
    """Features of one prepared case at sampled voxels, in the decoder's layers.

    Args:
        network: A torch module in eval mode, with the source's weights.
        plan: Under which the case was prepared.
        folder: With image.npy and label.npy.
        case_id: Its voxels depend on this and the seed alone.
        seed: Of the draw.
    """
    image = np.load(folder / "image.npy", mmap_mode="r", allow_pickle=False)
    label = np.load(folder / "label.npy", mmap_mode="r", allow_pickle=False)
    generator = np.random.default_rng(int(sha256_of("rank", str(seed), case_id)[:16], 16))
    by_class = sample_by_class(np.asarray(label), generator)
    anywhere = generator.choice(label.size, size=min(VOXELS_A_CLASS, label.size), replace=False)
    flat = np.concatenate([*by_class.values(), anywhere])
    positions = np.stack(np.unravel_index(flat, label.shape), axis=1).astype(np.int64)
    groups = groups_of(plan.network, network)
    found = sample_features(network, groups, image, positions, plan.patch_size_vox, plan.size_rule)
    ends = np.cumsum([len(rows) for rows in by_class.values()])
    layers = {}
    for layer in decoder_layers(found.n_voxels):
        parts = np.split(found.values[layer].astype(np.float64), ends)
        layers[layer] = CaseFeatures(dict(zip(by_class, parts[:-1], strict=True)), parts[-1])
    return layers


def sample_by_class(label: NDArray[Any], generator: np.random.Generator) -> dict[int, NDArray[np.int64]]:
    """Flat indices of at most VOXELS_A_CLASS voxels of each class present, the background among them.

    Args:
        label: (I, J, K).
        generator: Source of the draws.
    """
    flat = np.ravel(label)
    found = {}
    for value in np.unique(flat):
        inside = np.flatnonzero(flat == value)
        found[int(value)] = generator.choice(inside, size=min(VOXELS_A_CLASS, len(inside)), replace=False)
    return found


def score_features(layers: Mapping[str, Sequence[CaseFeatures]]) -> dict[str, float | None]:
    """All scores of one source; None where one is undefined.

    Args:
        layers: Decoder layer → its features in each case, HEAD_INPUT among them.

    Raises:
        DataError: No case could be prepared.
    """
    cases = layers.get(HEAD_INPUT, ())
    if not cases:
        raise DataError("no case could be prepared under this source's contract, so there is nothing to look at")
    samples = [(value, rows) for case in cases for value, rows in sorted(case.by_class.items())]
    features = np.concatenate([rows for _, rows in samples])
    labels = np.repeat([value for value, _ in samples], [len(rows) for _, rows in samples])
    scores = {
        LOGME: log_maximum_evidence(features, labels),
        CCFV: class_consistency_feature_variety(list(layers.values())),
        GBC: gaussian_bhattacharyya(features, labels),
    }
    return {name: float(score) if math.isfinite(score) else None for name, score in scores.items()}
