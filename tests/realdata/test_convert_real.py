"""``monai-tl convert`` on real DICOM, against dcm2niix, SimpleITK, NRRD references and the headers' own geometry."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from conversion import Conversion, assert_holds, convert_folder, world_values, write_map
from scipy.ndimage import label as connected
from transfer_syntaxes import Place

SHARED = Path(os.environ.get("MONAI_TL_SHARED") or Path(__file__).parents[3] / "shared")
DICOM = SHARED / "data/dicom"
SEGS = DICOM / "seg_objects"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DICOM.is_dir(), reason="real data not found; set MONAI_TL_SHARED to the shared folder"),
]


def by_headers(*paths: Path) -> tuple[Place, np.ndarray]:
    """Slices in order along their normal and their rescaled values, by pydicom and the standard's equations alone."""
    slices = [pydicom.dcmread(path) for path in paths]
    orientation = tuple(map(float, slices[0].ImageOrientationPatient))
    normal = np.cross(orientation[:3], orientation[3:])
    slices.sort(key=lambda ds: float(np.dot(np.array(ds.ImagePositionPatient, float), normal)))
    values = [
        ds.pixel_array.astype(np.float64) * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        for ds in slices
    ]
    spacing = (float(slices[0].PixelSpacing[0]), float(slices[0].PixelSpacing[1]))
    positions = np.array([ds.ImagePositionPatient for ds in slices], float)
    return Place(positions, orientation, spacing), np.array(values)


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def gather(tmp_path: Path, *paths: Path) -> Path:
    """Copies of some files in one folder."""
    for number, path in enumerate(paths):
        (tmp_path / "in").mkdir(exist_ok=True, parents=True)
        shutil.copy(path, tmp_path / f"in/{number}")
    return tmp_path / "in"


SERIES = {
    "abdomen_ct_j2k": DICOM / "abdomen_ct_j2k",
    "brain_mr": DICOM / "brain_mr/t2_5mm",
    "hippocampus 13": DICOM / "hippocampus_mr/13_HCropVolume",
    "hippocampus 14": DICOM / "hippocampus_mr/14_HCropVolume",
    "ct-3slice": SEGS / "ct-3slice",
    "24x38x3": SEGS / "24x38x3/image",
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Each series is converted once for all comparisons."""
    return functools.cache(lambda name: convert_folder(SERIES[name], tmp_path_factory.mktemp("converted")))


@pytest.mark.parametrize("name", SERIES)
def test_series_lie_where_their_headers_say(converted, name):
    place, values = by_headers(*images_in(SERIES[name]))
    found = converted(name)
    assert found.volume["n_slices"] == len(values)
    # headers of oblique slices are rounded to a hundredth of a voxel over the stack
    assert_holds(found.image(), place, values)


@pytest.mark.parametrize("name", SERIES)
def test_series_are_as_simpleitk_reads_them(converted, name):
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(SERIES[name])))
    image = reader.Execute()
    values = sitk.GetArrayFromImage(image)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    place = Place(
        np.array([image.TransformIndexToPhysicalPoint((0, 0, k)) for k in range(len(values))]),
        (*direction[:, 0], *direction[:, 1]),
        (image.GetSpacing()[1], image.GetSpacing()[0]),
    )
    assert_holds(converted(name).image(), place, values)


@pytest.mark.parametrize("name", SERIES)
def test_series_are_as_dcm2niix_reads_them(converted, tmp_path, name):
    pytest.importorskip("dcm2niix")
    (tmp_path / "peer").mkdir()
    binary = shutil.which("dcm2niix")
    assert binary
    subprocess.run(
        [binary, "-b", "n", "-z", "n", "-f", "x", "-o", str(tmp_path / "peer"), str(SERIES[name])],
        check=True,
        capture_output=True,
    )
    (path,) = (tmp_path / "peer").glob("*.nii")
    peer = nibabel.as_closest_canonical(nibabel.load(path))
    ours = converted(name).image()
    assert ours.shape == peer.shape
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in ours.shape])).reshape(3, -1).T
    far = nibabel.affines.apply_affine(ours.affine, corners) - nibabel.affines.apply_affine(peer.affine, corners)
    assert np.abs(far).max() < 0.01
    np.testing.assert_array_equal(np.asanyarray(ours.dataobj), np.asanyarray(peer.dataobj))


# ---- nine transfer syntaxes of one image


@pytest.mark.parametrize("number", range(1, 10))
def test_a_mosaic_is_refused_by_name_in_every_syntax(tmp_path, number):
    found = convert_folder(gather(tmp_path, DICOM / f"encodings_mr/{number}.dcm"), tmp_path)
    assert found.refusal["code"] == "mosaic"


@pytest.mark.parametrize("number", range(1, 10))
def test_nine_transfer_syntaxes_give_the_decoded_reference(tmp_path, number):
    """As a plain slice the mosaic has a place and values: those of the reference, which are its tiles."""
    source = DICOM / f"encodings_mr/{number}.dcm"
    ds = pydicom.dcmread(source)
    ds.ImageType = [word for word in ds.ImageType if word != "MOSAIC"]
    (tmp_path / "in").mkdir()
    ds.save_as(tmp_path / "in/one.dcm")
    place, _ = by_headers(DICOM / "encodings_mr/1.dcm")
    found = world_values(convert_folder(tmp_path / "in", tmp_path).image(), place, 384, 384)
    tiles = found.reshape(6, 64, 6, 64).transpose(0, 2, 1, 3).reshape(36, 64, 64)[:35]
    reference = np.asanyarray(nibabel.load(DICOM / "encodings_mr/reference_1.nii").dataobj)
    assert np.array_equal(tiles.transpose(2, 1, 0)[:, ::-1], reference)


# ---- Legacy Converted objects by another writer (PixelMed)


@pytest.mark.parametrize("name", ["24x38x3", "23x38x3"])
def test_a_multiframe_object_is_the_series_it_was_made_of(tmp_path, name):
    place, values = by_headers(*images_in(SEGS / name / "image"))
    found = convert_folder(SEGS / name / "multiframe", tmp_path)
    assert (found.volume["n_files"], found.volume["n_slices"]) == (1, 3)
    assert_holds(found.image(), place, values)


# ---- labels


def read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(K, rows, columns) of an NRRD in LPS, and the position of its first voxel, mm."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), np.array(image.GetOrigin())


def on_slices(path: Path, place: Place, values: np.ndarray) -> np.ndarray:
    """A reference that may cover fewer slices, on the slices of the image."""
    content, origin = read_nrrd(path)
    full = np.zeros(values.shape, dtype=content.dtype)
    first = int(np.argmin(np.linalg.norm(place.positions - origin, axis=1)))
    assert np.linalg.norm(place.positions[first] - origin) < 1e-2
    full[first : first + len(content)] = content
    return full


def label_of(found: Conversion, place: Place, values: np.ndarray) -> np.ndarray:
    assert found.rejected == []
    (volume,) = found.volumes
    assert_holds(found.image(volume), place, values)
    return world_values(found.label(volume), place, *values.shape[1:])


WRONG_REFERENCE = ("missing_series", "missing_instance", "frame_of_reference")
SINGLE_LABELS = {
    "binary, 24 columns": ("24x38x3/image", "24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd", "SRT|T-62000"),
    "binary, 23 columns": ("23x38x3/image", "23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd", "SRT|T-62000"),
    "binary on a CT": ("ct-3slice", "liver.dcm", "liver_seg.nrrd", "liver"),
    "labelmap with padding": (
        "24x38x3/image", "sparse-labelmap-ppv5.dcm", "sparse_labelmap_ppv5_seg.nrrd", "SCT|10200004",
    ),
    "labelmap": ("24x38x3/image", "sparse-labelmap-noppv.dcm", "sparse_labelmap_noppv_seg.nrrd", "SCT|10200004"),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE_LABELS)
def test_segmentations_are_their_references(tmp_path, name):
    images, label, reference, structure = SINGLE_LABELS[name]
    paths = images_in(SEGS / images)
    place, values = by_headers(*paths)
    found = convert_folder(
        gather(tmp_path, *paths, SEGS / label), tmp_path, labels=write_map(tmp_path / "map", one=[structure])
    )
    expected = on_slices(SEGS / reference, place, values) == 1
    assert expected.any()
    assert found.volume["label_classes"] == {"1": "one"}
    assert np.array_equal(label_of(found, place, values), expected)


def test_overlapping_segments_are_their_references(tmp_path):
    """dcmqi lays five overlapping segments into three files; where two overlap the later class of the map wins."""
    names = ("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")
    paths = images_in(SEGS / "ct-3slice")
    place, values = by_headers(*paths)
    classes = {f"c{n}": [name] for n, name in enumerate(names)}
    source = gather(tmp_path, *paths, SEGS / "partial_overlaps.dcm")
    whole = convert_folder(source, tmp_path, labels=write_map(tmp_path / "map", **classes))
    label = label_of(whole, place, values)
    references = []
    for number in (1, 2, 3):
        content = on_slices(SEGS / f"partial_overlaps-{number}.nrrd", place, values)
        references += [content == value for value in np.unique(content[content > 0])]
    assert len(references) == len(names)
    assert (np.sum(references, axis=0) > 1).any()
    assert np.array_equal(label > 0, np.any(references, axis=0))
    # each class is what is left of one reference under those of later classes
    left = []
    for value in range(5, 0, -1):
        above = np.isin(label, range(value + 1, 6))
        hits = [n for n, mask in enumerate(references) if np.array_equal(mask & ~above, label == value)]
        left += hits[:1]
    assert sorted(left) == [0, 1, 2, 3, 4]
    assert any("overlap" in note for note in whole.volume["notes"])


def test_structures_of_other_images_are_refused_and_the_images_stay(tmp_path):
    folder = DICOM / "rtstruct_small"
    place, values = by_headers(folder / "ct_1.dcm", folder / "ct_2.dcm")
    names = [roi.ROIName for roi in pydicom.dcmread(folder / "rt.dcm").StructureSetROISequence]
    found = convert_folder(folder, tmp_path, labels=write_map(tmp_path / "map", one=names))
    (volume,) = found.volumes
    assert_holds(found.image(volume), place, values)
    label = world_values(found.label(volume), place, 512, 512)
    assert label.any()
    # the two wrong ones also share an instance identifier
    assert sum(one["n_files"] for one in found.rejected) == 2
    assert {one["kind"] for one in found.rejected} == {"label"}
    assert {one["code"] for one in found.rejected} <= {*WRONG_REFERENCE, "conflicting_instance"}


@pytest.mark.parametrize("name", ["invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"])
def test_a_wrong_reference_alone_costs_no_image(tmp_path, name):
    folder = DICOM / "rtstruct_small"
    place, values = by_headers(folder / "ct_1.dcm", folder / "ct_2.dcm")
    names = [roi.ROIName for roi in pydicom.dcmread(folder / name).StructureSetROISequence]
    source = gather(tmp_path, folder / "ct_1.dcm", folder / "ct_2.dcm", folder / name)
    found = convert_folder(source, tmp_path, labels=write_map(tmp_path / "map", one=names))
    (volume,) = found.volumes
    assert volume["label_file"] is None
    assert_holds(found.image(volume), place, values)
    (refusal,) = found.rejected
    assert refusal["code"] in WRONG_REFERENCE


def test_contours_lie_inside_the_label_they_make(tmp_path):
    """By the raw points of the good RTSTRUCT: area by the shoelace formula, within the rim of one pixel."""
    folder = DICOM / "rtstruct_small"
    place, values = by_headers(folder / "ct_1.dcm", folder / "ct_2.dcm")
    ds = pydicom.dcmread(folder / "rt.dcm")
    for roi, drawn in zip(ds.StructureSetROISequence, ds.ROIContourSequence, strict=True):
        source = gather(tmp_path / str(roi.ROINumber), folder / "ct_1.dcm", folder / "ct_2.dcm", folder / "rt.dcm")
        one = write_map(tmp_path / f"{roi.ROINumber}.map", one=[roi.ROIName])
        label = label_of(convert_folder(source, tmp_path / str(roi.ROINumber), labels=one), place, values)
        assert label.any()
        area = rim = 0.0
        for contour in drawn.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)[:, :2]
            turned = np.roll(points, -1, axis=0)
            # signed: the second contour of this file lies in the first and runs against it, so it is a hole
            area += float((points[:, 0] * turned[:, 1] - points[:, 1] * turned[:, 0]).sum()) / 2
            rim += float(np.linalg.norm(points - turned, axis=1).sum()) * max(place.spacing)
        assert abs(label.sum() * np.prod(place.spacing) - abs(area)) <= rim


def test_tumour_volumes_of_the_thorax(tmp_path):
    """358.7 ml and 11.6 ml, as pyCERR's own tests have them; contours without ContourImageSequence."""
    folder = DICOM / "thorax_ct_rtstruct"
    found = convert_folder(folder, tmp_path, labels=write_map(tmp_path / "map", tumour=["GTV-1"]))
    assert {one["code"] for one in found.rejected} == {"not_dicom"}
    volumes = {}
    for entry in found.volumes:
        label = found.label(entry)
        inside = np.asanyarray(label.dataobj) == 1
        # drawn slice by slice, and yet one piece
        assert connected(inside)[1] == 1
        volumes[entry["n_slices"]] = inside.sum() * abs(np.linalg.det(label.affine[:3, :3])) / 1000
    assert volumes == pytest.approx({60: 358.7, 46: 11.6}, rel=0.02)


@pytest.mark.parametrize("patient", ["pat_1", "pat_3"])
def test_the_thorax_lies_where_its_headers_say(tmp_path, patient):
    paths = [path for path in images_in(DICOM / "thorax_ct_rtstruct" / patient) if re.search("IMG", path.name)]
    place, values = by_headers(*paths)
    assert_holds(convert_folder(gather(tmp_path, *paths), tmp_path).image(), place, values)
