"""Decoders that fail in their own ways end in one kind of error."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pydicom.pixels import get_encoder
from pydicom.uid import RLELossless

from monai_tl.dicom import decoding
from monai_tl.dicom.decoding import FrameForm, check_decoder, decode_frame
from monai_tl.errors import DicomError

FORM = FrameForm(rows=16, columns=16, bits_allocated=16, bits_stored=16, is_signed=False)


def test_an_rle_segment_that_holds_too_much_ends_with_the_image():
    """The fast decoder panics over it, with an error that is no Exception."""
    segment = bytes([129, 7]) * 40  # 40 runs of 128 bytes for 256 pixels
    head = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13)
    assert (decode_frame(head + segment + segment, RLELossless, FORM) == 0x0707).all()


def test_an_rle_segment_that_holds_too_little_is_refused():
    segment = bytes([129, 7])  # one run of 128 bytes for 256 pixels
    head = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13)
    with pytest.raises(DicomError) as caught:
        decode_frame(head + segment + segment, RLELossless, FORM)
    assert caught.value.code == "undecodable_pixels"


def test_an_rle_frame_is_what_was_encoded():
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (16, 16), dtype=np.uint16)
    facts = {"rows": 16, "columns": 16, "samples_per_pixel": 1, "number_of_frames": 1, "bits_allocated": 16,
             "bits_stored": 16, "pixel_representation": 0, "photometric_interpretation": "MONOCHROME2"}  # fmt: skip
    stream = get_encoder(RLELossless).encode(pixels.tobytes(), **facts)
    assert np.array_equal(decode_frame(stream, RLELossless, FORM), pixels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.3.4.CANARY"])
def test_a_syntax_without_a_decoder_is_named_unless_it_is_private(syntax):
    with pytest.raises(DicomError) as caught:
        check_decoder(syntax)
    assert caught.value.code == "unsupported_syntax"
    assert "CANARY" not in str(caught.value)
    assert ("MPEG2" in str(caught.value)) == syntax.startswith("1.2.840")


@pytest.mark.parametrize("number", [50, 51, 57, 70])
def test_without_the_decoder_of_jpeg_its_series_are_refused_with_what_to_install(number, monkeypatch):
    check_decoder(f"1.2.840.10008.1.2.4.{number}")
    # as pydicom finds it where the extra is not installed
    monkeypatch.setattr(decoding, "_PLUGINS", ("pyjpegls", "pydicom"))
    with pytest.raises(DicomError, match=r"pip install 'monai_tl\[jpeg\]'") as caught:
        check_decoder(f"1.2.840.10008.1.2.4.{number}")
    assert caught.value.code == "unsupported_syntax"
    # what needs no such decoder is read as before
    check_decoder("1.2.840.10008.1.2.4.80")


def test_the_package_requires_no_decoder_under_the_gpl():
    content = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert not [one for one in content["dependencies"] if "libjpeg-libjpeg" in one]
    assert [one for one in content["optional-dependencies"]["jpeg"] if one.startswith("pylibjpeg-libjpeg")]
