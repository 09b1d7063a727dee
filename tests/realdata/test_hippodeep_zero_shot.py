"""The published hippodeep weights through this project's card, loading and intensity rule, on real hippocampi."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_tl.dataset.intensity import clip_limits, scale_intensity
from monai_tl.networks.builders import register_network
from monai_tl.networks.windows import network_size
from monai_tl.sources.audit import load_trained

pytestmark = pytest.mark.realdata

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "hippodeep"
SHARED = Path(os.environ.get("MONAI_TL_SHARED", ROOT.parent / "shared"))
N_CASES = 20
THRESHOLD = 0.5

sys.path.insert(0, str(EXAMPLE))


@pytest.fixture
def source_folder(tmp_path: Path) -> Path:
    weights = SHARED / "weights" / "hippodeep" / "weights.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is absent; set MONAI_TL_SHARED")
    shutil.copy(EXAMPLE / "card.yaml", tmp_path)
    shutil.copy(weights, tmp_path)
    return tmp_path


def test_zero_shot_dice_is_that_of_the_weights_description(source_folder: Path) -> None:
    from monai_tl_hippodeep import SPEC

    register_network("hippodeep", SPEC)
    network, source = load_trained(source_folder)
    rule = source.card.input
    paths = sorted((SHARED / "data" / "hippocampus" / "images").glob("*.nii.gz"))[:N_CASES]
    assert len(paths) == N_CASES
    scores = []
    for path in paths:
        stored = np.asarray(nib.load(path).dataobj)
        reference = np.asarray(nib.load(path.parents[1] / "labels" / path.name).dataobj) > 0
        limits = clip_limits(stored, rule.intensity)
        assert limits is not None
        image = scale_intensity(np.clip(stored.astype(np.float32), *limits), rule.intensity)
        wanted = network_size(image.shape, rule.size_rule)
        before = [(size - own) // 2 for size, own in zip(wanted, image.shape, strict=True)]
        padding = [(low, size - own - low) for low, size, own in zip(before, wanted, image.shape, strict=True)]
        with torch.inference_mode():
            logits = network(torch.from_numpy(np.pad(image, padding, mode="edge"))[None, None])
        inside = tuple(slice(low, low + own) for low, own in zip(before, image.shape, strict=True))
        prediction = torch.sigmoid(logits)[0, 0].numpy()[inside] > THRESHOLD
        scores.append(2 * np.sum(prediction & reference) / (prediction.sum() + reference.sum()))
    # published with the weights: mean 0.837, smallest 0.786
    assert np.mean(scores) == pytest.approx(0.837, abs=0.01)
    assert min(scores) > 0.77
