"""DICOM files as plain bytes: every length, representation and value can be made to lie, which no writer allows."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

TOKEN = "9081726354"
"""In every identifier that is written: where it is found in an output, something leaked."""
CANARY = f"CANARY{TOKEN}"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE, J2K, JPEG_LS = (f"1.2.840.10008.1.2.{tail}" for tail in ("1.99", "5", "4.90", "4.80"))
JPEG_BASELINE, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
CT, MR, SEG, RTSTRUCT = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "4", "66.4", "481.3"))
UNDEFINED = 0xFFFFFFFF
PIXELS = 0x7FE00010
_LONG = frozenset(("OB", "OW", "OF", "OD", "OL", "OV", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"))

Elements = dict[int, tuple[str, bytes]]
"""Tag → representation and value as it is on disk; an empty representation: the value is the whole element."""


def text(*values: object) -> bytes:
    """A text value, padded to even length."""
    joined = "\\".join(str(value) for value in values).encode()
    return joined + b" " * (len(joined) % 2)


def uid(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def short(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def decimal(*values: float) -> bytes:
    return text(*(f"{value:.10g}" for value in values))


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One element, explicit little endian; ``length`` overrides the true one."""
    claimed = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode("latin-1")
    tail = struct.pack("<xxI", claimed) if vr in _LONG else struct.pack("<H", claimed & 0xFFFF)
    return head + tail + value


def item(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


def sequence(*items: Elements) -> tuple[str, bytes]:
    """A sequence of defined length, ready to be a value of ``Elements``."""
    return "SQ", b"".join(item(body(one)) for one in items)


def body(elements: Mapping[int, tuple[str, bytes]]) -> bytes:
    """A data set in order of tag, explicit little endian."""
    return b"".join(element(tag, *elements[tag]) if elements[tag][0] else elements[tag][1] for tag in sorted(elements))


def implicit_body(elements: Mapping[int, tuple[str, bytes]]) -> bytes:
    """A data set without sequences, implicit little endian."""
    return b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(elements[tag][1])) + elements[tag][1]
        for tag in sorted(elements)
    )


def meta(elements: Mapping[int, tuple[str, bytes]], syntax: str = EXPLICIT) -> bytes:
    """Preamble, mark and file meta group that belong to a data set."""
    group = element(0x00020001, "OB", b"\0\1")
    if 0x00080016 in elements:
        group += element(0x00020002, "UI", elements[0x00080016][1])
    if 0x00080018 in elements and len(elements[0x00080018][1]) <= 64:
        group += element(0x00020003, "UI", elements[0x00080018][1])
    if syntax:
        group += element(0x00020010, "UI", uid(syntax))
    group += element(0x00020012, "UI", uid("1.2.3.4"))
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(group))) + group


def file_bytes(elements: Mapping[int, tuple[str, bytes]], syntax: str = EXPLICIT) -> bytes:
    """A whole file, the data set written as explicit (or implicit) little endian."""
    return meta(elements, syntax) + (implicit_body(elements) if syntax == IMPLICIT else body(elements))


def save(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@dataclass(frozen=True)
class Grid:
    """Values with their place: what an output must show.

    Attributes:
        values: (K, rows, columns) after rescale.
        affine_lps: (column, row, slice) index → LPS mm.
        label: (K, rows, columns) of 0 and 1; None where none must come out.
    """

    values: np.ndarray
    affine_lps: np.ndarray
    label: np.ndarray | None = None


@dataclass(frozen=True)
class Series:
    """A small good CT series with canaries in all that identifies; damage begins from its elements."""

    stored: np.ndarray
    number: int
    origin: tuple[float, ...] = (-10.0, -20.0, 30.0)
    step: tuple[float, ...] = (0.0, 0.0, 2.5)
    spacing: tuple[float, float] = (0.7, 0.8)
    orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    study_number: int | None = None
    more: Elements = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"1.2.826.0.1.{TOKEN}.{self.number}"

    @property
    def study(self) -> str:
        return f"1.2.826.0.1.{TOKEN}.{self.study_number or self.number}.1"

    @property
    def uid(self) -> str:
        return f"{self.root}.2"

    @property
    def frame(self) -> str:
        return f"{self.root}.3"

    def instance(self, k: int) -> str:
        return f"{self.root}.4.{k + 1}"

    def position(self, k: int) -> np.ndarray:
        return np.asarray(self.origin) + k * np.asarray(self.step)

    def elements(self, k: int) -> Elements:
        """Slice ``k``; instance numbers run against the position."""
        rows, columns = self.stored[k].shape
        return {
            0x00080008: ("CS", text("ORIGINAL", "PRIMARY", "AXIAL")),
            0x00080016: ("UI", uid(CT)),
            0x00080018: ("UI", uid(self.instance(k))),
            0x00080020: ("DA", text("19870607")),
            0x00080050: ("SH", text(f"ACC{TOKEN}")),
            0x00080060: ("CS", text("CT")),
            0x00080070: ("LO", text("ACME")),
            0x00080080: ("LO", text(f"{CANARY} HOSPITAL")),
            0x0008103E: ("LO", text(f"{CANARY} series")),
            0x00100010: ("PN", text(f"{CANARY}^NAME")),
            0x00100020: ("LO", text(f"{CANARY}-{self.study_number or self.number}")),
            0x00100030: ("DA", text("19030405")),
            0x00180050: ("DS", decimal(2.5)),
            0x0020000D: ("UI", uid(self.study)),
            0x0020000E: ("UI", uid(self.uid)),
            0x00200010: ("SH", text(f"ST{TOKEN}")),
            0x00200013: ("IS", text(len(self.stored) - k)),
            0x00200032: ("DS", decimal(*self.position(k))),
            0x00200037: ("DS", decimal(*self.orientation)),
            0x00200052: ("UI", uid(self.frame)),
            0x00280002: ("US", short(1)),
            0x00280004: ("CS", text("MONOCHROME2")),
            0x00280010: ("US", short(rows)),
            0x00280011: ("US", short(columns)),
            0x00280030: ("DS", decimal(*self.spacing)),
            0x00280100: ("US", short(16)),
            0x00280101: ("US", short(12)),
            0x00280102: ("US", short(11)),
            0x00280103: ("US", short(0)),
            0x00281052: ("DS", text("-1024")),
            0x00281053: ("DS", text("1")),
            **self.more,
            PIXELS: ("OW", self.stored[k].astype("<u2").tobytes()),
        }

    @property
    def slices(self) -> list[Elements]:
        return [self.elements(k) for k in range(len(self.stored))]

    def grid(self, label: np.ndarray | None = None, slices: Sequence[int] | None = None) -> Grid:
        """What must come out: the standard's equation (PS3.3 C.7.6.2.1.1), slices along ``step``."""
        taken = range(len(self.stored)) if slices is None else slices
        affine = np.eye(4)
        affine[:3, 0] = np.asarray(self.orientation[:3]) * self.spacing[1]
        affine[:3, 1] = np.asarray(self.orientation[3:]) * self.spacing[0]
        affine[:3, 2] = self.step
        affine[:3, 3] = self.position(taken[0])
        return Grid(self.stored[list(taken)].astype(np.float64) - 1024, affine, label)


def new_series(rng: np.random.Generator, n_slices: int = 6, rows: int = 12, columns: int = 14, **more: Any) -> Series:
    """A series of random values below 2,000, with UIDs of its own."""
    stored = rng.integers(0, 2000, (n_slices, rows, columns)).astype(np.uint16)
    return Series(stored, int(rng.integers(10**6, 10**9)), **more)


def write_series(folder: Path, slices: Sequence[Elements | bytes], syntax: str = EXPLICIT) -> list[Path]:
    """One file a slice, names against the order of position."""
    return [
        save(folder / f"{CANARY}_{len(slices) - k:03d}.dcm", one if isinstance(one, bytes) else file_bytes(one, syntax))
        for k, one in enumerate(slices)
    ]


def rtstruct(
    series: Series,
    outlines: Sequence[np.ndarray | bytes] | None = None,
    *,
    referenced: str | None = None,
    frame: str | None = None,
    tail: int = 7,
) -> Elements:
    """One structure "GTV": ``rectangle``, or the (N, 3) outlines, or raw texts, that are given."""
    drawn = rectangle(series) if outlines is None else outlines
    contours = [
        {
            0x30060042: ("CS", text("CLOSED_PLANAR")),
            0x30060046: ("IS", text(4)),
            0x30060050: ("DS", one if isinstance(one, bytes) else decimal(*np.asarray(one).ravel())),
        }
        for one in drawn
    ]
    frame = series.frame if frame is None else frame
    named = series.uid if referenced is None else referenced
    return {
        0x00080016: ("UI", uid(RTSTRUCT)),
        0x00080018: ("UI", uid(f"{series.root}.{tail}.1")),
        0x00080060: ("CS", text("RTSTRUCT")),
        0x00100010: ("PN", text(f"{CANARY}^NAME")),
        0x00100020: ("LO", text(f"{CANARY}-{series.study_number or series.number}")),
        0x0020000D: ("UI", uid(series.study)),
        0x0020000E: ("UI", uid(f"{series.root}.{tail}")),
        0x30060010: sequence(
            {
                0x00200052: ("UI", uid(frame)),
                0x30060012: sequence({0x30060014: sequence({0x0020000E: ("UI", uid(named))})}),
            }
        ),
        0x30060020: sequence(
            {0x30060022: ("IS", text(1)), 0x30060024: ("UI", uid(frame)), 0x30060026: ("LO", text("GTV"))}
        ),
        0x30060039: sequence({0x30060040: sequence(*contours), 0x30060084: ("IS", text(1))}),
    }


def rectangle(series: Series) -> list[np.ndarray]:
    """Outlines along pixel edges around columns 4 to 7 and rows 3 to 5 of slices 2 and 3."""
    affine = series.grid().affine_lps
    corners = ((3.5, 2.5), (7.5, 2.5), (7.5, 5.5), (3.5, 5.5))
    return [np.array([(affine @ [column, row, k, 1])[:3] for column, row in corners]) for k in (2, 3)]


def rectangle_label(series: Series) -> np.ndarray:
    """The pixels whose centres lie in ``rectangle``."""
    label = np.zeros(series.stored.shape, np.uint8)
    label[2:4, 3:6, 4:8] = 1
    return label


def segmentation(series: Series, *, referenced: str | None = None, frame: str | None = None, tail: int = 8) -> Elements:
    """A binary SEG of one segment "GTV": the pixels of ``rectangle_label`` in slices 2 and 3."""
    label = rectangle_label(series)[2:4]
    frames = [
        {
            0x00209113: sequence({0x00200032: ("DS", decimal(*series.position(k)))}),
            0x0062000A: sequence({0x0062000B: ("US", short(1))}),
        }
        for k in (2, 3)
    ]
    shared = {
        0x00209116: sequence({0x00200037: ("DS", decimal(*series.orientation))}),
        0x00289110: sequence(
            {
                0x00180050: ("DS", decimal(2.5)),
                0x00180088: ("DS", decimal(2.5)),
                0x00280030: ("DS", decimal(*series.spacing)),
            }
        ),
    }
    packed = np.packbits(label.ravel(), bitorder="little").tobytes()
    return {
        0x00080008: ("CS", text("DERIVED", "PRIMARY")),
        0x00080016: ("UI", uid(SEG)),
        0x00080018: ("UI", uid(f"{series.root}.{tail}.1")),
        0x00080060: ("CS", text("SEG")),
        0x00081115: sequence({0x0020000E: ("UI", uid(series.uid if referenced is None else referenced))}),
        0x00100010: ("PN", text(f"{CANARY}^NAME")),
        0x00100020: ("LO", text(f"{CANARY}-{series.study_number or series.number}")),
        0x0020000D: ("UI", uid(series.study)),
        0x0020000E: ("UI", uid(f"{series.root}.{tail}")),
        0x00200052: ("UI", uid(series.frame if frame is None else frame)),
        0x00280002: ("US", short(1)),
        0x00280004: ("CS", text("MONOCHROME2")),
        0x00280008: ("IS", text(2)),
        0x00280010: ("US", short(label.shape[1])),
        0x00280011: ("US", short(label.shape[2])),
        0x00280100: ("US", short(1)),
        0x00280101: ("US", short(1)),
        0x00280102: ("US", short(0)),
        0x00280103: ("US", short(0)),
        0x00620001: ("CS", text("BINARY")),
        0x00620002: sequence(
            {
                0x00620003: sequence(code("SCT", "85756007", "Tissue")),
                0x00620004: ("US", short(1)),
                0x00620005: ("LO", text("GTV")),
                0x00620008: ("CS", text("MANUAL")),
                0x0062000F: sequence(code("SCT", "85756007", "Tissue")),
            }
        ),
        0x52009229: sequence(shared),
        0x52009230: sequence(*frames),
        PIXELS: ("OB", packed + b"\0" * (len(packed) % 2)),
    }


def code(scheme: str, value: str, meaning: str) -> Elements:
    return {0x00080100: ("SH", text(value)), 0x00080102: ("SH", text(scheme)), 0x00080104: ("LO", text(meaning))}


def compress(pixels: np.ndarray, syntax: str) -> bytes:
    """One frame of 16-bit pixels (12 used) in a compressed transfer syntax, by pydicom's own encoders."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.SOPInstanceUID = "1.2.3"
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds.compress(UID(syntax), generate_instance_uid=False)
    return next(generate_frames(ds.PixelData, number_of_frames=1))


def encapsulated(*fragments: bytes, close: bool = True) -> tuple[str, bytes]:
    """Pixel data as fragments after an empty offset table; a whole element, as its length is undefined."""
    content = item(b"") + b"".join(item(one + b"\0" * (len(one) % 2)) for one in fragments)
    content += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if close else b""
    return "", element(PIXELS, "OB", content, UNDEFINED)
