"""What compose.yaml says, done here without an engine: the server on PostgreSQL, the PACS, and their health checks."""

from __future__ import annotations

import base64
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from compose_file import GIVEN, ROOT, compose
from orthanc import find_orthanc
from required import missing
from workspaces import free_port, until

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

SERVICES = compose()["services"]
KEPT = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MONAI_TL"))}


def status(url: str, password: str = "") -> int:
    token = base64.b64encode(password.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"} if password else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def is_healthy(service: str, ports: Mapping[str, int]) -> bool:
    """Its own health check, at the ports that were free here."""
    command = list(SERVICES[service]["healthcheck"]["test"][1:])
    for inside, here in ports.items():
        command = [part.replace(inside, str(here)) for part in command]
    command[0] = shutil.which(command[0], path=f"{Path(sys.executable).parent}:{KEPT['PATH']}") or command[0]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def database(log: Path) -> Iterator[int]:
    """PostgreSQL with the user, database and password of compose.yaml; never as root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or not (programs[-1] / "initdb").is_file():
        missing("PostgreSQL is not installed (Debian: postgresql)", "MONAI_TL_REQUIRE_POSTGRESQL")
    wanted, port = SERVICES["database"]["environment"], free_port()
    # pytest's own folders are closed to other users
    folder = Path(tempfile.mkdtemp(prefix="monai-tl-postgres-"))
    secret = folder / "password"
    secret.write_text(wanted["POSTGRES_PASSWORD"])
    as_user: dict[str, Any] = {"cwd": folder}
    try:
        if os.getuid() == 0:
            if "postgres" not in [one.pw_name for one in pwd.getpwall()]:
                pytest.skip("there is no user postgres")
            owner = pwd.getpwnam("postgres")
            as_user |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            for path in (folder, secret):
                shutil.chown(path, owner.pw_uid, owner.pw_gid)
        options = ["-U", wanted["POSTGRES_USER"], "--auth=scram-sha-256", f"--pwfile={secret}"]
        made = [str(programs[-1] / "initdb"), "-D", str(folder / "cluster"), *options]
        done = subprocess.run(made, capture_output=True, text=True, check=False, **as_user)
        assert done.returncode == 0, done.stdout + done.stderr
        command = [str(programs[-1] / "postgres"), "-D", str(folder / "cluster"), "-p", str(port), "-k", str(folder)]
        with running(command, log, **as_user):
            environment = {**KEPT, "PGPASSWORD": wanted["POSTGRES_PASSWORD"]}
            create = [str(programs[-1] / "createdb"), "-h", "127.0.0.1", "-p", str(port)]
            create += ["-U", wanted["POSTGRES_USER"], wanted["POSTGRES_DB"]]
            until(lambda: subprocess.run(create, env=environment, capture_output=True).returncode == 0, 60, "it is up")
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_server_runs_on_postgresql_and_asks_for_its_password(tmp_path: Path) -> None:
    with database(tmp_path / "postgres.log") as port:
        wanted = {name: str(value) for name, value in SERVICES["server"]["environment"].items()}
        here = free_port()
        wanted |= {"PREFECT_SERVER_DATABASE_HOST": "127.0.0.1", "PREFECT_SERVER_DATABASE_PORT": str(port)}
        url = f"http://127.0.0.1:{here}/api"
        wanted |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": url}
        wanted |= {"PATH": f"{Path(sys.executable).parent}:{KEPT['PATH']}"}
        here_instead = {"python": sys.executable, "0.0.0.0": "127.0.0.1", "4200": str(here)}
        command = [here_instead.get(one, one) for one in SERVICES["server"]["command"]]
        # the image's working folder is the repository, as the Dockerfile copies it
        with running(command, tmp_path / "server.log", env={**KEPT, **wanted}, cwd=ROOT) as process:
            until(lambda: status(f"{url}/health") == 200 or process.poll() is not None, 120, "the server answers")
            assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            assert is_healthy("server", {"4200": here})
            assert status(f"{url}/admin/version") == 401
            assert status(f"{url}/admin/version", GIVEN["MONAI_TL_AUTH"]) == 200
            # what the one-shot service does first
            client = {**KEPT, **{name: str(value) for name, value in SERVICES["setup"]["environment"].items()}}
            client |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "client"), "PYTHONPATH": str(ROOT)}
            client["PATH"] = f"{Path(sys.executable).parent}:{KEPT['PATH']}"
            pool = SERVICES["setup"]["command"][2].partition(" && prefect --no-prompt")[0]
            for _ in range(2):
                done = subprocess.run(pool, shell=True, env=client, cwd=tmp_path, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
        assert not is_healthy("server", {"4200": here})
    assert not (tmp_path / "prefect/prefect.db").exists()


def test_the_pacs_asks_for_its_password(tmp_path: Path) -> None:
    program, port = find_orthanc(), free_port()
    text = (ROOT / "docker/orthanc.json").read_text()
    (tmp_path / "orthanc.json").write_text(re.sub(r'"HttpPort": \d+', f'"HttpPort": {port}', text))
    (tmp_path / "data").mkdir()
    wanted = {**SERVICES["orthanc"]["environment"], "ORTHANC_DATA": str(tmp_path / "data")}
    command = [program, str(tmp_path / "orthanc.json")]
    with running(command, tmp_path / "orthanc.log", env={**KEPT, **wanted}) as process:
        until(lambda: is_healthy("orthanc", {"8042": port}) or process.poll() is not None, 60, "Orthanc answers")
        url = f"http://127.0.0.1:{port}/dicom-web/studies"
        assert status(url) == 401
        assert status(url, f"inbox:{GIVEN['ORTHANC_PASSWORD']}") == 200
        assert status(url, "inbox:orthanc") == 401
    assert any((tmp_path / "data").iterdir())
