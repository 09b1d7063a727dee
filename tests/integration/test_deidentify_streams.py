"""Compressed frames on their way out: what stands in a stream beside its image does not leave, and the image does."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import save, slice_dataset
from htj2k_streams import LOSSLESS
from jpeg_streams import encode_lossless
from pydicom.encaps import encapsulate, get_frame

from monai_tl.commands import deidentify
from monai_tl.dicom.decoding import FrameForm, decode_frame
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import DataError, DicomError

WORD = b"KANARIVOGEL"
JPEG, LOSSLESS_JPEG, JPEG_LS, JPEG_2000, HTJ2K = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 70, 80, 90, 201))
SHAPE = (40, 56)
PICTURE = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def compressed_slice(stream: bytes, syntax: str, shape: tuple[int, int] = SHAPE, bits: int = 8) -> pydicom.FileDataset:
    """A slice whose header says one grey value a pixel, whatever the stream holds."""
    allocated = 8 if bits == 8 else 16
    dataset = slice_dataset(
        np.zeros(shape, np.uint16), (0.0, 0.0, 0.0), 1, BitsAllocated=allocated, BitsStored=bits, HighBit=bits - 1
    )
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].VR = "OB"
    return dataset


def run(tmp_path: Path, dataset: pydicom.FileDataset) -> tuple[list[Path], list[str]]:
    """Files written and codes of those refused."""
    save(dataset, tmp_path / "in" / "a.dcm")
    create_key(tmp_path / "key")
    # when nothing was written: the list is there all the same
    with contextlib.suppress(DataError):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "key")
    rejected = json.loads((tmp_path / "out" / "rejected.json").read_text())["rejected"]
    return sorted((tmp_path / "out").rglob("*.dcm")), [one["code"] for one in rejected]


def values_of(dataset: pydicom.FileDataset) -> np.ndarray:
    """By one decoder before and after: those of lossy JPEG differ by one here and there."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return dataset.pixel_array
    form = FrameForm(dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored, False)
    return decode_frame(get_frame(dataset.PixelData, 0, number_of_frames=1), syntax, form)


def by_pillow(kind: str, picture: np.ndarray = PICTURE, **options: object) -> bytes:
    pillow = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    pillow.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def in_front(content: bytes):
    return lambda stream: stream[:2] + content + stream[2:]


def before_the_end(content: bytes):
    return lambda stream: stream[:-2] + content + stream[-2:]


def tile_part(head: bytes = b"", tail: bytes = b""):
    """More in the header and behind the data of the one tile, its length mended."""

    def change(stream: bytes) -> bytes:
        start, data = stream.index(b"\xff\x90"), stream.index(b"\xff\x93")
        length = struct.unpack_from(">I", stream, start + 6)[0]
        length = length + len(head) + len(tail) if length else 0
        begin = stream[: start + 6] + struct.pack(">I", length) + stream[start + 10 : data]
        return begin + head + stream[data:-2] + tail + b"\xff\xd9"

    return change


def main_header(content: bytes):
    return lambda stream: stream.replace(b"\xff\x90", content + b"\xff\x90", 1)


_HIDDEN = {
    "quantisation table of no component": in_front(segment(0xDB, b"\x03" + WORD.ljust(64, b"."))),
    "same quantisation table before": in_front(segment(0xDB, b"\x00" + WORD.ljust(64, b"."))),
    "Huffman table of no scan": in_front(segment(0xC4, b"\x13" + bytes([0] * 7 + [len(WORD)] + [0] * 8) + WORD)),
    "same Huffman table before": in_front(segment(0xC4, b"\x10" + bytes([0] * 7 + [len(WORD)] + [0] * 8) + WORD)),
    "bytes behind a table": in_front(segment(0xDB, b"\x00" + bytes(range(1, 65)) + WORD)),
    "restart interval": in_front(segment(0xDD, b"\0\0" + WORD)),
    "arithmetic coding": in_front(segment(0xCC, WORD + b".")),
    "number of lines": in_front(segment(0xDC, WORD)),
    "lines behind the scan": before_the_end(segment(0xDC, WORD)),
    "a table behind the scan": before_the_end(segment(0xDB, b"\x00" + WORD.ljust(64, b"."))),
    "behind the coded data": before_the_end(WORD),
    "comment": in_front(segment(0xFE, WORD)),
    "application": in_front(segment(0xEE, WORD)),
}
_HIDDEN_2000 = {
    "packet lengths in the main header": main_header(segment(0x57, WORD)),
    "packet lengths in the tile": tile_part(head=segment(0x58, WORD)),
    "behind the coded data": tile_part(tail=WORD),
    "registration": main_header(segment(0x63, WORD)),
    "lengths of tile parts": main_header(segment(0x55, WORD)),
    "comment in the tile": tile_part(head=segment(0x64, b"\0\1" + WORD)),
    "behind the end": lambda stream: stream + WORD,
    "a region": main_header(segment(0x5E, b"\0\0\0" + WORD)),
    "style of a component": main_header(segment(0x53, b"\0" + WORD)),
}
_STAYS_COMPRESSED = ("comment", "application", "packet lengths", "registration", "lengths of", "behind the end")


@pytest.mark.parametrize(
    ("syntax", "name"), [*((JPEG, name) for name in _HIDDEN), *((JPEG_2000, name) for name in _HIDDEN_2000)]
)
def test_what_stands_beside_the_image_does_not_leave(tmp_path, syntax, name):
    clean = by_pillow("JPEG") if syntax == JPEG else by_pillow("JPEG2000", no_jp2=True)
    stream = (_HIDDEN if syntax == JPEG else _HIDDEN_2000)[name](clean)
    assert stream.count(WORD) == 1
    made, codes = run(tmp_path, compressed_slice(stream, syntax))
    if codes:
        # no decoder takes these
        assert (codes, made) == (["undecodable_pixels"], [])
        return
    (path,) = made
    assert WORD not in path.read_bytes()
    after = pydicom.dcmread(path)
    assert after.file_meta.TransferSyntaxUID.is_compressed == name.startswith(_STAYS_COMPRESSED)
    expected = decode_frame(clean, syntax, FrameForm(*SHAPE, 8, 8, False))
    np.testing.assert_array_equal(values_of(after), expected)


def lossless_2000() -> bytes:
    return bytes(pytest.importorskip("openjpeg").encode(PICTURE))


def jpeg_ls() -> bytes:
    return bytes(pytest.importorskip("jpeg_ls").encode(PICTURE))


@pytest.mark.parametrize(
    ("syntax", "encode", "shape", "bits"),
    [
        (JPEG, lambda: by_pillow("JPEG"), SHAPE, 8),
        (LOSSLESS_JPEG, lambda: encode_lossless(PICTURE, 8), SHAPE, 8),
        (JPEG_LS, jpeg_ls, SHAPE, 8),
        (JPEG_2000, lossless_2000, SHAPE, 8),
        (HTJ2K, lambda: LOSSLESS[0], (13, 10), 12),
    ],
)
@pytest.mark.parametrize("tail", [b"", WORD])
def test_a_stream_stays_as_it_is_unless_something_follows_its_image(tmp_path, syntax, encode, shape, bits, tail):
    clean = encode()
    is_2000 = clean[:2] == b"\xff\x4f"
    stream = (tile_part(tail=tail) if is_2000 else before_the_end(tail))(clean)
    made, codes = run(tmp_path, compressed_slice(stream, syntax, shape, bits))
    expected = decode_frame(clean, syntax, FrameForm(*shape, 8 if bits == 8 else 16, bits, False))
    if tail and codes:
        assert (codes, made) == (["undecodable_pixels"], [])
        return
    assert codes == []
    (path,) = made
    assert WORD not in path.read_bytes()
    after = pydicom.dcmread(path)
    assert after.file_meta.TransferSyntaxUID == (pydicom.uid.ExplicitVRLittleEndian if tail else syntax)
    np.testing.assert_array_equal(values_of(after), expected)


@pytest.mark.parametrize(
    ("kind", "syntax", "options"),
    [
        ("JPEG", "1.2.840.10008.1.2.4.50", {"subsampling": 0}),
        ("JPEG2000", "1.2.840.10008.1.2.4.90", {"no_jp2": True}),
        ("JPEG2000", "1.2.840.10008.1.2.4.90", {"no_jp2": False}),
    ],
)
def test_a_screenshot_in_a_header_of_grey_values_is_held_back_and_not_read(tmp_path, kind, syntax, options):
    picture = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    stream = by_pillow(kind, picture, **options)
    assert run(tmp_path, compressed_slice(stream, syntax)) == ([], ["colour"])
    with pytest.raises(DicomError) as caught:
        decode_frame(stream, syntax, FrameForm(*SHAPE, 8, 8, False))
    assert caught.value.code == "colour"
