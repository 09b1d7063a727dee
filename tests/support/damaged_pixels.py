"""Pixels that are absent, too short, of an absurd size or in a form that does not decode."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from damage import Outcome, damaged, one_file, refused, setting, spoil_all, spoil_one, whole_series
from dicom_bytes import (
    J2K,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LS,
    PIXELS,
    RLE,
    UNDEFINED,
    Elements,
    compress,
    element,
    encapsulated,
    file_bytes,
    item,
    new_series,
    short,
    text,
    write_series,
)
from PIL import Image

TOO_SHORT = r"pixel data.* (end|short)|\d+ of \d+ bytes"
UNDECODABLE = "undecodable_pixels truncated_pixels"
DECODE = "decod|pixel data|fragment|frame|compressed image|cut off"


@damaged
def truncated_pixels_in_one_slice(folder, rng):
    def halve(elements: Elements) -> None:
        elements[PIXELS] = ("OW", elements[PIXELS][1][:168])

    spoil_one(folder, rng, halve)
    return [(refused("series", "truncated_pixels", TOO_SHORT),), *one_file("truncated_pixels", TOO_SHORT)]


@damaged
def file_ends_in_the_pixels(folder, rng):
    spoil_one(folder, rng, lambda elements: file_bytes(elements)[:-100])
    return one_file("truncated_pixels damaged", f"{TOO_SHORT}|beyond|cut")


@damaged
def last_slice_ends_in_the_pixels(folder, rng):
    """The other slices make a volume without a gap: it must not come out as if it were whole, or the file is named."""
    spoil_one(folder, rng, lambda elements: file_bytes(elements)[:-100], k=5)
    return [(refused("series", "truncated_pixels damaged", f"{TOO_SHORT}|beyond|cut"),)]


@damaged
def pixels_of_no_length(folder, rng):
    spoil_one(folder, rng, setting(x7FE00010=("OW", b"")))
    return one_file("no_pixels truncated_pixels", "pixel")


@damaged
def pixels_missing(folder, rng):
    spoil_one(folder, rng, setting(x7FE00010=None))
    return one_file("no_pixels other_object", "pixel")


@damaged
def pixels_missing_everywhere(folder, rng):
    spoil_all(folder, rng, setting(x7FE00010=None))
    return whole_series("no_pixels", "pixel")


@damaged
def pixels_longer_than_needed(folder, rng):
    def pad(elements: Elements) -> None:
        elements[PIXELS] = ("OW", elements[PIXELS][1] + b"\x7f" * 100)

    return [(spoil_all(folder, rng, pad).grid(),)]


@damaged
def raw_pixels_of_undefined_length(folder, rng):
    def open_up(elements: Elements) -> None:
        elements[PIXELS] = ("", element(PIXELS, "OW", elements[PIXELS][1], UNDEFINED))

    spoil_all(folder, rng, open_up)
    return whole_series(
        "damaged undecodable_pixels truncated_pixels unsupported_syntax no_pixels", f"pixel|undefined|{DECODE}|pars"
    )


@damaged
def fragments_in_a_raw_syntax(folder, rng):
    def wrap(elements: Elements) -> None:
        elements[PIXELS] = encapsulated(elements[PIXELS][1])

    spoil_all(folder, rng, wrap)
    return whole_series("damaged undecodable_pixels truncated_pixels unsupported_syntax", f"pixel|undefined|{DECODE}")


@damaged
def float_pixels(folder, rng):
    def change(elements: Elements) -> None:
        pixels = np.frombuffer(elements.pop(PIXELS)[1], "<u2").astype("<f4")
        elements[0x00280100] = ("US", short(32))
        elements[0x7FE00008] = ("OF", pixels.tobytes())

    series = spoil_all(folder, rng, change)
    return [(series.grid(),), *whole_series("no_pixels bits", "float|pixel|bits")]


@damaged
def double_pixels(folder, rng):
    def change(elements: Elements) -> None:
        pixels = np.frombuffer(elements.pop(PIXELS)[1], "<u2").astype("<f8")
        elements[0x00280100] = ("US", short(64))
        elements[0x7FE00009] = ("OD", pixels.tobytes())

    series = spoil_all(folder, rng, change)
    return [(series.grid(),), *whole_series("no_pixels bits", "float|pixel|bits")]


def _attribute(name: str, says: str, codes: str, **values: tuple[str, bytes] | None) -> None:
    """A kind in which every slice has the same wrong attribute."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        spoil_all(folder, rng, setting(**values))
        return list(whole_series(codes, says))

    make.__name__ = name
    damaged(make)


BITS = "[Bb]its|BitsAllocated|BitsStored|HighBit"
_attribute("bits_allocated_64", BITS, "bits", x00280100=("US", short(64)))
_attribute("bits_allocated_0", BITS, "bits damaged", x00280100=("US", short(0)))
_attribute("bits_allocated_12", BITS, "bits", x00280100=("US", short(12)))
_attribute(
    "bits_allocated_1", BITS, "bits", x00280100=("US", short(1)), x00280101=("US", short(1)), x00280102=("US", short(0))
)
_attribute("bits_allocated_absent_as_text", BITS, "bits damaged", x00280100=("CS", text("many")))
_attribute("bits_stored_above_allocated", BITS, "bits", x00280101=("US", short(17)), x00280102=("US", short(16)))
_attribute("bits_stored_0", BITS, "bits", x00280101=("US", short(0)))
_attribute("high_bit_65535", BITS, "bits", x00280102=("US", short(65535)))
_attribute("samples_200", "[Ss]amples|colou?r", "colour samples", x00280002=("US", short(200)))
_attribute("palette_colour", "[Pp]alette|PALETTE|colou?r", "colour", x00280004=("CS", text("PALETTE COLOR")))
_attribute(
    "photometric_of_text", "[Pp]hotometric|colou?r", "colour photometric", x00280004=("CS", text("CANARY9081726354"))
)
_attribute("rows_0", "Rows", "damaged", x00280010=("US", short(0)))
_attribute("columns_absent", "Columns", "damaged", x00280011=None)
_attribute(
    "rows_and_columns_65535", f"Rows|voxels|too large|{TOO_SHORT}", "too_large truncated_pixels",
    x00280010=("US", short(65535)), x00280011=("US", short(65535)),
)  # fmt: skip
_attribute(
    "rows_and_columns_13000", f"Rows|voxels|too large|{TOO_SHORT}", "too_large truncated_pixels",
    x00280010=("US", short(13000)), x00280011=("US", short(13000)),
)  # fmt: skip
_attribute("frames_2147483647", "[Ff]rames", "multiframe damaged too_large frames", x00280008=("IS", text(2**31 - 1)))
_attribute("frames_negative", "[Ff]rames", "multiframe damaged frames", x00280008=("IS", text(-5)))
_attribute("frames_0", "[Ff]rames", "multiframe damaged frames", x00280008=("IS", text(0)))
_attribute("frames_text", "[Ff]rames", "multiframe damaged frames", x00280008=("IS", text("CANARY90817")))
_attribute(
    "frames_beyond_64_bits", "[Ff]rames", "multiframe damaged too_large frames", x00280008=("IS", text("9" * 30))
)
_attribute("rescale_slope_0", "RescaleSlope", "scaling damaged", x00281053=("DS", text("0")))
_attribute("rescale_slope_nan", "RescaleSlope", "scaling damaged", x00281053=("DS", text("nan")))
_attribute("rescale_slope_inf", "RescaleSlope", "scaling damaged", x00281053=("DS", text("1e400")))
_attribute("rescale_slope_text", "RescaleSlope|pars", "scaling damaged", x00281053=("DS", text("CANARY90817")))
_attribute("rescale_slope_1e300", "RescaleSlope|scaling|rescale", "scaling damaged", x00281053=("DS", text("1e300")))
_attribute(
    "rescale_intercept_1e300", "RescaleIntercept|scaling|rescale", "scaling damaged", x00281052=("DS", text("-1e300"))
)


@damaged
def pixel_representation_7(folder, rng):
    """Neither unsigned (0) nor signed (1)."""
    series = spoil_all(folder, rng, setting(x00280103=("US", short(7))))
    return [(series.grid(),), *whole_series("bits damaged", f"PixelRepresentation|{BITS}")]


@damaged
def padding_value_of_text(folder, rng):
    """PixelPaddingValue is not needed to read the values."""
    series = spoil_all(folder, rng, setting(x00280120=("CS", text("CANARY90817"))))
    return [(series.grid(),), *whole_series("damaged", "Padding|pars")]


@damaged
def overlay_beside_the_pixels_of_absurd_size(folder, rng):
    """Overlays are not read: what they claim must not matter."""
    overlay = setting(x60000010=("US", short(65535)), x60000011=("US", short(65535)), x60003000=("OW", b"\1\2"))
    return [(spoil_all(folder, rng, overlay).grid(),)]


def _syntax(name: str, syntax: str, codes: str = "unsupported_syntax", says: str = "syntax") -> None:
    """A kind in which the pixels, some fragment, are in a transfer syntax that cannot be read."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        series = new_series(rng)
        slices = [{**one, PIXELS: encapsulated(rng.bytes(200))} for one in series.slices]
        write_series(folder, slices, syntax)
        return list(whole_series(codes, says))

    make.__name__ = name
    damaged(make)


_syntax("syntax_mpeg2", "1.2.840.10008.1.2.4.100")
_syntax("syntax_h264", "1.2.840.10008.1.2.4.102")
_syntax("syntax_jpip", "1.2.840.10008.1.2.4.94")
_syntax("syntax_private", "1.3.46.670589.33.1.4.1")
_syntax("syntax_unknown", "1.2.840.10008.1.2.4.999")
_syntax("syntax_of_text", "CANARY9081726354", "unsupported_syntax damaged")
_syntax("syntax_that_is_a_class", "1.2.840.10008.5.1.4.1.1.2", "unsupported_syntax damaged")


def _encoded(folder: Path, rng: np.random.Generator, syntax: str, spoil) -> list[Outcome]:
    """A compressed series in which ``spoil(frame, pixels)`` makes the pixel element of one slice."""
    series = new_series(rng, rows=32, columns=36)
    slices = []
    for k, elements in enumerate(series.slices):
        frame = compress(series.stored[k], syntax)
        slices.append({**elements, PIXELS: spoil(frame, series.stored[k]) if k == 2 else encapsulated(frame)})
    write_series(folder, slices, syntax)
    return [(refused("series", UNDECODABLE, DECODE),), *one_file(UNDECODABLE, DECODE)]


@damaged
def j2k_truncated(folder, rng):
    return _encoded(folder, rng, J2K, lambda frame, _: encapsulated(frame[: len(frame) // 2]))


@damaged
def j2k_header_only(folder, rng):
    return _encoded(folder, rng, J2K, lambda frame, _: encapsulated(frame[:60]))


@damaged
def j2k_garbage(folder, rng):
    return _encoded(folder, rng, J2K, lambda frame, _: encapsulated(rng.bytes(len(frame))))


@damaged
def j2k_that_is_raw(folder, rng):
    return _encoded(folder, rng, J2K, lambda _, pixels: ("OW", pixels.astype("<u2").tobytes()))


@damaged
def j2k_no_fragments(folder, rng):
    return _encoded(folder, rng, J2K, lambda *_: encapsulated())


@damaged
def j2k_of_other_size(folder, rng):
    """Rows and columns the wrong way round."""
    return _encoded(folder, rng, J2K, lambda _, pixels: encapsulated(compress(pixels.T.copy(), J2K)))


def _claims(frame: bytes, rows: int, columns: int) -> bytes:
    """A JPEG 2000 code stream whose SIZ marker claims another image and tile size."""
    content = bytearray(frame)
    at = content.index(b"\xff\x51") + 6
    struct.pack_into(">II", content, at, columns, rows)
    struct.pack_into(">II", content, at + 16, columns, rows)
    return bytes(content)


@damaged
def j2k_bomb(folder, rng):
    """A few hundred bytes that claim 60,000 x 60,000 pixels; the header says 32 x 36."""
    return _encoded(folder, rng, J2K, lambda frame, _: encapsulated(_claims(frame, 60_000, 60_000)))


def _bomb_that_agrees(folder: Path, rng: np.random.Generator, syntax: str, frame: bytes, size: int) -> list[Outcome]:
    """Header and code stream claim the same absurd size, in every slice; a few hundred bytes hold it."""
    more = {0x00280010: ("US", short(size)), 0x00280011: ("US", short(size)), PIXELS: encapsulated(frame)}
    series = new_series(rng)
    write_series(folder, [{**one, **more} for one in series.slices], syntax)
    return list(whole_series("too_large undecodable_pixels truncated_pixels", f"Rows|voxels|too large|{DECODE}"))


@damaged
def j2k_bomb_that_agrees(folder, rng):
    frame = compress(rng.integers(0, 2000, (32, 36)), J2K)
    return _bomb_that_agrees(folder, rng, J2K, _claims(frame, 13_000, 13_000), 13_000)


@damaged
def rle_bomb_that_agrees(folder, rng):
    """Runs of 128 zeros, two bytes each: 2 x 2.6 MB of file for 338 MB a slice."""
    size = 13_000
    plane = b"\x81\0" * -(-size * size // 128)
    header = struct.pack("<16I", 2, 64, 64 + len(plane), *[0] * 13)
    more = {0x00280010: ("US", short(size)), 0x00280011: ("US", short(size))}
    series = new_series(rng)
    write_series(folder, [{**one, **more, PIXELS: encapsulated(header + plane + plane)} for one in series.slices], RLE)
    return whole_series("too_large", "Rows|voxels|too large")


@damaged
def jpeg_ls_bomb(folder, rng):
    """A frame header (SOF55) that claims 65,000 x 65,000 pixels."""

    def claim(frame: bytes, _: np.ndarray) -> tuple[str, bytes]:
        content = bytearray(frame)
        struct.pack_into(">HH", content, content.index(b"\xff\xf7") + 5, 65_000, 65_000)
        return encapsulated(bytes(content))

    return _encoded(folder, rng, JPEG_LS, claim)


@damaged
def jpeg_ls_truncated(folder, rng):
    return _encoded(folder, rng, JPEG_LS, lambda frame, _: encapsulated(frame[: len(frame) // 2]))


@damaged
def jpeg_ls_without_its_last_bytes(folder, rng):
    """Decoders make up the few pixels that are absent."""
    return _encoded(folder, rng, JPEG_LS, lambda frame, _: encapsulated(frame[:-8]))


@damaged
def jpeg_baseline_truncated(folder, rng):
    series = new_series(rng, rows=32, columns=36)
    bits = {0x00280100: ("US", short(8)), 0x00280101: ("US", short(8)), 0x00280102: ("US", short(7))}
    slices = []
    for k, elements in enumerate(series.slices):
        packed = io.BytesIO()
        Image.fromarray((series.stored[k] >> 3).astype(np.uint8)).save(packed, "JPEG", quality=95)
        frame = packed.getvalue()
        slices.append({**elements, **bits, PIXELS: encapsulated(frame[: len(frame) // 2] if k == 2 else frame)})
    write_series(folder, slices, JPEG_BASELINE)
    return [(refused("series", UNDECODABLE, DECODE),), *one_file(UNDECODABLE, DECODE)]


def _jpeg(folder: Path, rng: np.random.Generator, syntax: str, marker: int, size: int) -> list[Outcome]:
    """A frame header, one Huffman table, a scan of garbage."""
    bits = 8 if syntax == JPEG_BASELINE else 12
    frame = b"\xff\xd8" + struct.pack(">HHBHHBBBB", 0xFF00 | marker, 11, bits, size, size, 1, 1, 0x11, 0)
    if syntax == JPEG_BASELINE:
        frame += struct.pack(">HHB", 0xFFDB, 67, 0) + b"\1" * 64
        frame += struct.pack(">HHB", 0xFFC4, 20, 0x10) + b"\1" + bytes(15) + b"\0"
    frame += struct.pack(">HHB", 0xFFC4, 20, 0x00) + b"\1" + bytes(15) + b"\0"
    frame += struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, *((0, 63) if syntax == JPEG_BASELINE else (1, 0)), 0)
    frame += rng.bytes(300).replace(b"\xff", b"\0")
    bits_stored = {
        0x00280100: ("US", short(8 if bits == 8 else 16)),
        0x00280101: ("US", short(bits)),
        0x00280102: ("US", short(bits - 1)),
    }
    series = new_series(rng)
    slices = [{**one, **bits_stored, PIXELS: encapsulated(frame)} for one in series.slices]
    write_series(folder, slices, syntax)
    return list(whole_series(UNDECODABLE + " too_large", DECODE))


@damaged
def jpeg_baseline_bomb(folder, rng):
    return _jpeg(folder, rng, JPEG_BASELINE, 0xC0, 65_000)


@damaged
def jpeg_lossless_bomb(folder, rng):
    return _jpeg(folder, rng, JPEG_LOSSLESS, 0xC3, 65_000)


@damaged
def jpeg_garbage(folder, rng):
    series = new_series(rng)
    bits = {0x00280100: ("US", short(8)), 0x00280101: ("US", short(8)), 0x00280102: ("US", short(7))}
    frame = b"\xff\xd8\xff\xe0" + rng.bytes(300)
    write_series(folder, [{**one, **bits, PIXELS: encapsulated(frame)} for one in series.slices], JPEG_BASELINE)
    return whole_series(UNDECODABLE, DECODE)


@damaged
def rle_truncated(folder, rng):
    return _encoded(folder, rng, RLE, lambda frame, _: encapsulated(frame[: len(frame) // 2]))


def _rle_header(frame: bytes, *values: int) -> tuple[str, bytes]:
    return encapsulated(struct.pack(f"<{len(values)}I", *values) + frame[4 * len(values) :])


@damaged
def rle_offsets_beyond_the_frame(folder, rng):
    return _encoded(folder, rng, RLE, lambda frame, _: _rle_header(frame, 2, 64, 0x7FFFFFF0))


@damaged
def rle_offsets_backwards(folder, rng):
    return _encoded(folder, rng, RLE, lambda frame, _: _rle_header(frame, 2, 200, 64))


@damaged
def rle_of_a_billion_segments(folder, rng):
    """A reader that knows how many there must be does not believe the number."""
    series = new_series(rng, rows=32, columns=36)
    frames = [compress(pixels, RLE) for pixels in series.stored]
    slices = [{**one, PIXELS: _rle_header(frame, 1 << 30)} for one, frame in zip(series.slices, frames, strict=True)]
    write_series(folder, slices, RLE)
    return [(series.grid(),), *whole_series(UNDECODABLE, DECODE)]


@damaged
def fragment_longer_than_the_file(folder, rng):
    """Nothing is lost: the code stream ends where the file does."""
    series = new_series(rng, rows=32, columns=36)
    slices = [
        {**one, PIXELS: ("", element(PIXELS, "OB", item(b"") + item(compress(pixels, J2K), 0x7FFFFFF0), UNDEFINED))}
        for one, pixels in zip(series.slices, series.stored, strict=True)
    ]
    write_series(folder, slices, J2K)
    return [(series.grid(),), *whole_series(UNDECODABLE + " damaged", f"{DECODE}|longer than the rest")]


@damaged
def file_ends_in_a_fragment(folder, rng):
    def cut(frame: bytes, _: np.ndarray) -> tuple[str, bytes]:
        whole = encapsulated(frame)[1]
        return "", whole[: len(whole) - len(frame) // 3]

    outcomes = _encoded(folder, rng, RLE, cut)
    return [*outcomes, *one_file(UNDECODABLE + " damaged", f"{DECODE}|longer than the rest")]


@damaged
def fragment_shorter_than_its_content(folder, rng):
    def lie(frame: bytes, _: np.ndarray) -> tuple[str, bytes]:
        end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return "", element(PIXELS, "OB", item(b"") + item(frame, 40) + end, UNDEFINED)

    outcomes = _encoded(folder, rng, J2K, lie)
    return [*outcomes, *one_file("damaged", DECODE), (refused("series", "damaged", DECODE),)]


@damaged
def fragments_not_closed(folder, rng):
    """The last fragment is whole; only the delimiter after it is absent."""
    series = new_series(rng, rows=32, columns=36)
    frames = [encapsulated(compress(pixels, J2K), close=False) for pixels in series.stored]
    write_series(folder, [{**one, PIXELS: frame} for one, frame in zip(series.slices, frames, strict=True)], J2K)
    return [(series.grid(),), *whole_series("damaged undecodable_pixels truncated_pixels", f"{DECODE}|cut|end|pars")]


@damaged
def offset_table_lies(folder, rng):
    """One frame in one fragment: its offset is not needed."""
    series = new_series(rng, rows=32, columns=36)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    slices = []
    for one, pixels in zip(series.slices, series.stored, strict=True):
        frame = compress(pixels, J2K)
        content = item(struct.pack("<I", 0x7FFFFFF0)) + item(frame + b"\0" * (len(frame) % 2)) + end
        slices.append({**one, PIXELS: ("", element(PIXELS, "OB", content, UNDEFINED))})
    write_series(folder, slices, J2K)
    return [(series.grid(),), *whole_series(UNDECODABLE + " damaged", f"{DECODE}|offset")]


@damaged
def offset_table_of_odd_length(folder, rng):
    series = new_series(rng, rows=32, columns=36)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    slices = []
    for one, pixels in zip(series.slices, series.stored, strict=True):
        frame = compress(pixels, J2K)
        content = item(b"\1\2\3\4\5\6") + item(frame + b"\0" * (len(frame) % 2)) + end
        slices.append({**one, PIXELS: ("", element(PIXELS, "OB", content, UNDEFINED))})
    write_series(folder, slices, J2K)
    return [(series.grid(),), *whole_series(UNDECODABLE + " damaged", f"{DECODE}|offset")]


@damaged
def two_frames_of_fragments_for_one(folder, rng):
    """Two whole code streams where the header promises one frame."""
    series = new_series(rng, rows=32, columns=36)
    slices = [
        {**one, PIXELS: encapsulated(*[compress(pixels, J2K)] * 2)}
        for one, pixels in zip(series.slices, series.stored, strict=True)
    ]
    write_series(folder, slices, J2K)
    return [(series.grid(),), *whole_series(UNDECODABLE + " damaged", f"{DECODE}|frames")]
