"""What a training run leaves: a folder that is a source itself, with its plan, audit and history."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from monai_tl.config import FinetuneConfig
from monai_tl.files import write_text
from monai_tl.networks.builders import groups_of
from monai_tl.networks.groups import assign_groups, named_tensors
from monai_tl.privacy_records import Guarantee
from monai_tl.records import Audit, Fingerprint, Plan, TensorAudit
from monai_tl.sources.card import Card, CardInput, CardNetwork, CardWeights, Source, write_source
from monai_tl.sources.privacy_text import describe_guarantee
from monai_tl.training.position import HistoryRow, Outcome
from monai_tl.transfer.phases import Strategy

PLAN_FILE, AUDIT_FILE, HISTORY_FILE, TRAINING_FILE = "plan.json", "audit.json", "history.csv", "training.json"


def write_model(
    folder: Path,
    plan: Plan,
    source: Source | None,
    audit: Audit,
    outcome: Outcome,
    name: str,
    found: Fingerprint | None = None,
) -> None:
    """Write card, best weights, plan, audit and history.

    Args:
        folder: Exists; gets the files.
        plan: How input for the model is prepared.
        source: Where the weights came from; None for scratch.
        audit: Of loading them.
        outcome: Of training.
        name: Of the model, e.g. ``transfer-0-0``.
        found: Fingerprint of the training cases; the card keeps it, so that the shift to a next target can be measured.
            The card of a private training does not.
    """
    guarantee = outcome.guarantee
    # the fingerprint is of the patients, and no noise is on it
    card = _make_card(plan, source, name, found if guarantee is None else None, guarantee)
    write_source(folder, card, outcome.state_dict)
    plan.write(folder / PLAN_FILE)
    audit.write(folder / AUDIT_FILE)
    write_text(folder / HISTORY_FILE, format_history(outcome.position.history))


def fresh_audit(network: nn.Module, plan: Plan) -> Audit:
    """Audit of a network that starts from scratch: every tensor is fresh."""
    groups = groups_of(plan.network, network)
    assigned = assign_groups(network, groups)
    parameters = {name for name, _ in network.named_parameters()}
    tensors = tuple(
        TensorAudit(
            name=name,
            group=assigned[name],
            n_parameters=tensor.numel() if name in parameters else 0,
            status="fresh",
            detail="trained from scratch",
        )
        for name, tensor in named_tensors(network).items()
    )
    nothing = {group.name: 0.0 for group in groups}
    return Audit(source=None, source_sha256=None, share_body=0.0, share_all=0.0, groups=nothing, tensors=tensors)


def _make_card(
    plan: Plan, source: Source | None, name: str, found: Fingerprint | None, guarantee: Guarantee | None
) -> Card:
    """Card of a finished model: the contract it was trained under. Licence and citation of its source stay with it."""
    channels = (plan.modality,) if plan.n_channels == 1 else tuple(f"channel {i}" for i in range(plan.n_channels))
    if found is not None and found.channels:
        channels = found.channels
    n_outputs = plan.scheme.n_outputs
    return Card(
        name=name,
        network=CardNetwork(
            name=plan.network.name, arguments=plan.network.arguments, n_channels=plan.n_channels, n_outputs=n_outputs
        ),
        weights=CardWeights(file="weights.safetensors", sha256="0" * 64),
        licence=source.card.licence if source else "not stated: trained from scratch on this workspace's data",
        citation=source.card.citation if source else "none: trained from scratch",
        input=CardInput(
            modality=plan.modality,
            channels=channels,
            orientation=plan.orientation,
            spacing_mm=plan.spacing_mm,
            intensity=plan.intensity,
            size_rule=plan.size_rule,
        ),
        classes=plan.scheme.names,
        fingerprint=found,
        notes=_notes(plan, source, guarantee),
    )


def _notes(plan: Plan, source: Source | None, guarantee: Guarantee | None) -> str:
    """Where the weights are from, what of the source's contract was broken with the user's consent, and privacy."""
    private = "" if guarantee is None else f" {describe_guarantee(guarantee)}"
    if source is None:
        return f"Trained from scratch.{private}"
    broken = [f" Its contract was broken and this accepted: {line.item} ({line.reason})."
              for line in plan.adaptations if line.accepted]  # fmt: skip
    return f"Fine-tuned from {source.card.name}.{''.join(broken)}{private}"


def format_history(rows: Sequence[HistoryRow]) -> str:
    """``history.csv``: an empty cell where a number is not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "phase", "learning_rate", "train_loss", "val_dice"])
    for row in rows:
        dice = "" if row.val_dice is None else f"{row.val_dice:.6f}"
        loss = "" if row.train_loss is None else f"{row.train_loss:.6f}"
        writer.writerow([row.step, row.phase, f"{row.learning_rate:.6g}", loss, dice])
    return text.getvalue()


def describe_training(config: FinetuneConfig, strategy: Strategy, outcome: Outcome) -> dict[str, Any]:
    """What happened, for ``training.json``: steps, the best of them, and when which groups thawed."""
    position = outcome.position
    begun = [phase for phase in strategy.phases if phase.first_step < max(1, position.step)]
    return {
        "seed": config.seed,
        "strategy": strategy.name,
        "settings": dict(strategy.settings),
        "ema_decay": config.ema_decay,
        "average_power": config.average_power,
        "n_held_statistics": len(strategy.held),
        "n_steps": position.step,
        "max_steps": config.max_steps,
        "stop_reason": outcome.stop_reason,
        "best_step": position.best_step,
        "best_val_dice": position.best_dice,
        "phases": [
            {"name": phase.name, "first_step": phase.first_step, "trainable": list(phase.trainable)} for phase in begun
        ],
        "thaw_events": [
            {"step": phase.first_step, "groups": list(thawed)}
            for phase in begun
            if (thawed := strategy.thawed_at(phase.first_step))
        ],
        **({} if outcome.guarantee is None else {"privacy": outcome.guarantee.model_dump(mode="json")}),
        **outcome.facts,
    }
