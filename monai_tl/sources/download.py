"""A file over HTTP: resumed after a cut, checked while it comes, whole or absent."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monai_tl.errors import SourceError, WeightsError

_CHUNK = 1 << 20
_SCHEMES = ("http", "https")
_FINAL = (400, 401, 403, 404, 405, 410, 451)
"""Answers that another try will not change."""
_RANGE = re.compile(r"bytes ([0-9]{1,18})-\d+/(?:\d+|\*)")


@dataclass(frozen=True)
class Patience:
    """How long to wait.

    Attributes:
        timeout_s: For an answer, and for each part of it.
        n_tries: In all; each goes on where the last one stopped.
        pause_s: Before the second try; doubled each time.
        max_bytes: A larger file is refused.
    """

    timeout_s: float = 30.0
    n_tries: int = 4
    pause_s: float = 1.0
    max_bytes: int = 4 << 30


@dataclass(frozen=True)
class Fetched:
    """What came: hashes and size."""

    sha1: str
    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class Expected:
    """Checksums that a file must have, lower-case hex.

    Attributes:
        sha1: As published.
        sha256: As published, or of a file that was looked at before; None where there is none.
    """

    sha1: str
    sha256: str | None = None

    def find_difference(self, found: Fetched) -> str | None:
        """What a file has instead, in words; None where it is the one."""
        if found.sha1 != self.sha1:
            return f"sha1 {found.sha1[:12]}…, published is {self.sha1[:12]}…"
        if self.sha256 is not None and found.sha256 != self.sha256:
            return f"the sha1 that is published, but sha256 {found.sha256[:12]}…, expected is {self.sha256[:12]}…"
        return None


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web alone: an answer must not make this machine read its own files."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in _SCHEMES or (old == "https" and new != "https"):
            raise SourceError(
                f"{_plain(req.full_url)}: redirects to a place off the web ({new}), which is not followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str, out: Path, expected: Expected, patience: Patience, tell: Callable[[int, int | None], None]
) -> Fetched:
    """Download a file whose checksums are known.

    What has come is kept beside ``out`` under a name with the checksum, and the next call goes on from there.

    Args:
        url: http or https.
        out: Must not exist; written only when the checksums agree.
        expected: Checksums.
        patience: Limits.
        tell: Called with the bytes that came and those expected (None: not known).

    Raises:
        SourceError: The address cannot be reached or has no such file; says what to do.
        WeightsError: What came is not what was expected.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise SourceError(f"{_plain(url)}: is no http or https address; give a folder as --index for files at hand")
    part = part_of(out, expected)
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_one(out):
        # all of it may be there, where the last pull ended just before it was given its name
        if not (part.is_file() and expected.find_difference(hash_file(part)) is None):
            _fetch_part(url, part, patience, tell)
        return accept(part, out, expected, _plain(url))


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the place of a file against other processes that would fill it too; ends with this process at the latest.

    Raises:
        SourceError: Another one is at it, or has been done with it since.
    """
    place = out.with_name(f".{out.name}.lock")
    with place.open("ab") as stream:
        busy = f"{out}: is being pulled by another process; wait until it is done"
        # file systems that know no locks are no reason to pull nothing
        with suppress(OSError):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SourceError(busy) from None
        # whoever was first has removed the file that is locked here, so it locks nothing any more
        if not place.exists() or place.stat().st_ino != os.fstat(stream.fileno()).st_ino:
            raise SourceError(busy)
        try:
            if out.exists():
                raise SourceError(f"{out} has appeared meanwhile and is not replaced; pull again to check it")
            yield
        finally:
            place.unlink(missing_ok=True)


def _fetch_part(url: str, part: Path, patience: Patience, tell: Callable[[int, int | None], None]) -> None:
    """All of a file, tried again and again; what came of it is kept."""
    opener = urllib.request.build_opener(_HttpOnly)
    pause = patience.pause_s
    for attempt in range(1, patience.n_tries + 1):
        try:
            _continue(opener, url, part, patience, tell)
            return
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                # more is here than there is: another file had this part's name
                part.unlink(missing_ok=True)
            if error.code < http.client.BAD_REQUEST:
                # urllib itself follows none but http, https and ftp
                raise SourceError(f"{_plain(url)}: redirects to a place off the web, which is not followed") from None
            reason = f"answers {error.code} {error.reason}"
            if error.code in _FINAL or attempt == patience.n_tries:
                raise SourceError(_unreachable(url, reason, part)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            if attempt == patience.n_tries:
                raise SourceError(_unreachable(url, reason, part)) from None
        time.sleep(pause)
        pause *= 2


def part_of(out: Path, expected: Expected) -> Path:
    """Where what came of a file is kept until it is whole."""
    return out.with_name(f".{out.name}.{expected.sha1[:16]}.part")


def accept(part: Path, out: Path, expected: Expected, origin: str) -> Fetched:
    """Give a file its name if it is what was expected, else remove it.

    Raises:
        WeightsError: It is not.
    """
    found = hash_file(part)
    difference = expected.find_difference(found)
    if difference is not None:
        part.unlink()
        raise WeightsError(
            f"{origin}: what came has {difference}; nothing is kept. Try again, and if it comes again do not use this "
            "file"
        )
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    # a link fails where a rename would replace a file that came in the meantime
    try:
        os.link(part, out)
    except FileExistsError:
        raise SourceError(
            f"{out} has appeared meanwhile and is not replaced; remove it, or give another folder"
        ) from None
    except OSError:
        # file systems without links, as on sticks and shares; the lock keeps other pulls away
        part.rename(out)
        return found
    part.unlink()
    return found


def hash_file(path: Path) -> Fetched:
    """Both hashes of a file, in one reading."""
    one, two, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            one.update(chunk)
            two.update(chunk)
            size += len(chunk)
    return Fetched(one.hexdigest(), two.hexdigest(), size)


def _continue(
    opener: urllib.request.OpenerDirector,
    url: str,
    part: Path,
    patience: Patience,
    tell: Callable[[int, int | None], None],
) -> None:
    """Bring the part to its full length.

    Raises:
        OSError: The connection broke.
        SourceError: The file is larger than allowed.
    """
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "monai-tl", "Accept-Encoding": "identity"})  # noqa: S310 - checked
    if there:
        request.add_header("Range", f"bytes={there}-")
    with opener.open(request, timeout=patience.timeout_s) as answer:
        found = _RANGE.match(answer.headers.get("Content-Range", ""))
        # a server without ranges sends everything again
        start = int(found[1]) if answer.status == http.client.PARTIAL_CONTENT and found else 0
        if start > there:
            raise SourceError(f"{_plain(url)}: sends another part than was asked for; try another address")
        there = start
        length = answer.headers.get("Content-Length")
        expected = there + int(length) if length and length.isdigit() else None
        if expected is not None and expected > patience.max_bytes:
            raise SourceError(f"{_plain(url)}: has {expected} bytes, more than the {patience.max_bytes} allowed")
        with part.open("r+b" if there else "wb") as stream:
            stream.seek(there)
            # what has come, not a full chunk: it is kept when the rest does not come
            while chunk := answer.read1(_CHUNK):
                stream.write(chunk)
                there += len(chunk)
                if there > patience.max_bytes:
                    raise SourceError(f"{_plain(url)}: sends more than the {patience.max_bytes} bytes allowed")
                tell(there, expected)
            stream.truncate()
    if expected is not None and there < expected:
        raise ConnectionError(f"the connection ended after {there} of {expected} bytes")


def _plain(url: str) -> str:
    """An address without what may be a secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _unreachable(url: str, reason: str, part: Path) -> str:
    kept = f"; {part.stat().st_size} bytes are kept, and the next pull goes on from there" if part.is_file() else ""
    return (
        f"{_plain(url)}: {reason}{kept}. Try again, or without a network copy the file from another machine into a "
        "folder and give it as --index"
    )
