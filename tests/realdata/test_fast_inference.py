"""Fast mode against exact on real images: the published hippodeep network on real hippocampi."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_tl.config import NetworkConfig, PredictConfig, PreprocessConfig
from monai_tl.dataset.transforms import prepare_image
from monai_tl.inference import Predictor
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.builders import register_network
from monai_tl.records import Plan
from monai_tl.sources.audit import load_trained

pytestmark = pytest.mark.realdata

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "hippodeep"
SHARED = Path(os.environ.get("MONAI_TL_SHARED", ROOT.parent / "shared"))
N_CASES = 20
GAP = 8

sys.path.insert(0, str(EXAMPLE))


class _TwoOutputs(nn.Module):
    """The published network's one sigmoid as the softmax of two outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(image)
        return torch.cat([torch.zeros_like(logits), logits], dim=1)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    from monai_tl_hippodeep import SPEC

    folder = tmp_path_factory.mktemp("source")
    weights = SHARED / "weights" / "hippodeep" / "weights.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is absent; set MONAI_TL_SHARED")
    shutil.copy(EXAMPLE / "card.yaml", folder)
    shutil.copy(weights, folder)
    register_network("hippodeep", SPEC)
    network, source = load_trained(folder)
    rule = source.card.input
    plan = Plan(
        modality="MR",
        n_channels=1,
        scheme=LabelScheme(classes=(ClassSpec(name="hippocampus"),)),
        spacing_mm=(1.0, 1.0, 1.0),
        intensity=rule.intensity,
        size_rule=rule.size_rule,
        patch_size_vox=rule.size_rule.min_vox,
        network=NetworkConfig(name="hippodeep"),
        source=None,
    )
    return Predictor((_TwoOutputs(network).eval(),), plan)


def _dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    return float(2 * np.sum((prediction > 0) & (reference > 0)) / ((prediction > 0).sum() + (reference > 0).sum()))


def _load(path: Path, predictor: Predictor) -> tuple[np.ndarray, object, np.ndarray]:
    image = nib.load(path)
    prepared, record = prepare_image(np.asarray(image.dataobj), image.affine, predictor.plan, PreprocessConfig())
    return prepared, record, np.asarray(nib.load(path.parents[1] / "labels" / path.name).dataobj)


def _paths() -> list[Path]:
    paths = sorted((SHARED / "data" / "hippocampus" / "images").glob("*.nii.gz"))[:N_CASES]
    assert len(paths) == N_CASES
    return paths


def test_mean_dice_of_fast_is_exact_s_within_a_thousandth(predictor: Predictor) -> None:
    scores: dict[str, list[float]] = {"exact": [], "fast": []}
    for path in _paths():
        prepared, record, reference = _load(path, predictor)
        for mode, found in scores.items():
            label = predictor.predict_label(prepared, record, PredictConfig(mode=mode))  # type: ignore[arg-type]
            found.append(_dice(label, reference))
    # published with the weights: mean 0.837
    assert np.mean(scores["exact"]) == pytest.approx(0.837, abs=0.01)
    assert abs(np.mean(scores["fast"]) - np.mean(scores["exact"])) < 0.001


def test_on_an_image_of_many_windows_as_well(predictor: Predictor) -> None:
    """Eight real crops side by side: many windows in exact mode, one in fast, for a network of neighbourhoods.

    What exact loses here it loses at the borders of its windows, where the network sees less: the one pass of fast has
    none, and may be better, but not worse.
    """
    cases = [_load(path, predictor) for path in _paths()[:8]]
    block = np.max([image.shape[1:] for image, *_ in cases], axis=0) + GAP
    mosaic = np.zeros((1, *(2 * block)), dtype=np.float32)
    reference = np.zeros(mosaic.shape[1:], dtype=np.uint8)
    for number, (image, _, label) in enumerate(cases):
        wanted = [(GAP // 2, size - own - GAP // 2) for own, size in zip(image.shape[1:], block, strict=True)]
        place = tuple(
            slice(bit * size, (bit + 1) * size)
            for bit, size in zip(np.unravel_index(number, (2, 2, 2)), block, strict=True)
        )
        mosaic[0][place] = np.pad(image[0], wanted, mode="edge")
        reference[place] = np.pad(label, wanted)
    shape = tuple(int(size) for size in mosaic.shape[1:])
    exact, fast = PredictConfig(), PredictConfig(mode="fast")
    assert predictor.tiling(shape, exact).n_windows >= 8  # type: ignore[arg-type]
    assert predictor.tiling(shape, fast).n_windows == 1  # type: ignore[arg-type]
    found = {}
    for name, config in (("exact", exact), ("fast", fast)):
        slabs = [(slab.axis, slab.values.argmax(axis=0)) for slab in predictor.stream(mosaic, config)]
        found[name] = _dice(np.concatenate([label for _, label in slabs], axis=slabs[0][0]), reference)
    assert found["exact"] > 0.8
    assert found["fast"] > found["exact"] - 0.001
