"""A source is tried before training: one network that finds a corner, cards that say where its axes point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from monai_tl.config import NetworkConfig, Params, parse_params, parse_yaml
from monai_tl.dataset.nifti import write_image
from monai_tl.dataset.transforms import to_matrix
from monai_tl.errors import ContractError
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks import builders
from monai_tl.networks.builders import build_network, register_network
from monai_tl.networks.groups import LayerGroup, named_tensors
from monai_tl.networks.spec import NetworkSpec
from monai_tl.records import Adaptation, CaseRecord, Dataset, Fold, Plan, Provenance, SizeRule, Split
from monai_tl.sources.card import Card, write_source
from monai_tl.stages import plan as plan_stage
from monai_tl.stages import trying

SIDE, DEPTH = 28, 5
SCHEME = LabelScheme(classes=(ClassSpec(name="corner"),))


class CornerNetwork(nn.Module):
    """Answers where the image is bright and, five voxels further along each axis, dark; a closed form."""

    def __init__(self, n_channels: int = 1, n_outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Conv3d(n_channels, 1, 1)
        self.head = nn.Conv3d(1, n_outputs, 3, padding=DEPTH, dilation=DEPTH)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.body(image))
        return found


SPEC = NetworkSpec(
    factory=CornerNetwork,
    groups=lambda _: (LayerGroup("body", ("body",)), LayerGroup("head", ("head",))),
    size_rule=lambda _: SizeRule(divisor=1, min_vox=(8, 8, 8)),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "_networks", dict(builders._networks))
    register_network("corner", SPEC)


def corner_weights() -> dict[str, torch.Tensor]:
    weights = {name: torch.zeros_like(one) for name, one in named_tensors(CornerNetwork()).items()}
    weights["body.weight"].fill_(1.0)
    kernel = weights["head.weight"][0, 0]
    kernel[1, 1, 1] = 30.0
    kernel[2, 1, 1] = kernel[1, 2, 1] = kernel[1, 1, 2] = -10.0
    weights["head.bias"].fill_(-25.0)
    return weights


def write_corner_source(folder: Path, orientation: str, classes: tuple[str, ...] = ("corner",)) -> None:
    content = {
        "name": "corner",
        "network": {"name": "corner", "n_channels": 1, "n_outputs": 1},
        "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
        "licence": "Apache-2.0",
        "citation": "none",
        "input": {
            "modality": "CT",
            "channels": ["CT"],
            "orientation": orientation,
            "spacing_mm": [2.0, 2.0, 2.0],
            "intensity": {"rule": "window", "low": 0.0, "high": 100.0},
            "size_rule": {"divisor": 1, "min_vox": [8, 8, 8]},
        },
        "classes": list(classes),
        "output": "sigmoid",
    }
    write_source(folder, Card.model_validate(content), corner_weights())


def write_workspace(workspace: Path, n_cases: int = 6) -> None:
    """Boxes of about 100 in air of 0; the label is the corner towards R, A and S."""
    ids = []
    for number in range(n_cases):
        image = np.zeros((SIDE, SIDE + 2, SIDE + 4), dtype=np.int16)
        label = np.zeros(image.shape, dtype=np.uint8)
        low, high = 4 + number % 3, 20 + number % 4
        image[low:high, low:high, low:high] = np.random.default_rng(number).integers(96, 101, (high - low,) * 3)
        label[high - DEPTH : high, high - DEPTH : high, high - DEPTH : high] = 1
        case_id = f"case-{number:012x}"
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        folder = workspace / "artifacts/cases" / case_id
        write_image(folder / "image.nii.gz", image, affine)
        write_image(folder / "label.nii.gz", label, affine)
        CaseRecord(
            case_id=case_id, patient_key=f"patient-{number}", site="site", modality="CT", has_label=True,
            spacing_mm=(2.0, 2.0, 2.0), spatial_shape=image.shape, affine=to_matrix(affine),
            class_voxels={"corner": int(label.sum())},
            provenance=Provenance(kind="nifti", study="", series="", input_sha256="", image_sha256=f"{number:064x}"),
        ).write(folder / "case.json")  # fmt: skip
        ids.append(case_id)
    dataset = Dataset(modality="CT", n_channels=1, scheme=SCHEME, key_id="0" * 8, case_ids=tuple(ids))
    dataset.write(workspace / "artifacts/cases/dataset.json")
    Split(test=(), folds=(Fold(train=tuple(ids[1:]), val=(ids[0],)),)).write(workspace / "artifacts/split/split.json")


def params(**plan: object) -> Params:
    return parse_params(
        {
            "ingest": {"source": "data", "classes": [{"name": "corner"}]},
            "plan": {"source": "source", **plan},
            "finetune": {"arms": ["transfer"]},
        }
    )


def orientation_line(workspace: Path, **plan: object) -> Adaptation:
    plan_stage.run(workspace, params(**plan))
    made = Plan.read(workspace / "artifacts/plan/plan.json")
    return next(line for line in made.adaptations if line.item == "orientation")


def test_the_network_finds_the_corner_and_only_that_one() -> None:
    network = build_network(NetworkConfig(name="corner"), 1, 1, 0)
    network.load_state_dict(corner_weights())
    image = torch.zeros(1, 1, 20, 20, 20)
    image[0, 0, 4:14, 4:14, 4:14] = 1.0
    found = (network(image)[0, 0] > 0).nonzero()
    assert found.min().item() == 9
    assert found.max().item() == 13
    assert len(found) == DEPTH**3


@pytest.mark.parametrize(
    ("letters", "exchanged", "right"),
    [("LAS", "left and right", "RAS"), ("RPS", "front and back", "RAS"), ("AIR", "top and bottom", "ASR")],
)
def test_a_wrong_letter_is_found_before_training_and_named(
    tmp_path: Path, letters: str, exchanged: str, right: str
) -> None:
    write_workspace(tmp_path)
    write_corner_source(tmp_path / "source", letters)
    with pytest.raises(ContractError) as refused:
        plan_stage.run(tmp_path, params())
    text = str(refused.value)
    assert f"{letters} seems wrong" in text
    assert f"where {exchanged} are exchanged" in text
    assert f"input.orientation: {right}" in text
    assert not (tmp_path / "artifacts/plan/plan.json").exists()
    line = orientation_line(tmp_path, accept_broken=["orientation"])
    assert (line.status, line.accepted) == ("broken", True)
    # one who trusts the card takes its word
    assert orientation_line(tmp_path, orientation_trial=0).status == "adapted"


@pytest.mark.parametrize("classes", [("corner",), ("another name",)])
def test_a_true_card_is_said_to_be_true(tmp_path: Path, classes: tuple[str, ...]) -> None:
    write_workspace(tmp_path)
    write_corner_source(tmp_path / "source", "RAS", classes)
    line = orientation_line(tmp_path)
    assert line.status == "equal"
    assert "a mean Dice of 1.00 as its card says" in line.reason
    assert "with 0.00 where" in line.reason


def test_too_few_patients_tell_nothing(tmp_path: Path) -> None:
    write_workspace(tmp_path, n_cases=3)
    write_corner_source(tmp_path / "source", "LAS")
    line = orientation_line(tmp_path)
    assert line.status == "adapted"
    assert "fewer than 4 cases, so the letters could not be checked" in line.reason


def test_a_source_that_cannot_see_what_it_needs_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a field of view of a whole head each pass may take minutes, and finds nothing in a crop."""
    write_workspace(tmp_path)
    write_corner_source(tmp_path / "source", "LAS")
    card = tmp_path / "source/card.yaml"
    content = parse_yaml(card.read_text(), "card.yaml")
    content["input"]["size_rule"] = {"divisor": 1, "min_vox": [96, 96, 96]}
    write_source(tmp_path / "source", Card.model_validate(content), corner_weights())
    monkeypatch.setattr(trying, "source_network", lambda source: pytest.fail("the source was tried"))
    line = orientation_line(tmp_path, accept_broken=["field of view"])
    assert line.status == "adapted"
    assert "the source was not tried, as field of view is broken" in line.reason


def test_where_windows_are_large_the_fewest_cases_that_can_tell_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_workspace(tmp_path)
    write_corner_source(tmp_path / "source", "RAS")
    assert "tried before training on 6 training cases" in orientation_line(tmp_path).reason
    monkeypatch.setattr(trying, "_MOST_VOXELS", 1000)
    assert "tried before training on 4 training cases" in orientation_line(tmp_path).reason


def test_weights_of_another_network_are_told_and_not_tried(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    write_corner_source(tmp_path / "source", "LAS")
    weights = corner_weights()
    del weights["head.weight"]
    card = (tmp_path / "source/card.yaml").read_text()
    write_source(tmp_path / "source", Card.model_validate(parse_yaml(card, "card.yaml")), weights)
    line = orientation_line(tmp_path)
    assert line.status == "adapted"
    assert "the letters could not be checked: " in line.reason
    assert str(tmp_path) not in line.reason


def test_the_source_is_tried_in_its_own_network_where_another_one_trains(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    write_corner_source(tmp_path / "source", "LAS")
    network = {"name": "unet", "arguments": {"channels": [4, 8, 8], "strides": [2, 2]}}
    with pytest.raises(ContractError, match="where left and right are exchanged"):
        plan_stage.run(tmp_path, params(network=network))
    line = orientation_line(tmp_path, network=network, accept_broken=["orientation"])
    assert (line.status, line.accepted) == ("broken", True)
    made = Plan.read(tmp_path / "artifacts/plan/plan.json")
    assert (made.network.name, made.size_rule.divisor) == ("unet", 4)
