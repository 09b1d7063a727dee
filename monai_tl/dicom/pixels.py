"""Stored pixel values of slices, in any transfer syntax."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames

from monai_tl.dicom.decoding import FrameForm, check_decoder, decode_frame, name_of
from monai_tl.dicom.header import Header
from monai_tl.dicom.reading import DEFLATED, dicom_faults, inflate, scan_file
from monai_tl.dicom.scan import PixelPlace
from monai_tl.errors import DicomError

_SPARE_SHARE, _SPARE_BYTES = 1.1, 1024
"""Some writers fill up the pixel data; more than this is another image than the header's."""
_RAW_SYNTAXES = frozenset(("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", DEFLATED))


def read_pixels(headers: Sequence[Header]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read slices; each file is opened once, whatever number of frames it holds.

    Args:
        headers: Of one sample a pixel; single images or frames.

    Yields:
        Index in ``headers``, in no particular order, and (rows, columns) of the integer type that BitsAllocated and
        PixelRepresentation name; bits above BitsStored (old overlays, rubbish) are cleared, or follow the sign.

    Raises:
        DicomError: Codes ``no_pixels``, ``truncated_pixels``, ``pixel_length``, ``unsupported_syntax``,
            ``undecodable_pixels``.
    """
    files: dict[Path, list[int]] = defaultdict(list)
    for index, header in enumerate(headers):
        _check_length(header)
        files[header.path].append(index)
    for path, indices in files.items():
        indices.sort(key=lambda index: headers[index].frame or 1)
        frames = [(headers[index].frame or 1) - 1 for index in indices]
        for index, values in zip(indices, _read_file(path, headers[indices[0]], frames), strict=True):
            yield index, _keep_stored_bits(values, headers[index])


def _frame_bytes(header: Header) -> int:
    return header.rows * header.columns * header.bits_allocated // 8


def _place(header: Header) -> PixelPlace:
    place = header.pixels
    if place is None or place.is_float or not place.length:
        raise DicomError("the instance holds no pixel data of whole numbers; export the series again", "no_pixels")
    return place


def _check_length(header: Header) -> None:
    """Before memory is taken for the volume."""
    place = _place(header)
    is_raw = header.transfer_syntax_uid in _RAW_SYNTAXES
    if is_raw == place.is_encapsulated:
        raise DicomError(
            f"the pixel data are {'not ' if not place.is_encapsulated else ''}packed in items, against what the "
            "transfer syntax says; export the series again",
            "undecodable_pixels",
        )
    expected = _frame_bytes(header) * (header.frame or 1)
    if is_raw and place.length < expected:
        raise DicomError(
            f"the pixel data end after {place.length} of {expected} bytes; transfer the series again",
            "truncated_pixels",
        )
    whole = _frame_bytes(header) * max(1, header.n_frames)
    if is_raw and place.length > whole * _SPARE_SHARE + _SPARE_BYTES:
        # Rows, Columns or BitsAllocated were changed after the pixels were written
        raise DicomError(
            f"the pixel data have {place.length} bytes where the header says {whole}; export the series again",
            "pixel_length",
        )


def _read_file(path: Path, header: Header, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Stored values of some frames of a file, counted from 0 and in this order."""
    place = _place(header)
    if header.transfer_syntax_uid not in _RAW_SYNTAXES:
        yield from _decoded(path, place, header, frames)
        return
    kind = np.dtype(f"{'i' if header.is_signed else 'u'}{header.bits_allocated // 8}")
    dtype = kind.newbyteorder("<" if header.is_little else ">")
    shape, size = (header.rows, header.columns), _frame_bytes(header)
    if header.transfer_syntax_uid == DEFLATED:
        body = inflate(path, scan_file(path, frozenset())[1])
        for frame in frames:
            content = body[place.offset + frame * size : place.offset + (frame + 1) * size]
            yield np.frombuffer(content, dtype).reshape(shape)
        return
    with dicom_faults():
        stream = path.open("rb", buffering=0)
    take = _take_words if place.is_words and not header.is_little and header.bits_allocated == 8 else _take
    with stream:
        for frame in frames:
            with dicom_faults():
                values = np.frombuffer(take(stream, place.offset, frame * size, size), dtype).reshape(shape)
            yield values.astype(kind, copy=False)


def _take(stream: RawIOBase, offset: int, start: int, size: int) -> bytes:
    stream.seek(offset + start)
    return stream.read(size) or b""


def _take_words(stream: RawIOBase, offset: int, start: int, size: int) -> bytes:
    """Two 8-bit pixels share a big-endian word, the first in the low byte (PS3.5, 8.1.2); a frame may end inside."""
    odd = start % 2
    words = np.frombuffer(_take(stream, offset, start - odd, size + odd + (size + odd) % 2), np.uint16)
    return words.byteswap().tobytes()[odd : odd + size]


def _decoded(path: Path, place: PixelPlace, header: Header, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    syntax = header.transfer_syntax_uid
    check_decoder(syntax)
    with dicom_faults(), path.open("rb") as stream:
        stream.seek(place.offset)
        content = stream.read(place.length)
    packed = generate_frames(content, number_of_frames=header.n_frames, extended_offsets=place.offset_table)
    form = FrameForm(
        header.rows, header.columns, header.bits_allocated, header.bits_stored, header.is_signed, header.photometric
    )
    number = -1
    for frame in frames:
        with dicom_faults(f"the pixels ({name_of(syntax)}) are cut off or damaged", "transfer the series again"):
            while number < frame:
                stored, number = next(packed, b""), number + 1
        if not stored:
            raise DicomError(f"frame {frame + 1} has no pixel data; transfer the series again", "truncated_pixels")
        yield decode_frame(stored, syntax, form)


def _keep_stored_bits(values: NDArray[Any], header: Header) -> NDArray[Any]:
    spare = header.bits_allocated - header.bits_stored
    if spare == 0 or values.dtype.itemsize * 8 != header.bits_allocated:
        return values
    kind = np.dtype(f"{'i' if header.is_signed else 'u'}{values.dtype.itemsize}")
    if not header.is_signed and values.dtype == kind and int(values.max()) >> header.bits_stored == 0:
        return values
    shifted = values.astype(kind, copy=False)
    # left then right: an arithmetic shift carries the sign bit of the stored width upwards
    return np.asarray(np.right_shift(np.left_shift(shifted, spare), spare))
