"""The scanner of headers stops: however many elements, items or zeros a file claims to hold."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_bytes import PIXELS, UNDEFINED, body, element, file_bytes, item, meta, new_series, save

from monai_tl.dicom import scan
from monai_tl.dicom.reading import scan_file
from monai_tl.errors import DicomError


@pytest.fixture
def elements():
    return new_series(np.random.default_rng(0)).elements(0)


def head(elements):
    return meta(elements) + body({tag: value for tag, value in elements.items() if tag < PIXELS})


@pytest.mark.parametrize("nested", [False, True])
def test_elements_are_counted_at_any_depth(tmp_path, elements, monkeypatch, nested):
    many = item(b"") * 2000 if nested else b"".join(element(0x00091000 + n, "LO", b"") for n in range(2000))
    elements[0x00091000] = ("", element(0x00091000, "SQ", many, UNDEFINED) if nested else many)
    path = save(tmp_path / "a.dcm", file_bytes(elements))
    monkeypatch.setattr(scan, "MAX_ELEMENTS", 1900)
    with pytest.raises(DicomError, match="more than 1900 elements") as caught:
        scan_file(path, frozenset())
    assert caught.value.code == "damaged"


def test_zeros_are_padding_only_when_few(tmp_path, elements):
    padded = save(tmp_path / "padded.dcm", head(elements) + bytes(scan.MAX_PADDING_BYTES))
    assert scan_file(padded, frozenset((0x00280010,)))[0].values == {0x00280010: b"\x0c\0"}
    filled = save(tmp_path / "filled.dcm", head(elements) + bytes(scan.MAX_PADDING_BYTES + 1))
    with pytest.raises(DicomError, match="zeros where elements should be"):
        scan_file(filled, frozenset())
