"""Short runs of any strategy on balls in memory, which can be cut off at a step as by a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from balls import CASE_IDS, make_arrays
from torch import Tensor, nn

from monai_tl.config import FinetuneConfig, NetworkConfig
from monai_tl.dataset.patches import PatchSampler, TrainingCase, find_foreground
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.device import place_network
from monai_tl.networks.groups import LayerGroup
from monai_tl.progress import Progress
from monai_tl.size_rule import SizeRule
from monai_tl.training.loop import Trainer
from monai_tl.training.position import Outcome
from monai_tl.training.ranks import Ranks
from monai_tl.transfer.strategy import make_strategy

BATCH: Any = "batch"
INSTANCE: Any = ["instance", {"affine": True, "track_running_stats": True}]
PLAIN_INSTANCE: Any = ["instance", {"affine": True}]
STRATEGIES = (
    "scratch",
    "feature_extraction",
    "layer_retraining",
    "lp_ft",
    "gradual",
    "discriminative",
    "lora",
    "norm_only",
    "full",
    "l2_sp",
)
N_STEPS = 9


def make_unet(norm: Any = BATCH, dropout: float = 0.3) -> NetworkConfig:
    """A UNet of five groups: down0, down1, bottom, up1, head."""
    arguments = {"channels": [4, 8, 12], "strides": [2, 2], "num_res_units": 1, "norm": norm, "dropout": dropout}
    return NetworkConfig(name="unet", arguments=arguments)


def make_sampler(augmentation: Any = "light") -> PatchSampler:
    cases = []
    for number, case_id in enumerate(CASE_IDS[1:], start=1):
        image, label = make_arrays(number)
        cases.append(TrainingCase(case_id, image, label, find_foreground(label)))
    return PatchSampler(tuple(cases), (16, 16, 16), SizeRule(divisor=4), (2.0, 2.0, 2.0), 0.67, augmentation, 0)


def make_settings(strategy: Any, **changes: Any) -> FinetuneConfig:
    settings = {
        "arms": ("scratch",) if strategy == "scratch" else ("transfer",),
        "strategy": strategy,
        "max_steps": N_STEPS,
        "head_steps": 3,
        "group_steps": 2,
        "batch_size": 2,
        "lora_rank": 2,
        "learning_rate": 1e-2,
        "l2_sp_weight": 5.0,
        "warmup_steps": 2,
        "validate_every": 4,
        "feature_variants": 2,
        "n_threads": 1,
    }
    return FinetuneConfig(**{**settings, **changes})


def make_trained_network(network: NetworkConfig) -> nn.Module:
    """Weights as a source has them: normalisation with statistics, scale and shift of its own."""
    module = build_network(network, 1, 2, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith(("N.weight", "running_var")):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            if name.endswith(("N.bias", "running_mean")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return place_network(module, torch.device("cpu"))


class KilledError(Exception):
    """Ends a run without a word, as a kill does: only what is on disk is left."""


class CutOff(Progress):
    """Kills the run when it tells of a step."""

    def __init__(self, step: int | None) -> None:
        super().__init__("ladder", total=N_STEPS)
        self.step = step

    def measure(self, done: int, note: str = "", **values: float) -> None:
        super().measure(done, note, **values)
        if self.step is not None and self.done >= self.step:
            raise KilledError


@dataclass
class Run:
    """What a run leaves."""

    outcome: Outcome
    network: nn.Module
    groups: tuple[LayerGroup, ...]
    before: dict[str, Tensor]


def assert_same(one: Run, two: Run) -> None:
    first, second = one.outcome, two.outcome
    assert first.state_dict.keys() == second.state_dict.keys()
    assert all(torch.equal(tensor, second.state_dict[name]) for name, tensor in first.state_dict.items())
    # not only what is kept: the last weights too, updates apart
    last = two.network.state_dict()
    assert all(torch.equal(tensor, last[name]) for name, tensor in one.network.state_dict().items())
    assert first.position == second.position
    assert first.facts == second.facts


def make_trainer(
    folder: Path,
    config: FinetuneConfig,
    network: NetworkConfig | None = None,
    stop_at: int | None = None,
    validate: Callable[[nn.Module], float | None] | None = None,
    ranks: Ranks | None = None,
) -> Trainer:
    network = network or make_unet()
    module = make_trained_network(network)
    groups = groups_of(network, module)
    names = [group.name for group in groups]
    strategy = make_strategy(config.strategy, config, names, names[-1])
    sampler = make_sampler(config.augmentation)
    return Trainer(module, groups, strategy, sampler, validate or _score, config, 2, folder, CutOff(stop_at), ranks)


def train(folder: Path, config: FinetuneConfig, network: NetworkConfig | None = None, **options: Any) -> Run:
    torch.set_num_threads(1)
    trainer = make_trainer(folder, config, network, **options)
    before = {
        name: tensor.clone() for name, tensor in make_trained_network(network or make_unet()).state_dict().items()
    }
    return Run(trainer.run(), trainer.network, tuple(trainer.groups), before)


def _score(network: nn.Module) -> float:
    """Rises as the mean logit of the foreground falls: any number that depends on all weights will do."""
    with torch.no_grad():
        image = torch.linspace(-1, 1, 16**3).reshape(1, 1, 16, 16, 16)
        return float(1.0 / (1.0 + network(image)[:, 1].mean().exp()))
