"""Data sets of NIfTI files in the Decathlon and nnU-Net layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_tl.dataset.layouts import layout_of, read_decathlon, read_nnunet
from monai_tl.dataset.nifti import write_image
from monai_tl.dataset.nifti_case import read_case
from monai_tl.errors import DataError, GeometryError, LabelError
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(classes=(ClassSpec(name="front", values=(1,)), ClassSpec(name="back", values=(3, 4))))


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def describe(root, content):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))


def test_decathlon(tmp_path):
    describe(
        tmp_path,
        {
            "name": "Hippocampus", "modality": {"0": "MRI"},
            "training": [{"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"},
                         {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
            "test": ["./imagesTs/c.nii.gz"],
        },
    )  # fmt: skip
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b.nii.gz", "imagesTs/c.nii.gz")
    (tmp_path / "patients.json").write_text('{"a": "p1", "b": "p1"}')
    assert layout_of(tmp_path) == "decathlon"
    found = read_decathlon(tmp_path)
    assert found.modality == "MR"
    assert [(case.name, case.patient, case.missing, case.label is None) for case in found.cases] == [
        ("a", "p1", 0, False), ("b", "p1", 1, False), ("c", "c", 0, True),
    ]  # fmt: skip


def test_nnunet_with_two_channels(tmp_path):
    describe(
        tmp_path, {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    )
    touch(tmp_path, *(f"imagesTr/x_00{i}_000{c}.nii.gz" for i in range(2) for c in range(2)))
    touch(tmp_path, "labelsTr/x_000.nii.gz", "imagesTs/y_0000.nii.gz")
    assert layout_of(tmp_path) == "nnunet"
    found = read_nnunet(tmp_path)
    assert found.modality == "MR"
    assert [(case.name, len(case.images), case.missing, case.label is None) for case in found.cases] == [
        ("x_000", 2, 0, False), ("x_001", 2, 0, True), ("y", 2, 1, True),
    ]  # fmt: skip


def test_a_folder_without_description_has_no_layout(tmp_path):
    assert layout_of(tmp_path) is None


@pytest.mark.parametrize("path", ["../secret.nii.gz", "/etc/secret.nii.gz", "imagesTr/a.nrrd", "", 3])
def test_listed_paths_must_stay_inside(tmp_path, path):
    describe(tmp_path / "set", {"training": [{"image": path}]})
    with pytest.raises(DataError):
        read_decathlon(tmp_path / "set")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_description_is_named(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json"):
        layout_of(tmp_path)


def make_case(root, label=None, shape=(5, 6, 7), label_affine=None):
    describe(root, {"modality": {"0": "CT"}, "training": [{"image": "i/a.nii.gz", "label": "l/a.nii.gz"}]})
    write_image(root / "i/a.nii.gz", np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7), np.eye(4))
    label = np.zeros(shape, np.uint8) if label is None else label
    write_image(root / "l/a.nii.gz", label, np.eye(4) if label_affine is None else label_affine)
    return read_decathlon(root).cases[0]


def test_label_values_become_classes(tmp_path):
    label = np.zeros((5, 6, 7), np.uint8)
    label[0], label[1], label[2], label[3] = 1, 3, 4, 9
    found = read_case(make_case(tmp_path, label), SCHEME)
    assert [int(found.label[i, 0, 0]) for i in range(5)] == [1, 2, 2, 0, 0]
    assert found.notes == ("1 label values that are no class became background",)


def test_a_label_of_no_class_keeps_the_image(tmp_path):
    found = read_case(make_case(tmp_path, np.full((5, 6, 7), 9, np.uint8)), SCHEME)
    assert found.label is None
    assert found.label_fault[0] == "no_class"


def test_an_empty_label_is_a_label(tmp_path):
    found = read_case(make_case(tmp_path), SCHEME)
    assert found.label is not None
    assert not found.label.any()


def test_image_and_label_on_different_grids_are_refused(tmp_path):
    with pytest.raises(GeometryError, match="different grids"):
        read_case(make_case(tmp_path / "a", shape=(5, 6, 8)), SCHEME)
    with pytest.raises(GeometryError, match="different grids"):
        read_case(make_case(tmp_path / "b", label_affine=np.diag([1, 1, 1.01, 1.0])), SCHEME)


def test_channels_are_stacked(tmp_path):
    describe(tmp_path, {"channel_names": {"0": "T1", "1": "T2"}})
    for channel in range(2):
        write_image(tmp_path / f"imagesTr/a_000{channel}.nii.gz", np.full((4, 4, 4), channel, np.int16), np.eye(4))
    found = read_case(read_nnunet(tmp_path).cases[0], SCHEME)
    assert found.image.shape == (2, 4, 4, 4)
    assert found.image[1].all()
    write_image(tmp_path / "imagesTr/a_0001.nii.gz", np.zeros((2, 4, 4, 4), np.int16), np.eye(4))
    with pytest.raises((GeometryError, LabelError)):
        read_case(read_nnunet(tmp_path).cases[0], SCHEME)


def test_missing_files_are_counted(tmp_path):
    describe(tmp_path, {"training": [{"image": "i/a.nii.gz", "label": "l/a.nii.gz"}]})
    with pytest.raises(DataError, match="2 of the files"):
        read_case(read_decathlon(tmp_path).cases[0], SCHEME)
