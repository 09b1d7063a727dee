"""Dates moved by whole days, so that intervals between the studies of a patient stay what they are."""

from __future__ import annotations

import re
from collections.abc import Set
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?")
_ZONE = re.compile(r"[+-]\d{4}")


def shift_date(text: str, days_back: int) -> str | None:
    """A DICOM date (DA) moved into the past; None when it is no date, or leaves the calendar."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    try:
        moved = date(*(int(part) for part in found.groups())) - timedelta(days=days_back)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"


def clean_time(text: str, identifiers: Set[str] = frozenset()) -> str | None:
    """A DICOM time (TM) to the millisecond; None when it is no time, or one of the patient's identifiers.

    Fractions of a second hold six digits, as record numbers do; one that is an identifier goes as a whole.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    whole, fraction = "".join(part for part in found.groups()[:3] if part), found.group(4) or ""
    if not identifiers.isdisjoint((whole, whole + fraction[1:], whole + fraction[1:4])):
        return None
    return whole if not identifiers.isdisjoint((fraction[1:], fraction[1:].lstrip("0"))) else whole + fraction[:4]


def shift_datetime(text: str, days_back: int, identifiers: Set[str] = frozenset()) -> str | None:
    """A DICOM date and time (DT) moved; its time zone, which tells a region, is dropped.

    Returns:
        None when it names no day: a year alone cannot be moved by days.
    """
    text = _ZONE.sub("", text.strip(), count=1) if len(text.strip()) > 5 else text.strip()
    moved = shift_date(text[:8], days_back)
    if moved is None or len(text) == 8:
        return moved
    time = clean_time(text[8:], identifiers)
    return None if time is None else moved + time
