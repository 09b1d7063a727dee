"""Outlines of an RTSTRUCT as arrays: parsed fast, bounded, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_tl.errors import LabelError

Points = NDArray[np.float64]
"""(N, 3) LPS, mm."""
MAX_POINTS = 1 << 23
"""Of one RTSTRUCT; large real ones have a tenth of it."""
_MAX_MM = 1e6
"""A point further away than a kilometre is no point of a patient."""
_AREAS = frozenset(("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"))


@dataclass(frozen=True)
class Contour:
    """One closed outline.

    Attributes:
        points: (N, 3) LPS, mm, N ≥ 3; closed by itself.
        is_xor: It is of the kind whose overlaps cancel (CLOSEDPLANAR_XOR).
        images: SOPInstanceUIDs it says it was drawn on.
    """

    points: Points
    is_xor: bool
    images: frozenset[str]


@dataclass
class Budget:
    """What one RTSTRUCT may still hold; a file cannot ask for more memory than this."""

    points: int = MAX_POINTS

    def take(self, count: int) -> None:
        """Count points.

        Raises:
            LabelError: Code ``too_large``.
        """
        self.points -= count
        if self.points < 0:
            raise LabelError(
                f"the RTSTRUCT holds more than {MAX_POINTS} outline points; thin its outlines out and export it again",
                "too_large",
            )


def read_contours(roi: Dataset, budget: Budget) -> Iterator[Contour | None]:
    """The outlines of one structure; None for a point or an open line, which is no area.

    Their text is dropped as it is read, so that a large file is not held twice.

    Args:
        roi: Item of ROIContourSequence.
        budget: Shared by all structures of the file.

    Raises:
        LabelError: Codes ``damaged_contour``, ``too_large``.
    """
    for item in roi.get("ContourSequence") or ():
        numbers = _numbers(item, budget)
        item.pop("ContourData", None)
        kind = str(item.get("ContourGeometricType") or "CLOSED_PLANAR")
        if kind not in _AREAS or len(numbers) < 9:
            yield None
            continue
        images = item.get("ContourImageSequence") or ()
        named = frozenset(str(image.get("ReferencedSOPInstanceUID") or "") for image in images) - {""}
        yield Contour(numbers.reshape(-1, 3), kind == "CLOSEDPLANAR_XOR", named)


def first_points(roi: Dataset) -> Points:
    """(N, 3) the first point of each closed outline that has one; nothing else is parsed."""
    found = [
        head
        for item in roi.get("ContourSequence") or ()
        if str(item.get("ContourGeometricType") or "CLOSED_PLANAR") in _AREAS
        and len(head := _text(item).split(b"\\", 3)[:3]) == 3
    ]
    return _parse([number for head in found for number in head]).reshape(-1, 3)


def _numbers(item: Dataset, budget: Budget) -> NDArray[np.float64]:
    text = _text(item)
    if not text.strip(b" \0"):
        return np.empty(0)
    # before the text is split: each piece costs far more memory than it has letters
    budget.take(text.count(b"\\") // 3)
    numbers = _parse(text.split(b"\\"))
    declared = str(item.get("NumberOfContourPoints") or "")
    is_short = declared.strip().isdigit() and len(numbers) // 3 + 1 < int(declared)
    if len(numbers) % 3 or is_short:
        raise LabelError(
            "an outline of the RTSTRUCT has fewer numbers than it has points; its export was cut off, export it again",
            "damaged_contour",
        )
    return numbers


def _text(item: Dataset) -> bytes:
    """ContourData as it lies in the file: pydicom would make an object of each number."""
    if "ContourData" not in item:
        return b""
    value = item.get_item("ContourData").value
    if isinstance(value, bytes):
        return value
    return b"\\".join(str(number).encode() for number in (value if value is not None else ()))


def _parse(numbers: list[bytes]) -> NDArray[np.float64]:
    try:
        parsed = np.array(numbers, dtype=np.bytes_).astype(np.float64)
    except ValueError:
        parsed = np.array([np.nan])
    # not (… <= …): true of what is no number too
    if not (np.abs(parsed) <= _MAX_MM).all():
        raise LabelError("an outline of the RTSTRUCT holds what is no coordinate; export it again", "damaged_contour")
    return parsed
