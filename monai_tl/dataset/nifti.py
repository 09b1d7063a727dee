"""NIfTI files, read with suspicion and written the same bytes each time. RAS+ millimetres inside."""

from __future__ import annotations

import math
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from monai_tl.errors import DataError, GeometryError, LabelError
from monai_tl.files import write_chunks
from monai_tl.geometry import Affine, Volume, check_affine, grid_corners, reorient_to_ras

MAX_BYTES = 8 << 30
"""A volume that claims more than this, unpacked, is refused before anything is allocated."""
_DEFLATE_LIMIT = 1040
"""What gzip can shrink at most."""
_BOMB_RATIO = 200
"""Images with wide margins of zeros shrink to a twentieth; what is large and shrinks to less than this is a bomb."""
_LARGE_IMAGE = 64 << 20
_LARGE_LABEL = 512 << 20
"""Label maps of small organs do shrink to a thousandth."""
_HEAD_BYTES = 600
_START_BYTES = 64 << 10
"""Packed, the head is in these."""
_SURPLUS_BYTES = 1024
"""What may stand behind the voxels."""
_PIECE_BYTES = 4096
_PORTION_BYTES = 16 << 20
_SLAB_BYTES = 1 << 20
_QFORM_TOLERANCE_MM = 0.1
_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MARK = b"\x1f\x8b"
_GZIP_FAULTS: tuple[Any, ...] = (isal_zlib.error, EOFError)


@dataclass(frozen=True)
class _Header:
    """What is needed of a header, read once, as plain values.

    Attributes:
        shape: As stored, 3 to 7 axes.
        offset: First byte of the voxels.
        affine: Voxel → RAS in the file's unit; None where it cannot be computed.
        has_place: The file says which side is left.
        unit_mm: Millimetres in the file's unit of length; None for a unit there is not.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    slope: float
    intercept: float
    affine: Affine | None
    has_place: bool
    unit_mm: float | None


def read_image(path: Path) -> tuple[Volume, Affine]:
    """Read an image.

    The gzip checksum is verified, sizes are checked before memory is taken, slope and intercept are applied. Messages
    name neither file nor folder: both may be a patient's name.

    Args:
        path: ``.nii`` or ``.nii.gz``.

    Returns:
        (I, J, K), or (C, I, J, K) for a 4-D file with more than one volume, growing towards R, A, S; int16 where all
        values are whole and fit, else float32. And its affine voxel → RAS mm.

    Raises:
        DataError: The file is missing, damaged, absurdly large, or holds numbers that are not finite.
        GeometryError: It has no usable affine.
    """
    array, affine = _read(path, "the image file", _LARGE_IMAGE)
    return reorient_to_ras(to_stored_type(array, "the image file"), affine)


def read_label(path: Path, image_shape: tuple[int, ...] | None = None) -> tuple[NDArray[Any], Affine]:
    """Read a label map: whole numbers, no scaling by interpolation.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        image_shape: Of its image, (I, J, K) in any order of the axes; a header that claims other sizes is refused
            before anything is unpacked.

    Returns:
        (I, J, K) uint8 where the values fit, else int32, RAS+; and its affine.

    Raises:
        LabelError: Values are not whole numbers, or there is more than one channel.
        DataError, GeometryError: As ``read_image``.
    """
    array, affine = _read(path, "the label file", _LARGE_LABEL, image_shape)
    if array.ndim != 3:
        raise LabelError(f"the label file has {array.shape[0]} channels; a label map has one", "label_channels")
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise LabelError(
            "the label file holds values that are not whole numbers; export the label map, not a probability"
        )
    if low < np.iinfo(np.int32).min or high > np.iinfo(np.int32).max:
        raise LabelError("the label file holds values beyond 32 bits; export the label map again")
    return reorient_to_ras(array.astype(np.uint8 if low >= 0 and high <= 255 else np.int32), affine)


def to_stored_type(array: NDArray[Any], where: str) -> NDArray[Any]:
    """The type images are kept in: int16 where all values are whole and fit, else float32.

    Raises:
        DataError: Values are not finite, or beyond float32.
    """
    limits = np.iinfo(np.int16)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where} holds NaN or infinite values; replace them and say with what")
    fits = limits.min <= low and high <= limits.max
    if fits and (array.dtype.kind != "f" or np.array_equal(array, np.rint(array))):
        return array.astype(np.int16, copy=False)
    if max(abs(float(low)), abs(float(high))) > np.finfo(np.float32).max:
        raise DataError(f"{where} holds values beyond 32-bit floats; check its scale factor and export it again")
    return array.astype(np.float32, copy=False)


def write_image(path: Path, array: NDArray[Any], affine: Affine) -> None:
    """Write a volume whole: equal input gives equal bytes.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        array: (I, J, K) or (C, I, J, K); int16, uint8 or float32 (others are NIfTI types too, bool is not).
        affine: Voxel → RAS mm; goes into sform and qform, code 1. A qform cannot hold shear: its code is 0 where that
            would put a voxel more than 0.1 mm off. Below, it stays: ITK opens no sheared file without a qform, and
            directions that were rounded in the source are sheared a little.
    """
    volume = np.moveaxis(array, 0, -1) if array.ndim == 4 else array
    header = nibabel.Nifti1Header()
    header.set_data_shape(volume.shape)
    header.set_data_dtype(volume.dtype.newbyteorder("="))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    if _apart_mm(header.get_qform(), affine, volume.shape) > _QFORM_TOLERANCE_MM:
        header["qform_code"] = 0
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = 352
    head = bytes(header.as_byteswapped("<").binaryblock) + b"\0\0\0\0"
    chunks: Iterable[bytes | memoryview] = chain((head,), slabs_of(volume))
    write_chunks(path, _packed(chunks) if path.suffix == ".gz" else chunks)


def _apart_mm(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """How far two affines of one grid put a voxel from each other, at most."""
    corners = grid_corners((shape[0], shape[1], shape[2]))
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def slabs_of(volume: NDArray[Any]) -> Iterator[memoryview]:
    """The voxels as in a file, a few slices of the last axis at a time: no second volume in memory.

    Args:
        volume: (I, J, K) or more axes; the first is fastest in what is yielded, little endian.
    """
    planes = volume.reshape(*volume.shape[:2], -1, order="F") if volume.ndim > 3 else volume
    little = planes.dtype.newbyteorder("<")
    step = max(1, _SLAB_BYTES // max(1, planes[..., :1].nbytes))
    for start in range(0, planes.shape[-1], step):
        yield np.ascontiguousarray(planes[..., start : start + step].T, dtype=little).data.cast("B")


def _packed(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    packer = isal_zlib.compressobj(level=1, wbits=_GZIP)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


def _read(path: Path, what: str, large: int, image_shape: tuple[int, ...] | None = None) -> tuple[NDArray[Any], Affine]:
    """Values, channels first, slope and intercept applied; and the affine. Axes as stored."""
    header, content = _load(path, what, large, image_shape)
    if header.dtype.kind not in "iuf":
        raise DataError(f"{what} holds {header.dtype} values; only real numbers are images")
    count = int(np.prod(header.shape, dtype=np.int64))
    flat = np.frombuffer(content, dtype=header.dtype, count=count, offset=header.offset)
    array = _channels_first(flat.reshape(header.shape, order="F"))
    return _scaled(array, header, what), _affine_of(header, what)


def _load(
    path: Path, what: str, large: int, image_shape: tuple[int, ...] | None
) -> tuple[_Header, bytes | NDArray[np.uint8]]:
    """Header and unpacked content; the content is as long as the header says, and its checksum is right."""
    try:
        # a pipe would be waited for, and a device may have no end
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{what} is a folder, a pipe or a device; give the file itself")
        with path.open("rb", buffering=_START_BYTES) as stream:
            return _load_open(stream, what, large, image_shape)
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}; check the path and its permissions") from None
    except _GZIP_FAULTS:
        raise DataError(f"{what} is damaged (its gzip stream or checksum is wrong); copy it again") from None


def _load_open(
    stream: BinaryIO, what: str, large: int, image_shape: tuple[int, ...] | None
) -> tuple[_Header, bytes | NDArray[np.uint8]]:
    stored = os.fstat(stream.fileno()).st_size
    head = stream.read(_START_BYTES)
    is_gzip = head[:2] == _GZIP_MARK
    if is_gzip:
        head = isal_zlib.decompressobj(wbits=_GZIP).decompress(head, _HEAD_BYTES)
    header = _header(head[:_HEAD_BYTES], what)
    if image_shape is not None and sorted(header.shape[:3]) != sorted(image_shape):
        raise GeometryError(
            f"{what} is {list(header.shape)} voxels, its image {list(image_shape)}; resample it onto its image"
        )
    expected = _expected_bytes(header, stored, is_gzip, what)
    if is_gzip and expected > max(large, _BOMB_RATIO * stored):
        raise DataError(
            f"{what} would unpack from {stored} to {expected} bytes, more than any scan shrinks; do not use "
            "it, or store it unpacked (.nii) if it is what it should be"
        )
    if not is_gzip and stored > expected + _SURPLUS_BYTES:
        raise DataError(f"{what} holds {stored} bytes where its header says {expected}; it is damaged: copy it again")
    stream.seek(0)
    content = _unpack(stream, expected, what) if is_gzip else stream.read(expected)
    if len(content) < expected:
        raise DataError(f"{what} ends after {len(content)} of {expected} bytes; copy it again")
    return header, content


def _header(head: bytes, what: str) -> _Header:
    try:
        return _parse_header(head)
    except Exception:
        # any byte of it may be anything, and nibabel answers with a dozen kinds of exceptions
        raise DataError(
            f"{what} is no single-file NIfTI (.nii or .nii.gz), or its header is damaged; convert it or copy it again"
        ) from None


def _parse_header(head: bytes) -> _Header:
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    kind, n_bytes = (nibabel.Nifti2Header, 540) if 540 in sizes else (nibabel.Nifti1Header, 348)
    if n_bytes not in sizes:
        raise ValueError("no NIfTI header")
    raw = kind(head[:n_bytes], check=False)
    offset = int(raw["vox_offset"])
    if raw["magic"].item()[:3] not in (b"n+1", b"n+2") or offset < n_bytes:
        raise ValueError("not a single-file NIfTI")
    try:
        affine = np.array(raw.get_best_affine(), dtype=np.float64)
    except Exception:
        affine = None
    try:
        unit_mm = _MILLIMETRES[raw.get_xyzt_units()[0]]
    except KeyError:
        unit_mm = None
    return _Header(
        dtype=raw.get_data_dtype(),
        shape=tuple(int(size) for size in raw["dim"][1 : 1 + max(0, min(7, int(raw["dim"][0])))]),
        offset=offset,
        slope=float(raw["scl_slope"]),
        intercept=float(raw["scl_inter"]),
        affine=affine,
        has_place=int(raw["sform_code"]) != 0 or int(raw["qform_code"]) != 0,
        unit_mm=unit_mm,
    )


def _expected_bytes(header: _Header, packed_bytes: int, is_gzip: bool, what: str) -> int:
    """Size by the header, checked against what the file can possibly hold; Python integers do not overflow."""
    shape = header.shape
    if not 3 <= len(shape) <= 7 or min(shape) < 1 or any(size != 1 for size in shape[4:]):
        raise DataError(f"{what} has dimensions {list(shape)}; a volume, or a stack of channels, is needed")
    n_bytes = header.offset + header.dtype.itemsize * math.prod(shape)
    possible = packed_bytes * (_DEFLATE_LIMIT if is_gzip else 1) + 64
    if n_bytes > min(MAX_BYTES, possible):
        raise DataError(
            f"{what} claims {n_bytes} bytes, more than a file of {packed_bytes} bytes can hold or "
            f"than {MAX_BYTES}; it is damaged or cut off: copy it again"
        )
    return n_bytes


def _unpack(stream: BinaryIO, expected: int, what: str) -> NDArray[np.uint8]:
    """Unpack to the end of each gzip member, so that its checksum is verified; no more than the header announced.

    Each member is begun with a small piece, and what was read beyond its end is read again: there may be millions.
    """
    content, filled = np.empty(expected + _SURPLUS_BYTES, np.uint8), 0
    while (packed := stream.read(2)) == _GZIP_MARK:
        unpacker, n_next = isal_zlib.decompressobj(wbits=_GZIP), _PIECE_BYTES
        while not unpacker.eof:
            part = unpacker.decompress(packed, _PORTION_BYTES)
            if not packed and not part:
                raise EOFError
            if filled + len(part) > len(content):
                raise DataError(f"{what} unpacks to more than its header says; it is damaged: copy it again")
            content[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
            stream.seek(-len(unpacker.unconsumed_tail or unpacker.unused_data), os.SEEK_CUR)
            if not unpacker.eof:
                packed = stream.read(n_next)
                n_next = min(2 * n_next, _SLAB_BYTES)
    return content[:filled]


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """(I, J, K) or (C, I, J, K); axes past the fourth are of length 1."""
    while array.ndim > 4 or (array.ndim == 4 and array.shape[-1] == 1):
        array = array[..., 0]
    return array if array.ndim == 3 else np.moveaxis(array, -1, 0)


def _scaled(array: NDArray[Any], header: _Header, what: str) -> NDArray[Any]:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    slope, intercept = header.slope, 0.0 if math.isnan(header.intercept) else header.intercept
    if math.isnan(slope) or slope == 0.0:
        return native
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DataError(f"{what} has an infinite scale factor; export it again")
    return native if (slope, intercept) == (1.0, 0.0) else native * np.float64(slope) + np.float64(intercept)


def _affine_of(header: _Header, what: str) -> Affine:
    if not header.has_place:
        raise GeometryError(f"{what} does not say which side is left (sform and qform codes are 0); export it again")
    if header.unit_mm is None:
        raise GeometryError(f"{what} gives its unit of length by a number that means none; export it again")
    if header.affine is None:
        raise GeometryError(f"{what} has a damaged affine; export it again")
    affine = header.affine.copy()
    affine[:3] *= header.unit_mm
    check_affine(affine, what)
    return affine
