"""A real PACS for tests: Orthanc with its DICOMweb plug-in on a loopback port, with a storage of its own."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from required import missing
from workspaces import free_port, until

AUTH = "tester:geheim"
REQUIRED = "MONAI_TL_REQUIRE_ORTHANC"
"""In the environment where a missing Orthanc is a fault, as in the gate."""
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def find_orthanc() -> str:
    """Its program; where it is not installed the test is skipped, or fails with REQUIRED."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if found is None or not PLUGIN.is_file():
        missing("Orthanc with DICOMweb is not installed (Debian: orthanc and orthanc-dicomweb)", REQUIRED)
    return found


@dataclass
class Orthanc:
    """A running one, by its own REST interface: another way in than the one under test."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def call(self, path: str, content: bytes | None = None, method: str | None = None) -> Any:
        token = base64.b64encode(AUTH.encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", content, {"Authorization": f"Basic {token}"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def put(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self.call("/instances", path.read_bytes())

    def instances(self, modality: str) -> list[dict[str, Any]]:
        """All tags of all instances of a modality."""
        found = []
        for name in self.call("/instances"):
            tags = self.call(f"/instances/{name}/simplified-tags")
            if tags["Modality"] == modality:
                found.append(tags)
        return found


def orthanc_command(folder: Path, port: int, **settings: Any) -> list[str]:
    """Write its configuration; the command line that starts it.

    Args:
        folder: For its configuration and storage.
        port: Of its REST interface and DICOMweb.
        **settings: Into its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, password = AUTH.split(":")
    content = {
        "Name": "test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {name: password}, "Plugins": [str(PLUGIN)], "HttpThreadsCount": 4,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, **settings,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(content))
    return [find_orthanc(), str(folder / "orthanc.json")]


@contextmanager
def orthanc_in(folder: Path, port: int = 0, **settings: Any) -> Iterator[Orthanc]:
    """Start it, or start it again on what it has stored there.

    Args:
        folder: For its configuration, storage and log.
        port: 0 takes a free one.
        **settings: Into its configuration.
    """
    port = port or free_port()
    command = orthanc_command(folder, port, **settings)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    running = Orthanc(port)
    try:
        until(lambda: process.poll() is not None or _answers(running), 60, "Orthanc answers")
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield running
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(running: Orthanc) -> bool:
    try:
        return bool(running.call("/system"))
    except (OSError, urllib.error.URLError):
        return False
