"""Patient and study attributes of a source series for an object derived from it."""

from __future__ import annotations

from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM, validate_value

from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.reading import read_file

PATIENT_TAGS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "ReferringPhysicianName",
)  # fmt: skip
"""What identity ``source`` copies from the first slice; nothing else of the source is ever read into the object."""


def read_patient(reference: SliceGeometry, identity: str, pseudonym: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """What an object derived from a series says of its patient.

    Args:
        reference: The source series; its first file is read for ``source`` alone.
        identity: ``source`` or ``pseudonymous``.
        pseudonym: Stands for name and identifier in ``pseudonymous``.

    Returns:
        Text by keyword, empty where there is none; and the keywords left blank because the source's value is invalid.

    Raises:
        DicomError: The file cannot be read.
    """
    if identity == "pseudonymous":
        return {**dict.fromkeys(PATIENT_TAGS, ""), "PatientName": pseudonym, "PatientID": pseudonym}, ()
    source, _ = read_file(reference.paths[0], PATIENT_TAGS)
    # as text: pydicom's own values remember the character set of their file
    found = {keyword: str(source.get(keyword) or "") for keyword in PATIENT_TAGS}
    blank = tuple(keyword for keyword, text in found.items() if text and not _is_valid(source, keyword, text))
    return {**found, **dict.fromkeys(blank, "")}, blank


def _is_valid(source: Dataset, keyword: str, text: str) -> bool:
    """Whether one value can be written again under the rules of its representation."""
    representation = dictionary_VR(keyword)
    if source[keyword].VM != 1:
        return False
    try:
        text.encode("utf-8")
        validate_value(representation, text, pydicom_config.RAISE)
        # the pattern alone would pass the 30th of February
        {"DA": DA, "TM": TM}.get(representation, str)(text)
    except ValueError:
        return False
    return True
