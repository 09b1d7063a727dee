"""The report as one HTML file that needs nothing else: no font, no request; scripts only look through cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import monai_tl
from monai_tl.report import more_tables, tables
from monai_tl.report.audit_table import group_rows
from monai_tl.report.choice import choices
from monai_tl.report.figures import box_plots, learning_curves, verdict_plot
from monai_tl.report.findings import Findings, TrainedModel
from monai_tl.report.size_figure import size_plot
from monai_tl.report.viewer import viewer_scripts
from monai_tl.sources.accounting import describe_audit
from monai_tl.transfer.shift_words import describe_shift

TEMPLATE = "report.html.j2"
_FEW_PATIENTS = 20


def render_page(findings: Findings) -> str:
    """The report as HTML; equal findings give equal bytes."""
    environment = Environment(
        loader=PackageLoader("monai_tl", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=tables.number, percent=tables.percent, thousands=tables.thousands)
    return environment.get_template(TEMPLATE).render(**page_context(findings))


def page_context(findings: Findings) -> dict[str, Any]:
    """All that the template shows; figures are SVG made here, everything else is escaped by the template."""
    arms, verdict = findings.arms, findings.verdict
    title, more = split_headline(tables.headline(findings))
    transferred = [model for model in findings.models if model.arm == "transfer"]
    return {
        "findings": findings,
        "verdict": verdict,
        "headline": tables.headline(findings),
        "title": title,
        "details": [*more, *tables.details(findings)],
        "n_plain": 1 + len(more) + len(tables.decisions(findings)),
        "verdict_plot": verdict_plot(arms, verdict, findings.settings.null_margin) if verdict else "",
        "metric_rows": tables.metric_rows(findings),
        "measure_names": more_tables.measure_names(),
        "measure_rows": more_tables.measure_rows(findings),
        "group_rows": more_tables.group_of_case_rows(findings),
        "sizes": size_plot(arms, findings.class_names),
        "forgetting_rows": tables.forgetting_rows(findings.forgetting) if findings.forgetting else [],
        "seed_lines": tables.seed_lines(findings),
        "rejections": tables.rejection_rows(findings.rejections),
        "intake": intake(findings),
        "is_broken": any(line.status == "broken" for line in findings.plan.adaptations),
        "shift_rows": tables.shift_rows(findings.plan),
        "shift_sentence": describe_shift(findings.plan.shift) if findings.plan.shift else "",
        "audited": transferred[0] if transferred else None,
        "audit_sentence": describe_audit(transferred[0].audit) if transferred else "",
        "audits_differ": len({model.audit.share_all for model in transferred}) > 1,
        "groups": group_rows(transferred[0].audit) if transferred else [],
        "choices": choices(findings),
        "curves": learning_curves(findings.models),
        "boxes": box_plots(arms, findings.class_names),
        "case_rows": tables.case_rows(arms, findings.class_names),
        "facts": facts(findings),
        "limits": limits(findings),
        "scripts": viewer_scripts() if any(overlay.slices for overlay in findings.overlays) else (),
        "version": monai_tl.__version__,
    }


def split_headline(headline: str) -> tuple[str, list[str]]:
    """Title and the rest: the first sentence, without the verdict's word, which stands beside it."""
    first, _, rest = headline.partition(". ")
    for word in ("Gain: ", "Harm: ", "Null: "):
        first = first.removeprefix(word)
    return first[0].upper() + first[1:].rstrip(".") + ".", [rest] if rest else []


def intake(findings: Findings) -> list[tuple[str, str]]:
    """Counts of what came in, each with its name."""
    cases, split = findings.cases, findings.split
    pairs = [
        ("cases", len(cases)),
        ("patients", len({case.patient_key for case in cases})),
        ("sites", len({case.site for case in cases})),
        ("with a label", sum(case.has_label for case in cases)),
        ("test cases", len(split.test)),
        ("refused", len(findings.rejections)),
    ]
    return [(name.removesuffix("s") if count == 1 else name, tables.thousands(count)) for name, count in pairs]


def facts(findings: Findings) -> list[tuple[str, str]]:
    """How the run was done, as name and text."""
    plan, settings = findings.plan, findings.settings
    spacing = " × ".join(f"{step:g}" for step in plan.spacing_mm)
    patch = " × ".join(str(size) for size in plan.patch_size_vox)
    window = (
        "" if plan.intensity.low is None else f" {plan.intensity.low:g} to {plan.intensity.high:g}".replace("-", "−")
    )
    rows = [("Network", plan.network.name)]
    if plan.source is not None:
        rows.append(("Source", plan.source.rstrip("/").rsplit("/", 1)[-1]))
        rows += [("Source weights", f"sha256 {plan.source_sha256}")] if plan.source_sha256 else []
    card = next((model.card for model in findings.models if model.arm == "transfer"), None)
    if card is not None:
        rows += [("Licence of the weights", card.licence), ("Cite", card.citation)]
    rows += [
        ("Input", f"{plan.modality}, {spacing} mm, {plan.orientation}, {plan.intensity.rule}{window}"),
        ("Patch", f"{patch} voxels"),
        ("Classes", ", ".join(findings.class_names)),
    ]
    rows += [(_model_name(model), _model_facts(model)) for model in findings.models]
    versions = findings.models[0].training.get("versions") if findings.models else None
    if isinstance(versions, Mapping):
        rows.append(("Versions", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))))
    rows.append(
        (
            "Intervals",
            f"{settings.confidence * 100:g} %, expanded percentile bootstrap over patients{_and_seeds(findings)}, "
            f"{tables.thousands(settings.n_bootstrap)} samples, seed {settings.seed}",
        )
    )
    return rows


def _and_seeds(findings: Findings) -> str:
    return " (of the difference over seeds too, by Student's t)" if len(findings.seeds) > 1 else ""


def _model_name(model: TrainedModel) -> str:
    return f"Arm {model.arm}, fold {model.fold}, seed {model.seed}"


def _model_facts(model: TrainedModel) -> str:
    training = model.training
    words = {
        "strategy": "strategy {}",
        "n_steps": "{} steps",
        "best_step": "kept step {}",
        "best_val_dice": "validation Dice {:.3f}",
        "n_threads": "{} threads",
        "stop_reason": "stopped by {}",
    }
    return ", ".join(text.format(training[key]) for key, text in words.items() if training.get(key) is not None)


def limits(findings: Findings) -> list[str]:
    """What these numbers do not say; only what applies to this run."""
    settings, arms = findings.settings, findings.arms
    texts = [sentence] if (sentence := more_tables.look_sentence(findings)) else []
    if findings.n_patients < _FEW_PATIENTS:
        texts.append(
            f"With {findings.n_patients} patients a bootstrap interval can be narrower than its name says where the "
            "differences are skewed; take a close call for an open question."
        )
    if len(findings.seeds) == 1:
        texts.append(
            "All arms were trained with one seed: the intervals cover the choice of patients, not of the seed. Where "
            "trainings differ as much as patients do, such intervals tell two equal arms apart in half of all runs."
        )
    sites = {case.site for case in findings.cases}
    if len(sites) == 1:
        texts.append("All cases come from one site: nothing here says how the network does elsewhere.")
    if any(case.failed for arm in arms for case in arm.cases):
        texts.append(
            "A case without a prediction counts with the worst score: Dice 0, and for HD95 the volume's diagonal. "
            "Where no arm has one the case is no part of the verdict."
        )
    if any(summary.n_empty for arm in arms for name in arm.classes for summary in arm.classes[name].values()):
        texts.append(
            "A class that is neither in the reference nor predicted has no score; such cases are counted as empty."
        )
    texts += [
        "HD95 does not see a far island of less than 5 % of the boundary. "
        "Where either reference or prediction is empty it is the volume's diagonal.",
        f"Surface Dice takes {settings.surface_tolerance_mm:g} mm as agreement; the tolerance is a choice, not a law.",
        "The reference is what a reader drew, and readers differ.",
        "This is research software and no medical device.",
    ]
    return texts
