"""A table of the cases groups them and tells no person from another: its columns are printed in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_tl.case_table import read_case_table
from monai_tl.errors import ConfigError

N = 12
NAMES = [f"case-{number:02d}" for number in range(N)]
CANARY = "Zebrafink"


def table(path: Path, heading: str, values: list[str]) -> Path:
    rows = [f"{name},{number // 2},{value}" for number, (name, value) in enumerate(zip(NAMES, values, strict=True))]
    path.write_text("\n".join([f"case,patient,{heading}", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("heading", "values"),
    [
        ("sex", ["F", "M"] * 6),
        ("site_id", ["3", "17", "4"] * 4),
        ("age", [f"{number:03d}Y" for number in range(40, 40 + N)]),
        ("contrast", ["", "yes", "no"] * 4),
    ],
)
def test_what_groups_is_taken(tmp_path: Path, heading: str, values: list[str]) -> None:
    assert len(set(read_case_table(table(tmp_path / "t.csv", heading, values), NAMES, "").attributes[heading])) <= 8


@pytest.mark.parametrize(
    ("heading", "values"),
    [
        ("PatientName", [CANARY] * N),
        ("Name", [CANARY] * N),
        ("patient_id", ["123456"] * N),
        ("ID", ["5"] * N),
        ("MRN", ["7", "8"] * 6),
        ("date of birth", [CANARY] * N),
        ("when", ["19620704", ""] * 6),
        ("when", ["1962-07-04", ""] * 6),
        ("when", ["4.7.1962", ""] * 6),
        ("note", [f"{CANARY}{number}" for number in range(N)]),
    ],
)
def test_what_tells_persons_apart_is_refused_without_its_values(
    tmp_path: Path, heading: str, values: list[str]
) -> None:
    with pytest.raises(ConfigError, match="take the column out of the table") as caught:
        read_case_table(table(tmp_path / "t.csv", heading, values), NAMES, "")
    assert heading in str(caught.value)
    assert not any(value in str(caught.value) for value in values if len(value) > 1)


def test_ages_of_children_are_years(tmp_path: Path) -> None:
    values = ["006M", "010D", "003W", "045Y", "215M", "216M", *["070Y"] * 6]
    found = read_case_table(table(tmp_path / "t.csv", "PatientAge", values), NAMES, "").attributes["PatientAge"]
    assert found == ["<18"] * 3 + ["40–65", "<18", "18–40"] + ["65–80"] * 6
