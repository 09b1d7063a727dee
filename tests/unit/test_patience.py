"""Early stopping: what counts as a plateau, in the transfer arm and in its twin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ladder_runs import make_settings, train
from torch import nn

from monai_tl.networks.lora import plain_state


def _scores(*values: float) -> Iterator[float]:
    yield from values
    while True:
        yield values[-1]


def test_a_network_that_has_not_yet_found_anything_is_not_stopped(tmp_path: Path) -> None:
    """A twin from scratch stays at Dice 0 while its loss falls: it gets its budget, and its latest weights count."""
    settings = make_settings("scratch", max_steps=12, validate_every=1, patience=2)
    run = train(tmp_path, settings, validate=lambda _: 0.0)
    assert (run.outcome.stop_reason, run.outcome.position.step, run.outcome.position.best_step) == ("budget", 12, 12)
    last = plain_state(run.network)
    assert all(torch.equal(tensor, last[name]) for name, tensor in run.outcome.state_dict.items())


@pytest.mark.parametrize(("scores", "n_steps", "best_step"), [((0.0, 0.0, 0.0, 0.3), 6, 4), ((0.3, 0.0), 3, 1)])
def test_from_the_first_score_on_patience_counts(
    scores: tuple[float, ...], n_steps: int, best_step: int, tmp_path: Path
) -> None:
    values = _scores(*scores)
    settings = make_settings("scratch", max_steps=12, validate_every=1, patience=2)
    run = train(tmp_path, settings, validate=lambda _: next(values))
    position = run.outcome.position
    assert (run.outcome.stop_reason, position.step, position.best_step) == ("patience", n_steps, best_step)


@pytest.mark.parametrize("strategy", ["lp_ft", "gradual", "discriminative", "lora", "norm_only", "l2_sp"])
def test_a_phase_that_prepares_the_next_is_not_cut_short(strategy: str, tmp_path: Path) -> None:
    settings = make_settings(strategy, max_steps=16, head_steps=6, group_steps=1, validate_every=1, patience=2)
    seen: list[nn.Module] = []

    def validate(network: nn.Module) -> float:
        seen.append(network)
        return 0.5

    run = train(tmp_path, settings, validate=validate)
    last = {"gradual": 9}.get(strategy, 6)
    # the first two validations of the last phase are no better
    assert (run.outcome.stop_reason, run.outcome.position.step) == ("patience", last + 2)
    assert len(seen) == last + 2
