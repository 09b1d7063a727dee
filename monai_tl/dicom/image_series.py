"""One volume of a series: its images and the labels drawn on it, as found in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monai_tl.dicom.grouping import Part
from monai_tl.dicom.header import Header
from monai_tl.dicom.label_object import LabelObject


@dataclass(frozen=True)
class ImageSeries:
    """Images that share a SeriesInstanceUID and whatever else makes one volume; not yet checked to be one.

    Attributes:
        uid: SeriesInstanceUID; a made-up text where the files have none.
        study_uid: May be empty.
        headers: In no particular order; one a frame of a multi-frame object.
        labels: SEG and RTSTRUCT objects that refer to this series.
        notes: What was done while grouping, e.g. duplicates dropped.
        part: What tells this volume from others of its series; empty for a whole series.
    """

    uid: str
    study_uid: str
    headers: tuple[Header, ...]
    labels: tuple[LabelObject, ...] = ()
    notes: tuple[str, ...] = ()
    part: Part = ()

    @property
    def name(self) -> str:
        """What identifiers of the volume are made of: the UID, and the part where there are several."""
        return "|".join((self.uid, *(f"{key}={value}" for key, value in self.part)))

    def reason(self, fault: str) -> str:
        """Why the volume is refused; where its series holds others too, with what it is of them."""
        return f"{fault} ({describe_part(self.part)} of its series)" if self.part else fault

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files, each once."""
        return tuple(dict.fromkeys(header.path for header in self.headers))


def describe_part(part: Part) -> str:
    """E.g. ``echo time ms 4.6``."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in part)
