"""What a compressed image says of its own size, read before any decoder takes memory for it."""

from __future__ import annotations

import struct

_JPEG_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7))
"""Markers of a frame header in JPEG (T.81, B.1.1.3), and in JPEG-LS (T.87)."""
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_HEAD = 4096


def declared_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) in the header of a JPEG, JPEG-LS or JPEG 2000 stream; None when it says nothing."""
    if stream[:4] == b"\xff\x4f\xff\x51":
        return _jpeg_2000_size(stream)
    if stream[:2] == b"\xff\xd8":
        return _jpeg_size(stream)
    # a JP2 file in place of a bare stream
    start = stream[:_HEAD].find(b"\xff\x4f\xff\x51")
    return _jpeg_2000_size(stream[start:]) if start >= 0 and stream[4:8] == b"jP  " else None


def declared_components(stream: bytes) -> int | None:
    """How many values a pixel has in the stream itself, whatever the header says; None when the stream says nothing."""
    start = 0 if stream[:4] == b"\xff\x4f\xff\x51" else stream[:_HEAD].find(b"\xff\x4f\xff\x51")
    if stream[:2] == b"\xff\xd8":
        position = _jpeg_frame(stream)
        return None if position is None else stream[position + 9]
    if start < 0 or (start and stream[4:8] != b"jP  ") or len(stream) < start + 42:
        return None
    return int(struct.unpack_from(">H", stream, start + 40)[0])


def is_cut(stream: bytes) -> bool:
    """Whether a JPEG or JPEG-LS stream lacks its end: decoders fill the rest with values of their own and say nothing.

    Within compressed data the end marker cannot occur (T.81, B.1.1.2; T.87, A.1).
    """
    return stream[:2] == b"\xff\xd8" and stream.rfind(b"\xff\xd9") < 0


def _jpeg_2000_size(stream: bytes) -> tuple[int, int] | None:
    if len(stream) < 24:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", stream, 8)
    return bottom - top, right - left


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    position = _jpeg_frame(stream)
    if position is None:
        return None
    rows, columns = struct.unpack_from(">HH", stream, position + 5)
    return int(rows), int(columns)


def _jpeg_frame(stream: bytes) -> int | None:
    """Where the frame header begins."""
    position = 2
    while position + 10 <= len(stream):
        if stream[position] != 0xFF:
            return None
        marker = stream[position + 1]
        if marker == 0xFF or marker in _ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_FRAMES:
            return position
        position += 2 + struct.unpack_from(">H", stream, position + 2)[0]
    return None
