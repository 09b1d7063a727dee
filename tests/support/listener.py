"""Whoever gets a webhook's messages: a server on loopback that keeps what is sent to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Listener:
    port: int
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=geheim"

    def about(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.messages if one["event"] == event]

    def holding(self, *words: str) -> list[str]:
        """Those of the words that are in a message, or ``payload`` where one holds more than what, when and of what."""
        text = json.dumps(self.messages, ensure_ascii=False)
        more = any(set(one) != {"event", "time", "resource"} for one in self.messages)
        return [word for word in words if word in text] + (["payload"] if more else [])


@contextmanager
def listening() -> Iterator[Listener]:
    heard = Listener(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            heard.messages.append(json.loads(content))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        heard.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()
