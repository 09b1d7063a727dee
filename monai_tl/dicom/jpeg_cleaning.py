"""JPEG and JPEG-LS frames without what their format carries beside the image; and whether nothing else is left."""

from __future__ import annotations

import re

from monai_tl.dicom.stream_parts import Cleaned, length_at, stream_fault

_EOI, _SOS, _DQT, _DHT, _DRI, _LSE, _JPEG_LS = 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xF8, 0xF7
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, _JPEG_LS))
_PLAIN_FRAMES = frozenset((0xC0, 0xC1, 0xC3, _JPEG_LS))
"""Of one scan: baseline, extended, lossless."""
_FRAME_LENGTH = 9
"""Of one component."""
_KNOWN = frozenset((_DHT, 0xCC, _DQT, 0xDC, _DRI, _LSE))
"""Huffman and arithmetic tables, quantisation, number of lines, restart interval, JPEG-LS parameters."""
_DROPPED = frozenset((*range(0xE0, 0xF0), 0xFE))
_BESIDE_STUFFING = re.compile(rb"\xff[\x01-\xfe]")
_RESTARTS = range(0xD0, 0xD8)


def clean_jpeg(frame: bytes) -> Cleaned:
    """A JPEG or JPEG-LS stream from its start to its end, without comments and application segments.

    Raises:
        DicomError: Code ``undecodable_pixels``: no such stream, or with segments whose content is not known.
    """
    if frame[:2] != b"\xff\xd8":
        raise stream_fault()
    kept, position, found = [frame[:2]], 2, _Segments()
    data = (0, 0)
    while True:
        position = _skip_fill(frame, position)
        marker = frame[position + 1]
        if marker == _EOI:
            break
        end = header_end = position + 2 + length_at(frame, position + 2)
        if end > len(frame):
            raise stream_fault()
        if marker == _SOS:
            end = _end_of_scan(frame, header_end)
        elif marker not in _FRAMES and marker not in _KNOWN and marker not in _DROPPED:
            raise stream_fault()
        if marker not in _DROPPED:
            found.add(marker, frame[position + 4 : header_end], frame[header_end:end])
            start = sum(map(len, kept))
            data = (start + header_end - position, start + end - position)
            kept.append(frame[position:end])
        position = end
    kept.append(b"\xff\xd9")
    if not found.precision:
        raise stream_fault()
    return Cleaned(b"".join(kept), found.precision, found.is_bare(), data)


class _Segments:
    """What stands before the end, and whether the image needs all of it."""

    def __init__(self) -> None:
        self.precision = 0
        self.kind = 0
        self.seen: list[int] = []
        self.is_plain = True
        self.tables: list[tuple[int, int]] = []
        self.wanted: set[tuple[int, int]] = set()

    def add(self, marker: int, content: bytes, data: bytes) -> None:
        self.seen.append(marker)
        if marker in _FRAMES:
            if not content:
                raise stream_fault()
            self.precision, self.kind = content[0], marker
            self.is_plain &= marker in _PLAIN_FRAMES and len(content) == _FRAME_LENGTH and content[5] == 1
            if self.is_plain and marker in (0xC0, 0xC1):
                self.wanted.add((_DQT, content[8]))
        elif marker == _SOS:
            self.scan(content, data)
        elif marker == _DQT:
            self.quantisation(content)
        elif marker == _DHT:
            self.huffman(content)
        elif marker == _LSE:
            if content[:1] != b"\x01":
                # other than coding parameters: a colour table, which is free bytes
                raise stream_fault()
            self.is_plain &= len(content) == 11
        else:
            # arithmetic coding, lines that are counted later, and restarts, each with slack before it
            self.is_plain = False

    def scan(self, content: bytes, data: bytes) -> None:
        self.is_plain &= len(content) == 6 and content[0] == 1 and self.kind in _PLAIN_FRAMES
        if not self.is_plain:
            return
        if self.kind == _JPEG_LS:
            self.is_plain &= content[2] == 0
            return
        # JPEG has a zero after each 0xFF of its data, or, of some encoders, after several
        self.is_plain &= _BESIDE_STUFFING.search(data) is None
        self.wanted.add((_DHT, content[2] >> 4))
        if self.kind != 0xC3:
            self.wanted.add((_DHT, 0x10 | content[2] & 15))

    def quantisation(self, content: bytes) -> None:
        position = 0
        while position < len(content):
            self.tables.append((_DQT, content[position] & 15))
            position += 1 + (128 if content[position] >> 4 else 64)
        self.is_plain &= position == len(content)

    def huffman(self, content: bytes) -> None:
        position = 0
        while position + 17 <= len(content):
            counts = content[position + 1 : position + 17]
            symbols = content[position + 17 : position + 17 + sum(counts)]
            self.tables.append((_DHT, content[position]))
            # a symbol that has two codes, or none for lack of room, is written for another purpose
            room = sum(count << (16 - length) for length, count in enumerate(counts, 1))
            self.is_plain &= len(set(symbols)) == len(symbols) == sum(counts) and room <= 1 << 16
            self.is_plain &= bool(content[position] & 0xF0) or max(symbols, default=0) <= 16
            position += 17 + sum(counts)
        self.is_plain &= position == len(content)

    def is_bare(self) -> bool:
        """One frame header, one scan, and each table once that they name."""
        once = [marker for marker in self.seen if marker not in (_DQT, _DHT)]
        ordered = once in ([self.kind, _SOS], [self.kind, _LSE, _SOS], [_LSE, self.kind, _SOS])
        return self.is_plain and ordered and self.seen[-1] == _SOS and sorted(self.tables) == sorted(self.wanted)


def _end_of_scan(frame: bytes, start: int) -> int:
    """Where the coded data stop: at the first marker that is neither stuffing nor a restart."""
    position = start
    while True:
        position = frame.find(b"\xff", position)
        if position < 0 or position + 1 >= len(frame):
            raise stream_fault()
        following = frame[position + 1]
        # JPEG stuffs a zero byte, JPEG-LS a zero bit: below 0x80 it is data in both
        if following >= 0x80 and following not in _RESTARTS and following != 0xFF:
            return position
        position += 1 if following == 0xFF else 2


def _skip_fill(frame: bytes, position: int) -> int:
    if frame[position : position + 1] != b"\xff":
        raise stream_fault()
    while frame[position + 1 : position + 2] == b"\xff":
        position += 1
    if position + 2 > len(frame):
        raise stream_fault()
    return position
