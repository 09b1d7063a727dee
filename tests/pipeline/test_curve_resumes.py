"""``monai-tl curve`` and ``dvc repro curve/dvc.yaml``: one result, point by point, and an experiment of DVC's."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from workspaces import CURVE, Place, make_real, make_site

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

PREPARING = ("ingest", "split", "plan", "preprocess")
POINTS = ("curve_label@all-scratch-0", "curve_step@2-scratch-0")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """A workspace whose curve was brought up to date once, by the command."""
    root = tmp_path_factory.mktemp("curve")
    place = make_real(root / "workspace", make_site(root / "site"))
    place.extra["MONAI_TL_EXECUTOR"] = "sequential"
    params = place.folder / "params.yaml"
    params.write_text(params.read_text() + CURVE)
    outcomes = run(place)
    assert outcomes == dict.fromkeys((*PREPARING, *POINTS, "curve"), "ran")
    return place


def run(place: Place) -> dict[str, str]:
    """What became of each step."""
    lines = place.run("monai_tl", "curve", "--plain").splitlines()
    found = [line.rpartition(": ") for line in lines]
    return {step: word for step, _, word in found if word in ("ran", "restored", "unchanged")}


def git(place: Place, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=place.folder, env=place.environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def lock(place: Place) -> bytes:
    return (place.folder / "curve/dvc.lock").read_bytes()


def test_a_second_time_nothing_runs_by_either_way(place):
    before = lock(place)
    text = place.run("dvc", "repro", "curve/dvc.yaml")
    assert "Running stage" not in text
    assert set(run(place).values()) == {"unchanged"}
    assert lock(place) == before
    # nothing of the training pipeline has been trained
    assert not (place.folder / "artifacts/models").exists()


def test_dvc_knows_the_experiment_and_the_users_git_is_as_it_was(place):
    from flows.experiments import experiment_name, save_experiment

    (name,) = [word for word in place.run("dvc", "exp", "list", "--name-only").split() if word.startswith("curve-")]
    assert name == experiment_name("curve", place.folder / "curve/dvc.lock")
    record = json.loads((place.folder / "reports/curve/curve.json").read_text())
    rows = place.run("dvc", "exp", "show", "--csv")
    assert name in rows
    assert record["labels"]["sentence"] in rows
    (place.folder / "mine.txt").write_text("staged by the user")
    git(place, "add", "mine.txt")
    before = [
        git(place, *words) for words in (("status", "--porcelain=v2"), ("symbolic-ref", "HEAD"), ("rev-parse", "HEAD"))
    ]
    reference = git(place, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    assert save_experiment(place.folder, name, ("curve/dvc.lock", "reports/curve/curve.json", "not/there"))
    after = [
        git(place, *words) for words in (("status", "--porcelain=v2"), ("symbolic-ref", "HEAD"), ("rev-parse", "HEAD"))
    ]
    assert after == before
    assert "A  mine.txt" in git(place, "status", "--porcelain")
    assert reference.split()[1] in git(place, "for-each-ref", "--format=%(refname)", "refs/exps")
    git(place, "reset", "-q")


def test_the_plots_of_dvc_are_drawn(place):
    place.run("dvc", "plots", "show", "-o", "plots")
    page = (place.folder / "plots/index.html").read_text()
    for name in ("labels", "steps"):
        assert f"reports/curve/{name}.csv" in page or f"reports::curve::{name}" in page
    assert '"scratch"' in page
    assert "mean foreground Dice" in page


def test_one_more_label_count_costs_its_own_point_and_no_other(place):
    params = place.folder / "params.yaml"
    text = params.read_text()
    points = {path: path.read_bytes() for path in (place.folder / "artifacts/curve").rglob("point.json")}
    params.write_text(text.replace("labels: [all]", "labels: [2, all]"))
    outcomes = run(place)
    assert {step for step, word in outcomes.items() if word == "ran"} == {"curve_label@2-scratch-0", "curve"}
    assert {step for step, word in outcomes.items() if word == "unchanged"} == {*PREPARING, *POINTS}
    assert all(path.read_bytes() == content for path, content in points.items())
    assert len(place.run("dvc", "exp", "list", "--name-only").split()) >= 2
    stages = yaml.safe_load(lock(place))["stages"]
    assert set(stages) == {"curve_label@2-scratch-0", *POINTS, "curve"}
