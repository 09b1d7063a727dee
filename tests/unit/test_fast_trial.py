"""What fast mode is allowed: closed forms of networks that do, and do not, mind the window or the number format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import monai_tl.inference
from monai_tl.config import IntensityConfig, NetworkConfig, PredictConfig
from monai_tl.dataset.patches import TrainingCase
from monai_tl.fast_records import FastRecord
from monai_tl.inference import Predictor
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.records import Plan, SizeRule
from monai_tl.stages.fast_trial import N_CASES, describe_fast, try_fast_mode

PATCH = (16, 16, 16)
SHAPE = (40, 36, 24)


class Above(nn.Module):
    """Foreground where a function of the image is above nothing."""

    def __init__(self, function: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList([nn.Identity(), *layers])
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        value = 50.0 * self.function(image)
        return torch.cat([-value, value], dim=1)


def _predictor(network: nn.Module) -> Predictor:
    plan = Plan(
        modality="MR",
        n_channels=1,
        scheme=LabelScheme(classes=(ClassSpec(name="bright"),)),
        spacing_mm=(1.0, 1.0, 1.0),
        intensity=IntensityConfig(rule="zscore"),
        patch_size_vox=PATCH,
        size_rule=SizeRule(divisor=4, min_vox=(8, 8, 8)),
        network=NetworkConfig(name="unet"),
        source=None,
    )
    return Predictor((network.eval(),), plan)


def _case(number: int, is_coarse: bool = False, shape: tuple[int, int, int] = SHAPE) -> TrainingCase:
    """A ramp with noise on it; the label is what lies above half. Coarse values have eight bits."""
    noise = np.random.default_rng(number).normal(0.0, 0.2, size=shape)
    image = (np.linspace(0.0, 1.0, shape[0])[:, None, None] + noise).astype(np.float32)
    if is_coarse:
        image = np.round(16.0 * image) / 16.0
    return TrainingCase(f"case-{number}", image[None], (image > 0.5).astype(np.uint8), {})


def _cases(n: int, is_coarse: bool = False) -> list[TrainingCase]:
    return [_case(number, is_coarse) for number in range(n)]


def _volume(shape: Sequence[int]) -> int:
    return int(np.prod(shape))


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2.0 * float((first & second).sum()) / float(first.sum() + second.sum())


def _whole_pass_less_exact(cases: Sequence[TrainingCase]) -> float:
    """Of the network that takes what is brighter than its window's mean; MONAI's inferer is the exact mode."""
    from monai.inferers.inferer import SlidingWindowInferer

    network = Above(lambda image: image - image.mean(dim=(2, 3, 4), keepdim=True))
    inferer = SlidingWindowInferer(PATCH, 2, 0.5, "gaussian")
    found = []
    for case in cases:
        reference = case.label > 0
        image = torch.from_numpy(case.image)[None]
        with torch.inference_mode():
            exact = inferer(image, lambda x: torch.softmax(network(x), dim=1))[0].argmax(0).numpy() > 0  # type: ignore[index]
        found.append(_dice(reference, case.image[0] > case.image.mean()) - _dice(reference, exact))
    return fmean(found)


def test_a_network_that_looks_at_single_voxels_takes_the_largest_windows() -> None:
    convolution = nn.Conv3d(1, 1, 1)
    nn.init.ones_(convolution.weight)
    nn.init.constant_(convolution.bias, -0.5)  # type: ignore[arg-type]
    network = nn.Sequential(convolution, nn.Conv3d(1, 2, 1, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([-64.0, 64.0]).reshape(2, 1, 1, 1, 1))  # type: ignore[operator]
    record = try_fast_mode(_predictor(network), _cases(3, is_coarse=True))
    assert record is not None
    assert (record.windows, record.largest_vox, record.n_cases) == ("large", None, 3)
    assert [trial.is_within for trial in record.trials] == [True]
    assert "larger windows" in describe_fast(record)


def test_a_network_that_goes_by_its_window_s_mean_keeps_the_windows_of_exact_mode() -> None:
    def above_mean(image: Tensor) -> Tensor:
        return image - image.mean(dim=(2, 3, 4), keepdim=True)

    predictor, cases = _predictor(Above(above_mean, nn.InstanceNorm3d(1))), _cases(4)
    assert not predictor.is_local
    record = try_fast_mode(predictor, cases)
    assert record is not None
    assert record.windows == "exact"
    large = record.trials[0]
    assert (large.windows, large.is_within) == ("large", False)
    assert large.difference == pytest.approx(_whole_pass_less_exact(cases), abs=5e-5)
    assert abs(large.difference) > 0.1
    allowed = replace(predictor, fast=record)
    fast = PredictConfig(mode="fast")
    assert allowed.tiling(SHAPE, fast) == predictor.tiling(SHAPE, PredictConfig())
    assert allowed.describe(fast)["n_trial_cases"] == 4


def test_what_was_allowed_ends_at_the_largest_window_that_was_tried() -> None:
    """Statistics over the window, but without weight."""

    def above_half(image: Tensor) -> Tensor:
        return image - 0.5 + 0.0 * image.mean()

    predictor = _predictor(Above(above_half, nn.InstanceNorm3d(1)))
    record = try_fast_mode(predictor, _cases(3))
    assert record is not None
    assert (record.windows, record.largest_vox) == ("large", SHAPE)
    allowed, fast = replace(predictor, fast=record), PredictConfig(mode="fast")
    assert allowed.tiling(SHAPE, fast).n_windows == 1
    window = allowed.tiling((200, 200, 24), fast).window
    assert all(length <= most for length, most in zip(window, SHAPE, strict=True))
    assert _volume(window) > _volume(PATCH)
    assert "at most 40 x 36 x 24 voxels" in allowed.describe(fast)["windows"]


def test_a_network_that_half_precision_blurs_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large number is added and taken away; bfloat16 keeps eight bits of the sum."""
    monkeypatch.setattr(monai_tl.inference, "fastest_precision", lambda _: ("bfloat16", "said so"))
    first, second = nn.Conv3d(1, 1, 1), nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.fill_(99.5)  # type: ignore[union-attr]
        second.weight.copy_(torch.tensor([-64.0, 64.0]).reshape(2, 1, 1, 1, 1))
        second.bias.copy_(torch.tensor([6400.0, -6400.0]))  # type: ignore[union-attr]
    predictor = _predictor(nn.Sequential(first, second))
    record = try_fast_mode(predictor, _cases(3))
    assert record is not None
    assert (record.windows, record.precision) == ("large", "float32")
    assert [trial.precision for trial in record.trials] == ["bfloat16", "bfloat16", "bfloat16", "float32"]
    assert not any(trial.is_within for trial in record.trials[:3])
    precision, reason = replace(predictor, fast=record).precision(PredictConfig(mode="fast"))
    assert (precision, "validation cases" in reason) == ("float32", True)


def test_differences_that_only_cancel_out_are_not_within() -> None:
    """Half of the cases lose what the other half gains: the mean says nothing of the next case."""
    calls = {"n": 0}

    def tell(image: Tensor) -> Tensor:
        # larger windows, which come first, see more than a patch
        if image[0, 0].numel() <= _volume(PATCH):
            return image - 0.6
        calls["n"] += 1
        return image - (0.62 if calls["n"] % 2 else 0.58)

    record = try_fast_mode(_predictor(Above(tell, nn.InstanceNorm3d(1))), _cases(8))
    assert record is not None
    first = record.trials[0]
    assert first.windows == "large"
    assert abs(first.difference) < first.standard_error
    assert not first.is_within
    assert record.windows == "patch"


@pytest.mark.parametrize("n", [0, 2])
def test_few_cases_allow_nothing(n: int) -> None:
    assert try_fast_mode(_predictor(Above(lambda image: image)), _cases(n)) is None


def test_of_many_cases_the_first_are_asked() -> None:
    record = try_fast_mode(_predictor(Above(lambda image: image - 0.5)), _cases(N_CASES + 2))
    assert record is not None
    assert record.n_cases == N_CASES


def test_a_mean_of_models_is_allowed_what_each_of_them_is() -> None:
    one = FastRecord(windows="large", precision="bfloat16", largest_vox=(64, 32, 48), n_cases=8)
    local = FastRecord(windows="large", precision="bfloat16", n_cases=5)
    other = FastRecord(windows="large", precision="float32", largest_vox=(32, 64, 48), n_cases=4)
    careful = FastRecord(windows="exact", precision="bfloat16", n_cases=8)
    assert one.joined(local) == FastRecord(windows="large", precision="bfloat16", largest_vox=(64, 32, 48), n_cases=5)
    assert one.joined(other).largest_vox == (32, 32, 48)
    assert one.joined(other).precision == other.joined(one).precision == "float32"
    assert one.joined(careful).windows == careful.joined(one).windows == "exact"
