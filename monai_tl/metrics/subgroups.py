"""A metric group by group: by site, scanner, slice thickness, size of what is outlined, or whatever a table says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.metrics.summary import MetricSummary, summarise

FEWEST_PATIENTS, FEW_PATIENTS = 6, 20
"""Below the first no interval is given, below the second a warning stands beside it (decision 8)."""
UNKNOWN = "unknown"
AGE_BANDS = (18.0, 40.0, 65.0, 80.0)
"""Lower ends, years."""
THICKNESS_BANDS_MM = (1.5, 3.0, 5.0)
"""A slice of exactly 1.5 mm is thin; the last band is everything above 5 mm."""
_MOST_VALUES = 6


@dataclass(frozen=True)
class Subgroup:
    """One row of a table of subgroups.

    Attributes:
        attribute, group: E.g. ``site`` and ``a``.
        n_patients: With a defined value.
        summary: Of the group's cases; its interval is NaN with fewer than FEWEST_PATIENTS.
        warning: Why the row says little; empty when nothing speaks against it.
    """

    attribute: str
    group: str
    n_patients: int
    summary: MetricSummary
    warning: str


def summarise_groups(
    values: Sequence[float],
    patients: Sequence[str],
    failed: Sequence[bool],
    attributes: Mapping[str, Sequence[str]],
    bootstrap: BootstrapRule,
) -> tuple[Subgroup, ...]:
    """Summarise a metric in each group of each attribute.

    Attributes in which all cases are alike are left out: they say nothing that the whole does not. Groups are looked at
    after the fact and one by one; a difference between two of them is a question and no finding.

    Args:
        values: One a case; NaN is undefined.
        patients: Patient of each case.
        failed: Whether the case has no prediction.
        attributes: Name → group of each case.
        bootstrap: How intervals are drawn.
    """
    rows = []
    for attribute, groups in attributes.items():
        names = sorted(set(groups), key=_order)
        if len(names) < 2:
            continue
        for name in names:
            of_group = [index for index, group in enumerate(groups) if group == name]
            chosen = [values[index] for index in of_group]
            who = [patients[index] for index in of_group]
            summary = summarise(
                chosen, who, [failed[index] for index in of_group],
                bootstrap.n_bootstrap, bootstrap.confidence, bootstrap.seed,
            )  # fmt: skip
            n_patients = len({one for one, value in zip(who, chosen, strict=True) if not math.isnan(value)})
            if n_patients < FEWEST_PATIENTS:
                summary = MetricSummary(summary.mean, math.nan, math.nan, summary.n, summary.n_empty, summary.n_failed)
            rows.append(Subgroup(attribute, name, n_patients, summary, _warning(n_patients)))
    return tuple(rows)


def subgroup_record(row: Subgroup, metric: str) -> dict[str, str | int | float | None]:
    """A row for a JSON file; undefined numbers are null.

    Args:
        row: Of the table.
        metric: What was summarised.
    """
    numbers = {
        name: None if isinstance(value, float) and math.isnan(value) else round(value, 6)
        for name, value in asdict(row.summary).items()
    }
    return {
        "attribute": row.attribute,
        "group": row.group,
        "metric": metric,
        "n_patients": row.n_patients,
        "warning": row.warning,
        **numbers,
    }


_A_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7.0, "D": 365.25}


def group_column(name: str, texts: Sequence[str]) -> list[str]:
    """Groups of one column of a table.

    Numbers are banded: ages at 18, 40, 65 and 80 years, slice thickness at 1.5, 3 and 5 mm, others with more than six
    different values at their terciles. Other texts are groups as they are, and nothing is ``unknown``.

    Args:
        name: Of the column; one that begins with ``age`` holds years, ``slice_thickness`` and its like mm.
        texts: One a case; blank where unknown.
    """
    plain = [text.strip() for text in texts]
    numbers = [_number(text) for text in plain]
    known = [number for number, text in zip(numbers, plain, strict=True) if text]
    if not known or any(number is None for number in known):
        return [text or UNKNOWN for text in plain]
    word = name.strip().casefold()
    if word in ("age", "patientage") or word.startswith(("age_", "age ", "patient_age", "patient age")):
        return band_numbers(numbers, AGE_BANDS)
    if word.startswith(("slice_thickness", "slice thickness")):
        return band_numbers(numbers, THICKNESS_BANDS_MM, upper=True)
    if len(set(known)) <= _MOST_VALUES:
        return [text or UNKNOWN for text in plain]
    return tercile_groups(numbers)


def band_numbers(numbers: Sequence[float | None], ends: Sequence[float], *, upper: bool = False) -> list[str]:
    """Bands between given ends, named by them; None and NaN are ``unknown``.

    Args:
        numbers: One a case.
        ends: Increasing.
        upper: A number that is an end belongs to the band below it, else to the one above.
    """
    side = "left" if upper else "right"
    low, high = ("≤", ">") if upper else ("<", "≥")
    texts = [f"{end:g}" for end in ends]
    names = [
        f"{low}{texts[0]}",
        *(f"{first}–{second}" for first, second in pairwise(texts)),
        f"{high}{texts[-1]}",
    ]
    return [
        UNKNOWN
        if number is None or math.isnan(number)
        else names[int(np.searchsorted(np.asarray(ends), number, side=side))]  # type: ignore[call-overload]
        for number in numbers
    ]


def tercile_groups(numbers: Sequence[float | None]) -> list[str]:
    """Thirds of the known numbers, named by their bounds; one group where two bounds are the same."""
    known = [number for number in numbers if number is not None and not math.isnan(number)]
    if not known:
        return [UNKNOWN] * len(numbers)
    first, second = (float(f"{value:.3g}") for value in np.quantile(known, [1 / 3, 2 / 3]))
    ends = [first] if first == second else [first, second]
    return band_numbers(numbers, ends, upper=True)


def _warning(n_patients: int) -> str:
    if n_patients < FEWEST_PATIENTS:
        return f"{n_patients} patient{'' if n_patients == 1 else 's'}: too few for an interval"
    if n_patients < FEW_PATIENTS:
        return f"{n_patients} patients: the interval is rough"
    return ""


def _number(text: str) -> float | None:
    # DICOM writes an age as 045Y, 006M, 003W or 010D (PS3.5, AS)
    if text[:-1].isdigit() and text[-1].upper() in _A_YEAR:
        return int(text[:-1]) / _A_YEAR[text[-1].upper()]
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _order(name: str) -> tuple[int, float, str]:
    """Bands by their numbers, then words, the unknown last."""
    if name == UNKNOWN:
        return 3, 0.0, name
    first = name.lstrip("≤<≥>").split("–")[0]
    number = _number(first)
    if number is None:
        return 2, 0.0, name
    return (0 if name[0] in "≤<" else 1), number, ("~" if name[0] in "≥>" else "") + name
