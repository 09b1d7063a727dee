"""What a model's card says of how it was judged: the facts of ``metrics.json`` in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_tl.unfound_words import say_unfound
from monai_tl.verdict_words import say_verdict

_MEASURES = (
    ("dice", "Dice", 3),
    ("iou", "IoU", 3),
    ("surface_dice", "Surface Dice", 3),
    ("hd95_mm", "HD95, mm", 1),
    ("mean_surface_distance_mm", "Mean surface distance, mm", 2),
    ("volume_error_ml", "Volume error, ml", 2),
)


def describe_evaluation(metrics: Mapping[str, Any], arm: str) -> str:
    """A section of the card: the verdict, the arm's means with their intervals, and what they do not say.

    Args:
        metrics: Content of ``reports/metrics.json``.
        arm: Whose model the card is of.
    """
    found = metrics["arms"][arm]
    cases = f"{metrics['n_test_cases']} {metrics['evaluated_on']} cases of {metrics['n_test_patients']} patients"
    lines = ["## How it was judged"]
    if metrics["verdict"]:
        lines.append(say_verdict(metrics["verdict"]))
    lines.append(f"Arm {arm}, {cases}; means with their intervals over patients.")
    headings = ["class", *(_heading(metrics, *measure) for measure in _MEASURES), "cases", "empty", "failed"]
    rows = [("all", found), *found["classes"].items()]
    table = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for name, summaries in rows:
        cells = [_with_interval(summaries[metric], digits) for metric, _, digits in _MEASURES]
        counts = [str(summaries["dice"][key]) for key in ("n", "n_empty", "n_failed")]
        table.append(f"| {' | '.join([_plain(name), *cells, *counts])} |")
    lines.append("\n".join(table))
    for part in (_lesions(found), _calibration(metrics, arm), _uncertainty(metrics, arm)):
        lines += [part] if part else []
    lines.append("\n".join(f"- {text}" for text in [*_warnings(metrics, arm), *_provenance(metrics)]))
    lines += [part for part in (_contract(metrics, arm), _intake(metrics), _limits(metrics)) if part]
    return "\n\n".join(lines)


def _heading(metrics: Mapping[str, Any], metric: str, heading: str, _: int) -> str:
    rules = metrics.get("rules", {})
    tolerance = rules.get("surface_tolerance_mm")
    if metric != "surface_dice" or tolerance is None:
        return heading
    own = rules.get("class_tolerances_mm") or {}
    others = ", ".join(f"{_plain(name)} {value:g} mm" for name, value in sorted(own.items()))
    return f"{heading} at {tolerance:g} mm" + (f" ({others})" if others else "")


def _contract(metrics: Mapping[str, Any], arm: str) -> str:
    lines = metrics.get("contract") or ()
    # the twin is planned after the source too, but nothing of the source is in it
    if arm != "transfer" or not lines:
        return ""
    rows = [
        f"| {' | '.join(_plain(str(line[key])) for key in ('item', 'source', 'target', 'status', 'reason'))} |"
        for line in lines
    ]
    return "\n".join(
        [
            "## The source's contract\n",
            "| item | source expects | these cases | outcome | reason |",
            "|---" * 5 + "|",
            *rows,
        ]
    )


def _intake(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("intake")
    if not found:
        return ""
    refused = ", ".join(f"{_plain(code)} {count}" for code, count in metrics.get("rejected", {}).items())
    return (
        f"## What came in\n\n{found['n_cases']} cases of {found['n_patients']} patients, {found['n_labelled']} with a "
        f"label, {found['n_test_cases']} of them the test set; refused: {refused or 'nothing'}."
    )


def _limits(metrics: Mapping[str, Any]) -> str:
    texts = metrics.get("limits") or ()
    return "\n".join(["## What these numbers do not say\n", *(f"- {_plain(text)}" for text in texts)]) if texts else ""


def _lesions(found: Mapping[str, Any]) -> str:
    texts = []
    for name, one in found.get("lesions", {}).items():
        numbers = ", ".join(
            f"{heading} {_with_interval(one[metric], 2)}"
            for metric, heading in (
                ("lesion_sensitivity", "sensitivity"),
                ("lesion_false_positives", "false positives a case"),
                ("lesion_f1", "F1"),
                ("panoptic_quality", "panoptic quality"),
            )
        )
        texts.append(f"{_plain(name)}, lesion by lesion ({one['n_reference_lesions']} of them): {numbers}.")
    return " ".join(texts)


def _calibration(metrics: Mapping[str, Any], arm: str) -> str:
    found = metrics.get("calibration", {}).get(arm)
    if found is None:
        return ""
    text = f"Calibration: expected calibration error {found['before']['ece']:.3f}"
    if found["after"] is not None:
        temperatures = ", ".join(f"{value:.2f}" for value in found["temperatures"].values())
        text += (
            f", and {found['after']['ece']:.3f} with the logits divided by {temperatures} (fitted on "
            f"{found['n_validation_cases']} validation cases)"
        )
    return f"{text}. {found['region']}"


def _uncertainty(metrics: Mapping[str, Any], arm: str) -> str:
    found = metrics.get("uncertainty", {}).get(arm)
    if found is None:
        return ""
    return (
        f"Uncertainty ({found['measure']} of {found['source']}): area under the risk-coverage curve "
        f"{found['area']:.3f}; {found['best_area']:.3f} would be the best order of the {found['n_cases']} cases, "
        f"{found['random_area']:.3f} is chance."
    )


def _provenance(metrics: Mapping[str, Any]) -> list[str]:
    found = metrics.get("provenance")
    if found is None:
        return []
    data, source = found["data"], found["source"]
    texts = [f"Data: {data['n_cases']} cases, sha256 {data['sha256']}."]
    texts += [f"Licence of the data: {_plain(data['licence'])}."] if data["licence"] else []
    texts += [f"Cite for the data: {_plain(data['citation'])}"] if data["citation"] else []
    if source is not None:
        texts.append(f"Source: {_plain(source['name'])}, {_plain(source['licence'])}. {_plain(source['citation'])}")
    code = [f"monai_tl {found['monai_tl']}"]
    code += [f"training sha256 {one}" for one in found["training_code_sha256"]]
    code += [f"evaluation sha256 {found['evaluation_code_sha256']}"] if found["evaluation_code_sha256"] else []
    texts.append(f"Code: {', '.join(code)}.")
    return texts


def _warnings(metrics: Mapping[str, Any], arm: str) -> list[str]:
    texts = []
    if metrics["evaluated_on"] != "test":
        texts.append("These are validation cases, which also chose the kept step: their scores flatter the network.")
    # the limits tell it at greater length
    look = None if metrics.get("limits") else metrics.get("test_set_look")
    if look and look["number"] == 1:
        texts.append("These models were the first to be scored on this test set.")
    elif look:
        texts.append(f"This was look {look['number']} at this test set; a model chosen by it is flattered by it.")
    never = [one for one in metrics.get("never_found", ()) if one["arm"] == arm]
    texts += map(_plain, say_unfound(never, metrics["evaluated_on"]))
    groups = [row for row in metrics["subgroups"].get(arm, ()) if row["warning"]]
    for words, few in (
        ("Groups of too few patients for an interval", [row for row in groups if row["low"] is None]),
        ("Groups of few patients, whose intervals are rough", [row for row in groups if row["low"] is not None]),
    ):
        if few:
            texts.append(f"{words}: {_plain('; '.join(_group(row) for row in few))}.")
    texts.append("Nothing is known of scanners, sites and patients unlike these. For research; not a medical device.")
    return texts


def _group(row: Mapping[str, Any]) -> str:
    return f"{row['attribute']} {row['group']}"


def _with_interval(summary: Mapping[str, Any], digits: int) -> str:
    if summary["mean"] is None:
        return "–"
    mean = f"{summary['mean']:.{digits}f}"
    if summary["low"] is None:
        return mean
    return f"{mean} ({summary['low']:.{digits}f} to {summary['high']:.{digits}f})"


def _plain(name: str) -> str:
    return name.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
