"""``monai-tl convert`` on a tilted gantry: landmarks, the grid that covers it, the kept shear, and labels on it."""

from __future__ import annotations

from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from convert_run import check_forms, check_outcome, check_same_points, run_convert
from dicom_files import write_rtstruct
from nibabel import aff2axcodes
from pydicom.sr.codedict import codes
from series_kinds import Expected
from series_writer import SeriesWriter
from world_fields import AXIAL, OBLIQUE, STEEPEST, Grid, field, field_ras, plane, voxel_centres

AIR, PEAK, WIDTH_MM = -1000.0, 3000.0, 3.0
# column, row, slice of the middles of two balls; neither lies on a pixel
LANDMARKS = np.array([[14.3, 15.2, 6.7], [28.9, 31.4, 16.2]])


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


def gantry(degrees: float, shape=(24, 48, 44), step_mm=2.5) -> Grid:
    """As a scanner does it: the slices lean, the table moves along z."""
    angle = np.deg2rad(degrees)
    leaning = plane((1, 0, 0), (0, np.cos(angle), -np.sin(angle)))
    return Grid(**{**leaning, "step": (0.0, 0.0, step_mm), "pixel": (1.0, 0.9), "shape": shape})


def leaning_both_ways() -> Grid:
    """Oblique slices that drift along their rows and along their columns."""
    row, column = np.array(OBLIQUE.row), np.array(OBLIQUE.column)
    step = 2.2 * OBLIQUE.normal + 0.9 * row - 0.6 * column
    return replace(OBLIQUE, step=tuple(step.tolist()), pixel=(1.0, 0.9), shape=(24, 48, 44))


def leaning_downwards() -> Grid:
    """Written from the top, feet first."""
    grid = gantry(14)
    turned = plane(-np.array(grid.row), grid.column)
    return replace(grid, **{**turned, "step": (0.0, 0.0, -2.5)})


GRIDS = {f"{angle:+d} degrees": gantry(angle) for angle in (-30, -18, -5, 5, 12, 30)}
GRIDS |= {"both ways": leaning_both_ways(), "downwards": leaning_downwards()}
all_grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def landmarks_ras(grid: Grid) -> np.ndarray:
    return (LANDMARKS @ grid.affine_lps[:3, :3].T + np.asarray(grid.origin)) * [-1, -1, 1]


def write_balls(folder, grid: Grid, **tags) -> None:
    values = np.full(grid.shape, AIR)
    points = grid.points_lps() * [-1, -1, 1]
    for middle in landmarks_ras(grid):
        values += PEAK * np.exp(-((points - middle) ** 2).sum(axis=-1) / (2 * WIDTH_MM**2))
    writer = SeriesWriter(folder)
    for k in range(grid.shape[0]):
        writer.add_slice(grid, values[k], k, **tags)


def centroid(values: np.ndarray, points: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Weighted mean within 13 mm of where the ball should be: it moves with the ball."""
    weights = (values - AIR) * (np.linalg.norm(points - near, axis=-1) < 13.0)
    return np.tensordot(weights, points, axes=3) / weights.sum()


def only(result):
    assert result.rejected == []
    (entry,) = result.volumes
    return entry


def check_index(entry, grid: Grid) -> None:
    """The true slices are on record, whatever was written."""
    assert abs(entry["tilt_deg"]) == pytest.approx(grid.tilt_deg, abs=0.01)
    native = np.asarray(entry["native_affine"])
    far = np.array([*reversed(grid.shape)]) - 1
    worst = np.abs((native - grid.native_affine_ras)[:3, :3]) @ far + np.abs((native - grid.native_affine_ras)[:3, 3])
    assert worst.max() < 1e-3
    assert entry["n_slices"] == entry["n_files"] == grid.shape[0]
    assert entry["part"] == {}


@all_grids
def test_landmarks_are_right_to_a_tenth_of_a_millimetre(tmp_path, grid):
    write_balls(tmp_path / "in", grid)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    entry = only(result)
    check_index(entry, grid)
    image = result.image(entry)
    points = voxel_centres(image.affine, image.shape)
    for middle in landmarks_ras(grid):
        assert np.linalg.norm(centroid(result.values(entry), points, middle) - middle) < 0.1


@all_grids
def test_the_straight_grid_covers_all_and_holds_true_values(tmp_path, grid):
    SeriesWriter(tmp_path / "in").add(grid)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    entry = only(result)
    image, values = result.image(entry), result.values(entry)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    axes = image.affine[:3, :3] / spacing
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert np.linalg.det(axes) > 0
    assert sorted(spacing) == pytest.approx(sorted((*grid.pixel, grid.spacing_mm)), abs=1e-4)
    check_forms(image)
    assert np.allclose(entry["affine"], image.affine, atol=1e-4)
    assert tuple(entry["spatial_shape"]) == image.shape
    assert any("tilt" in note for note in entry["notes"])
    corners = (grid.corners_ras() - image.affine[:3, 3]) @ np.linalg.inv(image.affine[:3, :3]).T
    assert corners.min() > -0.01
    assert (corners < np.array(image.shape) - 1 + 0.01).all()
    index = native_index(image, grid)
    size = np.array([*reversed(grid.shape)])
    inside = ((index > -1e-4) & (index < size - 1 + 1e-4)).all(axis=-1)
    # half a value was lost in the file, and half at most in interpolating
    wanted = field_ras(voxel_centres(image.affine, image.shape))
    assert np.abs(values - wanted)[inside].max() < 1.0 + STEEPEST * 1e-3
    covered = inside.sum() * spacing.prod() / (np.prod(size - 1) * grid.spacing_mm * np.prod(grid.pixel))
    assert covered == pytest.approx(1.0, abs=0.12)
    outside = ((index < -1.01) | (index > size + 0.01)).any(axis=-1)
    assert len(np.unique(values[outside])) == 1
    assert values[outside][0] <= values[inside].min()


def native_index(image, grid: Grid) -> np.ndarray:
    """(I, J, K, 3) column, row, slice (as written) at the voxels of a file."""
    points = voxel_centres(image.affine, image.shape) * [-1, -1, 1]
    return (points - np.asarray(grid.origin)) @ np.linalg.inv(grid.affine_lps[:3, :3]).T


@all_grids
def test_kept_shear_is_in_the_sform_alone(tmp_path, grid):
    SeriesWriter(tmp_path / "in").add(grid)
    result = run_convert(tmp_path / "in", tmp_path / "out", keep_shear=True)
    entry = only(result)
    check_index(entry, grid)
    image, values = result.image(entry), result.values(entry)
    assert sorted(image.shape) == sorted(grid.shape)
    sform, code = image.get_sform(coded=True)
    assert code > 0
    assert int(image.header["qform_code"]) == 0, "a qform holds no shear"
    assert np.allclose(entry["affine"], sform, atol=1e-4)
    assert aff2axcodes(sform) == ("R", "A", "S")
    # native pixels, not one of them interpolated
    assert np.abs(values - field_ras(voxel_centres(sform, image.shape))).max() < 0.5 + STEEPEST * 1e-3
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in image.shape])).reshape(3, -1).T
    check_same_points(ends @ sform[:3, :3].T + sform[:3, 3], grid.corners_ras(), 1e-3)


@pytest.mark.parametrize("tag", [None, 18.0, -18.0, 0.0], ids=["absent", "right", "wrong sign", "zero"])
def test_positions_tell_the_tilt_and_not_its_tag(tmp_path, tag):
    grid = gantry(18)
    write_balls(tmp_path / "in", grid, GantryDetectorTilt=tag)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    entry = only(result)
    check_index(entry, grid)
    image = result.image(entry)
    points = voxel_centres(image.affine, image.shape)
    for middle in landmarks_ras(grid):
        assert np.linalg.norm(centroid(result.values(entry), points, middle) - middle) < 0.1


@pytest.mark.parametrize("keep_shear", [False, True])
def test_no_tilt_where_only_the_tag_says_so(tmp_path, keep_shear):
    """Slices that lean with their stack (a reformatted series that kept the tag) are straight."""
    grid = replace(OBLIQUE, shape=(8, 5, 7))
    SeriesWriter(tmp_path / "in").add(grid, tags={"GantryDetectorTilt": 15.0})
    check_outcome(run_convert(tmp_path / "in", tmp_path / "out", keep_shear=keep_shear), [Expected(grid)], [])


@pytest.mark.parametrize("drift_mm", [0.02, 0.09, 0.15, 0.33], ids=lambda value: f"{value} mm")
@pytest.mark.parametrize("keep_shear", [False, True], ids=["straightened", "kept"])
def test_a_drift_below_half_a_pixel_is_not_lost(tmp_path, drift_mm, keep_shear):
    """By each affine that the file gives, each slice is right to 0.1 mm on average."""
    grid = replace(AXIAL, step=(0.0, drift_mm / 7, 2.5))
    SeriesWriter(tmp_path / "in").add(grid)
    result = run_convert(tmp_path / "in", tmp_path / "out", keep_shear=keep_shear)
    entry = only(result)
    image, values = result.image(entry), result.values(entry)
    if not keep_shear:
        check_forms(image)
    per_mm_along_y = field_ras(np.zeros(3)) - field_ras(np.array([0.0, 1.0, 0.0]))
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        if not code:
            continue
        points = voxel_centres(affine, values.shape)
        off = values - field_ras(points)
        index = (points * [-1, -1, 1] - np.asarray(grid.origin)) @ np.linalg.inv(grid.affine_lps[:3, :3]).T
        # an edge that a slice was moved away from holds some of the fill
        inside = (index[..., :2] > 0.9).all(axis=-1) & (index[..., :2] < np.array([6, 4]) - 0.9).all(axis=-1)
        for k in range(values.shape[2]):
            assert inside[..., k].sum() >= 10
            assert abs(off[..., k][inside[..., k]].mean() / per_mm_along_y) < 0.1
    native = np.asarray(entry["native_affine"])
    assert np.allclose(native[:3, 2], grid.native_affine_ras[:3, 2], atol=1e-4)


def test_a_leaning_and_a_straight_block_of_one_series_are_two_volumes(tmp_path):
    """A head: the base of the skull along the beam, the rest upright."""
    leaning, straight = gantry(15, (6, 24, 22)), replace(gantry(0, (8, 24, 22)), origin=(-10.0, -20.0, 90.0))
    writer = SeriesWriter(tmp_path / "in")
    writer.add(leaning, 0)
    writer.add(straight, 1)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    assert result.rejected == []
    tilts = sorted(abs(entry["tilt_deg"]) for entry in result.volumes)
    assert tilts == pytest.approx([0.0, 15.0], abs=0.01)
    assert result.volumes[0]["part"] != result.volumes[1]["part"]
    for entry, (grid, part) in zip(
        sorted(result.volumes, key=lambda one: -abs(one["tilt_deg"])), ((leaning, 0), (straight, 1)), strict=True
    ):
        image, values = result.image(entry), result.values(entry)
        index = native_index(image, grid)
        inside = ((index > -1e-4) & (index < np.array([*reversed(grid.shape)]) - 1 + 1e-4)).all(axis=-1)
        assert inside.sum() > 0.5 * np.prod(grid.shape)
        wanted = field_ras(voxel_centres(image.affine, image.shape), part)
        assert np.abs(values - wanted)[inside].max() < 1.0 + STEEPEST * 1e-3


@pytest.mark.parametrize("n_slices", [2, 3])
def test_few_leaning_slices(tmp_path, n_slices):
    grid = gantry(-20, (n_slices, 12, 11), step_mm=5.0)
    SeriesWriter(tmp_path / "in").add(grid)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    entry = only(result)
    check_index(entry, grid)
    image, values = result.image(entry), result.values(entry)
    index = native_index(image, grid)
    inside = ((index > -1e-4) & (index < np.array([*reversed(grid.shape)]) - 1 + 1e-4)).all(axis=-1)
    wanted = field_ras(voxel_centres(image.affine, image.shape))
    assert np.abs(values - wanted)[inside].max() < 1.0 + STEEPEST * 1e-3


BOX = {"column": (11, 21), "row": (13, 26), "slice": (5, 10)}


def drawn_box(grid: Grid) -> np.ndarray:
    """(slices, rows, columns) bool."""
    mask = np.zeros(grid.shape, dtype=bool)
    mask[slice(*BOX["slice"]), slice(*BOX["row"]), slice(*BOX["column"])] = True
    return mask


def draw_rtstruct(folder, grid: Grid) -> None:
    """Outlines run halfway between pixels, so that which pixels are in is beyond doubt."""
    low_c, high_c, low_r, high_r = (edge - 0.5 for edge in (*BOX["column"], *BOX["row"]))
    outline = [(low_c, low_r), (high_c, low_r), (high_c, high_r), (low_c, high_r)]
    affine = grid.affine_lps
    outlines = [np.array([(affine @ [c, r, k, 1])[:3] for c, r in outline]) for k in range(*BOX["slice"])]
    writer = SeriesWriter(folder)
    write_rtstruct(folder / "rt.dcm", {"liver": outlines}, series=writer.series, frame=writer.frame)
    ds = pydicom.dcmread(folder / "rt.dcm")
    ds.StudyInstanceUID, ds.PatientID = writer.base["StudyInstanceUID"], writer.base["PatientID"]
    ds.save_as(folder / "rt.dcm")


def draw_seg(folder, grid: Grid) -> None:
    sources = sorted((pydicom.dcmread(path) for path in folder.glob("*.dcm")), key=lambda ds: ds.SliceLocation)
    for ds in sources:
        ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ds.StudyDate = ds.StudyTime = ""
    description = hd.seg.SegmentDescription(
        1, "liver", codes.SCT.Organ, codes.SCT.Liver, hd.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    seg = hd.seg.Segmentation(
        sources, drawn_box(grid).astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY, [description],
        hd.UID(), 99, hd.UID(), 1, "ACME", "Editor", "1", "1",
    )  # fmt: skip
    seg.save_as(folder / "seg.dcm")


@pytest.mark.parametrize("is_mapped", [True, False], ids=["map", "no map"])
@pytest.mark.parametrize("draw", [draw_rtstruct, draw_seg], ids=["RTSTRUCT", "SEG"])
@pytest.mark.parametrize("keep_shear", [False, True], ids=["straightened", "kept"])
@pytest.mark.parametrize("name", ["-18 degrees", "both ways"])
def test_labels_lean_with_their_images(tmp_path, name, keep_shear, draw, is_mapped):
    grid = replace(GRIDS[name], shape=(16, 36, 30))
    classes = tmp_path / "map.yaml"
    classes.write_text("classes:\n- name: liver\n")
    SeriesWriter(tmp_path / "in").add(grid, tags=lambda k: {"SliceLocation": float(k)})
    draw(tmp_path / "in", grid)
    labels = classes if is_mapped else None
    result = run_convert(tmp_path / "in", tmp_path / "out", keep_shear=keep_shear, labels=labels)
    entry = only(result)
    image, label = result.image(entry), result.label(entry)
    assert label.dtype == np.uint8
    assert label.shape == image.shape
    assert [text.casefold() for text in entry["label_classes"].values()] == ["liver"]
    (value,) = entry["label_classes"]
    assert set(np.unique(label)) == {0, int(value)}
    index = native_index(image, grid)[label > 0]
    mask = drawn_box(grid)
    if keep_shear:
        exact = np.rint(index).astype(int)
        assert np.abs(index - exact).max() < 0.01
        assert len(exact) == mask.sum()
        assert mask[tuple(exact.T[::-1])].all()
        return
    # nearest pixel: half a pixel at most within the slice, none across
    edges = np.array([BOX[axis] for axis in ("column", "row", "slice")])
    slack = np.array([0.51, 0.51, 0.01])
    assert (index > edges[:, 0] - slack).all()
    assert (index < edges[:, 1] - 1 + slack).all()
    assert len(index) == pytest.approx(mask.sum(), rel=0.1)


def itk_image(path):
    """(I, J, K) values and their centres in RAS, by another reader."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return values, voxel_centres(affine, values.shape) * [-1, -1, 1]


def test_another_reader_sees_the_landmarks_in_the_same_place(tmp_path):
    grid = gantry(-18)
    write_balls(tmp_path / "in", grid)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    values, points = itk_image(result.out / only(result)["file"])
    for middle in landmarks_ras(grid):
        assert np.linalg.norm(centroid(values, points, middle) - middle) < 0.1


@pytest.mark.parametrize("drift_mm", [0.01, 0.09, 0.3])
def test_another_reader_opens_a_series_that_leans_by_a_trace(tmp_path, drift_mm):
    """ITK refuses what has no orthonormal affine, and most viewers are built on it."""
    grid = replace(gantry(0), step=(0.0, drift_mm / 23, 2.5))
    write_balls(tmp_path / "in", grid)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    values, points = itk_image(result.out / only(result)["file"])
    for middle in landmarks_ras(grid):
        assert np.linalg.norm(centroid(values, points, middle) - middle) < 0.1


def test_the_field_of_these_tests_is_steep_enough_to_tell():
    """A tenth of a mm along z changes the values by more than the tolerance of native pixels."""
    moved = np.abs(field(np.array([0.0, 0.0, 0.1])) - field(np.zeros(3)))
    assert moved > 0.5 + STEEPEST * 1e-3
