"""A SEG drawn on images whose series and study UIDs were blanked finds its way back to them."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pydicom
from dicom_files import write_ct

from monai_tl.commands import convert
from monai_tl.dicom.deidentify import Pseudonyms, create_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import write_segmentation
from monai_tl.dicom.volume import read_volume
from monai_tl.labels import ClassSpec, LabelScheme

STACK = np.arange(6 * 5 * 7, dtype=np.uint16).reshape(6, 5, 7)
SCHEME = LabelScheme(classes=(ClassSpec(name="liver", type="SCT|10200004|Liver"),))


def test_a_seg_returns_to_images_without_series_uid(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    write_ct(tmp_path / "in/a", STACK, SeriesInstanceUID=None, StudyInstanceUID=None)
    # a second nameless series, which the label must not reach
    write_ct(tmp_path / "in/b", STACK, SeriesInstanceUID=None, StudyInstanceUID=None, FrameOfReferenceUID="1.2.9")
    for path in (tmp_path / "in/b").iterdir():
        _rename_instance(path)
    key = create_key(tmp_path / "secret.key", seed=0)
    hasher = Pseudonyms(key)
    index = index_folder(tmp_path / "in", hasher)
    drawn_on = next(one for one in index.series if one.headers[0].frame_of_reference_uid != "1.2.9")
    volume = read_volume(drawn_on)
    labels = (STACK % 3 == 0).astype(np.uint8)
    write_segmentation(
        tmp_path / "in/seg.dcm", labels, volume.geometry, SCHEME, identity="source", pseudonym="case",
        uid_key=hasher.uid, algorithm=None,
    )  # fmt: skip
    convert.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "secret.key")
    assert json.loads((tmp_path / "out/rejected.json").read_text()) == {"rejected": []}
    volumes = json.loads((tmp_path / "out/index.json").read_text())["volumes"]
    (labelled,) = (one for one in volumes if one["label_file"])
    assert labelled["case_id"] == hasher.case_id(drawn_on.study_uid, drawn_on.name)
    image = np.asanyarray(nibabel.load(tmp_path / "out" / labelled["file"]).dataobj)
    label = np.asanyarray(nibabel.load(tmp_path / "out" / labelled["label_file"]).dataobj)
    # stored value = real value + 1024, and the label was made of it
    assert np.array_equal(label, (image + 1024) % 3 == 0)
    assert labelled["label_classes"] == {"1": "liver"}


def _rename_instance(path):
    ds = pydicom.dcmread(path)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}.9"
    ds.save_as(path)
