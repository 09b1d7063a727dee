"""Calibration in closed form, with labels drawn from known probabilities, and against a direct minimisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from monai_tl.errors import DataError, GeometryError
from monai_tl.metrics.calibration import (
    N_BINS,
    TEMPERATURES,
    count_reliability,
    fit_temperature,
    reference_box,
    region_of,
    scale_temperature,
    temperature_losses,
)

N = 8640


def drawn(seed: int, sharper: float, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from a softmax, and what a network says that is ``sharper`` times too sure."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0.0, 1.5, (n_classes, N))
    true = softmax(logits, axis=0)
    label = (generator.random(N) > np.cumsum(true, axis=0)).sum(axis=0)
    return softmax(logits * sharper, axis=0), np.minimum(label, n_classes - 1).astype(np.uint8)


def test_error_of_a_network_that_is_always_as_sure() -> None:
    """Confidence 0.9, right in 30 of 40: the error is 0.15, all in one bin."""
    probabilities = np.zeros((2, 40))
    probabilities[0], probabilities[1] = 0.1, 0.9
    reference = np.ones(40, dtype=np.uint8)
    reference[:10] = 0
    counts = count_reliability(probabilities, reference)
    assert counts.expected_error == pytest.approx(0.15)
    assert (counts.n > 0).sum() == 1
    confidence, accuracy = counts.curve()
    # 0.9 is the upper end of its bin
    assert (confidence[17], accuracy[17]) == pytest.approx((0.9, 0.75))
    assert np.isnan(accuracy[0])


def test_opposite_errors_in_two_bins_do_not_cancel() -> None:
    probabilities = np.zeros((2, 20))
    probabilities[1, :10], probabilities[1, 10:] = 0.6, 0.93
    probabilities[0] = 1 - probabilities[1]
    reference = np.ones(20, dtype=np.uint8)
    reference[10:15] = 0
    assert count_reliability(probabilities, reference).expected_error == pytest.approx(0.5 * 0.4 + 0.5 * 0.43)


def test_the_bins_are_those_of_a_loop_over_voxels() -> None:
    probabilities, reference = drawn(0, 1.7)
    counts = count_reliability(probabilities, reference)
    found: dict[int, list[tuple[float, bool]]] = {}
    for place in range(N):
        values = probabilities[:, place]
        found.setdefault(math.ceil(values.max() * N_BINS) - 1, []).append(
            (values.max(), int(values.argmax()) == reference[place])
        )
    for index in range(N_BINS):
        pairs = found.get(index, [])
        assert counts.n[index] == len(pairs)
        assert counts.confidence[index] == pytest.approx(sum(pair[0] for pair in pairs))
        assert counts.n_right[index] == sum(pair[1] for pair in pairs)
    expected = sum(abs(np.mean([p[0] for p in v]) - np.mean([p[1] for p in v])) * len(v) for v in found.values())
    assert counts.expected_error == pytest.approx(expected / N)


def test_tables_of_parts_add_up() -> None:
    probabilities, reference = drawn(1, 1.0)
    whole = count_reliability(probabilities, reference)
    parts = [count_reliability(probabilities[:, part], reference[part]) for part in (slice(3000), slice(3000, None))]
    both = parts[0] + parts[1]
    np.testing.assert_array_equal(both.n, whole.n)
    np.testing.assert_array_equal(both.n_right, whole.n_right)
    assert both.expected_error == pytest.approx(whole.expected_error)
    assert math.isnan(count_reliability(probabilities[:, :0], reference[:0]).expected_error)


def test_a_calibrated_network_has_little_error_and_a_sharper_one_more() -> None:
    errors = [count_reliability(*drawn(2, sharper)).expected_error for sharper in (1.0, 1.5, 3.0)]
    # about the noise of 8640 voxels in 20 bins
    assert errors[0] < 0.02
    assert errors[0] < errors[1] < errors[2]
    assert errors[2] > 0.1


@pytest.mark.parametrize("sharper", [0.5, 1.0, 1.3, 2.5, 5.0])
def test_the_temperature_undoes_what_was_done(sharper: float) -> None:
    found = fit_temperature([temperature_losses(*drawn(seed, sharper)) for seed in range(4)])
    assert found == pytest.approx(sharper, rel=0.04)


def test_the_temperature_is_that_of_a_direct_minimisation() -> None:
    cases = [drawn(seed, 2.2) for seed in range(3)]

    def loss(temperature: float) -> float:
        return sum(
            -np.take_along_axis(
                log_softmax(np.log(probabilities) / temperature, axis=0), label[np.newaxis].astype(int), 0
            ).sum()
            for probabilities, label in cases
        )

    direct = minimize_scalar(loss, bounds=(0.5, 6.0), method="bounded", options={"xatol": 1e-7}).x
    tables = [temperature_losses(*case) for case in cases]
    assert fit_temperature(tables) == pytest.approx(direct, rel=1e-4)
    at = 25
    assert sum(table[0][at] for table in tables) == pytest.approx(loss(TEMPERATURES[at]), rel=1e-9)
    assert sum(table[1] for table in tables) == 3 * N


def test_scaling_is_softmax_of_divided_logits_and_keeps_the_class() -> None:
    logits = np.random.default_rng(3).normal(0, 3, (4, 5, 6, 7))
    scaled = scale_temperature(softmax(logits, axis=0), 2.5)
    np.testing.assert_allclose(scaled, softmax(logits / 2.5, axis=0), atol=1e-9)
    assert (scaled.argmax(axis=0) == logits.argmax(axis=0)).all()
    single = softmax(logits, axis=0).astype(np.float32)
    assert scale_temperature(single, 1.0).dtype == np.float32


def test_a_temperature_of_validation_cases_mends_others() -> None:
    temperature = fit_temperature([temperature_losses(*drawn(seed, 3.0)) for seed in range(3)])
    probabilities, reference = drawn(99, 3.0)
    before = count_reliability(probabilities, reference).expected_error
    after = count_reliability(scale_temperature(probabilities, temperature), reference).expected_error
    assert after < before / 4


def test_certainty_that_is_wrong_is_no_infinite_loss() -> None:
    probabilities = np.zeros((2, 2))
    probabilities[0] = 1.0
    reference = np.array([0, 1], dtype=np.uint8)
    losses, n = temperature_losses(probabilities, reference)
    assert n == 2
    assert np.isfinite(losses).all()
    assert losses[16] == pytest.approx(-math.log(1e-12))


def test_the_end_of_the_range_is_not_passed() -> None:
    certain = np.stack([np.full(4, 0.4), np.full(4, 0.6)])
    assert fit_temperature([temperature_losses(certain, np.ones(4, dtype=np.uint8))]) == pytest.approx(0.25)


def test_the_region_is_the_reference_with_a_margin_and_what_is_in_doubt_beyond() -> None:
    background = np.ones((30, 30, 30))
    reference = np.zeros((30, 30, 30), dtype=np.uint8)
    reference[20:23, 12, 2] = 1
    box = reference_box(reference, margin=3)
    # along K the margin is cut off by the volume's side
    assert box == (slice(17, 26), slice(9, 16), slice(0, 6))
    assert region_of(background, box).sum() == 9 * 7 * 6
    background[1, 1, 1], background[1, 1, 2] = 0.98, 0.995
    region = region_of(background, box)
    assert region[1, 1, 1]
    assert not region[1, 1, 2]
    assert not region_of(np.ones((4, 4, 4)), reference_box(np.zeros((4, 4, 4), dtype=np.uint8))).any()


def test_what_does_not_fit_is_refused() -> None:
    probabilities, reference = drawn(0, 1.0)
    with pytest.raises(GeometryError):
        count_reliability(probabilities[:, 1:], reference)
    with pytest.raises(DataError, match="above the 1 classes"):
        temperature_losses(probabilities[:2], reference)
    with pytest.raises(DataError, match="no validation voxel"):
        fit_temperature([])
