"""Whether a series is one volume, and its slices in order: by position along the normal, never by number or name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.header import Header
from monai_tl.errors import DicomError

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MAX_VOXELS = 1 << 30
MAX_SLICE_PIXELS = 1 << 26
"""A few bytes of a compressed slice can claim any size, and decoding takes the memory for it."""
_DUPLICATE_MM = 0.01
AXES_TOLERANCE = 1.1e-3
"""Of a direction's components: what rounding to three decimals can do; 0.2 mm at the edge of a body."""
PIXEL_TOLERANCE = 1e-3
"""Pixel spacings of one volume differ by no more than this share."""


def stack(headers: Sequence[Header], min_slices: int) -> tuple[tuple[Header, ...], SliceGeometry]:
    """Order the instances of one series and check that they form one volume.

    Args:
        headers: In any order.
        min_slices: Fewer are refused.

    Returns:
        The headers in slice order, and the native geometry; sheared when the gantry was tilted.

    Raises:
        DicomError: With a stable code and the numbers that led to it.
    """
    _check_kind(headers)
    if len(headers) < min_slices:
        raise DicomError(
            f"{len(headers)} slices, and ingest.min_slices asks for {min_slices}; transfer all slices, or lower it",
            "too_few_slices",
        )
    _check_uniform(headers)
    row, column = _axes(headers)
    normal = np.cross(row, column)
    positions = np.array([header.position_lps for header in headers], dtype=np.float64)
    # ties are refused below; the path only makes their order the same each time
    distances = (positions @ normal).tolist()
    along = [(distance, header.path, header.frame or 0) for distance, header in zip(distances, headers, strict=True)]
    order = sorted(range(len(headers)), key=along.__getitem__)
    ordered = tuple(headers[index] for index in order)
    first = ordered[0]
    spacing, thickness = first.pixel_spacing_mm or (0.0, 0.0), first.slice_thickness_mm or 0.0
    geometry = SliceGeometry(
        sop_instance_uids=tuple(header.sop_instance_uid for header in ordered),
        series_instance_uid=first.series_uid,
        study_instance_uid=first.study_uid,
        # blank in a slice or two: a slip of whoever blanked it
        frame_of_reference_uid=next(
            (one.frame_of_reference_uid for one in ordered if one.frame_of_reference_uid), None
        ),
        sop_class_uid=first.sop_class_uid,
        rows=first.rows,
        columns=first.columns,
        positions_lps=positions[order],
        row_direction=row,
        column_direction=column,
        pixel_spacing_mm=(spacing[0], spacing[1]),
        paths=tuple(header.path for header in ordered),
        slice_thickness_mm=thickness if 0.01 <= thickness <= 100.0 else 1.0,
        frame_numbers=tuple(header.frame or 1 for header in ordered) if first.frame is not None else (),
    )
    _check_steps(geometry)
    return ordered, geometry


def _check_kind(headers: Sequence[Header]) -> None:
    """Refuse what is no stack of grey slices, most telling reason first."""
    n_localizers = sum(bool({"LOCALIZER", "SCOUT"} & set(header.image_type)) for header in headers)
    if n_localizers:
        mend = "nothing is to be done" if n_localizers == len(headers) else "move them out of this series"
        raise DicomError(f"{n_localizers} of {len(headers)} images are localizers, not a volume; {mend}", "localizer")
    cosines = np.array([header.orientation or (0.0,) * 6 for header in headers])
    if all(header.said_localizer for header in headers) and float(np.ptp(cosines, axis=0).max()) > AXES_TOLERANCE:
        raise DicomError(
            "the series is described as a localizer, and its slices lie in several planes; nothing is to be done",
            "localizer",
        )
    for header in headers:
        if (header.sop_class_uid + ".").startswith(_SECONDARY_CAPTURE + "."):
            raise DicomError(
                "secondary capture images have no reliable geometry or intensities; send the original images",
                "secondary_capture",
            )
        if header.burned_in:
            raise DicomError(
                "BurnedInAnnotation is YES: the pixels may show a name; clean the images first", "burned_in"
            )
        if not header.modality:
            raise DicomError(
                "Modality is absent and SOPClassUID names no kind of image that would tell it: what the values mean is "
                "unknown; export the series with its Modality",
                "no_modality",
            )
        if header.frame is None and header.n_frames != 1:
            raise DicomError(
                f"a multi-frame object ({header.n_frames} frames) that does not say where each frame lies; convert it "
                "to single-frame images",
                "multiframe",
            )
        if "MOSAIC" in header.image_type:
            raise DicomError("a mosaic: many slices tiled into one image; convert it to single slices", "mosaic")
        if header.samples != 1 or header.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise DicomError("colour images are not supported; export the grey original", "colour")
        bits = (header.bits_allocated, header.bits_stored, header.high_bit)
        if bits[0] not in (8, 16, 32) or not 1 <= bits[1] <= bits[0] or bits[2] != bits[1] - 1:
            raise DicomError(
                f"bits allocated, stored and highest are {bits}: not supported; export as 16-bit integers", "bits"
            )
        _check_scaling(header)
        _check_placed(header, len(headers))


def _check_scaling(header: Header) -> None:
    """Values must survive as 32-bit floats: finite, and told apart."""
    if header.slope == 0.0:
        raise DicomError("RescaleSlope is 0: the values are lost; export the series again", "scaling")
    facts = np.finfo(np.float32)
    reach = abs(header.slope) * 2.0**header.bits_stored
    is_lost = reach < float(facts.tiny) or reach < float(facts.eps) * abs(header.intercept)
    if is_lost or reach + abs(header.intercept) > float(facts.max):
        raise DicomError(
            f"RescaleSlope {header.slope:g} and RescaleIntercept {header.intercept:g} give values that 32-bit numbers "
            "cannot hold; export the series again",
            "scaling",
        )


def _check_placed(header: Header, n_slices: int) -> None:
    absent = [
        name
        for name, value in (
            ("ImagePositionPatient", header.position_lps),
            ("ImageOrientationPatient", header.orientation),
            ("PixelSpacing", header.pixel_spacing_mm),
        )
        if value is None
    ]
    if absent:
        raise DicomError(
            f"{' and '.join(absent)} missing: the slice cannot be placed; export again", "missing_geometry"
        )
    if min(header.pixel_spacing_mm or (0.0,)) < 0.01 or max(header.pixel_spacing_mm or (0.0,)) > 100.0:
        raise DicomError("PixelSpacing is outside 0.01 to 100 mm; export the series again", "missing_geometry")
    n_pixels = header.rows * header.columns
    for count, limit, what in ((n_pixels, MAX_SLICE_PIXELS, "pixels"), (n_pixels * n_slices, MAX_VOXELS, "voxels")):
        if count > limit:
            raise DicomError(
                f"{count} {what} are more than the {limit} taken for sane; check Rows and Columns, or crop it",
                "too_large",
            )


def _check_uniform(headers: Sequence[Header]) -> None:
    patients = {header.patient_id for header in headers}
    studies = {header.study_uid for header in headers}
    if len(patients) > 1 or len(studies) > 1:
        raise DicomError(
            f"one series holds {len(patients)} patients and {len(studies)} studies; mend its identifiers",
            "mixed_study",
        )
    frames = {header.frame_of_reference_uid for header in headers} - {None}
    if len(frames) > 1:
        raise DicomError(f"{len(frames)} frames of reference in one volume; mend its identifiers", "mixed_geometry")
    sizes = sorted({(header.rows, header.columns) for header in headers})
    if len(sizes) > 1:
        listed = ", ".join(f"{rows} x {columns}" for rows, columns in sizes[:4])
        raise DicomError(f"slices of {len(sizes)} sizes ({listed}) in one series; split it", "mixed_geometry")
    spacings = np.array([header.pixel_spacing_mm for header in headers])
    if float(np.ptp(spacings, axis=0).max()) > PIXEL_TOLERANCE * float(spacings.min()):
        low, high = float(spacings.min()), float(spacings.max())
        raise DicomError(f"pixel spacing varies from {low:g} to {high:g} mm in one series; split it", "mixed_geometry")


def _axes(headers: Sequence[Header]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit row and column directions, shared by all slices."""
    cosines = np.array([header.orientation for header in headers], dtype=np.float64)
    spread = float(np.ptp(cosines, axis=0).max())
    if spread > AXES_TOLERANCE:
        raise DicomError(
            f"slices are not parallel ({_angle_deg(cosines):.1f} degrees apart); split the series", "non_parallel"
        )
    mean = cosines.mean(axis=0)
    row, column = mean[:3], mean[3:]
    with np.errstate(over="ignore"):
        # of absurd numbers the length is infinite, and refused
        lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(float(length) - 1.0) for length in lengths) > 1e-2:
        raise DicomError(
            "ImageOrientationPatient does not hold unit vectors; export the series again", "non_orthonormal"
        )
    row, column = row / lengths[0], column / lengths[1]
    if abs(float(row @ column)) > AXES_TOLERANCE:
        raise DicomError("rows and columns are not perpendicular; export the series again", "non_orthonormal")
    return row, column


def _angle_deg(cosines: NDArray[np.float64]) -> float:
    """The largest angle between the planes of two slices; of equal planes, between their rows."""
    normals, rows = _units(np.cross(cosines[:, :3], cosines[:, 3:])), _units(cosines[:, :3])
    # a plane has two normals
    least = min(float(np.abs(normals @ normal).min()) for normal in normals)
    if least > np.cos(np.radians(0.05)):
        least = min(float((rows @ row).min()) for row in rows)
    return float(np.degrees(np.arccos(np.clip(least, -1.0, 1.0))))


def _units(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), dtype=np.float64)


def _check_steps(geometry: SliceGeometry) -> None:
    """The slices must lie at equal steps on one straight line."""
    if geometry.n_slices == 1:
        return
    gaps = np.diff(geometry.distances_mm)
    n_same = int((gaps < _DUPLICATE_MM).sum())
    if n_same:
        raise DicomError(
            f"{n_same} slices lie where another one lies: several volumes (phases, echoes, repeats) in one "
            "series; split it",
            "duplicate_position",
        )
    usual = float(np.median(gaps))
    worst = int(np.argmax(gaps))
    if gaps[worst] > 1.5 * usual:
        n_missing = round(float(gaps[worst]) / usual) - 1
        n_wide = int((gaps > 1.5 * usual).sum())
        gaps_word = "gap" if n_wide == 1 else "gaps"
        raise DicomError(
            f"missing slice: a gap of {gaps[worst]:.2f} mm after slice {worst + 1} of {geometry.n_slices}, where "
            f"{usual:.2f} mm is usual (about {n_missing} missing there, {n_wide} such {gaps_word}); transfer the "
            "series again",
            "missing_slice",
        )
    steps = np.arange(geometry.n_slices)[:, None] * geometry.step_lps
    deviation = np.linalg.norm(geometry.positions_lps - geometry.positions_lps[0] - steps, axis=1)
    tolerance = max(0.1, 0.02 * usual)
    if float(deviation.max()) > tolerance:
        raise DicomError(
            f"slices are not at equal steps on one line: slice {int(deviation.argmax()) + 1} lies "
            f"{deviation.max():.2f} mm off (steps {gaps.min():.2f} to {gaps.max():.2f} mm, tolerance {tolerance:.2f}); "
            "send another reconstruction",
            "irregular_spacing",
        )
