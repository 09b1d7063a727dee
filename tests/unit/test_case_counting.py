"""A case counted slab by slab is the case counted whole; members of a mean are what each gives alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from monai_tl.metrics.calibration import fit_temperature
from monai_tl.metrics.counting import MOST_FITTED, CaseCounting, EvenSample, reliability_counts
from monai_tl.networks.passes import Passing

SHAPE = (20, 16, 12)


def drawn(sharper: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (3, I, J, K) that are ``sharper`` times too sure, and classes drawn from the true ones."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0.0, 1.5, (3, *SHAPE))
    label = (generator.random(SHAPE) > np.cumsum(softmax(logits, axis=0), axis=0)).sum(axis=0)
    return softmax(logits * sharper, axis=0).astype(np.float32), np.minimum(label, 2).astype(np.uint8)


def counted(
    values: np.ndarray, label: np.ndarray, axis: int, cuts: tuple[int, ...], **settings: object
) -> CaseCounting:
    counting = CaseCounting(label, **settings)  # type: ignore[arg-type]
    ends = (0, *cuts, SHAPE[axis])
    for start, stop in pairwise(ends):
        counting.add(axis, start, np.take(values, range(start, stop), axis=1 + axis))
    return counting


@pytest.mark.parametrize(("axis", "cuts"), [(0, (4, 9)), (1, (1, 15)), (2, (6,))])
def test_slabs_give_what_the_whole_gives(axis: int, cuts: tuple[int, ...]) -> None:
    values, label = drawn(2.0)
    # a reference that fills a corner, in a prediction that is sure of nothing there, so that the region matters
    label[8:], label[:, 7:] = 0, 0
    values[0, 14:] = 1.0
    values[1:, 14:] = 0.0
    settings = {"temperature": 2.0}
    whole, parts = counted(values, label, axis, (), **settings), counted(values, label, axis, cuts, **settings)
    assert whole.record().reliability.n == parts.record().reliability.n  # type: ignore[union-attr]
    assert whole.record().scaled.n_right == parts.record().scaled.n_right  # type: ignore[union-attr]
    assert parts.record().entropy == pytest.approx(whole.record().entropy, abs=2e-6)
    # 8 × 7 planes of reference and 5 voxels more on the open sides; beyond, what is in doubt
    n_box, n_doubt = 13 * 12 * 12, (values[0] < 0.99).sum() - (values[0, :13, :12] < 0.99).sum()
    assert sum(whole.record().reliability.n) == n_box + n_doubt  # type: ignore[union-attr]
    assert n_doubt > 100


def test_a_temperature_known_by_construction_is_found_and_mends_other_cases() -> None:
    fitted = [counted(*drawn(2.5, seed), axis=0, cuts=(10,), fits=True) for seed in range(4)]
    temperature = fit_temperature([one.losses() for one in fitted])
    assert temperature == pytest.approx(2.5, rel=0.05)
    record = counted(*drawn(2.5, 9), axis=2, cuts=(5,), temperature=temperature).record()
    before, after = (reliability_counts(one).expected_error for one in (record.reliability, record.scaled))  # type: ignore[arg-type]
    assert before > 0.1
    assert after < 0.03


@pytest.mark.parametrize("n", [0, 7, MOST_FITTED, MOST_FITTED + 1, 2 * MOST_FITTED - 1, 5 * MOST_FITTED + 3])
def test_a_temperature_is_fitted_on_so_many_voxels_of_a_case_at_most_and_evenly(n: int) -> None:
    sample = EvenSample()
    order = np.arange(n)
    for part in np.array_split(order, 13):
        sample.add(np.stack([part, part]), part)
    probabilities, taken = sample.taken()
    assert len(taken) <= MOST_FITTED
    assert len(taken) >= min(n, MOST_FITTED // 2)
    # equal steps from the first voxel to the last, and each with its own probabilities
    assert len(set(np.diff(taken).tolist())) <= 1
    if n:
        assert taken[0] == 0
        assert n - taken[-1] <= max(1, *np.diff(taken[:2]).tolist(), 1)
    if len(taken):
        np.testing.assert_array_equal(probabilities, [taken, taken])


def test_a_case_in_doubt_everywhere_is_held_to_the_cap_too() -> None:
    """The voxels that count may be many more than the reference's box holds."""
    shape = (64, 64, 40)
    foreground = np.random.default_rng(0).uniform(0.2, 0.8, shape).astype(np.float32)
    label = np.zeros(shape, dtype=np.uint8)
    label[30, 30, 20] = 1
    counting = CaseCounting(label, fits=True)
    for start in range(0, 64, 16):
        slab = foreground[start : start + 16]
        counting.add(0, start, np.stack([1 - slab, slab]))
    _, n = counting.losses()
    assert MOST_FITTED // 2 <= n <= MOST_FITTED < 64 * 64 * 40


def test_a_case_without_a_reference_has_an_uncertainty_alone() -> None:
    values, _ = drawn(1.0)
    counting = CaseCounting(None, temperature=2.0)
    counting.add(0, 0, values)
    record = counting.record()
    assert (record.reliability, record.scaled, record.disagreement) == (None, None, None)
    assert record.entropy > 0.1


def networks(n: int) -> list[nn.Module]:
    made = []
    for seed in range(n):
        torch.manual_seed(seed)
        made.append(nn.Conv3d(1, 3, 3, padding=1).eval())
    return made


@pytest.mark.parametrize(("n", "axes", "n_members"), [(1, (), 0), (3, (), 3), (1, (0, 2), 4), (2, (1,), 2)])
def test_members_are_what_each_gives_alone_and_the_mean_stays_the_same_bits(
    n: int, axes: tuple[int, ...], n_members: int
) -> None:
    windows = torch.randn(2, 1, 6, 5, 4, generator=torch.Generator().manual_seed(1))
    made = networks(n)
    passing = Passing(made, mirrored_axes=axes, tells_members=True)
    assert passing.n_members == n_members
    found, plain = passing(windows), Passing(made, mirrored_axes=axes)(windows)
    assert torch.equal(found[:, :3], plain)
    assert found.shape[1] == 3 + n_members
    if n > 1:
        alone = [1 - Passing([network], mirrored_axes=axes)(windows)[:, 0] for network in made]
    else:
        dims = [[2 + axis for axis in mirror] for mirror in passing.mirrors] if n_members else []
        alone = [1 - torch.softmax(made[0](windows.flip(turned)), 1).flip(turned)[:, 0].detach() for turned in dims]
    for index, expected in enumerate(alone):
        assert (found[:, 3 + index] - expected).abs().max() < 1e-6
