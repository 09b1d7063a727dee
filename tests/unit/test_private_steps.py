"""DP-SGD by patient: the accountant against closed forms, and what a step lets through of one patient."""

from __future__ import annotations

import math
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ladder_runs import KilledError, Run, make_settings, make_trained_network, make_trainer, make_unet
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import binom, kstest
from torch import nn

import monai_tl.training.loop
from monai_tl.config import FinetuneConfig, NetworkConfig
from monai_tl.errors import CheckpointError, ConfigError, PrivacyError
from monai_tl.networks.builders import groups_of
from monai_tl.training.accounting import epsilon_of, make_rule, require_opacus
from monai_tl.training.checkpoint import read_newest
from monai_tl.training.loop import Trainer
from monai_tl.training.private_steps import PrivateSteps, make_private
from monai_tl.training.secret_numbers import KEY_FILE, SecretNumbers, load_secret
from monai_tl.training.tuning import Tuning
from monai_tl.transfer.strategy import make_strategy

pytest.importorskip("opacus")
GROUP = make_unet(norm=["group", {"num_groups": 2}], dropout=0.2)
UNITS = ((0,), (1, 2))


def _exact_epsilon(noise: float, n_steps: int, delta: float) -> float:
    """Of the plain Gaussian mechanism, n times, as one of noise / √n (Balle and Wang 2018, arXiv:1805.06530)."""
    sensitivity = math.sqrt(n_steps) / noise

    def gap(epsilon: float) -> float:
        inside = ndtr(sensitivity / 2 - epsilon / sensitivity)
        outside = math.exp(epsilon) * ndtr(-sensitivity / 2 - epsilon / sensitivity)
        return float(inside - outside) - delta

    return float(brentq(gap, 0.0, 200.0))


@pytest.mark.parametrize(("noise", "n_steps"), [(1.0, 1), (5.0, 10), (20.0, 300)])
def test_where_all_patients_are_in_each_step_epsilon_is_that_of_the_gaussian_mechanism(
    noise: float, n_steps: int
) -> None:
    exact = _exact_epsilon(noise, n_steps, 1e-5)
    told = epsilon_of(noise, 1.0, n_steps, 1e-5)
    # Rényi's is a bound: never below, and not far above
    assert exact <= told <= 1.2 * exact


def test_sampling_lowers_epsilon_and_another_accountant_agrees() -> None:
    from opacus.accountants import PRVAccountant

    other = PRVAccountant()
    other.history = [(1.1, 0.1, 200)]
    tight, told = other.get_epsilon(delta=1e-5), epsilon_of(1.1, 0.1, 200, 1e-5)
    assert 0.98 * tight <= told <= 1.25 * tight
    assert told < epsilon_of(1.1, 0.2, 200, 1e-5) < epsilon_of(1.1, 0.2, 400, 1e-5)
    assert epsilon_of(1.1, 0.1, 0, 1e-5) == 0.0


def test_the_budget_is_kept_and_used() -> None:
    rule = make_rule(4.0, 1e-4, 0.5, patients_a_step=4, n_patients=20, n_steps=100)
    assert (rule.sample_rate, rule.patients_a_step, rule.clip_norm) == (0.2, 4.0, 0.5)
    guarantee = rule.guarantee(100)
    assert 3.99 <= guarantee.epsilon <= 4.0
    assert guarantee.unit == "patient"
    assert rule.guarantee(50).epsilon < guarantee.epsilon


def test_budgets_that_mean_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="must be well below 1 / 20"):
        make_rule(4.0, 0.05, 1.0, 4, 20, 10)
    with pytest.raises(ConfigError, match=r"batch_size: is 21.*trains on 20"):
        make_rule(4.0, 1e-5, 1.0, 21, 20, 10)
    with pytest.raises(ConfigError, match="cannot be kept"):
        make_rule(1e-9, 1e-9, 1.0, 20, 20, 10**6)
    with pytest.raises(ValueError, match="find_learning_rate"):
        FinetuneConfig(privacy="dp_sgd", find_learning_rate=True)
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"monai_tl\[privacy\]"):
        require_opacus()


def test_noise_is_standard_normal_and_a_function_of_everything_that_tells_it_apart() -> None:
    numbers = SecretNumbers(b"s" * 32, "training")
    drawn = numbers.normal("weight", 3, 200_000)
    assert kstest(drawn, "norm").pvalue > 1e-3
    # the standard deviation of 200 000 is known to 0.5 %, at three times its error
    assert drawn.std() == pytest.approx(1.0, abs=0.005)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.008
    assert np.array_equal(drawn, SecretNumbers(b"s" * 32, "training").normal("weight", 3, 200_000))
    others = [
        numbers.normal("weight", 4, 1000),
        numbers.normal("bias", 3, 1000),
        SecretNumbers(b"s" * 32, "other").normal("weight", 3, 1000),
        SecretNumbers(b"t" * 32, "training").normal("weight", 3, 1000),
    ]
    assert all(abs(np.corrcoef(drawn[:1000], other)[0, 1]) < 0.13 for other in others)
    # longer than what is made at a time
    assert kstest(numbers.normal("long", 0, (1 << 20) + 5)[-1000:], "norm").pvalue > 1e-3
    assert "s" * 8 not in repr(numbers)


def test_patients_are_drawn_by_themselves_each_with_the_same_chance() -> None:
    numbers = SecretNumbers(b"s" * 32, "training")
    drawn = [numbers.chosen(step, 12, 0.25) for step in range(2000)]
    counts = np.bincount([len(one) for one in drawn], minlength=13)
    expected = binom.pmf(np.arange(13), 12, 0.25) * 2000
    assert sum((counts[:8] - expected[:8]) ** 2 / expected[:8]) < 26.1  # chi-square of 8, one in a thousand
    assert counts[0] > 0
    each = np.bincount(np.concatenate(drawn).astype(int), minlength=12) / 2000
    assert np.all(np.abs(each - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000))
    assert numbers.chosen(0, 12, 1.0) == list(range(12))


def test_the_secret_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    secret = load_secret(tmp_path / "state")
    assert len(secret) == 32
    assert load_secret(tmp_path / "state") == secret != load_secret(tmp_path / "other")
    path = tmp_path / "state" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [KEY_FILE]
    path.chmod(0o640)
    with pytest.raises(PrivacyError, match="chmod 600"):
        load_secret(tmp_path / "state")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(PrivacyError, match="5 bytes"):
        load_secret(tmp_path / "state")


def _settings(strategy: Any = "full", **changes: Any) -> FinetuneConfig:
    defaults = {
        "privacy": "dp_sgd",
        "privacy_delta": 1e-3,
        "patient_clip": 0.01,
        "batch_size": 1,
        "arms": ("transfer",),
    }
    return make_settings(strategy, **{**defaults, **changes})


def _private(folder: Path, config: FinetuneConfig, units: Any = UNITS) -> PrivateSteps:
    return make_private(folder, "training", config, units, config.max_steps)


def _tuning(network: NetworkConfig, config: FinetuneConfig) -> Tuning:
    module = make_trained_network(network)
    groups = groups_of(network, module)
    names = [group.name for group in groups]
    return Tuning(module, groups, make_strategy(config.strategy, config, names, names[-1]), config)


def test_a_patient_gives_no_more_than_the_clip_whatever_its_images(tmp_path: Path) -> None:
    """On a real network with real losses: sums without and with a patient differ by at most the clip, noise apart."""
    config = _settings(batch_size=2)
    trainer = make_trainer(tmp_path / "run", config, GROUP)
    private, tuning, sampler = _private(tmp_path, config), trainer.tuning, trainer.sampler
    everybody = private.batches(sampler, 0)
    assert len(everybody) == 2

    def sums(batches: list[Any], factor: float = 1.0) -> torch.Tensor:
        torch.manual_seed(0)
        made = private.make_gradients(batches, lambda batch: factor * trainer._loss(trainer.network, batch), tuning, 0)
        assert made is None
        return torch.cat([parameter.grad.reshape(-1).double() for parameter in tuning.trained])

    private.optimiser = None
    both, alone, nobody = sums(everybody), sums(everybody[:1]), sums([])
    mean = private.rule.patients_a_step
    first, second = (alone - nobody).norm() * mean, (both - alone).norm() * mean
    # far above the clip, so it is cut to it exactly; float32 sums of noise allow some parts in a million of the noise
    assert float(first) == pytest.approx(0.01, rel=2e-3)
    assert float(second) == pytest.approx(0.01, rel=2e-3)
    huge = (sums(everybody[:1], 1e6) - nobody).norm() * mean
    assert float(huge) <= 0.01 * 1.002
    # below the clip a gradient is taken as it is
    small, half = ((sums(everybody[:1], factor) - nobody) * mean for factor in (2e-5, 1e-5))
    assert float(small.norm()) < 0.008
    assert torch.nn.functional.cosine_similarity(small, half, dim=0) > 0.99
    assert float(small.norm() / half.norm()) == pytest.approx(2.0, rel=0.05)


def test_the_noise_of_a_step_has_the_standard_deviation_that_was_accounted(tmp_path: Path) -> None:
    config = _settings(batch_size=2)
    private, tuning = _private(tmp_path, config), _tuning(GROUP, config)
    private.make_gradients([], lambda batch: torch.zeros(()), tuning, 5)
    noise = torch.cat([parameter.grad.reshape(-1) for parameter in tuning.trained]) * private.rule.patients_a_step
    expected = private.rule.noise_multiplier * 0.01
    assert float(noise.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * noise.numel()))
    assert abs(float(noise.mean())) < 4 * expected / math.sqrt(noise.numel())
    # every parameter that trains has its own
    assert len({float(parameter.grad.reshape(-1)[0]) for parameter in tuning.trained}) == len(tuning.trained)


def test_all_cases_of_a_patient_are_one_gradient(tmp_path: Path) -> None:
    config = _settings(batch_size=2, patient_patches=3)
    trainer = make_trainer(tmp_path / "run", config, GROUP)
    private = _private(tmp_path, config)
    seen: dict[int, set[str]] = {0: set(), 1: set()}
    for step in range(20):
        batches = private.batches(trainer.sampler, step)
        assert [batch.image.shape[0] for batch in batches] == [3, 3]
        for unit, batch in enumerate(batches):
            seen[unit] |= set(batch.case_ids)
    names = [case.case_id for case in trainer.sampler.cases]
    assert seen == {0: {names[0]}, 1: {names[1], names[2]}}


def _train(folder: Path, config: FinetuneConfig, stop_at: int | None = None, secret: str = "") -> Run:
    torch.set_num_threads(1)
    private = _private(folder.parent / f"state{secret}", config)
    plain = make_trainer(folder, config, GROUP, stop_at=stop_at)
    trainer = Trainer(
        plain.network, plain.groups, plain.strategy, plain.sampler, plain.validate, config, 2, folder, plain.progress,
        private=private,
    )  # fmt: skip
    return Run(trainer.run(), trainer.network, tuple(trainer.groups), {})


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [("lp_ft", {"ema_decay": 0.7}), ("feature_extraction", {}), ("lora", {"patient_patches": 2})],
)
def test_cut_off_again_and_again_a_private_training_ends_on_the_same_bits(
    strategy: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monai_tl.training.loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    config = _settings(strategy, **changes)
    expected = _train(tmp_path / "whole", config)
    for step in (2, 4, 7):
        with pytest.raises(KilledError):
            _train(tmp_path / "cut", config, stop_at=step)
    state = read_newest(tmp_path / "cut")
    assert state is not None
    assert state["privacy"]["sample_rate"] == 0.5
    found = _train(tmp_path / "cut", config)
    assert all(
        torch.equal(tensor, found.outcome.state_dict[name]) for name, tensor in expected.outcome.state_dict.items()
    )
    assert found.outcome.position == expected.outcome.position
    assert expected.outcome.guarantee is not None
    assert expected.outcome.guarantee == found.outcome.guarantee
    assert expected.outcome.guarantee.n_steps == config.max_steps
    # another secret is another noise, and no other training goes on with this one's checkpoint
    other = _train(tmp_path / "other", config, secret="2")
    names = [name for name, tensor in expected.outcome.state_dict.items() if tensor.is_floating_point()]
    assert any(not torch.equal(expected.outcome.state_dict[n], other.outcome.state_dict[n]) for n in names)
    with pytest.raises(CheckpointError, match="other noise"):
        _train(tmp_path / "cut", config, secret="2")


def test_it_takes_all_steps_keeps_the_last_weights_and_tells_no_loss(tmp_path: Path) -> None:
    config = _settings(validate_every=2, patience=1, head_steps=0)
    run = _train(tmp_path / "run", config)
    position = run.outcome.position
    assert (position.step, position.best_step, run.outcome.stop_reason) == (
        config.max_steps,
        config.max_steps,
        "budget",
    )
    last = run.network.state_dict()
    assert all(torch.equal(tensor, last[name]) for name, tensor in run.outcome.state_dict.items())
    assert {row.train_loss for row in position.history} == {None}


class _Remembering(nn.Module):
    """Keeps a mean of what it sees, as no normalisation layer of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen = 0.9 * self.seen + 0.1 * image.detach().mean()
        return image


def test_what_carries_patients_past_the_noise_is_refused(tmp_path: Path) -> None:
    config = _settings("lp_ft")
    private = _private(tmp_path, config)
    shape, device = (1, 16, 16, 16), torch.device("cpu")
    batch = _tuning(make_unet(), config)
    with pytest.raises(ConfigError, match=r"batch.*instance or group normalisation.*norm_statistics: source"):
        private.check(batch.network, batch, shape, device)
    # frozen, its statistics stand still, and only the head trains
    frozen = _settings("feature_extraction")
    held = _tuning(make_unet(), frozen)
    if not any(isinstance(layer, nn.BatchNorm3d) for layer in held.network.get_submodule("model.2").modules()):
        private.check(held.network, held, shape, device)
    tuning = _tuning(GROUP, config)
    private.check(tuning.network, tuning, shape, device)
    assert tuning.phase is tuning.strategy.phases[0]
    assert all(parameter.grad is None for parameter in tuning.network.parameters())
    tuning.network.model.add_module("3", _Remembering())
    with pytest.raises(ConfigError, match=r"model\.3\.seen of the network moves"):
        private.check(tuning.network, tuning, shape, device)


def test_the_normalisation_of_a_frozen_body_trains_where_it_is_by_groups(tmp_path: Path) -> None:
    """Channels last, torch's own backward pass ends the process here; the gradient is that of the plain layout."""
    config = _settings("norm_only", head_steps=0)
    tuning = _tuning(GROUP, config)
    _private(tmp_path, config).check(tuning.network, tuning, (1, 16, 16, 16), torch.device("cpu"))
    tuning.enter(tuning.strategy.phases[-1])
    tuning.network.eval()
    image = torch.rand((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    found = []
    for layout in (torch.channels_last_3d, torch.contiguous_format):
        network = tuning.network.to(memory_format=layout)
        network.zero_grad(set_to_none=True)
        network(image).square().mean().backward()
        found.append({name: one.grad.clone() for name, one in network.named_parameters() if one.grad is not None})
    assert any(name.endswith("N.weight") for name in found[0])
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-6) for name in found[0])
