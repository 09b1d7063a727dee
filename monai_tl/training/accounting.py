"""What a training by DP-SGD spends: epsilon of so many noisy steps, and the noise that a budget asks for.

Opacus counts: Rényi differential privacy of the sampled Gaussian mechanism, whose epsilon is never too small.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from monai_tl.errors import ConfigError
from monai_tl.privacy_records import Guarantee


@dataclass(frozen=True)
class PrivacyRule:
    """How a training is kept private; the same for all of its steps.

    Attributes:
        sample_rate: Chance of each patient to be in a step.
        noise_multiplier: Standard deviation of the noise, by ``clip_norm``.
        clip_norm: Longest gradient of a patient.
        delta: That epsilon is told at.
        n_patients: Whose cases are trained on.
    """

    sample_rate: float
    noise_multiplier: float
    clip_norm: float
    delta: float
    n_patients: int

    @property
    def patients_a_step(self) -> float:
        """Mean number of patients in a step: a step's sum is divided by it, whoever is in."""
        return self.sample_rate * self.n_patients

    def guarantee(self, n_steps: int) -> Guarantee:
        """What holds after so many steps."""
        return Guarantee(
            epsilon=round(epsilon_of(self.noise_multiplier, self.sample_rate, n_steps, self.delta), 6),
            delta=self.delta,
            sample_rate=self.sample_rate,
            noise_multiplier=self.noise_multiplier,
            clip_norm=self.clip_norm,
            n_steps=n_steps,
            n_patients=self.n_patients,
        )


def require_opacus() -> None:
    """See that Opacus is there.

    Raises:
        ConfigError: It is not.
    """
    try:
        import opacus  # noqa: F401
    except ImportError:
        raise ConfigError(
            "finetune.privacy: dp_sgd needs Opacus; install it with "
            "pip install -c constraints.txt 'monai_tl[privacy]', or set privacy: none"
        ) from None


def make_rule(
    epsilon: float, delta: float, clip_norm: float, patients_a_step: int, n_patients: int, n_steps: int
) -> PrivacyRule:
    """The noise that keeps a training within its budget.

    Args:
        epsilon: What may be spent by the end of all steps.
        delta: That it is told at.
        clip_norm: Longest gradient of a patient.
        patients_a_step: On average.
        n_patients: In the fold.
        n_steps: The training's whole length.

    Raises:
        ConfigError: There are too few patients for the batch or for delta, or no noise is enough.
    """
    if patients_a_step > n_patients:
        raise ConfigError(
            f"finetune.batch_size: is {patients_a_step}, but with privacy: dp_sgd it is the mean number of patients in "
            f"a step, and the fold trains on {n_patients}; lower it"
        )
    if delta >= 1.0 / n_patients:
        raise ConfigError(
            f"finetune.privacy_delta: is {delta:g}, and must be well below 1 / {n_patients}, the share of one of the "
            "patients trained on: with a larger delta the data of one could be published whole"
        )
    rate = patients_a_step / n_patients
    require_opacus()
    # what is told is what is used, to the last bit
    noise = round(_noise_of(epsilon, delta, rate, n_steps) + 5e-7, 6)
    return PrivacyRule(rate, noise, clip_norm, delta, n_patients)


@lru_cache(maxsize=32)
def _noise_of(epsilon: float, delta: float, sample_rate: float, n_steps: int) -> float:
    """The noise multiplier of a budget, found by trying; a second or so."""
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with _quiet():
            return float(
                get_noise_multiplier(
                    target_epsilon=epsilon,
                    target_delta=delta,
                    sample_rate=sample_rate,
                    steps=n_steps,
                    accountant="rdp",
                    # as a share of the budget: Opacus' own, 0.01, would waste half of a small one
                    epsilon_tolerance=0.002 * epsilon,
                )
            )
    except ValueError:
        raise ConfigError(
            f"finetune.privacy_epsilon: {epsilon:g} at delta {delta:g} cannot be kept over {n_steps} steps with any "
            "noise; raise it, or lower max_steps or batch_size"
        ) from None


@lru_cache(maxsize=32)
def epsilon_of(noise_multiplier: float, sample_rate: float, n_steps: int, delta: float) -> float:
    """Epsilon of so many steps; 0 of none."""
    if not n_steps:
        return 0.0
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, n_steps)]
    with _quiet():
        return float(accountant.get_epsilon(delta=delta))


@contextmanager
def _quiet() -> Iterator[None]:
    # at the ends of its range of Rényi orders Opacus warns that the bound could be tighter; it holds all the same
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
