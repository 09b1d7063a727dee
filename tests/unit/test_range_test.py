"""The learning-rate range test: what it chooses on losses that are known, and that it leaves no trace."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ladder_runs import make_settings, make_trainer, train

from monai_tl.training.batches import make_batch
from monai_tl.training.checkpoint import random_state
from monai_tl.training.range_test import FILE, HIGHEST, LOWEST, RangeTest, choose_rate, run_range_test, smooth
from monai_tl.training.range_test import kept_range_test as keep


def test_it_takes_a_tenth_of_the_rate_with_the_smallest_loss() -> None:
    rates = [10.0**k for k in range(-5, 1)]
    assert choose_rate(rates, [5.0, 4.0, 2.0, 1.0, 3.0, float("nan")]) == pytest.approx(1e-3)
    assert choose_rate(rates, [1.0, 4.0, 2.0, 1.0, 3.0, 9.0]) is None
    assert choose_rate([], []) is None


def test_a_rate_below_all_that_were_tried_is_none() -> None:
    """A smallest loss among the first rates is noise; a tenth of its rate would train nothing."""
    rates = [LOWEST * 10.0 ** (k / 4) for k in range(20)]
    for best in range(20):
        found = choose_rate(rates, [1.0 + abs(k - best) for k in range(20)])
        assert (found is None) == (best < 4)
        assert found is None or found == pytest.approx(rates[best - 4])


def test_smoothing_is_a_weighted_mean_without_a_start() -> None:
    losses = [3.0, 1.0, 4.0, 1.0]
    for n in range(1, 5):
        ages = np.array([0.9 ** (n - 1 - k) for k in range(n)])
        assert smooth(losses[:n])[-1] == pytest.approx(float(ages @ losses[:n] / ages.sum()))


def _snapshot() -> tuple[object, ...]:
    state = random_state()
    return state["torch"].tolist(), state["numpy"], state["python"]


@pytest.mark.parametrize("strategy", ["lora", "gradual"])
def test_it_leaves_network_random_state_and_sampler_as_they_were(strategy: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_settings(strategy))
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    states, batch = _snapshot(), make_batch(trainer.sampler, 2, 0)
    make = partial(make_batch, trainer.sampler, 2)
    found = [
        run_range_test(trainer.network, trainer.tuning, partial(trainer._loss, trainer.network), make, seed=0)
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert found[0].rates[0] == LOWEST
    assert all(b > a for a, b in zip(found[0].rates, found[0].rates[1:], strict=False))
    assert found[0].rates[-1] <= HIGHEST * (1 + 1e-9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items())
    assert _snapshot() == states
    assert torch.equal(make_batch(trainer.sampler, 2, 0).image, batch.image)
    assert trainer.tuning.phase is trainer.strategy.phases[0]
    assert not trainer.tuning.optimiser.state


def test_the_chosen_rate_is_the_one_that_is_trained_with(tmp_path: Path) -> None:
    config = make_settings("lp_ft", find_learning_rate=True, schedule="constant", warmup_steps=0)
    outcome = train(tmp_path, config).outcome
    found = outcome.facts["learning_rate_test"]
    assert found["rate"] is not None
    assert found["rate"] == pytest.approx(found["rates"][int(np.argmin(found["losses"]))] / 10)
    rates = {row.phase: row.learning_rate for row in outcome.position.history}
    # the head's phase before keeps its own
    assert rates == pytest.approx({"head": config.head_learning_rate, "all": found["rate"]})


def test_it_is_done_once_and_a_damaged_record_is_made_again(tmp_path: Path) -> None:
    results = iter([RangeTest(0.1, (1.0,), (2.0,)), RangeTest(0.2, (1.0,), (2.0,))])
    assert keep(tmp_path, lambda: next(results)).rate == 0.1
    assert keep(tmp_path, lambda: next(results)).rate == 0.1
    (tmp_path / FILE).write_text("{")
    assert keep(tmp_path, lambda: next(results)).rate == 0.2
