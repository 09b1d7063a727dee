"""The table of networks: MONAI's and nnU-Net's by name, others by entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points

import torch
from torch import nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import ConfigError, SourceError
from monai_tl.networks.encoder_networks import ENCODER_NETWORKS
from monai_tl.networks.groups import LayerGroup, assign_groups
from monai_tl.networks.monai_networks import MONAI_NETWORKS
from monai_tl.networks.nnunet import NNUNET_NETWORKS
from monai_tl.networks.sketching import TooLargeError, Weightless
from monai_tl.networks.spec import NetworkSpec, as_tuple
from monai_tl.records import SizeRule

ENTRY_POINT_GROUP = "monai_tl.networks"
"""A plug-in names a ``NetworkSpec`` object here."""

BUILT_IN: dict[str, NetworkSpec] = {**MONAI_NETWORKS, **ENCODER_NETWORKS, **NNUNET_NETWORKS}
"""Without plug-ins."""
_networks = dict(BUILT_IN)


def register_network(name: str, spec: NetworkSpec) -> None:
    """Add a network to the table of this process; giving the same one again changes nothing.

    Raises:
        SourceError: The name is taken by another network.
    """
    if _networks.setdefault(name, spec).target != spec.target:
        raise SourceError(f"network name {name!r} is taken by {_networks[name].target}; rename {spec.target}")


def _plug_ins() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _load_plug_in(name: str, points: Sequence[EntryPoint]) -> None:
    for point in points:
        try:
            spec = point.load()
        except Exception as error:
            raise SourceError(
                f"the plug-in for network {name!r} ({point.value}) cannot be imported: {error}; "
                "install it again or remove it"
            ) from error
        if not isinstance(spec, NetworkSpec):
            raise SourceError(
                f"the plug-in for network {name!r} ({point.value}) is no NetworkSpec; correct its entry point"
            )
        register_network(name, spec)


def network_names() -> tuple[str, ...]:
    """All networks that can be named, plug-ins included, sorted."""
    return tuple(sorted({*_networks, *_plug_ins()}))


def find_network(name: str) -> NetworkSpec:
    """The network of a name.

    Raises:
        SourceError: There is none, two have this name, or a plug-in does not load.
    """
    points = _plug_ins().get(name, [])
    _load_plug_in(name, points)
    if name not in _networks:
        raise SourceError(
            f"no network is called {name!r}; there are {', '.join(network_names())}. "
            f"A package can add one by the entry-point group {ENTRY_POINT_GROUP}"
        )
    return _networks[name]


def build_network(
    config: NetworkConfig, n_channels: int, n_outputs: int, seed: int, *, weightless: bool = False
) -> nn.Module:
    """Build a network with weights that depend on the seed only; torch's random state is left as it was.

    Args:
        config: Name and arguments.
        n_channels: Input channels.
        n_outputs: Output channels, background included.
        seed: For the fresh weights.
        weightless: Shapes alone, without memory; see ``Weightless``.

    Returns:
        Takes (B, n_channels, I, J, K), gives logits (B, n_outputs, I, J, K). In training mode, on the CPU.

    Raises:
        ConfigError: An argument is unknown, missing or refused; all faults with their key path. Or the network is
            larger than this machine can hold, which is found before any memory is taken.
        SourceError: No such network, or its layer groups do not cover it.
    """
    spec = find_network(config.name)
    where = f"network {config.name!r}"
    faults = spec.faults_of(config.arguments)
    if faults:
        raise ConfigError([f"arguments.{fault}" for fault in faults], where)
    make = partial(spec.build, n_channels, n_outputs, **config.arguments)
    # only the CPU generator is seeded, so that fork_rng need not look after any device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            module = _sketch(make) if weightless else _build(make, seed)
        except TooLargeError as error:
            raise ConfigError(f"arguments: {error}; correct them", where) from None
        except Exception as error:
            raise ConfigError(f"arguments: {spec.target} refuses them: {error}", where) from error
    assign_groups(module, spec.groups(module))
    return module


def _sketch(make: Callable[[], nn.Module]) -> nn.Module:
    with Weightless():
        return make()


def _build(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    try:
        _sketch(make)
    except TooLargeError:
        raise
    except Exception:  # noqa: S110 - a constructor that looks at its own values; what else is wrong shows below
        pass
    torch.default_generator.manual_seed(seed)
    return make()


def groups_of(config: NetworkConfig, module: nn.Module) -> tuple[LayerGroup, ...]:
    """Layer groups of a built network from input to output; the last one is the head."""
    return tuple(find_network(config.name).groups(module))


def differences(one: NetworkConfig, other: NetworkConfig) -> tuple[str, ...]:
    """What two networks differ in: ``name``, or arguments, those at their defaults included; none of the same network.

    Raises:
        SourceError: No such network.
    """
    if one.name != other.name:
        return ("name",)
    spec = find_network(one.name)
    here, there = (spec.with_defaults(config.arguments) for config in (one, other))
    return tuple(name for name in {**here, **there} if as_tuple(here.get(name)) != as_tuple(there.get(name)))


def size_rule_of(config: NetworkConfig) -> SizeRule:
    """Sizes that a network accepts.

    Raises:
        ConfigError: An argument is unknown or missing.
        SourceError: No such network.
    """
    spec = find_network(config.name)
    faults = spec.faults_of(config.arguments)
    if faults:
        raise ConfigError([f"arguments.{fault}" for fault in faults], f"network {config.name!r}")
    return spec.size_rule_of(config.arguments)
