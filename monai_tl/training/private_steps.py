"""Steps of DP-SGD whose unit is the patient: one clipped gradient each, noise on their sum. Opacus clips and sums.

Each patient passes the network alone, all its patches at once, so any network without statistics over the batch will
do, and memory is that of one patient (docs/decisions/0017-differential-privacy.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from monai_tl.config import FinetuneConfig
from monai_tl.dataset.patches import PatchSampler
from monai_tl.errors import CheckpointError, ConfigError
from monai_tl.files import sha256_of
from monai_tl.privacy_records import Guarantee
from monai_tl.training.accounting import PrivacyRule, make_rule, require_opacus
from monai_tl.training.batches import Batch
from monai_tl.training.ranks import layers_with_batch_statistics
from monai_tl.training.secret_numbers import SecretNumbers, load_secret
from monai_tl.training.tuning import Tuning


class PrivateSteps:
    """Who is in a step, what each gives to it, and the noise.

    Args:
        units: For each patient the positions of its cases in the sampler.
        rule: Rate, noise and clipping.
        numbers: Secret ones, for sampling and noise.
        n_patches: Of a patient in a step; their mean loss gives its gradient.
    """

    def __init__(
        self, units: Sequence[Sequence[int]], rule: PrivacyRule, numbers: SecretNumbers, n_patches: int
    ) -> None:
        require_opacus()
        self.units, self.rule, self.numbers, self.n_patches = units, rule, numbers, n_patches
        self.optimiser: Any = None

    def batches(self, sampler: PatchSampler, step: int) -> list[Batch]:
        """A batch for each patient in a step; none where nobody is."""
        return [self._batch(sampler, step, unit) for unit in self.numbers.chosen(step, len(self.units), self._rate)]

    @property
    def _rate(self) -> float:
        return self.rule.sample_rate

    def _batch(self, sampler: PatchSampler, step: int, unit: int) -> Batch:
        made = [sampler.make_of(self.units[unit], (step, unit, number)) for number in range(self.n_patches)]
        return Batch(
            case_ids=tuple(case_id for case_id, _, _ in made),
            image=torch.from_numpy(np.stack([image for _, image, _ in made])),
            label=torch.from_numpy(np.stack([label for _, _, label in made])),
        )

    def check(self, network: nn.Module, tuning: Tuning, shape: Sequence[int], device: torch.device) -> None:
        """See that nothing but gradients carries a patient's data into the network; then stand at the first phase.

        A real step is taken on made-up voxels in each phase: buffers must not move in it.

        Args:
            network: With its starting weights.
            tuning: Its optimiser.
            shape: (C, I, J, K) of a patch.
            device: Of the network.

        Raises:
            ConfigError: A layer takes statistics over its batch, or a buffer moves.
        """
        generator = torch.Generator().manual_seed(0)
        image = torch.rand((2, *shape), generator=generator).to(device)
        for phase in tuning.strategy.phases:
            tuning.enter(phase)
            network.train()
            if found := layers_with_batch_statistics(network):
                raise ConfigError(
                    f"finetune.privacy: layer {found[0]} takes statistics over its batch or moves a mean of them, "
                    "which no noise hides; take a network with instance or group normalisation (plan.network, or a "
                    "source of one), or, where the source has statistics, keep them: finetune.norm_statistics: source"
                )
            before = {name: buffer.clone() for name, buffer in network.named_buffers()}
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.autograd.backward(network(image).square().mean())
            moved = [name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])]
            for parameter in network.parameters():
                parameter.grad = None
            if moved:
                raise ConfigError(
                    f"finetune.privacy: {moved[0]} of the network moves in a forward pass, which no noise hides; take "
                    "another network"
                )
        tuning.restart(tuning.strategy)

    def make_gradients(
        self, batches: Sequence[Batch], loss_of: Callable[[Batch], Tensor], tuning: Tuning, step: int
    ) -> Batch | None:
        """Put a step's noisy gradients in place: of each patient the clipped one, their sum, the noise.

        Args:
            batches: One a patient; there may be none.
            loss_of: Mean loss of a batch.
            tuning: Whose parameters get the gradients.
            step: From 0; with the secret it decides the noise.

        Returns:
            The batch whose gradient is not finite, at which it stopped; None when all went well.
        """
        self.begin(tuning)
        for batch in batches:
            torch.autograd.backward(loss_of(batch))
            if not math.isfinite(self.add(tuning)):
                return batch
        self.finish(tuning, step)
        return None

    def begin(self, tuning: Tuning) -> None:
        """Begin a step, with the optimiser of the phase."""
        if self.optimiser is None or self.optimiser.original_optimizer is not tuning.optimiser:
            self.optimiser = _make_optimiser(tuning, self.rule)
        self.optimiser.zero_grad(set_to_none=True)

    def add(self, tuning: Tuning) -> float:
        """Take the gradients that are there as one patient's: clip them, add them to the sum, clear them.

        Returns:
            The norm before clipping.
        """
        norm = torch.zeros(())
        for parameter in tuning.trained:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = None
            norm = norm + gradient.detach().double().square().sum().cpu()
            parameter.grad_sample = gradient.detach().unsqueeze(0)  # type: ignore[attr-defined]
        self.optimiser.clip_and_accumulate()
        return float(norm.sqrt())

    def finish(self, tuning: Tuning, step: int) -> None:
        """Put the noisy sum, by the mean number of patients, in place of the gradients."""
        rule = self.rule
        for name, parameter in zip(tuning.names, tuning.trained, strict=True):
            total: Tensor | None = parameter.summed_grad  # type: ignore[attr-defined]
            noise = self.numbers.normal(name, step, parameter.numel()) * (rule.noise_multiplier * rule.clip_norm)
            noisy = torch.from_numpy(noise).view(parameter.shape)
            if total is not None:
                noisy = noisy + total.detach().cpu().double()
            # with the strides of the parameter, which a fused optimiser goes by
            parameter.grad = torch.empty_like(parameter).copy_(noisy / rule.patients_a_step)
            parameter.grad_sample = parameter.summed_grad = None  # type: ignore[attr-defined]

    def guarantee(self, n_steps: int) -> Guarantee:
        """What holds after so many steps."""
        return self.rule.guarantee(n_steps)

    def state(self) -> dict[str, Any]:
        """For a checkpoint: with the number of steps it is all that accountant and noise are functions of."""
        return {**asdict(self.rule), "secret": self.numbers.identity}

    def check_state(self, state: dict[str, Any] | None) -> None:
        """See that a checkpoint was made with the same noise.

        Raises:
            CheckpointError: It was not.
        """
        if state != self.state():
            raise CheckpointError(
                "the checkpoint was made with other noise (.monai_tl/privacy.key is not the one it was begun with); "
                "put the key back, or remove the training's folder below .monai_tl/train to start anew"
            )


def make_private(
    state: Path, training: str, config: FinetuneConfig, units: Sequence[Sequence[int]], n_steps: int
) -> PrivateSteps:
    """Private steps within a training's budget.

    Args:
        state: ``.monai_tl`` of the workspace, which keeps the secret.
        training: Hash of all that decides the training.
        config: Section finetune.
        units: For each patient the positions of its cases in the sampler.
        n_steps: The training's whole length.

    Raises:
        ConfigError: Opacus is missing, or the budget cannot be kept.
        PrivacyError: Others may read the secret.
    """
    require_opacus()
    rule = make_rule(
        config.privacy_epsilon, config.privacy_delta, config.patient_clip, config.batch_size, len(units), n_steps
    )
    # the patients are part of it: noise of another grouping of the same cases must be another
    numbers = SecretNumbers(load_secret(state), f"{training}|{sha256_of(repr(tuple(units)))}")
    return PrivateSteps(units, rule, numbers, config.patient_patches)


def _make_optimiser(tuning: Tuning, rule: PrivacyRule) -> Any:
    from opacus.optimizers import DPOptimizer

    return DPOptimizer(
        tuning.optimiser,
        noise_multiplier=rule.noise_multiplier,
        max_grad_norm=rule.clip_norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )
