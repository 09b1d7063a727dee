"""DICOM series to volumes: order, values, geometry, tilt, and refusals by name."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import save as save_file
from dicom_files import slice_dataset, write_ct
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.volume import labels_to_ras, labels_to_source, read_volume, to_ras
from monai_tl.errors import DicomError, GeometryError

HASHER = Pseudonyms(bytes(32))
K, ROWS, COLUMNS = 6, 5, 7


def stored(seed=0, n=K, high=4096):
    return np.random.default_rng(seed).integers(0, high, (n, ROWS, COLUMNS)).astype(np.uint16)


def only_series(folder):
    index = index_folder(folder, HASHER)
    assert [one.code for one in index.rejected] == []
    assert len(index.series) == 1
    return index.series[0]


def refusal(folder, min_slices=5):
    with pytest.raises(DicomError) as caught:
        read_volume(only_series(folder), min_slices)
    return caught.value


def test_slices_are_ordered_by_position_not_by_number_or_name(tmp_path):
    values = stored()
    write_ct(tmp_path, values)
    volume = read_volume(only_series(tmp_path))
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, values.astype(np.int32).transpose(2, 1, 0) - 1024)
    expected = np.array([[0.8, 0, 0, -10], [0, 0.7, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    assert np.allclose(volume.affine_lps, expected, atol=1e-9)
    assert volume.scaling == "rescale slope 1 intercept -1024"
    assert volume.scanner["ConvolutionKernel"] == "B30f"


def test_ras_puts_each_voxel_where_dicom_says(tmp_path):
    """The world position of one bright voxel, by the standard's equation."""
    values = np.zeros((K, ROWS, COLUMNS), dtype=np.uint16)
    values[4, 3, 1] = 3000
    angle = np.deg2rad(20)
    row = np.array([np.cos(angle), np.sin(angle), 0.0])
    column = np.array([-np.sin(angle) * 0.6, np.cos(angle) * 0.6, -0.8])
    normal = np.cross(row, column)
    origin = np.array([3.0, -7.0, 11.0])
    write_ct(tmp_path, values, origin=origin, step=2.5 * normal, ImageOrientationPatient=[*row, *column])
    array, affine = to_ras(read_volume(only_series(tmp_path)))
    peak = np.append(np.argwhere(array == 3000 - 1024)[0], 1)
    lps = origin + 4 * 2.5 * normal + row * 0.8 * 1 + column * 0.7 * 3
    assert np.allclose((affine @ peak)[:3], lps * [-1, -1, 1], atol=1e-4)


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)],
    ids=["supine", "prone", "feet first", "sagittal", "coronal"],
)
def test_labels_go_to_the_grid_and_back_exactly(tmp_path, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    write_ct(tmp_path, stored(), step=2.5 * normal, ImageOrientationPatient=list(orientation))
    volume = read_volume(only_series(tmp_path))
    array, affine = to_ras(volume)
    assert np.all(np.diag(affine[:3, :3]) > 0.5)
    labels = (stored(1) % 4).astype(np.uint8)
    on_grid = labels_to_ras(labels, volume)
    assert on_grid.shape == array.shape
    assert np.array_equal(labels_to_source(on_grid, volume), labels)
    # the label moves with the image: same values, same permutation
    image_like = (volume.array.transpose(2, 1, 0) % 251).astype(np.uint8)
    assert np.array_equal(labels_to_ras(image_like, volume), (array % 251).astype(np.uint8))


def test_label_map_of_another_shape_is_refused(tmp_path):
    write_ct(tmp_path, stored())
    volume = read_volume(only_series(tmp_path))
    with pytest.raises(GeometryError, match="shape"):
        labels_to_source(np.zeros((2, 2, 2), dtype=np.uint8), volume)


def blob(centre, step, n=20, size=64, radius=6.0):
    """A Gaussian ball on tilted slices (LPS mm, pixel 1 mm), its centre in the world."""
    k, r, c = np.meshgrid(np.arange(n), np.arange(size), np.arange(size), indexing="ij")
    points = np.stack([c, r, np.zeros_like(c)], axis=-1) + k[..., None] * np.asarray(step)
    return 1000 * np.exp(-((points - centre) ** 2).sum(axis=-1) / (2 * radius**2))


@pytest.mark.parametrize("angle", [18.0, -12.0])
def test_tilted_gantry_is_straightened_and_keeps_landmarks(tmp_path, angle):
    shift = 2.5 * np.tan(np.deg2rad(angle))
    step = np.array([0.0, shift, 2.5])
    centre = np.array([30.0, 32.0 + 9.5 * shift, 24.0])
    ball = blob(centre, step)
    write_ct(
        tmp_path, np.rint(ball).astype(np.uint16), origin=(0, 0, 0), step=step, PixelSpacing=[1, 1], RescaleIntercept=0
    )
    volume = read_volume(only_series(tmp_path))
    assert any(f"{abs(angle):.2f} degrees" in note for note in volume.notes)
    array, affine = to_ras(volume)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    weights = array.astype(float)
    index = np.array([(grid * weights).sum() / weights.sum() for grid in np.indices(array.shape)])
    assert np.allclose((affine @ np.append(index, 1))[:3], centre * [-1, -1, 1], atol=0.1)
    # the grid covers the source: the mass of the ball is all there
    assert weights.sum() == pytest.approx(np.rint(ball).sum(), rel=1e-3)

    label = (ball > 500).astype(np.uint8)
    on_grid = labels_to_ras(label, volume)
    index = np.argwhere(on_grid).mean(axis=0)
    # nearest pixel: half a pixel at most on the grid, and nothing at all after the way back
    assert np.allclose((affine @ np.append(index, 1))[:3], centre * [-1, -1, 1], atol=0.5)
    assert np.array_equal(labels_to_source(on_grid, volume), label)


def test_a_drift_below_half_a_pixel_is_no_tilt(tmp_path):
    write_ct(tmp_path, stored(), step=(0.0, 0.01, 2.5))
    volume = read_volume(only_series(tmp_path))
    assert volume.shear is None
    last = volume.affine_lps @ [0, 0, K - 1, 1]
    assert np.allclose(last[:3], [-10, -20 + 0.05, 30 + 2.5 * (K - 1)], atol=1e-9)


def test_scaling_by_slice_gives_float_values(tmp_path):
    values = stored()
    for k in range(K):
        ds = slice_dataset(values[k], (0, 0, 2.5 * k), k, RescaleSlope=0.5 * (k + 1), RescaleIntercept=-3)
        save_file(ds, tmp_path / f"{k}.dcm")
    volume = read_volume(only_series(tmp_path))
    expected = values * (0.5 * np.arange(1, K + 1))[:, None, None] - 3
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array, expected.transpose(2, 1, 0))
    assert volume.scaling == "rescale by slice, 6 pairs, slope 0.5 to 3"


def test_values_beyond_int16_become_float_without_wrapping(tmp_path):
    values = stored(high=65536)
    values[K - 1, 0, 0] = 65535
    write_ct(tmp_path, values, BitsStored=16, HighBit=15, RescaleIntercept=0)
    volume = read_volume(only_series(tmp_path))
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, values.transpose(2, 1, 0))


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_the_stored_ones_are_cleared_or_follow_the_sign(tmp_path, signed):
    true = stored().astype(np.int32) - (2048 if signed else 0)
    rubbish = (np.random.default_rng(5).integers(0, 16, true.shape) << 12).astype(np.uint16)
    raw = ((true & 0x0FFF).astype(np.uint16) | rubbish).view(np.int16 if signed else np.uint16)
    write_ct(tmp_path, raw, PixelRepresentation=int(signed), RescaleIntercept=0)
    assert np.array_equal(read_volume(only_series(tmp_path)).array, true.transpose(2, 1, 0))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_transfer_syntaxes_give_equal_values(tmp_path, syntax):
    values = stored()
    for k in range(K):
        ds = slice_dataset(values[k], (0, 0, 2.5 * k), k)
        if syntax is RLELossless:
            ds.compress(RLELossless, generate_instance_uid=False)
        elif syntax is ExplicitVRBigEndian:
            ds.PixelData = values[k].astype(">u2").tobytes()
            ds["PixelData"].VR = "OW"
            ds.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
        ds.file_meta.TransferSyntaxUID = syntax
        save_file(ds, tmp_path / f"{k}.dcm")
    volume = read_volume(only_series(tmp_path))
    assert np.array_equal(volume.array.transpose(2, 1, 0), values.astype(np.int32) - 1024)


def test_monochrome1_keeps_its_values_and_is_noted(tmp_path):
    write_ct(tmp_path, stored(), PhotometricInterpretation="MONOCHROME1")
    volume = read_volume(only_series(tmp_path))
    assert np.array_equal(volume.array.transpose(2, 1, 0), stored().astype(np.int32) - 1024)
    assert any("MONOCHROME1" in note for note in volume.notes)


def test_missing_slice_says_which_and_how_wide(tmp_path):
    write_ct(tmp_path, stored(n=10), leave_out=[4])
    error = refusal(tmp_path)
    assert error.code == "missing_slice"
    assert "5.00 mm after slice 4 of 9" in str(error)
    assert "2.50 mm is usual" in str(error)


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("secondary_capture", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}),
        ("burned_in", {"BurnedInAnnotation": "YES"}),
        ("multiframe", {"NumberOfFrames": 3}),
        ("mosaic", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}),
        ("colour", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
        ("missing_geometry", {"ImagePositionPatient": None}),
        ("missing_geometry", {"ImageOrientationPatient": None}),
        ("missing_geometry", {"PixelSpacing": None}),
        ("missing_geometry", {"PixelSpacing": [0.0, 0.0]}),
        ("non_orthonormal", {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.8660254, 0]}),
        ("non_orthonormal", {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}),
        ("scaling", {"RescaleSlope": 0}),
        ("bits", {"HighBit": 15}),
        ("no_pixels", {"PixelData": None}),
    ],
)
def test_what_is_no_volume_is_refused_by_name(tmp_path, code, tags):
    write_ct(tmp_path, stored(), **tags)
    assert refusal(tmp_path).code == code


@pytest.mark.parametrize(
    ("code", "tags"),
    [
        ("mixed_geometry", {"PixelSpacing": [0.9, 0.9]}),
        ("non_parallel", {"ImageOrientationPatient": [1, 0, 0, 0, 0.9962, 0.0872]}),
        ("mixed_study", {"PatientID": "another"}),
        ("duplicate_position", {"ImagePositionPatient": [-10, -20, 30]}),
        ("irregular_spacing", {"ImagePositionPatient": [-10, -20, 41.8]}),
        ("irregular_spacing", {"ImagePositionPatient": [-10, -25, 42.5]}),
    ],
)
def test_one_slice_that_does_not_fit_is_refused_by_name(tmp_path, code, tags):
    write_ct(tmp_path, stored())
    odd = slice_dataset(stored()[5], (-10, -20, 42.5), 1, **tags)
    save_file(odd, tmp_path / "001.dcm")
    assert refusal(tmp_path).code == code


def test_mixed_sizes_are_refused_with_numbers(tmp_path):
    write_ct(tmp_path, stored())
    save_file(slice_dataset(np.zeros((9, 9), np.uint16), (-10, -20, 42.5), 1), tmp_path / "001.dcm")
    error = refusal(tmp_path)
    assert error.code == "mixed_geometry"
    assert "5 x 7" in str(error)
    assert "9 x 9" in str(error)


def test_too_few_slices(tmp_path):
    write_ct(tmp_path, stored(n=4))
    error = refusal(tmp_path, min_slices=5)
    assert error.code == "too_few_slices"
    assert read_volume(only_series(tmp_path), 4).array.shape[2] == 4


def test_truncated_pixels_say_how_many_bytes(tmp_path):
    paths = write_ct(tmp_path, stored())
    paths[2].write_bytes(paths[2].read_bytes()[:-10])
    error = refusal(tmp_path)
    assert error.code in ("truncated_pixels", "damaged")
    short = slice_dataset(stored()[2], (-10, -20, 35), 4, PixelData=b"\0" * 20)
    save_file(short, paths[2])
    error = refusal(tmp_path)
    assert error.code == "truncated_pixels"
    assert "20 of 70 bytes" in str(error)


def test_absurd_size_is_refused_before_memory_is_taken(tmp_path):
    write_ct(tmp_path, stored(), Rows=65535, Columns=65535)
    assert refusal(tmp_path).code == "too_large"


def test_no_refusal_names_the_patient(tmp_path):
    write_ct(tmp_path, stored(n=10), leave_out=[3])
    assert "CANARY" not in str(refusal(tmp_path))
