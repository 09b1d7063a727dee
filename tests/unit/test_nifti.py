"""NIfTI in and out: values, geometry, equal bytes, and damage that other readers pass over."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from monai_tl.dataset.nifti import read_image, read_label, write_image
from monai_tl.errors import DataError, GeometryError, LabelError, MonaiTLError

AFFINE = np.array([[0.7, 0.0, 0.0, -30.0], [0.0, 0.8, 0.0, 12.0], [0.0, 0.0, 2.5, 100.0], [0.0, 0.0, 0.0, 1.0]])


def volume(dtype=np.int16, shape=(6, 7, 8)):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_what_is_written_is_what_nibabel_reads(tmp_path, name, dtype):
    array = volume(dtype)
    write_image(tmp_path / name, array, AFFINE)
    loaded = nibabel.load(tmp_path / name)
    assert loaded.get_data_dtype() == dtype
    assert np.array_equal(np.asanyarray(loaded.dataobj), array)
    assert np.allclose(loaded.affine, AFFINE, atol=1e-5)
    assert (int(loaded.header["sform_code"]), int(loaded.header["qform_code"])) == (1, 1)
    assert loaded.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(loaded.header.get_qform(), AFFINE, atol=1e-4)


def test_flipped_views_and_channels_survive(tmp_path):
    array = np.stack([volume()[::-1, :, ::-1], volume()[:, ::-1]])
    write_image(tmp_path / "a.nii.gz", array, AFFINE)
    back, affine = read_image(tmp_path / "a.nii.gz")
    assert np.array_equal(back, array)
    assert np.allclose(affine, AFFINE, atol=1e-5)


def test_equal_input_gives_equal_bytes(tmp_path):
    write_image(tmp_path / "a.nii.gz", volume(), AFFINE)
    write_image(tmp_path / "other_name.nii.gz", volume().copy(order="F"), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "other_name.nii.gz").read_bytes()


def test_axes_are_turned_to_ras_and_voxels_stay_in_place(tmp_path):
    turned = np.array([[0, 0, -2.0, 5], [-1.0, 0, 0, 6], [0, 3.0, 0, 7], [0, 0, 0, 1]])
    array = volume()
    nibabel.save(nibabel.Nifti1Image(array, turned), tmp_path / "a.nii.gz")
    back, affine = read_image(tmp_path / "a.nii.gz")
    expected = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.nii.gz"))
    assert np.array_equal(back, np.asanyarray(expected.dataobj))
    assert np.allclose(affine, expected.affine)


def test_slope_and_intercept_are_applied(tmp_path):
    image = nibabel.Nifti1Image(volume(), AFFINE)
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / "a.nii")
    stored = np.asanyarray(nibabel.load(tmp_path / "a.nii").dataobj)
    back, _ = read_image(tmp_path / "a.nii")
    assert back.dtype == np.float32 or np.array_equal(stored, np.rint(stored))
    assert np.allclose(back, stored)


def test_stored_types(tmp_path):
    for array, expected in [
        (volume(np.float64), np.int16),
        (volume(np.float64) + 0.5, np.float32),
        (volume(np.int32) + 40000, np.float32),
        (volume(np.uint8), np.int16),
        (volume(">i2"), np.int16),
    ]:
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / "a.nii.gz")
        back, _ = read_image(tmp_path / "a.nii.gz")
        assert back.dtype == expected
        assert np.array_equal(back, array)


def test_microns_become_millimetres(tmp_path):
    image = nibabel.Nifti1Image(volume(), np.diag([700.0, 800.0, 2500.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    assert np.allclose(np.diag(read_image(tmp_path / "a.nii")[1]), [0.7, 0.8, 2.5, 1.0])


def test_nifti2_and_several_gzip_members(tmp_path):
    nibabel.save(nibabel.Nifti2Image(volume(), AFFINE), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
    assert np.array_equal(read_image(tmp_path / "b.nii.gz")[0], volume())


def test_every_flipped_bit_is_noticed(tmp_path):
    """nibabel passes most of these over: it does not check the gzip checksum."""
    write_image(tmp_path / "a.nii.gz", volume(), AFFINE)
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(10, len(content), 60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.nii.gz").write_bytes(damaged)
        with pytest.raises(MonaiTLError):
            read_image(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_cut_off_is_refused(tmp_path, part, name):
    write_image(tmp_path / name, volume(), AFFINE)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(DataError, match=r"copy it again|no single-file"):
        read_image(tmp_path / name)


def test_a_header_that_claims_too_much_is_refused_before_memory_is_taken(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((1500, 1500, 1500))
    header.set_data_dtype(np.uint8)
    header["vox_offset"] = 352
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + b"\0" * 104))
    with pytest.raises(DataError, match="claims 3375000352 bytes"):
        read_image(tmp_path / "a.nii.gz")


def test_a_gzip_bomb_is_refused(tmp_path):
    write_image(tmp_path / "a.nii", volume(), AFFINE)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes() + b"\0" * (64 << 20)))
    with pytest.raises(DataError, match="unpacks to more"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"srow_x": [np.nan, 0, 0, 0]}, GeometryError),
        ({"srow_x": [0, 0, 0, 0]}, GeometryError),
        ({"sform_code": 0, "qform_code": 0}, GeometryError),
        ({"scl_slope": np.inf}, DataError),
        ({"dim": [2, 6, 7, 1, 1, 1, 1, 1]}, DataError),
        ({"dim": [3, -6, 7, 8, 1, 1, 1, 1]}, DataError),
        ({"datatype": 128, "bitpix": 24}, DataError),
        ({"xyzt_units": 7}, GeometryError),
        ({"vox_offset": np.nan}, DataError),
        ({"vox_offset": np.inf}, DataError),
        ({"vox_offset": 100}, DataError),
    ],
)
def test_silent_damage_of_the_header_is_refused(tmp_path, change, error):
    write_image(tmp_path / "a.nii", volume(np.uint8), AFFINE)
    content = (tmp_path / "a.nii").read_bytes()
    header = nibabel.Nifti1Header(content[:348], check=False)
    for key, value in change.items():
        header[key] = value
    padding = content[352:] * 3
    (tmp_path / "a.nii").write_bytes(header.binaryblock + content[348:352] + padding)
    with pytest.raises(error):
        read_image(tmp_path / "a.nii")


def test_values_that_are_not_finite_are_refused(tmp_path):
    array = volume(np.float32)
    array[1, 2, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="NaN"):
        read_image(tmp_path / "a.nii.gz")


def test_labels_are_whole_numbers(tmp_path):
    for array, dtype in [
        (volume(np.float64), np.uint8),
        (volume(np.int32) + 300, np.int32),
        (volume(np.int64), np.uint8),
    ]:
        nibabel.save(nibabel.Nifti1Image(array, AFFINE, dtype=array.dtype), tmp_path / "a.nii.gz")
        back, _ = read_label(tmp_path / "a.nii.gz")
        assert back.dtype == dtype
        assert np.array_equal(back, array)
    nibabel.save(nibabel.Nifti1Image(volume(np.float32) + 0.25, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(LabelError, match="whole numbers"):
        read_label(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_of_any_bytes_is_read_or_refused(tmp_path, name):
    """One byte changed at a time: never anything but the package's own errors."""
    write_image(tmp_path / "whole.nii", volume(np.uint8), AFFINE)
    content = (tmp_path / "whole.nii").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for position in range(348):
        damaged = bytearray(content)
        damaged[position] = int(rng.choice([7, 127, 128, 255]))
        (tmp_path / name).write_bytes(gzip.compress(damaged, 1) if name.endswith(".gz") else damaged)
        for read in (read_image, read_label):
            try:
                read(tmp_path / name)
                outcomes.add("read")
            except MonaiTLError as error:
                outcomes.add(type(error).__name__)
    assert {"read", "DataError", "GeometryError"} <= outcomes


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"nothing", "is no single-file NIfTI"), (None, "cannot be read"), (b"\x1f\x8b" + b"0" * 90, "is damaged")],
)
def test_no_message_names_file_or_folder(tmp_path, content, words):
    path = tmp_path / "imagesTr" / "KANARI_Otto" / "KANARI_c02.nii.gz"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    for read, what in ((read_image, "image"), (read_label, "label")):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"the {what} file {words}")
        assert "KANARI" not in str(caught.value)
