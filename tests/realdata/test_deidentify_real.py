"""De-identification of real files: the images and labels stay what they are, in every transfer syntax."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame

from monai_tl.commands import deidentify
from monai_tl.dicom.deidentify import Pseudonyms, create_key, seeded_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.volume import read_volume

pytestmark = pytest.mark.realdata
DATA = Path(os.environ.get("MONAI_TL_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "dicom"
WORD = b"KANARIVOGEL"
_JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80")

if not DATA.is_dir():
    pytest.skip(f"no real data at {DATA}", allow_module_level=True)


@pytest.mark.parametrize("name", ["abdomen_ct_j2k", "brain_mr", "thorax_ct_rtstruct"])
def test_volumes_and_their_labels_stay(tmp_path, name):
    create_key(tmp_path / "key")
    deidentify.run(DATA / name, tmp_path / "out", key_file=tmp_path / "key")
    hasher = Pseudonyms(seeded_key(0))
    before, after = (index_folder(folder, hasher).series for folder in (DATA / name, tmp_path / "out"))
    assert len(before) == len(after)
    found = sorted((read_volume(one) for one in after), key=_order)
    for one, other in zip(sorted((read_volume(one) for one in before), key=_order), found, strict=True):
        np.testing.assert_array_equal(one.array, other.array)
        np.testing.assert_array_equal(one.affine_lps, other.affine_lps)
        assert (one.modality, one.scaling) == (other.modality, other.scaling)
    assert sorted(len(one.labels) for one in before) == sorted(len(one.labels) for one in after)
    identity = {word for one in before for header in one.headers for word in header.identity_words if len(word) > 6}
    for path in (tmp_path / "out").rglob("*.dcm"):
        plain = path.read_bytes().lower()
        assert not any(word.encode() in plain for word in identity)


def _order(volume):
    return volume.array.shape, float(volume.array.astype(np.float64).sum())


@pytest.mark.parametrize("number", range(1, 10))
def test_every_transfer_syntax_keeps_its_pixels_and_loses_comments(tmp_path, number):
    dataset = pydicom.dcmread(DATA / "encodings_mr" / f"{number}.dcm")
    expected = dataset.pixel_array
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _JPEG_SYNTAXES:
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")
        comment = b"\xff\xfe" + struct.pack(">H", 2 + len(WORD)) + WORD
        application = b"\xff\xe5" + struct.pack(">H", 2 + len(WORD)) + WORD
        stream = stream[:2] + application + comment + stream[2:] + WORD
        dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    (tmp_path / "in").mkdir()
    pydicom.dcmwrite(tmp_path / "in" / "a.dcm", dataset)
    create_key(tmp_path / "key")
    deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "key")
    (path,) = (tmp_path / "out").rglob("*.dcm")
    made = pydicom.dcmread(path)
    np.testing.assert_array_equal(made.pixel_array, expected)
    assert WORD not in path.read_bytes()
    assert made.file_meta.TransferSyntaxUID.is_encapsulated == syntax.is_encapsulated


def test_segmentations_keep_their_frames_and_references(tmp_path):
    create_key(tmp_path / "key")
    deidentify.run(DATA / "seg_objects" / "24x38x3", tmp_path / "out", key_file=tmp_path / "key")
    before, after = (readable(folder) for folder in (DATA / "seg_objects" / "24x38x3", tmp_path / "out"))
    (one,), (other,) = ([data for data in group if data.Modality == "SEG"] for group in (before, after))
    np.testing.assert_array_equal(one.pixel_array, other.pixel_array)
    assert [item.SegmentNumber for item in one.SegmentSequence] == [
        item.SegmentNumber for item in other.SegmentSequence
    ]
    instances = {data.SOPInstanceUID for data in after}
    named = {item.ReferencedSOPInstanceUID for item in other.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named <= instances


def readable(folder: Path) -> list[pydicom.Dataset]:
    marked = (path for path in folder.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM")
    return [pydicom.dcmread(path) for path in marked]
