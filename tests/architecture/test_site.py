"""The pages as a site: it builds without a warning, each page is in it, and params.yaml is explained field by field."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from monai_tl.config import Params

pytest.importorskip("mkdocs", reason="the extra docs is not installed")

ROOT = Path(__file__).parents[2]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/hooks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def params() -> ModuleType:
    return hook("params_page")


def fields(section: type[BaseModel], path: str = "") -> list[tuple[str, str]]:
    """Each field below the sections, by pydantic's own schema and not by what the page is made with."""
    schema = section.model_json_schema()

    def below(node: dict[str, Any], where: str) -> list[tuple[str, str]]:
        found = []
        for name, one in node["properties"].items():
            text = str(one)
            inner = re.search(r"'\$ref': '#/\$defs/(\w+)'", text)
            if where or inner is None:
                found.append((where, name))
            if inner is not None:
                found += below(schema["$defs"][inner[1]], f"{where}.{name}".lstrip("."))
        return found

    return below(schema, path)


def rows(page: str) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in page.splitlines():
        if heading := re.match(r"#{2,4} `(.*)`", line):
            section = heading[1]
        elif re.match(r"\| `", line):
            name, *cells = (cell.strip() for cell in re.split(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)", line)[1:-1])
            found[section, name.strip("`")] = cells
    return found


def test_every_field_has_its_row_with_a_meaning(params: ModuleType) -> None:
    found = rows(params.params_page())
    wanted = fields(Params)
    assert len(wanted) > 70
    assert sorted(found) == sorted(wanted)
    assert sorted(where for where, (_, _, meaning) in found.items() if not meaning) == []


def test_the_fields_of_the_template_are_on_the_page(params: ModuleType) -> None:
    found = {section for section, _ in rows(params.params_page())}
    template = yaml.safe_load((ROOT / "monai_tl/template/params.yaml").read_text(encoding="utf-8"))
    assert set(template) <= found


def test_types_and_defaults_are_in_words(params: ModuleType) -> None:
    found = rows(params.params_page())
    assert found["split", "n_folds"][:2] == ["whole number ≥ 2 ≤ 20", "`4`"]
    assert found["ingest", "source"][:2] == ["text", "required"]
    assert found["finetune", "seeds"][:2] == ["list of whole number ≥ 0 < 4294967296", "`[0]`"]
    assert found["plan", "spacing_mm"][:2] == ["3 × number > 0.0 ≤ 100.0 or null", "`null`"]
    assert found["finetune", "find_learning_rate"][:2] == ["true or false", "`false`"]
    assert found["plan.intensity", "low"][2] == found["plan.intensity", "high"][2]


def test_each_field_of_the_metrics_is_explained_and_the_schema_is_published(site: Path) -> None:
    published = (site / "metrics.schema.json").read_text(encoding="utf-8")
    assert published == (ROOT / "monai_tl/report/metrics.schema.json").read_text(encoding="utf-8")
    page = hook("metrics_page").metrics_page()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row[0] for row in rows if len(row) != 3 or not all(row)] == []
    named = {row[0].strip("`") for row in rows}
    assert {"rules.surface_tolerance_mm", "arms.*.classes", "verdict.decided", "contract[].status", "limits"} <= named
    assert "metrics.schema.json" in Links(site / "metrics-json.html").targets


class Links(HTMLParser):
    """Targets of links, and anchors, of one page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.loads: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {str(values[key]) for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.targets.append(str(values["href"]))
        load = values.get("src") if tag != "link" else values.get("href")
        if load and (tag != "link" or values.get("rel") == "stylesheet"):
            self.loads.append(str(load))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_each_page_is_in_the_site_and_in_its_navigation(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert [str(page) for page in pages if not (site / page).is_file()] == []
    linked = {os.path.normpath(target) for target in Links(site / "index.html").targets}
    assert (
        sorted(
            str(page) for page in [*pages, Path("params.html"), Path("metrics-json.html")] if str(page) not in linked
        )
        == []
    )


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    known = {page.resolve(): Links(page) for page in site.rglob("*.html")}
    broken = []
    for page, found in known.items():
        # mkdocs' own page of errors is served from anywhere, and has addresses from the root
        if page.name == "404.html":
            continue
        for target in found.targets:
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and file in known and anchor not in known[file].anchors):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_a_page_asks_nothing_of_another_host(site: Path) -> None:
    loads = {load for page in site.rglob("*.html") for load in Links(page).loads}
    assert len(loads) > 3
    assert sorted(load for load in loads if re.match(r"(?:[a-z]+:)?//", load)) == []
