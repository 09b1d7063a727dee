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


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ({"1": "T1w", "0": "FLAIR"}, ("FLAIR", "T1w")),
        ({"0": "CT"}, ("CT",)),
        # any other text may be somebody's name, and then none is kept
        ({"0": "T2", "1": "Otto"}, ()),
        ({"first": "T2"}, ()),
        ({}, ()),
    ],
)
def test_channels_are_named_in_known_words_only(tmp_path, names, kept):
    describe(tmp_path, {"channel_names": names, "labels": {"background": 0}, "file_ending": ".nii.gz"})
    touch(tmp_path, "imagesTr/x_0000.nii.gz", "imagesTr/x_0001.nii.gz")
    assert read_nnunet(tmp_path).channels == kept


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"0": "MRI"}, "MR"),
        ({"0": "T1w", "1": "T2w"}, "MR"),
        ({"0": "PD"}, "MR"),
        ({"0": "SWI"}, "MR"),
        ({"0": "CT scan"}, "CT"),
        ({"0": "PET"}, "PT"),
        ({"0": "us"}, "US"),
        ({"0": "noNorm", "1": "US"}, "US"),
        # any other text may be somebody's name
        ({"0": "Hans Huber 1234567"}, "OT"),
        ({"0": "HUBER"}, "OT"),
        ({}, "OT"),
    ],
)
def test_the_modality_is_a_term_of_dicom(tmp_path, layout, names, told):
    described = {"modality": names, "training": []} if layout == "decathlon" else {"channel_names": names}
    describe(tmp_path, described)
    assert (read_decathlon if layout == "decathlon" else read_nnunet)(tmp_path).modality == told


def test_a_folder_without_description_has_no_layout(tmp_path):
    assert layout_of(tmp_path) is None


@pytest.mark.parametrize("path", ["../secret.nii.gz", "/etc/secret.nii.gz", "imagesTr/a.nrrd", "", "i/\0.nii.gz", 3])
def test_listed_paths_must_stay_inside(tmp_path, path):
    describe(tmp_path / "set", {"training": [{"image": path}]})
    with pytest.raises(DataError):
        read_decathlon(tmp_path / "set")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_description_is_named(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json"):
        layout_of(tmp_path)


DECATHLON = {"modality": {"0": "CT"}, "training": [{"image": "i/a.nii.gz", "label": "l/a.nii.gz"}]}
# as the Decathlon's Task04 and nnU-Net's documentation have them
HIPPOCAMPUS = {
    "name": "Hippocampus", "description": "Left and right hippocampus segmentation", "reference": "x",
    "licence": "CC-BY-SA 4.0", "relase": "1.0 04/05/2018", "tensorImageSize": "3D", "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "numTraining": 2, "numTest": 1,
    "test": ["./imagesTs/b.nii.gz"],
    "training": [{"image": "./imagesTr/a_367.nii.gz", "label": "./labelsTr/a_367.nii.gz"}],
}  # fmt: skip
BRATS = {
    "channel_names": {"0": "FLAIR", "1": "T1w"}, "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2], "numTraining": 1, "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
}  # fmt: skip


def test_the_forms_in_use_are_read(tmp_path):
    describe(tmp_path / "decathlon", HIPPOCAMPUS)
    found = read_decathlon(tmp_path / "decathlon")
    assert (found.name, found.modality, [case.name for case in found.cases]) == ("Hippocampus", "MR", ["a_367", "b"])
    describe(tmp_path / "nnunet", BRATS)
    touch(tmp_path / "nnunet", "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    found = read_nnunet(tmp_path / "nnunet")
    assert [(case.name, len(case.images), case.missing) for case in found.cases] == [("a", 2, 0)]


def test_nnunet_may_list_its_files(tmp_path):
    listed = {"b": {"images": ["x/1.nii.gz", "x/2.nii.gz"], "label": "y/1.nii.gz"}}
    describe(tmp_path, {**BRATS, "dataset": listed})
    touch(tmp_path, "x/1.nii.gz", "x/2.nii.gz", "imagesTr/a_0000.nii.gz")
    (found,) = read_nnunet(tmp_path).cases
    assert (found.name, found.missing) == ("b", 1)
    assert [path.relative_to(tmp_path).as_posix() for path in found.images] == ["x/1.nii.gz", "x/2.nii.gz"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"modality": "CT"}, "modality"),
        ({"modality": None}, "modality"),
        ({"training": None}, "training"),
        ({"training": {"KANARI": "KANARI.nii.gz"}}, "training"),
        ({"training": [{"KANARI": "KANARI.nii.gz"}]}, r"training\.0"),
        ({"training": [{"image": ["KANARI.nii.gz"]}]}, r"training\.0"),
        ({"training": [{"image": "a.nii.gz", "label": 3}]}, r"training\.0"),
        ({"test": 3}, "test"),
        ({"channel_names": None}, "channel_names"),
        ({"channel_names": "CT"}, "channel_names"),
        ({"channel_names": {"KANARI": 3}}, "channel_names"),
        ({"name": ["KANARI"]}, "name"),
        ({"file_ending": None}, "file_ending"),
        ({"dataset": {"KANARI": {"images": "KANARI.nii.gz"}}}, "dataset"),
    ],
)
def test_a_description_of_another_shape_is_refused(tmp_path, change, place):
    root = tmp_path / "KANARI"
    describe(root, {**DECATHLON, **change})
    for read in (layout_of, read_decathlon, read_nnunet):
        with pytest.raises(DataError, match=rf"dataset\.json: .*\n  {place}") as caught:
            read(root)
        assert "KANARI" not in str(caught.value)


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_patients_that_name_no_case_are_refused_by_number(tmp_path, layout):
    """A typing error there would put one patient on both sides."""
    describe(tmp_path, DECATHLON if layout == "decathlon" else BRATS)
    touch(tmp_path, "imagesTr/a_0000.nii.gz")
    read = read_decathlon if layout == "decathlon" else read_nnunet
    (tmp_path / "patients.json").write_text('{"a": "KANARI p1", "KANARI b.nii.gz": "KANARI p1", "A": "p2"}')
    with pytest.raises(DataError, match=r"patients\.json: 2 of its 3 names are no case") as caught:
        read(tmp_path)
    assert "KANARI" not in str(caught.value)
    (tmp_path / "patients.json").write_text('{"a": "KANARI p1"}')
    assert [case.patient for case in read(tmp_path).cases] == ["KANARI p1"]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": null}', '{"a": ["KANARI"]}', b"\xff"])
def test_damaged_patients_are_refused(tmp_path, content):
    describe(tmp_path / "KANARI", DECATHLON)
    path = tmp_path / "KANARI/patients.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"patients\.json") as caught:
        read_decathlon(tmp_path / "KANARI")
    assert "KANARI" not in str(caught.value)


def make_case(root, label=None, shape=(5, 6, 7), label_affine=None):
    describe(root, DECATHLON)
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
    with pytest.raises(GeometryError, match=r"\[5, 6, 8\] voxels, its image \[5, 6, 7\]"):
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
