"""NIfTI files, read with suspicion and written the same bytes each time. RAS+ millimetres inside."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from monai_tl.errors import DataError, GeometryError, LabelError
from monai_tl.files import write_bytes
from monai_tl.geometry import Affine, Volume, check_affine, reorient_to_ras

MAX_BYTES = 8 << 30
"""A volume that claims more than this, unpacked, is refused before anything is allocated."""
_DEFLATE_LIMIT = 1040
_HEAD_BYTES = 600
_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_FAULTS: tuple[Any, ...] = (isal_zlib.error, EOFError)


def read_image(path: Path) -> tuple[Volume, Affine]:
    """Read an image.

    The gzip checksum is verified, sizes are checked before memory is taken, slope and intercept are applied.

    Args:
        path: ``.nii`` or ``.nii.gz``.

    Returns:
        (I, J, K), or (C, I, J, K) for a 4-D file with more than one volume, growing towards R, A, S; int16 where all
        values are whole and fit, else float32. And its affine voxel → RAS mm.

    Raises:
        DataError: The file is missing, damaged, absurdly large, or holds numbers that are not finite.
        GeometryError: It has no usable affine.
    """
    header, content = _load(path)
    array = _channels_first(_values(header, content), path)
    affine = _affine_of(header, path)
    return reorient_to_ras(to_stored_type(_scaled(array, header, path), _where(path)), affine)


def read_label(path: Path) -> tuple[NDArray[Any], Affine]:
    """Read a label map: whole numbers, no scaling by interpolation.

    Args:
        path: ``.nii`` or ``.nii.gz``.

    Returns:
        (I, J, K) uint8 where the values fit, else int32, RAS+; and its affine.

    Raises:
        LabelError: Values are not whole numbers, or there is more than one channel.
        DataError, GeometryError: As :func:`read_image`.
    """
    header, content = _load(path)
    array = _channels_first(_values(header, content), path)
    array = _scaled(array, header, path)
    if array.ndim != 3:
        raise LabelError(f"{_where(path)} has {array.shape[0]} channels; a label map has one", "label_channels")
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise LabelError(
            f"{_where(path)} holds values that are not whole numbers; export the label map, not a probability"
        )
    if low < np.iinfo(np.int32).min or high > np.iinfo(np.int32).max:
        raise LabelError(f"{_where(path)} holds values beyond 32 bits; export the label map again")
    labels = array.astype(np.uint8 if low >= 0 and high <= 255 else np.int32)
    return reorient_to_ras(labels, _affine_of(header, path))


def to_stored_type(array: NDArray[Any], where: str) -> NDArray[Any]:
    """The type images are kept in: int16 where all values are whole and fit, else float32.

    Raises:
        DataError: Values are not finite, or not real numbers.
    """
    if array.dtype.kind not in "iufb":
        raise DataError(f"{where} holds {array.dtype} values; only real numbers are images")
    limits = np.iinfo(np.int16)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where} holds NaN or infinite values; replace them and say with what")
    fits = limits.min <= low and high <= limits.max
    if fits and (array.dtype.kind != "f" or np.array_equal(array, np.rint(array))):
        return array.astype(np.int16, copy=False)
    return array.astype(np.float32, copy=False)


def write_image(path: Path, array: NDArray[Any], affine: Affine) -> None:
    """Write a volume whole: equal input gives equal bytes.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        array: (I, J, K) or (C, I, J, K); int16, uint8 or float32 (others are NIfTI types too, bool is not).
        affine: Voxel → RAS mm; goes into sform and qform, code 1.
    """
    volume = np.moveaxis(array, 0, -1) if array.ndim == 4 else array
    header = nibabel.Nifti1Header()
    header.set_data_shape(volume.shape)
    header.set_data_dtype(volume.dtype.newbyteorder("="))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = 352
    little = np.asarray(volume, dtype=volume.dtype.newbyteorder("<"))
    parts = header.as_byteswapped("<").binaryblock, b"\0\0\0\0", little.tobytes(order="F")
    if path.suffix == ".gz":
        packer = isal_zlib.compressobj(level=1, wbits=_GZIP)
        write_bytes(path, b"".join([*(packer.compress(part) for part in parts), packer.flush()]))
    else:
        write_bytes(path, b"".join(parts))


def _where(path: Path) -> str:
    """A file's place without its name, which may be a patient's."""
    return f"a NIfTI file in {path.parent.name or '.'}/"


def _load(path: Path) -> tuple[Any, bytes]:
    """Header and unpacked content; the content is as long as the header says, and its checksum is right."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{_where(path)} cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    is_gzip = packed[:2] == b"\x1f\x8b"
    try:
        head = isal_zlib.decompressobj(wbits=_GZIP).decompress(packed, _HEAD_BYTES) if is_gzip else packed[:_HEAD_BYTES]
        header = _header(head, path)
        expected = _expected_bytes(header, len(packed), is_gzip, path)
        content = _unpack(packed, expected, path) if is_gzip else packed
    except _GZIP_FAULTS:
        raise DataError(f"{_where(path)} is damaged (its gzip stream or checksum is wrong); copy it again") from None
    if len(content) < expected:
        raise DataError(f"{_where(path)} ends after {len(content)} of {expected} bytes; copy it again")
    return header, content


def _header(head: bytes, path: Path) -> Any:
    try:
        size = int.from_bytes(head[:4], "little")
        swapped = int.from_bytes(head[:4], "big")
        kind = nibabel.Nifti2Header if 540 in (size, swapped) else nibabel.Nifti1Header
        if 540 not in (size, swapped) and 348 not in (size, swapped):
            raise ValueError("no NIfTI header")
        header = kind(head[: 540 if kind is nibabel.Nifti2Header else 348], check=False)
        magic = header["magic"].item()
        if magic[:3] not in (b"n+1", b"n+2"):
            raise ValueError("not a single-file NIfTI")
        header.get_data_dtype()
    except Exception:
        raise DataError(f"{_where(path)} is no single-file NIfTI (.nii or .nii.gz); convert it") from None
    return header


def _expected_bytes(header: Any, packed_bytes: int, is_gzip: bool, path: Path) -> int:
    """Size by the header, checked against what the file can possibly hold; Python integers do not overflow."""
    shape = [int(size) for size in header["dim"][1 : 1 + max(0, min(7, int(header["dim"][0])))]]
    if not 3 <= len(shape) <= 7 or min(shape) < 1 or any(size != 1 for size in shape[4:]):
        raise DataError(f"{_where(path)} has dimensions {shape}; a volume, or a stack of channels, is needed")
    n_bytes = int(header["vox_offset"])
    values = int(header.get_data_dtype().itemsize)
    for size in shape:
        values *= size
    n_bytes += values
    possible = packed_bytes * (_DEFLATE_LIMIT if is_gzip else 1) + 64
    if int(header["vox_offset"]) < 0 or n_bytes > min(MAX_BYTES, possible):
        raise DataError(
            f"{_where(path)} claims {n_bytes} bytes, more than a file of {packed_bytes} bytes can hold or "
            f"than {MAX_BYTES}; it is damaged or cut off: copy it again"
        )
    return n_bytes


def _unpack(packed: bytes, expected: int, path: Path) -> bytes:
    """Unpack to the end of each gzip member, so that its checksum is verified; no more than the header announced."""
    parts: list[bytes] = []
    room = expected + 1024
    while packed[:2] == b"\x1f\x8b":
        unpacker = isal_zlib.decompressobj(wbits=_GZIP)
        part = unpacker.decompress(packed, room + 1)
        room -= len(part)
        if room < 0:
            raise DataError(f"{_where(path)} unpacks to more than its header says; it is damaged: copy it again")
        if not unpacker.eof:
            raise EOFError
        parts.append(part)
        packed = unpacker.unused_data
    return b"".join(parts)


def _values(header: Any, content: bytes) -> NDArray[Any]:
    shape = tuple(int(size) for size in header.get_data_shape())
    count = int(np.prod(shape, dtype=np.int64))
    flat = np.frombuffer(content, dtype=header.get_data_dtype(), count=count, offset=int(header["vox_offset"]))
    return flat.reshape(shape, order="F")


def _channels_first(array: NDArray[Any], path: Path) -> NDArray[Any]:
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 3:
        return array
    if array.ndim == 4:
        return np.moveaxis(array, -1, 0)
    raise DataError(f"{_where(path)} has {array.ndim} dimensions; a volume, or a stack of channels, is needed")


def _scaled(array: NDArray[Any], header: Any, path: Path) -> NDArray[Any]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if array.dtype.kind not in "iuf":
        raise DataError(f"{_where(path)} holds {array.dtype} values; only real numbers are images")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if np.isnan(slope) or slope == 0.0:
        return native
    intercept = 0.0 if np.isnan(intercept) else intercept
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise DataError(f"{_where(path)} has an infinite scale factor; export it again")
    return native if (slope, intercept) == (1.0, 0.0) else native * np.float64(slope) + np.float64(intercept)


def _affine_of(header: Any, path: Path) -> Affine:
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise GeometryError(
            f"{_where(path)} does not say which side is left (sform and qform codes are 0); export it again"
        )
    unit = header.get_xyzt_units()[0]
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except Exception:
        raise GeometryError(f"{_where(path)} has a damaged affine; export it again") from None
    affine[:3] *= _MILLIMETRES.get(unit, 1.0)
    check_affine(affine, _where(path))
    return affine
