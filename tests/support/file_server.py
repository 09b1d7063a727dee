"""An HTTP server on this machine that serves one folder, with ranges, and misbehaves on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Behaviour:
    """How the server answers.

    Attributes:
        cuts: After so many bytes the next answers break off, one entry an answer.
        ranges: Whether Range is honoured.
        redirect: Where every request is sent.
        hang_s: Before an answer.
        statuses: Of the next answers.
        asked: Range headers that came, in order.
    """

    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    redirect: str = ""
    hang_s: float = 0.0
    statuses: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(folder: Path, behaviour: Behaviour) -> Iterator[str]:
    """Yield the server's address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            behaviour.asked.append(self.headers.get("Range", ""))
            time.sleep(behaviour.hang_s)
            if behaviour.statuses:
                self.send_error(behaviour.statuses.pop(0))
                return
            if behaviour.redirect:
                self.send_response(302)
                self.send_header("Location", behaviour.redirect)
                self.end_headers()
                return
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            self._send(path.read_bytes())

        def _send(self, content: bytes) -> None:
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and behaviour.ranges else 0
            if start >= len(content) and start:
                self.send_error(416)
                return
            self.send_response(206 if asked and behaviour.ranges else 200)
            if asked and behaviour.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = behaviour.cuts.pop(0) + start if behaviour.cuts else len(content)
            self.wfile.write(content[start:end])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
