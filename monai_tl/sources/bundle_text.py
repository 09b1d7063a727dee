"""What a bundle says in words: the model card and the licence of the weights."""

from __future__ import annotations

import json
from pathlib import Path

from monai_tl.records import Audit, Plan
from monai_tl.sources.card import Card

LICENCE_FILE = "LICENSE"


def describe_model(card: Card, plan: Plan, model_folder: Path, target: str, judged: str = "", privacy: str = "") -> str:
    """The model card, Markdown.

    Args:
        card: Of the model.
        plan: Its preprocessing.
        model_folder: Where audit.json may lie.
        target: Dotted path of the network's class.
        judged: The section on how it was judged, where it was.
        privacy: The section on privacy.
    """
    classes = "\n".join(f"| {value} | {name} |" for value, name in enumerate(card.classes, start=1))
    spacing = " x ".join(f"{size:g}" for size in plan.spacing_mm)
    patch = " x ".join(map(str, plan.patch_size_vox))
    parts = [
        f"# {card.name}",
        f"Segments {', '.join(card.classes)} on {plan.modality}. For research; not a medical device.",
        "## Output\nSoftmax, background first; as a label map:\n\n"
        f"| value | class |\n|---|---|\n| 0 | background |\n{classes}",
        "## Input\n"
        f"- channels: {', '.join(card.input.channels)}\n"
        f"- orientation {plan.orientation}, spacing {spacing} mm (along the stored axes)\n"
        f"- intensity: {_describe_intensity(plan)}\n"
        f"- windows of {patch} voxels; sizes are {plan.size_rule}",
        f"## Network\n`{target}`"
        + ("" if target.startswith("monai.") else _PLUG_IN.format(package=target.split(".")[0])),
        f"## Where it comes from\n{_describe_origin(plan, model_folder)}",
        *([judged] if judged else []),
        *([privacy] if privacy else []),
        f"Citation: {card.citation}",
        f"Licence of the weights: {card.licence} (see LICENSE).",
        _NOTES,
    ]
    return "\n\n".join(parts) + "\n"


_PLUG_IN = (
    "\n\nThis class is not MONAI's: it comes with the package `{package}`, "
    "which must be installed where the bundle is loaded."
)
_NOTES = (
    "## How it differs from the pipeline that trained it\n"
    "`configs/inference.json` states the same steps in MONAI's transforms. Details differ: MONAI does not filter "
    "before downsampling, its voxel centres may lie a fraction of a voxel apart, and a margin around the foreground is "
    "rounded to voxels; and where a run trained several folds, the bundle holds the best of them, not their mean. For "
    "the labels of the run itself use `monai-tl segment` with the folder `model` beside this bundle."
)


def _describe_intensity(plan: Plan) -> str:
    rule = plan.intensity
    scaled = f"scaled to {rule.output[0]:g}..{rule.output[1]:g}"
    if rule.rule == "window":
        return f"clipped to {rule.low:g} to {rule.high:g}, {scaled}"
    clip = "" if rule.low is None else f"clipped to percentiles {rule.low:g} and {rule.high:g}, "
    if rule.rule == "minmax":
        return f"{clip}{scaled}, each case for itself"
    counted = " of the voxels that are not 0" if rule.nonzero else ""
    return f"{clip}zero mean and unit variance{counted}, each case for itself"


def _describe_origin(plan: Plan, model_folder: Path) -> str:
    if plan.source is None:
        return "Trained from scratch."
    lines = [f"Planned after the source `{Path(plan.source).name}` (sha256 of its weights `{plan.source_sha256}`)."]
    path = model_folder / "audit.json"
    if path.is_file():
        audit = Audit.read(path)
        if audit.source is None:
            lines.append("This arm was trained from scratch; no weights came from the source.")
        else:
            lines.append(
                f"{audit.share_body:.1%} of the body's parameters and {audit.share_all:.1%} of all came from there "
                "before fine-tuning."
            )
    score = _best_dice(model_folder)
    if score is not None:
        lines.append(f"Best validation Dice while training: {score:.3f}.")
    return " ".join(lines)


def _best_dice(model_folder: Path) -> float | None:
    path = model_folder / "training.json"
    if not path.is_file():
        return None
    value = json.loads(path.read_text(encoding="utf-8")).get("best_val_dice")
    return float(value) if isinstance(value, int | float) else None


def state_licence(card: Card, model_folder: Path) -> str:
    """Text of LICENSE: the file beside the weights, or what the card says."""
    path = model_folder / LICENCE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return (
        f"The weights in models/ of this bundle are under: {card.licence}\n\nThey derive from: {card.citation}\n"
        "The full text of that licence is published by its authors and applies to these weights.\n"
    )
