"""Position embeddings, window tables and patch embeddings on other grids, against a second way to interpolate."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor

from monai_tl.config import NetworkConfig
from monai_tl.networks import builders
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import named_tensors
from monai_tl.networks.heads import sketch_network
from monai_tl.networks.layout import layout_of
from monai_tl.networks.positions import guess_grid, guess_window, resize_positions, resize_window_table
from tests.support.loading import TRANSFORMERS, as_state, image, load, trained

Array = np.ndarray[Any, np.dtype[np.float64]]


def _unetr(size: int | list[int], **changes: Any) -> NetworkConfig:
    plain = {"feature_size": 6, "hidden_size": 24, "mlp_dim": 16, "num_heads": 2, "proj_type": "perceptron"}
    return NetworkConfig(name="test_unetr", arguments={**plain, "img_size": size, **changes})


def _swin(window: int) -> NetworkConfig:
    sizes = {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    return NetworkConfig(name="test_swin_unetr", arguments={**sizes, "window_size": window})


@pytest.fixture(autouse=True)
def _plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "_networks", {**builders._networks, **TRANSFORMERS})


def _along(values: Array, axis: int, places: Array) -> Array:
    """Linear interpolation along one axis, the nearest value outside."""
    known = np.arange(values.shape[axis], dtype=float)
    return np.apply_along_axis(lambda line: np.interp(places, known, line), axis, values)


def _separable(values: Array, target: tuple[int, ...], corners: bool) -> Array:
    for axis, size in enumerate(target):
        old = values.shape[axis]
        if corners:
            places = np.linspace(0, old - 1, size) if size > 1 else np.zeros(1)
        else:
            places = (np.arange(size) + 0.5) * old / size - 0.5
        values = _along(values, axis, places)
    return values


GRIDS = [((2, 2, 2), (3, 3, 3)), ((4, 3, 2), (2, 3, 5)), ((3, 3), (4, 4, 2)), ((2, 2, 2), (2, 2, 2))]


@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_tokens_are_interpolated_between_cell_centres(source: tuple[int, ...], target: tuple[int, ...]) -> None:
    values = np.random.default_rng(2).normal(size=(*source, 5))
    tokens = torch.from_numpy(values.reshape(1, -1, 5))
    wide = values if len(source) == 3 else values[:, :, None]
    expected = _separable(wide, target, corners=False).reshape(1, -1, 5)
    assert np.allclose(resize_positions(tokens, source, target).numpy(), expected)


@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_window_tables_are_interpolated_between_offsets(source: tuple[int, ...], target: tuple[int, ...]) -> None:
    old, new = (tuple(2 * size - 1 for size in window) for window in (source, target))
    values = np.random.default_rng(2).normal(size=(*old, 3))
    wide = values if len(source) == 3 else values[:, :, None]
    expected = _separable(wide, new, corners=True).reshape(-1, 3)
    resized = resize_window_table(torch.from_numpy(values.reshape(-1, 3)), source, target)
    assert np.allclose(resized.numpy(), expected)


def _bias(table: Tensor, window: tuple[int, int, int]) -> Tensor:
    """What MONAI's attention adds between each two places of a window, (n, n, heads)."""
    attention = WindowAttention(dim=4, num_heads=1, window_size=window)
    n = window[0] * window[1] * window[2]
    return table[attention.relative_position_index.reshape(-1)].reshape(n, n, -1)


def test_a_bias_that_is_linear_in_the_offset_stays_so() -> None:
    """In closed form, through MONAI's own index: offset as a share of the largest."""

    def linear(window: tuple[int, int, int]) -> Tensor:
        shares = [torch.arange(-w + 1, w) / (w - 1) for w in window]
        return sum(
            c * g for c, g in zip((1.0, 10.0, 100.0), torch.meshgrid(*shares, indexing="ij"), strict=True)
        ).reshape(-1, 1)

    source, target = (2, 3, 2), (4, 3, 5)
    bias = _bias(resize_window_table(linear(source), source, target), target)
    places = list(itertools.product(*map(range, target)))
    for i, j in itertools.product(range(0, len(places), 7), range(0, len(places), 5)):
        share = [(a - b) / (w - 1) for a, b, w in zip(places[i], places[j], target, strict=True)]
        assert bias[i, j].item() == pytest.approx(share[0] + 10 * share[1] + 100 * share[2], abs=1e-3)


def test_grids_are_guessed_only_where_sides_are_equal() -> None:
    assert guess_grid(27, 3) == (3, 3, 3)
    assert guess_grid(64, 2) == (8, 8)
    assert guess_grid(26, 3) is None
    assert guess_window(125, 3) == (3, 3, 3)
    assert guess_window(64, 3) is None, "widths are odd"


def test_a_unetr_of_another_image_size_keeps_all_but_the_tokens() -> None:
    source = trained(_unetr(32))
    module, audit = load(as_state(source.state_dict()), _unetr(48))
    (line,) = [item for item in audit.tensors if item.status != "matched"]
    assert (line.status, line.detail) == ("adapted", "tokens 2×2×2 to 3×3×3, interpolated")
    name = "vit.patch_embedding.position_embeddings"
    before = source.state_dict()[name].numpy().reshape(2, 2, 2, -1)
    expected = _separable(before, (3, 3, 3), corners=False).reshape(1, 27, -1)
    assert np.allclose(module.state_dict()[name].numpy(), expected, atol=1e-6)


def test_equal_counts_of_other_grids_are_told_apart_by_the_card() -> None:
    """64 tokens of 4×4×4 are not 64 of 8×4×2, though the shapes agree."""
    config, other = _unetr([64, 64, 64]), _unetr([128, 64, 32])
    state = as_state(trained(config).state_dict())
    layout = layout_of(sketch_network(config, 1, 2), config.arguments)
    _, audit = load(state, other, source_layout=layout)
    (line,) = [item for item in audit.tensors if item.status == "adapted"]
    assert line.detail == "tokens 4×4×4 to 8×4×2, interpolated"


def test_a_class_token_is_left_out_and_an_unknown_grid_refused() -> None:
    name = "vit.patch_embedding.position_embeddings"
    state = dict(trained(_unetr(32)).state_dict())
    tokens = state[name]
    with_class = as_state({**state, name: torch.cat([torch.ones(1, 1, 24), tokens], dim=1)})
    module, audit = load(with_class, _unetr(32))
    (line,) = [item for item in audit.tensors if item.status == "adapted"]
    assert line.detail == "class token left out"
    assert torch.equal(module.state_dict()[name], tokens)
    _, audit = load(as_state({**state, name: torch.ones(1, 6, 24)}), _unetr(32))
    (line,) = [item for item in audit.tensors if item.status == "fresh"]
    assert line.detail.startswith("6 tokens in the source, whose grid is unknown: state the img_size of its training")


def test_computed_embeddings_are_not_interpolated() -> None:
    source, target = _unetr(32, proj_type="conv"), _unetr(48, proj_type="conv")
    plain = trained(source)
    name = "vit.patch_embedding.position_embeddings"
    for network in (source, target):
        network.arguments.update(pos_embed_type="learnable")
    assert layout_of(plain, source.arguments).token_grids[name] == (2, 2, 2)
    plain.get_submodule("vit.patch_embedding").position_embeddings = build_sincos_position_embedding([2, 2, 2], 24, 3)
    layout = layout_of(plain, source.arguments)
    assert name in layout.computed
    assert name not in layout.token_grids


@pytest.mark.parametrize(("n_source", "n_target"), [(1, 4), (4, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("name", ["perceptron", "conv", "swin"])
def test_transformers_with_other_channels_answer_a_grey_image_alike(name: str, n_source: int, n_target: int) -> None:
    """The first layers are several: patch embedding, first skip, its shortcut."""
    config = _swin(2) if name == "swin" else _unetr(32, proj_type=name)
    source = trained(config, n_source)
    module, audit = load(as_state(source.state_dict()), config, n_target)
    # instance normalisation over a few voxels blows up rounding, so the comparison is in double
    grey = image(1, (64, 64, 32) if name == "swin" else (32, 32, 32)).double()
    source, module = source.double(), module.double()
    with torch.no_grad():
        before, after = source(grey.expand(1, n_source, -1, -1, -1)), module(grey.expand(1, n_target, -1, -1, -1))
    assert torch.allclose(before, after, atol=1e-4)
    assert audit.share_body == 1.0
    adapted = [item for item in audit.tensors if item.status == "adapted"]
    assert len(adapted) == 3
    assert {item.detail for item in adapted} == {f"input channels {n_source} to {n_target}, sum kept"}


def test_a_shortcut_that_vanishes_is_noted() -> None:
    """With as many inputs as filters MONAI's first block has no shortcut; the block then answers otherwise."""
    config = _unetr(32, proj_type="conv", feature_size=4)
    _, audit = load(as_state(trained(config, 1).state_dict()), config, 4)
    assert audit.notes == ("encoder1.layer in the source has 1 tensors that the network lacks",)


def test_pixels_of_another_patch_are_refused_though_the_shape_agrees() -> None:
    """Eight pixels of one channel and one pixel of eight channels."""
    weight = "vit.patch_embedding.patch_embeddings.1.weight"
    config = _unetr(32)
    target = build_network(config, 1, 2, seed=0)
    short = {**trained(config).state_dict(), weight: torch.ones(24, 1000)}
    _, audit = load(as_state(short), config)
    (line,) = [item for item in audit.tensors if item.status == "fresh"]
    assert line.detail == "patches of other size than 16×16×16: not adapted"
    assert layout_of(target, config.arguments).patches == {weight: (16, 16, 16)}


@pytest.mark.parametrize("config", [_swin(3), _unetr(32)], ids=lambda config: config.name)
def test_looking_over_a_network_takes_no_memory(config: NetworkConfig) -> None:
    """MONAI's Swin looks at numbers while it is built, which the meta device refuses."""
    sketch = sketch_network(config, 1, 2)
    assert {p.device.type for p in sketch.parameters()} == {"meta"}
    shapes = {name: tensor.shape for name, tensor in named_tensors(build_network(config, 1, 2, seed=0)).items()}
    assert {name: tensor.shape for name, tensor in named_tensors(sketch).items()} == shapes


def test_a_swin_unetr_of_another_window() -> None:
    source = trained(_swin(2))
    module, audit = load(as_state(source.state_dict()), _swin(3))
    tables = {name for name in named_tensors(module) if name.endswith("relative_position_bias_table")}
    indices = {name for name in named_tensors(module) if name.endswith("relative_position_index")}
    assert len(tables) == len(indices) == 4
    lines = {item.name: item for item in audit.tensors}
    assert {lines[name].detail for name in tables} == {"window 2×2×2 to 3×3×3, interpolated"}
    assert {lines[name].status for name in indices} == {"fresh"}
    assert {lines[name].detail for name in indices} == {"is computed from the network's arguments, not taken over"}
    assert audit.share_all == 1.0
    assert audit.notes == ()
    with torch.no_grad():
        assert bool(torch.isfinite(module(image(1, (64, 64, 32)))).all())


def test_a_foreign_index_is_not_copied() -> None:
    state = dict(trained(_swin(2)).state_dict())
    name = "swinViT.layers1.0.blocks.0.attn.relative_position_index"
    module, audit = load(as_state({**state, name: state[name] * 0 + 10**6}), _swin(2))
    assert torch.equal(module.state_dict()[name], state[name])
    assert {item.name for item in audit.tensors if item.status == "fresh"} == {name}
