"""A predictor's two modes and two engines on one network; MONAI's inferer is the oracle of the exact one."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer

from monai_tl.config import IntensityConfig, NetworkConfig, PredictConfig, PreprocessConfig
from monai_tl.dataset.transforms import prepare_image, restore_probabilities
from monai_tl.errors import ConfigError, ContractError
from monai_tl.fast_records import FastRecord
from monai_tl.inference import Predictor, mirrored_axes, skip_outside, with_engine
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.metrics.counting import CaseCounting
from monai_tl.networks.builders import build_network, size_rule_of
from monai_tl.networks.onnx_engine import OnnxNetwork
from monai_tl.records import Plan, PreparedCase

PATCH = (16, 16, 16)


def _plan(norm: str, **changes: object) -> Plan:
    network = NetworkConfig(name="unet", arguments={"channels": [4, 8, 8], "strides": [2, 2], "norm": norm})
    plan = Plan(
        modality="CT",
        n_channels=1,
        scheme=LabelScheme(classes=(ClassSpec(name="a"), ClassSpec(name="b"))),
        spacing_mm=(1.5, 1.5, 1.5),
        intensity=IntensityConfig(rule="window", low=-200.0, high=200.0),
        patch_size_vox=PATCH,
        size_rule=size_rule_of(network),
        network=network,
        source=None,
    )
    return plan.model_copy(update=changes)


def _predictor(norm: str, n: int = 1, **changes: object) -> Predictor:
    plan = _plan(norm, **changes)
    return Predictor(tuple(build_network(plan.network, 1, 3, seed).eval() for seed in range(n)), plan)


def _case(predictor: Predictor, shape: tuple[int, int, int] = (34, 26, 22)) -> tuple[np.ndarray, PreparedCase]:
    native = np.random.default_rng(1).normal(0.0, 100.0, size=shape)
    return prepare_image(native, np.diag([1.0, 1.0, 2.0, 1.0]), predictor.plan, PreprocessConfig())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_exact_is_monai_s_inferer_with_the_plan_s_patch(norm: str) -> None:
    """Also for a case hardly larger than the patch, which training passes whole."""
    predictor = _predictor(norm, 2)
    for shape in ((20, 16, 18), (9, 33, 21), (40, 24, 7)):
        image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
        inferer = SlidingWindowInferer(PATCH, 2, 0.5, "gaussian")

        def mean(x: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.softmax(network(x), 1) for network in predictor.networks]).mean(0)

        with torch.inference_mode():
            expected = inferer(torch.from_numpy(image)[None], mean)[0].numpy()
        assert np.abs(predictor.predict_probabilities(image, batch_size=2) - expected).max() < 1e-4


def test_labels_from_slabs_are_those_of_all_probabilities_at_once() -> None:
    predictor = _predictor("batch")
    image, record = _case(predictor)
    label = predictor.predict_label(image, record, PredictConfig())
    assert np.array_equal(label, restore_probabilities(predictor.predict_probabilities(image, batch_size=2), record))
    assert len(np.unique(label)) > 1


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_fast_takes_the_whole_case_only_where_the_network_is_local(norm: str) -> None:
    predictor = _predictor(norm)
    fast = PredictConfig(mode="fast")
    tiling = predictor.tiling((40, 40, 24), fast)
    exact = predictor.tiling((40, 40, 24), PredictConfig())
    if norm == "batch":
        assert tiling.n_windows == 1
    else:
        assert tiling == exact
        tried = FastRecord(windows="patch", precision="bfloat16")
        fewer = replace(predictor, fast=tried).tiling((40, 40, 24), fast)
        assert fewer.window == PATCH
        assert fewer.n_windows < exact.n_windows
    small = predictor.tiling((40, 40, 24), fast.model_copy(update={"memory_gib": 1e-3}))
    assert predictor.plan.size_rule.accepts(small.window)
    assert small.n_windows >= tiling.n_windows


def test_fast_gives_the_same_bits_twice_and_sums_to_one() -> None:
    predictor = _predictor("instance", 2)
    image, record = _case(predictor)
    fast = PredictConfig(mode="fast", flips=("AP",))
    first, second = (predictor.predict_label(image, record, fast) for _ in range(2))
    assert np.array_equal(first, second)
    for slab in predictor.stream(image, fast):
        assert slab.values.astype(np.float32).sum(axis=0) == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_counting_changes_no_label_and_members_are_each_network_alone(mode: str) -> None:
    """Also where windows outside the body are skipped: there no member sees anything."""
    config = PredictConfig(mode=mode, batch_size=2)  # type: ignore[arg-type]
    predictor = _predictor("instance", 2, foreground="above", foreground_threshold=-150.0)
    image, record = _case(predictor, (60, 34, 30))
    image[:, :24] = 0.0
    counting = CaseCounting(None, predictor.count_members(config))
    assert counting.n_members == 2
    label = predictor.predict_label(image, record, config, counting)
    assert np.array_equal(label, predictor.predict_label(image, record, config))
    masks = []
    for network in predictor.networks:
        alone = Predictor((network,), predictor.plan)
        slabs = [slab.values[0].astype(np.float32).copy() for slab in alone.stream(image, config)]
        masks.append(1.0 - np.concatenate(slabs, axis=next(iter(alone.stream(image, config))).axis) > 0.5)
    overlap = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
    found = counting.record()
    # sums in float16 turn single voxels round
    assert found.disagreement == pytest.approx(1 - overlap, abs=1e-5 if mode == "exact" else 2e-3)
    assert 2e-3 < 1 - overlap < 1.0
    (last,) = [slab.values for slab in predictor.stream(image, config, True)][-1:]
    assert last.shape[0] == 3 + 2


def test_without_bfloat16_fast_is_float32_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, fast = _predictor("batch"), PredictConfig(mode="fast")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    said = predictor.describe(fast)
    assert (said["mode"], said["precision"]) == ("fast", "float32")
    assert "does not multiply in bfloat16" in said["precision_reason"]
    image = np.random.default_rng(0).normal(size=(1, 24, 24, 16)).astype(np.float32)
    (slab,) = predictor.stream(image, fast)
    with torch.inference_mode():
        expected = torch.softmax(predictor.networks[0](torch.from_numpy(image)[None]), 1)[0].numpy()
    assert np.abs(slab.values - expected).max() < 1e-5
    assert predictor.describe(PredictConfig())["precision"] == "float32"


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_onnx_gives_torch_s_float32(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    predictor = _predictor("batch", 2)
    onnx = with_engine(predictor, "onnx", 1)
    config = PredictConfig(mode=mode)  # type: ignore[arg-type]
    image = np.random.default_rng(0).normal(size=(1, 30, 22, 18)).astype(np.float32)
    pairs = zip(predictor.stream(image, config), onnx.stream(image, config), strict=True)
    assert all(
        np.abs(a.values.astype(np.float32) - b.values).max() < (1e-4 if mode == "exact" else 1e-3) for a, b in pairs
    )
    assert onnx.describe(config)["engine"] == "onnx"


@pytest.mark.parametrize("slower", ["torch", "onnx"])
def test_fastest_is_the_engine_that_passes_a_window_sooner(slower: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = _predictor("batch")
    real = OnnxNetwork.__call__

    def late(network: OnnxNetwork, windows: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2)
        return real(network, windows)

    if slower == "torch":
        predictor.networks[0].register_forward_pre_hook(lambda *_: time.sleep(0.2))
    else:
        monkeypatch.setattr(OnnxNetwork, "__call__", late)
    assert {with_engine(predictor, "fastest", 1).engine} == {"torch", "onnx"} - {slower}


def test_wrong_engines_and_channels_are_refused() -> None:
    predictor = _predictor("batch")
    with pytest.raises(ConfigError, match="'tensorrt' is none of torch, onnx, fastest"):
        with_engine(predictor, "tensorrt", 1)
    with pytest.raises(ContractError, match="takes 1 channels"):
        predictor.predict_label(np.zeros((2, 8, 8, 8), dtype=np.float32), _case(predictor)[1], PredictConfig())


@pytest.mark.parametrize(
    ("flips", "orientation", "axes"),
    [(("LR",), "RAS", (0,)), (("LR",), "PIL", (2,)), (("SI", "AP"), "LPS", (1, 2)), ((), "RAS", ())],
)
def test_directions_become_axes_of_the_network_s_grid(
    flips: tuple[str, ...], orientation: str, axes: tuple[int, ...]
) -> None:
    assert mirrored_axes(flips, orientation) == axes


def test_what_counts_as_outside_comes_from_the_plan_s_contract() -> None:
    image = np.array([-3.0, 0.0, 1.0], dtype=np.float32).reshape(1, 3, 1, 1)
    assert skip_outside(_plan("batch"), image, 3) is None
    above = {"foreground": "above", "foreground_threshold": 100.0}
    found = skip_outside(_plan("batch", **above), image, 3)
    # -200 … 200 became 0 … 1
    assert found is not None
    assert found.level == pytest.approx(0.75)
    low = skip_outside(_plan("batch", **(above | {"foreground_threshold": -500.0})), image, 3)
    assert low is not None
    assert low.level == 0.0
    scaled = skip_outside(_plan("batch", **above, intensity=IntensityConfig(rule="zscore")), image, 3)
    assert scaled is not None
    assert scaled.level == -3.0
