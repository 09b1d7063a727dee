"""What the environment of a server and of a worker must hold is there, by ``monai-tl serve`` and by compose.yaml."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from compose_file import ROOT, compose

from monai_tl.commands.serve import server_environment

CLOSED = {
    "PREFECT_SERVER_API_AUTH_STRING": r"[^:]+:.{8,}",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": r"https?://[^*]+",
    "PREFECT_SERVER_UI_API_URL": r"https?://[^*]+/api",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": r"prefect\.server\.concurrency\.lease_storage\.filesystem",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "20",
    "DO_NOT_TRACK": "1",
}
CLIENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_API_URL": r"https?://.+/api",
    "PREFECT_API_AUTH_STRING": r"[^:]+:.{8,}",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}
OF_A_WORKER = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "MONAI_TL_WORKSPACE": "/.+", "PYTHONPATH": "/.+"}
"""Under ``monai-tl serve`` the flows set these themselves, or need none."""
SERVICES = compose()["services"]


def faults(environment: dict[str, object], wanted: dict[str, str]) -> list[str]:
    return [name for name, rule in wanted.items() if not re.fullmatch(rule, str(environment.get(name, "")))]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("PREFECT_") or name == "DO_NOT_TRACK"]:
        monkeypatch.delenv(name)
    return server_environment(tmp_path, 4300)


def test_serve_has_it_all_for_the_server_and_its_clients(served: dict[str, str]) -> None:
    assert faults(dict(served), {**CLOSED, **CLIENT}) == []


def test_the_services_of_compose_have_it_all() -> None:
    assert faults(SERVICES["server"]["environment"], CLOSED) == []
    for name in ("setup", "gpu-worker", "cpu-worker"):
        assert faults(SERVICES[name]["environment"], {**CLIENT, **OF_A_WORKER}) == [], name
    # what the workers say is what the server asks for
    assert (
        SERVICES["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
        == SERVICES["gpu-worker"]["environment"]["PREFECT_API_AUTH_STRING"]
    )


@pytest.mark.parametrize("name", sorted({**CLOSED, **CLIENT}))
def test_a_setting_that_is_left_out_or_another_is_seen(served: dict[str, str], name: str) -> None:
    wanted = {**CLOSED, **CLIENT}
    assert faults({key: value for key, value in served.items() if key != name}, wanted) == [name]
    assert faults({**served, name: "*"}, wanted) == [name]


def test_the_page_lists_all_of_it_and_nothing_else() -> None:
    text = (ROOT / "docs/how-to/service.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)=([^`]+)` \| ([\w, ]+) \|", text, re.MULTILINE)
    of = {who: {name: value for name, value, whose in rows if who in whose} for who in ("server", "worker")}
    assert set(of["server"]) == set(CLOSED)
    assert set(of["worker"]) == {*CLIENT, *OF_A_WORKER}
    assert faults(dict(of["server"]), CLOSED) == faults(dict(of["worker"]), {**CLIENT, **OF_A_WORKER}) == []
