"""DVC remotes, an S3 server among them: pushed, pulled, and cut in the middle; what is whole is known to be."""

from __future__ import annotations

import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flaky_proxy import Line, line_to
from workspaces import ROOT, Place, free_port, until

from flows import remotes
from monai_tl.errors import ConfigError

pytestmark = pytest.mark.pipeline

BUCKET = "studies"
FILES = {f"study-{number}/image": random.Random(number).randbytes(200_000) for number in range(8)}


@dataclass
class Remote:
    """A workspace whose default remote lies behind a line that can be cut."""

    place: Place
    line: Line
    server: str

    def objects(self) -> dict[str, int]:
        """Of the bucket, asked of the server itself: name → size."""
        import boto3

        client = boto3.client("s3", endpoint_url=self.server, region_name="us-east-1")
        listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {one["Key"]: one["Size"] for one in listed}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
           "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true", "DVC_NO_ANALYTICS": "1"}  # fmt: skip
    for name, value in own.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def remote(tmp_path: Path, environment: None) -> Iterator[Remote]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: _answers(port) or process.poll() is not None, 60, "the S3 server answers")
        with line_to(port) as line:
            yield Remote(_workspace(tmp_path / "ws", line.port), line, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request")
        return bool(urllib.request.urlopen(request, timeout=2).status == 200)
    except OSError:
        return False


def _workspace(folder: Path, port: int) -> Place:
    folder.mkdir()
    place = Place(folder, ROOT)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    place.run("dvc", "init", "-q")
    place.run("dvc", "remote", "add", "-q", "--default", "store", f"s3://{BUCKET}/dvc")
    place.run("dvc", "remote", "modify", "store", "endpointurl", f"http://127.0.0.1:{port}")
    for name, content in FILES.items():
        (folder / "data" / name).parent.mkdir(parents=True)
        (folder / "data" / name).write_bytes(content)
    place.run("dvc", "add", "-q", "data")
    place.commit("Data")
    return place


@pytest.mark.long
def test_a_cut_transfer_is_told_and_the_next_one_ends_it(remote: Remote, tmp_path: Path) -> None:
    place, line = remote.place, remote.line
    line.left = 500_000
    with pytest.raises(ConfigError, match="dvc push"):
        remotes.push_data(place.folder, pauses_s=())
    # what has come over is whole
    assert all(size == 200_000 or name.endswith(".dir") for name, size in remote.objects().items())
    assert len(remote.objects()) < len(FILES) + 1
    line.left = None
    assert remotes.push_data(place.folder)
    assert len(remote.objects()) == len(FILES) + 1
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(place.folder), str(other)], check=True)
    line.left = 700_000
    with pytest.raises(ConfigError, match="dvc pull"):
        remotes.bring_data(other, pauses_s=())
    there = [path for path in (other / "data").rglob("*") if path.is_file()]
    assert all(path.read_bytes() == FILES[str(path.relative_to(other / "data"))] for path in there)
    line.left = None
    remotes.bring_data(other)
    assert {name: (other / "data" / name).read_bytes() for name in FILES} == FILES
    before = line.n_passed
    assert remotes.push_data(other)
    # nothing goes twice
    assert line.n_passed - before < 100_000


def test_a_remote_that_cannot_be_reached_is_told(remote: Remote) -> None:
    remote.line.left = 0
    told: list[str] = []
    with pytest.raises(ConfigError) as caught:
        remotes.push_data(remote.place.folder, told.append, pauses_s=(0.1,))
    assert "dvc push" in str(caught.value)
    assert len(told) == 1


def test_a_line_that_was_cut_once_costs_no_run(remote: Remote, tmp_path: Path) -> None:
    place, line = remote.place, remote.line
    told: list[str] = []

    def mend(words: str) -> None:
        told.append(words)
        line.left = None

    line.left = 500_000
    assert remotes.push_data(place.folder, mend, pauses_s=(0.1, 0.1))
    assert [words.split(" did not")[0] for words in told] == ["dvc push"]
    # eight files and the list of them, each whole
    assert len(remote.objects()) == len(FILES) + 1
    assert all(size == 200_000 or name.endswith(".dir") for name, size in remote.objects().items())
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(place.folder), str(other)], check=True)
    line.left = 700_000
    remotes.bring_data(other, mend, pauses_s=(0.1, 0.1))
    assert [words.split(" did not")[0] for words in told] == ["dvc push", "dvc pull"]
    assert {name: (other / "data" / name).read_bytes() for name in FILES} == FILES


def test_what_stays_wrong_is_tried_once(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    place, told = remote.place, []
    place.run("dvc", "remote", "modify", "store", "url", "s3://there-is-no-such-bucket/dvc")
    with pytest.raises(ConfigError, match="bucket"):
        remotes.push_data(place.folder, told.append)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(ConfigError, match="credentials"):
        remotes.push_data(place.folder, told.append)
    assert told == []


def test_without_a_remote_nothing_is_pushed_and_a_local_one_takes_it(tmp_path: Path, environment: None) -> None:
    place = _workspace(tmp_path / "ws", 9)
    place.run("dvc", "remote", "remove", "store")
    assert not remotes.push_data(place.folder)
    place.run("dvc", "remote", "add", "-q", "--default", "shelf", str(tmp_path / "shelf"))
    assert remotes.push_data(place.folder)
    place.commit("A remote")
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(place.folder), str(other)], check=True)
    remotes.bring_data(other)
    assert {name: (other / "data" / name).read_bytes() for name in FILES} == FILES
    # a part of the data is not the data
    lost = other / "data/study-3/image"
    lost.unlink()
    for path in (other / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes() == FILES["study-3/image"]:
            path.chmod(0o644)
            path.unlink()
    remotes.bring_data(other)
    assert lost.read_bytes() == FILES["study-3/image"]
