"""The cases that ingest made, read as one ordered, checked list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from monai_tl.errors import DataError
from monai_tl.records import CaseRecord, Dataset, Rejection, RejectionList

DATASET_FILE = "dataset.json"
CASE_FILE = "case.json"
IMAGE_FILE = "image.nii.gz"
LABEL_FILE = "label.nii.gz"
UNPREPARED_FILE = "failed.json"


@dataclass(frozen=True)
class Manifest:
    """A data set and its cases.

    Attributes:
        folder: ``artifacts/cases``.
        dataset: What all cases share.
        cases: Sorted by case id.
    """

    folder: Path
    dataset: Dataset
    cases: tuple[CaseRecord, ...]

    def case(self, case_id: str) -> CaseRecord:
        """The record of one case.

        Raises:
            DataError: There is no such case.
        """
        found = self._by_id.get(case_id)
        if found is not None:
            return found
        raise DataError(f"{case_id} is not among the {len(self.cases)} cases; run split again after ingest")

    @cached_property
    def _by_id(self) -> dict[str, CaseRecord]:
        return {record.case_id: record for record in self.cases}

    def select(self, case_ids: tuple[str, ...]) -> tuple[CaseRecord, ...]:
        """Records of some cases, in the given order; see ``case``."""
        return tuple(self.case(case_id) for case_id in case_ids)

    def image_path(self, case_id: str) -> Path:
        """The case's image."""
        return self.folder / case_id / IMAGE_FILE

    def label_path(self, case_id: str) -> Path:
        """The case's label; need not exist."""
        return self.folder / case_id / LABEL_FILE


def read_manifest(folder: Path) -> Manifest:
    """Read ``artifacts/cases`` and check that it is of one piece.

    Args:
        folder: Output of the ingest stage.

    Raises:
        DataError: A record is missing or damaged, folders and list differ, or a case contradicts the data set; all
            faults are listed.
    """
    dataset = Dataset.read(folder / DATASET_FILE)
    faults: list[str] = []
    if len(set(dataset.case_ids)) != len(dataset.case_ids):
        faults.append(f"{DATASET_FILE} lists a case twice")
    present = {path.name for path in folder.iterdir() if path.is_dir()}
    faults += [f"{case_id}: listed, but has no folder" for case_id in sorted(set(dataset.case_ids) - present)]
    faults += [f"{case_id}: has a folder, but is not listed" for case_id in sorted(present - set(dataset.case_ids))]
    cases = []
    for case_id in sorted(set(dataset.case_ids) & present):
        record = CaseRecord.read(folder / case_id / CASE_FILE)
        faults += [f"{case_id}: {fault}" for fault in _case_faults(record, case_id, dataset, folder)]
        cases.append(record)
    if not dataset.case_ids:
        faults.append("there is no case")
    if faults:
        raise DataError("the ingested cases are not of one piece; run ingest again\n  " + "\n  ".join(faults))
    return Manifest(folder=folder, dataset=dataset, cases=tuple(cases))


def read_unprepared(prepared: Path) -> dict[str, Rejection]:
    """Cases that the preprocess stage could not prepare, by case id, with their reasons.

    Args:
        prepared: Output of the preprocess stage.

    Raises:
        DataError: The list is missing or damaged.
    """
    return {one.item: one for one in RejectionList.read(prepared / UNPREPARED_FILE).rejected}


def _case_faults(record: CaseRecord, case_id: str, dataset: Dataset, folder: Path) -> list[str]:
    faults = []
    if record.case_id != case_id:
        faults.append("its record is of another case")
    if record.modality != dataset.modality or record.n_channels != dataset.n_channels:
        faults.append(
            f"is {record.modality} with {record.n_channels} channels, not {dataset.modality} with {dataset.n_channels}"
        )
    if not (folder / case_id / IMAGE_FILE).is_file():
        faults.append(f"{IMAGE_FILE} is missing")
    if (folder / case_id / LABEL_FILE).is_file() != record.has_label:
        faults.append(f"{LABEL_FILE} and the record disagree on whether there is a label")
    unknown = set(record.class_voxels) - set(dataset.scheme.names)
    if unknown:
        faults.append(f"has classes that the data set does not: {', '.join(sorted(unknown))}")
    return faults
