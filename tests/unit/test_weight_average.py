"""The average of the weights against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from ladder_runs import make_trained_network, make_unet
from torch import nn

from monai_tl.networks.lora import add_low_rank, plain_state
from monai_tl.training.average import WeightAverage

DECAY = 0.8


def _walk(network: nn.Module, n_steps: int, average: WeightAverage) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(n_steps):
        with torch.no_grad():
            network.weight.add_(torch.randn(network.weight.shape, generator=generator))
        average.update()
        seen.append(network.weight.detach().clone())
    return seen


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_it_is_the_weighted_mean_of_all_weights_seen_and_nothing_else(n_steps: int) -> None:
    network = nn.Linear(3, 2).double()
    nn.init.constant_(network.weight, 1e6)  # a start value that must not drag
    average = WeightAverage(network, DECAY)
    nn.init.zeros_(network.weight)
    seen = _walk(network, n_steps, average)
    ages = torch.tensor([DECAY ** (n_steps - 1 - k) for k in range(n_steps)], dtype=torch.float64)
    expected = torch.einsum("k,kij->ij", ages / ages.sum(), torch.stack(seen))
    # the first lerp has weight 1 and so leaves nothing of the start
    assert torch.allclose(average.values["weight"], expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("n_steps", [1, 2, 9])
def test_a_polynomial_average_counts_steps_by_rising_factorials(n_steps: int, power: int) -> None:
    network = nn.Linear(3, 2).double()
    nn.init.constant_(network.weight, 1e6)
    average = WeightAverage(network, 0.0, power)
    nn.init.zeros_(network.weight)
    seen = _walk(network, n_steps, average)
    counts = torch.tensor([math.prod(range(n, n + power)) for n in range(1, n_steps + 1)], dtype=torch.float64)
    expected = torch.einsum("k,kij->ij", counts / counts.sum(), torch.stack(seen))
    assert torch.allclose(average.values["weight"], expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("decay", "power"), [(0.99, 0), (0.0, 2)])
def test_what_does_not_change_stays_to_the_bit(decay: float, power: int) -> None:
    network = make_trained_network(make_unet())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    average = WeightAverage(network, decay, power)
    for _ in range(20):
        average.update()
    with average.in_place():
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_it_stands_in_and_gives_the_weights_back_whatever_happens() -> None:
    network = nn.Linear(3, 2)
    average = WeightAverage(network, DECAY)
    _walk(network, 4, average)
    own = network.weight.detach().clone()

    def stop() -> None:
        with average.in_place():
            assert torch.equal(network.weight, average.values["weight"])
            assert not torch.equal(network.weight, own)
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        stop()
    assert torch.equal(network.weight, own)


def test_forgetting_begins_anew() -> None:
    network = nn.Linear(3, 2)
    average = WeightAverage(network, DECAY)
    _walk(network, 5, average)
    average.restart()
    (seen,) = _walk(network, 1, average)
    assert torch.equal(average.values["weight"], seen)


def test_an_average_of_updates_is_merged_like_them() -> None:
    network = make_trained_network(make_unet())
    add_low_rank(network, ["model.0", "model.1"], 2, 4.0, seed=0)
    average = WeightAverage(network, DECAY)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        average.update()
    with average.in_place():
        merged = plain_state(network)
    layer = "model.0.conv.unit0.conv"
    values = {name.rpartition(".")[2]: average.values[name] for name in average.values if name.startswith(layer)}
    update = (4.0 / 2) * (values["up"] @ values["down"])
    expected = values["original"] + update.view(4, 3, 1, 3, 3).transpose(1, 2)
    assert torch.allclose(merged[f"{layer}.weight"], expected, atol=1e-6)
