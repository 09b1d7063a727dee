"""JPEG 2000 frames (HTJ2K too) without what their format carries beside the image; and whether nothing else is left."""

from __future__ import annotations

import struct

from monai_tl.dicom.stream_parts import Cleaned, length_at, stream_fault

_SIZ, _CAP, _COD, _QCD, _TLM, _COM = 0xFF51, 0xFF50, 0xFF52, 0xFF5C, 0xFF55, 0xFF64
_SOT, _SOD, _EOC = 0xFF90, 0xFF93, 0xFFD9
_OPTIONAL = frozenset((_COM, 0xFF57, 0xFF58, 0xFF63))
"""Comments, lengths of packets in the main header and in that of a tile, registration: no decoder needs them."""
_OTHERS = frozenset((0xFF53, 0xFF59, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61))
"""Styles of components, regions, changes of progression, packed headers, profile of a part of the standard."""
_SIZE_LENGTH = 39
"""Of one component."""


def clean_jpeg_2000(frame: bytes) -> Cleaned:
    """A codestream from its start to its end; of one tile in one part, without what no decoder needs.

    The box file around a codestream (JP2) is left away. Streams of several tiles, or with segments that are not parsed
    here to the byte, come back as they are and not bare.

    Raises:
        DicomError: Code ``undecodable_pixels``: no such stream, or with segments whose content is not known.
    """
    stream = _unboxed(frame)
    if stream[:2] != b"\xff\x4f":
        raise stream_fault()
    header, position = _segments(stream, 2, _SOT)
    size = dict(header).get(_SIZ, b"")
    if len(size) < _SIZE_LENGTH:
        raise stream_fault()
    precision = (size[36] & 0x7F) + 1
    tile_end, end = _tile_parts(stream, position)
    in_tile, data = _segments(stream, position + 12, _SOD)
    is_bare = end == tile_end + 2 and _is_bare(header, in_tile, stream[position : position + 12])
    if not is_bare:
        return Cleaned(stream[:end], precision, False, (0, 0))
    content = stream[data + 2 : tile_end]
    part = struct.pack(">HHHIBB", _SOT, 10, 0, 14 + len(content), 0, 1) + b"\xff\x93"
    kept = b"".join(
        _segment(marker, struct.pack(">BBI", 0, 0x40, 14 + len(content)) if marker == _TLM else value)
        for marker, value in header
        if marker not in _OPTIONAL
    )
    head = b"\xff\x4f" + kept + part
    return Cleaned(head + content + b"\xff\xd9", precision, True, (len(head), len(head) + len(content)))


def _segments(stream: bytes, position: int, stop: int) -> tuple[list[tuple[int, bytes]], int]:
    """Markers and contents up to a marker, and where that stands."""
    found = []
    while (marker := length_at(stream, position)) != stop:
        end = position + 2 + length_at(stream, position + 2)
        known = marker in _OPTIONAL or marker in _OTHERS or marker in (_SIZ, _CAP, _COD, _QCD, _TLM)
        if not known or not position + 4 <= end <= len(stream):
            raise stream_fault()
        found.append((marker, stream[position + 4 : end]))
        position = end
    return found, position


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">HH", marker, 2 + len(content)) + content


def _tile_parts(stream: bytes, position: int) -> tuple[int, int]:
    """Ends of the first part and, with its mark, of the stream."""
    first = 0
    while True:
        if length_at(stream, position) != _SOT or length_at(stream, position + 2) != 10:
            raise stream_fault()
        length = struct.unpack_from(">I", stream, position + 6)[0] if position + 12 <= len(stream) else 1
        # zero: up to the end of the stream
        end = position + length if length else stream.rfind(b"\xff\xd9")
        if not position + 12 < end <= len(stream) - 2:
            raise stream_fault()
        first = first or end
        if length_at(stream, end) == _EOC:
            return first, end + 2
        position = end


def _is_bare(header: list[tuple[int, bytes]], in_tile: list[tuple[int, bytes]], part: bytes) -> bool:
    needed = [marker for marker, _ in header if marker not in _OPTIONAL]
    if len(set(needed)) != len(needed) or not {_SIZ, _COD, _QCD} <= set(needed) <= {_SIZ, _CAP, _COD, _QCD, _TLM}:
        return False
    if any(marker not in _OPTIONAL for marker, _ in in_tile) or part[4:6] != b"\0\0" or part[10] or part[11] > 1:
        return False
    segments = dict(header)
    return (
        _is_plain_size(segments[_SIZ])
        and _is_plain_style(segments[_COD], segments[_QCD])
        and (_CAP not in segments or _is_plain_capability(segments[_CAP]))
    )


def _is_plain_size(content: bytes) -> bool:
    """One component, one tile, and nothing that is cut away."""
    if len(content) != _SIZE_LENGTH:
        return False
    right, bottom, *offsets = struct.unpack_from(">4I", content, 2)
    width, height, *others = struct.unpack_from(">4I", content, 18)
    same = (width, height) == (right, bottom) and not any(offsets) and not any(others)
    return same and content[34:36] == b"\0\1" and content[37:] == b"\1\1"


def _is_plain_style(coding: bytes, quantisation: bytes) -> bool:
    """As long as the levels of decomposition say."""
    if len(coding) < 10 or not quantisation:
        return False
    levels = coding[5]
    steps = {0: 3 * levels + 1, 1: 2, 2: 2 * (3 * levels + 1)}.get(quantisation[0] & 31, -1)
    return levels <= 32 and len(coding) == 10 + (levels + 1 if coding[0] & 1 else 0) and len(quantisation) == 1 + steps


def _is_plain_capability(content: bytes) -> bool:
    return len(content) >= 4 and len(content) == 4 + 2 * int.from_bytes(content[:4], "big").bit_count()


def _unboxed(frame: bytes) -> bytes:
    if frame[4:8] != b"jP  ":
        return frame
    position = 0
    while position + 8 <= len(frame):
        length, kind = struct.unpack_from(">I4s", frame, position)
        if kind == b"jp2c":
            return frame[position + 8 : position + length if length else None]
        if length < 8:
            break
        position += length
    raise stream_fault()
