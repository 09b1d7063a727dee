"""What is said of sites: of test cases alone, and nothing where no one knows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_report import arm, make_findings

from monai_tl.config import SplitConfig
from monai_tl.dataset.splits import split_patients
from monai_tl.records import UNKNOWN_SITE, CaseRecord, Provenance
from monai_tl.report.page import intake, limits

ONE_SITE = "All test cases come from one site"


def case(number: int, site: str, model: str = "M") -> CaseRecord:
    return CaseRecord(
        case_id=f"case-{number}",
        patient_key=f"patient-{number}",
        site=site,
        modality="CT",
        has_label=True,
        spacing_mm=(1.0, 1.0, 1.0),
        spatial_shape=(4, 4, 4),
        affine=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
        provenance=Provenance(
            kind="dicom", study="s", series="x", input_sha256="0", image_sha256=f"{number}",
            scanner={"Manufacturer": "ACME", "ManufacturerModelName": model},
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sites", "is_one", "n_known"),
    [
        # test cases, then a training case
        ("aab", True, 2),
        ("abb", False, 2),
        ("aaa", True, 1),
        ("ua", False, 1),
        ("auu", False, 1),
        ("uuu", False, 0),
    ],
)
def test_one_site_is_claimed_of_test_cases_of_one_known_site(sites: str, is_one: bool, n_known: int) -> None:
    names = [UNKNOWN_SITE if site == "u" else site for site in sites]
    dice = [0.9] * (len(sites) - 1)
    findings = make_findings((arm("transfer", *dice), arm("scratch", *dice)))
    findings = replace(findings, cases=tuple(case(number, site) for number, site in enumerate(names)))
    assert any(text.startswith(ONE_SITE) for text in limits(findings)) == is_one
    assert dict(intake(findings))["known site" if n_known == 1 else "known sites"] == str(n_known)


def test_two_scanners_of_a_site_both_give_their_share_to_the_test_set() -> None:
    cases = [case(number, "a", "M" if number < 20 else "N") for number in range(30)]
    split = split_patients(cases, SplitConfig(n_folds=2, test_fraction=0.4))
    model = {one.case_id: one.provenance.scanner["ManufacturerModelName"] for one in cases}
    assert [sum(model[name] == which for name in split.test) for which in "MN"] == [8, 4]
