"""Elements as the bytes of Explicit VR Little Endian: nothing is written that was not handed over as plain bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

_LONG = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_MOST = 0xFFFFFFFE


def element(tag: int, representation: str, value: bytes) -> bytes:
    """One element with a defined length; an odd one gets its pad: NUL for bytes and UIDs, a space for text.

    A text longer than 64 KiB goes as UN, as PS3.5 section 6.2.2 demands.

    Raises:
        ValueError: The value is longer than DICOM allows.
    """
    if len(value) % 2:
        value += b"\x00" if representation in ("UI", "OB", "UN") else b" "
    if len(value) > _MOST:
        raise ValueError("longer than an element can be")
    if representation not in _LONG and len(value) > 0xFFFF:
        representation = "UN"
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + representation.encode("ascii")
    length = struct.pack(
        "<HI" if representation in _LONG else "<H", *((0,) if representation in _LONG else ()), len(value)
    )
    return head + length + value


def sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence of items, each given as the bytes of its elements."""
    return element(tag, "SQ", b"".join(_item(content) for content in items))


def join(elements: Mapping[int, bytes]) -> bytes:
    """Elements in the order of their tags."""
    return b"".join(elements[tag] for tag in sorted(elements))


def encapsulated(tag: int, frames: Sequence[bytes]) -> bytes:
    """Compressed frames, one fragment each, after a table of their offsets."""
    padded = [frame + b"\x00" if len(frame) % 2 else frame for frame in frames]
    offsets, position = [], 0
    for frame in padded:
        offsets.append(position)
        position += 8 + len(frame)
    # offsets have 32 bits; without a table the fragments are the frames in order
    table = struct.pack(f"<{len(offsets)}I", *offsets) if position < _UNDEFINED else b""
    head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"OB", 0, _UNDEFINED)
    end = struct.pack("<HHI", _SEQUENCE_END >> 16, _SEQUENCE_END & 0xFFFF, 0)
    return b"".join((head, _item(table), *(_item(frame) for frame in padded), end))


def to_implicit(content: bytes) -> bytes:
    """Elements written by this module, in Implicit VR Little Endian: there a text has no largest length."""
    written: list[bytes] = []
    for tag, representation, value in elements_of(content):
        if representation == "SQ":
            value = b"".join(_item(to_implicit(item)) for item in items_of(value))
        written += (struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)), value)
    return b"".join(written)


def elements_of(content: bytes) -> Iterator[tuple[int, str, bytes]]:
    """(tag, representation, value) of elements written by this module."""
    position = 0
    while position < len(content):
        group, number = struct.unpack_from("<HH", content, position)
        representation = content[position + 4 : position + 6].decode("ascii")
        long = representation in _LONG
        start = position + (12 if long else 8)
        length = int.from_bytes(content[position + (8 if long else 6) : start], "little")
        yield (group << 16) | number, representation, content[start : start + length]
        position = start + length


def items_of(value: bytes) -> Iterator[bytes]:
    """The items of a sequence written by this module, each the bytes of its elements."""
    position = 0
    while position < len(value):
        length = int.from_bytes(value[position + 4 : position + 8], "little")
        yield value[position + 8 : position + 8 + length]
        position += 8 + length


def _item(content: bytes) -> bytes:
    return struct.pack("<HHI", _ITEM >> 16, _ITEM & 0xFFFF, len(content)) + content
