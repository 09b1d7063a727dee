"""The example plug-in: a network of a package of its own, from source folder to bundle."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import SourceError
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.builders import build_network, groups_of, register_network, size_rule_of
from monai_tl.networks.groups import assign_groups, named_tensors
from monai_tl.records import Plan
from monai_tl.sources.audit import load_source
from monai_tl.sources.bundle import write_bundle
from monai_tl.sources.card import Card, read_source, write_source

EXAMPLE = Path(__file__).parents[2] / "examples" / "hippodeep"
sys.path.insert(0, str(EXAMPLE))

import monai_tl_hippodeep  # noqa: E402

CONFIG = NetworkConfig(name="hippodeep")
SHAPE = (48, 72, 64)


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_network("hippodeep", monai_tl_hippodeep.SPEC)


def _card() -> Card:
    """The example's card, read as a user reads it."""
    folder = EXAMPLE
    with pytest.raises(SourceError, match=r"weights\.safetensors is not beside the card"):
        read_source(folder)
    from monai_tl.config import parse_yaml

    return Card.model_validate(parse_yaml((folder / "card.yaml").read_text(), "card.yaml"))


def test_output_has_the_size_of_the_input() -> None:
    module = build_network(CONFIG, 1, 3, seed=0).eval()
    with torch.inference_mode():
        assert module(torch.zeros(1, 1, 8, 12, 16)).shape == (1, 3, 8, 12, 16)


def test_it_has_the_parameters_that_the_paper_counts() -> None:
    module = build_network(CONFIG, 1, 1, seed=0)
    assert round(sum(parameter.numel() for parameter in module.parameters()), -3) == 499_000


def test_padding_inside_is_padding_outside() -> None:
    """As published, the caller pads by edge values and unpadded convolutions take two voxels off each side."""
    module = build_network(CONFIG, 1, 1, seed=0).eval()
    image = torch.randn(1, 1, 12, 12, 12)

    class Published(monai_tl_hippodeep.HippoDeep):
        def forward(self, padded: torch.Tensor) -> torch.Tensor:
            inner = padded[..., 2:-2, 2:-2, 2:-2]
            assert torch.equal(nn.functional.pad(inner, (2,) * 6, mode="replicate"), padded)
            features = padded
            for layer in (self.conv0a_0, self.conv0a_1, self.conv0a, self.convf1):
                features = torch.relu(layer(features))
            return features

    published = Published()
    published.load_state_dict(module.state_dict())
    features: list[torch.Tensor] = []
    module.convf1.register_forward_hook(lambda *arguments: features.append(torch.relu(arguments[2])))
    with torch.inference_mode():
        module(image)
        expected = published(nn.functional.pad(image, (2,) * 6, mode="replicate"))
    assert torch.equal(features[0], expected)
    assert features[0].shape[2:] == image.shape[2:]


def test_groups_and_sizes_are_those_of_the_card() -> None:
    module = build_network(CONFIG, 1, 3, seed=0)
    groups = groups_of(CONFIG, module)
    assert [group.name for group in groups] == ["stem", "down1", "down2", "up", "refine", "head"]
    assert assign_groups(module, groups)["bn2.running_var"] == "down2"
    # the architecture takes less than the published weights were trained on
    assert size_rule_of(CONFIG).divisor == _card().input.size_rule.divisor
    smallest = torch.zeros(2, 1, *size_rule_of(CONFIG).min_vox)
    assert module.train()(smallest).shape == (2, 3, *smallest.shape[2:])


def test_a_new_head_on_its_weights(tmp_path: Path) -> None:
    """The published head is a sigmoid of one class; a softmax head for other classes starts fresh on the whole body."""
    weights = named_tensors(build_network(CONFIG, 1, 1, seed=1))
    source = write_source(tmp_path, _card(), weights)
    module = build_network(CONFIG, 1, 3, seed=0)
    audit = load_source(module, CONFIG, 1, ["anterior", "posterior"], source, 0.5)
    assert audit.share_body == 1.0
    fresh = [item.name for item in audit.tensors if item.status == "fresh"]
    assert fresh == ["convout1x.weight", "convout1x.bias"]


def test_the_side_path_changes_nothing_until_it_is_trained(tmp_path: Path) -> None:
    weights = named_tensors(build_network(CONFIG, 1, 1, seed=1))
    source = write_source(tmp_path, _card(), weights)
    with_path = NetworkConfig(name="hippodeep", arguments={"side_path": True})
    image = torch.randn(1, 1, 12, 16, 8)
    logits = []
    for config in (CONFIG, with_path):
        module = build_network(config, 1, 2, seed=0).eval()
        audit = load_source(module, config, 1, ["hippocampus"], source, 0.5)
        logits.append(module(image))
    assert torch.equal(*logits)
    assert [item.name for item in audit.tensors if item.status == "fresh"] == ["convside.weight"]
    assert assign_groups(module, groups_of(with_path, module))["convside.weight"] == "side"
    # it takes part: with its own weights the gradient reaches it, and its weights the output
    logits[1].sum().backward()
    assert float(module.convside.weight.grad.abs().sum()) > 0.0  # type: ignore[union-attr, operator]
    nn.init.ones_(module.convside.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(module(image), logits[1])


def test_its_bundle_names_the_class_of_the_plug_in(tmp_path: Path) -> None:
    module = build_network(CONFIG, 1, 3, seed=1).eval()
    card = _card()
    target = card.model_copy(
        update={
            "network": card.network.model_copy(update={"n_outputs": 3}),
            "classes": ("anterior", "posterior"),
            "output": "softmax",
        }
    )
    write_source(tmp_path / "model", target, named_tensors(module))
    Plan(
        modality="MR",
        n_channels=1,
        scheme=LabelScheme(classes=(ClassSpec(name="anterior"), ClassSpec(name="posterior"))),
        spacing_mm=(1.0, 1.0, 1.0),
        intensity=card.input.intensity,
        size_rule=card.input.size_rule,
        patch_size_vox=SHAPE,
        network=CONFIG,
        source="sources/hippodeep",
    ).write(tmp_path / "model" / "plan.json")
    write_bundle(tmp_path / "model", tmp_path / "bundle")
    config = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    assert config["network_def"]["_target_"] == "monai_tl_hippodeep.network.HippoDeep"
    assert config["inferer"]["padding_mode"] == "replicate"
    assert "`monai_tl_hippodeep`, which must be installed" in (tmp_path / "bundle" / "docs" / "README.md").read_text()
    import monai.bundle

    theirs = monai.bundle.load("bundle", bundle_dir=tmp_path, workflow_type="inference", source="github", device="cpu")
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(theirs.eval()(image), module(image))
    shutil.rmtree(tmp_path / "bundle")
