"""The preprocessing plan: fingerprint × source contract × what params.yaml overrides."""

from __future__ import annotations

import math
from typing import Literal

from monai_tl.config import IntensityConfig, NetworkConfig, PlanConfig
from monai_tl.dataset.fingerprint import foreground_threshold
from monai_tl.errors import ConfigError, LabelError
from monai_tl.geometry import Shape, Spacing
from monai_tl.labels import LabelScheme
from monai_tl.networks.builders import differences, size_rule_of
from monai_tl.networks.shape_check import check_pass
from monai_tl.records import Fingerprint, Plan, SizeRule, Triple
from monai_tl.sources.card import Source
from monai_tl.transfer.contract import TryOut, accept_lines, compare_contract
from monai_tl.transfer.contract_geometry import BROKEN_EXTENT, least_of
from monai_tl.transfer.contract_lines import extent_vox
from monai_tl.transfer.shift import measure_shift

_WORTH_CROPPING = 0.8
"""A box that holds more of the image than this saves nothing."""


def make_plan(
    found: Fingerprint,
    scheme: LabelScheme,
    config: PlanConfig,
    source: Source | None,
    try_out: TryOut | None = None,
) -> Plan:
    """Decide how cases are prepared and what network sees them.

    With a source its orientation, spacing, intensity, size rule and network are adopted unless params.yaml overrides
    them. Without one: median spacing; for CT a window over the foreground's percentiles 0.5 to 99.5, else a z-score of
    the case.

    Args:
        found: The training cases.
        scheme: The classes.
        config: Section ``plan``.
        source: The source that ``config.source`` names, or None.
        try_out: See ``compare_contract``.

    Returns:
        The plan; ``adaptations`` compare it with the source line by line and ``shift`` measures how far the target
        lies from what the source was trained on (neither without a source).

    Raises:
        LabelError: A class is in no training case: there is nothing to learn it from.
        ContractError: A line of the contract is broken and ``config.accept_broken`` does not name it.
        ConfigError: ``patch_size_vox`` does not suit the network, or the network is misnamed, has wrong arguments or
            fails on the patch.
    """
    _check_classes(found)
    network = _network(config, source)
    size_rule = joint_size_rule(network, source, config.patch_size_vox)
    orientation = source.card.input.orientation if source else "RAS"
    intensity = config.intensity or (source.card.input.intensity if source else _own_intensity(found))
    plan = Plan(
        modality=found.modality,
        n_channels=found.n_channels,
        scheme=scheme,
        orientation=orientation,
        spacing_mm=config.spacing_mm or (source.card.input.spacing_mm if source else found.spacing_mm_median),
        intensity=intensity,
        foreground=_foreground(found, intensity, source),
        foreground_threshold=foreground_threshold(found.modality),
        size_rule=size_rule,
        patch_size_vox=(1, 1, 1),
        network=network,
        source=config.source,
        source_sha256=source.card.weights.sha256 if source else None,
    )
    if source is not None and config.patch_size_vox is None and "field of view" in config.accept_broken:
        plan = _give_up_window(plan, source, found)
        size_rule = plan.size_rule
    sizes = extent_vox(found, plan)
    patch = _given_patch(config, size_rule) or derive_patch_size(
        sizes, plan.spacing_mm, size_rule, config.max_patch_voxels
    )
    plan = plan.model_copy(update={"patch_size_vox": patch})
    check_pass(network, plan.n_channels, scheme.n_outputs, patch)
    if source is None:
        return plan
    lines = compare_contract(source.card, found, plan, config.max_patch_voxels, try_out)
    marked, notes = accept_lines(lines, config.accept_broken, source.card.name)
    shift = measure_shift(source.card, found, plan)
    notes = (*notes, *_say_other_network(plan, source))
    return plan.model_copy(update={"adaptations": marked, "notes": notes, "shift": shift})


def _check_classes(found: Fingerprint) -> None:
    absent = [name for name, count in found.class_present.items() if count == 0]
    if absent:
        raise LabelError(
            f"{', '.join(absent)} is in none of the {found.n_cases} training cases, so there is nothing to learn it "
            "from. Most often its entry in ingest.classes does not say what the labels say: 'structures' are names or "
            "codes of RTSTRUCT ROIs and SEG segments, 'values' the numbers in NIfTI labels, and where classes overlap "
            "the later one wins. Mend it, or leave the class out; if the class is rare, add cases that have it or try "
            "another split.seed",
            "absent_class",
        )


def derive_patch_size(sizes_vox: Triple, spacing_mm: Spacing, rule: SizeRule, max_voxels: int) -> Shape:
    """Largest patch that a network accepts, covers no more than a typical case, and fits the budget.

    Starts from the case's size rounded up to what the network accepts and shortens the physically longest axis, step by
    step, so that the patch tends to a cube in millimetres. The network's minimum wins over the budget.

    Args:
        sizes_vox: Typical size of a case on the plan's grid.
        spacing_mm: Of this grid.
        rule: Sizes the network accepts.
        max_voxels: Budget.
    """
    if rule.fixed:
        return rule.min_vox
    steps = rule.divisors
    least = [_round_up(minimum, step) for minimum, step in zip(rule.min_vox, steps, strict=True)]
    patch = [max(_round_up(size, step), low) for size, step, low in zip(sizes_vox, steps, least, strict=True)]
    while math.prod(patch) > max_voxels:
        open_axes = [axis for axis in range(3) if patch[axis] > least[axis]]
        if not open_axes:
            break
        # the first of equally long axes, so that the result is one and the same
        longest = max(open_axes, key=lambda axis: (patch[axis] * spacing_mm[axis], -axis))
        patch[longest] -= steps[longest]
    i, j, k = patch
    return i, j, k


def _round_up(size: float, divisor: int) -> int:
    return max(1, math.ceil(round(size, 3) / divisor)) * divisor


def _network(config: PlanConfig, source: Source | None) -> NetworkConfig:
    if config.network is not None:
        return config.network
    if source is None:
        raise ConfigError("plan.network: is missing; without a source a network is needed")
    return source.card.network.config


def on_own_network(source: Source, plan: Plan) -> Plan:
    """The plan for the network that a source states: its windows are this plan's where that network accepts them."""
    stated = source.card.network
    rule = joint_size_rule(stated.config, source, None)
    wanted = rule.min_vox if rule.fixed else map(max, plan.patch_size_vox, rule.min_vox)
    i, j, k = (math.ceil(size / divisor) * divisor for size, divisor in zip(wanted, rule.divisors, strict=True))
    return plan.model_copy(
        update={
            "n_channels": stated.n_channels,
            "size_rule": rule,
            "patch_size_vox": (i, j, k),
            "network": stated.config,
        }
    )


def _say_other_network(plan: Plan, source: Source) -> tuple[str, ...]:
    other = differences(plan.network, source.card.network.config)
    if not other:
        return ()
    return (
        f"plan.network is trained in place of the network that {source.card.name} states, which differs in "
        f"{', '.join(other)}; the audit of its loading tells which tensors came across",
    )


def joint_size_rule(network: NetworkConfig, source: Source | None, given: Shape | None) -> SizeRule:
    """What both the architecture and the source's card ask for.

    A window that params.yaml sets smaller than the card's minimum lowers that minimum, never the architecture's: the
    network is then tuned on this window and must be given the same in prediction.
    """
    own = size_rule_of(network)
    if source is None:
        return own
    card = source.card.input.size_rule
    if card.fixed and differences(network, source.card.network.config):
        # one size alone is what the network makes of it that is not trained here
        return own.model_copy(update={"padding": card.padding})
    if own.fixed or card.fixed:
        return (own if own.fixed else card).model_copy(update={"padding": card.padding})
    wanted = card.min_vox if given is None else tuple(map(min, card.min_vox, given))
    i, j, k = (max(a, b) for a, b in zip(own.min_vox, wanted, strict=True))
    di, dj, dk = map(math.lcm, own.divisors, card.divisors)
    divisor = di if di == dj == dk else (di, dj, dk)
    return SizeRule(divisor=divisor, min_vox=(i, j, k), padding=card.padding)


def _give_up_window(plan: Plan, source: Source, found: Fingerprint) -> Plan:
    """Where the field of view is broken and this is accepted, the source's smallest window is given up.

    Kept, it would be padding for the most part, and no budget would bound it; the network's own minimum stays.
    """
    pairs = zip(extent_vox(found, plan), least_of(source.card), strict=True)
    if all(size / least >= BROKEN_EXTENT for size, least in pairs):
        return plan
    own = size_rule_of(plan.network)
    if own.fixed:
        return plan
    di, dj, dk = map(math.lcm, own.divisors, plan.size_rule.divisors)
    divisor = di if di == dj == dk else (di, dj, dk)
    rule = SizeRule(divisor=divisor, min_vox=own.min_vox, padding=plan.size_rule.padding)
    return plan.model_copy(update={"size_rule": rule})


def _own_intensity(found: Fingerprint) -> IntensityConfig:
    if found.modality != "CT":
        return IntensityConfig(rule="zscore", low=0.5, high=99.5)
    low, high = math.floor(found.intensity["p00_5"]), math.ceil(found.intensity["p99_5"])
    return IntensityConfig(rule="window", low=low, high=max(high, low + 1))


def _foreground(found: Fingerprint, intensity: IntensityConfig, source: Source | None) -> Literal["none", "above"]:
    """Whether cases are cropped to the body.

    A source whose rule takes statistics of the case took them of the case as it was: a crop would shift them. Outside
    CT the body is what lies above 0, which says nothing where images go below 0: a crop would cut off organs.
    """
    if source is not None and intensity.rule != "window":
        return "none"
    if found.modality != "CT" and found.intensity.get("body_min", 0.0) < 0.0:
        return "none"
    return "above" if found.modality == "CT" or found.foreground_share < _WORTH_CROPPING else "none"


def _given_patch(config: PlanConfig, rule: SizeRule) -> Shape | None:
    if config.patch_size_vox is None:
        return None
    axes = enumerate(zip(config.patch_size_vox, rule.min_vox, rule.divisors, strict=True))
    faults = [
        f"plan.patch_size_vox.{axis}: the network takes {least} and no other size, not {size}"
        if rule.fixed
        else f"plan.patch_size_vox.{axis}: the network needs a multiple of {divisor} of at least {least}, not {size}"
        for axis, (size, least, divisor) in axes
        if (size != least if rule.fixed else size % divisor or size < least)
    ]
    if faults:
        raise ConfigError(faults)
    return config.patch_size_vox
