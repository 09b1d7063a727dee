"""The training loop: short, visible, exact. Killed and resumed, it ends on the same bits as if never killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_tl.config import FinetuneConfig
from monai_tl.dataset.patches import PatchSampler
from monai_tl.errors import CheckpointError, DivergenceError
from monai_tl.networks.groups import LayerGroup, set_trainable
from monai_tl.progress import Progress
from monai_tl.training.batches import Batch, stream_batches
from monai_tl.training.checkpoint import (
    random_state,
    read_newest,
    restore_random_state,
    seed_everything,
    write_checkpoint,
)
from monai_tl.training.losses import SegmentationLoss
from monai_tl.training.position import HistoryRow, Outcome, Position
from monai_tl.training.schedule import learning_rate
from monai_tl.training.signals import catch_signals
from monai_tl.transfer.strategy import Phase, Strategy

Validate = Callable[[nn.Module], float | None]
"""Mean foreground Dice of the validation cases; None when there is none to score."""
SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""At most this much work is lost to a kill, however far apart the validations are."""
HISTORY_ROWS = 50
"""About so many rows of the learning curve, beside one for each validation."""


class Trainer:
    """One training run: a network, its samples, a strategy, and where it stands.

    Args:
        network: Already on ``device``; its weights are where training starts.
        groups: Layer groups of the network from input to output.
        strategy: Phases over the whole budget.
        sampler: Gives each sample by its number.
        validate: Scores the network; need not care for random state, gradients or mode.
        config: Rates, batch size, patience …
        n_outputs: Channels of the logits.
        folder: Of the checkpoints; the caller holds its lock.
        progress: Told of steps, losses and scores.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[LayerGroup],
        strategy: Strategy,
        sampler: PatchSampler,
        validate: Validate,
        config: FinetuneConfig,
        n_outputs: int,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.network = network
        self.groups = groups
        self.strategy = strategy
        self.sampler = sampler
        self.validate = validate
        self.config = config
        self.folder = folder
        self.progress = progress
        self.loss = SegmentationLoss(n_outputs)
        self.device = next(network.parameters()).device
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.saved_at = time.monotonic()
        seed_everything(config.seed)
        self._enter(strategy.phases[0])

    def run(self) -> Outcome:
        """Train to the end of the budget or of patience, from the newest whole checkpoint if there is one.

        Raises:
            DivergenceError: The loss or gradient is not finite; names the cases of the batch.
            CheckpointError: A checkpoint cannot be written.
            SystemExit: 143 on SIGTERM (130 on SIGINT), after a checkpoint.
        """
        self._resume()
        batches = stream_batches(self.sampler, self.config.batch_size, self.position.step, self.strategy.n_steps)
        with catch_signals() as request, closing(batches):
            try:
                while True:
                    if self._is_validation_due():
                        with request.immediate():
                            dice = self._score()
                        self._judge(dice)
                        self._save()
                    if self.position.step == self.strategy.n_steps or self._is_patience_over():
                        break
                    self._step(next(batches))
                    request.raise_if_made()
                    if time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                        self._save()
            except SystemExit:
                self._save()
                raise
        reason = "budget" if self.position.step == self.strategy.n_steps else "patience"
        return Outcome(self.best or _copy_weights(self.network), self.position, reason)

    def _enter(self, phase: Phase) -> None:
        """Freeze and thaw, and start a fresh optimiser over what trains."""
        self.phase = phase
        self.network.train()
        set_trainable(self.network, self.groups, phase.trainable)
        self.trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.trained, lr=phase.learning_rate, weight_decay=self.config.weight_decay, fused=True
        )

    def _step(self, batch: Batch) -> None:
        step = self.position.step
        phase = self.strategy.phase_at(step)
        if phase is not self.phase:
            self._enter(phase)
        self.network.train()
        loss = self.loss(self.network(batch.image.to(self.device)), batch.label.to(self.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged("loss", batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.config.gradient_clip)
        if not math.isfinite(float(norm)):
            raise self._diverged("gradient", batch)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        self.optimiser.step()
        self.position.step += 1
        self.position.losses.append(value)
        if self.position.step % self._row_interval() == 0 and not self._is_validation_due():
            self._record(None)

    def _rate(self, step: int) -> float:
        phase = self.strategy.phase_at(step)
        return learning_rate(
            step - phase.first_step, phase.n_steps, phase.learning_rate, phase.warmup_steps, self.config.schedule
        )

    def _diverged(self, what: str, batch: Batch) -> DivergenceError:
        cases = ", ".join(sorted(set(batch.case_ids)))
        return DivergenceError(
            f"{what} is not finite at step {self.position.step + 1} (cases {cases}); the step was not taken. Look at "
            "the images of these cases, or lower the learning rates of params.yaml, then run again"
        )

    def _is_validation_due(self) -> bool:
        step = self.position.step
        regular = step % self.config.validate_every == 0 or step == self.strategy.n_steps
        return regular and step > self.position.validated_step

    def _is_patience_over(self) -> bool:
        return self.position.n_worse >= self.config.patience

    def _score(self) -> float | None:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            self.network.eval()
            return self.validate(self.network)

    def _judge(self, dice: float | None) -> None:
        """Keep the weights if they are the best so far; without any score, the latest are."""
        position = self.position
        is_better = position.best_dice is None or (dice is not None and dice > position.best_dice)
        if is_better:
            position.best_step, position.best_dice, self.best = position.step, dice, _copy_weights(self.network)
        # a phase that only prepares the next one is not cut short: its plateau says nothing of what comes
        if dice is not None and self.phase is self.strategy.phases[-1]:
            position.n_worse = 0 if is_better else position.n_worse + 1
        position.validated_step = position.step
        self._record(dice)

    def _record(self, dice: float | None) -> None:
        position = self.position
        loss = math.fsum(position.losses) / len(position.losses)
        rate = self._rate(position.step - 1)
        position.history.append(HistoryRow(position.step, self.phase.name, rate, loss, dice))
        position.losses = []
        score = "" if dice is None else f", validation Dice {dice:.3f}"
        self.progress.done = position.step
        self.progress.show(f"loss {loss:.3f}{score}")

    def _row_interval(self) -> int:
        return max(1, self.strategy.n_steps // HISTORY_ROWS)

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "phase": self.phase.name,
            "optimiser": self.optimiser.state_dict(),
            "position": asdict(self.position),
            "best": self.best,
            "random": random_state(),
            "n_threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }
        write_checkpoint(self.folder, self.position.step, state)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        notes: list[str] = []
        state = read_newest(self.folder, notes)
        for note in notes:
            self.progress.show(note)
        if state is None:
            return
        made_with = (state["n_threads"], state["torch"])
        if made_with != (torch.get_num_threads(), str(torch.__version__)):
            raise CheckpointError(
                f"{self.folder} was begun with {made_with[0]} threads and torch {made_with[1]}; going on with others "
                "would change the result: set them again, or remove the folder to start anew"
            )
        self._enter(next(phase for phase in self.strategy.phases if phase.name == state["phase"]))
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        rows = [HistoryRow(**row) for row in state["position"]["history"]]
        self.position = Position(**{**state["position"], "history": rows})
        self.best = state["best"]
        restore_random_state(state["random"])
        self.progress.done = self.position.step
        self.progress.show("resumed from a checkpoint")


def _copy_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
