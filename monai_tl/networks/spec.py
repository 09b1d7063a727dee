"""What the table of builders knows of a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from monai_tl.networks.groups import LayerGroup
from monai_tl.records import SizeRule

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class NetworkSpec:
    """How a network is built and cut into groups. It gives logits of its input's size, background first.

    Attributes:
        factory: The class. A MONAI bundle names it by its dotted path, so it must be importable.
        groups: Network → its layer groups from input to output; the last one is the head.
        size_rule: All arguments (defaults filled in) → the sizes the network accepts.
        channel_argument, output_argument: What the factory calls its number of inputs and outputs.
        constants: Arguments that are always given and cannot be chosen.
        withheld: Arguments of the factory that would break the promise above.
        conflicts: All arguments → what in them would break it, each line beginning with the argument's name.
        idle: Tensors that start at zero and change nothing until they are trained: additions to a published network,
            which its weights therefore do not hold.
    """

    factory: Callable[..., nn.Module]
    groups: Callable[[nn.Module], Sequence[LayerGroup]]
    size_rule: Callable[[Arguments], SizeRule]
    channel_argument: str = "n_channels"
    output_argument: str = "n_outputs"
    constants: Mapping[str, Any] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    conflicts: Callable[[Arguments], list[str]] = lambda _: []
    idle: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """Dotted path of the class."""
        return f"{self.factory.__module__}.{getattr(self.factory, '__qualname__', '')}"

    def all_arguments(self, n_channels: int, n_outputs: int, arguments: Arguments) -> dict[str, Any]:
        """What the factory is called with; lists become tuples."""
        sizes = {self.channel_argument: n_channels, self.output_argument: n_outputs}
        return {**self.constants, **sizes, **{key: as_tuple(value) for key, value in arguments.items()}}

    def build(self, n_channels: int, n_outputs: int, **arguments: Any) -> nn.Module:
        """The network with fresh weights from torch's present random state; see ``build_network``."""
        return self.factory(**self.all_arguments(n_channels, n_outputs, arguments))

    def faults_of(self, arguments: Arguments) -> list[str]:
        """What is wrong with the arguments, each line beginning with the argument's name."""
        known = inspect.signature(self.factory).parameters
        own = {self.channel_argument, self.output_argument, *self.constants, *self.withheld}
        free = {name: item for name, item in known.items() if name not in own}
        faults = []
        for name in arguments:
            if name in own:
                faults.append(f"{name}: cannot be chosen here")
            elif name not in free:
                faults.append(f"{name}: no such argument; there are {', '.join(free)}")
        required = [name for name, item in free.items() if item.default is inspect.Parameter.empty]
        faults += [f"{name}: is missing" for name in required if name not in arguments]
        if faults:
            return faults
        try:
            found = self.conflicts(self.with_defaults(arguments))
            if not found:
                # asked last: a conflict says more than the failure that it causes here
                self.size_rule_of(arguments)
            return found
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
            return [f"{', '.join(arguments)}: have values that make no network: {error}"]

    def size_rule_of(self, arguments: Arguments) -> SizeRule:
        """Sizes that the network with these arguments accepts."""
        return self.size_rule(self.with_defaults(arguments))

    def with_defaults(self, arguments: Arguments) -> Arguments:
        """What is given, and the factory's defaults for the rest."""
        known = inspect.signature(self.factory).parameters
        defaults = {n: item.default for n, item in known.items() if item.default is not inspect.Parameter.empty}
        return {**defaults, **arguments}


def as_tuple(value: Any) -> Any:
    """A value of an argument with tuples for lists, at any depth: files give lists, defaults are tuples."""
    return tuple(as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
