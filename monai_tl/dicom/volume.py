"""An image series as one volume with its place in the world, and label maps back onto its source slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.header import Header
from monai_tl.dicom.identity import shares_word
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.stacking import stack
from monai_tl.dicom.tilt import Shear, shear_of, slant_labels, straighten_image, straighten_labels
from monai_tl.dicom.values import read_values
from monai_tl.errors import GeometryError
from monai_tl.geometry import Affine, Volume, affine_lps_to_ras, reorient_to_ras, undo_reorient


@dataclass(frozen=True)
class DicomVolume:
    """One image series.

    Attributes:
        array: (I, J, K) = (column, row, slice), int16 or float32, after rescale.
        affine_lps: Of ``array`` → LPS mm; orthogonal but where the shear of a tilted gantry was kept.
        geometry: The native slices; sheared when the gantry was tilted.
        shear: How ``array`` was made from tilted slices; None when it is the slices as they are.
        modality: e.g. ``CT``.
        photometric: ``MONOCHROME2``, or ``MONOCHROME1`` where low values are shown bright.
        scaling: e.g. ``rescale slope 1 intercept -1024``.
        scanner: Facts about the device that identify nobody.
        notes: What was done to the series.
        patient_id, institution: As read; for pseudonyms only, never written.
    """

    array: Volume
    affine_lps: Affine
    geometry: SliceGeometry
    shear: Shear | None
    modality: str
    photometric: str
    scaling: str
    scanner: dict[str, str]
    notes: tuple[str, ...]
    patient_id: str
    institution: str

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """In slice order."""
        return self.geometry.sop_instance_uids


def read_volume(
    series: ImageSeries, min_slices: int = 1, *, keep_shear: bool = False, in_parallel: bool = False
) -> DicomVolume:
    """Check a series and read it as one volume.

    A tilted gantry is resampled (linear, in the slices' planes) to an orthogonal grid that covers it.

    Args:
        series: From ``monai_tl.dicom.index.index_folder``.
        min_slices: Fewer are refused.
        keep_shear: Leave a tilted series on its own slices, with a sheared affine.
        in_parallel: Decode compressed slices in several processes.

    Raises:
        DicomError: The series is not one complete volume; ``code`` says why.
    """
    headers, geometry = stack(series.headers, min_slices)
    values, remarks = read_values(headers, in_parallel)
    shear = None if keep_shear else shear_of(geometry)
    notes = [*series.notes, *remarks]
    affine = geometry.affine_lps
    if shear is not None:
        values = straighten_image(values, shear)
        affine = shear.affine_lps
        notes.append(f"gantry tilt of {shear.angle_deg:.2f} degrees resampled to an orthogonal grid")
    if len(headers) == 1 and geometry.slice_thickness_mm != headers[0].slice_thickness_mm:
        notes.append("a single slice without a sane SliceThickness: 1 mm was taken")
    if any(header.photometric == "MONOCHROME1" for header in headers):
        notes.append("MONOCHROME1: low values are shown bright; stored values kept")
    scanner, doubtful = _facts(headers)
    if doubtful:
        # the tags are named, never what they hold
        notes.append(f"{', '.join(doubtful)} left out: the text repeats a word or number that identifies")
    return DicomVolume(
        array=values.transpose(2, 1, 0),
        affine_lps=affine,
        geometry=geometry,
        shear=shear,
        modality=headers[0].modality,
        photometric=headers[0].photometric,
        scaling=_scaling(headers),
        scanner=scanner,
        notes=tuple(notes),
        patient_id=headers[0].patient_id,
        institution=headers[0].institution,
    )


def _facts(headers: Sequence[Header]) -> tuple[dict[str, str], list[str]]:
    """Scanner facts that identify nobody, and the names of those that may: people type into these fields."""
    words = frozenset[str]().union(*(header.identity_words for header in headers))
    doubtful = [keyword for keyword, text in headers[0].scanner if shares_word(text, words)]
    return {keyword: text for keyword, text in headers[0].scanner if keyword not in doubtful}, doubtful


def _scaling(headers: Sequence[Header]) -> str:
    if any(header.lookup is not None for header in headers):
        return "modality look-up table"
    if not any(header.has_scaling for header in headers):
        return "stored values, no rescale given"
    pairs = {(header.slope, header.intercept) for header in headers}
    if len(pairs) == 1:
        slope, intercept = pairs.pop()
        return f"rescale slope {slope:g} intercept {intercept:g}"
    slopes = sorted(slope for slope, _ in pairs)
    return f"rescale by slice, {len(pairs)} pairs, slope {slopes[0]:g} to {slopes[-1]:g}"


def patient_of(volume: DicomVolume, series: ImageSeries) -> tuple[str, tuple[str, ...]]:
    """What stands for the patient, to be hashed and never written; and a note where it is not the identifier."""
    if volume.patient_id:
        return volume.patient_id, ()
    # the study is the widest thing known to be one patient's
    note = "no patient identifier: the study stands for the patient"
    return f"no patient id|{series.study_uid or series.uid}", (note,)


def to_ras(volume: DicomVolume) -> tuple[Volume, Affine]:
    """The volume with I, J, K growing towards R, A, S, and its affine voxel → RAS mm; no value is interpolated."""
    return reorient_to_ras(volume.array, affine_lps_to_ras(volume.affine_lps))


def labels_to_ras(slices: NDArray[np.uint8], volume: DicomVolume) -> Volume:
    """Bring a label drawn on the native slices to the grid of ``to_ras``.

    Args:
        slices: (K, rows, columns) uint8 in slice order.
        volume: The series it was drawn on.

    Returns:
        (I, J, K) uint8; nearest pixel where the gantry was tilted.

    Raises:
        GeometryError: The shape is not that of the series.
    """
    geometry = volume.geometry
    _check_shape(slices.shape, (geometry.n_slices, geometry.rows, geometry.columns))
    straight = slices if volume.shear is None else straighten_labels(slices, volume.shear)
    array, _ = reorient_to_ras(straight.transpose(2, 1, 0), affine_lps_to_ras(volume.affine_lps))
    return array


def labels_to_source(label_map: Volume, volume: DicomVolume) -> NDArray[np.uint8]:
    """Bring a label map on the grid of ``to_ras`` back to the source instances; the exact undoing of labels_to_ras.

    Args:
        label_map: (I, J, K) of whole numbers 0 to 255.
        volume: The series it belongs to.

    Returns:
        (K, rows, columns) uint8 in the order of ``volume.sop_instance_uids``.

    Raises:
        GeometryError: The shape is not that of the series.
    """
    affine = affine_lps_to_ras(volume.affine_lps)
    expected = reorient_to_ras(np.empty(volume.array.shape, dtype=np.bool_), affine)[0].shape
    _check_shape(label_map.shape, expected)
    native = undo_reorient(label_map, affine).transpose(2, 1, 0).astype(np.uint8)
    if volume.shear is None:
        return np.ascontiguousarray(native)
    return slant_labels(native, volume.shear, volume.geometry)


def _check_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(expected):
        raise GeometryError(
            f"the label map has shape {tuple(shape)}, the series {tuple(expected)}; use the series' own grid"
        )
