"""The plug-in whose weights want a whole head: its network, its card, and the plan that crops get."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from targets import SCHEME, lines_of, make_fingerprint
from torch import nn

from monai_tl.config import NetworkConfig, PlanConfig, parse_yaml
from monai_tl.errors import ConfigError, ContractError
from monai_tl.networks.builders import build_network, groups_of, register_network, size_rule_of
from monai_tl.networks.groups import assign_groups, named_tensors
from monai_tl.sources.audit import load_source, load_trained
from monai_tl.sources.card import Card, Source, read_source, write_source
from monai_tl.transfer.planning import make_plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "meshnet"
sys.path.insert(0, str(EXAMPLE))

import monai_tl_meshnet  # noqa: E402

CONFIG = NetworkConfig(name="meshnet")
DILATIONS = (1, 2, 4, 8, 16, 8, 4, 2, 1)


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_network("meshnet", monai_tl_meshnet.SPEC)


@pytest.fixture
def card() -> Card:
    return Card.model_validate(parse_yaml((EXAMPLE / "card.yaml").read_text(), "card.yaml"))


def test_it_is_the_network_that_is_published() -> None:
    """Against its description: nine convolutions of 21 channels, their dilations, ELU, then one of kernel 1."""
    module = build_network(CONFIG, 1, 18, seed=0).eval()
    assert sum(parameter.numel() for parameter in module.parameters()) == 96_408
    weights = named_tensors(module)
    image = torch.randn(1, 1, 20, 18, 16)
    x = image
    for k, dilation in enumerate(DILATIONS):
        weight, bias = weights[f"{2 * k}.weight"], weights[f"{2 * k}.bias"]
        x = nn.functional.elu(nn.functional.conv3d(x, weight, bias, padding=dilation, dilation=dilation))
    expected = nn.functional.conv3d(x, weights["18.weight"], weights["18.bias"])
    with torch.inference_mode():
        found = module(image)
    assert found.shape == (1, 18, 20, 18, 16)
    assert torch.allclose(found, expected, atol=1e-6)


def test_groups_cover_it_and_any_size_will_do() -> None:
    module = build_network(CONFIG, 1, 3, seed=0)
    groups = groups_of(CONFIG, module)
    assert [group.name for group in groups] == [*(f"dilated{k}" for k in range(1, 10)), "head"]
    assert set(assign_groups(module, groups)) == set(named_tensors(module))
    assert module(torch.zeros(1, 1, *size_rule_of(CONFIG).min_vox)).shape == (1, 3, 1, 1, 1)
    short = NetworkConfig(name="meshnet", arguments={"dilations": [1, 2], "n_features": 5})
    small = build_network(short, 2, 4, seed=0)
    assert [group.name for group in groups_of(short, small)] == ["dilated1", "dilated2", "head"]
    with pytest.raises(ConfigError, match="arguments"):
        build_network(NetworkConfig(name="meshnet", arguments={"dilations": []}), 1, 2, seed=0)


def test_a_source_of_its_form_loads_whole_and_reuses_the_row_of_a_shared_class(tmp_path: Path, card: Card) -> None:
    state = named_tensors(build_network(CONFIG, 1, 18, seed=1))
    source = write_source(tmp_path, card, state)
    module, _ = load_trained(tmp_path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in named_tensors(module).items())
    tuned = build_network(CONFIG, 1, 3, seed=0)
    audit = load_source(tuned, CONFIG, 1, ["hippocampus", "other"], source, 0.5)
    assert audit.share_body == 1.0
    assert torch.equal(tuned.get_parameter("18.weight")[1], state["18.weight"][1 + card.classes.index("Hippocampus")])
    assert read_source(tmp_path).card.output == "softmax"


def test_crops_are_refused_before_training_and_a_whole_head_is_not(card: Card) -> None:
    source = Source(card, EXAMPLE)
    crops = make_fingerprint(
        modality="MR", spacing_mm_median=(1, 1, 1), spacing_mm_min=(1, 1, 1), spacing_mm_max=(1, 1, 1),
        shape_median=(35, 50, 36), extent_mm_median=(35, 50, 36), foreground_share=1.0,
    )  # fmt: skip
    config = PlanConfig(source="sources/meshnet18")
    with pytest.raises(ContractError, match=r"field of view: the source looks at 256 voxels along axis L.* 35 \(14%"):
        make_plan(crops, SCHEME, config, source)
    accepted = config.model_copy(update={"accept_broken": ("field of view",)})
    plan = make_plan(crops, SCHEME, accepted, source)
    # the axes lie as L, I, A: the case's own size, not 256 x 256 x 256
    assert (plan.orientation, plan.patch_size_vox, plan.size_rule.min_vox) == ("LIA", (35, 36, 50), (1, 1, 1))
    assert plan.intensity.rule == "minmax"
    lines = lines_of(plan)
    assert {item for item, line in lines.items() if line.accepted} == {"field of view"}
    assert lines["orientation"].status == "adapted"
    # the minimum and maximum of a crop are not those of a head
    assert lines["intensity"].status == "adapted"
    assert "only 14% of the source's field of view" in lines["intensity"].reason
    # a patch of one's own is taken as it is
    own = accepted.model_copy(update={"patch_size_vox": (16, 24, 32)})
    assert make_plan(crops, SCHEME, own, source).patch_size_vox == (16, 24, 32)
    head = crops.model_copy(update={"shape_median": (256, 256, 256), "extent_mm_median": (256.0, 256.0, 256.0)})
    whole = make_plan(head, SCHEME, config, source)
    assert whole.patch_size_vox == (256, 256, 256)
    assert lines_of(whole)["field of view"].status == "equal"
