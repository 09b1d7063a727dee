"""An image series together with the label that its SEG and RTSTRUCT objects draw on it."""

from __future__ import annotations

from dataclasses import dataclass

from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.joined_labels import RefusedLabel, join_labels
from monai_tl.dicom.label_object import LabelObject
from monai_tl.dicom.volume import DicomVolume, labels_to_ras, read_volume
from monai_tl.geometry import Volume
from monai_tl.labels import LabelScheme


@dataclass(frozen=True)
class LabelledSeries:
    """One case as read.

    Attributes:
        volume: The image.
        label: (I, J, K) uint8 on the grid of ``to_ras(volume)``; None when no label object could be used.
        used: The label objects in it.
        refused: The others.
        notes: Of the image, then of the labels.
        scheme: The classes of the label: as asked for, or else one for each structure; None when nothing was asked for
            and nothing found.
    """

    volume: DicomVolume
    label: Volume | None
    used: tuple[LabelObject, ...]
    refused: tuple[RefusedLabel, ...]
    notes: tuple[str, ...]
    scheme: LabelScheme | None = None


def read_labelled_series(
    series: ImageSeries,
    scheme: LabelScheme | None,
    min_slices: int,
    *,
    keep_shear: bool = False,
    in_parallel: bool = False,
) -> LabelledSeries:
    """Read a series and its labels. A bad label never costs the image.

    Args:
        series: With the label objects that refer to it; how they are joined is said in
            ``monai_tl.dicom.joined_labels.join_labels``.
        scheme: Which structures become which value; None makes each structure a class.
        min_slices: Fewer are refused.
        keep_shear: See ``monai_tl.dicom.volume.read_volume``.
        in_parallel: See there.

    Raises:
        DicomError: The image series is refused.
    """
    volume = read_volume(series, min_slices, keep_shear=keep_shear, in_parallel=in_parallel)
    if not series.labels:
        return LabelledSeries(volume, None, (), (), volume.notes, scheme)
    words = frozenset[str]().union(*(header.identity_words for header in series.headers))
    found = join_labels(series.labels, volume.geometry, scheme, words)
    label = None if found.slices is None else labels_to_ras(found.slices, volume)
    return LabelledSeries(volume, label, found.used, found.refused, (*volume.notes, *found.notes), found.scheme)
