"""References of a SEG to its source: every instance, and of a multi-frame instance the frames that were used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.write import fill
from monai_tl.errors import DicomError

STAND_IN_CLASS = "1.2.840.10008.5.1.4.1.1.2"
"""CT Image: what highdicom takes each slice for; it knows no private class, and one file only of a multi-frame one."""


def stand_in_uid(index: int) -> str:
    """The SOPInstanceUID under which highdicom is shown a slice; ``refer_to_source`` puts the true one there."""
    return f"2.25.{index + 1}"


def with_all_uids(reference: SliceGeometry, uid_key: Callable[[str], str]) -> SliceGeometry:
    """The same slices with a study, series and frame of reference, made up by keyed hash where the files name none.

    Anonymised files often lack them, and no SEG can be without.

    Raises:
        DicomError: Code ``no_instance_uid``: nothing could refer to the slices.
    """
    if not all((reference.sop_class_uid, *reference.sop_instance_uids)):
        raise DicomError(
            "images without SOPInstanceUID or SOPClassUID: no SEG can refer to them; export them again",
            "no_instance_uid",
        )
    instances = "|".join(reference.sop_instance_uids)
    series = reference.series_instance_uid or uid_key(f"series|{instances}")
    return replace(
        reference,
        study_instance_uid=reference.study_instance_uid or uid_key(f"study|{series}"),
        series_instance_uid=series,
        frame_of_reference_uid=reference.frame_of_reference_uid or uid_key(f"frame of reference|{series}"),
    )


def frames_by_instance(reference: SliceGeometry) -> dict[str, list[int]]:
    """SOPInstanceUID → its frames used, from 1 and ascending (none for a single-frame file), in slice order."""
    found: dict[str, list[int]] = {uid: [] for uid in reference.sop_instance_uids}
    if reference.frame_numbers:
        for uid, number in zip(reference.sop_instance_uids, reference.frame_numbers, strict=True):
            found[uid].append(number)
    return {uid: sorted(numbers) for uid, numbers in found.items()}


def refer_to_source(dataset: Dataset, reference: SliceGeometry) -> None:
    """Put true references in place of those to the stand-ins.

    Each frame names the slice it was drawn on. The object names all instances of the volume, also those without a
    voxel of any class: as source images, and under their series, where a PACS looks.

    Args:
        dataset: A SEG on slices called ``stand_in_uid``.
        reference: The true slices.
    """
    slots = {stand_in_uid(index): index for index in range(reference.n_slices)}
    sources: dict[int, Dataset] = {}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        derivation = frame.DerivationImageSequence[0]
        shown = derivation.SourceImageSequence[0]
        index = slots[str(shown.ReferencedSOPInstanceUID)]
        if index not in sources:
            numbers = [reference.frame_numbers[index]] if reference.frame_numbers else []
            # what highdicom says besides: the purpose, and that places are kept
            sources[index] = deepcopy(shown)
            fill(sources[index], _instance(reference, reference.sop_instance_uids[index], numbers))
        derivation.SourceImageSequence = DicomSequence([sources[index]])
    instances = frames_by_instance(reference)
    by_series = [_instance(reference, uid, []) for uid in instances]
    images = [_instance(reference, uid, numbers) for uid, numbers in instances.items()]
    fill(dataset, {"SourceImageSequence": images})
    fill(dataset.ReferencedSeriesSequence[0], {"ReferencedInstanceSequence": by_series})


def _instance(reference: SliceGeometry, uid: str, numbers: list[int]) -> Mapping[str, Any]:
    found = {"ReferencedSOPClassUID": reference.sop_class_uid, "ReferencedSOPInstanceUID": uid}
    return {**found, "ReferencedFrameNumber": numbers} if numbers else found
