"""Outlines drawn on other planes than the slices: solids of known volume, and which slice takes what."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_files import write_rtstruct
from outlines import slices

from monai_tl.dicom.contour_planes import planes_of_slices, reach_of
from monai_tl.dicom.rtstruct import read_rtstruct
from monai_tl.errors import LabelError
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(classes=(ClassSpec(name="solid"),))
CENTRE, SEMI_AXES = np.array([4.3, 1.8, 61.7]), np.array([21.0, 16.0, 27.0])


def ellipsoid(planes):
    """Outlines of an axis-parallel ellipsoid where it meets planes of constant z: ellipses, in closed form."""
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    found = []
    for z in planes:
        share = 1 - ((z - CENTRE[2]) / SEMI_AXES[2]) ** 2
        if share > 0:
            ring = np.sqrt(share) * SEMI_AXES[:2] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + CENTRE[:2]
            found.append(np.column_stack([ring, np.full(len(ring), z)]))
    return found


def grid(step, n_slices):
    return slices(n_slices, 60, 70, spacing=(1.1, 0.9, step), origin=(-30.0, -30.0, 20.0))


def read(tmp_path, outlines, geometry):
    return read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", {"solid": outlines}), geometry, SCHEME)


@pytest.mark.parametrize("contour_step", [0.7, 1.9, 2.5, 3.1, 4.0])
@pytest.mark.parametrize("step", [1.0, 2.5, 3.0])
def test_the_volume_of_an_ellipsoid_is_right_on_any_planes(tmp_path, contour_step, step):
    geometry = grid(step, int(90 / step))
    outlines = ellipsoid(np.arange(20.4, 110, contour_step))
    label, _ = read(tmp_path, outlines, geometry)
    volume = np.count_nonzero(label) * 1.1 * 0.9 * step
    exact = 4 / 3 * np.pi * np.prod(SEMI_AXES)
    # the rim: half a pixel around, half a step (of planes or slices) above and below
    rim = np.array([0.5, 0.5, max(contour_step, step) / 2])
    inner, outer = (4 / 3 * np.pi * np.prod(SEMI_AXES + sign * rim) for sign in (-1, 1))
    assert inner <= volume <= outer
    assert volume == pytest.approx(exact, rel=0.06)
    # nothing is lost in between
    drawn = np.flatnonzero(label.any(axis=(1, 2)))
    assert np.array_equal(drawn, np.arange(drawn[0], drawn[-1] + 1))


def test_each_slice_has_the_ellipse_of_its_nearest_plane(tmp_path):
    geometry = grid(1.0, 90)
    planes = np.arange(20.4, 110, 3.0)
    label, notes = read(tmp_path, ellipsoid(planes), geometry)
    inside = [z for z in planes if abs(z - CENTRE[2]) < SEMI_AXES[2]]
    x, y = np.meshgrid(-30 + 0.9 * np.arange(70), -30 + 1.1 * np.arange(60))
    for k, z in enumerate(geometry.distances_mm):
        nearest = min(inside, key=lambda plane: abs(plane - z))
        share = 1 - ((nearest - CENTRE[2]) / SEMI_AXES[2]) ** 2
        radius = ((x - CENTRE[0]) / SEMI_AXES[0]) ** 2 + ((y - CENTRE[1]) / SEMI_AXES[1]) ** 2
        # 300 corners lie up to 0.006 mm inside the ellipse
        clear = np.abs(radius - share) > 1e-3
        expected = (radius < share) & (abs(nearest - z) < 1.5)
        assert np.array_equal(label[k][clear] == 1, expected[clear]), k
    assert "3.00 mm apart; each slice took the nearest within 1.50 mm" in notes[-1]


def test_slices_passed_over_on_their_own_series_stay_empty(tmp_path):
    """Every second slice is outlined: what lies between is what the author left, and is said."""
    geometry = grid(2.5, 36)
    label, notes = read(tmp_path, ellipsoid(geometry.distances_mm[::2]), geometry)
    drawn = label.any(axis=(1, 2))
    assert not drawn[1::2].any()
    assert drawn[::2].sum() > 8
    assert notes == (f"RTSTRUCT: {drawn.sum() - 1} slices between the outlines have none; they stay empty",)


def test_two_islands_far_apart_are_not_bridged(tmp_path):
    geometry = grid(1.0, 90)
    planes = np.concatenate([np.arange(40.4, 50, 3.0), np.arange(70.4, 80, 3.0)])
    label, _ = read(tmp_path, ellipsoid(planes), geometry)
    drawn = geometry.distances_mm[label.any(axis=(1, 2))]
    assert drawn.max() - drawn.min() > 38
    assert not ((drawn > 51.0) & (drawn < 68.8)).any()


@pytest.mark.parametrize("planes", [[40.4, 43.4, 70.4], [40.4, 43.4, 9999.0], [40.4, 70.4, 73.4, 100.4]])
def test_few_planes_far_apart_are_not_bridged(planes):
    geometry = grid(1.0, 90)
    reach = reach_of([np.array(planes)], geometry)
    assert (reach.half_mm, reach.planes_apart_mm) == (pytest.approx(1.5), pytest.approx(3.0))


def test_an_outline_far_away_moves_no_other(tmp_path):
    geometry = grid(2.5, 36)
    near = ellipsoid(geometry.distances_mm[14:16])
    far = near[0] + np.array([0, 0, 9000.3])
    label, notes = read(tmp_path, [far, *near], geometry)
    assert np.array_equal(label, read(tmp_path, near, geometry)[0])
    assert notes == ("RTSTRUCT: 1 outline planes lie beyond the first or the last slice and were cut off",)


def test_planes_on_half_steps_neither_double_nor_drop_a_slice(tmp_path):
    """As many slices as planes: each plane stands for what lies from half a step before it to half a step after."""
    geometry = grid(2.0, 45)
    planes = geometry.distances_mm[10:20] + 1.0
    label, notes = read(tmp_path, ellipsoid(planes), geometry)
    assert np.array_equal(np.flatnonzero(label.any(axis=(1, 2))), np.arange(11, 21))
    assert "between the slices" in notes[0]


def test_structures_that_meet_half_way_share_no_slice():
    geometry = grid(1.0, 90)
    below, above = np.array([40.5, 43.5]), np.array([46.5, 49.5])
    reach = reach_of([below, above], geometry)
    taken = [{k for k, _ in planes_of_slices(planes, geometry, reach)} for planes in (below, above)]
    assert not taken[0] & taken[1]
    assert sorted(taken[0] | taken[1]) == list(range(20, 32))


def test_planes_beyond_the_stack_are_cut_off_and_said(tmp_path):
    geometry = grid(2.5, 12)
    outlines = ellipsoid(np.arange(20.0, 110.0, 2.5))
    label, notes = read(tmp_path, outlines, geometry)
    n_inside = sum(one[0, 2] <= geometry.distances_mm[-1] for one in outlines)
    assert label.any(axis=(1, 2)).sum() == n_inside
    assert notes == (
        f"RTSTRUCT: {len(outlines) - n_inside} outline planes lie beyond the first or the last slice and were cut off",
    )
    with pytest.raises(LabelError) as caught:
        read(tmp_path, ellipsoid(np.arange(70.0, 80.0, 2.5)), geometry)
    assert caught.value.code == "contour_position"


def test_rounded_positions_do_not_tear_a_hole_from_its_outline(tmp_path):
    """Exporters round; here the hole lies 0.03 mm off its outline, and both 0.02 mm off the slice."""
    geometry = grid(2.5, 36)
    z = geometry.distances_mm[16]
    (outer,) = ellipsoid([z + 0.02])
    hole = (outer - CENTRE) * [0.5, 0.5, 1] + CENTRE
    hole[:, 2] = z - 0.01
    label, notes = read(tmp_path, [outer, hole], geometry)
    whole, _ = read(tmp_path, [outer], geometry)
    inner, _ = read(tmp_path, [hole], geometry)
    assert np.array_equal(label[16], whole[16] & ~inner[16] & 1)
    assert (inner[16] & whole[16]).any()
    assert notes == ()


def test_a_structure_thinner_than_a_step_is_not_lost(tmp_path):
    geometry = grid(5.0, 18)
    label, _ = read(tmp_path, ellipsoid([61.6, 62.4, 63.2]), geometry)
    assert np.array_equal(np.flatnonzero(label.any(axis=(1, 2))), [8, 9])
