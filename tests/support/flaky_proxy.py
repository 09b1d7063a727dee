"""A line to a server on loopback that can be cut in the middle of what goes over it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Line:
    """Cut while ``left`` is used up; None lets everything pass.

    Attributes:
        left: So many bytes still pass, both ways together.
        n_passed: Bytes so far.
    """

    port: int = 0
    left: int | None = None
    n_passed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_on(self, n: int) -> int:
        with self._lock:
            n = n if self.left is None else min(n, self.left)
            self.left = None if self.left is None else self.left - n
            self.n_passed += n
            return n


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    line, ends = Line(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        line.port = server.getsockname()[1]
        threading.Thread(target=_accept, args=(server, port, line, ends), daemon=True).start()
        try:
            yield line
        finally:
            ends.set()


def _accept(server: socket.socket, port: int, line: Line, ends: threading.Event) -> None:
    with suppress(OSError):
        while not ends.is_set():
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_relay, args=(one, other, line), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, line: Line) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 14):
            n = line.pass_on(len(content))
            target.sendall(content[:n])
            if n < len(content):
                break
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
