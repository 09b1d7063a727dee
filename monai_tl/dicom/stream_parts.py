"""What cleaning a compressed frame gives, and the means that its formats share."""

from __future__ import annotations

from dataclasses import dataclass

from monai_tl.errors import DicomError

_TAIL = 4
"""Changed bytes before the end of the coded data: one alone may be padding of bits."""


@dataclass(frozen=True)
class Cleaned:
    """A stream from its start to its end.

    Attributes:
        stream: Without comments and other parts that no decoder needs.
        precision: Bits a pixel.
        is_bare: All that is left is known to the byte, and needed for the image. False: it may hold anything.
        data: Where the coded data begin and end.
    """

    stream: bytes
    precision: int
    is_bare: bool
    data: tuple[int, int]

    def with_other_tail(self) -> bytes:
        """The stream with the last bytes of its coded data inverted: bytes that no pixel needs show so."""
        changed = bytearray(self.stream)
        start, end = self.data
        for place in range(max(start, end - _TAIL), end):
            before = changed[place - 1] if place > start else 0
            # a marker must neither come nor go
            if changed[place] != 0xFF and before != 0xFF:
                changed[place] ^= 0xFF if changed[place] else 0xFE
        return bytes(changed)


def length_at(frame: bytes | bytearray, position: int) -> int:
    """The 16-bit number there."""
    if position + 2 > len(frame):
        raise stream_fault()
    return int.from_bytes(frame[position : position + 2], "big")


def stream_fault() -> DicomError:
    """What is said of a stream that cannot be cleaned."""
    return DicomError(
        "the compressed pixels are damaged or hold parts that are not known; export the file again, uncompressed",
        "undecodable_pixels",
    )
