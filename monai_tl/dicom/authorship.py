"""Who drew a SEG or RTSTRUCT: a person, or a machine alone, from whose drawings no network should learn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from monai_tl.dicom.reading import dicom_faults, read_file

_OWN = "monai_tl"


def author_of(path: Path) -> Literal["own", "machine", "person"]:
    """``own``: a result of this package as it was written; ``machine``: each of its structures says AUTOMATIC.

    What says nothing was drawn by a person: most programs that draw outlines leave the field empty.

    Raises:
        DicomError: The file is damaged.
    """
    dataset, _ = read_file(path, ("Manufacturer", "SegmentSequence", "StructureSetROISequence"))
    with dicom_faults():
        kinds = [str(item.get("SegmentAlgorithmType") or "") for item in dataset.get("SegmentSequence") or ()]
        kinds += [
            str(item.get("ROIGenerationAlgorithm") or "") for item in dataset.get("StructureSetROISequence") or ()
        ]
        maker = str(dataset.get("Manufacturer") or "")
    if not kinds or set(kinds) != {"AUTOMATIC"}:
        return "person"
    return "own" if maker == _OWN else "machine"
