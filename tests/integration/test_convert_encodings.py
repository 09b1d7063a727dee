"""Every transfer syntax gives the values that were written, each at its place in the world."""

from __future__ import annotations

import io

import numpy as np
import pytest
from conversion import assert_holds, convert_folder
from PIL import Image
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from transfer_syntaxes import (
    COLUMNS,
    COMPRESSED,
    N_SLICES,
    NATIVE,
    ROWS,
    Bits,
    encode_frame,
    oblique_place,
    pattern,
    shape_of,
    smooth,
    write_slices,
)

# what a library says of a file in a warning may quote it
pytestmark = pytest.mark.filterwarnings("error::UserWarning")
UNSIGNED = ("rle", "jpeg lossless", "jpeg lossless, mean", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000 lossless",
            "jpeg 2000, lossless stream", "htj2k lossless", "htj2k lossless rpcl")  # fmt: skip
SIGNED = ("rle", "jpeg lossless", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000 lossless", "jpeg 2000, lossless stream")
SIXTEEN = ("rle", "jpeg lossless", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000 lossless")
EIGHT = ("rle", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000 lossless")
PLACE = oblique_place()
IN_PARTS = [
    name for name in COMPRESSED if name.startswith(("jpeg 2000", "jpeg-ls", "htj2k l", "jpeg lossless", "jpeg ext"))
]


def check(tmp_path, stored, bits, syntax, tolerance=0.0, **options):
    """Stored values go through slope 1 and intercept -1024."""
    write_slices(tmp_path / "in", stored, PLACE, bits=bits, syntax=syntax, **options)
    found = convert_folder(tmp_path / "in", tmp_path)
    assert (found.volume["n_slices"], found.volume["n_files"]) == (N_SLICES, N_SLICES)
    assert_holds(found.image(), PLACE, stored - 1024, tolerance)


@pytest.mark.parametrize("syntax", [*NATIVE, *UNSIGNED])
def test_twelve_bits_without_sign(tmp_path, syntax):
    check(tmp_path, pattern(12, shape_of(syntax)), Bits(), syntax)


@pytest.mark.parametrize("syntax", [*NATIVE, *SIGNED])
def test_twelve_bits_with_sign_that_must_be_carried_up(tmp_path, syntax):
    check(tmp_path, pattern(12, shape_of(syntax)) - 2048, Bits(signed=True), syntax)


def test_sixteen_bits_with_sign_in_high_throughput_jpeg_2000(tmp_path):
    check(tmp_path, pattern(12) - 2048, Bits(stored=16, signed=True), "htj2k signed")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [*NATIVE, *SIXTEEN])
def test_all_sixteen_bits(tmp_path, syntax, signed):
    check(tmp_path, pattern(16, shape_of(syntax)) - (32768 if signed else 0), Bits(stored=16, signed=signed), syntax)


@pytest.mark.parametrize("syntax", [*NATIVE, *EIGHT])
def test_eight_bits(tmp_path, syntax):
    """13 x 10 pixels are an even number of bytes; 13 x 9 are not, and a byte of padding follows them."""
    check(tmp_path, pattern(8, shape_of(syntax)), Bits(8, 8), syntax)


@pytest.mark.parametrize("syntax", [*NATIVE, "rle"])
def test_eight_bits_of_an_odd_number_of_pixels(tmp_path, syntax):
    stored = pattern(8)[:, :, :9]
    check(tmp_path, stored, Bits(8, 8), syntax)


def test_eight_bits_as_big_endian_words(tmp_path):
    """PS3.5 8.1.2: with VR OW two pixels of 8 bits share a word, whose bytes are swapped in big endian."""

    def as_words(ds: FileDataset) -> None:
        ds["PixelData"].VR = "OW"
        ds.PixelData = np.frombuffer(ds.PixelData, "u2").byteswap().tobytes()

    check(tmp_path, pattern(8), Bits(8, 8), "explicit big", edit=as_words)


@pytest.mark.parametrize("syntax", [*NATIVE, "rle"])
def test_signed_eight_bits(tmp_path, syntax):
    check(tmp_path, pattern(8, shape_of(syntax)) - 128, Bits(8, 8, signed=True), syntax)


def test_jpeg_baseline_as_another_decoder_reads_it(tmp_path):
    stored = smooth() // 6
    write_slices(tmp_path / "in", stored, PLACE, bits=Bits(8, 8), syntax="jpeg baseline")
    streams = [encode_frame(plane, Bits(8, 8), "jpeg baseline") for plane in stored]
    reference = np.array([np.asarray(Image.open(io.BytesIO(stream))) for stream in streams], dtype=np.int64)
    assert np.abs(reference - stored).max() <= 2
    assert_holds(convert_folder(tmp_path / "in", tmp_path).image(), PLACE, reference - 1024, tolerance=1.0)


# the bound stated at encoding (near-lossless), or that of rounding coefficients
@pytest.mark.parametrize(
    ("syntax", "tolerance"), [("jpeg extended", 2), ("jpeg-ls near", 2), ("jpeg 2000", 2), ("htj2k", 2)]
)
def test_lossy_syntaxes_stay_within_their_error(tmp_path, syntax, tolerance):
    check(tmp_path, smooth(shape_of(syntax)), Bits(), syntax, tolerance)


def test_near_lossless_is_lossy_in_this_file():
    """Else the test above would show nothing of it."""
    plane = smooth()[0] + np.random.default_rng(0).integers(0, 9, (ROWS, COLUMNS))
    near, exact = (encode_frame(plane, Bits(), name) for name in ("jpeg-ls near", "jpeg-ls"))
    assert len(near) < len(exact)


@pytest.mark.parametrize("table", ["basic", "none"])
@pytest.mark.parametrize("syntax", IN_PARTS)
def test_frames_in_several_fragments(tmp_path, syntax, table):
    lossy = syntax in ("jpeg extended", "jpeg-ls near", "jpeg 2000")
    stored = smooth(shape_of(syntax)) if lossy else pattern(12, shape_of(syntax))
    check(tmp_path, stored, Bits(), syntax, 2.0 * lossy, layout={"fragments": 3, "table": table})


@pytest.mark.parametrize("syntax", ["rle", "jpeg-ls", "jpeg 2000 lossless", "jpeg lossless sv1"])
def test_extended_offset_table(tmp_path, syntax):
    check(tmp_path, pattern(12, shape_of(syntax)), Bits(), syntax, layout={"table": "extended"})


@pytest.mark.parametrize("syntax", ["jpeg-ls", "jpeg 2000 lossless", "jpeg lossless sv1", "htj2k lossless"])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_zeros_after_the_end_of_a_stream(tmp_path, syntax, length):
    """An item has an even length; some writers pad to more."""
    check(tmp_path, pattern(12, shape_of(syntax)), Bits(), syntax, layout={"padding": b"\0" * length})


def test_jpeg_2000_that_calls_signed_pixels_unsigned(tmp_path):
    """A known slip of writers: the stream's own sign bit contradicts PixelRepresentation; the bits are what counts."""
    stored = pattern(12, shape_of("jpeg 2000 lossless"))

    def call_signed(ds: FileDataset) -> None:
        ds.PixelRepresentation = 1

    write_slices(tmp_path / "in", stored, PLACE, bits=Bits(), syntax="jpeg 2000 lossless", edit=call_signed)
    expected = np.where(stored >= 2048, stored - 4096, stored) - 1024
    assert_holds(convert_folder(tmp_path / "in", tmp_path).image(), PLACE, expected)


def test_one_series_in_several_syntaxes(tmp_path):
    """Archives compress what arrives at different times differently."""
    stored = pattern(12, shape_of("jpeg 2000 lossless"))
    for k, syntax in enumerate(["implicit little", "jpeg 2000 lossless", "rle", "explicit big"]):
        place = oblique_place(1, PLACE.positions[k])
        write_slices(tmp_path / f"in/{k}", stored[k : k + 1], place, syntax=syntax, SOPInstanceUID=f"1.2.3.4.{k + 1}")
    assert_holds(convert_folder(tmp_path / "in", tmp_path).image(), PLACE, stored - 1024)


@pytest.mark.parametrize("syntax", ["rle", "jpeg lossless", "jpeg lossless sv1", "jpeg-ls", "jpeg 2000 lossless"])
@pytest.mark.parametrize("signed", [False, True])
def test_streams_wider_than_the_stored_bits(tmp_path, syntax, signed):
    """Some writers compress all 16 bits of a word of which 12 are stored, the sign carried up."""
    stored = pattern(12, shape_of(syntax)) - 2048 * signed

    def narrow(ds: FileDataset) -> None:
        ds.BitsStored, ds.HighBit = 12, 11

    check(tmp_path, stored, Bits(stored=16, signed=signed), syntax, edit=narrow)


@pytest.mark.parametrize("syntax", [*NATIVE, "rle", "jpeg 2000 lossless"])
def test_a_small_picture_before_the_pixels_is_not_taken_for_them(tmp_path, syntax):
    """Workstations put an icon into the header, with pixel data of its own."""

    def with_icon(ds: FileDataset) -> None:
        icon = Dataset()
        icon.Rows = icon.Columns = 4
        icon.BitsAllocated = icon.BitsStored = 8
        icon.HighBit, icon.PixelRepresentation, icon.SamplesPerPixel = 7, 0, 1
        icon.PhotometricInterpretation, icon.PixelData = "MONOCHROME2", bytes(range(16))
        icon["PixelData"].VR = "OB"
        ds.IconImageSequence = Sequence([icon])

    check(tmp_path, pattern(12, shape_of(syntax)), Bits(), syntax, edit=with_icon)


@pytest.mark.parametrize("syntax", [*NATIVE, "rle", "jpeg 2000 lossless", "jpeg-ls"])
def test_padding_after_the_data_set(tmp_path, syntax):
    def with_padding(ds: FileDataset) -> None:
        ds.add_new(0xFFFCFFFC, "OB", b"\0" * 126)

    check(tmp_path, pattern(12, shape_of(syntax)), Bits(), syntax, edit=with_padding)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.94", "JPIP"),
        ("1.2.840.10008.1.2.1.98", "Encapsulated"),
        ("1.2.3.4.5.6.7", "unknown"),
    ],
)
def test_a_syntax_that_nothing_reads_is_named(tmp_path, uid, name):
    def other(ds: FileDataset) -> None:
        ds.file_meta.TransferSyntaxUID = uid

    write_slices(tmp_path / "in", pattern(12), PLACE, syntax="rle", edit=other)
    refusal = convert_folder(tmp_path / "in", tmp_path).refusal
    assert refusal["code"] == "unsupported_syntax"
    assert name in refusal["reason"]


@pytest.mark.parametrize("syntax", sorted({*SIGNED, *EIGHT}))
def test_a_second_decoder_reads_the_lossless_files_of_these_tests(tmp_path, syntax):
    """GDCM agrees with what the writers here meant to write."""
    sitk = pytest.importorskip("SimpleITK")
    stored = pattern(12, shape_of(syntax)) - 2048
    write_slices(tmp_path, stored, PLACE, bits=Bits(signed=True), syntax=syntax, RescaleIntercept=0)
    for k in range(N_SLICES):
        image = sitk.ReadImage(str(tmp_path / f"{N_SLICES - k:03d}.dcm"))
        assert np.array_equal(sitk.GetArrayFromImage(image)[0], stored[k])
