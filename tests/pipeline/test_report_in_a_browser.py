"""The report in headless Chromium: read at two widths, light and dark, by keyboard, without scripts, and on paper."""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, open_browser

from monai_tl.metrics.cohort import summarise_arm
from monai_tl.report.findings import Findings
from monai_tl.report.overlays import Overlay, draw_planes, look_through
from monai_tl.report.page import render_page
from monai_tl.report.viewer import MAX_SIDE
from monai_tl.scoring import judge_arms

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_certainty import known
from test_report import RULE, arm, make_findings, result

pytestmark = pytest.mark.pipeline

CANVAS = "document.querySelector('[data-part=canvas]')"
MOST_BYTES = 15_000_000
ARROW_LEFT, ARROW_UP, ARROW_RIGHT, PAGE_DOWN, TAB, ENTER, ESCAPE = 37, 38, 39, 34, 9, 13, 27


def _findings() -> Findings:
    shape, spacing = (40, 44, 30), (2.0, 2.0, 3.0)
    generator = np.random.default_rng(0)
    image = generator.normal(100.0, 20.0, shape)
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    reference[12:26, 14:30, 8:20], prediction[14:28, 14:30, 8:20] = 1, 1
    overlays = []
    for title in ("Best case", "Worst case"):
        shown = (image + len(overlays), reference, {"transfer": prediction}, spacing, (40.0, 160.0))
        pictures, dice = draw_planes(*shown), {"transfer": 0.9, "scratch": 0.5}
        overlays.append(Overlay(title, f"case-{len(overlays)}", dice, pictures, look_through(*shown)))
    values = generator.uniform(0.8, 0.95, 8)
    arms = (arm("transfer", *values), arm("scratch", *(values - generator.uniform(0.1, 0.3, 8))))
    calibration, uncertainty = known()
    return replace(
        make_findings(arms),
        overlays=tuple(overlays),
        calibration={"transfer": calibration},
        uncertainty={"transfer": uncertainty},
    )


@pytest.fixture(scope="module")
def findings() -> Findings:
    return _findings()


@pytest.fixture(scope="module")
def page_file(findings: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(findings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile") / "chromium") as page:
        yield page


@pytest.fixture
def page(browser: Page, page_file: Path) -> Iterator[Page]:
    """The report, newly opened at 1280 pixels; whatever a test does, nobody is asked and nothing is complained of."""
    browser.events.clear()
    browser.resize(1280)
    browser.emulate()
    browser.open(page_file)
    yield browser
    assert browser.complaints() == []
    assert set(browser.requests()) == {page_file.as_uri()}


def _value(page: Page, name: str) -> int:
    return int(page.run(f"document.querySelector('[data-part={name}]').value"))


@pytest.mark.parametrize("width", [1280, 2560])
def test_it_scrolls_windows_and_switches(page: Page, width: int) -> None:
    page.resize(width)
    assert page.run("[...document.querySelectorAll('[data-viewer]')].every((box) => !box.hidden)")
    assert page.run("getComputedStyle(document.querySelector('.planes')).display") == "none"
    first = page.run(f"{CANVAS}.toDataURL()")
    assert page.run(f"{CANVAS}.width") > 0.5 * width
    axial, before = "document.querySelector('[data-part=Z]')", _value(page, "Z")
    wheel = (
        f"(() => {{ const r = {CANVAS}.getBoundingClientRect(); {CANVAS}.dispatchEvent(new WheelEvent('wheel', "
        "{ clientX: r.right - 9, clientY: r.top + 9, deltaY: 100, cancelable: true })); })()"
    )
    page.run(f"{CANVAS}.focus()")
    page.run(wheel)
    assert _value(page, "Z") == before + 1
    assert page.run("document.querySelector('[data-part=Z-number]').textContent").startswith(f"{before + 2} of ")
    scrolled = page.run(f"{CANVAS}.toDataURL()")
    page.run(f"{axial}.value = 0; {axial}.dispatchEvent(new Event('input'))")
    bottom = page.run(f"{CANVAS}.toDataURL()")
    for name, value in (("width", 20), ("level", 80)):
        slider = f"document.querySelector('[data-part={name}]')"
        page.run(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input'))")
    windowed = page.run(f"{CANVAS}.toDataURL()")
    assert len({first, scrolled, bottom, windowed}) == 4
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


def test_the_wheel_is_the_pages_until_a_picture_is_chosen(page: Page) -> None:
    page.run(f"{CANVAS}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    where = page.run(
        f"(() => {{ const r = {CANVAS}.getBoundingClientRect(); return [r.right - 30, (r.top + r.bottom) / 2] }})()"
    )
    top, before = page.run("scrollY"), _value(page, "Z")
    page.turn_wheel(*where, 120)
    assert page.run("scrollY") > top
    assert _value(page, "Z") == before
    page.run(f"{CANVAS}.scrollIntoView({{block: 'center', behavior: 'instant'}}); {CANVAS}.focus()")
    top = page.run("scrollY")
    page.turn_wheel(*where, 120)
    assert page.run("scrollY") == top
    assert _value(page, "Z") == before + 1
    # at the last slice the page goes on
    page.run("(() => { const s = document.querySelector('[data-part=Z]'); s.value = s.max;"
             "s.dispatchEvent(new Event('input')) })()")  # fmt: skip
    page.turn_wheel(*where, 120)
    assert page.run("scrollY") > top


def test_everything_is_reached_and_moved_by_keyboard(page: Page) -> None:
    named = "(document.activeElement.dataset.part || document.activeElement.id || document.activeElement.tagName)"
    reached = []
    for _ in range(60):
        page.press("Tab", TAB)
        reached.append(page.run(named))
        if reached[-1] == "BODY":
            break
    parts = ["canvas", "X", "Y", "Z", "level", "width", "reference", "prediction"]
    assert [name for name in reached if name in parts] == 2 * parts
    n_details = page.run("document.querySelectorAll('summary').length")
    assert reached.count("SUMMARY") == n_details > 0
    # what has the focus is seen
    page.run("document.querySelector('summary').focus({focusVisible: true})")
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", ENTER)
    assert page.run("document.activeElement.parentElement.open")
    page.run(f"{CANVAS}.focus()")
    before = {axis: _value(page, axis) for axis in "XYZ"}
    page.press("ArrowUp", ARROW_UP)
    page.press("ArrowUp", ARROW_UP)
    page.press("ArrowLeft", ARROW_LEFT)
    page.press("PageDown", PAGE_DOWN)
    moved = {axis: _value(page, axis) - before[axis] for axis in "XYZ"}
    assert moved == {"X": -1, "Y": -1, "Z": 2}
    page.press("Escape", ESCAPE)
    assert page.run("document.activeElement.tagName") == "BODY"
    page.run("document.querySelector('[data-part=X]').focus()")
    page.press("ArrowRight", ARROW_RIGHT)
    assert _value(page, "X") == before["X"]


# elements that hold text themselves, with the colour of it and of the nearest ground that is not seen through
TEXTS = """
(() => {
  const rgba = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(at).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll('*')]
    .filter((one) => !one.closest('.viewer, .planes, script, style'))
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
    .filter((one) => one.getClientRects().length)
    .map((one) => {
      const style = getComputedStyle(one);
      const ink = one instanceof SVGElement ? style.fill : style.color;
      return [one.textContent.trim().slice(0, 40), rgba(ink).slice(0, 3), ground(one)];
    });
})()
"""


def _luminance(colour: list[float]) -> float:
    parts = np.array(colour) / 255.0
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_in_light_and_dark(page: Page, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for text of any size."""
    page.emulate(scheme)
    paper = page.run("getComputedStyle(document.querySelector('section')).backgroundColor")
    assert (_luminance([float(part) for part in re.findall(r"\d+", paper)]) < 0.1) == (scheme == "dark")
    found = page.run(TEXTS)
    assert len(found) > 100
    faint = []
    for text, ink, ground in found:
        first, second = sorted((_luminance(ink), _luminance(ground)))
        contrast = (second + 0.05) / (first + 0.05)
        if contrast < 4.5:
            faint.append((text, round(contrast, 2)))
    assert faint == []


# what reaches beyond the window, and words of a plot that lie over one another
LAYOUT = """
(() => {
  const wide = [...document.querySelectorAll('main *')]
    .filter((one) => !one.closest('.scroll, svg') && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map((one) => `${one.tagName} ${one.className}`);
  const over = [];
  for (const plot of document.querySelectorAll('svg.plot')) {
    const texts = [...plot.querySelectorAll('text')].map((one) => [one.textContent, one.getBoundingClientRect()]);
    const frame = plot.closest('section, header').getBoundingClientRect();
    texts.forEach(([name, a], i) => {
      if (a.left < frame.left || a.right > frame.right) over.push([name, 'out of its section']);
      texts.slice(i + 1).forEach(([other, b]) => {
        const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (x > 1 && y > 2) over.push([name, other]);
      });
    });
  }
  return { wide, over, scroll: document.documentElement.scrollWidth, window: document.documentElement.clientWidth };
})()
"""


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_nothing_overflows_and_no_words_of_a_plot_overlap(page: Page, width: int) -> None:
    page.resize(width)
    found: dict[str, Any] = page.run(LAYOUT)
    assert found["scroll"] <= found["window"]
    if width > 700:
        assert found["wide"] == []
        assert found["over"] == []
    if width == 2560:
        # neither a strip in the middle nor lines too long to read
        share = page.run("document.querySelector('main').getBoundingClientRect().width") / width
        assert 0.5 < share < 0.8
        assert page.run("parseFloat(getComputedStyle(document.documentElement).fontSize)") > 16


def test_plots_say_what_is_seen_and_in_which_unit(page: Page) -> None:
    plots = page.run("[...document.querySelectorAll('svg.plot')].map((one) => [...one.querySelectorAll('text')]"
                     ".map((text) => text.textContent))")  # fmt: skip
    wanted = [
        ["What the pretrained start changed, case by case", "difference in mean Dice, transfer − scratch"],
        ["Validation Dice while training (ring: the step that was kept)", "mean foreground Dice", "optimiser steps",
         "Training loss: lower is better", "loss, no unit"],
        ["Dice of each case: higher is better", "Dice", "Surface Dice: higher is better", "surface Dice at 2 mm",
         "HD95: lower is better", "HD95, mm"],
        ["Dice by size: liver", "Dice", "reference volume, ml"],
        ["How often it is right, by how sure it is", "confidence (probability of the class given)",
         "share of voxels that are right", "cases kept, the surest first, %", "mean error (1 − Dice)"],
    ]  # fmt: skip
    assert len(plots) == len(wanted)
    for texts, words in zip(plots, wanted, strict=True):
        assert [word for word in words if word not in texts] == []


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def test_on_paper_it_has_all_that_is_folded_on_screen_and_no_controls(page: Page, findings: Findings) -> None:
    pypdf = pytest.importorskip("pypdf")
    folded = page.run("[...document.querySelectorAll('details')].filter((one) => !one.open).length")
    assert folded > 1
    paper = pypdf.PdfReader(io.BytesIO(page.print_pdf()))
    # ligatures and spaces that do not break are words too
    text = _plain("\n".join(sheet.extract_text() for sheet in paper.pages))
    title = page.run("document.querySelector('h1').textContent")
    assert _plain(title) in text
    headings = page.run("[...document.querySelectorAll('h2')].map((one) => one.textContent)")
    assert len(headings) > 9
    assert [heading for heading in headings if heading not in text] == []
    # the folded table of all cases
    for case in findings.arms[0].cases:
        assert case.case_id in text
        assert f"{case.mean('dice'):.3f}" in text
    # which outline is whose
    assert "Outlines reference transfer Best case" in text
    assert [word for word in ("Sliders", "level", "window", " of 30") if word in text] == []
    # three still pictures of each case
    assert sum(len(sheet.images) for sheet in paper.pages) == 6
    assert all(sheet.extract_text().strip() or sheet.images for sheet in paper.pages)
    page.emulate(media="print")
    assert page.run("getComputedStyle(document.querySelector('.planes')).display") == "grid"
    assert page.run("getComputedStyle(document.querySelector('.viewer')).display") == "none"


def test_without_scripts_it_has_still_pictures(browser: Page, page_file: Path) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    browser.events.clear()
    browser.send("Page.navigate", url=page_file.as_uri())
    browser.wait_for("Page.loadEventFired")
    browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.querySelector('.viewer').hidden")
    assert browser.run("getComputedStyle(document.querySelector('.planes')).display") == "grid"


def test_fifty_cases_are_one_small_file_that_opens(browser: Page, tmp_path: Path) -> None:
    """With the largest cubes that the viewer takes, of noise, which no format makes smaller."""
    generator = np.random.default_rng(1)
    shape = (MAX_SIDE, MAX_SIDE, MAX_SIDE)
    image = generator.normal(0.0, 1.0, shape)
    reference, prediction = (np.zeros(shape, np.uint8) for _ in range(2))
    reference[2:-2, 2:-2, 2:-2] = generator.integers(0, 3, (MAX_SIDE - 4,) * 3)
    prediction[2:-2, 2:-2, 2:-2] = generator.integers(0, 3, (MAX_SIDE - 4,) * 3)
    shown = (image, reference, {"transfer": prediction}, (1.0, 1.0, 1.0), (-2.0, 2.0))
    view = look_through(*shown)
    # outlines of noise would be what no network draws
    overlay = Overlay("Best case", "case-0", {"transfer": 0.9, "scratch": 0.5}, (), view)
    names = ("left ventricle", "inferior vena cava", "left adrenal gland", "spinal cord", "oesophagus")
    arms = tuple(
        summarise_arm(
            name,
            {
                seed: [result(f"case-{k:012x}", *generator.uniform(0.2, 1.0, len(names))) for k in range(50)]
                for seed in range(3)
            },
            names,
            RULE,
        )
        for name in ("transfer", "scratch")
    )
    found = replace(
        make_findings(arms, names),
        overlays=tuple(replace(overlay, title=title) for title in ("Worst case", "Median case", "Best case")),
        verdict=judge_arms(arms, RULE, 0.01),
    )
    path = tmp_path / "report.html"
    path.write_text(render_page(found), encoding="utf-8")
    assert 3_000_000 < path.stat().st_size < MOST_BYTES
    browser.events.clear()
    browser.resize(1280)
    browser.emulate()
    browser.open(path)
    assert browser.run("[...document.querySelectorAll('[data-viewer]')].every((box) => !box.hidden)")
    layout = browser.run(LAYOUT)
    assert layout["scroll"] <= layout["window"]
    assert (layout["wide"], layout["over"]) == ([], [])
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]
