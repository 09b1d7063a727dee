"""JSON objects, one a line: what programs read of a run. docs/json-output.md describes every field."""

from __future__ import annotations

import io
import json
import sys
import threading
from typing import Any, TextIO

MARK = "@progress "
"""Prefix of a stage's progress record on its way to the flow; the rest is JSON."""
OUTCOME_MARK = "@outcome "
"""Prefix of the flow's line on what became of a step; the rest is JSON with stage and outcome."""
VARIABLE = "MONAI_TL_PROGRESS"
"""Set to ``json`` by the flow to ask for marked records, to ``plain`` for lines on a terminal."""
EVENTS = ("plan", "step", "progress", "message", "text", "error", "end")
"""Values of ``event``."""

_lock = threading.Lock()


def mark_line(mark: str, record: dict[str, Any]) -> str:
    """A record as one line that the flow can tell from other output."""
    return mark + json.dumps(record, ensure_ascii=True)


def parse_marked(line: str, mark: str) -> dict[str, Any] | None:
    """The record of such a line; None for any other line."""
    if not line.startswith(mark):
        return None
    try:
        record = json.loads(line[len(mark) :])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class JsonLines(io.TextIOBase):
    """Standard output while ``--json`` holds: whoever prints, only whole JSON objects leave.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = ""

    @property
    def encoding(self) -> str:  # type: ignore[override] # read-only there too, but typed as a variable
        """ASCII would do; printing libraries ask."""
        return "utf-8"

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Never: nobody is to paint into it."""
        return False

    def write(self, text: str) -> int:
        """Turn each whole line into an object with ``event`` text."""
        *lines, self._open = (self._open + text).split("\n")
        for line in lines:
            self._text(line)
        return len(text)

    def flush(self) -> None:
        """Pass on what is whole."""
        self._stream.flush()

    def finish(self) -> None:
        """Pass on a line that has no end."""
        self._text(self._open)
        self._open = ""
        self.flush()

    def put(self, event: str, fields: dict[str, Any]) -> None:
        """Write one object."""
        line = json.dumps({"event": event, **fields}, ensure_ascii=True, allow_nan=False)
        with _lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def _text(self, line: str) -> None:
        if line.strip():
            self.put("text", {"text": line.rstrip()})


_events: list[JsonLines] = []


def are_events_on() -> bool:
    """Whether this process was asked for JSON lines."""
    return bool(_events)


def begin_events() -> None:
    """From now on standard output holds JSON objects alone."""
    if not _events:
        _events.append(JsonLines(sys.stdout))
        sys.stdout = _events[0]


def end_events() -> None:
    """Standard output is what it was."""
    if _events:
        last = _events.pop()
        last.finish()
        sys.stdout = last._stream


def write_event(event: str, **fields: Any) -> None:
    """Write one object, where JSON lines were asked for; no number is NaN."""
    if _events:
        clean = {key: None if isinstance(value, float) and value != value else value for key, value in fields.items()}
        _events[0].put(event, clean)
