"""Compressed frames without what their formats carry beside the image: comments, application data, trailing bytes."""

from __future__ import annotations

import struct

from monai_tl.errors import DicomError

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7))
_JPEG_TABLES = frozenset((0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xF8))
"""Huffman and arithmetic tables, quantisation, number of lines, restart interval, JPEG-LS parameters."""
_JPEG_DROPPED = frozenset((*range(0xE0, 0xF0), 0xFE))
_RESTARTS = range(0xD0, 0xD8)

_SOC, _SIZ, _COM, _SOT, _SOD, _EOC = 0xFF4F, 0xFF51, 0xFF64, 0xFF90, 0xFF93, 0xFFD9
_J2K_KEPT = frozenset((
    _SIZ, 0xFF50, 0xFF52, 0xFF53, 0xFF55, 0xFF57, 0xFF58, 0xFF59, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61, 0xFF63
))  # fmt: skip
"""Size, capabilities, coding and quantisation styles, packet lengths and headers, registration."""


def clean_jpeg(frame: bytes) -> tuple[bytes, int]:
    """A JPEG or JPEG-LS stream from its start to its end, without comments and application segments.

    Returns:
        The stream and its precision in bits.

    Raises:
        DicomError: Code ``undecodable_pixels``: no such stream, or with segments whose content is not known.
    """
    if frame[:2] != b"\xff\xd8":
        raise _fault()
    kept, position, precision = [frame[:2]], 2, 0
    while True:
        position = _skip_fill(frame, position)
        marker = frame[position + 1]
        if marker == _EOI:
            kept.append(b"\xff\xd9")
            break
        end = position + 2 + _length(frame, position + 2)
        if end > len(frame):
            raise _fault()
        if marker == _SOS:
            end = _end_of_scan(frame, end)
        elif marker in _JPEG_FRAMES:
            precision = frame[position + 4]
        elif marker == 0xF8 and frame[position + 4] != 1:
            # other than coding parameters: a colour table, which is free bytes
            raise _fault()
        elif marker not in _JPEG_TABLES and marker not in _JPEG_DROPPED:
            raise _fault()
        if marker not in _JPEG_DROPPED:
            kept.append(frame[position:end])
        position = end
    if not precision:
        raise _fault()
    return b"".join(kept), precision


def _end_of_scan(frame: bytes, start: int) -> int:
    """Where the coded data stop: at the first marker that is neither stuffing nor a restart."""
    position = start
    while True:
        position = frame.find(b"\xff", position)
        if position < 0 or position + 1 >= len(frame):
            raise _fault()
        following = frame[position + 1]
        # JPEG stuffs a zero byte, JPEG-LS a zero bit: below 0x80 it is data in both
        if following >= 0x80 and following not in _RESTARTS and following != 0xFF:
            return position
        position += 1 if following == 0xFF else 2


def _skip_fill(frame: bytes, position: int) -> int:
    if frame[position : position + 1] != b"\xff":
        raise _fault()
    while frame[position + 1 : position + 2] == b"\xff":
        position += 1
    if position + 2 > len(frame):
        raise _fault()
    return position


def clean_jpeg_2000(frame: bytes) -> tuple[bytes, int]:
    """A JPEG 2000 codestream (HTJ2K too) from its start to its end, its comments overwritten with zeros.

    They are not cut out: lengths of tile parts are written in other places of the stream. The box file around a
    codestream (JP2) is left away.

    Returns:
        The stream and its precision in bits.

    Raises:
        DicomError: Code ``undecodable_pixels``: no such stream, or with segments whose content is not known.
    """
    stream = bytearray(_unboxed(frame))
    if stream[:2] != b"\xff\x4f":
        raise _fault()
    position, tile_end, precision = 2, 0, 0
    while True:
        marker = _length(stream, position)
        if marker == _EOC:
            return bytes(stream[: position + 2]), precision
        if marker == _SOD:
            position = tile_end
            continue
        length = _length(stream, position + 2)
        content, end = position + 4, position + 2 + length
        if end > len(stream) or length < 2:
            raise _fault()
        if marker == _SOT:
            part = struct.unpack_from(">I", stream, content + 2)[0]
            # zero: up to the end of the stream
            tile_end = position + part if part else stream.rfind(b"\xff\xd9")
            if not end < tile_end <= len(stream) - 2:
                raise _fault()
        elif marker == _COM:
            stream[content:end] = bytes(end - content)
        elif marker not in _J2K_KEPT:
            raise _fault()
        if marker == _SIZ:
            if length < 41:
                raise _fault()
            precision = (stream[content + 36] & 0x7F) + 1
        position = end


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
    raise _fault()


def _length(frame: bytes | bytearray, position: int) -> int:
    if position + 2 > len(frame):
        raise _fault()
    return int.from_bytes(frame[position : position + 2], "big")


def _fault() -> DicomError:
    return DicomError(
        "the compressed pixels are damaged or hold parts that are not known; export the file again, uncompressed",
        "undecodable_pixels",
    )
