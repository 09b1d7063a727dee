"""How a run was done, of which data and code, and under whose licences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import monai_tl
from monai_tl.files import sha256_of
from monai_tl.report import tables
from monai_tl.report.findings import Findings, TrainedModel

EFFORT = "in reports/report.html of the workspace; not in this file, so that the same run gives the same bytes"


def data_digest(findings: Findings) -> str:
    """Hex sha256 over ids and input bytes of all cases that came in: the revision of the data."""
    ordered = sorted(findings.cases, key=lambda case: case.case_id)
    return sha256_of(*(part for case in ordered for part in (case.case_id, case.provenance.input_sha256)))


def facts(findings: Findings) -> list[tuple[str, str]]:
    """How the run was done, as name and text."""
    plan, settings = findings.plan, findings.settings
    spacing = " × ".join(f"{step:g}" for step in plan.spacing_mm)
    patch = " × ".join(str(size) for size in plan.patch_size_vox)
    window = (
        "" if plan.intensity.low is None else f" {plan.intensity.low:g} to {plan.intensity.high:g}".replace("-", "−")
    )
    rows: list[tuple[str, str]] = [("Network", plan.network.name)]
    if plan.source is not None:
        rows.append(("Source", plan.source.rstrip("/").rsplit("/", 1)[-1]))
        rows += [("Source weights", f"sha256 {plan.source_sha256}")] if plan.source_sha256 else []
    rows.append(("Data", f"{tables.thousands(len(findings.cases))} cases, sha256 {data_digest(findings)}"))
    rows += [(name, text) for name, text in _code(findings)]
    rows += [
        ("Input", f"{plan.modality}, {spacing} mm, {plan.orientation}, {plan.intensity.rule}{window}"),
        ("Patch", f"{patch} voxels"),
        ("Classes", ", ".join(findings.class_names)),
    ]
    rows += [(_model_name(model), _model_facts(model)) for model in findings.models]
    versions = findings.models[0].training.get("versions") if findings.models else None
    if isinstance(versions, Mapping):
        rows.append(("Versions", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))))
    rows.append(("Duration, energy", EFFORT))
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
        "n_ranks": "{} processes",
        "stop_reason": "stopped by {}",
    }
    texts = [
        (text.format(training[key]), training[key]) for key, text in words.items() if training.get(key) is not None
    ]
    found = [text.removesuffix("es" if text.endswith("sses") else "s") if n == 1 else text for text, n in texts]
    return ", ".join([*found, *([model.fast.describe()] if model.fast else [])])


def _code(findings: Findings) -> list[tuple[str, str]]:
    """Version and digests; a revision of git would differ where nothing that matters does, as in a report's own
    commit."""
    texts = [f"monai_tl {monai_tl.__version__}"]
    texts += [f"training sha256 {digest}" for digest in _training_code(findings)]
    texts += [f"evaluation sha256 {findings.evaluation_code}"] if findings.evaluation_code else []
    return [("Code", ", ".join(texts))]


def _training_code(findings: Findings) -> list[str]:
    found = [model.training.get("code_sha256") for model in findings.models]
    return sorted({str(digest) for digest in found if digest})


def licences(findings: Findings) -> list[tuple[str, str]]:
    """Licence and citation of the source's weights and of the data."""
    settings = findings.settings
    rows = []
    card = next((model.card for model in findings.models if model.arm == "transfer"), None)
    if card is not None:
        rows += [("Weights, licence", card.licence), ("Weights, cite", card.citation)]
    rows += [
        ("Data, licence", settings.data_licence or "not stated; set evaluate.data_licence"),
        ("Data, cite", settings.data_citation or "not stated; set evaluate.data_citation"),
    ]
    return rows


def provenance_record(findings: Findings) -> dict[str, Any]:
    """For ``metrics.json``: what the report says of data, code and licences."""
    plan, settings = findings.plan, findings.settings
    card = next((model.card for model in findings.models if model.arm == "transfer"), None)
    versions = findings.models[0].training.get("versions") if findings.models else None
    source = None
    if card is not None:
        source = {
            "name": (plan.source or "").rstrip("/").rsplit("/", 1)[-1],
            "weights_sha256": plan.source_sha256,
            "licence": card.licence,
            "citation": card.citation,
        }
    return {
        "monai_tl": monai_tl.__version__,
        "training_code_sha256": _training_code(findings),
        "evaluation_code_sha256": findings.evaluation_code,
        "data": {
            "n_cases": len(findings.cases),
            "sha256": data_digest(findings),
            "licence": settings.data_licence,
            "citation": settings.data_citation,
        },
        "source": source,
        "n_threads": sorted({n for model in findings.models if isinstance(n := model.training.get("n_threads"), int)}),
        "versions": dict(versions) if isinstance(versions, Mapping) else {},
    }
