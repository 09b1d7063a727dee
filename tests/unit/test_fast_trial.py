"""What fast mode is allowed: closed forms of networks that do, and do not, mind the window or the number format."""

from __future__ import annotations

import re
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
from monai_tl.fast_records import FastRecord, Trial
from monai_tl.inference import LOSSY, Predictor
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.windows import collect_probabilities
from monai_tl.progress import Progress
from monai_tl.records import Plan, SizeRule
from monai_tl.stages.fast_trial import MAX_VOXELS, N_CASES, _choose, _judge, _ways, try_fast_mode

PATCH = (16, 16, 16)
SHAPE = (40, 28, 28)
"""With an overlap of a quarter its windows are spread evenly as they come, so that they are MONAI's."""


class Above(nn.Module):
    """Foreground where a function of the image is above nothing."""

    def __init__(self, function: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList([nn.Identity(), *layers])
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        value = 4.0 * self.function(image)
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
    label = (image > 0.5).astype(np.uint8)
    return TrainingCase(f"case-{number}", image[None], label, {1: np.flatnonzero(label)})


def _cases(n: int, is_coarse: bool = False) -> list[TrainingCase]:
    return [_case(number, is_coarse) for number in range(n)]


def _try(predictor: Predictor, cases: Sequence[TrainingCase]) -> FastRecord | None:
    return try_fast_mode(predictor, cases, Progress("test"))


def _volume(shape: Sequence[int]) -> int:
    return int(np.prod(shape))


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2.0 * float((first & second).sum()) / float(first.sum() + second.sum())


def _less_overlap_less_exact(cases: Sequence[TrainingCase]) -> float:
    """Of the network that takes what is brighter than its window's mean, by MONAI's inferer."""
    from monai.inferers.inferer import SlidingWindowInferer

    network = Above(lambda image: image - image.mean(dim=(2, 3, 4), keepdim=True))
    found = []
    for case in cases:
        scores = []
        for overlap in (0.25, 0.5):
            inferer = SlidingWindowInferer(PATCH, 2, overlap, "gaussian")
            with torch.inference_mode():
                values = inferer(torch.from_numpy(case.image)[None], lambda x: torch.softmax(network(x), dim=1))
            scores.append(_dice(case.label > 0, values[0].argmax(0).numpy() > 0))  # type: ignore[index]
        found.append(scores[0] - scores[1])
    return fmean(found)


def test_a_network_that_looks_at_single_voxels_takes_the_largest_windows() -> None:
    convolution = nn.Conv3d(1, 1, 1)
    nn.init.ones_(convolution.weight)
    nn.init.constant_(convolution.bias, -0.5)  # type: ignore[arg-type]
    network = nn.Sequential(convolution, nn.Conv3d(1, 2, 1, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([-64.0, 64.0]).reshape(2, 1, 1, 1, 1))  # type: ignore[operator]
    record = _try(_predictor(network), _cases(3, is_coarse=True))
    assert record is not None
    assert (record.windows, record.n_cases) == ("large", 3)
    assert [trial.is_within for trial in record.trials] == [True]


def test_a_network_that_goes_by_its_window_s_mean_keeps_the_windows_of_exact_mode() -> None:
    def above_mean(image: Tensor) -> Tensor:
        return image - image.mean(dim=(2, 3, 4), keepdim=True)

    predictor, cases = _predictor(Above(above_mean, nn.InstanceNorm3d(1))), _cases(4)
    assert not predictor.is_local
    record = _try(predictor, cases)
    assert record is not None
    assert record.windows == "exact"
    patch = record.trials[0]
    assert (patch.windows, patch.is_within) == ("patch", False)
    assert patch.difference == pytest.approx(_less_overlap_less_exact(cases), abs=3e-4)
    assert abs(patch.difference) > 0.002
    allowed = replace(predictor, fast=record)
    fast = PredictConfig(mode="fast")
    assert allowed.tiling(SHAPE, fast) == predictor.tiling(SHAPE, PredictConfig())
    assert allowed.describe(fast)["n_trial_cases"] == 4


def _windowed(image: Tensor) -> Tensor:
    """Statistics over the window, but without weight."""
    return image - 0.5 + 0.0 * image.mean()


def test_a_network_that_looks_at_the_window_and_does_not_mind_takes_less_overlap_and_no_larger_windows() -> None:
    predictor = _predictor(Above(_windowed, nn.InstanceNorm3d(1)))
    record = _try(predictor, _cases(3))
    assert record is not None
    assert record.windows == "patch"
    tiling = replace(predictor, fast=record).tiling(SHAPE, PredictConfig(mode="fast"))
    assert tiling.window == PATCH
    assert tiling.n_windows == 3 * 2 * 2


def test_windows_that_are_those_of_exact_mode_prove_nothing_for_larger_cases() -> None:
    """One window each; a larger case would have other windows than in exact mode."""
    predictor = _predictor(Above(_windowed, nn.InstanceNorm3d(1)))
    record = _try(predictor, [_case(number, shape=(20, 16, 16)) for number in range(5)])
    assert record is not None
    assert record.windows == "exact"
    assert [trial.windows for trial in record.trials] == ["exact"]
    # two of five are large enough to tell, which is too few
    mixed = [_case(number, shape=SHAPE if number < 2 else (20, 16, 16)) for number in range(5)]
    assert _try(predictor, mixed).windows == "exact"  # type: ignore[union-attr]


def test_classes_that_no_map_has_do_not_dilute_the_difference() -> None:
    """One class that occurs, and one among twenty: the same network loses the same."""

    def above_mean(image: Tensor) -> Tensor:
        return image - image.mean(dim=(2, 3, 4), keepdim=True)

    class Many(Above):
        def forward(self, image: Tensor) -> Tensor:
            two = super().forward(image)
            return torch.cat([two, two.new_full((len(two), 19, *two.shape[2:]), -1e3)], dim=1)

    one = _predictor(Above(above_mean, nn.InstanceNorm3d(1)))
    names = tuple(ClassSpec(name=f"class {number}") for number in range(20))
    many = _predictor(Many(above_mean, nn.InstanceNorm3d(1)))
    many = replace(many, plan=many.plan.model_copy(update={"scheme": LabelScheme(classes=names)}))
    found = [_try(predictor, _cases(3)) for predictor in (one, many)]
    assert all(record is not None for record in found)
    first, second = (record.trials[0] for record in found if record is not None)
    assert first.difference == pytest.approx(second.difference, abs=2e-3)
    assert not second.is_within


def test_cases_without_foreground_and_networks_that_find_nothing_prove_nothing() -> None:
    empty = [replace(case, foreground={}, label=np.zeros_like(case.label)) for case in _cases(5)]
    assert _try(_predictor(Above(lambda image: image - 0.5)), empty) is None
    assert _try(_predictor(Above(lambda image: image - 1e3)), _cases(5)) is None


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
    record = _try(predictor, _cases(3))
    assert record is not None
    assert (record.windows, record.precision) == ("large", "float32")
    # larger windows in float32 pass fewer voxels than those of exact mode, by more than half precision saves
    tried = [(trial.windows, trial.precision) for trial in record.trials]
    assert tried == [("large", "bfloat16"), ("patch", "bfloat16"), ("large", "float32")]
    assert [trial.is_within for trial in record.trials] == [False, False, True]
    precision, reason = replace(predictor, fast=record).precision(PredictConfig(mode="fast"))
    assert (precision, reason) == ("float32", "bfloat16 did not keep exact mode's Dice on validation cases")


def test_a_machine_that_does_not_multiply_in_half_precision_does_not_say_that_it_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model may be used on another machine, which says why it does not, either."""
    predictor = _predictor(Above(lambda image: image - 0.5))
    monkeypatch.setattr(monai_tl.inference, "fastest_precision", lambda _: ("float32", "said so"))
    record = _try(predictor, _cases(3))
    assert record is not None
    monkeypatch.setattr(monai_tl.inference, "fastest_precision", lambda _: ("bfloat16", "said so"))
    precision, reason = replace(predictor, fast=record).precision(PredictConfig(mode="fast"))
    assert (precision, "bfloat16 was not tried" in reason) == ("float32", True)


def test_a_network_that_no_way_of_fast_mode_serves_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sums in half of the bits decide here: between the classes is a difference that float16 does not keep."""

    class Close(Above):
        def forward(self, image: Tensor) -> Tensor:
            value = 1e-4 * self.function(image)
            return torch.cat([-value, value], dim=1)

    predictor = _predictor(Close(_windowed, nn.InstanceNorm3d(1)))
    record = _try(predictor, _cases(3))
    assert record is not None
    assert (record.windows, record.precision, record.is_within, record.n_cases) == ("exact", "float32", False, 3)
    assert "so it will be exact mode" in capsys.readouterr().out
    settled, fast = replace(predictor, fast=record), PredictConfig(mode="fast")
    said = settled.describe(fast)
    assert (said["mode"], said["mode_reason"]) == ("exact", LOSSY)
    # nor sums in half of the bits
    image = _case(0).image
    exact, found = (collect_probabilities(settled.stream(image, one), SHAPE) for one in (PredictConfig(), fast))
    assert np.array_equal(exact, found)


class Fails(Above):
    """Where the window is larger than the patch, as one that takes too much memory."""

    def __init__(self, n_most: int) -> None:
        super().__init__(lambda image: image - 0.5)
        self.n_most = n_most

    def forward(self, image: Tensor) -> Tensor:
        if image[0, 0].numel() > self.n_most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().forward(image)


def test_a_way_that_fails_is_not_taken_and_the_others_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    predictor = _predictor(Fails(_volume(PATCH)))
    record = _try(predictor, _cases(3))
    assert record is not None
    assert (record.windows, record.is_within) == ("patch", True)
    assert re.search(r"fast mode, larger windows, \w+: RuntimeError, so it is not taken", capsys.readouterr().out)
    replace(predictor, fast=record).predict_probabilities(_case(0).image)


def test_larger_windows_that_no_case_could_tell_of_are_taken_as_without_a_trial() -> None:
    """One window each: what was tried is the number format alone."""
    predictor = _predictor(Above(lambda image: image - 0.5))
    record = _try(predictor, [_case(number, shape=(14, 16, 16)) for number in range(4)])
    assert record is not None
    assert (record.windows, record.is_within, record.n_cases) == ("large", None, 0)
    assert [trial.windows for trial in record.trials] == ["exact"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # 12 windows by less overlap, 36 in exact mode; one in float32 is worth 2.2
        (SHAPE, [("patch", "bfloat16"), ("patch", "float32"), ("exact", "bfloat16"), ("exact", "float32")]),
        # 3 and 4
        ((40, 16, 16), [("patch", "bfloat16"), ("exact", "bfloat16"), ("patch", "float32"), ("exact", "float32")]),
    ],
)
def test_ways_are_tried_from_the_cheapest_on(
    shape: tuple[int, int, int], expected: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monai_tl.inference, "fastest_precision", lambda _: ("bfloat16", "said so"))
    ways = _ways(_predictor(Above(_windowed, nn.InstanceNorm3d(1))), [_case(0, shape=shape)])
    assert [(way.windows, way.precision) for way in ways] == expected


def test_differences_that_only_cancel_out_are_not_within() -> None:
    """Half of the cases lose what the other half gains: the mean says nothing of the next case."""
    assert not _judge("patch", "float32", [0.01, -0.01, 0.01, -0.01]).is_within
    assert _judge("patch", "float32", [0.0001, -0.0001, 0.0001, -0.0001]).is_within
    assert not _judge("patch", "float32", [0.002] * 4).is_within


@pytest.mark.parametrize("n", [0, 2])
def test_few_cases_allow_nothing(n: int) -> None:
    assert _try(_predictor(Above(lambda image: image)), _cases(n)) is None


def test_of_many_cases_the_first_are_asked() -> None:
    record = _try(_predictor(Above(lambda image: image - 0.5)), _cases(N_CASES + 2))
    assert record is not None
    assert record.n_cases == N_CASES


def test_of_large_cases_fewer_are_asked() -> None:
    case = _case(0)
    large = replace(case, label=np.broadcast_to(np.uint8(1), (MAX_VOXELS // 5, 1, 1)))
    huge = replace(case, label=np.broadcast_to(np.uint8(1), (MAX_VOXELS + 1, 1, 1)))
    assert len(_choose([large] * 8)) == 5
    assert len(_choose([case] * (N_CASES + 4))) == N_CASES
    assert _choose([huge, case, huge, case]) == [case, case]


def test_a_mean_of_models_is_allowed_what_each_of_them_is() -> None:
    large = FastRecord(windows="large", precision="bfloat16", n_cases=5, is_within=True)
    single = FastRecord(windows="large", precision="float32", n_cases=4, is_within=True)
    patch = FastRecord(windows="patch", precision="bfloat16", n_cases=8, is_within=True)
    failed = FastRecord(windows="exact", precision="float32", n_cases=8, is_within=False)
    careful = FastRecord(windows="exact", precision="bfloat16")
    assert large.joined(large) == large
    assert large.joined(single) == single.joined(large) == single
    assert patch.joined(careful) == careful.joined(patch) == careful
    assert patch.joined(failed) == failed.joined(patch) == failed
    # what is not known of one, and does not hold for the other, does not hold
    assert careful.joined(failed).is_within is False


def test_the_report_says_what_fast_mode_does() -> None:
    trial = Trial(
        windows="patch", precision="bfloat16", n_cases=8, difference=-0.0002, standard_error=0.0001, is_within=True
    )
    held = FastRecord(windows="patch", precision="bfloat16", n_cases=8, is_within=True, trials=(trial,))
    assert held.describe() == (
        "fast mode takes less overlap, bfloat16 (Dice -0.0002 ± 0.0001 of exact mode's on 8 validation cases)"
    )
    assert (
        FastRecord(windows="large", precision="float32").describe()
        == "fast mode takes larger windows, float32, untried"
    )
    failed = FastRecord(windows="exact", precision="float32", n_cases=8, is_within=False, trials=(trial,))
    assert failed.describe() == "fast mode is exact mode, whose Dice no other way kept"


def test_why_a_mean_of_models_computes_in_float32_is_said_by_the_one_that_does() -> None:
    kept = Trial(windows="patch", precision="bfloat16", n_cases=5, difference=0.1, standard_error=0.0, is_within=False)
    half = FastRecord(windows="exact", precision="bfloat16", n_cases=5, is_within=True, trials=(kept,))
    single = FastRecord(windows="exact", precision="float32", n_cases=5, is_within=True)
    assert "was not tried" in half.joined(single).why_float32()
    assert "was not tried" in single.joined(half).why_float32()
