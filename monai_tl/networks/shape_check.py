"""Whether a network takes the windows of a plan: arguments that build may still not fit together."""

from __future__ import annotations

import torch
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError
from monai_tl.geometry import Shape
from monai_tl.networks.builders import build_network, size_rule_of
from monai_tl.networks.heads import sketch_network
from monai_tl.networks.windows import network_size


def check_pass(config: NetworkConfig, n_channels: int, n_outputs: int, size_vox: Shape | None = None) -> None:
    """Pass a window through a network by shapes alone: no memory, no arithmetic.

    A network that torch cannot follow so is passed the smallest window it accepts instead.

    Args:
        config: Name and arguments.
        n_channels: Of the input.
        n_outputs: Background included.
        size_vox: Of the window; None takes the smallest that the network accepts.

    Raises:
        ConfigError: It cannot be built, fails on the window, or gives another number of outputs or another size.
        SourceError: No such network.
    """
    least = network_size((1, 1, 1), size_rule_of(config))
    size = size_vox or least
    sketch = sketch_network(config, n_channels, n_outputs).eval().to("meta")
    try:
        given = _shape_of(sketch, (1, n_channels, *size))
    except Exception as error:
        if size != least and _works(sketch, (1, n_channels, *least)):
            # torch can follow it on a smaller window, so it is this one that fails
            raise _failed(config, size, error) from error
        size = least
        try:
            given = _shape_of(build_network(config, n_channels, n_outputs, seed=0).eval(), (1, n_channels, *size))
        except Exception as real:
            raise _failed(config, size, real) from real
    if given != (1, n_outputs, *size):
        raise ConfigError(
            f"arguments: make a network that gives {_by(given)} for a window of {_by((1, n_channels, *size))}, and "
            f"{_by((1, n_outputs, *size))} is needed",
            f"network {config.name!r}",
        )


def _shape_of(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    with torch.no_grad():
        return tuple(module(torch.zeros(shape, device=device)).shape)


def _works(module: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        _shape_of(module, shape)
    except Exception:
        return False
    return True


def _failed(config: NetworkConfig, size: Shape, error: Exception) -> ConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigError(
        f"arguments: do not fit together, the network fails on a window of {_by(size)} voxels ({reason})",
        f"network {config.name!r}",
    )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
