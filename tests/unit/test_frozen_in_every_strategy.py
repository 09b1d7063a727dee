"""What a strategy freezes does not change in any tensor, running statistics included, and is a fixed function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ladder_runs import BATCH, INSTANCE, STRATEGIES, make_settings, make_trainer, make_unet, train

from monai_tl.config import NetworkConfig
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import assign_groups, set_trainable
from monai_tl.networks.lora import plain_state
from monai_tl.networks.scale_and_shift import is_normalisation, normalisation_parameters
from monai_tl.training.head_input import body_output

EVERYTHING = {"down0", "down1", "bottom", "up1", "head"}
MOVING_STATISTICS: dict[str, set[str]] = {
    "scratch": EVERYTHING,
    "feature_extraction": {"head"},
    "layer_retraining": {"up1", "head"},
    "lp_ft": EVERYTHING,
    # three thaws in the nine steps: up1, bottom, down1
    "gradual": {"down1", "bottom", "up1", "head"},
    "discriminative": EVERYTHING,
    "lora": {"head"},
    "norm_only": {"head"},
    "full": EVERYTHING,
    "l2_sp": EVERYTHING,
}
"""Groups whose normalisation statistics may move: those that train whole."""


@pytest.mark.parametrize("norm", [BATCH, INSTANCE], ids=["batch", "instance"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_what_trains_moves(strategy: str, norm: Any, tmp_path: Path) -> None:
    network = make_unet(norm)
    run = train(tmp_path, make_settings(strategy, weight_decay=0.1), network)
    assigned = assign_groups(build_network(network, 1, 2, seed=0), run.groups)
    after = plain_state(run.network)
    assert set(after) == set(run.before)
    moved = {name for name in after if not torch.equal(after[name], run.before[name])}
    statistics = {name for name in after if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert len(statistics) == 3 * len([m for m in run.network.modules() if is_normalisation(m)]) > 0
    assert {assigned[name] for name in moved & statistics} == MOVING_STATISTICS[strategy]
    norms = set(normalisation_parameters(build_network(network, 1, 2, seed=0)))
    kernels = {name for name, tensor in after.items() if tensor.ndim == 5}
    in_body = {name for name in moved - statistics if assigned[name] not in MOVING_STATISTICS[strategy]}
    # what moves in a body that is frozen else
    expected = {
        "lora": {name for name in kernels if assigned[name] != "head"},
        "norm_only": {name for name in norms if assigned[name] != "head"},
    }
    assert in_body == expected.get(strategy, set())


@pytest.mark.parametrize("norm", [BATCH, INSTANCE], ids=["batch", "instance"])
@pytest.mark.parametrize("strategy", ["feature_extraction", "lp_ft", "gradual", "lora", "norm_only", "l2_sp"])
def test_a_frozen_body_is_a_fixed_function_while_the_head_trains(strategy: str, norm: Any, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, make_settings(strategy), make_unet(norm, dropout=0.5))
    head = trainer.network.get_submodule("model.2")
    image = torch.randn(2, 1, 16, 16, 16)
    trainer.network.train()
    assert head.training
    first, second = (body_output(trainer.network, head, image) for _ in range(2))
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)
    if strategy in ("lora", "norm_only"):
        trainer.tuning.enter(trainer.strategy.phases[-1])
        first, second = (body_output(trainer.network, head, image) for _ in range(2))
        assert torch.equal(first, second)  # type: ignore[arg-type]


def test_dropout_that_no_group_names_stands_still_with_the_body() -> None:
    """SegResNet drops features after its stem by a layer of the network itself."""
    config = NetworkConfig(
        name="segresnet",
        arguments={"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "dropout_prob": 0.5},
    )
    module = build_network(config, 1, 2, seed=0)
    groups, image = groups_of(config, module), torch.randn(1, 1, 16, 16, 16)
    set_trainable(module, groups, ["head"])
    module.train()
    assert torch.equal(module(image), module(image))
    set_trainable(module, groups, [group.name for group in groups])
    module.train()
    assert not torch.equal(module(image), module(image))
