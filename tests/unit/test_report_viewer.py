"""Sheets of slices for the viewer: which voxel lies where, and what the page allows to run."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_report import HOSTILE, arm, make_findings

from monai_tl.report.overlays import Overlay, look_through
from monai_tl.report.page import render_page
from monai_tl.report.viewer import MAX_SIDE, SliceView, draw_slices, viewer_scripts

YELLOW, BLUE, GREEN, PINK = (255, 225, 77), (69, 179, 255), (120, 220, 140), (255, 99, 200)


def _picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def _voxels(uri: str, view: SliceView) -> np.ndarray:
    """A sheet as brainsprite reads it: column and row of sagittal slice x, in it y to the right and z up."""
    sheet = np.asarray(_picture(uri).convert("RGBA"))
    n_x, n_y, n_z = view.shape
    n_columns = sheet.shape[1] // n_y
    volume = np.zeros((n_x, n_y, n_z, 4), dtype=np.uint8)
    for x in range(n_x):
        column, row = x % n_columns, (x - x % n_columns) // n_columns
        for y in range(n_y):
            for z in range(n_z):
                volume[x, y, z] = sheet[row * n_z + n_z - z - 1, column * n_y + y]
    return volume


def _cube(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> SliceView:
    """12 mm of a volume whose only bright voxel is at the patient's right, posterior, superior."""
    shape = tuple(round(12 / step) for step in spacing)
    image = np.zeros(shape)
    image[-1, 0, -1] = 100.0
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    reference[2:4], prediction[3:5] = 1, 1
    reference[8], prediction[8] = 1, 2
    return draw_slices(image, reference, prediction, spacing, (6.0, 6.0, 6.0), 12.0, (0.0, 100.0))


def test_right_comes_first_and_superior_is_up() -> None:
    view = _cube()
    assert view.shape == (12, 12, 12)
    grey = _voxels(view.image, view)[..., 0]
    assert grey[0, 0, 11] == 255
    assert np.count_nonzero(grey) == 1


def test_layers_tell_agreement_misses_and_excess() -> None:
    view = _cube()
    both = _voxels(view.layers["both"], view)
    # slices are counted from the patient's right, arrays from the left
    colours = {x: tuple(both[11 - x, 5, 5, :3]) for x in (2, 3, 4, 8)}
    assert colours == {2: YELLOW, 3: GREEN, 4: BLUE, 8: PINK}
    assert both[11 - 6, 5, 5, 3] == 0
    reference = _voxels(view.layers["reference"], view)[:, 5, 5, 3] > 0
    assert sorted(11 - np.flatnonzero(reference)) == [2, 3, 8]
    prediction = _voxels(view.layers["prediction"], view)[:, 5, 5, 3] > 0
    assert sorted(11 - np.flatnonzero(prediction)) == [3, 4, 8]


def test_thick_slices_keep_their_proportions() -> None:
    view = _cube((1.0, 1.0, 3.0))
    assert view.shape == (12, 12, 12)
    reference = _voxels(view.layers["reference"], view)[..., 3] > 0
    assert reference.sum() == 3 * 12 * 12


def test_a_large_case_is_coarsened_and_the_view_begins_in_the_structure() -> None:
    shape = (160, 160, 40)
    reference = np.zeros(shape, np.uint8)
    reference[100:130, 60:70, 10:20] = 1
    view = look_through(np.zeros(shape), reference, {}, (1.0, 1.0, 2.0), (0.0, 1.0))
    assert max(view.shape) <= MAX_SIDE
    inside = _picture(view.layers["reference"]).convert("RGBA").getchannel("A")
    assert np.count_nonzero(np.asarray(inside)) > 0
    # 30 x 10 x 20 mm in a cube of 60 mm at the least
    assert view.step_mm == pytest.approx(1.0, abs=0.1)
    x, y, z = view.start
    volume = _voxels(view.layers["reference"], view)[..., 3] > 0
    assert volume[x].any()
    assert volume[:, y].any()
    assert volume[:, :, z].any()


def test_outside_the_image_is_black_and_empty() -> None:
    image = np.full((10, 10, 10), 50.0)
    label = np.ones((10, 10, 10), np.uint8)
    view = draw_slices(image, label, None, (1.0, 1.0, 1.0), (0.0, 5.0, 5.0), 10.0, (-50.0, 50.0))
    grey, layer = _voxels(view.image, view)[..., 0], _voxels(view.layers["prediction"], view)
    assert (grey[:5] == 255).all()
    assert (grey[6:] == 0).all()
    assert (layer[..., 3] == 0).all()


def _with_a_case(text: str = "text") -> str:
    findings = make_findings((arm("transfer", 0.9, 0.8, 0.7), arm("scratch", 0.5, 0.6, 0.4)), text=text)
    overlay = Overlay(f"Best case {text}", "case-0", {"transfer": 0.9, "scratch": 0.5}, (), _cube())
    return render_page(replace(findings, overlays=(overlay,)))


def test_the_page_allows_its_own_scripts_and_no_other() -> None:
    page = _with_a_case(HOSTILE)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 2
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src "
        + " ".join(f"'sha256-{digest}'" for digest in digests)
    )
    assert page.count("<script") == 2


def test_without_the_viewers_package_the_page_has_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_tl.report.viewer.find_spec", lambda _: None)
    assert viewer_scripts() == ()
    page = _with_a_case()
    assert "<script" not in page
    assert "script-src" not in page
    assert "data-viewer" not in page
