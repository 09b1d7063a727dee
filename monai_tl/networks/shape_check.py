"""Whether a network takes the windows of a plan: arguments that build may still not fit together."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError
from monai_tl.geometry import Shape
from monai_tl.networks.builders import size_rule_of
from monai_tl.networks.windows import network_size


def check_pass(
    module: nn.Module, config: NetworkConfig, n_channels: int, n_outputs: int, size_vox: Shape | None = None
) -> None:
    """Pass a window through a network by shapes alone: no memory, no arithmetic.

    A network that torch cannot follow so is passed the smallest window it accepts instead.

    Args:
        module: Built; comes back in the mode it was in.
        config: Its name and arguments.
        n_channels: Of the input.
        n_outputs: Background included.
        size_vox: Of the window; None takes the smallest that the network accepts.

    Raises:
        ConfigError: It fails on the window, or gives another number of outputs or another size.
    """
    least = network_size((1, 1, 1), size_rule_of(config))
    size = size_vox or least
    was_training = module.training
    module.eval()
    try:
        given = _shape_of(module, (1, n_channels, *size))
    except Exception:
        size = least
        try:
            with torch.no_grad():
                given = tuple(module(torch.zeros((1, n_channels, *size))).shape)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"arguments: do not fit together, the network fails on a window of {_by(size)} voxels ({reason})",
                f"network {config.name!r}",
            ) from error
    finally:
        module.train(was_training)
    if given != (1, n_outputs, *size):
        raise ConfigError(
            f"arguments: make a network that gives {_by(given)} for a window of {_by((1, n_channels, *size))}, and "
            f"{_by((1, n_outputs, *size))} is needed",
            f"network {config.name!r}",
        )


def _shape_of(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    sketch = deepcopy(module).to("meta")
    with torch.no_grad():
        return tuple(sketch(torch.empty(shape, device="meta")).shape)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
