"""A data set of NIfTI files that says who its patients are wherever NIfTI and the Decathlon's layout have room."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from canaries import Canaries
from ingested import make_case

N_CASES = 8


def write_talking_volumes(root: Path, canaries: Canaries, modality: str = "CT") -> None:
    """Images and labels of ``ingested.make_case``; two cases of the first patient.

    Args:
        modality: The known word beside the planted one; empty for none.
    """
    plant = canaries.plant
    pairs, patients = [], {}
    for number in range(N_CASES):
        image, label, affine = make_case(number)
        name = f"{plant(f'name of case {number}')}_{number:03d}"
        for folder, values in (("imagesTr", image), ("labelsTr", label)):
            path = root / folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(_talking_image(values, affine, f"{folder} {number}", canaries), path)
        pairs.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
        patients[name] = plant(f"patient of case {number}") if number != 1 else patients[pairs[0]["image"][11:-7]]
    described = {key: plant(f"{key} of the data set") for key in ("description", "reference", "licence", "release")}
    labels = {"0": "background", "1": plant("name of label 1"), "2": plant("name of label 2")}
    channels = {key: {"0": f"{modality} {plant(f'{key} of the data set')}"} for key in ("modality", "channel_names")}
    content = {
        "name": plant("name of the data set"), **described, "tensorImageSize": "3D", **channels,
        "labels": labels, "numTraining": N_CASES, "numTest": 0, "training": pairs, "test": [],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    (root / "patients.json").write_text(json.dumps(patients))
    (root / f"{plant('name of a foreign file')}.txt").write_text(plant("text of a foreign file"))


def _talking_image(values: np.ndarray, affine: np.ndarray, where: str, canaries: Canaries) -> nibabel.Nifti1Image:
    made = nibabel.Nifti1Image(values, affine)
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        text = canaries.plant(f"{name} of {where}").encode()
        assert len(text) <= made.header[name].dtype.itemsize
        made.header[name] = text
    for code in ("comment", "afni"):
        text = canaries.plant(f"{code} behind the header of {where}").encode()
        made.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, text))
    return made
