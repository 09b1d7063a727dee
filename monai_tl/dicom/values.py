"""Stored values of slices as real-world values in one array: rescale, look-up table, padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.header import Header
from monai_tl.dicom.pixels import read_pixels
from monai_tl.parallel import map_cases, n_jobs

_INT16 = np.iinfo(np.int16)
_MIN_CHUNK = 4


def read_values(headers: Sequence[Header], in_parallel: bool = False) -> tuple[NDArray[Any], list[str]]:
    """Read slices and apply to each its own rescale or look-up table.

    Padding keeps its value, as the scanner meant it: what to do with it is a matter of the intensity rule.

    Args:
        headers: In slice order, all of one size.
        in_parallel: Decode compressed slices in several processes.

    Returns:
        (K, rows, columns): int16 where all values are whole and fit, else float32. And notes.

    Raises:
        DicomError: As ``monai_tl.dicom.pixels.read_pixels``.
    """
    whole = all(header.slope.is_integer() and header.intercept.is_integer() for header in headers)
    shape = (len(headers), headers[0].rows, headers[0].columns)
    slices = _decoded_in_parallel(headers) if in_parallel and _is_packed(headers[0]) else read_pixels(headers)
    first = next(slices)
    # only once a slice could be read: a damaged header has taken no memory by then
    result: NDArray[Any] = np.empty(shape, dtype=np.int16 if whole else np.float32)
    n_padding = 0
    for index, stored in chain((first,), slices):
        header = headers[index]
        if header.padding is not None:
            n_padding += int(((stored >= header.padding[0]) & (stored <= header.padding[1])).sum())
        if result.dtype == np.int16 and not _put_whole(result[index], stored, header):
            result = result.astype(np.float32)
        if result.dtype == np.float32:
            result[index] = _real(stored, header)
    return result, _padding_notes(headers[0], n_padding)


def _put_whole(target: NDArray[np.int16], stored: NDArray[Any], header: Header) -> bool:
    """Real values into a slice of int16; False, and nothing done, where they do not fit."""
    slope, intercept = int(header.slope), int(header.intercept)
    if header.lookup is not None:
        stored, slope, intercept = header.lookup.apply(stored), 1, 0
    ends = [int(stored.min()) * slope + intercept, int(stored.max()) * slope + intercept]
    if min(ends) < _INT16.min or max(ends) > _INT16.max:
        return False
    if slope == 1 and stored.dtype.itemsize == 2:
        # 16-bit sums wrap around, and as the result fits they end where they should: no wider copy is needed
        np.add(stored.view(np.int16), np.uint16(intercept % (1 << 16)).astype(np.int16), out=target)
    else:
        target[...] = stored.astype(np.int64) * slope + intercept
    return True


def _real(stored: NDArray[Any], header: Header) -> NDArray[Any]:
    if header.lookup is not None:
        return header.lookup.apply(stored)
    return np.asarray(stored.astype(np.float64) * header.slope + header.intercept)


def _padding_notes(header: Header, n_padding: int) -> list[str]:
    if header.padding is None or not n_padding:
        return []
    low, high = (value * header.slope + header.intercept for value in header.padding)
    span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return [f"{n_padding} voxels are padding (real value {span}); kept as they are"]


def _is_packed(header: Header) -> bool:
    return header.pixels is not None and header.pixels.is_encapsulated


def _decoded_in_parallel(headers: Sequence[Header]) -> Iterator[tuple[int, NDArray[Any]]]:
    size = max(_MIN_CHUNK, -(-len(headers) // (4 * n_jobs())))
    starts = range(0, len(headers), size)
    chunks = map_cases(_decode_chunk, [headers[start : start + size] for start in starts], brief=True)
    for start, chunk in zip(starts, chunks, strict=True):
        yield from ((start + index, values) for index, values in chunk)


def _decode_chunk(headers: Sequence[Header]) -> list[tuple[int, NDArray[Any]]]:
    return list(read_pixels(headers))
