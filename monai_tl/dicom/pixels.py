"""Stored pixel values of one instance, in any transfer syntax."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_tl.dicom.header import Header
from monai_tl.dicom.reading import DEFLATED, dicom_faults, read_file
from monai_tl.errors import DicomError

_RAW_SYNTAXES = {
    "": "<",
    "1.2.840.10008.1.2": "<",
    "1.2.840.10008.1.2.1": "<",
    "1.2.840.10008.1.2.2": ">",
    DEFLATED: "<",
}
_TAGS = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip


def read_pixels(header: Header) -> NDArray[Any]:
    """Read one slice.

    Args:
        header: Of an instance with one frame and one sample a pixel.

    Returns:
        (rows, columns) of the integer type that BitsAllocated and PixelRepresentation name; bits above BitsStored (old
        overlays, rubbish) are cleared, or follow the sign.

    Raises:
        DicomError: Codes ``no_pixels``, ``truncated_pixels``, ``unsupported_syntax``, ``undecodable_pixels``.
    """
    dataset, _ = read_file(header.path, _TAGS, with_pixels=True)
    order = _RAW_SYNTAXES.get(header.transfer_syntax_uid)
    raw = order is not None and header.bits_allocated in (16, 32)
    values = _raw(dataset, header, str(order)) if raw else _decoded(dataset, header)
    return _keep_stored_bits(values, header)


def _raw(dataset: Dataset, header: Header, order: str) -> NDArray[Any]:
    with dicom_faults():
        content = dataset.get("PixelData")
    if not isinstance(content, bytes):
        raise DicomError("the instance holds no pixel data; export the series again", "no_pixels")
    expected = header.rows * header.columns * header.bits_allocated // 8
    if len(content) < expected:
        raise DicomError(
            f"the pixel data end after {len(content)} of {expected} bytes; transfer the series again",
            "truncated_pixels",
        )
    kind = "i" if header.is_signed else "u"
    values = np.frombuffer(
        content, dtype=f"{order}{kind}{header.bits_allocated // 8}", count=header.rows * header.columns
    )
    return values.reshape(header.rows, header.columns).astype(values.dtype.newbyteorder("="))


def _decoded(dataset: Dataset, header: Header) -> NDArray[Any]:
    with dicom_faults():
        if "PixelData" not in dataset:
            raise DicomError("the instance holds no pixel data; export the series again", "no_pixels")
        syntax = UID(header.transfer_syntax_uid)
        name = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "unknown"
        try:
            values: NDArray[Any] = dataset.pixel_array
        except (NotImplementedError, RuntimeError, AttributeError) as error:
            code = (
                "undecodable_pixels"
                if isinstance(error, RuntimeError) and "plugin" not in str(error)
                else "unsupported_syntax"
            )
            if "failed to decode" in str(error):
                code = "undecodable_pixels"
            raise DicomError(
                f"the pixels (transfer syntax {name}) cannot be decoded; transfer the series again, uncompressed", code
            ) from None
        except ValueError:
            raise DicomError(
                f"the pixel data (transfer syntax {name}) are too short for the header; transfer the series again",
                "truncated_pixels",
            ) from None
    if values.shape != (header.rows, header.columns):
        raise DicomError(
            "the decoded image is not as large as its header says; transfer the series again", "undecodable_pixels"
        )
    return values


def _keep_stored_bits(values: NDArray[Any], header: Header) -> NDArray[Any]:
    spare = header.bits_allocated - header.bits_stored
    if spare == 0 or values.dtype.itemsize * 8 != header.bits_allocated:
        return values
    kind = np.dtype(f"{'i' if header.is_signed else 'u'}{values.dtype.itemsize}")
    shifted = values.astype(kind, copy=False)
    # left then right: an arithmetic shift carries the sign bit of the stored width upwards
    return np.asarray(np.right_shift(np.left_shift(shifted, spare), spare))
