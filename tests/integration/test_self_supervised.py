"""From weights that were learned without labels to a trained network and its twin, through the stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ingested import write_cases
from loading import shaken
from safetensors.torch import load_file, save_file

from monai_tl.config import NetworkConfig, Params
from monai_tl.files import sha256_file
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import assign_groups, named_tensors
from monai_tl.records import Audit, Plan
from monai_tl.sources.card import read_source
from monai_tl.stages import finetune, plan, preprocess, split

ENCODER = ("down0", "down1", "bottom")
CARD = """
name: pretext
network: {name: unet, arguments: {channels: [4, 8, 8], strides: [2, 2]}, n_channels: 1, n_outputs: 1}
weights: {file: weights.safetensors, sha256: SHA256}
licence: CC0-1.0
citation: nobody
input:
  modality: CT
  channels: [CT]
  orientation: RAS
  spacing_mm: [6, 6, 6]
  intensity: {rule: window, low: -200, high: 300}
output: features
covers: [down0, down1, bottom]
"""
"""As docs/sources.md has it: no classes; outputs of the pretext task, or any number; what the weights hold."""


NETWORK = NetworkConfig(name="unet", arguments={"channels": [4, 8, 8], "strides": [2, 2]})


def _write_encoder(folder: Path) -> dict[str, torch.Tensor]:
    """A source of the encoder alone; gives its tensors."""
    module = shaken(build_network(NETWORK, 1, 1, seed=5))
    assigned = assign_groups(module, groups_of(NETWORK, module))
    tensors = {name: tensor for name, tensor in named_tensors(module).items() if assigned[name] in ENCODER}
    folder.mkdir()
    save_file(tensors, folder / "weights.safetensors")
    (folder / "card.yaml").write_text(CARD.replace("SHA256", sha256_file(folder / "weights.safetensors")))
    return tensors


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    write_cases(tmp_path, 6)
    return tmp_path


def test_a_features_source_is_planned_and_tuned_beside_its_twin(workspace: Path) -> None:
    learned = _write_encoder(workspace / "ssl")
    assert read_source(workspace / "ssl").kind == "self-supervised"
    params = Params.model_validate({
        "ingest": {"source": "data", "classes": [{"name": "liver"}, {"name": "tumour"}]},
        "split": {"n_folds": 2, "test_fraction": 0.3},
        "plan": {"source": "ssl", "patch_size_vox": [16, 16, 8]},
        "finetune": {
            "arms": ["transfer", "scratch"], "strategy": "layer_retraining", "n_groups": 2, "min_transferred": 0.9,
            "max_steps": 4, "head_steps": 2, "validate_every": 2, "n_threads": 1, "augmentation": "none",
        },
    })  # fmt: skip
    for stage in (split, plan, preprocess):
        stage.run(workspace, params)
    for arm in ("transfer", "scratch"):
        finetune.run(workspace, params, arm, "0", "0")

    # the plan: the source's own preprocessing, a head for the target's classes, and no trial of classes it has not
    made = Plan.read(workspace / "artifacts/plan/plan.json")
    lines = {line.item: line for line in made.adaptations}
    assert (lines["classes"].source, lines["classes"].status) == ("none", "adapted")
    assert not any(line.status == "broken" for line in made.adaptations)
    assert "the source was trained for no classes" in lines["orientation"].reason
    assert (made.spacing_mm, made.network, made.scheme.names) == ((6.0, 6.0, 6.0), NETWORK, ("liver", "tumour"))

    # the transfer arm: the encoder is the source's to the bit, for it was frozen; all the rest was made anew
    tuned, twin = (workspace / f"artifacts/models/{arm}-0-0" for arm in ("transfer", "scratch"))
    audit = Audit.read(tuned / "audit.json")
    assert {name: share for name, share in audit.groups.items() if share} == dict.fromkeys(ENCODER, 1.0)
    weights, others = load_file(tuned / "weights.safetensors"), load_file(twin / "weights.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in learned.items())
    card = read_source(tuned).card
    assert (card.classes, card.output, card.network.n_outputs) == (("liver", "tumour"), "softmax", 3)

    # its twin: nothing of the source, the same network, cases, budget and seed
    assert Audit.read(twin / "audit.json").share_all == 0.0
    assert not any(torch.equal(others[name], tensor) for name, tensor in learned.items() if tensor.is_floating_point())
    facts = [json.loads((folder / "training.json").read_text()) for folder in (tuned, twin)]
    assert [one["strategy"] for one in facts] == ["layer_retraining", "scratch"]
    for key in ("n_steps", "fold", "seed", "n_train_cases", "n_val_cases", "n_parameters"):
        assert facts[0][key] == facts[1][key]
