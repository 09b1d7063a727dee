"""Compressed frames keep their image and lose what stands beside it."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_tl.dicom.jpeg_2000_cleaning import clean_jpeg_2000
from monai_tl.dicom.jpeg_cleaning import clean_jpeg
from monai_tl.errors import DicomError

WORD = b"KANARIVOGEL"


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56)).astype(np.uint8)


def jpeg(comment: bytes = b"", progressive: bool = False) -> bytes:
    """By Pillow, which is no part of the reading side."""
    pillow = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    exif = pillow.Exif()
    exif[0x010E] = comment.decode()
    pillow.fromarray(image()).save(
        buffer, "JPEG", quality=90, comment=comment, exif=exif, progressive=progressive, restart_marker_blocks=2
    )
    return buffer.getvalue()


def pixels_of(stream: bytes) -> np.ndarray:
    pillow = pytest.importorskip("PIL.Image")
    return np.asarray(pillow.open(io.BytesIO(stream)))


def jpeg_2000() -> bytes:
    openjpeg = pytest.importorskip("openjpeg")
    return bytes(openjpeg.encode(image()))


@pytest.mark.parametrize("progressive", [False, True])
def test_comments_and_application_data_of_a_jpeg_go(progressive):
    given = jpeg(WORD, progressive)
    # thumbnails and colour profiles live in application segments as well
    given = given[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(WORD)) + WORD + given[2:] + WORD
    assert given.count(WORD) == 4
    done = clean_jpeg(given)
    cleaned, precision = done.stream, done.precision
    assert WORD not in cleaned
    assert (cleaned[:2], cleaned[-2:], precision) == (b"\xff\xd8", b"\xff\xd9", 8)
    np.testing.assert_array_equal(pixels_of(cleaned), pixels_of(given))


def test_a_comment_between_the_scans_of_a_jpeg_goes():
    given = jpeg(b"", progressive=True)
    second = given.rindex(b"\xff\xda")
    given = given[:second] + b"\xff\xfe" + struct.pack(">H", 2 + len(WORD)) + WORD + given[second:]
    cleaned = clean_jpeg(given).stream
    assert WORD not in cleaned
    np.testing.assert_array_equal(pixels_of(cleaned), pixels_of(given))


def test_a_clean_jpeg_is_left_as_it_is():
    cleaned = clean_jpeg(jpeg()).stream
    assert clean_jpeg(cleaned).stream == cleaned


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        WORD,
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xf8\x00\x05\x02ab\xff\xd9",
        b"\xff\xd8\xff\xbf\x00\x02",
    ],
)
def test_what_is_no_jpeg_is_refused(stream):
    with pytest.raises(DicomError) as caught:
        clean_jpeg(stream)
    assert caught.value.code == "undecodable_pixels"


def with_comment(stream: bytes, marker: bytes) -> bytes:
    """A comment in front of the first such segment; lengths of tile parts follow."""
    segment = b"\xff\x64" + struct.pack(">HH", 4 + len(WORD), 1) + WORD
    at = stream.index(marker)
    mended = bytearray(stream[:at] + segment + stream[at:])
    tile = stream.index(b"\xff\x90")
    if at > tile:
        part = struct.unpack_from(">I", stream, tile + 6)[0]
        struct.pack_into(">I", mended, tile + 6, part + len(segment))
    return bytes(mended)


@pytest.mark.parametrize("marker", [b"\xff\x52", b"\xff\x90", b"\xff\x93"])
def test_comments_of_a_codestream_go_from_the_main_and_the_tile_header(marker):
    openjpeg = pytest.importorskip("openjpeg")
    given = with_comment(jpeg_2000(), marker)
    np.testing.assert_array_equal(openjpeg.decode(given), image())
    done = clean_jpeg_2000(given + WORD)
    cleaned, precision = done.stream, done.precision
    assert done.is_bare
    assert given.count(WORD) == 1
    assert WORD not in cleaned
    assert precision == 8
    np.testing.assert_array_equal(openjpeg.decode(cleaned), image())


def test_the_box_file_around_a_codestream_goes():
    openjpeg = pytest.importorskip("openjpeg")
    stream = jpeg_2000()
    boxes = struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A) + struct.pack(">I4s", 8 + len(WORD), b"xml ") + WORD
    cleaned = clean_jpeg_2000(boxes + struct.pack(">I4s", 8 + len(stream), b"jp2c") + stream + WORD).stream
    assert WORD not in cleaned
    np.testing.assert_array_equal(openjpeg.decode(cleaned), image())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6), st.integers(0, 4000))
def test_damaged_streams_are_refused_or_cleaned_and_never_crash(changes, cut):
    for clean, stream in ((clean_jpeg, _JPEG), (clean_jpeg_2000, _JPEG_2000)):
        broken = bytearray(stream)
        for place, value in changes:
            broken[place % len(broken)] = value
        # nothing but the refusal of this module may come out
        with contextlib.suppress(DicomError):
            clean(bytes(broken[: len(broken) - cut % len(broken)]))


_JPEG, _JPEG_2000 = jpeg(WORD), jpeg_2000()
