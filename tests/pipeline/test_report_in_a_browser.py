"""The report in headless Chromium: it complains of nothing, asks nobody, scrolls through slices and prints."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import open_browser

from monai_tl.report.overlays import Overlay, draw_planes, look_through
from monai_tl.report.page import render_page

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_report import arm, make_findings

pytestmark = pytest.mark.pipeline

CANVAS = "document.querySelector('[data-part=canvas]')"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape, spacing = (40, 44, 30), (2.0, 2.0, 3.0)
    generator = np.random.default_rng(0)
    image = generator.normal(100.0, 20.0, shape)
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    reference[12:26, 14:30, 8:20], prediction[14:28, 14:30, 8:20] = 1, 1
    shown = (image, reference, {"transfer": prediction}, spacing, (40.0, 160.0))
    overlay = Overlay(
        "Best case", "case-0", {"transfer": 0.9, "scratch": 0.5}, draw_planes(*shown), look_through(*shown)
    )
    arms = (arm("transfer", 0.9, 0.8, 0.7), arm("scratch", 0.5, 0.6, 0.4))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(replace(make_findings(arms), overlays=(overlay, replace(overlay, title="Worst case")))))
    return path


@pytest.mark.parametrize("width", [1280, 2560])
def test_it_scrolls_windows_and_switches_without_a_complaint(page_file: Path, width: int, tmp_path: Path) -> None:
    with open_browser(tmp_path / "profile", width) as page:
        page.open(page_file)
        assert page.run("[...document.querySelectorAll('[data-viewer]')].every((box) => !box.hidden)")
        assert page.run("getComputedStyle(document.querySelector('.planes')).display") == "none"
        first = page.run(f"{CANVAS}.toDataURL()")
        assert page.run(f"{CANVAS}.width") > 0.6 * min(width, 1100)
        axial = "document.querySelector('[data-part=Z]')"
        before = int(page.run(f"{axial}.value"))
        page.run(
            f"(() => {{ const r = {CANVAS}.getBoundingClientRect(); {CANVAS}.dispatchEvent(new WheelEvent('wheel', "
            "{ clientX: r.right - 9, clientY: r.top + 9, deltaY: 100, cancelable: true })); })()"
        )
        assert int(page.run(f"{axial}.value")) == before + 1
        scrolled = page.run(f"{CANVAS}.toDataURL()")
        page.run(f"{axial}.value = 0; {axial}.dispatchEvent(new Event('input'))")
        bottom = page.run(f"{CANVAS}.toDataURL()")
        for name, value in (("width", 20), ("level", 80)):
            slider = f"document.querySelector('[data-part={name}]')"
            page.run(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input'))")
        windowed = page.run(f"{CANVAS}.toDataURL()")
        pictures = [first, scrolled, bottom, windowed]
        assert len(set(pictures)) == 4
        page.run("document.querySelector('[data-part=width]').value = 100")
        page.run("document.querySelector('[data-part=level]').value = 50")
        page.run(f"{axial}.value = {before}; {axial}.dispatchEvent(new Event('input'))")
        page.run("document.querySelector('[data-part=level]').dispatchEvent(new Event('input'))")
        assert page.run(f"{CANVAS}.toDataURL()") == first
        covered = {}
        for name in ("prediction", "reference"):
            page.run(f"document.querySelector('[data-part={name}]').click()")
            page.run("new Promise((done) => setTimeout(done, 200))")
            covered[name] = page.run(f"{CANVAS}.toDataURL()")
        # the reference alone, then nothing
        assert len({first, *covered.values()}) == 3
        assert page.complaints() == []
        assert page.requests() == [page_file.as_uri()]


def test_it_prints_with_still_pictures(page_file: Path, tmp_path: Path) -> None:
    with open_browser(tmp_path / "profile") as page:
        page.open(page_file)
        assert page.print_pdf().startswith(b"%PDF")
        page.send("Emulation.setEmulatedMedia", media="print")
        assert page.run("getComputedStyle(document.querySelector('.planes')).display") == "grid"
        assert page.run("getComputedStyle(document.querySelector('.viewer')).display") == "none"


def test_without_scripts_it_has_still_pictures(page_file: Path, tmp_path: Path) -> None:
    with open_browser(tmp_path / "profile") as page:
        page.send("Emulation.setScriptExecutionDisabled", value=True)
        page.events.clear()
        page.send("Page.navigate", url=page_file.as_uri())
        page.wait_for("Page.loadEventFired")
        page.send("Emulation.setScriptExecutionDisabled", value=False)
        assert page.run("document.querySelector('.viewer').hidden")
        assert page.run("getComputedStyle(document.querySelector('.planes')).display") == "grid"
