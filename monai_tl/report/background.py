"""What the numbers rest on: rules, what came in, the contract, the audit, and what they do not say."""

from __future__ import annotations

from collections import Counter
from typing import Any

from monai_tl.metrics.calibration import N_BINS
from monai_tl.metrics.lesions import DETECTION_IOU, PANOPTIC_IOU
from monai_tl.metrics.subgroups import FEW_PATIENTS, FEWEST_PATIENTS
from monai_tl.records import UNKNOWN_SITE
from monai_tl.report import more_tables, tables
from monai_tl.report.findings import Findings
from monai_tl.report.unfound import unfound_record


def rules_record(findings: Findings) -> dict[str, Any]:
    """For ``metrics.json``: by which rules the numbers were made; the same predictions under others give others."""
    settings = findings.settings
    return {
        "surface_tolerance_mm": settings.surface_tolerance_mm,
        "class_tolerances_mm": settings.class_tolerances_mm,
        "confidence": settings.confidence,
        "n_bootstrap": settings.n_bootstrap,
        "bootstrap_seed": settings.seed,
        "interval": "expanded percentile bootstrap over patients",
        "null_margin": settings.null_margin,
        "fewest_patients_of_a_group": FEWEST_PATIENTS,
        "lesion_connectivity": 26,
        "lesion_detection_iou": DETECTION_IOU,
        "lesion_panoptic_iou": PANOPTIC_IOU,
        "calibration_bins": N_BINS,
        "missing_prediction": "the worst score: Dice 0, distances the longest diagonal of all",
    }


def background_record(findings: Findings) -> dict[str, Any]:
    """For ``metrics.json``: what came in, contract, audit, classes never found, and what the numbers do not say."""
    plan = findings.plan
    return {
        "intake": _counts(findings),
        "contract": [line.model_dump(mode="json") for line in plan.adaptations],
        "shift": tables.plain_numbers({"score": plan.shift.score, "largest": plan.shift.largest})
        if plan.shift
        else None,
        "audit": _audit_record(findings),
        "never_found": unfound_record(findings),
        "limits": limits(findings),
    }


def _audit_record(findings: Findings) -> dict[str, Any] | None:
    """Of the first training from the source; null without one."""
    audit = next((model.audit for model in findings.models if model.arm == "transfer"), None)
    if audit is None:
        return None
    counts = Counter(tensor.status for tensor in audit.tensors)
    return {
        **tables.plain_numbers({"share_body": audit.share_body, "share_all": audit.share_all}),
        "covers": None if audit.covers is None else list(audit.covers),
        "tensors": {status: counts[status] for status in ("matched", "adapted", "fresh", "unused")},
        "groups": [tables.plain_numbers({"name": name, "share": share}) for name, share in audit.groups.items()],
        "notes": list(audit.notes),
    }


def intake(findings: Findings) -> list[tuple[str, str]]:
    """Counts of what came in, each with its name."""
    words = ("cases", "patients", "known sites", "with a label", "test cases", "refused")
    pairs = zip(words, _counts(findings).values(), strict=True)
    return [(name.removesuffix("s") if count == 1 else name, tables.thousands(count)) for name, count in pairs]


def _counts(findings: Findings) -> dict[str, int]:
    cases = findings.cases
    return {
        "n_cases": len(cases),
        "n_patients": len({case.patient_key for case in cases}),
        "n_sites": len({case.site for case in cases} - {UNKNOWN_SITE}),
        "n_labelled": sum(case.has_label for case in cases),
        "n_test_cases": len(findings.split.test),
        "n_refused": len(findings.rejections),
    }


def limits(findings: Findings) -> list[str]:
    """What these numbers do not say; only what applies to this run."""
    settings, arms = findings.settings, findings.arms
    texts = [sentence] if (sentence := more_tables.look_sentence(findings)) else []
    if findings.n_patients < FEW_PATIENTS:
        texts.append(
            f"With {findings.n_patients} patients a bootstrap interval can be narrower than its name says where the "
            "differences are skewed; take a close call for an open question."
        )
    if len(findings.seeds) == 1:
        texts.append(
            "All arms were trained with one seed: the intervals cover the choice of patients, not of the seed. Where "
            "trainings differ as much as patients do, such intervals tell two equal arms apart in half of all runs."
        )
    scored = {case.case_id for case in arms[0].cases}
    sites = {case.site for case in findings.cases if case.case_id in scored}
    if len(sites) == 1 and UNKNOWN_SITE not in sites:
        texts.append(
            f"All {findings.set_name} cases come from one site: nothing here says how the network does elsewhere."
        )
    if any(case.failed for arm in arms for case in arm.cases):
        texts.append(
            "A case without a prediction counts with the worst score: Dice 0, and for HD95 the longest diagonal of "
            "all. Where no arm has one the case is no part of the verdict."
        )
    if any(summary.n_empty for arm in arms for name in arm.classes for summary in arm.classes[name].values()):
        texts.append(
            "A class that is neither in the reference nor predicted has no score; such cases are counted as empty."
        )
    texts += [
        f"Intended use: to judge whether a pretrained start helps on cases like these ({findings.plan.modality}; "
        f"{', '.join(findings.class_names)}), for research. Not tested: other scanners, sites, protocols, age groups "
        "and diseases than those in the tables above, and what a reader makes of the outlines.",
        "HD95 does not see a far island of less than 5 % of the boundary. "
        "Where either reference or prediction is empty it is the volume's diagonal.",
        f"Surface Dice takes {settings.tolerance_words} as agreement; the tolerance is a choice, not a law.",
        "The reference is what a reader drew, and readers differ.",
        "This is research software and no medical device.",
    ]
    return texts


WORDS = (
    ("arm", "one way of training; the arms of a run share network, data, budget and seeds"),
    ("transfer", "the arm that starts from the pretrained network"),
    ("scratch", "its twin: started from random weights, and trained whole from the first step"),
    ("source", "the pretrained network that transfer starts from"),
    ("seed", "the number behind all chance in a training; another seed gives another training of the same arm"),
    ("Dice", "overlap of prediction and reference, 0 to 1; 1 is the same outline"),
    ("surface Dice", "share of both surfaces that lies within the tolerance of the other"),
    ("HD95", "distance, in mm, within which 95 % of one surface lies from the other"),
    (
        "interval",
        "where the number would plausibly lie with other patients like these; the more patients, the narrower it is",
    ),
    ("gain, harm", "the whole interval of the difference lies above, or below, zero"),
    (
        "no difference shown",
        "the interval holds zero; records call it null. It is decided only where the interval also lies within the "
        "margin that counts as no difference",
    ),
    (
        "undecided",
        "these patients and seeds cannot tell; a single pair of trainings decides nothing, since another may differ",
    ),
)
"""For a reader who is new to it: word and meaning."""
