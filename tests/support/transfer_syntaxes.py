"""Slices in every transfer syntax, by pydicom, Pillow and plain JPEG writers: nothing of the package takes part."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import htj2k_streams
import numpy as np
from dicom_files import slice_dataset
from jpeg_streams import encode_extended, encode_lossless
from PIL import Image
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import get_encoder

N_SLICES, ROWS, COLUMNS = 4, 13, 10
# right-handed, of 3-4-5 triangles: exact in the 16 characters of a decimal string, and no axis is the patient's
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
SPACING = (0.7, 0.9)
STEP_MM = 2.5


@dataclass(frozen=True)
class Place:
    """Where slices lie, LPS.

    Attributes:
        positions: (K, 3) mm, of the first pixels.
        orientation: As ImageOrientationPatient.
        spacing: As PixelSpacing: between rows, between columns.
    """

    positions: np.ndarray
    orientation: tuple[float, ...] = OBLIQUE
    spacing: tuple[float, float] = SPACING

    def centres_ras(self, rows: int, columns: int) -> np.ndarray:
        """(K, rows, columns, 3) by the equation of PS3.3 C.7.6.2.1.1."""
        along_row, along_column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        r, c = np.indices((rows, columns))
        plane = c[..., None] * self.spacing[1] * along_row + r[..., None] * self.spacing[0] * along_column
        return (self.positions[:, None, None] + plane) * (-1, -1, 1)


def oblique_place(
    n_slices: int = N_SLICES,
    origin: Sequence[float] = (-31.0, 17.0, 105.0),
    orientation: tuple[float, ...] = OBLIQUE,
    step_mm: float = STEP_MM,
) -> Place:
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.asarray(origin) + np.arange(n_slices)[:, None] * step_mm * normal
    return Place(np.round(positions, 6), orientation)


def shape_of(syntax: str) -> tuple[int, int]:
    """Rows and columns: the JPEG 2000 encoder makes six resolutions, which takes 32 pixels at least."""
    return (37, 34) if syntax.startswith("jpeg 2000") else (ROWS, COLUMNS)


def pattern(bits: int = 12, shape: tuple[int, int] = (ROWS, COLUMNS), n_slices: int = N_SLICES) -> np.ndarray:
    """(K, *shape) int64 over the whole range of 0 to 2**bits - 1, both ends in each slice."""
    k, r, c = np.indices((n_slices, *shape))
    spread = 1 if bits <= 12 else (1 << bits) // 4096 + 1
    values = ((k * 97 + r * r * 11 + c * 23 + r * c * k * 5) * spread) % (1 << bits)
    values[:, 0, 0], values[:, 0, 1] = 0, (1 << bits) - 1
    return values


def smooth(shape: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """(K, *shape) int64 from 500 up to 3130: what lossy syntaxes keep well."""
    k, r, c = np.indices((N_SLICES, *shape))
    return np.asarray(500 + 60 * k + 40 * r + 30 * c)


@dataclass(frozen=True)
class Bits:
    """How a pixel is stored; ``above`` is laid into the bits above BitsStored."""

    allocated: int = 16
    stored: int = 12
    signed: bool = False
    above: int = 0

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Stored values as unsigned words of BitsAllocated, two's complement in the bits stored."""
        assert values.min() >= (-(1 << self.stored - 1) if self.signed else 0)
        assert values.max() < 1 << (self.stored - self.signed)
        words = (values & ((1 << self.stored) - 1)) | (self.above << self.stored)
        return words.astype(f"u{self.allocated // 8}")

    def extended(self, values: np.ndarray) -> np.ndarray:
        """Stored values as numbers of BitsAllocated, the sign carried up."""
        return values.astype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def tags(self) -> dict[str, int]:
        return {
            "BitsAllocated": self.allocated,
            "BitsStored": self.stored,
            "HighBit": self.stored - 1,
            "PixelRepresentation": int(self.signed),
        }


TWELVE = Bits()


def _by_pydicom(uid: str, plugin: str, **options: Any) -> Callable[[np.ndarray, Bits, int], bytes]:
    def encode(plane: np.ndarray, bits: Bits, _number: int) -> bytes:
        # JPEG-LS knows no sign: what it stores are the bits (PS3.5 8.2.3)
        words = bits.pack(plane) if plugin == "pyjpegls" else bits.extended(plane)
        facts = {
            "rows": plane.shape[0],
            "columns": plane.shape[1],
            "number_of_frames": 1,
            "samples_per_pixel": 1,
            "bits_allocated": bits.allocated,
            "bits_stored": bits.stored,
            "pixel_representation": int(bits.signed and plugin != "pyjpegls"),
            "photometric_interpretation": "MONOCHROME2",
        }
        return bytes(get_encoder(uid).encode(words, encoding_plugin=plugin, **facts, **options))

    return encode


def _baseline(plane: np.ndarray, _bits: Bits, _number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(plane.astype(np.uint8)).save(stream, "JPEG", quality=100)
    return stream.getvalue()


def _lossless(predictor: int) -> Callable[[np.ndarray, Bits, int], bytes]:
    return lambda plane, bits, _number: encode_lossless(bits.pack(plane), bits.stored, predictor)


def _extended(plane: np.ndarray, _bits: Bits, _number: int) -> bytes:
    return encode_extended(plane)


def _kept(streams: list[bytes]) -> Callable[[np.ndarray, Bits, int], bytes]:
    """Streams written beforehand, one a slice."""
    return lambda _plane, _bits, number: streams[number]


NATIVE = {
    "implicit little": "1.2.840.10008.1.2",
    "explicit little": "1.2.840.10008.1.2.1",
    "explicit big": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
}
_J2K, _JLS, _HT = "1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.8", "1.2.840.10008.1.2.4.20"
COMPRESSED: dict[str, tuple[str, Callable[[np.ndarray, Bits, int], bytes]]] = {
    "rle": ("1.2.840.10008.1.2.5", _by_pydicom("1.2.840.10008.1.2.5", "pydicom")),
    "jpeg baseline": ("1.2.840.10008.1.2.4.50", _baseline),
    "jpeg extended": ("1.2.840.10008.1.2.4.51", _extended),
    "jpeg lossless": ("1.2.840.10008.1.2.4.57", _lossless(4)),
    "jpeg lossless, mean": ("1.2.840.10008.1.2.4.57", _lossless(7)),
    "jpeg lossless sv1": ("1.2.840.10008.1.2.4.70", _lossless(1)),
    "jpeg-ls": (_JLS + "0", _by_pydicom(_JLS + "0", "pyjpegls")),
    "jpeg-ls near": (_JLS + "1", _by_pydicom(_JLS + "1", "pyjpegls", jls_error=2)),
    "jpeg 2000 lossless": (_J2K + "0", _by_pydicom(_J2K + "0", "pylibjpeg")),
    "jpeg 2000": (_J2K + "1", _by_pydicom(_J2K + "1", "pylibjpeg", j2k_psnr=[95])),
    # a lossless stream under the syntax that allows both
    "jpeg 2000, lossless stream": (_J2K + "1", _by_pydicom(_J2K + "0", "pylibjpeg")),
    "htj2k lossless": (_HT + "1", _kept(htj2k_streams.LOSSLESS)),
    "htj2k lossless rpcl": (_HT + "2", _kept(htj2k_streams.LOSSLESS)),
    "htj2k signed": (_HT + "1", _kept(htj2k_streams.SIGNED)),
    "htj2k": (_HT + "3", _kept(htj2k_streams.LOSSY)),
}
Table = Literal["basic", "none", "extended"]


def encode_frame(plane: np.ndarray, bits: Bits, syntax: str, number: int = 0) -> bytes:
    return COMPRESSED[syntax][1](plane, bits, number)


def set_pixels(
    ds: FileDataset,
    frames: np.ndarray,
    bits: Bits,
    syntax: str,
    *,
    first: int = 0,
    fragments: int = 1,
    table: Table = "basic",
    padding: bytes = b"",
) -> None:
    """Put (N, rows, columns) stored values into a data set.

    Args:
        first: Number of the first frame, for syntaxes with streams written beforehand.
        fragments: Of each frame.
        table: Which offset table there is; ``none`` leaves the basic one empty.
        padding: After the end of each stream.
    """
    if syntax in NATIVE:
        ds.file_meta.TransferSyntaxUID = NATIVE[syntax]
        words = bits.pack(frames)
        content = words.astype(words.dtype.newbyteorder(">" if syntax == "explicit big" else "<")).tobytes()
        ds.PixelData = content + b"\0" * (len(content) % 2)
        ds["PixelData"].VR = "OB" if bits.allocated == 8 and syntax != "implicit little" else "OW"
        return
    ds.file_meta.TransferSyntaxUID = COMPRESSED[syntax][0]
    streams = [encode_frame(plane, bits, syntax, first + n) + padding for n, plane in enumerate(frames)]
    if table == "extended":
        assert fragments == 1
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    else:
        ds.PixelData = encapsulate(streams, fragments_per_frame=fragments, has_bot=table == "basic")
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def write_slices(
    folder: Path,
    values: np.ndarray,
    place: Place,
    *,
    bits: Bits = TWELVE,
    syntax: str = "explicit little",
    by_slice: Callable[[int], dict[str, Any]] = lambda _k: {},
    layout: dict[str, Any] | None = None,
    edit: Callable[[FileDataset], None] | None = None,
    **tags: Any,
) -> None:
    """One file a slice; names and instance numbers run against the positions.

    Args:
        values: (K, rows, columns) stored values.
        by_slice: Attributes of the k-th slice.
        layout: Further arguments of ``set_pixels``.
        edit: Last change of each data set, pixels in place.
        tags: Attributes of all slices; None removes one.
    """
    for k, plane in enumerate(values):
        number = len(values) - k
        attributes = {
            "ImageOrientationPatient": list(place.orientation),
            "PixelSpacing": list(place.spacing),
            **bits.tags,
            **tags,
            **by_slice(k),
        }
        ds = slice_dataset(np.zeros(plane.shape, np.uint16), place.positions[k], number, **attributes)
        set_pixels(ds, plane[None], bits, syntax, first=k, **(layout or {}))
        if edit:
            edit(ds)
        save_encoded(ds, folder / f"{number:03d}.dcm")


def save_encoded(ds: FileDataset, path: Path) -> Path:
    """Write a data set in the syntax it names; pydicom takes another endianness from a new data set only."""
    fresh = Dataset()
    fresh.update(ds)
    fresh.file_meta = ds.file_meta
    fresh.preamble = b"\0" * 128
    path.parent.mkdir(parents=True, exist_ok=True)
    # what anonymisers took out of the file meta group stays out
    whole = "MediaStorageSOPInstanceUID" in ds.file_meta and "MediaStorageSOPClassUID" in ds.file_meta
    is_known = ds.file_meta.TransferSyntaxUID in {*NATIVE.values(), *(uid for uid, _ in COMPRESSED.values())}
    encoding = {} if is_known else {"implicit_vr": False, "little_endian": True}
    fresh.save_as(path, enforce_file_format=whole, **encoding)
    return path
