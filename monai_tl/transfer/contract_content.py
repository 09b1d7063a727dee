"""Lines of the contract about what the images show: modality, channels, classes."""

from __future__ import annotations

import re

from monai_tl.records import Adaptation, Fingerprint, Plan
from monai_tl.sources.card import Card
from monai_tl.transfer.contract_lines import Judged, make_line

_MODALITY_WORDS = {"mri": "mr", "pet": "pt"}
"""What people write for DICOM's terms."""
LONG_ECHO_MS, SHORT_ECHO_MS = 70.0, 20.0
"""From the one on an image is T2-weighted, whatever else; up to the other it is not."""
_MIXED = "make sure that the contrast is the same"
_OTHER_SOURCE = "choose a source that was trained on such images"


def compare_modality(card: Card, found: Fingerprint) -> Adaptation:
    """Modalities alone; the sequence of an MR image is told with the channels."""
    source, target = card.input.modality, found.modality
    learned = {_modality_word(part) for part in re.split(r"[/,+]", source)}
    if _modality_word(target) not in learned:
        reason = f"the source learned on {source}, the target is {target}: the same values mean other things"
        advice = "choose a source of the target's modality"
        return make_line("modality", source, target, Judged("broken", reason, advice))
    reason = "same modality" if len(learned) == 1 else f"the source learned on {source}, which has {target} in it"
    return make_line("modality", source, target, Judged("equal", reason))


def _modality_word(text: str) -> str:
    word = (text.split() or [""])[0].casefold()
    return _MODALITY_WORDS.get(word, word)


def sequence_of(name: str) -> str:
    """The MR sequence that a channel's name speaks of (``T1``, ``T1 with contrast``, ``T2``, ``FLAIR``, ``PD`` …)."""
    plain = re.sub(r"[^a-z0-9*]", "", name.casefold()).removeprefix("mri").removeprefix("mr")
    for pattern, sequence in (
        ("flair", "FLAIR"), (r"t1w?(gd|ce|c|post|km)$|t1.*contrast", "T1 with contrast"), (r"t2\*|swi", "T2*"),
        ("t1|mprage|spgr", "T1"), ("t2", "T2"), ("^pd", "PD"), ("dwi|adc|hbv", "diffusion"),
    ):  # fmt: skip
        if re.search(pattern, plain):
            return sequence
    return ""


def compare_channels(card: Card, found: Fingerprint) -> Adaptation:
    """Their number, and what each holds as far as both sides say it."""
    n_source, n_target = card.network.n_channels, found.n_channels
    names = [_named(name, card) for name in card.input.channels]
    source = f"{n_source} ({', '.join(card.input.channels)})"
    target = f"{n_target} ({', '.join(found.channels) or 'not named'})"
    if n_source != n_target:
        reason = (
            f"the first layer's weights are remade from {n_source} to {n_target} input channels; they are dealt out in "
            "order, so the first channel gets the weights of the source's first"
        )
        judged = Judged("adapted", reason)
    elif found.channels:
        judged = _by_name(names, [sequence_of(name) for name in found.channels], found.modality)
    elif n_source > 1:
        reason = (
            f"{n_source} channels on both sides, but nothing says what the target's hold; make sure that they come in "
            f"the order {', '.join(card.input.channels)}"
        )
        judged = Judged("adapted", reason)
    else:
        judged = _by_echo_time(names[0], found.echo_time_ms, found.modality)
    return make_line("channels", source, target, judged)


def _named(name: str, card: Card) -> str:
    """A card may name the sequence with the modality (``MR T1``) instead of with the channel."""
    return sequence_of(name) or (sequence_of(card.input.modality) if len(card.input.channels) == 1 else "")


def _by_name(source: list[str], target: list[str], modality: str) -> Judged:
    unlike = [(a, b) for a, b in zip(source, target, strict=True) if a and b and a != b]
    if unlike and sorted(source) == sorted(target):
        reason = f"the same channels in another order: the source would take {unlike[0][1]} for {unlike[0][0]}"
        return Judged("broken", reason, f"store the channels in the order {', '.join(source)}")
    if unlike:
        listed = ", ".join(f"{b} where the source learned on {a}" for a, b in unlike)
        return Judged("broken", f"the target has {listed}: the contrast of tissues is another", _OTHER_SOURCE)
    # names such as CT say enough; MR alone does not
    if source == target and (all(source) or _modality_word(modality) != "mr"):
        return Judged("equal", f"same number of channels ({len(source)}), named alike on both sides")
    return Judged("adapted", f"same number of channels, but not all names say what they hold; {_MIXED}")


def _by_echo_time(sequence: str, echo_ms: dict[str, float], modality: str) -> Judged:
    if not sequence:
        if _modality_word(modality) == "mr":
            return Judged("adapted", f"one channel on both sides, but the card names no sequence; {_MIXED}")
        return Judged("equal", "one channel on both sides")
    if not echo_ms:
        reason = f"the source learned on {sequence}, and nothing says which sequence the target's cases are"
        return Judged("adapted", f"{reason}; {_MIXED}")
    cases = f"{echo_ms['n']:g} case{'' if echo_ms['n'] == 1 else 's'}"
    times = f"{echo_ms['min']:g} to {echo_ms['max']:g} ms, median {echo_ms['median']:g}, of {cases}"
    wants_long = sequence in ("T2", "FLAIR")
    if sequence not in ("T1", "T1 with contrast", "PD") and not wants_long:
        return Judged("adapted", f"the source learned on {sequence}; echo times ({times}) cannot tell it; {_MIXED}")
    is_long, is_short = echo_ms["median"] >= LONG_ECHO_MS, echo_ms["median"] <= SHORT_ECHO_MS
    if (is_short and wants_long) or (is_long and not wants_long):
        kind = "T2-weighted" if is_long else "not T2-weighted"
        reason = f"the source learned on {sequence}, but the target's echo times ({times}) are those of {kind} images"
        return Judged("broken", f"{reason}: the contrast of tissues is another", _OTHER_SOURCE)
    if echo_ms["min"] <= SHORT_ECHO_MS and echo_ms["max"] >= LONG_ECHO_MS:
        return Judged("adapted", f"the target's echo times ({times}) are those of several sequences; {_MIXED}")
    return Judged("adapted", f"the target's echo times ({times}) do not contradict {sequence}; {_MIXED}")


def compare_classes(card: Card, plan: Plan) -> Adaptation:
    """Rows of the head are taken over by name, compared without regard to case and to nothing else."""
    source, target = ", ".join(card.classes) or "none", ", ".join(plan.scheme.names)
    if card.output == "features":
        reason = "the source learned without labels, so it has features and no classes; the head is made anew"
        return make_line("classes", source, target, Judged("adapted", reason))
    known = {name.casefold() for name in card.classes}
    shared = [name for name in plan.scheme.names if name.casefold() in known]
    if [name.casefold() for name in card.classes] == [name.casefold() for name in plan.scheme.names]:
        if card.output == "softmax":
            return make_line("classes", source, target, Judged("equal", "same classes in the same order"))
        reason = "same classes, but the source gives each its own sigmoid, so the background has no row there"
        return make_line("classes", source, target, Judged("adapted", reason))
    moved = " in another order" if len(shared) == len(plan.scheme.names) == len(card.classes) else ""
    reason = f"the head is remade; rows reused for {', '.join(shared)}{moved}" if shared else "the head is made anew"
    if shared and card.output == "sigmoid":
        reason += "; the background has none there, since the source gives each class its own sigmoid"
    near = [pair for name in plan.scheme.names if name not in shared and (pair := _near(name, card))]
    if near:
        reason += f"; names that are close but not the same are not reused: {', '.join(near)}"
    return make_line("classes", source, target, Judged("adapted", reason))


def _near(name: str, card: Card) -> str:
    """The source's class of nearly the same words: written otherwise, or a part of it, or the whole of it."""
    words = _words(name)
    for other in card.classes:
        theirs = _words(other)
        if words == theirs:
            return f"{name} (the source writes {other}; write it so to reuse its row)"
        if words > theirs:
            return f"{name} (by name a part of the source's {other})"
        if words < theirs:
            return f"{name} (by name the whole of the source's {other})"
    return ""


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", name.casefold()))
