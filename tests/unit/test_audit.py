"""Loading that says what came across: each trap of the field becomes an error or a named line."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.utils import copy_model_state
from safetensors.torch import save
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import SourceError, WeightsError
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import named_tensors
from monai_tl.networks.heads import output_rows
from monai_tl.records import Audit
from monai_tl.sources.accounting import describe_audit
from monai_tl.sources.audit import load_audited, load_source, load_trained
from monai_tl.sources.card import Card, Source, write_source
from monai_tl.sources.surgery import Heads
from monai_tl.sources.weights import State, load_state
from tests.support.loading import OTHER, SAME, as_state, image, load, trained, unet

UNET = NetworkConfig(
    name="unet", arguments={"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1, "norm": "batch"}
)
DYNUNET = NetworkConfig(
    name="dynunet",
    arguments={"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
)
SEGRESNET = NetworkConfig(name="segresnet", arguments={"blocks_down": [1, 1], "blocks_up": [1]})


def _load(
    state: State, config: NetworkConfig = UNET, n_channels: int = 1, heads: Heads = SAME, floor: float = 0.5
) -> tuple[nn.Module, Audit]:
    return load(state, config, n_channels, heads, floor)


@pytest.mark.parametrize("config", [UNET, DYNUNET, SEGRESNET], ids=lambda config: config.name)
def test_a_whole_load_gives_the_same_function(config: NetworkConfig) -> None:
    source = trained(config)
    module, audit = _load(as_state(source.state_dict()), config)
    assert torch.equal(module(image()), source(image()))
    assert (audit.share_body, audit.share_all) == (1.0, 1.0)
    assert {item.status for item in audit.tensors} == {"matched"}
    assert set(audit.groups.values()) == {1.0}
    assert audit.notes == ()


@pytest.mark.parametrize("wrapper", ["net", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "a.strange.wrapper."])
def test_wrapped_and_prefixed_checkpoints_load_whole(tmp_path: Path, wrapper: str, prefix: str) -> None:
    """Trap D1 and D2: MONAI's own loaders bring 0 variables here and raise nothing."""
    source = trained(UNET)
    buffer = io.BytesIO()
    torch.save({wrapper: {prefix + name: tensor for name, tensor in source.state_dict().items()}}, buffer)
    path = tmp_path / "weights.pt"
    path.write_bytes(buffer.getvalue())
    _, updated, _ = copy_model_state(build_network(UNET, 1, 2, 0), torch.load(path, weights_only=True), inplace=False)
    assert not updated, "if MONAI's loader has learnt this, the trap is gone"
    module, audit = _load(load_state(path, None))
    assert torch.equal(module(image()), source(image()))
    assert audit.share_all == 1.0
    assert wrapper in audit.notes[0]
    assert not prefix or repr(prefix) in audit.notes[1]


def test_a_prefix_that_the_network_has_and_the_source_lacks_is_put_on() -> None:
    source = trained(UNET)
    stripped = {name.removeprefix("model."): tensor for name, tensor in source.state_dict().items()}
    _, audit = _load(as_state(stripped))
    assert audit.share_all == 1.0
    assert audit.notes == ("prefix 'model.' put before the source's names",)


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_a_load_that_brings_nothing_fails(floor: float) -> None:
    """Trap D6: other places say nothing, even where the names are of another network altogether."""
    module = build_network(UNET, 1, 2, seed=0)
    before = {name: tensor.clone() for name, tensor in named_tensors(module).items()}
    foreign = as_state({f"encoder.{index}.weight": torch.ones(3, 3) for index in range(4)})
    with pytest.raises(WeightsError) as caught:
        load_audited(module, UNET, 1, SAME, foreign, floor, "abdomen")
    message = str(caught.value)
    assert "0.0% of the body's parameters came across from abdomen" in message
    assert "fresh         3456 model.1.submodule.1.submodule.conv.unit0.conv.weight: not in the source" in message
    assert "unused in the source: encoder.0.weight" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(module).items())


def test_below_the_floor_nothing_is_written() -> None:
    source = trained(UNET).state_dict()
    part = as_state(
        {name: tensor for name, tensor in source.items() if name.startswith(("model.0", "model.1.submodule.0"))}
    )
    module = build_network(UNET, 1, 2, seed=0)
    before = {name: tensor.clone() for name, tensor in named_tensors(module).items()}
    with pytest.raises(WeightsError, match=r"the floor is 50%"):
        load_audited(module, UNET, 1, SAME, part, 0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(module).items())
    _, audit = _load(part, floor=0.2)
    assert 0.2 < audit.share_body < 0.5
    assert (audit.groups["down0"], audit.groups["bottom"]) == (1.0, 0.0)


def test_only_the_head_coming_across_is_nothing() -> None:
    source = trained(UNET).state_dict()
    with pytest.raises(WeightsError):
        _load(as_state({name: tensor for name, tensor in source.items() if name.startswith("model.2")}), floor=0.0)


def test_shares_count_parameters_and_not_names() -> None:
    """One large tensor missing out of many small ones: by names nearly all, by parameters far less."""
    source = dict(trained(UNET).state_dict())
    large = "model.1.submodule.1.submodule.conv.unit0.conv.weight"
    missing = source.pop(large).numel()
    module, audit = _load(as_state(source))
    total = sum(parameter.numel() for parameter in module.parameters())
    head = sum(p.numel() for name, p in module.named_parameters() if name.startswith("model.2"))
    assert audit.share_all == pytest.approx((total - missing) / total)
    assert audit.share_body == pytest.approx((total - head - missing) / (total - head))
    (line,) = [item for item in audit.tensors if item.status == "fresh"]
    assert (line.name, line.group, line.n_parameters, line.detail) == (large, "bottom", missing, "not in the source")


def test_what_finds_no_place_is_listed() -> None:
    state = {**trained(UNET).state_dict(), "model.extra.weight": torch.ones(5)}
    _, audit = _load(as_state(state))
    (line,) = [item for item in audit.tensors if item.status == "unused"]
    assert (line.source_name, line.n_parameters, line.group) == ("model.extra.weight", 5, "")


@pytest.mark.parametrize("config", [UNET, DYNUNET, SEGRESNET], ids=lambda config: config.name)
@pytest.mark.parametrize(("n_source", "n_target"), [(1, 4), (4, 1), (2, 3), (3, 2)])
def test_other_channels_keep_the_answer_to_a_greyimage(config: NetworkConfig, n_source: int, n_target: int) -> None:
    """Trap D3: elsewhere the first convolution stays random and is not named."""
    source = trained(config, n_source)
    module, audit = _load(as_state(source.state_dict()), config, n_target)
    grey = image()
    before = source(grey.expand(1, n_source, 16, 16, 16))
    after = module(grey.expand(1, n_target, 16, 16, 16))
    assert torch.allclose(before, after, atol=1e-4)
    adapted = [item for item in audit.tensors if item.status == "adapted"]
    assert {item.detail for item in adapted} == {f"input channels {n_source} to {n_target}, sum kept"}
    assert {item.group for item in adapted} == {groups_of(config, module)[0].name}
    assert audit.share_body == 1.0


@pytest.mark.parametrize("config", [UNET, DYNUNET, SEGRESNET], ids=lambda config: config.name)
def test_a_head_of_other_classes_stays_fresh(config: NetworkConfig) -> None:
    fresh = named_tensors(build_network(config, 1, 3, seed=0))
    module, audit = _load(as_state(trained(config).state_dict()), config, heads=OTHER)
    head = {item.name for item in audit.tensors if item.group == "head"}
    assert {item.status for item in audit.tensors if item.name in head} == {"fresh"}
    assert audit.groups["head"] == 0.0
    assert audit.share_body == 1.0
    assert all(torch.equal(named_tensors(module)[name], fresh[name]) for name in head)


def test_a_head_of_other_classes_and_the_same_size_stays_fresh() -> None:
    heads = Heads(("background", "liver"), ("background", "prostate"))
    _, audit = _load(as_state(trained(UNET).state_dict()), heads=heads)
    assert audit.groups["head"] == 0.0


@pytest.mark.parametrize("config", [DYNUNET, SEGRESNET], ids=lambda config: config.name)
def test_class_rows_are_reused_by_name(config: NetworkConfig) -> None:
    """The logits of the classes that both know are the source's, wherever they now stand."""
    heads = Heads(("background", "liver", "spleen"), ("background", "tumour", "SPLEEN", "liver"))
    source = trained(config, n_outputs=3)
    module, audit = _load(as_state(source.state_dict()), config, heads=heads)
    before, after = source(image()), module(image())
    for here, there in ((0, 0), (1, 3), (2, 2)):
        assert torch.allclose(before[:, here], after[:, there], atol=1e-6)
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-3)
    assert audit.groups["head"] == pytest.approx(0.75)
    assert all("background, SPLEEN, liver" in item.detail for item in audit.tensors if item.group == "head")


def test_the_same_classes_in_another_order_are_moved() -> None:
    heads = Heads(("background", "liver", "spleen"), ("background", "spleen", "liver"))
    source = trained(SEGRESNET, n_outputs=3)
    module, audit = _load(as_state(source.state_dict()), SEGRESNET, heads=heads)
    assert torch.allclose(source(image())[:, [0, 2, 1]], module(image()), atol=1e-6)
    assert audit.share_all == 1.0


@pytest.mark.parametrize("config", [DYNUNET, SEGRESNET], ids=lambda config: config.name)
def test_softmax_over_rows_of_sigmoids_gives_their_probability(config: NetworkConfig) -> None:
    source = trained(config, n_outputs=1)
    module, audit = _load(as_state(source.state_dict()), config, heads=Heads(("liver",), ("background", "liver")))
    expected = torch.sigmoid(source(image()))[:, 0]
    assert torch.allclose(torch.softmax(module(image()), dim=1)[:, 1], expected, atol=1e-6)
    assert any("background zero" in item.detail for item in audit.tensors)


def test_another_shape_is_named_and_left_fresh() -> None:
    source = dict(trained(UNET).state_dict())
    source["model.1.submodule.0.residual.weight"] = torch.ones(8, 4, 1, 1, 1)
    _, audit = _load(as_state(source))
    (line,) = [item for item in audit.tensors if item.status == "fresh"]
    assert line.detail == "kernel 1×1×1 in the source, 3×3×3 here: not adapted"


def test_lost_running_statistics_are_refused() -> None:
    """Fresh ones, 0 and 1, would not normalise at all: a frozen body would give other features."""
    source = {name: tensor for name, tensor in trained(UNET).state_dict().items() if "running_var" not in name}
    named = r"in 6 places.*\n  model\.0\.conv\.unit0\.adn\.N: batch normalisation needs"
    with pytest.raises(WeightsError, match=named):
        _load(as_state(source), floor=0.0)


def test_half_precision_is_widened_and_said() -> None:
    source = trained(UNET)
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in source.state_dict().items()
    }
    module, audit = _load(as_state(halves))
    assert audit.tensors[0].detail == "float16 to float32"
    assert torch.allclose(module(image()), source(image()), rtol=1e-2, atol=5e-2)


def test_names_of_blocks_registered_twice_are_understood() -> None:
    """A file may hold MONAI's DynUNet under either of its two names."""
    source = trained(DYNUNET)
    names = named_tensors(source)
    second = {name: tensor for name, tensor in source.state_dict().items() if name not in names}
    second |= {name: tensor for name, tensor in names.items() if name.startswith("output_block")}
    module, audit = _load(as_state(second), DYNUNET)
    assert audit.share_all == 1.0
    assert torch.equal(module(image()), source(image()))


def test_a_network_that_copies_its_weights_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of defence: what was written is read back."""
    module = build_network(UNET, 1, 2, seed=0)
    stale = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    monkeypatch.setattr(
        module, "state_dict", lambda **options: nn.Module.state_dict(module, **options) if options else stale
    )
    with pytest.raises(WeightsError, match="does not hold what was loaded"):
        load_audited(module, UNET, 1, SAME, as_state(trained(UNET).state_dict()), 0.5)


def test_the_global_random_state_stays() -> None:
    state = as_state(trained(UNET).state_dict())
    module = build_network(UNET, 1, 3, seed=0)
    before = torch.random.get_rng_state()
    load_audited(module, UNET, 1, OTHER, state, 0.5)
    assert torch.equal(before, torch.random.get_rng_state())


def _card(**changes: Any) -> Card:
    content: dict[str, Any] = {
        "name": "abdomen",
        "network": {**UNET.model_dump(), "n_channels": 1, "n_outputs": 3},
        "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
        "licence": "CC0-1.0",
        "citation": "nobody",
        "input": {
            "modality": "CT",
            "channels": ["CT"],
            "orientation": "RAS",
            "spacing_mm": [1.0, 1.0, 1.0],
            "intensity": {"rule": "zscore"},
        },
        "classes": ["liver", "spleen"],
    }
    return Card.model_validate({**content, **changes})


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_source(tmp_path / "abdomen", _card(), named_tensors(trained(UNET, n_outputs=3)))


def test_a_source_folder_starts_a_new_task(source: Source) -> None:
    module = build_network(UNET, 2, 3, seed=0)
    audit = load_source(module, UNET, 2, ["liver", "tumour"], source, 0.5)
    assert (audit.source, audit.source_sha256) == ("abdomen", source.card.weights.sha256)
    assert audit.share_body == 1.0
    assert 0.0 < audit.groups["head"] < 1.0


def test_the_card_tells_kinds_of_normalisation_apart(tmp_path: Path) -> None:
    """Group and instance normalisation look alike on disk; the card's network says which it was."""
    trained_in = unet(norm=["group", {"num_groups": 1}])
    card = _card(network={**trained_in.model_dump(), "n_channels": 1, "n_outputs": 3})
    source = write_source(tmp_path / "grouped", card, named_tensors(trained(trained_in, n_outputs=3)))
    here = unet(norm=["instance", {"affine": True}])
    audit = load_source(build_network(here, 1, 3, seed=0), here, 1, ["liver", "tumour"], source, 0.5)
    change = "group normalisation of 1 groups to instance normalisation"
    assert any(note.startswith(f"approximate: {change} in") for note in audit.notes)
    plain = unet(norm="batch")
    with pytest.raises(WeightsError, match="batch normalisation needs running statistics"):
        load_source(build_network(plain, 1, 3, seed=0), plain, 1, ["liver", "tumour"], source, 0.5)


def test_a_card_that_covers_the_encoder(tmp_path: Path) -> None:
    card = _card(covers=["down0", "down1", "bottom"], output="features", classes=[])
    held = {
        name: tensor
        for name, tensor in named_tensors(trained(UNET, n_outputs=3)).items()
        if name in _encoder(trained(UNET).state_dict())
    }
    source = write_source(tmp_path / "encoder", card, held)
    audit = load_source(build_network(UNET, 1, 2, seed=0), UNET, 1, ["liver"], source, 1.0)
    assert (audit.share_covered, audit.covers) == (1.0, ("down0", "down1", "bottom"))
    assert audit.groups["head"] == 0.0


def test_a_finished_model_is_read_back_to_the_bit(source: Source) -> None:
    module, read = load_trained(source.folder)
    assert read == source
    assert not module.training
    assert torch.equal(module(image()), trained(UNET, n_outputs=3)(image()))


def test_a_finished_model_with_anything_missing_or_left_over_is_refused(source: Source, tmp_path: Path) -> None:
    tensors = dict(named_tensors(trained(UNET, n_outputs=3)))
    lost = tensors.pop("model.0.conv.unit0.conv.bias")
    write_source(tmp_path / "lost", _card(), tensors)
    with pytest.raises(WeightsError, match=r"fresh   model\.0\.conv\.unit0\.conv\.bias"):
        load_trained(tmp_path / "lost")
    write_source(tmp_path / "more", _card(), {**tensors, "model.0.conv.unit0.conv.bias": lost, "x": torch.ones(1)})
    with pytest.raises(WeightsError, match="unused  x"):
        load_trained(tmp_path / "more")


def test_weights_swapped_behind_the_card_are_refused(source: Source) -> None:
    source.weights_path.write_bytes(save({"a": torch.ones(1)}))
    with pytest.raises(WeightsError, match="sha256"):
        load_trained(source.folder)


def _encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in state.items() if n.startswith(("model.0", "model.1.submodule.0", "model.1.submodule.1"))}


def test_the_floor_counts_the_groups_that_the_source_covers() -> None:
    """A self-supervised encoder is whole though the decoder stays fresh, on purpose and said so."""
    source = trained(UNET)
    covers = ("down0", "down1", "bottom")
    _, audit = load(as_state(_encoder(source.state_dict())), UNET, floor=1.0, covers=covers)
    assert (audit.covers, audit.share_covered) == (covers, 1.0)
    assert audit.share_body < 1.0
    assert {audit.groups[name] for name in covers} == {1.0}
    rest = [item for item in audit.tensors if item.group not in covers]
    assert {(item.status, item.detail) for item in rest} == {
        ("fresh", "its group is not covered by the source, fresh on purpose")
    }
    with pytest.raises(WeightsError, match=r"of the parameters of down0, down1, bottom came across"):
        load(as_state({n: t for n, t in source.state_dict().items() if n.startswith("model.0")}), UNET, covers=covers)


def test_what_is_not_covered_is_not_taken_though_it_is_there() -> None:
    source = trained(UNET)
    module, audit = load(as_state(source.state_dict()), UNET, covers=("down0", "down1", "bottom"))
    fresh = build_network(UNET, 1, 2, seed=0).state_dict()
    assert torch.equal(module.state_dict()["model.2.0.conv.weight"], fresh["model.2.0.conv.weight"])
    unused = {item.name for item in audit.tensors if item.status == "unused"}
    assert unused == source.state_dict().keys() - _encoder(source.state_dict()).keys()


@pytest.mark.parametrize("covers", [("encoder",), ("head",)])
def test_covering_no_group_of_the_body_is_a_fault_of_the_card(covers: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match="is no part of the network to start from; there are down0"):
        load(as_state(trained(UNET).state_dict()), UNET, covers=covers)


def test_features_without_classes_give_no_head() -> None:
    heads = Heads(output_rows((), "features"), ("background", "liver"))
    _, audit = load(as_state(trained(UNET).state_dict()), UNET, heads=heads)
    assert audit.groups["head"] == 0.0
    assert audit.share_body == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_converted_and_said(dtype: torch.dtype) -> None:
    source = trained(UNET).state_dict()
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in source.items()}
    module, audit = load(as_state(state), UNET)
    lines = [item for item in audit.tensors if state[item.name].is_floating_point()]
    assert {item.detail for item in lines} == {f"{dtype} to float32".removeprefix("torch.")}
    assert all(torch.equal(module.state_dict()[item.name], state[item.name].float()) for item in lines)


def test_integers_are_no_weights() -> None:
    """Quantised values without their scale."""
    state = dict(trained(UNET).state_dict())
    name = "model.0.conv.unit0.conv.weight"
    state[name] = (state[name] * 100).to(torch.int8)
    _, audit = load(as_state(state), UNET)
    (line,) = [item for item in audit.tensors if item.status == "fresh"]
    assert (line.name, line.detail) == (name, "int8 to float32 would not keep the numbers")


def test_a_number_too_large_for_the_network_stays_out() -> None:
    state = {n: t.double() if t.is_floating_point() else t for n, t in trained(UNET).state_dict().items()}
    name = "model.0.conv.unit0.conv.weight"
    state[name] = state[name] * 1e300
    _, audit = load(as_state(state), UNET)
    (line,) = [item for item in audit.tensors if item.status == "fresh"]
    assert (line.name, line.detail) == (name, "float64 to float32 overflows")


def test_the_audit_in_one_line() -> None:
    module, audit = load(as_state(trained(UNET).state_dict()), UNET, n_channels=2)
    head = sum(p.numel() for name, p in module.named_parameters() if name.startswith("model.2"))
    body = sum(p.numel() for p in module.parameters()) - head
    n_matched = len(module.state_dict()) - 2
    line = f"100 % of the body's {body:,} parameters came across: {n_matched} matched, 2 adapted, 0 fresh, 0 unused"
    assert describe_audit(audit) == line
    nearly = audit.model_copy(update={"share_body": 0.9999})
    assert describe_audit(nearly).startswith("99.9 % of"), "only a whole is called so"
    _, audit = load(as_state(_encoder(trained(UNET).state_dict())), UNET, covers=("down0",))
    first = sum(p.numel() for name, p in module.named_parameters() if name.startswith("model.0")) - 4 * 27 * 2
    assert describe_audit(audit).startswith(f"100 % of the covered {first:,} parameters (")


def test_a_stated_network_that_lacks_trained_activations_is_not_the_sources_own(tmp_path: Path) -> None:
    """All tensors of a ReLU network are in PReLU weights, and it computes something else."""
    config = unet(act="RELU")
    theirs, image_ = trained(unet()), image()
    module, audit = load(as_state(theirs.state_dict()), config)
    assert audit.share_all == 1.0
    assert not torch.allclose(module(image_), theirs(image_), atol=1e-3)
    assert any("the network lacks" in note for note in audit.notes)
    with pytest.raises(WeightsError, match="lacks layers of its weights"):
        load(as_state(theirs.state_dict()), config, is_own=True)


def test_a_card_that_covers_little_says_how_little_of_the_body_that_is() -> None:
    config = unet()
    module = trained(config)
    _, audit = load(as_state(module.state_dict()), config, covers=["down0"])
    n_body = sum(tensor.numel() for name, tensor in module.named_parameters() if not name.startswith("model.2."))
    n_covered = sum(tensor.numel() for name, tensor in module.named_parameters() if name.startswith("model.0."))
    assert audit.share_body == n_covered / n_body
    assert f"100 % of the covered {n_covered:,} parameters ({100 * n_covered / n_body:.1f} % of the body)" in (
        describe_audit(audit)
    )


def test_a_source_whose_own_network_lacks_trained_layers_starts_no_training(tmp_path: Path) -> None:
    """What ``sources check`` refuses, nobody has to have checked."""
    stated = unet(act="RELU")
    card = _card(network={**stated.model_dump(), "n_channels": 1, "n_outputs": 3})
    source = write_source(tmp_path / "prelu", card, named_tensors(trained(unet(), n_outputs=3)))
    with pytest.raises(WeightsError, match="lacks layers of its weights"):
        load_source(build_network(stated, 1, 2, seed=0), stated, 1, ["liver"], source, 0.5)
    # the same network in more words is no other
    spelled = NetworkConfig(name="unet", arguments={**stated.arguments, "dropout": 0.0})
    with pytest.raises(WeightsError, match="lacks layers of its weights"):
        load_source(build_network(spelled, 1, 2, seed=0), spelled, 1, ["liver"], source, 0.5)
    # another network than the stated one is somebody's wish: the audit tells
    honest = write_source(
        tmp_path / "honest",
        _card(network={**unet().model_dump(), "n_channels": 1, "n_outputs": 3}),
        named_tensors(trained(unet(), n_outputs=3)),
    )
    audit = load_source(build_network(stated, 1, 2, seed=0), stated, 1, ["liver"], honest, 0.5)
    assert any("the network lacks" in note for note in audit.notes)
