"""Multi-frame objects with functional groups, frame by frame, by plain pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import slice_dataset
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from transfer_syntaxes import STEP_MM, TWELVE, Bits, Place, save_encoded, set_pixels

_ROOT = "1.2.840.10008.5.1.4.1.1."
KINDS = {
    "enhanced CT": (_ROOT + "2.1", "CT"),
    "legacy converted CT": (_ROOT + "2.2", "CT"),
    "enhanced MR": (_ROOT + "4.1", "MR"),
    "legacy converted MR": (_ROOT + "4.4", "MR"),
    "enhanced PET": (_ROOT + "130", "PT"),
    "legacy converted PET": (_ROOT + "128.1", "PT"),
}
SOP_INSTANCE = "1.2.3.4.1"
# functional groups that hold the geometry and the scale; each may be shared or stand with its frame
PLACING = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
SCALING = "PixelValueTransformationSequence"


@dataclass
class Frame:
    """One frame: stored values and its functional groups, attribute values by keyword by sequence."""

    pixels: np.ndarray
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    def with_group(self, sequence: str, **attributes: Any) -> Frame:
        return Frame(self.pixels, {**self.groups, sequence: {**self.groups.get(sequence, {}), **attributes}})

    def without(self, sequence: str) -> Frame:
        return Frame(self.pixels, {name: group for name, group in self.groups.items() if name != sequence})


def frames_of(
    values: np.ndarray, place: Place, *, slope: float | None = 1.0, intercept: float = -1024.0, stack: str = "1"
) -> list[Frame]:
    """(K, rows, columns) stored values as frames in order of position; slope None leaves the scale out."""
    found = []
    for k, plane in enumerate(values):
        frame = (
            Frame(plane)
            .with_group("FrameContentSequence", StackID=stack, InStackPositionNumber=k + 1)
            .with_group("PlanePositionSequence", ImagePositionPatient=place.positions[k].tolist())
            .with_group("PlaneOrientationSequence", ImageOrientationPatient=list(place.orientation))
            .with_group("PixelMeasuresSequence", PixelSpacing=list(place.spacing), SliceThickness=STEP_MM)
        )
        if slope is not None:
            frame = frame.with_group(SCALING, RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
        found.append(frame)
    return found


def shuffled(frames: Sequence[Frame], seed: int = 3) -> list[Frame]:
    order = np.random.default_rng(seed).permutation(len(frames))
    assert len(frames) < 3 or list(order) != sorted(order)
    return [frames[index] for index in order]


def _item(attributes: dict[str, Any]) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, Items([_item(value)]) if isinstance(value, dict) else value)
    return ds


def write_enhanced(
    path: Path,
    frames: Sequence[Frame],
    *,
    kind: str = "enhanced CT",
    shared: Sequence[str] | None = ("PlaneOrientationSequence", "PixelMeasuresSequence", SCALING),
    bits: Bits = TWELVE,
    syntax: str = "explicit little",
    layout: dict[str, Any] | None = None,
    instance: str = SOP_INSTANCE,
    **tags: Any,
) -> Path:
    """Write frames in the order given.

    Args:
        shared: Functional groups of the first frame that are written once for all; None leaves both sequences out.
        instance: SOPInstanceUID.
        tags: Attributes of the object; None removes one.
    """
    sop_class, modality = KINDS.get(kind, (kind, "OT"))
    attributes: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "Modality": modality,
        "SOPInstanceUID": instance,
        **bits.tags,
        # in an enhanced object none of these stands at the top
        **dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")),
        **dict.fromkeys(("RescaleSlope", "RescaleIntercept", "ConvolutionKernel")),
        "NumberOfFrames": len(frames),
        **tags,
    }
    pixels = np.array([frame.pixels for frame in frames])
    ds = slice_dataset(np.zeros(pixels.shape[1:], np.uint16), (0, 0, 0), 1, **attributes)
    if shared is not None:
        common = {name: frames[0].groups[name] for name in shared if name in frames[0].groups}
        ds.SharedFunctionalGroupsSequence = Items([_item(common)])
        ds.PerFrameFunctionalGroupsSequence = Items(
            _item({name: group for name, group in frame.groups.items() if name not in common}) for frame in frames
        )
    set_pixels(ds, pixels, bits, syntax, **(layout or {}))
    return save_encoded(ds, path)
