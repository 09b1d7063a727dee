"""Where the elements of a data set lie in its bytes: one pass, no recursion, and no memory for what is not asked for.

Sequences are stepped over with a stack of their own, so that depth costs nothing and is bounded; a length that leads
beyond the file ends the pass. What is wanted comes back as raw bytes (PS3.5, section 7).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Set
from dataclasses import dataclass, field

from monai_tl.errors import DicomError

MAX_DEPTH = 32
"""Levels of sequences; real objects have a handful."""
MAX_ELEMENTS = 1 << 22
"""Of one file, at any depth; an object of 20,000 frames has fewer. Some bytes of zeros read as any number of them."""
MAX_PADDING_BYTES = 64 << 10
"""Zeros after the last element that some archives leave behind."""
MAX_VALUE_BYTES = 1 << 20
"""A wanted value longer than this is no header value."""
PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
_PIXELS = frozenset((PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS))
_WINDOW = 16 << 10
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"))
_SHORT = frozenset((
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
))  # fmt: skip
_REPRESENTATIONS = _LONG | _SHORT


class Bytes:
    """A file or a buffer that is read in windows; never more than asked for.

    Args:
        source: A file descriptor, or the bytes of an inflated data set.
    """

    def __init__(self, source: int | bytes) -> None:
        self._descriptor = source if isinstance(source, int) else -1
        self.size = os.fstat(source).st_size if isinstance(source, int) else len(source)
        self.start = 0
        self.window = source if isinstance(source, bytes) else os.pread(source, _WINDOW, 0)

    def move(self, position: int) -> None:
        """Make the window begin at a position."""
        if self._descriptor >= 0:
            self.start, self.window = position, os.pread(self._descriptor, _WINDOW, position)

    def take(self, position: int, length: int) -> bytes:
        """Bytes from a position on; fewer at the end."""
        offset = position - self.start
        if offset >= 0 and offset + length <= len(self.window):
            return self.window[offset : offset + length]
        if self._descriptor < 0:
            return self.window[position : position + length]
        return os.pread(self._descriptor, length, position)


@dataclass(frozen=True, slots=True)
class PixelPlace:
    """Where the pixel data lie.

    Attributes:
        offset: First byte of the value: of the pixels, or of the first item when they are encapsulated.
        length: Bytes there; for encapsulated pixels all that is left of the file.
        is_encapsulated: Compressed frames in items.
        is_float: Float or Double Float Pixel Data.
        is_words: Written as 16-bit words (OW): in big endian the two bytes of each are swapped, 8-bit pixels or not.
        offset_table: Extended Offset Table and its lengths as read; None when there is none.
    """

    offset: int
    length: int
    is_encapsulated: bool = False
    is_float: bool = False
    is_words: bool = False
    offset_table: tuple[bytes, bytes] | None = None


@dataclass
class Scanned:
    """What one pass found.

    Attributes:
        values: Tag → raw bytes of each wanted element; of one that is too long for a header the first few.
        pixels: None when the data set has none.
        is_little: Byte order.
        depth: Deepest level of sequences seen; those of known length are stepped over unseen unless asked for.
        is_repeated: Whether an element stands twice in one place; seen only when sequences are entered.
    """

    values: dict[int, bytes] = field(default_factory=dict)
    pixels: PixelPlace | None = None
    is_little: bool = True
    depth: int = 0
    is_repeated: bool = False


def scan(
    source: Bytes, position: int, is_explicit: bool, is_little: bool, wanted: Set[int], enter_all: bool = False
) -> Scanned:
    """Walk over a data set up to its pixel data.

    Args:
        source: Of the whole file.
        position: First byte of the data set.
        is_explicit: As the transfer syntax says; files that say the other of what they are are common and understood.
        is_little: Byte order.
        wanted: Tags whose value is kept.
        enter_all: Walk through sequences of known length too, to know how deep they are and what stands twice.

    Raises:
        DicomError: Code ``damaged``: a length beyond the file, too deep nesting.
    """
    return _Walk(source, _really_explicit(source, position, is_explicit), is_little, wanted, enter_all).run(position)


def _really_explicit(source: Bytes, position: int, said: bool) -> bool:
    letters = source.take(position + 4, 2)
    # two capitals of no known representation are taken for one that came later
    return len(letters) < 2 or (letters.isalpha() and letters.isupper()) if said else letters in _REPRESENTATIONS


class _Walk:
    def __init__(self, source: Bytes, is_explicit: bool, is_little: bool, wanted: Set[int], enter_all: bool) -> None:
        self.source, self.is_explicit, self.wanted, self.enter_all = source, is_explicit, wanted, enter_all
        order = "<" if is_little else ">"
        self.tag_of = struct.Struct(f"{order}HH").unpack_from
        self.short_of = struct.Struct(f"{order}H").unpack_from
        self.long_of = struct.Struct(f"{order}I").unpack_from
        self.found = Scanned(is_little=is_little)
        self.left = MAX_ELEMENTS

    def run(self, position: int) -> Scanned:
        found, wanted, size = self.found, self.wanted, self.source.size
        seen: set[int] = set()
        while position + 8 <= size:
            tag, representation, start, length = self.element(position, self.is_explicit)
            if tag < 0x00010000:
                # no file has elements of group 0 in its data set (PS3.10, 7.1)
                if size - position <= MAX_PADDING_BYTES:
                    break
                raise DicomError("there are zeros where elements should be; transfer the file again", "damaged")
            if self.enter_all:
                self.note(seen, tag)
            if tag in _PIXELS:
                left = max(0, size - start)
                if length == _UNDEFINED:
                    found.pixels = PixelPlace(start, left, is_encapsulated=True, offset_table=self.offset_table())
                else:
                    is_words = representation == b"OW"
                    found.pixels = PixelPlace(start, min(length, left), is_float=tag != PIXEL_DATA, is_words=is_words)
                break
            if tag >= 0x7FE00010:
                break
            if length == _UNDEFINED:
                position = self.skip(start, representation == b"UN")
                if tag in wanted:
                    self.keep(tag, start, position - start)
                continue
            position = start + length
            if position > size:
                raise DicomError("an element is longer than the rest of the file; transfer the file again", "damaged")
            if tag in wanted or tag in (_OFFSETS, _LENGTHS):
                self.keep(tag, start, length)
            if self.enter_all and (representation == b"SQ" or (not representation and self.is_sequence(start, length))):
                self.skip(start, False, position)
        return found

    def note(self, seen: set[int], tag: int) -> None:
        # which of two counts is each reader's guess
        self.found.is_repeated |= tag in seen
        seen.add(tag)

    def offset_table(self) -> tuple[bytes, bytes] | None:
        values = self.found.values
        return (values[_OFFSETS], values[_LENGTHS]) if values.get(_OFFSETS) and values.get(_LENGTHS) else None

    def keep(self, tag: int, start: int, length: int) -> None:
        self.found.values[tag] = self.source.take(start, length if length <= MAX_VALUE_BYTES else 8)

    def element(self, position: int, is_explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, representation (empty when implicit), first byte of the value, and its length."""
        self.left -= 1
        if self.left < 0:
            raise DicomError(f"more than {MAX_ELEMENTS} elements; the file is damaged", "damaged")
        source = self.source
        offset = position - source.start
        if offset < 0 or offset + 12 > len(source.window):
            source.move(position)
            offset = position - source.start
        window = source.window
        if offset + 8 > len(window):
            raise DicomError("the file ends within an element; transfer it again", "damaged")
        group, number = self.tag_of(window, offset)
        tag = group << 16 | number
        if not is_explicit or group == 0xFFFE:
            return tag, b"", position + 8, self.long_of(window, offset + 4)[0]
        representation = window[offset + 4 : offset + 6]
        if representation in _SHORT:
            return tag, representation, position + 8, self.short_of(window, offset + 6)[0]
        if representation not in _LONG and not (representation.isalpha() and representation.isupper()):
            # an implicit element in an explicit data set: written by careless editors of headers
            return tag, b"", position + 8, self.long_of(window, offset + 4)[0]
        if offset + 12 > len(window):
            raise DicomError("the file ends within an element; transfer it again", "damaged")
        return tag, representation, position + 12, self.long_of(window, offset + 8)[0]

    def is_sequence(self, start: int, length: int) -> bool:
        head = self.source.take(start, 4)
        return length >= 8 and len(head) == 4 and self.tag_of(head, 0) == (0xFFFE, 0xE000)

    def skip(self, position: int, is_unknown: bool, end: int = -1) -> int:
        """Step over a sequence, with a stack of (end or -1 for undefined, explicit, is an item)."""
        # UN of undefined length holds implicit elements (PS3.5, 6.2.2)
        stack = [(end, self.is_explicit and not is_unknown, False)]
        seen: list[set[int]] = [set()]
        while stack:
            if len(stack) > 2 * MAX_DEPTH:
                raise DicomError(
                    f"sequences are nested more than {MAX_DEPTH} levels deep; the file is damaged", "damaged"
                )
            self.found.depth = max(self.found.depth, (len(stack) + 1) // 2)
            end, is_explicit, is_item = stack[-1]
            if end >= 0 and position >= end:
                stack.pop()
                seen.pop()
                continue
            tag, representation, start, length = self.element(position, is_explicit)
            if tag in (_ITEM_END, _SEQUENCE_END):
                stack.pop()
                seen.pop()
                position = start
                continue
            if self.enter_all and is_item:
                self.note(seen[-1], tag)
            position = self.step_in(stack, tag, representation, start, length, is_item)
            if len(stack) > len(seen):
                seen.append(set())
        return position

    def step_in(
        self,
        stack: list[tuple[int, bool, bool]], tag: int, representation: bytes, start: int, length: int, is_item: bool,
    ) -> int:  # fmt: skip
        """Put what opens here on the stack; else step over it."""
        if not is_item and tag != _ITEM:
            raise DicomError("a sequence holds something that is no item; export the file again", "damaged")
        is_explicit = stack[-1][1]
        if length == _UNDEFINED:
            stack.append((-1, is_explicit and representation != b"UN", tag == _ITEM))
            return start
        if start + length > self.source.size:
            raise DicomError("an item is longer than the rest of the file; transfer the file again", "damaged")
        opens = tag == _ITEM or representation == b"SQ" or (not representation and self.is_sequence(start, length))
        if self.enter_all and opens:
            stack.append((start + length, is_explicit, tag == _ITEM))
            return start
        return start + length
