"""What ``monai-tl serve`` and ``prefect deploy`` serve: the schedules of params.yaml, one run of a flow at a time."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.deploy import deployments
from monai_tl.commands import serve
from monai_tl.commands.commit_check import check_commit
from monai_tl.config import PARAMS_FILE, ServeConfig, load_params
from monai_tl.errors import ConfigError
from monai_tl.pipeline_file import pipeline_text

ROOT = Path(__file__).parents[2]
WRITTEN = {one["name"]: one for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}


def write_params(workspace: Path, **sections: Any) -> None:
    content = yaml.safe_load((ROOT / "monai_tl/template/params.yaml").read_text())
    (workspace / PARAMS_FILE).write_text(yaml.safe_dump({**content, **sections}))


def served(workspace: Path, in_place: bool = False) -> dict[str, Any]:
    """By tag."""
    found = deployments(workspace, load_params(workspace).serve, in_place)
    return {one.tags[0]: one for one in found}


def when(deployment: Any) -> list[Any]:
    assert all(one.active is not False for one in deployment.schedules or [])
    return [getattr(one.schedule, "cron", None) or one.schedule.interval for one in deployment.schedules or []]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (None, timedelta(days=1)),
        ({}, timedelta(days=1)),
        ({"every_s": 7200}, timedelta(hours=2)),
        ({"cron": "0 2 * * 1-5"}, "0 2 * * 1-5"),
        ({"every_s": 7200, "cron": "0 2 * * *"}, "0 2 * * *"),
    ],
)
def test_schedules_are_those_of_the_parameters(tmp_path: Path, section: dict[str, Any] | None, expected: Any) -> None:
    write_params(tmp_path, inbox={"every_s": 45}, **({} if section is None else {"serve": section}))
    found = served(tmp_path)
    assert {tag: when(one) for tag, one in found.items()} == {
        "training": [expected], "promotion": [], "inbox": [timedelta(seconds=45)],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("every_s", "cron", "expected"),
    [
        (None, None, "cron 0 2 * * *"),
        (60, None, "every 60 s"),
        (None, "*/5 * * * *", "cron */5 * * * *"),
        (60, "*/5 * * * *", "cron */5 * * * *"),
    ],
)
def test_the_command_line_wins(every_s: int | None, cron: str | None, expected: str) -> None:
    assert ServeConfig(every_s=7200, cron="0 2 * * *").overridden(every_s, cron).words == expected


@pytest.mark.parametrize(
    ("every_s", "cron", "option"), [(0, None, "--interval"), (None, "at night", "--cron"), (None, "", "--cron")]
)
def test_what_is_no_schedule_is_refused(every_s: int | None, cron: str | None, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        ServeConfig().overridden(every_s, cron)


def test_a_schedule_is_no_concern_of_a_stage(tmp_path: Path) -> None:
    write_params(tmp_path)
    before = pipeline_text(tmp_path)
    write_params(tmp_path, serve={"every_s": 60})
    assert pipeline_text(tmp_path) == before
    stages = yaml.safe_load(before)["stages"]
    assert [name for name, entry in stages.items() if any("serve" in one for one in entry["params"])] == []


@pytest.mark.parametrize("in_place", [False, True])
def test_one_run_at_a_time_and_the_inbox_starts_the_training_that_is_served(tmp_path: Path, in_place: bool) -> None:
    write_params(tmp_path, inbox={})
    found = served(tmp_path, in_place)
    assert {tag: one.flow_name for tag, one in found.items()} == {
        "training": "training" if in_place else "training-in-clone", "promotion": "promotion", "inbox": "inbox",
    }  # fmt: skip
    for one in found.values():
        assert one.concurrency_limit == 1
        assert one.concurrency_options.collision_strategy == "CANCEL_NEW"
    training = found["training"]
    assert found["inbox"].parameters["training"] == f"{training.flow_name}/{training.name}"
    write_params(tmp_path)
    assert set(served(tmp_path)) == {"training", "promotion"}


def test_a_work_pool_gets_the_same_deployments(tmp_path: Path) -> None:
    write_params(tmp_path, inbox={})
    found = served(tmp_path)
    assert set(found) == set(WRITTEN)
    for tag, one in found.items():
        written = WRITTEN[tag]
        file, _, function = written["entrypoint"].partition(":")
        assert one.entrypoint.replace(".", "/") == f"{file.removesuffix('.py')}/{function}"
        limit = written["concurrency_limit"]
        assert (limit["limit"], limit["collision_strategy"], limit["grace_period_seconds"]) == (
            one.concurrency_limit, one.concurrency_options.collision_strategy,
            one.concurrency_options.grace_period_seconds,
        )  # fmt: skip
        assert [timedelta(seconds=each["interval"]) for each in written.get("schedules", [])] == when(one)
    # schedules wait to be switched on
    assert not any(each["active"] for one in WRITTEN.values() for each in one.get("schedules", []))
    training = f"{found['training'].flow_name}/training"
    assert WRITTEN["inbox"]["parameters"]["training"] == training


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@l", *arguments], cwd=folder, check=True)


def test_without_what_a_clone_needs_it_is_said_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def refusal() -> str:
        with pytest.raises(ConfigError) as caught:
            check_commit(tmp_path, load_params(tmp_path))
        # what is at fault, and one sentence
        where, sentence = str(caught.value).splitlines()
        assert where == "serve: 1 fault"
        assert "commit params.yaml" in sentence
        assert "--in-place" in sentence
        return sentence

    write_params(tmp_path)
    params = load_params(tmp_path)
    for name in ("dvc.yaml", ".dvc/config", "data.dvc", "data/image", f"{params.plan.source}/card.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".gitignore").write_text("/data/")
    assert "not the root of a git repository with a commit" in refusal()
    git(tmp_path, "init", "-q")
    assert "not the root of a git repository with a commit" in refusal()
    git(tmp_path, "add", PARAMS_FILE, "dvc.yaml")
    git(tmp_path, "commit", "-qm", "x")
    assert f"no commit holds .dvc/config, data.dvc, {params.plan.source};" in refusal()
    git(tmp_path, "add", "data.dvc", ".dvc/config")
    git(tmp_path, "commit", "-qm", "y")
    assert f"no commit holds {params.plan.source};" in refusal()
    # staged is not committed
    git(tmp_path, "add", "--all")
    assert f"no commit holds {params.plan.source};" in refusal()
    git(tmp_path, "commit", "-qm", "z")
    check_commit(tmp_path, params)
    # a folder of somebody's repository is not what would be cloned
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in (PARAMS_FILE, "dvc.yaml"):
        (inner / name).write_text("")
    git(tmp_path, "add", "inner")
    git(tmp_path, "commit", "-qm", "a folder in it")
    with pytest.raises(ConfigError, match="not the root"):
        check_commit(inner, params)
    monkeypatch.setenv("PATH", str(inner))
    assert "git is not installed" in refusal()


def test_a_workspace_whose_flows_are_older_is_told_what_to_copy(tmp_path: Path) -> None:
    serve.check_flows(ROOT)
    (tmp_path / "flows").mkdir()
    with pytest.raises(ConfigError, match=r"flows/clock\.py is not there.*copy what is missing.*flows"):
        serve.check_flows(tmp_path)
