"""``python -m monai_tl.commands.report_server``: the reports of a workspace to a browser, for whoever has the password.

A page of the dashboard cannot open a file of the disk: browsers refuse links from http to file.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hmac
import os
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

AUTH_VARIABLE = "MONAI_TL_REPORT_AUTH"
"""``name:password`` in the environment: an argument could be read by every user of the machine."""
PAGE = "html/report.html"
"""Below the folder of the reports."""


class ReportHandler(SimpleHTTPRequestHandler):
    """Files below one folder, read only, never a list of a folder.

    Args:
        auth: ``name:password`` that a request must have (HTTP Basic).
    """

    timeout = 30
    """Seconds that a connection may be silent: nobody holds one for ever."""
    server_version = "monai_tl"
    sys_version = ""

    def __init__(self, *arguments: Any, auth: str, **named: Any) -> None:
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
        if not self._is_inside():
            self.send_error(404, "no such page; run the pipeline first")
            return None
        return super().send_head()

    def _is_inside(self) -> bool:
        try:
            path, root = Path(self.translate_path(self.path)).resolve(), Path(self.directory).resolve()
            return path.is_file() and path.is_relative_to(root)
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


def serve(folder: Path, host: str, port: int, auth: str) -> None:
    """Answer until the process ends.

    Args:
        folder: Of the reports; may not exist yet.
        host: Address to listen on.
        port: Of it.
        auth: ``name:password``.
    """
    handler = functools.partial(ReportHandler, directory=str(folder), auth=auth)
    with ThreadingHTTPServer((host, port), handler) as server:
        server.serve_forever()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m monai_tl.commands.report_server")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    auth = os.environ.get(AUTH_VARIABLE)
    if not auth:
        parser.error(f"{AUTH_VARIABLE} is not set; 'monai-tl serve' sets it")
    serve(given.folder, given.host, given.port, auth)
    return 0


if __name__ == "__main__":
    sys.exit(main())
