"""compose.yaml by the Compose Specification, and by what a service beside patients' data must be."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compose_file import GIVEN, ROOT, MissingError, compose
from compose_spec import PyCompose

from monai_tl import __version__
from monai_tl.commands import serve

SERVICES = compose()["services"]
WORKERS = ("gpu-worker", "cpu-worker")


def test_it_is_valid_by_the_specification() -> None:
    parsed = json.loads(PyCompose.from_json(json.dumps(compose())).to_json())
    assert set(parsed["services"]) == {"database", "server", "setup", "gpu-worker", "cpu-worker", "orthanc"}


@pytest.mark.parametrize(
    "fault", [{"imagee": "x"}, {"healthcheck": {"tset": ["CMD", "x"]}}, {"depends_on": {"a": {"condition": "perhaps"}}}]
)
def test_what_checks_it_sees_faults(fault: dict[str, Any]) -> None:
    content = compose()
    content["services"]["server"] |= fault
    with pytest.raises(ValueError):
        PyCompose.from_json(json.dumps(content))


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_nothing_that_must_be_given_has_a_default(name: str) -> None:
    with pytest.raises(MissingError, match=f"{name}: set it to"):
        compose({key: value for key, value in GIVEN.items() if key != name})


def test_no_password_is_written_down() -> None:
    text = (ROOT / "compose.yaml").read_text() + (ROOT / "docker/orthanc.json").read_text()
    for line in text.splitlines():
        found = re.search(r'(?:PASSWORD|AUTH)\w*"?: (.*)$', line)
        if found:
            assert "${" in found[1], line
    assert json.loads((ROOT / "docker/orthanc.json").read_text())["RegisteredUsers"] == {"inbox": "${ORTHANC_PASSWORD}"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_bound(name: str) -> None:
    service = SERVICES[name]
    user = service["user"].split(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    image, _, version = service["image"].partition(":")
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-\w+)?", version), service["image"]
    if image.startswith("monai_tl"):
        assert version == __version__
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    # one that ends by itself is judged by its exit status
    assert ("healthcheck" in service) != (service["restart"] == "on-failure")


@pytest.mark.parametrize(("service", "file"), [("server", "Dockerfile"), ("orthanc", "docker/orthanc.Dockerfile")])
def test_images_end_as_the_user_that_the_service_runs_as(service: str, file: str) -> None:
    build = SERVICES[service]["build"]
    assert build == "." if file == "Dockerfile" else build["dockerfile"] == file
    users = re.findall(r"^USER (\S+)$", (ROOT / file).read_text(), flags=re.MULTILINE)
    assert users[-1] == SERVICES[service]["user"].split(":")[0]
    (base,) = re.findall(r"^FROM (\S+)", (ROOT / file).read_text(), flags=re.MULTILINE)
    assert re.search(r":\d+\.\d+", base), base


def test_each_waits_for_what_it_needs() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert {name: {key: value["condition"] for key, value in found.items()} for name, found in waits.items()} == {
        "database": {}, "orthanc": {}, "server": {"database": "service_healthy"},
        "setup": {"server": "service_healthy"}, "gpu-worker": {"setup": "service_completed_successfully"},
        "cpu-worker": {"setup": "service_completed_successfully"},
    }  # fmt: skip


def test_the_work_pools_are_those_of_the_deployments() -> None:
    import yaml

    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    pools = {one["name"]: one["work_pool"]["name"] for one in written}
    assert pools == {"training": "gpu", "inbox": "cpu", "promotion": "cpu"}
    commands = [SERVICES[name]["command"] for name in WORKERS]
    # one worker for each pool, and each pool is made before the deployments that name it
    assert [command[command.index("--pool") + 1] for command in commands] == ["gpu", "cpu"]
    steps = [step.split() for step in SERVICES["setup"]["command"][2].split(" && ")]
    made = [step[-1] for step in steps if step[:3] == ["prefect", "work-pool", "create"] and "--overwrite" in step]
    assert sorted(made) == sorted(set(pools.values()))
    assert steps[-1] == ["prefect", "--no-prompt", "deploy", "--all"]


def test_workers_of_one_machine_take_turns_at_its_gpu() -> None:
    """The limit is one a host name, and of a container that is the container's own unless it is given."""
    assert len({SERVICES[name]["hostname"] for name in WORKERS}) == 1


def test_the_lock_of_a_killed_server_does_not_outlive_it(tmp_path: Path) -> None:
    """Prefect asks whether its process id lives: in a container the next server has the same one."""
    lock, lease = (tmp_path / "concurrency_leases" / name for name in ("expirations.lock", "expirations.json"))
    lock.parent.mkdir()
    lock.write_text("7")
    lease.write_text("{}")
    entrypoint = [part.replace("$$", "$") for part in SERVICES["server"]["entrypoint"]]
    environment = {"PATH": os.environ["PATH"], "PREFECT_HOME": str(tmp_path)}
    done = subprocess.run([*entrypoint, "echo", "prefect", "a b"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "prefect a b\n")
    assert not lock.exists()
    assert lease.exists()


def test_monai_tl_serve_drops_it_too_but_not_in_a_folder_of_others(tmp_path: Path) -> None:
    homes = tmp_path / ".monai_tl/prefect", tmp_path / "of_others"
    for home in homes:
        (home / "concurrency_leases").mkdir(parents=True)
        (home / "concurrency_leases/expirations.lock").write_text("7")
        serve.drop_lock_of_dead(tmp_path, {"PREFECT_HOME": str(home)})
    assert [(home / "concurrency_leases/expirations.lock").exists() for home in homes] == [False, True]
    serve.drop_lock_of_dead(tmp_path, {"PREFECT_HOME": str(homes[0])})
