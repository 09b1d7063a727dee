"""A table of the user's about the cases: whose they are, and what they may be grouped by."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_tl.errors import ConfigError
from monai_tl.faults import read_text
from monai_tl.metrics.subgroups import group_column


@dataclass(frozen=True)
class CaseTable:
    """What is known of the cases, in their order.

    Attributes:
        patients: Stand-ins ``1``, ``2``, …: the file's own ids go nowhere.
        attributes: Column → group of each case.
        is_given: False where nobody said whose the cases are, and each is taken for a patient's only one.
    """

    patients: tuple[str, ...]
    attributes: dict[str, list[str]]
    is_given: bool


def read_case_table(path: Path | None, names: Sequence[str], named: str) -> CaseTable:
    """Read the table.

    Args:
        path: CSV with a column ``case``, and maybe ``patient``; each further column
            groups cases. None: nothing is known.
        names: The cases.
        named: How a case is called in the table, for the message about one that is missing.

    Raises:
        ConfigError: It is missing or no such table, or lacks a case; or a column tells persons apart. Its values are
            not repeated, they may be patients'.
    """
    if path is None:
        return CaseTable(tuple(str(number) for number in range(1, len(names) + 1)), {}, is_given=False)
    text = read_text(path, "there is no such file; give a CSV file with a column 'case'")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    columns = [name for name in (rows[0] if rows else {}) if name]
    if "case" not in columns:
        raise ConfigError("(first line): a column 'case' is needed, besides 'patient' and what to group by", path.name)
    by_case = {(row["case"] or "").strip(): row for row in rows}
    if len(by_case) < len(rows):
        raise ConfigError("case: a case has several rows; keep one", path.name)
    missing = [number for number, name in enumerate(names, start=1) if name not in by_case]
    if missing:
        raise ConfigError(
            f"case: {len(missing)} of {len(names)} cases have no row, the first is number {missing[0]} in the "
            f"order of names; {named}",
            path.name,
        )
    chosen = [by_case[name] for name in names]
    owners = [(row.get("patient") or "").strip() or f"\n{number}" for number, row in enumerate(chosen)]
    stand_ins = {owner: str(number) for number, owner in enumerate(dict.fromkeys(owners), start=1)}
    attributes = {}
    for name in columns:
        if name not in ("case", "patient"):
            texts = [(row[name] or "").strip() for row in chosen]
            groups = group_column(name, texts)
            _refuse_persons(name, texts, groups, path.name)
            attributes[name] = groups
    return CaseTable(tuple(stand_ins[owner] for owner in owners), attributes, is_given="patient" in columns)


_MOST_GROUPS = 8
_OF_A_PERSON = re.compile(
    r"(^|[^a-z])(names?|surname|birth|birthdate|birthday|dob|born|mrn|accession|address|street|phone|"
    r"mail|e-?mail|ssn|insurance)($|[^a-z])|patient[_ ]?(name|id)|birth_?date|^(ids?|identifier)$"
)
_DATE = re.compile(r"(19|20)\d{2}([-/.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])|\d{1,2}[./-]\d{1,2}[./-](19|20)?\d{2}")


def _refuse_persons(name: str, texts: Sequence[str], groups: Sequence[str], file: str) -> None:
    """Groups are printed in the report and in the bundle, so no column may hold what tells one person from another."""
    advice = "take the column out of the table: its values would stand in the report and in the bundle"
    # PatientID and patient_id alike
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()
    if _OF_A_PERSON.search(words):
        raise ConfigError(f"column {name!r}: its heading is that of a name, number or date of a person; {advice}", file)
    if any(_DATE.fullmatch(text) for text in texts):
        raise ConfigError(f"column {name!r}: holds dates; {advice}, or give years of age", file)
    if len(set(groups)) > _MOST_GROUPS:
        count = f"{len(set(groups))} different texts, {_MOST_GROUPS} groups at most"
        raise ConfigError(f"column {name!r}: {count}; {advice}, or join its values into fewer", file)
