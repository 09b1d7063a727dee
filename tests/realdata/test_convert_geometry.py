"""Real series through ``monai-tl convert``, voxel by voxel in the world against readers made by others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from convert_run import check_forms, run_convert

SHARED = Path(os.environ.get("MONAI_TL_SHARED") or Path(__file__).parents[3] / "shared")
DICOM = SHARED / "data" / "dicom"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DICOM.is_dir(), reason="real data not found; set MONAI_TL_SHARED to the shared folder"),
]
SERIES = [
    "thorax_ct_rtstruct/pat_1",
    "thorax_ct_rtstruct/pat_3",
    "brain_mr/t2_5mm",
    "hippocampus_mr/13_HCropVolume",
    "hippocampus_mr/14_HCropVolume",
    "abdomen_ct_j2k",
]
series = pytest.mark.parametrize("name", SERIES)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    out = tmp_path_factory.mktemp("converted")
    return {name: run_convert(DICOM / name, out / f"{number}") for number, name in enumerate(SERIES)}


def images_of(name):
    found = [pydicom.dcmread(path) for path in sorted((DICOM / name).iterdir())]
    return [ds for ds in found if "PixelData" in ds]


def canonical(image):
    turned = nibabel.as_closest_canonical(image)
    return np.asanyarray(turned.dataobj), turned.affine


def check_same(ours, values, affine) -> None:
    assert ours.shape == values.shape
    far = np.array(values.shape) - 1
    apart = np.abs((ours.affine - affine)[:3, :3]) @ far + np.abs((ours.affine - affine)[:3, 3])
    assert apart.max() < 1e-2
    assert np.abs(np.asanyarray(ours.dataobj).astype(float) - values).max() < 1.0


@series
def test_every_pixel_lies_where_its_header_says(converted, name):
    """By the standard's equation (PS3.3 C.7.6.2.1.1) and pydicom's own decoding."""
    (entry,) = converted[name].volumes
    image, values = converted[name].image(entry), converted[name].values(entry)
    check_forms(image)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    to_voxel = np.linalg.inv(image.affine)
    seen = np.zeros(values.shape, dtype=bool)
    slices = images_of(name)
    for ds in slices:
        cosines = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        r, c = np.mgrid[: ds.Rows, : ds.Columns]
        steps = np.stack([c * float(ds.PixelSpacing[1]), r * float(ds.PixelSpacing[0])], axis=-1)
        ras = (np.array(ds.ImagePositionPatient, float) + steps @ cosines) * [-1, -1, 1]
        index = ras @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        nearest = np.rint(index).astype(int)
        # positions of the slices are rounded in the files
        assert np.abs((index - nearest) @ image.affine[:3, :3].T).max() < 0.01
        wanted = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        place = tuple(np.moveaxis(nearest, -1, 0))
        assert np.abs(values[place] - wanted).max() < 1e-3
        seen[place] = True
    assert seen.all()
    assert entry["n_slices"] == entry["n_files"] == len(slices)
    assert abs(entry["tilt_deg"]) < 0.01
    assert entry["modality"] == slices[0].Modality


@series
def test_itk_places_the_same_values_alike(converted, name, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    images = images_of(name)
    for number, ds in enumerate(images):
        ds.save_as(tmp_path / f"{number:04d}.dcm")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    theirs = nibabel.Nifti1Image(array.astype(np.float64), np.diag([-1, -1, 1, 1]) @ affine)
    (entry,) = converted[name].volumes
    check_same(converted[name].image(entry), *canonical(theirs))


@series
def test_dcm2niix_places_the_same_values_alike(converted, name, tmp_path):
    dcm2niix = pytest.importorskip("dcm2niix")
    subprocess.run(
        [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", str(tmp_path), str(DICOM / name)],
        check=True,
        capture_output=True,
    )
    (entry,) = converted[name].volumes
    theirs = [nibabel.load(path) for path in tmp_path.glob("*.nii")]
    (image,) = [one for one in theirs if one.ndim == 3 and np.prod(one.shape) == np.prod(entry["spatial_shape"])]
    check_same(converted[name].image(entry), *canonical(image))
