"""``python -m monai_tl.commands.report_server``: the reports of a workspace to a browser, for whoever has the password.

A page of the dashboard cannot open a file of the disk: browsers refuse links from http to file.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hmac
import os
import re
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from monai_tl.files import write_text

AUTH_VARIABLE = "MONAI_TL_REPORT_AUTH"
"""``name:password`` in the environment: an argument could be read by every user of the machine."""
PAGE = "html/report.html"
"""Below the folder of the reports."""
CLONE = "/clone/"
"""Begins the addresses of the reports that were made in the clone."""
MOST_CONNECTIONS = 32
"""At a time; a further one is closed."""
_CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}")
"""How the path of an object of DVC's cache ends."""


class ReportHandler(SimpleHTTPRequestHandler):
    """Files below one folder, read only, never a list of a folder.

    Args:
        auth: ``name:password`` that a request must have (HTTP Basic).
        clone: A second folder, at addresses that begin with CLONE; None for none.
    """

    timeout = 30
    """Seconds that a connection may be silent: nobody holds one for ever."""
    server_version = "monai_tl"
    sys_version = ""

    def __init__(self, *arguments: Any, auth: str, clone: Path | None = None, **named: Any) -> None:
        self._clone = clone
        self._wanted = "Basic " + base64.b64encode(auth.encode()).decode()
        super().__init__(*arguments, **named)

    def send_head(self) -> Any:
        """The answer to GET and HEAD; 401 without the password, 404 for what is outside or no file."""
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), self._wanted.encode()):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="monai_tl reports", charset="UTF-8"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if self._clone is not None and self.path.startswith(CLONE):
            self.directory, self.path = str(self._clone), self.path.removeprefix(CLONE.rstrip("/"))
        if not self._is_inside():
            self.send_error(404, "no such page; run the pipeline first")
            return None
        return super().send_head()

    def _is_inside(self) -> bool:
        try:
            asked = Path(self.translate_path(self.path))
            path, root = asked.resolve(), Path(self.directory).resolve()
            # with cache.type symlink DVC puts links to objects of its cache where the files were
            is_linked = asked.is_symlink() and _CACHED.fullmatch(str(path)[-len("/files/md5/") - 33 :]) is not None
            return path.is_file() and (path.is_relative_to(root) or is_linked)
        except (OSError, ValueError):
            # a zero byte or a name too long for the file system
            return False

    def end_headers(self) -> None:
        """A run replaces the report, so no copy may be kept; no other page may frame it or learn where it lies."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: who looked at what is not for a log."""


class ReportServer(ThreadingHTTPServer):
    """Answers MOST_CONNECTIONS at a time, each in a thread of its own."""

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the connection, or close it where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


def listen(folder: Path, host: str, port: int, auth: str, clone: Path | None = None) -> ReportServer:
    """A server that listens but does not answer yet.

    Args:
        folder: Of the reports; may not exist yet.
        host: Address to listen on.
        port: Of it; where it is taken any other.
        auth: ``name:password``.
        clone: See ReportHandler.

    Raises:
        OSError: The host is no address of this machine, or no port is free.
    """
    handler = functools.partial(ReportHandler, directory=str(folder), auth=auth, clone=clone)
    try:
        return ReportServer((host, port), handler)
    except (OSError, OverflowError):
        return ReportServer((host, 0), handler)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m monai_tl.commands.report_server")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="where it is taken, any other")
    parser.add_argument("--port-file", type=Path, required=True, help="gets the port once it listens")
    parser.add_argument("--clone", type=Path, help="folder of the reports made in the clone")
    given = parser.parse_args()
    auth = os.environ.get(AUTH_VARIABLE)
    if not auth:
        parser.error(f"{AUTH_VARIABLE} is not set; 'monai-tl serve' sets it")
    with listen(given.folder, given.host, given.port, auth, given.clone) as server:
        # from here on nobody else can have the port
        write_text(given.port_file, f"{server.server_address[1]}\n")
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
