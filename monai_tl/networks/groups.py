"""Layer groups from input to output, and freezing that really freezes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MethodType
from typing import NamedTuple

from torch import Tensor, nn

from monai_tl.errors import SourceError


class LayerGroup(NamedTuple):
    """Layers that are frozen, thawed and counted together.

    Attributes:
        name: e.g. ``down1``; the last group of a network is its head.
        prefixes: Module or tensor names in the network; a prefix ends at a dot.
    """

    name: str
    prefixes: tuple[str, ...]


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of the prefixes or lies below one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers of a network, each object once under its first name.

    MONAI's DynUNet registers its blocks twice; ``state_dict()`` gives such tensors under both names.

    Returns:
        Name → the live tensor (no copy, still attached to the module), in the order of ``state_dict()``.
    """
    saved = module.state_dict(keep_vars=True)
    seen: set[int] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in saved.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor
    return unique


def aliases(module: nn.Module) -> dict[str, str]:
    """Second names of tensors that are registered twice → the name in ``named_tensors``."""
    first: dict[int, str] = {id(tensor): name for name, tensor in named_tensors(module).items()}
    saved = module.state_dict(keep_vars=True)
    return {name: first[id(tensor)] for name, tensor in saved.items() if first[id(tensor)] != name}


def assign_groups(module: nn.Module, groups: Sequence[LayerGroup]) -> dict[str, str]:
    """Group of each tensor of a network.

    Returns:
        Name as in ``named_tensors`` → group name.

    Raises:
        SourceError: A tensor is in no group or in two, a group is empty, or two groups share a name.
    """
    faults: list[str] = []
    names = [group.name for group in groups]
    faults += [f"group {name!r} is given twice" for name in sorted({name for name in names if names.count(name) > 1})]
    assigned: dict[str, str] = {}
    for tensor in named_tensors(module):
        found = [group.name for group in groups if is_below(tensor, group.prefixes)]
        if len(found) == 1:
            assigned[tensor] = found[0]
        else:
            faults.append(f"{tensor} is in {' and '.join(found) or 'no group'}")
    empty = set(names) - set(assigned.values())
    faults += [f"group {name!r} holds no tensor" for name in names if name in empty]
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:10])
        raise SourceError(
            f"layer groups of {type(module).__name__} do not cover it exactly; correct its groups function\n{shown}"
        )
    return assigned


def _stay_in_eval(self: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for ``train`` on a frozen module: whatever is asked, it stays in eval mode."""
    return nn.Module.train(self, False)


def freeze(module: nn.Module, prefixes: Iterable[str]) -> None:
    """Freeze layers for good: no gradients, and eval mode that ``module.train()`` does not undo.

    Without the second part batch normalisation goes on moving its running statistics, and a "frozen" body changes
    (MONAI's ``freeze_layers`` does). Dropout stands still too, so a frozen body is a fixed function.

    Args:
        module: The network.
        prefixes: Module or tensor names.
    """
    wanted = tuple(prefixes)
    for name, tensor in module.named_parameters():
        if is_below(name, wanted):
            tensor.requires_grad_(False)
            # an optimiser goes on applying a gradient that was left behind
            tensor.grad = None
    for name, part in module.named_modules():
        if name and is_below(name, wanted):
            part.__dict__["train"] = MethodType(_stay_in_eval, part)
            part.train()


def thaw(module: nn.Module, prefixes: Iterable[str]) -> None:
    """Undo ``freeze``; thawed layers take the mode (train or eval) that the network is in."""
    wanted = tuple(prefixes)
    for name, tensor in module.named_parameters():
        if is_below(name, wanted):
            tensor.requires_grad_(True)
    thawed = [part for name, part in module.named_modules() if name and is_below(name, wanted)]
    for part in thawed:
        part.__dict__.pop("train", None)
    for part in thawed:
        part.training = module.training


def set_trainable(
    module: nn.Module, groups: Sequence[LayerGroup], trainable: Iterable[str], tensors: Iterable[str] = ()
) -> None:
    """Thaw the named groups and freeze all others.

    Layers without tensors that no group names (a network's own dropout between two groups) stand still as long as
    anything is frozen: a frozen body is a fixed function.

    Args:
        module: The network.
        groups: All of its groups.
        trainable: Names of those that train whole.
        tensors: Parameters of frozen groups that train all the same. Their layers stay in eval mode, so that the
            scale of a normalisation can train while its running statistics stand still.

    Raises:
        SourceError: A name is no group of the network.
    """
    wanted = set(trainable)
    unknown = wanted - {group.name for group in groups}
    if unknown:
        raise SourceError(
            f"no such layer group: {', '.join(sorted(unknown))}; there are {', '.join(g.name for g in groups)}"
        )
    thaw(module, [prefix for group in groups if group.name in wanted for prefix in group.prefixes])
    freeze(module, [prefix for group in groups if group.name not in wanted for prefix in group.prefixes])
    (thaw if wanted == {group.name for group in groups} else freeze)(module, _ungrouped(module, groups))
    chosen = set(tensors)
    for name, tensor in module.named_parameters():
        if name in chosen:
            tensor.requires_grad_(True)


def hold_statistics(module: nn.Module, layers: Iterable[str]) -> None:
    """Let normalisation layers use, and not move, their running statistics; what else trains in them goes on.

    The next ``set_trainable`` undoes it for what it thaws.

    Args:
        module: The network.
        layers: Names of the layers.
    """
    for name in layers:
        part = module.get_submodule(name)
        part.__dict__["train"] = MethodType(_stay_in_eval, part)
        part.train()


def _ungrouped(module: nn.Module, groups: Sequence[LayerGroup]) -> list[str]:
    """Layers that are in no group and hold none."""
    prefixes = [prefix for group in groups for prefix in group.prefixes]
    return [
        name
        for name, _ in module.named_modules()
        if name and not is_below(name, prefixes) and not any(is_below(prefix, [name]) for prefix in prefixes)
    ]
