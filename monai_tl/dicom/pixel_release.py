"""Pixel data as they may leave: the image's own bits and nothing before, between, above or behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.pixels import get_encoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from monai_tl.dicom.codestream import declared_components, declared_size
from monai_tl.dicom.decoding import FrameForm, decode_frame
from monai_tl.dicom.explicit_writing import element, encapsulated
from monai_tl.dicom.jpeg_2000_cleaning import clean_jpeg_2000
from monai_tl.dicom.jpeg_cleaning import clean_jpeg
from monai_tl.dicom.pixel_source import PixelFormat, PixelSource
from monai_tl.dicom.pixel_text import holds_word
from monai_tl.dicom.reading import DEFLATED
from monai_tl.dicom.stream_parts import Cleaned
from monai_tl.errors import DicomError

_PIXEL_DATA = 0x7FE00010
_NATIVE = frozenset(("1.2.840.10008.1.2", ExplicitVRLittleEndian, "1.2.840.10008.1.2.2", DEFLATED))
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_MAX_FRAME_BYTES = 256 << 20


def release_pixels(source: PixelSource, form: PixelFormat, words: frozenset[str]) -> tuple[bytes, str]:
    """The pixel data element and the transfer syntax it is in now.

    Native pixels are cut to the size of the image, bits above BitsStored are cleared or follow the sign. Compressed
    frames keep their syntax where each stream is known to the byte, ends where its image ends, and holds no bits above
    BitsStored; else they are decoded and written native.

    Args:
        source: Where the pixels lie.
        form: From ``read_format``.
        words: From ``monai_tl.dicom.pixel_text.pixel_words``, which must not stand in the bytes.

    Raises:
        DicomError: Codes ``no_pixels``, ``truncated_pixels``, ``unsupported_syntax``, ``undecodable_pixels``,
            ``colour``, ``too_large``, ``identity_in_pixels``.
    """
    place, syntax = source.place, source.syntax
    if place is None or place.is_float or not place.length:
        raise DicomError("the image holds no pixel data of whole numbers; export the series again", "no_pixels")
    if (syntax in _NATIVE) == place.is_encapsulated:
        raise DicomError(
            "the pixel data are not packed as the transfer syntax says; export the file again", "undecodable_pixels"
        )
    if form.frame_bytes > _MAX_FRAME_BYTES:
        raise DicomError(f"one image has more than {_MAX_FRAME_BYTES >> 20} MiB; split it", "too_large")
    native = "OB" if form.bits_allocated <= 8 else "OW"
    if syntax in _NATIVE:
        content = _native(source, form)
        _refuse_identity([content], words, is_native=True)
        return element(_PIXEL_DATA, native, content), str(ExplicitVRLittleEndian)
    frames, kept = _compressed(source, form)
    _refuse_identity(frames, words, is_native=not kept)
    if kept:
        return encapsulated(_PIXEL_DATA, frames), syntax
    return element(_PIXEL_DATA, native, b"".join(frames)), str(ExplicitVRLittleEndian)


def _native(source: PixelSource, form: PixelFormat) -> bytes:
    n_bits = form.per_frame * form.frames * form.bits_allocated
    expected = -(-n_bits // 8)
    # the last word of 8-bit pixels in big endian holds its pixel in the second byte
    content = source.read(expected + expected % 2)
    if len(content) < expected:
        raise DicomError(
            f"the pixel data end after {len(content)} of {expected} bytes; transfer the series again",
            "truncated_pixels",
        )
    if form.bits_allocated <= 8 and not source.is_little and source.is_words:
        content = np.frombuffer(content, dtype=">u2").astype("<u2").tobytes()
    if form.bits_allocated == 1:
        spare = expected * 8 - n_bits
        last = content[expected - 1] & (0xFF >> spare)
        return content[: expected - 1] + bytes([last])
    size = form.bits_allocated // 8
    order = "<" if source.is_little else ">"
    values = np.frombuffer(content, dtype=f"{order}u{size}", count=form.per_frame * form.frames)
    return keep_stored_bits(values.astype(f"<u{size}", copy=False), form).tobytes()


def keep_stored_bits(values: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Pixels with the bits outside the stored ones cleared, above them following the sign of signed pixels.

    Args:
        values: Of an unsigned type as wide as BitsAllocated.
        form: Gives the stored bits.
    """
    low = form.high_bit + 1 - form.bits_stored
    if form.bits_stored == form.bits_allocated:
        return values
    mask = ((1 << form.bits_stored) - 1) << low
    kept = values & values.dtype.type(mask)
    if form.signed:
        above = ((1 << form.bits_allocated) - 1) ^ ((1 << (form.high_bit + 1)) - 1)
        negative = (values >> values.dtype.type(form.high_bit)) & values.dtype.type(1)
        kept = kept | (negative * values.dtype.type(above)).astype(values.dtype)
    return np.asarray(kept)


def _compressed(source: PixelSource, form: PixelFormat) -> tuple[list[bytes], bool]:
    """Frames, and whether they are still in their syntax; native otherwise."""
    if source.syntax == RLELossless:
        # its segments may be followed by anything: packed anew, nothing but pixels is in them
        encoder = get_encoder(RLELossless)
        return [_encode_rle(encoder, _decode(frame, source, form), form) for frame in _frames(source, form)], True
    clean: Callable[[bytes], Cleaned] | None = (
        clean_jpeg if source.syntax in _JPEG else clean_jpeg_2000 if source.syntax in _JPEG_2000 else None
    )
    if clean is None:
        raise DicomError(
            "pixels in this transfer syntax cannot be checked; export the file again, uncompressed",
            "unsupported_syntax",
        )
    cleaned = [clean(frame) for frame in _frames(source, form)]
    for one in cleaned:
        # a larger image than the header's could hold more than is ever shown; and a bomb must be seen before
        if declared_size(one.stream) != (form.rows, form.columns):
            raise DicomError(
                "the compressed image is not as large as the header says; export the file again", "undecodable_pixels"
            )
        if declared_components(one.stream) != 1:
            raise DicomError("a compressed colour image in an object of grey values; it is held back", "colour")
    if all(_is_nothing_but_image(one, source, form) for one in cleaned):
        return [one.stream for one in cleaned], True
    return [keep_stored_bits(_decode(one.stream, source, form), form).tobytes() for one in cleaned], False


def _is_nothing_but_image(one: Cleaned, source: PixelSource, form: PixelFormat) -> bool:
    if not one.is_bare:
        return False
    values = _decode(one.stream, source, form)
    is_narrow = one.precision <= form.bits_stored and form.high_bit + 1 == form.bits_stored
    if not is_narrow and not np.array_equal(values, keep_stored_bits(values, form)):
        return False
    try:
        other = _decode(one.with_other_tail(), source, form)
    except DicomError:
        # what the decoder stumbles over it needs
        return True
    return not np.array_equal(values, other)


def _frames(source: PixelSource, form: PixelFormat) -> list[bytes]:
    place = source.place
    if place is None:
        return []
    packed = generate_frames(
        source.read(place.length), number_of_frames=form.frames, extended_offsets=place.offset_table
    )
    frames = [frame for frame, _ in zip(packed, range(form.frames + 1), strict=False)]
    if len(frames) != form.frames:
        raise DicomError("the frames are not as many as the header says; export the file again", "truncated_pixels")
    return frames


def _decode(frame: bytes, source: PixelSource, form: PixelFormat) -> NDArray[Any]:
    """One frame as unsigned numbers as wide as BitsAllocated, little endian."""
    stored = FrameForm(form.rows, form.columns, form.bits_allocated, form.bits_stored, form.signed)
    values = decode_frame(frame, source.syntax, stored)
    if values.dtype.itemsize * 8 != form.bits_allocated:
        raise DicomError(
            "the compressed pixels are not as wide as the header says; export the file again", "undecodable_pixels"
        )
    size = values.dtype.itemsize
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).view(f"<u{size}")


def _encode_rle(encoder: Any, frame: NDArray[Any], form: PixelFormat) -> bytes:
    packed: bytes = encoder.encode(
        keep_stored_bits(frame, form).tobytes(),
        rows=form.rows,
        columns=form.columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=form.bits_allocated,
        bits_stored=form.bits_allocated,
        photometric_interpretation="MONOCHROME2",
        pixel_representation=0,
    )
    return packed


def _refuse_identity(contents: list[bytes], words: frozenset[str], is_native: bool) -> None:
    if any(holds_word(content, words, is_native) for content in contents):
        raise DicomError(
            "a word that tells who the patient is stands as text in the pixel data; the file is held back",
            "identity_in_pixels",
        )
