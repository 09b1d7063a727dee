"""What ``monai-tl curve`` writes into a workspace before its flow starts, and what DVC makes of it."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from monai_tl.commands import curve, init
from monai_tl.config import load_params
from monai_tl.errors import ConfigError
from monai_tl.files import write_json
from monai_tl.pipeline_file import check_sections
from monai_tl.records import Fold, Split


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curve") / "studies"
    init.run(folder, console=Console(file=io.StringIO()))
    return folder


@pytest.fixture
def here(made, tmp_path) -> Path:
    subprocess.run(["cp", "-r", made, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """The flow is not run here; its module is noted."""
    modules: list[str] = []
    monkeypatch.setattr(curve, "run_flow", lambda workspace, module, console, *, plain: modules.append(module) or 7)
    return modules


def test_a_workspace_without_the_section_gets_one_that_is_valid_and_is_told(here, started, capsys):
    before = (here / "params.yaml").read_text()
    assert curve.run(here, plain=True) == 7
    assert started == ["flows.curve"]
    text = (here / "params.yaml").read_text()
    assert text.startswith(before.rstrip("\n"))
    assert text[len(before) :].strip() in capsys.readouterr().out
    params = load_params(here)
    assert params.curve.labels == (4, 8, "all")
    assert params.curve.strategies == (params.finetune.strategy, "scratch")
    full = params.finetune.max_steps
    assert params.curve.steps == (full // 8, full // 4, full // 2)
    check_sections(here)
    # a second time nothing is added
    curve.run(here, plain=True)
    assert (here / "params.yaml").read_text() == text


def test_dvc_reads_the_pipeline_and_repro_alone_does_not_touch_it(here, started):
    curve.run(here, plain=True)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"], cwd=here, capture_output=True, text=True
    ).stdout.split()
    section = load_params(here).curve
    points = [name for name in listed if "curve_" in name]
    assert len(points) == len(section.strategies) * (len(section.labels) + len(section.steps))
    assert f"curve/dvc.yaml:curve_label@all-{section.strategies[0]}-0" in listed
    own = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"], cwd=here, capture_output=True, text=True
    ).stdout
    assert "curve" not in own


@pytest.mark.parametrize(("n_pool", "labels"), [(None, [4, 8]), (3, []), (9, [4, 8]), (160, [4, 8, 16, 32, 64])])
def test_labels_asked_for_by_default_are_there(here, n_pool, labels):
    if n_pool is not None:
        cases = tuple(f"case-{k:012x}" for k in range(n_pool))
        folder = here / "artifacts/split"
        folder.mkdir(parents=True)
        Split(test=("case-t",), folds=(Fold(train=cases[1:], val=cases[:1]),)).write(folder / "split.json")
    text = curve.default_section(load_params(here), curve._n_pool(here))
    assert yaml.safe_load(text)["curve"]["labels"] == [*labels, "all"]


def test_a_section_that_goes_while_its_pipeline_stays_is_a_fault_of_every_run(here, started):
    before = (here / "params.yaml").read_text()
    curve.run(here, plain=True)
    (here / "params.yaml").write_text(before)
    with pytest.raises(ConfigError, match=r"curve\.labels: must be written out, because curve/dvc\.yaml"):
        check_sections(here)


def test_refresh_writes_it_again_for_another_source(here, started):
    curve.run(here, plain=True)
    content = yaml.safe_load((here / "params.yaml").read_text())
    content["plan"] |= {"source": None, "network": {"name": "unet"}}
    content["finetune"] |= {"arms": ["scratch"]}
    content["curve"]["strategies"] = ["scratch"]
    (here / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"curve/dvc\.yaml was written for another choice"):
        check_sections(here)
    init.run(here, refresh=True, console=Console(file=io.StringIO()))
    check_sections(here)


def test_older_flows_are_named(here, started):
    (here / "flows/curve.py").unlink()
    with pytest.raises(ConfigError, match=r"flows/curve\.py is not there"):
        curve.run(here, plain=True)
    assert started == []


def test_results_are_shown_as_a_table_an_axis(tmp_path):
    from curve_points import make_findings

    from monai_tl.report.curve_page import curve_record

    findings = make_findings()
    write_json(tmp_path / "reports/curve/curve.json", curve_record(findings))
    text = io.StringIO()
    curve._show(tmp_path, Console(file=text, width=120))
    shown = text.getvalue()
    assert findings.labels_sentence in shown
    assert findings.steps_sentence in shown
    for line in (*findings.by_labels.values(), *findings.by_steps.values()):
        assert all(f"{mean:.3f}" in shown for mean in line.dice)
    assert "curve.html" in shown
