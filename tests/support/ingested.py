"""A small workspace as the ingest stage would leave it: ellipsoid bodies with an organ and sometimes a tumour."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_tl.config import NetworkConfig, Params
from monai_tl.dataset.nifti import write_image
from monai_tl.dataset.transforms import to_matrix
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.records import CaseRecord, Dataset, Provenance

SCHEME = LabelScheme(classes=(ClassSpec(name="liver"), ClassSpec(name="tumour")))
SPACINGS = ((3.0, 3.0, 5.0), (2.5, 2.5, 4.0), (3.0, 3.0, 3.0))


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1


def make_case(number: int, modality: str = "CT") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, label and affine of one case; air around a body of 40, an organ of 100, a tumour of 40 (CT)."""
    rng = np.random.default_rng(number)
    spacing = SPACINGS[number % len(SPACINGS)]
    shape = tuple(round(size / step) for size, step in zip((150, 120, 90), spacing, strict=True))
    body = ball(shape, (0.0, 0.0, 0.0), (0.8, 0.7, 2.0))
    liver = ball(shape, (0.3, 0.05 * (number % 3), 0.0), (0.35, 0.4, 0.6))
    tumour = ball(shape, (0.3, 0.0, 0.0), (0.12, 0.15, 0.25)) & liver & (number % 4 != 3)
    air, noise = (-1000.0, 10.0) if modality == "CT" else (0.0, 5.0)
    image = np.full(shape, air)
    image[body] = 40.0
    image[liver] = 100.0
    image[tumour] = 60.0
    image[body] += rng.normal(0.0, noise, int(body.sum()))
    label = liver.astype(np.uint8)
    label[tumour] = 2
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-70.0 + number, -50.0, 300.0]
    return np.rint(image).astype(np.int16), label, affine


def write_cases(workspace: Path, n_cases: int, modality: str = "CT", unlabelled: tuple[int, ...] = ()) -> list[str]:
    """Write ``artifacts/cases``; two cases a patient for the first four cases."""
    folder = workspace / "artifacts/cases"
    case_ids = []
    for number in range(n_cases):
        image, label, affine = make_case(number, modality)
        case_id = f"case-{number:012x}"
        write_image(folder / case_id / "image.nii.gz", image, affine)
        labelled = number not in unlabelled
        if labelled:
            write_image(folder / case_id / "label.nii.gz", label, affine)
        counts = {name: int((label == value).sum()) for value, name in enumerate(SCHEME.names, start=1)}
        CaseRecord(
            case_id=case_id,
            patient_key=f"patient-{number // 2 if number < 4 else number:012x}",
            site="site-a",
            modality=modality,
            has_label=labelled,
            spacing_mm=tuple(np.diag(affine)[:3].tolist()),
            spatial_shape=image.shape,
            affine=to_matrix(affine),
            class_voxels=counts if labelled else {},
            provenance=Provenance(kind="nifti", study="", series="", input_sha256="", image_sha256=f"{number:064x}"),
        ).write(folder / case_id / "case.json")
        case_ids.append(case_id)
    Dataset(modality=modality, n_channels=1, scheme=SCHEME, key_id="0" * 8, case_ids=tuple(case_ids)).write(
        folder / "dataset.json"
    )
    return case_ids


def small_params(**ingest: str) -> Params:
    """For cases of ``write_cases``, on the smallest network from scratch."""
    return Params.model_validate({
        "ingest": {"source": "data", "classes": [{"name": "liver"}, {"name": "tumour"}], **ingest},
        "split": {"n_folds": 2, "test_fraction": 0.3},
        "plan": {
            "source": None,
            "network": NetworkConfig(name="unet", arguments={"channels": [4, 8], "strides": [2]}).model_dump(),
            "spacing_mm": [6.0, 6.0, 6.0],
        },
        "finetune": {"arms": ["scratch"]},
    })  # fmt: skip
