"""A small CT series full of identifying text, and a DICOM SEG on it; as a program: both into a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.geometry import SliceGeometry
from monai_tl.dicom.segmentation import Algorithm, write_segmentation
from monai_tl.dicom.write import SeriesInfo, derive_uid, write_series
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(
    classes=(
        ClassSpec(name="liver", type="SCT|10200004|Liver"),
        ClassSpec(
            name="tumour",
            category="SCT|49755003|Morphologically Abnormal Structure",
            type="SCT|108369006|Neoplasm",
            anatomic_region="SCT|10200004|Liver",
        ),
        ClassSpec(name="vessel", type="SCT|59820001|Blood vessel"),
    )
)
IDENTITY = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Canary^Ämilie",
    "PatientID": "CANARY-4711",
    "PatientBirthDate": "19030405",
    "PatientSex": "F",
    "AccessionNumber": "CANARY-ACC",
    "StudyDate": "19870607",
    "StudyTime": "080910",
    "StudyID": "CANARY-ST",
    "StudyDescription": "abdomen of canary",
    "SeriesDescription": "canary kernel",
    "InstitutionName": "Canary Clinic",
    "ReferringPhysicianName": "Canary^Doctor",
    "PatientComments": "canary comment",
    "OtherPatientIDsSequence": [{"PatientID": "CANARY-OTHER", "TypeOfPatientID": "TEXT"}],
}
SHAPE = (6, 7, 9)
AFFINES = {
    "head first": [[0.8, 0, 0, -3], [0, 0.7, 0, 4], [0, 0, 2.5, -10], [0, 0, 0, 1]],
    "feet first": [[-0.8, 0, 0, 3], [0, 0.7, 0, 4], [0, 0, -2.5, 10], [0, 0, 0, 1]],
    "tilted": [[0.8, 0, 0, -3], [0, 0.7 * 0.8, 0, 4], [0, 0.7 * 0.6, 2.5, -10], [0, 0, 0, 1]],
    "coronal": [[0.8, 0, 0, -3], [0, 0, 2.5, 4], [0, -0.7, 0, -10], [0, 0, 0, 1]],
}
HASHER = Pseudonyms(seeded_key(0))
ALGORITHM = Algorithm("a network", "1.2", "ab" * 32)


def make_series(folder: Path, kind: str = "head first", name: str = "series", **attributes: Any) -> SliceGeometry:
    info = SeriesInfo("CT", derive_uid("study"), derive_uid(name), derive_uid("frame"), {**IDENTITY, **attributes})
    image = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16) - 100
    return write_series(folder / name, image, np.array(AFFINES[kind]), info, intercept=-1024)


def random_labels(n_classes: int = 3, seed: int = 0) -> np.ndarray:
    labels = np.random.default_rng(seed).integers(0, n_classes + 1, SHAPE).astype(np.uint8)
    labels[0] = 0
    labels[4] = 0
    return labels


def write(
    path: Path, labels: np.ndarray, reference: SliceGeometry, identity: str = "pseudonymous", **options: Any
) -> Path:
    settings = {"pseudonym": "case-0123456789ab", "uid_key": HASHER.uid, "algorithm": ALGORITHM, **options}
    write_segmentation(path, labels, reference, SCHEME, identity=identity, **settings)
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]) / "far.dcm", random_labels(), make_series(Path(sys.argv[1]) / "far"))
