"""The report as one HTML file that needs nothing else: no font, no request; scripts only look through cases."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import monai_tl
from monai_tl.report import certainty, more_tables, tables
from monai_tl.report.audit_table import group_rows
from monai_tl.report.background import WORDS, intake, limits
from monai_tl.report.certainty_figure import FEWEST_VOXELS, certainty_plot
from monai_tl.report.choice import choices
from monai_tl.report.figures import box_plots, learning_curves, verdict_plot
from monai_tl.report.findings import Findings
from monai_tl.report.provenance import facts, licences
from monai_tl.report.shown import MOST_ROWS, lowest, points_note
from monai_tl.report.size_figure import size_plot
from monai_tl.report.unfound import unfound_lines
from monai_tl.report.viewer import viewer_scripts
from monai_tl.sources.accounting import describe_audit
from monai_tl.transfer.shift_words import describe_shift
from monai_tl.verdict_words import verdict_mark

TEMPLATE = "report.html.j2"


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
        "mark": verdict_mark(verdict.model_dump()) if verdict else ("none", ""),
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
        "unfound_lines": unfound_lines(findings),
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
        "boxes": box_plots(arms, findings.class_names, findings.settings.tolerance_words),
        "case_rows": tables.case_rows(lowest(arms), findings.class_names),
        "most_rows": MOST_ROWS,
        "points_note": points_note(findings.n_cases),
        "facts": facts(findings),
        "limits": limits(findings),
        "words": WORDS,
        "licences": licences(findings),
        "lesion_rows": more_tables.lesion_rows(findings),
        "calibration_rows": certainty.calibration_rows(findings),
        "uncertainty_rows": certainty.uncertainty_rows(findings),
        "region": certainty.REGION,
        "temperature_sentence": certainty.temperature_sentence(findings),
        "uncertainty_sentence": certainty.uncertainty_sentence(findings),
        "fewest_voxels": FEWEST_VOXELS,
        "certainty_plot": certainty_plot(findings.calibration, findings.uncertainty),
        "scripts": viewer_scripts() if any(overlay.slices for overlay in findings.overlays) else (),
        "version": monai_tl.__version__,
    }


def split_headline(headline: str) -> tuple[str, list[str]]:
    """Title and the rest: the first sentence, without the verdict's word, which stands beside it."""
    first, _, rest = headline.partition(". ")
    for word in ("Gain: ", "Harm: ", "No difference shown: "):
        first = first.removeprefix(word)
    # an interval is not torn in two where the title wraps
    first = re.sub(r"(\S+) to ([+−]\S+)", "\\1\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}\\2", first)
    return first[0].upper() + first[1:].rstrip(".") + ".", [rest] if rest else []
