"""A folder of anything: what is found, what is refused, and that nothing hangs, bursts or tells."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_files import FRAME, SERIES, slice_dataset, write_ct, write_rtstruct
from dicom_files import save as save_file

from monai_tl.dicom import reading
from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.reading import DEFLATED
from monai_tl.errors import DicomError

HASHER = Pseudonyms(bytes(32))
STACK = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
SQUARE = np.array([[-10, -20, 30], [-8, -20, 30], [-8, -18, 30]], dtype=float)


def codes(index):
    return sorted(one.code for one in index.rejected)


def test_series_are_told_apart_at_any_depth(tmp_path):
    write_ct(tmp_path / "a" / "b" / "c", STACK)
    write_ct(tmp_path / "a", STACK, SeriesInstanceUID="1.2.3.5")
    index = index_folder(tmp_path, HASHER)
    assert [(one.uid, len(one.headers)) for one in index.series] == [(SERIES, 5), ("1.2.3.5", 5)]
    assert index.rejected == ()


def test_files_that_are_no_dicom_are_named_by_hash_only(tmp_path):
    write_ct(tmp_path, STACK)
    (tmp_path / "CANARY_report.txt").write_text("hello")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "random.dcm").write_bytes(os.urandom(4000))
    index = index_folder(tmp_path, HASHER)
    assert codes(index) == ["not_dicom"] * 3
    assert {one.kind for one in index.rejected} == {"file"}
    assert "CANARY" not in "".join(one.model_dump_json() for one in index.rejected)
    assert len(index.series) == 1


def test_byte_identical_copies_are_dropped_and_noted(tmp_path):
    write_ct(tmp_path / "one", STACK)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (series,) = index_folder(tmp_path, HASHER).series
    assert len(series.headers) == 5
    assert series.notes == ("5 byte-identical duplicate files dropped",)


def test_one_identifier_with_two_contents_refuses_the_series(tmp_path):
    paths = write_ct(tmp_path / "one", STACK)
    other = slice_dataset(STACK[0] + 1, (-10, -20, 30), 5)
    save_file(other, tmp_path / "two" / paths[0].name)
    index = index_folder(tmp_path, HASHER)
    assert codes(index) == ["conflicting_instance"]
    assert index.rejected[0].n_files == 6
    assert index.series == ()


def test_blank_identifiers_fall_back_on_folder_and_file_meta(tmp_path):
    for name in ("one", "two"):
        write_ct(tmp_path / name, STACK, SeriesInstanceUID="", StudyInstanceUID="", FrameOfReferenceUID=name)
    index = index_folder(tmp_path, HASHER)
    assert len(index.series) == 2
    assert all(len(one.headers) == 5 for one in index.series)
    assert len({one.uid for one in index.series}) == 2


def test_loops_pipes_and_dead_links_are_survived(tmp_path):
    write_ct(tmp_path / "series", STACK)
    (tmp_path / "series" / "loop").symlink_to(tmp_path)
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.dcm")
    index = index_folder(tmp_path, HASHER)
    assert len(index.series) == 1
    assert codes(index) == ["broken_link"]


def test_series_behind_dead_links_leave_a_trace(tmp_path):
    """As a DVC or git-annex checkout without its cache: nothing of it is read, so nothing else would tell."""
    write_ct(tmp_path / "in" / "here", STACK)
    (tmp_path / "in" / "CANARY study").symlink_to(tmp_path / "CANARY gone")
    (tmp_path / "in" / "CANARY slice.dcm").symlink_to(tmp_path / "in" / "CANARY slice.dcm")
    index = index_folder(tmp_path / "in", HASHER)
    assert len(index.series) == 1
    assert codes(index) == ["broken_link"] * 2
    assert len({one.item for one in index.rejected}) == 2
    text = "".join(one.model_dump_json() for one in index.rejected)
    assert "CANARY" not in text
    assert "dvc checkout" in text


def test_folders_that_cannot_be_opened_leave_a_trace(tmp_path, monkeypatch):
    """Also for a superuser, whom permissions do not stop."""
    write_ct(tmp_path / "open", STACK)
    write_ct(tmp_path / "CANARY closed", STACK, SeriesInstanceUID="1.2.3.5")
    scandir = os.scandir

    def guarded(folder):
        if Path(folder).name == "CANARY closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    index = index_folder(tmp_path, HASHER)
    assert [one.uid for one in index.series] == [SERIES]
    assert codes(index) == ["unreadable_folder"]
    assert "Permission denied" in index.rejected[0].reason
    assert "CANARY" not in index.rejected[0].reason


def test_what_is_no_dicom_comes_with_a_next_step(tmp_path):
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "letter.txt").write_text("hello")
    reasons = {one.reason.split(";")[0]: one.reason for one in index_folder(tmp_path, HASHER).rejected}
    assert "transfer it again" in reasons["the file is empty"]
    assert "export it again" in reasons["the file has no DICM mark after its preamble"]


def test_a_label_of_contradicting_series_says_so(tmp_path):
    """Its series is in the folder, so it must not be sent for; and the label must not go to another series by frame."""
    paths = write_ct(tmp_path / "one", STACK)
    save_file(slice_dataset(STACK[0] + 1, (-10, -20, 30), 5), tmp_path / "two" / paths[0].name)
    write_ct(tmp_path / "other", STACK, SeriesInstanceUID="1.2.3.5")
    for series in (SERIES, None):
        write_rtstruct(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, series=series, instances={0: f"{SERIES}.3"})
        index = index_folder(tmp_path, HASHER)
        assert codes(index) == ["conflicting_instance", "series_refused"]
        label = next(one for one in index.rejected if one.kind == "label")
        assert "(conflicting_instance)" in label.reason
        assert "not in the folder" not in label.reason
        assert index.series[0].labels == ()


def test_each_refused_item_can_be_found_again(tmp_path):
    paths = write_ct(tmp_path / "one", STACK)
    conflicting = save_file(slice_dataset(STACK[0] + 1, (-10, -20, 30), 5), tmp_path / "two" / paths[0].name)
    label = write_rtstruct(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, series=SERIES)
    (tmp_path / "letter.txt").write_text("hello")
    index = index_folder(tmp_path, HASHER)
    found = {one.code: index.places[one.item] for one in index.rejected}
    assert found == {
        "conflicting_instance": tuple(sorted([*paths, conflicting])),
        "series_refused": (label,),
        "not_dicom": (tmp_path / "letter.txt",),
    }
    assert "letter" not in repr(index)


def test_a_missing_folder_says_what_to_check(tmp_path):
    with pytest.raises(DicomError, match="check its path"):
        index_folder(tmp_path / "absent", HASHER)


def deflated(body: bytes) -> bytes:
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(DEFLATED) + len(DEFLATED) % 2)
    meta = element + DEFLATED.encode() + b"\0" * (len(DEFLATED) % 2)
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return b"\0" * 128 + b"DICM" + length + meta + zlib.compress(body, 9, wbits=-15)


def test_a_deflate_bomb_is_refused_before_it_bursts(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_INFLATED_BYTES", 1 << 20)
    private = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 64 << 20) + b"\0" * (64 << 20)
    (tmp_path / "bomb.dcm").write_bytes(deflated(private))
    assert (tmp_path / "bomb.dcm").stat().st_size < 200_000
    assert codes(index_folder(tmp_path, HASHER)) == ["deflate_bomb"]


def test_deep_nesting_is_refused(tmp_path):
    depth = 3000
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    opened = (struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item) * depth
    path = save_file(slice_dataset(STACK[0], (0, 0, 0), 1), tmp_path / "deep.dcm")
    content = path.read_bytes()
    end = reading.scan_file(path, frozenset())[1].end
    path.write_bytes(content[:end] + opened + content[end:])
    (rejected,) = index_folder(tmp_path, HASHER).rejected
    assert rejected.code == "damaged"


@pytest.mark.parametrize("cut", [140, 200, 400, 600])
def test_a_file_cut_anywhere_never_stops_the_index(tmp_path, cut):
    write_ct(tmp_path, STACK)
    path = next(tmp_path.glob("003*"))
    path.write_bytes(path.read_bytes()[:cut])
    index = index_folder(tmp_path, HASHER)
    assert sum(len(one.headers) for one in index.series) + len(index.rejected) == 5


def test_a_value_that_does_not_parse_is_damaged_and_not_quoted(tmp_path):
    write_ct(tmp_path, STACK)
    path = next(tmp_path.glob("003*"))
    content = path.read_bytes()
    assert content.count(b"-10.0") == 1
    path.write_bytes(content.replace(b"-10.0", b"CANAR"))
    index = index_folder(tmp_path, HASHER)
    assert codes(index) == ["damaged"]
    assert "CANAR" not in index.rejected[0].reason


def test_other_objects_are_neither_image_nor_label(tmp_path):
    write_ct(tmp_path, STACK)
    report = slice_dataset(
        STACK[0], (0, 0, 0), 9, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR", Rows=None
    )
    save_file(report, tmp_path / "report.dcm")
    index = index_folder(tmp_path, HASHER)
    assert codes(index) == ["other_object"]
    assert len(index.series[0].headers) == 5


def test_labels_go_to_the_series_they_name(tmp_path):
    write_ct(tmp_path / "a", STACK)
    write_ct(tmp_path / "b", STACK, SeriesInstanceUID="1.2.3.5")
    write_rtstruct(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, series="1.2.3.5")
    index = index_folder(tmp_path, HASHER)
    assert {one.uid: len(one.labels) for one in index.series} == {SERIES: 0, "1.2.3.5": 1}


def test_a_label_without_series_goes_by_instance_then_by_frame(tmp_path):
    write_ct(tmp_path / "a", STACK)
    write_ct(tmp_path / "b", STACK, SeriesInstanceUID="1.2.3.5")
    by_instance = {0: "1.2.3.5.2"}
    write_rtstruct(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, series=None, instances=by_instance)
    index = index_folder(tmp_path, HASHER)
    assert {one.uid: len(one.labels) for one in index.series} == {SERIES: 0, "1.2.3.5": 1}

    # two series share the frame: not to be guessed
    write_rtstruct(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, series=None)
    index = index_folder(tmp_path, HASHER)
    assert codes(index) == ["missing_series"]
    shutil.rmtree(tmp_path / "b")
    (series,) = index_folder(tmp_path, HASHER).series
    assert series.headers[0].frame_of_reference_uid == FRAME
    assert len(series.labels) == 1


def test_a_label_of_an_absent_series_is_rejected_as_label(tmp_path):
    write_ct(tmp_path, STACK)
    write_rtstruct(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, series="9.9.9")
    (rejected,) = index_folder(tmp_path, HASHER).rejected
    assert (rejected.kind, rejected.code) == ("label", "missing_series")


def test_the_answer_does_not_depend_on_file_names(tmp_path):
    write_ct(tmp_path / "a", STACK)
    write_ct(tmp_path / "b", STACK, names=[f"z{5 - k}" for k in range(5)])
    first, second = (index_folder(Path(tmp_path / name), HASHER).series[0] for name in "ab")
    assert {one.sop_instance_uid for one in first.headers} == {one.sop_instance_uid for one in second.headers}
