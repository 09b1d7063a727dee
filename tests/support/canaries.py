"""Words planted in DICOM files, and the search that finds each of them in whatever form it is written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

DEFLATED = "1.2.840.10008.1.2.1.99"


class Canaries:
    """Unique texts, each known by where it was planted."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def plant(self, place: str) -> str:
        """A new word of letters and digits, upper case."""
        return self.keep(place, f"KANARI{len(self.texts):03d}VOGEL")

    def keep(self, place: str, text: str) -> str:
        """A text of the caller's own: a date, a number, a UID."""
        if place in self.texts or text in self.texts.values():
            raise ValueError(f"{place} is planted twice")
        self.texts[place] = text
        return text

    def found_in(self, blobs: Iterator[bytes]) -> set[str]:
        """Places whose text stands in one of the blobs: any case, 8-bit or 16-bit characters, ideographs too."""
        wanted = {place: _forms(text) for place, text in self.texts.items()}
        found: set[str] = set()
        for blob in blobs:
            plain = blob.lower()
            found |= {
                place for place, forms in wanted.items() if place not in found and any(form in plain for form in forms)
            }
        return found


def _forms(text: str) -> set[bytes]:
    forms = set()
    for code in ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "shift_jis", "iso2022_jp", "gb18030", "euc_kr"):
        try:
            forms.add(text.encode(code).lower())
        except UnicodeEncodeError:
            continue
    if text.isdigit() and len(text) == 8:
        forms.add(f"{text[:4]}-{text[4:6]}-{text[6:]}".encode())
    return forms


def blobs_of(folder: Path) -> Iterator[bytes]:
    """All that can be read in a folder: names, raw and inflated bytes, decoded values, planes of bits of the pixels."""
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)).encode("utf-8", "surrogateescape")
        if path.is_file():
            yield path.read_bytes()
            if path.suffix not in (".json", ".txt"):
                yield from _decoded(path)


def _decoded(path: Path) -> Iterator[bytes]:
    try:
        dataset = pydicom.dcmread(path)
    except Exception:
        return
    yield "\n".join(_texts(dataset.file_meta)).encode("utf-8", "replace")
    yield "\n".join(_texts(dataset)).encode("utf-8", "replace")
    if dataset.file_meta.get("TransferSyntaxUID") == DEFLATED:
        raw = path.read_bytes()
        yield zlib.decompress(raw[144 + dataset.file_meta.FileMetaInformationGroupLength :], -15)
    if "PixelData" in dataset and dataset.get("BitsAllocated", 1) > 1:
        yield from _bit_planes(dataset)


def _bit_planes(dataset: Dataset) -> Iterator[bytes]:
    try:
        compressed = dataset.file_meta.TransferSyntaxUID.is_compressed and dataset["PixelData"].VR != "OW"
        # pydicom clears the unused bits of native pixels: the raw ones are wanted
        width = dataset.BitsAllocated // 8
        content = dataset.PixelData[: len(dataset.PixelData) // width * width]
        values = dataset.pixel_array.reshape(-1) if compressed else np.frombuffer(content, f"<u{width}")
    except Exception:
        return
    plain = values.view(f"u{values.dtype.itemsize}")
    for bit in range(plain.dtype.itemsize * 8):
        plane = ((plain >> bit) & 1).astype(np.uint8)
        yield np.packbits(plane, bitorder="big").tobytes()
        yield np.packbits(plane, bitorder="little").tobytes()


def _texts(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        yield f"{element.tag} {element.name}"
        values = element.value if isinstance(element.value, (list, pydicom.multival.MultiValue)) else [element.value]
        for value in values if element.VR != "SQ" else ():
            yield from _forms_of_value(value)


def _forms_of_value(value: Any) -> Iterator[str]:
    if isinstance(value, bytes):
        for code in ("latin-1", "utf-16-le", "utf-16-be"):
            yield value.decode(code, "replace")
    elif isinstance(value, PersonName):
        yield from (str(value), value.alphabetic, value.ideographic, value.phonetic, *map(str, value.components))
    else:
        yield str(value)


def bits_of(text: str, count: int) -> np.ndarray:
    """A text as ``count`` bits, most significant first, zeros behind it."""
    bits = np.unpackbits(np.frombuffer(text.encode("ascii"), np.uint8))
    return np.pad(bits, (0, count - bits.size))
