"""Files that are no DICOM, or whose outer form is broken: mark, file meta group, element lengths, deflate, nesting."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from damage import Outcome, damaged, one_file, refused, spoil_all, spoil_one
from dicom_bytes import (
    CANARY,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    PIXELS,
    UNDEFINED,
    Elements,
    body,
    element,
    file_bytes,
    implicit_body,
    item,
    meta,
    new_series,
    save,
    sequence,
    text,
    uid,
    write_series,
)

_JUNK = {
    "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
    "pdf": b"%PDF-1.7\n1 0 obj << /Author (" + CANARY.encode() + b") >> endobj\n",
    "elf": b"\x7fELF\2\1\1\0" + bytes(8) + b"\2\0\x3e\0",
    "text": (CANARY + " was seen in the ward.\n").encode() * 20,
}
NOT_DICOM = "DICM mark|not DICOM|no DICOM"
CUT = r"cut off|\bends? (with|after|before|in)|longer than (the rest|its|the file)|nothing after"


def _foreign(folder: Path, name: str, content: bytes) -> list[Outcome]:
    save(folder / name, content)
    return [(refused("file", "not_dicom", NOT_DICOM),)]


@damaged
def foreign_jpeg(folder, rng):
    return _foreign(folder, f"{CANARY}.jpg", _JUNK["jpg"] + rng.bytes(4000))


@damaged
def foreign_pdf(folder, rng):
    return _foreign(folder, f"{CANARY}.pdf", _JUNK["pdf"] + rng.bytes(900))


@damaged
def foreign_text(folder, rng):
    return _foreign(folder, f"{CANARY}.txt", _JUNK["text"])


@damaged
def foreign_program_called_dcm(folder, rng):
    return _foreign(folder, f"{CANARY}.dcm", _JUNK["elf"] + rng.bytes(3000))


@damaged
def foreign_nifti(folder, rng):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    header[344:348] = b"n+1\0"
    return _foreign(folder, f"{CANARY}.nii.gz", gzip.compress(bytes(header) + rng.bytes(500), mtime=0))


@damaged
def foreign_zip_with_dicom(folder, rng):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("../../escape.dcm"), file_bytes(new_series(rng).elements(0)))
    return _foreign(folder, f"{CANARY}.zip", packed.getvalue())


@damaged
def foreign_tar_called_dcm(folder, rng):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        content = file_bytes(new_series(rng).elements(0))
        facts = tarfile.TarInfo("../../escape.dcm")
        facts.size = len(content)
        archive.addfile(facts, io.BytesIO(content))
    return _foreign(folder, f"{CANARY}.dcm", packed.getvalue())


@damaged
def zero_byte_file(folder, rng):
    save(folder / f"{CANARY}.dcm", b"")
    return [(refused("file", "not_dicom damaged", "empty"),)]


@damaged
def one_byte_file(folder, rng):
    return _foreign(folder, f"{CANARY}.dcm", b"D")


@damaged
def random_bytes(folder, rng):
    return _foreign(folder, f"{CANARY}.dcm", rng.bytes(20_000))


@damaged
def zeros_only(folder, rng):
    return _foreign(folder, f"{CANARY}.dcm", bytes(1 << 20))


@damaged
def mark_at_the_start(folder, rng):
    content = file_bytes(new_series(rng).elements(0))
    return _foreign(folder, f"{CANARY}.dcm", content[128:])


@damaged
def no_preamble(folder, rng):
    """A bare data set, as old archives hold it."""
    return _foreign(folder, f"{CANARY}.dcm", body(new_series(rng).elements(0)))


@damaged
def preamble_without_mark(folder, rng):
    content = file_bytes(new_series(rng).elements(0))
    return _foreign(folder, f"{CANARY}.dcm", content[:128] + b"DICX" + content[132:])


@damaged
def mark_then_nothing(folder, rng):
    save(folder / f"{CANARY}.dcm", bytes(128) + b"DICM")
    return [(refused("file", "damaged", CUT),)]


@damaged
def mark_then_garbage(folder, rng):
    save(folder / f"{CANARY}.dcm", bytes(128) + b"DICM" + bytes(rng.integers(128, 256, 5000, dtype=np.uint8)))
    return [(refused("file", "damaged", f"file meta|{CUT}"),)]


@damaged
def file_meta_cut(folder, rng):
    content = file_bytes(new_series(rng).elements(0))
    save(folder / f"{CANARY}.dcm", content[:150])
    return [(refused("file", "damaged", CUT),)]


@damaged
def file_meta_element_longer_than_the_file(folder, rng):
    content = bytearray(file_bytes(new_series(rng).elements(0)))
    # (0002,0001) has a 4-byte length
    struct.pack_into("<I", content, 132 + 12 + 8, 0x7FFFFFF0)
    save(folder / f"{CANARY}.dcm", bytes(content))
    return [(refused("file", "damaged", "meta|long|cut|end"),)]


def _meta_length(length):
    def change(elements: Elements) -> bytes:
        content = bytearray(file_bytes(elements))
        struct.pack_into("<I", content, 132 + 8, length)
        return bytes(content)

    return change


@damaged
def file_meta_group_length_too_long(folder, rng):
    series = spoil_all(folder, rng, _meta_length(0xFFFFFF))
    return [(series.grid(),), (refused("file", "damaged", "meta|length", 6),)]


@damaged
def file_meta_group_length_too_short(folder, rng):
    series = spoil_all(folder, rng, _meta_length(12))
    return [(series.grid(),), (refused("file", "damaged", "meta|length", 6),)]


@damaged
def file_meta_without_transfer_syntax(folder, rng):
    """Explicit or implicit has to be found out; the values are the same either way."""
    series = new_series(rng)
    write_series(folder, [meta(one, "") + body(one) for one in series.slices])
    return [(series.grid(),), (refused("file", "damaged unsupported_syntax", "syntax", 6),),
            (refused("series", "damaged unsupported_syntax", "syntax"),)]  # fmt: skip


@damaged
def header_cut(folder, rng):
    """The file ends within the patient's name."""

    def cut(elements: Elements) -> bytes:
        content = file_bytes(elements)
        return content[: content.index(b"^NAME") - 3]

    spoil_one(folder, rng, cut)
    return one_file("damaged", CUT)


@damaged
def header_cut_between_elements(folder, rng):
    """The file ends after a whole element: nothing is wrong but that the pixels and the geometry are absent."""

    def cut(elements: Elements) -> bytes:
        return file_bytes({tag: value for tag, value in elements.items() if tag < 0x00200032})

    spoil_one(folder, rng, cut)
    return one_file("damaged no_pixels", "Rows|Columns|pixel")


@damaged
def element_longer_than_the_file(folder, rng):
    def lengthen(elements: Elements) -> bytes:
        private = element(0x00090010, "LO", text("ACME")) + element(0x00091001, "OB", b"\0" * 8, 0x7FFFFFF0)
        elements[0x00090010] = ("", private)
        return file_bytes(elements)

    spoil_one(folder, rng, lengthen)
    return one_file("damaged", CUT)


@damaged
def undefined_length_on_bytes(folder, rng):
    """A private OB of undefined length and no delimiter: a reader that looks for one runs to the end of the file."""

    def lengthen(elements: Elements) -> bytes:
        elements[0x00091001] = ("", element(0x00091001, "OB", b"\0" * 8, UNDEFINED))
        return file_bytes(elements)

    spoil_one(folder, rng, lengthen)
    return one_file("damaged", f"undefined|delimit|no item|{CUT}")


@damaged
def undefined_length_on_text(folder, rng):
    def lengthen(elements: Elements) -> bytes:
        elements[0x00081196] = ("", element(0x00081196, "UT", b"text", UNDEFINED))
        return file_bytes(elements)

    spoil_one(folder, rng, lengthen)
    return one_file("damaged", f"undefined|delimit|no item|{CUT}")


@damaged
def pixel_length_overflow(folder, rng):
    """The 32-bit length of the pixels has wrapped round, and what follows them reads as millions of empty elements."""
    series = new_series(rng)
    slices: list = list(series.slices)
    slices[2][PIXELS] = ("", element(PIXELS, "OW", series.stored[2].astype("<u2").tobytes(), 8))
    paths = write_series(folder, slices)
    with paths[2].open("r+b") as stream:
        stream.truncate(128 << 20)
    return one_file("truncated_pixels damaged", "pixel")


@damaged
def zeros_after_the_header(folder, rng):
    """As a copy that was broken off on a disk that had laid the space aside: 64 MiB, sparse, that parse as elements."""
    series = new_series(rng)
    paths = write_series(folder, series.slices)
    elements = series.elements(2)
    head = meta(elements) + body({tag: value for tag, value in elements.items() if tag < PIXELS})
    with paths[2].open("wb") as stream:
        stream.write(head)
        stream.truncate(64 << 20)
    return one_file("damaged no_pixels", "zeros|pixel")


@damaged
def unknown_representation(folder, rng):
    def change(elements: Elements) -> bytes:
        content = file_bytes(elements)
        return content.replace(b"\x08\x00\x50\x00SH", b"\x08\x00\x50\x00ZZ")

    series = spoil_one(folder, rng, change)
    return [(series.grid(),), *one_file("damaged", f"representation|{CUT}")]


@damaged
def representation_of_nulls(folder, rng):
    def change(elements: Elements) -> bytes:
        content = file_bytes(elements)
        return content.replace(b"\x18\x00\x50\x00DS", b"\x18\x00\x50\x00\0\0")

    series = spoil_one(folder, rng, change)
    return [(series.grid(),), *one_file("damaged", f"representation|{CUT}")]


@damaged
def elements_out_of_order(folder, rng):
    """Everything is there, the last group first."""

    def change(elements: Elements) -> bytes:
        pixels = element(PIXELS, *elements.pop(PIXELS))
        reverse = b"".join(element(tag, *elements[tag]) for tag in sorted(elements, reverse=True))
        return meta(elements) + reverse + pixels

    series = spoil_all(folder, rng, change)
    return [(series.grid(),), (refused("file", "damaged", "order", 6),)]


@damaged
def trailing_garbage(folder, rng):
    series = spoil_all(folder, rng, lambda elements: file_bytes(elements) + b"\xff" * 1001)
    return [(series.grid(),)]


@damaged
def trailing_padding_element(folder, rng):
    series = spoil_all(
        folder, rng, lambda elements: file_bytes(elements) + element(0xFFFCFFFC, "OB", CANARY.encode() * 100)
    )
    return [(series.grid(),)]


@damaged
def group_lengths_lie(folder, rng):
    """Group lengths are retired: a reader that believes them jumps into nowhere."""

    def change(elements: Elements) -> None:
        for group in (0x0008, 0x0010, 0x0020, 0x0028):
            elements[group << 16] = ("UL", struct.pack("<I", 0x7FFFFFFF))

    return [(spoil_all(folder, rng, change).grid(),)]


@damaged
def a_hundred_thousand_private_elements(folder, rng):
    filler = b"".join(
        element((0x0009 + 2 * (number >> 15)) << 16 | 0x1000 + (number & 0x7FFF), "LO", b"CANARY")
        for number in range(100_000)
    )

    def change(elements: Elements) -> None:
        elements[0x00090000] = ("", filler)

    return [(spoil_one(folder, rng, change).grid(),)]


@damaged
def huge_private_bytes_before_the_pixels(folder, rng):
    """200 MiB, sparse on disk, in one slice."""
    series = new_series(rng)
    paths = write_series(folder, series.slices)
    elements = series.elements(2)
    low = {tag: value for tag, value in elements.items() if tag < 0x00090000}
    high = {tag: value for tag, value in elements.items() if tag > 0x00090000}
    size = 200 << 20
    with paths[2].open("wb") as stream:
        stream.write(meta(elements) + body(low) + element(0x00091001, "OB", b"", size))
        stream.seek(size, 1)
        stream.write(body(high))
    return [(series.grid(),)]


def nested(depth: int, defined: bool, tag: int, vr: str) -> bytes:
    """Sequences in sequences; each level an element and an item around the next."""
    if not defined:
        opening = element(tag, vr, b"", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
        closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        return opening * depth + closing * depth
    left = 20 * (depth - 1)
    parts = []
    for _ in range(depth):
        parts.append(element(tag, vr, b"", left + 8) + item(b"", left))
        left -= 20
    return b"".join(parts)


def _deep(folder: Path, rng: np.random.Generator, nest: bytes, tag: int) -> list[Outcome]:
    """Skipped without being entered, or refused for what it is."""

    def change(elements: Elements) -> None:
        elements[tag] = ("", nest)

    series = spoil_one(folder, rng, change)
    return [(series.grid(),), *one_file("damaged", "nest|deep")]


@damaged
def nested_undefined(folder, rng):
    return _deep(folder, rng, nested(50_000, False, 0x00081140, "SQ"), 0x00081140)


@damaged
def nested_defined(folder, rng):
    return _deep(folder, rng, nested(50_000, True, 0x00081140, "SQ"), 0x00081140)


@damaged
def nested_private(folder, rng):
    return _deep(folder, rng, nested(50_000, False, 0x00091001, "SQ"), 0x00091001)


@damaged
def nested_private_unknown(folder, rng):
    """UN of undefined length holds implicit little endian: one sequence, its inside without representations."""
    opening = struct.pack("<HHIHHI", 0x0009, 0x1001, UNDEFINED, 0xFFFE, 0xE000, UNDEFINED)
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    first = element(0x00091001, "UN", b"", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    return _deep(folder, rng, first + opening * 49_999 + closing * 50_000, 0x00091001)


@damaged
def nested_in_a_tag_that_is_read(folder, rng):
    """Within a sequence that a reader of images wants to see."""
    return _deep(folder, rng, nested(50_000, False, 0x00283000, "SQ"), 0x00283000)


@damaged
def nested_in_patient_identifiers(folder, rng):
    return _deep(folder, rng, nested(50_000, True, 0x00101002, "SQ"), 0x00101002)


@damaged
def nested_implicit(folder, rng):
    series = new_series(rng)
    slices: list = [file_bytes(one, IMPLICIT) for one in series.slices]
    elements = series.elements(2)
    low = {tag: value for tag, value in elements.items() if tag < 0x00081140}
    high = {tag: value for tag, value in elements.items() if tag > 0x00081140}
    opening = struct.pack("<HHIHHI", 0x0008, 0x1140, UNDEFINED, 0xFFFE, 0xE000, UNDEFINED)
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    slices[2] = (
        meta(elements, IMPLICIT) + implicit_body(low) + (opening * 50_000 + closing * 50_000) + implicit_body(high)
    )
    write_series(folder, slices)
    return [(series.grid(),), *one_file("damaged", "nest|deep")]


def _bad_sequence(folder: Path, rng: np.random.Generator, content: bytes) -> list[Outcome]:
    def change(elements: Elements) -> None:
        elements[0x00081140] = ("", content)

    spoil_one(folder, rng, change)
    return list(one_file("damaged", f"sequence|{CUT}"))


@damaged
def sequence_longer_than_the_file(folder, rng):
    inside = item(body({0x00081155: ("UI", uid("1.2.3"))}))
    return _bad_sequence(folder, rng, element(0x00081140, "SQ", inside, 0x40000000))


@damaged
def sequence_never_closed(folder, rng):
    opened = element(0x00081140, "SQ", b"", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    return _bad_sequence(folder, rng, opened)


@damaged
def sequence_item_longer_than_its_sequence(folder, rng):
    """The sequence's own length is right: to skip it is safe, to walk into its item is not."""
    inside = item(body({0x00081155: ("UI", uid("1.2.3"))}), 0x7FFFFFF0)

    def change(elements: Elements) -> None:
        elements[0x00081140] = ("SQ", inside)

    series = spoil_one(folder, rng, change)
    return [(series.grid(),), *one_file("damaged", f"sequence|{CUT}")]


@damaged
def sequence_of_no_items(folder, rng):
    """Where an item should begin there is something else."""

    def change(elements: Elements) -> None:
        elements[0x00081140] = ("SQ", b"\x55" * 24)

    series = spoil_one(folder, rng, change)
    return [(series.grid(),), *one_file("damaged", "item|pars|sequence")]


@damaged
def icon_before_the_pixels(folder, rng):
    """An icon has pixel data, rows and columns of its own."""
    icon: Elements = {
        0x00280002: ("US", b"\1\0"),
        0x00280010: ("US", b"\x02\0"),
        0x00280011: ("US", b"\x02\0"),
        0x00280100: ("US", b"\x08\0"),
        PIXELS: ("OB", b"\1\2\3\4"),
    }

    def change(elements: Elements) -> None:
        elements[0x00880200] = sequence(icon)

    return [(spoil_all(folder, rng, change).grid(),)]


@damaged
def icon_of_undefined_length(folder, rng):
    icon = element(PIXELS, "OB", item(b"") + item(b"\1\2\3\4") + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), UNDEFINED)
    opened = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + icon
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)

    def change(elements: Elements) -> None:
        elements[0x00880200] = ("", element(0x00880200, "SQ", opened + closing, UNDEFINED))

    return [(spoil_all(folder, rng, change).grid(),)]


def zeros_deflated(n_mib: int) -> bytes:
    """A raw deflate stream, not ended, of zeros: one compressed MiB over and over, so that it costs no time to make."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (n_mib - 1)


def deflate(content: bytes, end: bool = True) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(content)
    return packed + packer.flush(zlib.Z_FINISH if end else zlib.Z_FULL_FLUSH)


def _deflated_series(folder: Path, rng: np.random.Generator, bad) -> list[Outcome]:
    series = new_series(rng)
    slices: list = [meta(one, DEFLATED) + deflate(body(one)) for one in series.slices]
    slices[2] = meta(series.elements(2), DEFLATED) + bad(series.elements(2))
    write_series(folder, slices)
    return list(one_file("deflate_bomb", r"inflates? to more|inflat"))


@damaged
def deflate_bomb_in_the_header(folder, rng):
    """1 MiB of file that inflates to 1.2 GiB, as a private element before everything of use."""

    def bad(elements: Elements) -> bytes:
        head = element(0x00080005, "CS", text("ISO_IR 100")) + element(0x00080007, "OB", b"", 1200 << 20)
        return deflate(head, end=False) + zeros_deflated(1200) + deflate(body(elements))

    return _deflated_series(folder, rng, bad)


@damaged
def deflate_bomb_in_the_pixels(folder, rng):
    def bad(elements: Elements) -> bytes:
        head = body({tag: value for tag, value in elements.items() if tag != PIXELS})
        return deflate(head + element(PIXELS, "OW", b"", 1200 << 20), end=False) + zeros_deflated(1200) + b"\3\0"

    return _deflated_series(folder, rng, bad)


@damaged
def deflate_bomb_of_empty_elements(folder, rng):
    """Zeros that parse as millions of elements."""

    def bad(elements: Elements) -> bytes:
        return deflate(body(elements), end=False) + zeros_deflated(1200) + b"\3\0"

    return _deflated_series(folder, rng, bad)


@damaged
def deflate_cut(folder, rng):
    _deflated_series(folder, rng, lambda elements: deflate(body(elements))[:-200])
    return one_file("damaged truncated_pixels", "deflate|cut|end|pixel|inflat")


@damaged
def deflate_garbage(folder, rng):
    _deflated_series(folder, rng, lambda elements: b"\xff" * 500)
    return one_file("damaged", "deflate|inflat|pars")


@damaged
def deflated_only_in_name(folder, rng):
    _deflated_series(folder, rng, body)
    return one_file("damaged", "deflate|inflat|pars")


@damaged
def explicit_that_says_implicit(folder, rng):
    series = spoil_all(folder, rng, lambda elements: meta(elements, IMPLICIT) + body(elements))
    return [(series.grid(),), (refused("file", "damaged", "syntax|pars|length|beyond", 6),)]


@damaged
def implicit_that_says_explicit(folder, rng):
    series = spoil_all(folder, rng, lambda elements: meta(elements, EXPLICIT) + implicit_body(elements))
    return [(series.grid(),), (refused("file", "damaged", "syntax|pars|representation", 6),)]


@damaged
def little_endian_that_says_big(folder, rng):
    spoil_all(folder, rng, lambda elements: meta(elements, "1.2.840.10008.1.2.2") + body(elements))
    return [(refused("file", "damaged", f"byte order|syntax|{CUT}", 6),)]
