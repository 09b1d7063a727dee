"""RTSTRUCT on any grid: areas of outlines against Stokes' theorem, pixels against matplotlib."""

from __future__ import annotations

import numpy as np
from dicom_files import write_rtstruct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outlines import area_and_perimeter, away_from, in_world, inside, rotation, slices, star

from monai_tl.dicom.rtstruct import read_rtstruct
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(classes=(ClassSpec(name="liver"), ClassSpec(name="tumour")))
ROWS, COLUMNS, N_SLICES = 50, 60, 4
spacings = st.tuples(st.floats(0.4, 3.5), st.floats(0.4, 3.5), st.floats(0.6, 6.0))


@given(st.integers(0, 10_000), spacings, st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_areas_agree_on_oblique_sheared_grids_with_non_square_pixels(tmp_path, seed, spacing, shear):
    geometry = slices(N_SLICES, ROWS, COLUMNS, axes=rotation(seed), spacing=spacing, shear=shear)
    flat = {k: star(seed + k, (29.3, 24.6), 6.0, 22.0) for k in range(1, N_SLICES)}
    solid = [in_world(outline, k, geometry) for k, outline in flat.items()]
    path = write_rtstruct(tmp_path / "rs.dcm", {"liver": solid})
    label, notes = read_rtstruct(path, geometry, SCHEME)
    assert notes == ()
    assert not label[0].any()
    for k, points in zip(flat, solid, strict=True):
        area, perimeter = area_and_perimeter(points)
        drawn = np.count_nonzero(label[k]) * spacing[0] * spacing[1]
        # the rim: a band along the outline, half a pixel's diagonal to each side
        assert abs(drawn - area) <= perimeter * np.hypot(spacing[0], spacing[1]) / 2
        # corners are rounded to 1e-4 of a pixel, so that float noise does not decide
        clear = away_from(flat[k], ROWS, COLUMNS)
        assert np.array_equal(label[k][clear] == 1, inside(flat[k], ROWS, COLUMNS)[clear])
        assert np.count_nonzero(~clear) < 5


@given(st.integers(0, 10_000), spacings)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_ring_is_a_ring_however_it_is_told(tmp_path, seed, spacing):
    """Inner outline wound either way, as keyhole, as exclusive or: all are what matplotlib says of both outlines."""
    geometry = slices(N_SLICES, ROWS, COLUMNS, axes=rotation(seed), spacing=spacing)
    outer, inner = star(seed, (29.3, 24.6), 14.0, 22.0), star(seed + 1, (28.7, 24.1), 4.0, 9.0)
    clear = away_from(outer, ROWS, COLUMNS) & away_from(inner, ROWS, COLUMNS)
    ring = inside(outer, ROWS, COLUMNS) & ~inside(inner, ROWS, COLUMNS)
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:], outer[:1]])
    told = {
        "same way": ([outer, inner], "CLOSED_PLANAR"),
        "other way": ([inner[::-1], outer], "CLOSED_PLANAR"),
        "keyhole": ([keyhole], "CLOSED_PLANAR"),
        "exclusive or": ([outer, inner], "CLOSEDPLANAR_XOR"),
        "closed twice": ([np.concatenate([one, one[:1]]) for one in (outer, inner)], "CLOSED_PLANAR"),
    }
    for name, (outlines, kind) in told.items():
        solid = [in_world(outline, 2, geometry) for outline in outlines]
        path = write_rtstruct(tmp_path / "rs.dcm", {"tumour": solid}, geometric_type=kind)
        label, notes = read_rtstruct(path, geometry, SCHEME)
        assert np.array_equal(label[2][clear] == 2, ring[clear]), name
        assert notes == (), name
