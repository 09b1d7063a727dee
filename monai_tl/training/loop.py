"""The training loop: short, visible, exact. Killed and resumed, it ends on the same bits as if never killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_tl.config import FinetuneConfig
from monai_tl.dataset.patches import PatchSampler
from monai_tl.errors import CheckpointError, ConfigError, DivergenceError
from monai_tl.networks.groups import LayerGroup
from monai_tl.networks.lora import plain_state
from monai_tl.networks.precision import computing_in
from monai_tl.progress import Progress
from monai_tl.training.average import average_of
from monai_tl.training.batches import Batch, make_ahead, make_batch, stream_batches
from monai_tl.training.checkpoint import (
    random_state,
    read_newest,
    restore_random_state,
    seed_everything,
    write_checkpoint,
)
from monai_tl.training.compiled import CompiledNetwork, NotCompiledError
from monai_tl.training.features import FeatureCache, keep_features
from monai_tl.training.losses import SegmentationLoss
from monai_tl.training.position import HistoryRow, Outcome, Position
from monai_tl.training.private_steps import PrivateSteps
from monai_tl.training.range_test import kept_range_test, run_range_test
from monai_tl.training.ranks import Ranks, refuse_batch_statistics
from monai_tl.training.signals import StopRequest, catch_signals
from monai_tl.training.tuning import Tuning
from monai_tl.transfer.phases import Strategy

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
        ranks: The processes that train together; None trains alone. Each gives its own network, sampler and the rest,
            made alike; what it sees of a batch is its share.
        private: Steps of DP-SGD in place of plain ones; None trains without differential privacy.
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
        ranks: Ranks | None = None,
        private: PrivateSteps | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.network = network
        self.groups, self.private = groups, private
        self.strategy, self.config = strategy, config
        self.sampler = sampler
        self.validate = validate
        self.folder = folder
        self.progress = progress
        self.loss = SegmentationLoss(n_outputs)
        self.device = next(network.parameters()).device
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.facts: dict[str, Any] = {}
        self.saved_at = time.monotonic()
        self.tuning = Tuning(network, groups, strategy, config)
        self.average = average_of(network, config)
        self.cache: FeatureCache | None = None
        # what a batch's image goes through: the network, compiled or not, or its head where features are kept
        self.forward: nn.Module | CompiledNetwork = network
        seed_everything(config.seed)
        if self.ranks.are_several:
            if strategy.from_features:
                raise ConfigError(
                    "finetune.strategy: feature_extraction computes the features once, so that one process is enough; "
                    "start it without torchrun"
                )
            if private is not None:
                raise ConfigError("finetune.privacy: dp_sgd trains in one process; start it without torchrun")
            refuse_batch_statistics(network)

    def run(self) -> Outcome:
        """Train to the end of the budget or of patience, from the newest whole checkpoint if there is one.

        Raises:
            DivergenceError: The loss or gradient is not finite; names the cases of the batch.
            CheckpointError: A checkpoint cannot be written.
            RankLostError: Another of the processes that train together ended.
            SystemExit: 143 on SIGTERM (130 on SIGINT), after a checkpoint.
        """
        with catch_signals() as request:
            with self._at_once(request):
                self._prepare()
                self._resume()
            with closing(self._batches()) as batches:
                try:
                    while True:
                        if self._is_validation_due():
                            with self.average.in_place() if self.average else nullcontext():
                                with self._at_once(request):
                                    dice = self.ranks.from_first(self._score)
                                self._judge(dice)
                            self._save()
                        if self.position.step == self.strategy.n_steps or self._is_patience_over():
                            break
                        self._step(next(batches))
                        is_late = time.monotonic() - self.saved_at > SECONDS_BETWEEN_CHECKPOINTS
                        number, is_due = self.ranks.largest(request.number, int(is_late))
                        request.raise_if_made(number)
                        if is_due:
                            self._save()
                    request.raise_if_made(self.ranks.largest(request.number, 0)[0])  # of the last moment
                except SystemExit:
                    self._save()
                    raise
                except NotCompiledError:
                    request.raise_if_made()  # Ctrl-C ends the compiler too
                    raise
        self.progress.end()
        reason = "budget" if self.position.step == self.strategy.n_steps else "patience"
        guarantee = None if self.private is None else self.private.guarantee(self.position.step)
        return Outcome(self.best or plain_state(self.network), self.position, reason, guarantee, self.facts)

    def _at_once(self, request: StopRequest) -> AbstractContextManager[None]:
        """Where a signal need not wait; of several processes none may leave while the others wait for it."""
        return nullcontext() if self.ranks.are_several else request.immediate()

    def _prepare(self) -> None:
        """What is done once before the first step, and gives the same when done again."""
        config = self.config
        self.facts |= self.tuning.count()
        if self.private is not None:
            shape = (self.sampler.cases[0].image.shape[0], *self.sampler.patch_size_vox)
            self.private.check(self.network, self.tuning, shape, self.device)
        elif self.strategy.from_features:
            cache = keep_features(self.folder, self.sampler, self.network, self.groups, config)
            if isinstance(cache, str):
                self.facts["features"] = {"n_records": 0, "reason": cache}
                self.progress.show(f"features are not kept: {cache}")
            else:
                self.cache, self.forward, self.facts["features"] = cache, cache.head, cache.facts
        # a head on kept features is too small to gain by it
        if config.compile and self.cache is None:
            self.forward, self.facts["compiled"] = CompiledNetwork(self.network, self.folder.parent), True
            self.progress.show("the first step compiles the network: a minute where that was not done before")
        if config.find_learning_rate:
            make = partial(make_batch, self.sampler, config.batch_size)
            loss_of = partial(self._loss, self.network)
            test = partial(run_range_test, self.network, self.tuning, loss_of, make, config.seed)
            found = self.ranks.from_first(partial(kept_range_test, self.folder, test))
            self.facts["learning_rate_test"] = found.describe()
            if found.rate is not None:
                self.strategy = self.strategy.with_rate(found.rate)
                self.tuning.restart(self.strategy)
            self.progress.show(f"learning rate {found.rate or self.strategy.phases[-1].learning_rate:.2g}")

    def _batches(self) -> Generator[Any]:
        first, stop = self.position.step, self.strategy.n_steps
        if self.private is not None:
            return make_ahead(partial(self.private.batches, self.sampler), first, stop)
        if self.cache is not None:
            return self.cache.stream(self.config.batch_size, first, stop)
        share = self.ranks.share(self.config.batch_size)
        return stream_batches(self.sampler, self.config.batch_size, first, stop, device=self.device, share=share)

    def _loss(self, forward: nn.Module | CompiledNetwork, batch: Batch) -> Tensor:
        with computing_in(self.device, self.config.precision):
            logits: Tensor = forward(batch.image.to(self.device))
        # sums over a whole patch lose small classes in 8 bits
        loss: Tensor = self.loss(logits.float(), batch.label.to(self.device))
        return loss

    def _step(self, batch: Batch | list[Batch]) -> None:
        step, tuning = self.position.step, self.tuning
        phase = self.strategy.phase_at(step)
        if phase is not tuning.phase:
            tuning.enter(phase)
            # an average over two schedules would be held back by the weights of the first
            if self.average is not None and phase.begins_schedule:
                self.average.restart()
            if isinstance(self.forward, CompiledNetwork):
                if step:
                    self._save()  # a stop while the phase is compiled cannot
                self.forward.restart()
        self.network.train()
        if isinstance(batch, Batch):
            self._make_gradients(batch)
        elif self.private and (
            odd := self.private.make_gradients(batch, partial(self._loss, self.network), tuning, step)
        ):
            raise self._diverged("gradient", odd)
        tuning.step(step)
        if self.average is not None:
            self.average.update()
        self.position.step += 1
        self.progress.tick(self.position.step, self._epoch())
        if self.position.step % self._row_interval() == 0 and not self._is_validation_due():
            self._record(None)

    def _make_gradients(self, batch: Batch) -> None:
        tuning = self.tuning
        loss = self._loss(self.forward, batch)
        tuning.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        value = self.ranks.mean_gradients(tuning.trained, loss)
        if not math.isfinite(value):
            raise self._diverged("loss", batch)
        if not math.isfinite(tuning.clip()):
            raise self._diverged("gradient", batch)
        self.position.losses.append(value)

    def _diverged(self, what: str, batch: Batch) -> DivergenceError:
        cases = ", ".join(sorted({case_id for share in self.ranks.from_all(batch.case_ids) for case_id in share}))
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
            with computing_in(self.device, self.config.precision):
                return self.validate(self.network)

    def _judge(self, dice: float | None) -> None:
        """Keep the weights if they are the best so far; without any score, the latest are."""
        position = self.position
        best = position.best_dice
        # Dice 0 is no plateau but a network that has found nothing yet, as one from scratch long does
        is_better = best is None or (dice is not None and (dice > best or best == dice == 0.0))
        # a private training has a fixed length and keeps its last weights: a choice by anybody's images would be one
        # more thing that is told of them
        is_better = is_better or self.private is not None
        if is_better:
            position.best_step, position.best_dice, self.best = position.step, dice, plain_state(self.network)
        # a phase that only prepares the next one is not cut short: its plateau says nothing of what comes
        if dice is not None and self.tuning.phase is self.strategy.phases[-1]:
            position.n_worse = 0 if is_better else position.n_worse + 1
        position.validated_step = position.step
        self._record(dice)

    def _record(self, dice: float | None) -> None:
        position = self.position
        loss = math.fsum(position.losses) / len(position.losses) if position.losses else None
        rate = self.tuning.rate(position.step - 1)
        position.history.append(HistoryRow(position.step, self.tuning.phase.name, rate, loss, dice))
        position.losses = []
        score = "" if dice is None else f", validation Dice {dice:.3f}"
        measured = ({} if loss is None else {"loss": loss}) | ({} if dice is None else {"dice": dice})
        measured |= {} if position.best_dice is None else {"best_dice": position.best_dice}
        words = "loss not told" if loss is None else f"loss {loss:.3f}"
        self.progress.measure(position.step, f"{words}{score}", **measured)

    def _epoch(self) -> tuple[int, int, int, int]:
        """For the progress: an epoch is the steps from one validation to the next."""
        length, total = min(self.config.validate_every, self.strategy.n_steps), self.strategy.n_steps
        before = (self.position.step - 1) // length
        first = before * length
        return before + 1, -(-total // length), self.position.step - first, min(length, total - first)

    def _row_interval(self) -> int:
        return max(1, self.strategy.n_steps // HISTORY_ROWS)

    def _save(self) -> None:
        random = self.ranks.from_all(random_state())
        self.saved_at = time.monotonic()
        if not self.ranks.is_first:
            return
        state = {
            "network": self.network.state_dict(),
            "phase": self.tuning.phase.name,
            "optimiser": self.tuning.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "privacy": None if self.private is None else self.private.state(),
            "position": asdict(self.position),
            "best": self.best,
            "random": random,
            "n_threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }
        write_checkpoint(self.folder, self.position.step, state)

    def _resume(self) -> None:
        notes: list[str] = []
        state = self.ranks.from_first(partial(read_newest, self.folder, notes))
        for note in notes:
            self.progress.show(note)
        if state is None:
            return
        made_with = (state["n_threads"], state["torch"], len(state["random"]))
        if made_with != (torch.get_num_threads(), str(torch.__version__), self.ranks.n_ranks):
            raise CheckpointError(
                f"{self.folder} was begun with {made_with[0]} threads, torch {made_with[1]} and {made_with[2]} "
                "process(es); going on with others would change the result: set them again, or remove the folder to "
                "start anew"
            )
        if self.private is not None:
            self.private.check_state(state["privacy"])
        self.tuning.enter(next(phase for phase in self.strategy.phases if phase.name == state["phase"]))
        self.network.load_state_dict(state["network"])
        self.tuning.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        rows = [HistoryRow(**row) for row in state["position"]["history"]]
        self.position = Position(**{**state["position"], "history": rows})
        self.best = state["best"]
        restore_random_state(state["random"][self.ranks.rank])
        self.progress.resume(self.position.step)
        self.progress.show("resumed from a checkpoint")
