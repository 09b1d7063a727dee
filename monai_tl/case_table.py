"""A table of the user's about the cases: whose they are, and what they may be grouped by."""

from __future__ import annotations

import csv
import io
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
        ConfigError: It is missing or no such table, or lacks a case; names are not repeated, they may be patients'.
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
    attributes = {
        name: group_column(name, [row[name] or "" for row in chosen])
        for name in columns
        if name not in ("case", "patient")
    }
    return CaseTable(tuple(stand_ins[owner] for owner in owners), attributes, is_given="patient" in columns)
