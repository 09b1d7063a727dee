"""Multi-frame objects as one header a frame: enhanced CT, MR and PET, and legacy converted ones (PS3.3, C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from monai_tl.dicom.header import Header, read_header
from monai_tl.dicom.reading import dicom_faults, read_file
from monai_tl.errors import DicomError

MAX_FRAMES = 20_000
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


def read_headers(path: Path) -> tuple[Header, ...]:
    """The header of a single image, or those of all frames of a multi-frame object in the order of the file.

    An object of many frames that does not say where each lies comes back as one header with ``n_frames``; stacking
    refuses it by name.

    Raises:
        DicomError: The file is not DICOM, a value cannot be parsed, or frames are not described one by one.
    """
    header = read_header(path)
    if not header.has_frame_groups or not header.rows or not header.columns or header.modality in ("SEG", ""):
        return (header,)
    if not 1 <= header.n_frames <= MAX_FRAMES:
        raise DicomError(f"NumberOfFrames is {header.n_frames}, which no image has; export the object again", "damaged")
    dataset, _ = read_file(path, _GROUPS)
    with dicom_faults():
        shared = (dataset.get(_GROUPS[0]) or [Dataset()])[0]
        frames = dataset.get(_GROUPS[1]) or ()
        if len(frames) != header.n_frames:
            raise DicomError(
                f"{len(frames)} of {header.n_frames} frames are described; export the multi-frame object again",
                "damaged",
            )
        return tuple(
            _frame_header(header, number, _Groups(frame, shared)) for number, frame in enumerate(frames, start=1)
        )


class _Groups:
    """Functional groups of one frame: its own before those that all frames share."""

    def __init__(self, frame: Dataset, shared: Dataset) -> None:
        self._datasets = (frame, shared)

    def value(self, group: str, keyword: str) -> Any:
        """None where the group, or the value in it, is absent."""
        for dataset in self._datasets:
            items = dataset.get(group)
            if items and items[0].get(keyword) not in (None, ""):
                return items[0].get(keyword)
        return None

    def numbers(self, group: str, keyword: str, count: int) -> tuple[float, ...] | None:
        value = self.value(group, keyword)
        if value is None:
            return None
        found = tuple(float(part) for part in ([value] if count == 1 else value))
        if len(found) != count or not all(abs(number) < float("inf") for number in found):
            raise DicomError(f"{keyword} of a frame does not hold {count} finite numbers; export again", "damaged")
        return found


def _frame_header(whole: Header, number: int, groups: _Groups) -> Header:
    slope = groups.numbers("PixelValueTransformationSequence", "RescaleSlope", 1)
    intercept = groups.numbers("PixelValueTransformationSequence", "RescaleIntercept", 1)
    thickness = groups.numbers("PixelMeasuresSequence", "SliceThickness", 1)
    echo = groups.numbers("MREchoSequence", "EffectiveEchoTime", 1)
    types = [found for name in _FRAME_TYPES if (found := groups.value(name, "FrameType"))]
    components = [found for name in _FRAME_TYPES if (found := groups.value(name, "ComplexImageComponent"))]
    return replace(
        whole,
        frame=number,
        image_type=tuple(str(part).strip().upper() for part in _listed(types[0])) if types else whole.image_type,
        component=str(components[0]).upper() if components else whole.component,
        echo=f"{echo[0]:.6g}" if echo else whole.echo,
        has_echo_time=whole.has_echo_time or echo is not None,
        traits=(*_traits(groups), *whole.traits),
        slope=slope[0] if slope else whole.slope,
        intercept=intercept[0] if intercept else whole.intercept,
        has_scaling=whole.has_scaling or slope is not None or intercept is not None,
        position_lps=groups.numbers("PlanePositionSequence", "ImagePositionPatient", 3) or whole.position_lps,
        orientation=groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6) or whole.orientation,
        pixel_spacing_mm=groups.numbers("PixelMeasuresSequence", "PixelSpacing", 2) or whole.pixel_spacing_mm,
        slice_thickness_mm=thickness[0] if thickness else whole.slice_thickness_mm,
    )


def _traits(groups: _Groups) -> tuple[tuple[str, str], ...]:
    """What may tell volumes of one object apart, by the keywords of single images where there are such."""
    direction = groups.value("MRDiffusionSequence", "DiffusionGradientDirectionSequence")
    found = {
        "StackID": groups.value("FrameContentSequence", "StackID"),
        "AcquisitionNumber": groups.value("FrameContentSequence", "FrameAcquisitionNumber"),
        "TemporalPositionIdentifier": groups.value("FrameContentSequence", "TemporalPositionIndex"),
        "TemporalPositionTimeOffset": groups.value("TemporalPositionSequence", "TemporalPositionTimeOffset"),
        "ContrastBolusAgentPhase": groups.value("ContrastBolusUsageSequence", "ContrastBolusAgentPhase"),
        "DiffusionBValue": groups.value("MRDiffusionSequence", "DiffusionBValue"),
        "DiffusionGradientOrientation": direction[0].get("DiffusionGradientOrientation") if direction else None,
        "TriggerTime": groups.value("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        "AcquisitionTime": groups.value("FrameContentSequence", "FrameAcquisitionDateTime"),
        "ContentTime": groups.value("FrameContentSequence", "FrameReferenceDateTime"),
    }
    return tuple((keyword, str(value)) for keyword, value in found.items() if value is not None)


def _listed(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, str) else list(value)
