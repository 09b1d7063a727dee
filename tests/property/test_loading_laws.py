"""Whatever becomes of a state's names, shapes and types: an error, or a network that holds what the audit says."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_tl.config import NetworkConfig
from monai_tl.errors import WeightsError
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import named_tensors
from monai_tl.networks.heads import adapt_channels
from monai_tl.sources.audit import load_audited
from monai_tl.sources.weights import State
from tests.support.loading import SAME, trained, unet

NETWORKS = (
    unet(),
    NetworkConfig(
        name="dynunet",
        arguments={
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 8, 8],
        },
    ),
)
STATES: list[dict[tuple[int, int], dict[str, Tensor]]] = [
    {(n, seed): dict(trained(config, n, seed=seed).state_dict()) for n, seed in itertools.product((1, 3), (5, 6))}
    for config in NETWORKS
]
PARTS = st.sampled_from(["", "module.", "_orig_mod.", "model.", "encoder.", "ema.", "a.b."])


DEEDS = ("drop", "rename", "inner", "half", "double", "integer", "shape", "prefix")


def _damage(deed: str, name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    changed = {
        "half": lambda: (name, tensor.half() if tensor.is_floating_point() else tensor),
        "double": lambda: (name, tensor.double() if tensor.is_floating_point() else tensor),
        "integer": lambda: (name, tensor.to(torch.int32)),
        "shape": lambda: (name, torch.cat([tensor, tensor]) if tensor.ndim else tensor.reshape(1)),
        "rename": lambda: (f"{name}_old", tensor),
        "inner": lambda: (name.replace(".", "._orig_mod.", 1), tensor),
        "prefix": lambda: (f"encoder.{name}", tensor),
    }
    return None if deed == "drop" else changed[deed]()


@st.composite
def _states(draw: Any) -> tuple[int, dict[str, Tensor]]:
    which, n_source = draw(st.integers(0, 1)), draw(st.sampled_from([1, 3]))
    prefix, whole = draw(PARTS), STATES[which][n_source, 5]
    damages = draw(st.dictionaries(st.sampled_from(sorted(whole)), st.sampled_from(DEEDS), max_size=5))
    tensors: dict[str, Tensor] = {}
    for name, tensor in whole.items():
        outcome = _damage(damages[name], name, tensor) if name in damages else (name, tensor)
        if outcome is not None:
            tensors[prefix + outcome[0]] = outcome[1]
    if draw(st.integers(0, 4)) == 0:
        copy = draw(PARTS)
        tensors |= {copy + name: t for name, t in STATES[which][n_source, 6].items() if copy + name not in tensors}
    if draw(st.integers(0, 4)) == 0:
        names = draw(st.permutations(list(tensors)))
        tensors = dict(zip(names, tensors.values(), strict=True))
    return which, tensors


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=_states(), n_channels=st.sampled_from([1, 2, 3]), floor=st.sampled_from([0.0, 0.5, 0.95]))
def test_an_error_or_what_the_audit_says(case: tuple[int, dict[str, Tensor]], n_channels: int, floor: float) -> None:
    which, tensors = case
    config = NETWORKS[which]
    module = build_network(config, n_channels, 2, seed=0)
    fresh = {name: tensor.clone() for name, tensor in named_tensors(module).items()}
    try:
        audit = load_audited(module, config, n_channels, SAME, State(tensors, "0" * 64), floor)
    except WeightsError:
        event("refused")
        assert all(torch.equal(tensor, fresh[name]) for name, tensor in named_tensors(module).items()), "all or nothing"
        return
    event("loaded")
    now = named_tensors(module)
    lines = {item.name: item for item in audit.tensors if item.status != "unused"}
    assert list(lines) == list(now)
    head = list(audit.groups)[-1]
    came, body = 0, 0
    for name, line in lines.items():
        if line.status == "fresh":
            expected = fresh[name]
        else:
            expected = tensors[line.source_name].to(fresh[name].dtype)
            if line.status == "adapted":
                expected = adapt_channels(expected, 1, n_channels)
        assert torch.equal(now[name], expected), line
        if line.group != head:
            body += line.n_parameters
            came += line.n_parameters * (line.status != "fresh")
    assert audit.share_body >= floor
    assert came > 0
    assert abs(audit.share_body - came / body) < 1e-9
    # every tensor of the source is accounted for: used, unused, or a second name of one that is used
    used = {line.source_name for line in lines.values() if line.source_name}
    unused = {item.source_name for item in audit.tensors if item.status == "unused"}
    assert used.isdisjoint(unused)
    for name in tensors.keys() - used - unused:
        assert any(torch.equal(tensors[name], tensors[other]) for other in used)
