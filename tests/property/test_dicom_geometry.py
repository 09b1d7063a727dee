"""Laws of placing DICOM slices in the world, for any orientation, spacing, order of slices and files, and tilt."""

from __future__ import annotations

import itertools
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from dicom_volumes import in_ras, read_only_volume, there_and_back
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from series_writer import SeriesWriter
from world_fields import STEEPEST, Grid, field_ras, voxel_centres

from monai_tl.geometry import affine_lps_to_ras

TOLERANCE = 0.5 + STEEPEST * 1e-3
SIGNED_ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
seeds = st.integers(0, 2**32 - 1)
laws = settings(max_examples=40, deadline=None)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Orthonormal, of either hand."""
    return np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.choice([-1, 1], 3)


def spacings() -> st.SearchStrategy[float]:
    return st.floats(0.3, 5.0).map(lambda value: round(value, 4))


@st.composite
def straight_grids(draw: st.DrawFn) -> Grid:
    """Any oblique; slices are numbered with the normal or against it."""
    rng = np.random.default_rng(draw(seeds))
    axes = random_rotation(rng)
    return Grid(
        origin=tuple(rng.uniform(-150, 150, 3).round(3).tolist()),
        row=tuple(axes[:, 0].tolist()),
        column=tuple(axes[:, 1].tolist()),
        pixel=(draw(spacings()), draw(spacings())),
        step=tuple((axes[:, 2] * draw(spacings())).tolist()),
        shape=draw(st.tuples(*[st.integers(2, 7)] * 3)),
    )


@st.composite
def leaning_grids(draw: st.DrawFn) -> Grid:
    """Up to 30 degrees in any direction within the slice, at least half a pixel over the stack."""
    grid = draw(straight_grids())
    lean = np.tan(np.deg2rad(draw(st.floats(3, 30)))) * grid.spacing_mm
    lean = max(lean, 0.8 * max(grid.pixel))
    # more than any gantry does is refused
    assume(lean < np.tan(np.deg2rad(70)) * grid.spacing_mm)
    towards = draw(st.floats(0, 2 * np.pi))
    shift = lean * (np.cos(towards) * np.array(grid.row) + np.sin(towards) * np.array(grid.column))
    return replace(grid, step=tuple((np.array(grid.step) + shift).tolist()))


@dataclass(frozen=True)
class Lattice:
    """Points of a straight grid without a choice of which axis the slices are stacked along."""

    axes: np.ndarray
    spacing: np.ndarray
    shape: np.ndarray
    origin: np.ndarray

    def as_grid(self, order: tuple[int, ...], signs: tuple[int, ...]) -> Grid:
        """Columns, rows and slices run along the axes in this order, with these signs."""
        signed = self.axes[:, list(order)] * signs
        spacing, shape = self.spacing[list(order)], self.shape[list(order)]
        start = self.origin - signed @ (spacing * (shape - 1) * (np.array(signs) < 0))
        return Grid(
            origin=tuple(start.tolist()),
            row=tuple(signed[:, 0].tolist()),
            column=tuple(signed[:, 1].tolist()),
            pixel=(float(spacing[1]), float(spacing[0])),
            step=tuple((signed[:, 2] * spacing[2]).tolist()),
            shape=(int(shape[2]), int(shape[1]), int(shape[0])),
        )


@st.composite
def lattices(draw: st.DrawFn) -> Lattice:
    rng = np.random.default_rng(draw(seeds))
    spacing = np.array([draw(spacings()) for _ in range(3)])
    shape = np.array(draw(st.tuples(*[st.integers(2, 6)] * 3)))
    return Lattice(random_rotation(rng), spacing, shape, rng.uniform(-150, 150, 3).round(3))


@contextmanager
def written(grid: Grid, order: list[int] | None = None):
    """A folder with the slices, written in an order: it is that of file names and instance numbers, as drawn."""
    with tempfile.TemporaryDirectory() as folder:
        SeriesWriter(Path(folder)).add(grid, slices=order)
        yield Path(folder)


def orders(n_slices: int) -> st.SearchStrategy[list[int]]:
    return st.permutations(range(n_slices))


@laws
@given(st.data())
def test_each_voxel_holds_the_value_of_its_place(data):
    grid = data.draw(straight_grids())
    with written(grid, data.draw(orders(grid.shape[0]))) as folder:
        values, affine = in_ras(read_only_volume(folder))
    assert values.size == np.prod(grid.shape)
    assert np.linalg.det(affine[:3, :3]) > 0
    assert (np.diag(affine)[:3] > 0).all()
    assert np.abs(values - field_ras(voxel_centres(affine, values.shape))).max() < TOLERANCE


@laws
@given(st.data())
def test_the_order_of_files_and_of_their_numbers_changes_nothing(data):
    grid = data.draw(straight_grids() | leaning_grids())
    with written(grid) as folder:
        first, first_affine = in_ras(read_only_volume(folder))
    with written(grid, data.draw(orders(grid.shape[0]))) as folder:
        second, second_affine = in_ras(read_only_volume(folder))
    assert np.array_equal(first_affine, second_affine)
    assert np.array_equal(first, second)


@laws
@given(lattices(), *[st.sampled_from(SIGNED_ORDERS)] * 2)
def test_flips_and_the_axis_of_the_slices_change_nothing(lattice, first_way, second_way):
    """The same points, cut into slices along any of their axes and read from any end, are the same volume."""
    with written(lattice.as_grid(*first_way)) as folder:
        first, first_affine = in_ras(read_only_volume(folder))
    with written(lattice.as_grid(*second_way)) as folder:
        second, second_affine = in_ras(read_only_volume(folder))
    assert first.shape == second.shape
    assert np.allclose(first_affine, second_affine, atol=1e-5)
    assert np.array_equal(first, second)


@laws
@given(leaning_grids())
def test_a_leaning_stack_is_straightened_in_place(grid):
    with written(grid) as folder:
        values, affine = in_ras(read_only_volume(folder))
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert np.linalg.det(axes) > 0
    size = np.array([*reversed(grid.shape)])
    corners = (grid.corners_ras() - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    assert corners.min() > -1e-3
    assert (corners < np.array(values.shape) - 1 + 1e-3).all()
    points = voxel_centres(affine, values.shape)
    index = (points * [-1, -1, 1] - np.array(grid.origin)) @ np.linalg.inv(grid.affine_lps[:3, :3]).T
    inside = ((index > -1e-4) & (index < size - 1 + 1e-4)).all(axis=-1)
    assert inside.any()
    assert np.abs(values - field_ras(points))[inside].max() < TOLERANCE + 0.5


@laws
@given(straight_grids() | leaning_grids())
def test_the_native_slices_are_kept_as_they_are(grid):
    """From the lowest slice along the normal upwards, LPS; and in RAS by the usual change of signs."""
    with written(grid) as folder:
        native = read_only_volume(folder).geometry.affine_lps
    far = np.array([*reversed(grid.shape)]) - 1
    for found, wanted in (
        (native, grid.in_slice_order().affine_lps),
        (affine_lps_to_ras(native), grid.native_affine_ras),
        (affine_lps_to_ras(affine_lps_to_ras(native)), grid.in_slice_order().affine_lps),
    ):
        assert (np.abs((found - wanted)[:3, :3]) @ far + np.abs((found - wanted)[:3, 3])).max() < 1e-4


@laws
@given(straight_grids() | leaning_grids(), seeds)
def test_labels_go_to_the_file_and_back_to_the_slices(grid, seed):
    labels = np.random.default_rng(seed).integers(0, 5, grid.shape).astype(np.uint8)
    with written(grid) as folder:
        assert np.array_equal(there_and_back(labels, read_only_volume(folder)), labels)
