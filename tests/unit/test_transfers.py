"""Which failures of a transfer are tried again: what may be otherwise in a minute, and nothing else.

The sentences are written as DVC 3.67 and the libraries below it (botocore, aiohttp, requests, paramiko) write them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import remotes, versioning
from flows.remotes import can_pass
from monai_tl.errors import ConfigError

URL = '"http://127.0.0.1:33921/studies/dvc/files/md5/dd/2c00c0341c24e55732d3d816a43d5f"'
PASSES = (
    f"failed to transfer 'dd2c' - Connection was closed before we received a valid response from endpoint URL: {URL}",
    f"unexpected error - Could not connect to the endpoint URL: {URL}",
    f"unexpected error - Connect timeout on endpoint URL: {URL}",
    f"unexpected error - Read timeout on endpoint URL: {URL}",
    "unexpected error - [Errno 104] Connection reset by peer",
    "unexpected error - [Errno 110] Connection timed out",
    "unexpected error - [Errno 101] Network is unreachable",
    "unexpected error - [Errno 113] No route to host",
    "unexpected error - [Errno -3] Temporary failure in name resolution",
    "unexpected error - Server disconnected",
    "unexpected error - Response payload is not completed",
    "unexpected error - IncompleteRead(512 bytes read, 1024 more expected)",
    "An error occurred (SlowDown) when calling the PutObject operation: Please reduce your request rate.",
    "An error occurred (503) when calling the HeadObject operation: Service Unavailable",
    "An error occurred (InternalError) when calling the PutObject operation (reached max retries: 4)",
    "another DVC command works in this workspace; wait for it to end, then run again",
)
STAYS = (
    "unexpected error - The specified bucket does not exist: An error occurred (NoSuchBucket)",
    "unexpected error - Unable to locate credentials",
    "unexpected error - Forbidden: An error occurred (403) when calling the HeadObject operation: Forbidden",
    "An error occurred (InvalidAccessKeyId) when calling the ListObjectsV2 operation",
    "An error occurred (SignatureDoesNotMatch) when calling the ListObjectsV2 operation",
    "An error occurred (AccessDenied) when calling the PutObject operation: Access Denied",
    "failed to push data to the cloud - config file error: no remote specified in /srv/ws. Setup default remote with",
    "failed to pull data from the cloud - Checkout failed for following targets: data Is your cache up to date?",
    "unexpected error - [Errno 28] No space left on device",
    # of a cut line, but the credentials are what must be mended
    f"Could not connect to the endpoint URL: {URL}\nUnable to locate credentials",
    # words in names, and counts, say nothing
    "failed to push data to the cloud - 503 files failed to upload",
    "output '/srv/connection reset/timeout' does not exist",
    "unexpected error - s3://timeout-unreachable/timed-out is no folder",
)


@pytest.mark.parametrize("words", PASSES)
def test_what_can_pass(words: str) -> None:
    assert can_pass(f"dvc push: 1 fault\n  ERROR: {words}")


@pytest.mark.parametrize("words", STAYS)
def test_what_stays_as_it_is(words: str) -> None:
    assert not can_pass(f"dvc push: 1 fault\n  ERROR: {words}")


def test_a_name_that_holds_a_word_of_refusal_is_still_tried_again() -> None:
    assert can_pass('Could not connect to the endpoint URL: "https://s3.example/denied/forbidden"')


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """DVC's commands, of which each push fails by the network."""
    asked: list[list[str]] = []

    def run_alone(arguments: list[str], workspace: Path) -> list[str]:
        asked.append(arguments)
        if arguments[0] == "push":
            raise ConfigError(PASSES[0], "dvc push")
        return ["core.remote=store"]

    monkeypatch.setattr(versioning, "run_alone", run_alone)
    return asked


def test_tries_are_few_with_pauses_that_grow(
    failing: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waited: list[float] = []
    told: list[str] = []
    monkeypatch.setattr(remotes.time, "sleep", waited.append)
    with pytest.raises(ConfigError, match="Connection was closed"):
        remotes.push_data(tmp_path, told.append)
    assert [one[0] for one in failing] == ["config", "push", "push", "push", "push"]
    assert waited == list(remotes.PAUSES_S) == sorted(waited)
    assert sum(waited) < 60
    assert len(told) == 3
    # the log of a run holds no address of a remote
    assert not any("127.0.0.1" in words for words in told)
