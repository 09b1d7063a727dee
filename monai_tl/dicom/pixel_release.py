"""Pixel data as they may leave: the image's own bits and nothing before, between, above or behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from monai_tl.dicom.explicit_writing import element, encapsulated
from monai_tl.dicom.reading import DEFLATED
from monai_tl.dicom.stream_cleaning import clean_jpeg, clean_jpeg_2000
from monai_tl.errors import DicomError

_PIXEL_DATA = 0x7FE00010
_NATIVE = frozenset(("1.2.840.10008.1.2", ExplicitVRLittleEndian, "1.2.840.10008.1.2.2", DEFLATED))
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_MIN_WORD = 6
"""Shorter words stand in a megabyte of noise by chance."""


@dataclass(frozen=True)
class PixelFormat:
    """What the header says of the pixels; checked."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def per_frame(self) -> int:
        """Pixels of one frame."""
        return self.rows * self.columns


def read_format(dataset: Dataset) -> PixelFormat:
    """The pixels' format.

    Raises:
        DicomError: Codes ``bits``, ``colour``, ``damaged``: nothing that a volume or a segmentation can have.
    """
    allocated = _number(dataset, "BitsAllocated", 16)
    stored = _number(dataset, "BitsStored", allocated)
    found = PixelFormat(
        rows=_number(dataset, "Rows", 0),
        columns=_number(dataset, "Columns", 0),
        frames=_number(dataset, "NumberOfFrames", 1),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=_number(dataset, "HighBit", stored - 1),
        signed=_number(dataset, "PixelRepresentation", 0) == 1,
    )
    if _number(dataset, "SamplesPerPixel", 1) != 1:
        raise DicomError("pixels of several samples are those of a colour image; it is held back", "colour")
    if min(found.rows, found.columns, found.frames) < 1:
        raise DicomError("the header gives the image no size; export the file again", "damaged")
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= found.high_bit + 1 <= allocated:
        raise DicomError(f"{stored} of {allocated} bits a pixel are not supported; export the file again", "bits")
    return found


def _number(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)


def release_pixels(dataset: Dataset, form: PixelFormat, syntax: str, identity: frozenset[str]) -> tuple[bytes, str]:
    """The pixel data element and the transfer syntax it is in now.

    Native pixels are cut to the size of the image, bits above BitsStored are cleared or follow the sign. Compressed
    frames keep their syntax; where the stream could hold bits above BitsStored it is decoded, and written native when
    it does.

    Args:
        dataset: As read, with its pixel data.
        form: From :func:`read_format`.
        syntax: Transfer syntax UID of the file.
        identity: Words of the patient, which must not stand in the bytes.

    Raises:
        DicomError: Codes ``no_pixels``, ``truncated_pixels``, ``unsupported_syntax``, ``undecodable_pixels``,
            ``identity_in_pixels``.
    """
    raw: Any = dataset.get_item(_PIXEL_DATA) if _PIXEL_DATA in dataset else None
    if raw is None or not isinstance(raw.value, bytes) or not raw.value:
        raise DicomError("the image holds no pixel data; export the series again", "no_pixels")
    if syntax in _NATIVE:
        content = _native(raw.value, form, _order(dataset, raw, syntax))
        released = [content]
        result = element(_PIXEL_DATA, "OB" if form.bits_allocated <= 8 else "OW", content), str(ExplicitVRLittleEndian)
    else:
        released, kept = _compressed(dataset, form, syntax, raw.value)
        native = b"".join(released)
        result = (
            (encapsulated(_PIXEL_DATA, released), syntax)
            if kept
            else (element(_PIXEL_DATA, "OB" if form.bits_allocated <= 8 else "OW", native), str(ExplicitVRLittleEndian))
        )
    _refuse_identity(released, identity)
    return result


def _order(dataset: Dataset, raw: Any, syntax: str) -> str:
    if syntax != "1.2.840.10008.1.2.2":
        return "<"
    # in big endian files 8-bit pixels in OW words are swapped in pairs
    return ">" if (raw.VR or "OW") == "OW" else "|"


def _native(content: bytes, form: PixelFormat, order: str) -> bytes:
    n_bits = form.per_frame * form.frames * form.bits_allocated
    expected = -(-n_bits // 8)
    if len(content) < expected:
        raise DicomError(
            f"the pixel data end after {len(content)} of {expected} bytes; transfer the series again",
            "truncated_pixels",
        )
    if order == ">" and form.bits_allocated <= 8:
        even = content[: expected + expected % 2]
        content = np.frombuffer(even, dtype=">u2").astype("<u2").tobytes()
    if form.bits_allocated == 1:
        spare = expected * 8 - n_bits
        last = content[expected - 1] & (0xFF >> spare)
        return content[: expected - 1] + bytes([last])
    size = form.bits_allocated // 8
    values = np.frombuffer(
        content, dtype=f"{order if order != '|' else '<'}u{size}", count=form.per_frame * form.frames
    )
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


def _compressed(dataset: Dataset, form: PixelFormat, syntax: str, content: bytes) -> tuple[list[bytes], bool]:
    """Frames, and whether they are still in their syntax; native otherwise."""
    if syntax == RLELossless:
        # its segments may be followed by anything: packed anew, nothing but pixels is in them
        encoder = get_encoder(RLELossless)
        return [_encode_rle(encoder, frame, form) for frame in _decoded(dataset, form, syntax)], True
    clean: Callable[[bytes], tuple[bytes, int]] | None = (
        clean_jpeg if syntax in _JPEG else clean_jpeg_2000 if syntax in _JPEG_2000 else None
    )
    if clean is None:
        raise DicomError(
            "pixels in this transfer syntax cannot be checked; export the file again, uncompressed",
            "unsupported_syntax",
        )
    offsets = (dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths"))
    frames = list(
        generate_frames(content, number_of_frames=form.frames, extended_offsets=offsets if all(offsets) else None)
    )
    if len(frames) != form.frames:
        raise DicomError("the frames are not as many as the header says; export the file again", "truncated_pixels")
    cleaned = [clean(frame) for frame in frames]
    if all(precision <= form.bits_stored for _, precision in cleaned) and form.high_bit + 1 == form.bits_stored:
        return [stream for stream, _ in cleaned], True
    unpacked = list(_decoded(dataset, form, syntax))
    kept = [keep_stored_bits(frame, form) for frame in unpacked]
    if all(np.array_equal(one, other) for one, other in zip(unpacked, kept, strict=True)):
        return [stream for stream, _ in cleaned], True
    return [frame.tobytes() for frame in kept], False


def _decoded(dataset: Dataset, form: PixelFormat, syntax: str) -> Iterator[NDArray[Any]]:
    """Frames of unsigned numbers as wide as BitsAllocated, little endian."""
    try:
        for values, _ in get_decoder(UID(syntax)).iter_array(dataset, raw=True):
            if values.shape != (form.rows, form.columns) or values.dtype.itemsize * 8 != form.bits_allocated:
                raise ValueError("another size than the header's")
            yield np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).view(f"<u{values.dtype.itemsize}")
    except (ValueError, RuntimeError, NotImplementedError, AttributeError):
        raise DicomError(
            "the compressed pixels cannot be decoded and so not be checked; export the file again, uncompressed",
            "undecodable_pixels",
        ) from None


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


def _refuse_identity(contents: list[bytes], identity: frozenset[str]) -> None:
    words = [word for word in identity if len(word) >= _MIN_WORD and word.isascii()]
    wanted = [form for word in words for form in (word.encode("ascii"), word.encode("utf-16-le"))]
    for content in contents:
        plain = content.lower()
        if any(form in plain for form in wanted):
            raise DicomError(
                "a word that tells who the patient is stands as text in the pixel data; the file is held back",
                "identity_in_pixels",
            )
