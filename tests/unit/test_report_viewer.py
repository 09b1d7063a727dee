"""Sheets of slices for the viewer: which voxel lies where, and what the page allows to run."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from test_report import HOSTILE, arm, make_findings

from monai_tl.report.overlays import Overlay, look_through
from monai_tl.report.page import render_page
from monai_tl.report.viewer import MAX_SIDE, SliceView, draw_slices, viewer_scripts

YELLOW, BLUE, SKY, VERMILION = (255, 225, 77), (0, 60, 200), (86, 180, 233), (213, 94, 0)


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
    assert colours == {2: YELLOW, 3: SKY, 4: BLUE, 8: VERMILION}
    assert both[11 - 6, 5, 5, 3] == 0
    reference = _voxels(view.layers["reference"], view)[:, 5, 5, 3] > 0
    assert sorted(11 - np.flatnonzero(reference)) == [2, 3, 8]
    prediction = _voxels(view.layers["prediction"], view)[:, 5, 5, 3] > 0
    assert sorted(11 - np.flatnonzero(prediction)) == [3, 4, 8]


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
VISION = {
    "all": np.eye(3),
    "no long cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no middle cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no short cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("vision", VISION)
def test_the_colours_of_the_layers_are_told_apart_by_every_eye(vision: str) -> None:
    """Over dark, middle and light tissue; 10 of CIEDE2000 is seen at a glance."""
    view = _cube()
    both = _voxels(view.layers["both"], view)[:, 5, 5].astype(float)
    # the last is the bare image
    layers = np.array([both[11 - x] for x in (2, 3, 4, 8, 6)])
    for grey in (30.0, 90.0, 150.0, 210.0):
        alpha = layers[:, 3:] / 255.0
        shown = (layers[:, :3] * alpha + grey * (1.0 - alpha)) / 255.0
        linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ VISION[vision].T, 0.0, 1.0)
        lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
        apart = [float(deltaE_ciede2000(lab[a], lab[b])) for a, b in combinations(range(5), 2)]
        assert min(apart) > 10.0, (grey, apart)


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
    assert "pip install &#39;monai_tl[viewer]&#39;" in page or "pip install 'monai_tl[viewer]'" in page
    monkeypatch.undo()
    assert "monai_tl[viewer]" not in _with_a_case()


def test_pictures_are_told_to_be_images_of_a_person() -> None:
    assert "can show a face" in _with_a_case()
    assert "can show a face" not in render_page(make_findings((arm("transfer", 0.9), arm("scratch", 0.5))))
