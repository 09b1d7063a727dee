"""``monai-tl deidentify``: what is held back and refused, the key, and the folder it writes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import save, slice_dataset, write_ct, write_rtstruct
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit
from talking_study import write_talking_study

from monai_tl.commands import convert, deidentify
from monai_tl.conversion_records import ConvertedIndex
from monai_tl.dicom.deidentify import Pseudonyms, create_key
from monai_tl.errors import ConfigError, DataError, PrivacyError
from monai_tl.records import RejectionList

WORD = "KANARIVOGEL"


def pixels(n: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4096, (n, 12, 10)).astype(np.uint16)


def one_slice(**tags: object) -> pydicom.FileDataset:
    return slice_dataset(pixels()[0], (0.0, 0.0, 0.0), 1, **tags)


@pytest.fixture
def key(tmp_path) -> Path:
    create_key(tmp_path / "key")
    return tmp_path / "key"


def run(tmp_path: Path, key: Path) -> tuple[list[pydicom.Dataset], list[dict]]:
    """Data sets written and items refused; a run that writes nothing must say so."""
    out = tmp_path / "out"
    failure = None
    try:
        deidentify.run(tmp_path / "in", out, key_file=key)
    except DataError as error:
        failure = error
    assert (failure is not None) == (not list(out.rglob("*.dcm")))
    if failure is not None:
        assert failure.exit_code == 3
        assert str(out / "rejected.json") in str(failure)
    return [pydicom.dcmread(path) for path in sorted(out.rglob("*.dcm"))], json.loads(
        (out / "rejected.json").read_text()
    )["rejected"]


def code_of(tmp_path: Path, key: Path) -> str:
    """The code of the one refused file; nothing is written."""
    made, rejected = run(tmp_path, key)
    assert (len(made), len(rejected)) == (0, 1)
    assert rejected[0]["item"].startswith("file-")
    assert WORD not in json.dumps(rejected)
    return rejected[0]["code"]


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"BurnedInAnnotation": "MAYBE"}, "burned_in"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "burned_in_unknown"),
        ({"ImageType": None}, "burned_in_unknown"),
        ({"ImageType": ["DERIVED", "SECONDARY"], "BurnedInAnnotation": "NO"}, "screen_capture"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCREEN SAVE"]}, "screen_capture"),
        ({"RecognizableVisualFeatures": "YES"}, "recognizable_features"),
        ({"RecognizableVisualFeatures": "YES", "BurnedInAnnotation": "NO"}, "recognizable_features"),
        ({"Modality": "US"}, "prone_to_text"),
        ({"Modality": "OT"}, "prone_to_text"),
        ({"Modality": "XA", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.12.1"}, "prone_to_text"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "prone_to_text"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "prone_to_text"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "prone_to_text"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "other_object"),
        ({"SOPClassUID": f"1.2.840.10008.5.1.4.1.1.2.{4711}"}, "other_object"),
        ({"SOPClassUID": "1.2.3.4"}, "other_object"),
        ({"Modality": "MR"}, "other_object"),
        ({"Modality": None}, "other_object"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"Rows": 20000}, "truncated_pixels"),
        ({"Rows": 0}, "damaged"),
        ({"BitsStored": 17}, "bits"),
        ({"PixelData": None}, "no_pixels"),
    ],
)
def test_what_is_held_back_or_refused(tmp_path, key, tags, code):
    save(one_slice(**tags), tmp_path / "in" / f"{WORD}.dcm")
    assert code_of(tmp_path, key) == code


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"BurnedInAnnotation": "NO"},
        {"BurnedInAnnotation": ""},
        {"RecognizableVisualFeatures": "NO"},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"], "BurnedInAnnotation": "NO"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
        {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"},
    ],
)
def test_what_leaves(tmp_path, key, tags):
    save(one_slice(**tags), tmp_path / "in" / "a.dcm")
    made, rejected = run(tmp_path, key)
    assert (len(made), rejected) == (1, [])
    np.testing.assert_array_equal(made[0].pixel_array, pixels()[0])


def test_labels_need_no_word_about_text_in_their_pixels(tmp_path, key):
    write_rtstruct(tmp_path / "in" / "rt.dcm", {"Liver": [np.zeros((3, 3))]})
    made, rejected = run(tmp_path, key)
    assert [one.Modality for one in made] == ["RTSTRUCT"]
    assert rejected == []


@pytest.mark.parametrize(
    ("tags", "codes"),
    [
        ({}, []),
        ({"ImageType": ["DERIVED", "PRIMARY", "SCREEN SAVE"]}, ["screen_capture"]),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, ["screen_capture"]),
        ({"BurnedInAnnotation": "YES"}, ["burned_in"]),
        ({"RecognizableVisualFeatures": "YES"}, ["recognizable_features"]),
    ],
)
@pytest.mark.parametrize("kind", ["66.4", "66.7"])
def test_a_segmentation_that_says_it_is_a_picture_is_held_back(tmp_path, key, tags, codes, kind):
    tags = {"ImageType": ["DERIVED", "PRIMARY"], "SegmentationType": "FRACTIONAL", **tags}
    save(one_slice(Modality="SEG", SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}", **tags), tmp_path / "in" / "a.dcm")
    made, rejected = run(tmp_path, key)
    assert [one["code"] for one in rejected] == codes
    assert len(made) == 1 - len(codes)


def test_a_dicomdir_is_refused(tmp_path, key):
    dataset = one_slice(SOPClassUID="1.2.840.10008.1.3.10")
    save(dataset, tmp_path / "in" / "DICOMDIR")
    assert code_of(tmp_path, key) == "dicomdir"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not_dicom"),
        (WORD.encode() * 100, "not_dicom"),
        (b"\0" * 128 + b"DICM" + WORD.encode() * 9, "other_object"),
    ],
)
def test_what_is_no_dicom_is_refused(tmp_path, key, content, code):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / WORD).write_bytes(content)
    assert code_of(tmp_path, key) in (code, "damaged")


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path, key):
    whole = io.BytesIO()
    one_slice().save_as(whole, enforce_file_format=True)
    content = whole.getvalue()
    for cut in range(0, len(content), 97):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{cut}.dcm").write_bytes(content[:cut])
    made, rejected = run(tmp_path, key)
    assert made == []
    assert {one["code"] for one in rejected} <= {
        "not_dicom", "damaged", "other_object", "truncated_pixels", "no_pixels", "colour", "burned_in_unknown",
    }  # fmt: skip


def test_deep_nesting_is_refused(tmp_path, key):
    dataset = one_slice()
    inner = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Items([inner])
        inner = outer
    dataset.ReferencedSeriesSequence = Items([inner])
    save(dataset, tmp_path / "in" / "a.dcm")
    assert code_of(tmp_path, key) == "damaged"


@pytest.mark.parametrize("order", [("YES ", "NO  "), ("NO  ", "YES "), ("NO  ", "NO  ")])
@pytest.mark.parametrize("apart", [False, True])
def test_an_element_that_stands_twice_is_refused(tmp_path, key, order, apart):
    save(one_slice(BurnedInAnnotation=order[0].strip()), tmp_path / "in" / "a.dcm")
    content = (tmp_path / "in" / "a.dcm").read_bytes()
    head = b"\x28\x00\x01\x03CS\x04\x00"
    first = content.index(head[:6])
    # behind the first, or behind all others
    place = content.index(b"\xe0\x7f\x10\x00") if apart else first + 8 + content[first + 6]
    (tmp_path / "in" / "a.dcm").write_bytes(content[:place] + head + order[1].encode() + content[place:])
    assert code_of(tmp_path, key) == "damaged"


@pytest.mark.parametrize("defined", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_an_element_that_stands_twice_in_an_item_is_refused(tmp_path, key, defined, twice):
    """Once in each of two items is the rule."""
    one = struct.pack("<HH2sH", 0x0008, 0x1155, b"UI", 8) + b"1.2.3.4\0"
    items = [one * 2] if twice else [one, one]
    value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    length = len(value) if defined else 0xFFFFFFFF
    end = b"" if defined else struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, length) + value + end
    save(one_slice(), tmp_path / "in" / "a.dcm")
    content = (tmp_path / "in" / "a.dcm").read_bytes()
    place = content.index(b"\x10\x00\x20\x00LO")
    (tmp_path / "in" / "a.dcm").write_bytes(content[:place] + sequence + content[place:])
    made, rejected = run(tmp_path, key)
    assert (len(made), [found["code"] for found in rejected]) == ((0, ["damaged"]) if twice else (1, []))


def test_a_name_written_into_the_pixels_as_text_holds_the_file_back(tmp_path, key):
    dataset = one_slice(PatientName=f"{WORD}^Anna")
    dataset.PixelData = WORD.lower().encode() + dataset.PixelData[len(WORD) :]
    dataset.BitsStored, dataset.HighBit = 16, 15
    save(dataset, tmp_path / "in" / "a.dcm")
    assert code_of(tmp_path, key) == "identity_in_pixels"


def test_copies_are_written_once_and_contradicting_files_not_at_all(tmp_path, key):
    write_ct(tmp_path / "in", pixels(4))
    first = sorted((tmp_path / "in").iterdir())[0]
    shutil.copy(first, tmp_path / "in" / "copy.dcm")
    other = pydicom.dcmread(sorted((tmp_path / "in").iterdir())[1])
    # another patient's, even: an instance identifier is unique in the world
    other.PatientID, other.PixelData = "another", bytes(len(other.PixelData))
    save(other, tmp_path / "in" / "zz.dcm")
    made, rejected = run(tmp_path, key)
    assert len(made) == 3
    assert Counter(one["code"] for one in rejected) == {"conflicting_instance": 2}
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_blank_identifiers_get_stand_ins(tmp_path, key):
    """As anonymisers leave files: no patient, no series, instances known by the file meta group alone."""
    for folder in ("a", "b"):
        for k, plane in enumerate(pixels(3)):
            dataset = slice_dataset(
                plane, (0, 0, float(k)), k, PatientID="", SeriesInstanceUID="", StudyInstanceUID=f"1.2.{folder == 'a'}0"
            )
            dataset.SOPInstanceUID = ""
            dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{k}{int(folder == 'a')}"
            save(dataset, tmp_path / "in" / folder / f"{k}.dcm")
    made, rejected = run(tmp_path, key)
    assert rejected == []
    assert len({one.SOPInstanceUID for one in made}) == 6
    assert len({one.SeriesInstanceUID for one in made}) == len({one.StudyInstanceUID for one in made}) == 2
    # the study stands for the patient
    assert len({one.PatientID for one in made}) == 2


def test_one_patient_in_two_character_sets_is_one(tmp_path, key):
    for number, (charset, name) in enumerate(
        (("ISO_IR 100", "Müller^Jürgen"), ("ISO_IR 192", "Müller^Jürgen"), (None, "M"))
    ):
        dataset = one_slice(SpecificCharacterSet=charset, PatientID="ÄB-1" if charset else "X-2", PatientName=name)
        dataset.SOPInstanceUID = f"1.2.3.4.{number}"
        save(dataset, tmp_path / "in" / f"{number}.dcm")
    made, _ = run(tmp_path, key)
    assert sorted(Counter(one.PatientID for one in made).values()) == [1, 2]


def test_no_key_no_output(tmp_path):
    write_ct(tmp_path / "in", pixels(1))
    with pytest.raises(PrivacyError, match="monai-tl key"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "absent")
    create_key(tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(PrivacyError, match="chmod 600"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "open")
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    create_key(tmp_path / "repository" / "key")
    with pytest.raises(PrivacyError, match=r"git repository.*--key-file.*ingest\.key_file"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "repository" / "key")
    with pytest.raises(PrivacyError, match="is a folder"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "repository")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", [0, 7, 9999])
def test_a_public_key_is_no_secret(tmp_path, seed):
    write_ct(tmp_path / "in", pixels(1))
    create_key(tmp_path / "public", seed=seed)
    with pytest.raises(PrivacyError, match="public") as caught:
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "public")
    assert (tmp_path / "public").read_text().strip() not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0" * 64, "0123456" * 10, "passpass" * 8])
def test_a_key_that_can_be_guessed_is_refused(tmp_path, text):
    write_ct(tmp_path / "in", pixels(1))
    (tmp_path / "poor").write_text(text)
    (tmp_path / "poor").chmod(0o600)
    with pytest.raises(PrivacyError, match="different characters") as caught:
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "poor")
    assert text not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_default_key_is_the_users(tmp_path, monkeypatch):
    write_ct(tmp_path / "in", pixels(1))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PrivacyError, match=r"\.config/monai_tl/pseudonym\.key"):
        deidentify.run(tmp_path / "in", tmp_path / "out")
    create_key(tmp_path / ".config" / "monai_tl" / "pseudonym.key")
    assert "1 files of 1 patients" in deidentify.run(tmp_path / "in", tmp_path / "out")


def test_the_key_is_in_no_output(tmp_path, key):
    write_ct(tmp_path / "in", pixels(2))
    said = deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    secret = key.read_text().strip()
    assert secret not in said
    assert all(secret.encode() not in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


@pytest.mark.parametrize("where", ["in/out", "in", "."])
def test_source_and_output_lie_apart(tmp_path, key, where):
    write_ct(tmp_path / "in", pixels(1))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="OUT"):
        deidentify.run(tmp_path / "in", tmp_path / where, key_file=key)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_mixed_with_what_lies_in_the_output(tmp_path, key):
    write_ct(tmp_path / "in", pixels(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_run_after_one_that_wrote_nothing(tmp_path, key):
    save(one_slice(BurnedInAnnotation="YES"), tmp_path / "in" / "a.dcm")
    assert code_of(tmp_path, key) == "burned_in"
    save(one_slice(), tmp_path / "in" / "a.dcm")
    made, rejected = run(tmp_path, key)
    assert (len(made), rejected) == (1, [])


def test_no_source_is_a_fault_of_the_arguments(tmp_path, key):
    with pytest.raises(ConfigError, match="SRC"):
        deidentify.run(tmp_path / "absent", tmp_path / "out", key_file=key)


def test_a_folder_without_files_and_a_link_to_nowhere_are_said_to_be_so(tmp_path, key):
    (tmp_path / "in" / "below").mkdir(parents=True)
    with pytest.raises(DataError, match="SRC: holds no file"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    assert RejectionList.read(tmp_path / "out" / "rejected.json").rejected == ()
    write_ct(tmp_path / "in", pixels(1))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="leads nowhere"):
        deidentify.run(tmp_path / "in", tmp_path / "link", key_file=key)
    assert not (tmp_path / "nowhere").exists()


def test_progress_counts_what_was_refused_so_far(tmp_path, key, monkeypatch, capsys):
    monkeypatch.setattr(deidentify, "_CHUNK", 2)
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    for number in range(4):
        save(one_slice(Modality="US", SOPInstanceUID=f"1.2.9.{number}"), tmp_path / "in" / f"{number}.dcm")
    run(tmp_path, key)
    assert capsys.readouterr().out.splitlines() == ["deidentify: 2/4 2 refused", "deidentify: 4/4 4 refused"]


def test_pipes_and_loops_of_links_are_passed_by(tmp_path, key):
    write_ct(tmp_path / "in", pixels(2))
    os.mkfifo(tmp_path / "in" / "pipe")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "dead").symlink_to(tmp_path / "nowhere")
    made, rejected = run(tmp_path, key)
    assert len(made) == 2
    assert [one["code"] for one in rejected] == ["broken_link"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, key, monkeypatch):
    write_ct(tmp_path / "in", pixels(2))
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    assert list((tmp_path / "out").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from monai_tl.commands import convert, deidentify
setattr(os, sys.argv[1], lambda *given: os.kill(os.getpid(), signal.SIGKILL))
deidentify.run(*(Path(one) for one in sys.argv[2:4]), key_file=Path(sys.argv[4]))
"""


@pytest.mark.parametrize("at", ["sync", "rename", "chmod"])
def test_a_killed_run_leaves_an_empty_folder_and_the_next_one_cleans_up(tmp_path, key, at):
    """There is one step from nothing to all, of however many patients."""
    for number in range(3):
        save(one_slice(PatientID=f"{number}", SOPInstanceUID=f"1.2.9.{number}"), tmp_path / "in" / f"{number}.dcm")
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, at, tmp_path / "in", out, key]
    done = subprocess.run(command, env={**os.environ, "MONAI_TL_EXECUTOR": "sequential"}, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert list(out.iterdir()) == []
    assert list(tmp_path.glob(".out.*.part"))
    made, _ = run(tmp_path, key)
    assert len(made) == 3
    assert list(tmp_path.glob(".out.*.part")) == []
    assert sorted(one.name.partition("-")[0] for one in out.iterdir()) == ["patient"] * 3 + ["rejected.json"]


def test_a_second_run_into_the_same_folder_is_refused_at_once(tmp_path, key, monkeypatch):
    """While the first one writes, after it, and when it ends between the second's look and its lock."""
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    write_ct(tmp_path / "in", pixels(2))
    save(one_slice(PatientID="other"), tmp_path / "else" / "a.dcm")
    write_bytes, refused = Path.write_bytes, []

    def second_starts(self: Path, content: bytes) -> int:
        with pytest.raises(ConfigError, match="another run is writing") as caught:
            deidentify.run(tmp_path / "else", tmp_path / "out", key_file=key)
        refused.append(caught.value)
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", second_starts)
    made, _ = run(tmp_path, key)
    assert (len(made), len({one.PatientID for one in made}), len(refused)) == (2, 1, 2)
    monkeypatch.undo()
    content = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    monkeypatch.setattr(deidentify, "_check_folders", lambda *given: None)
    with pytest.raises(ConfigError, match="not empty"):
        deidentify.run(tmp_path / "else", tmp_path / "out", key_file=key)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == content


def test_what_someone_put_there_meanwhile_stays(tmp_path, key, monkeypatch):
    write_ct(tmp_path / "in", pixels(1))
    sync = os.sync

    def put() -> None:
        (tmp_path / "out" / "mine.txt").write_text("mine")
        sync()

    monkeypatch.setattr(os, "sync", put)
    with pytest.raises(ConfigError, match="not empty"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert list(tmp_path.glob(".out.*.part")) == []


def test_a_folder_that_cannot_be_replaced_is_refused_before_anything_is_read(tmp_path, key, monkeypatch):
    write_ct(tmp_path / "in", pixels(1))
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "out")
    with pytest.raises(ConfigError, match="mount point"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ConfigError, match="may write to"):
        deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_folders_own_permissions_and_the_link_to_it_stay(tmp_path, key):
    write_ct(tmp_path / "in", pixels(1))
    (tmp_path / "real").mkdir()
    (tmp_path / "real").chmod(0o750)
    (tmp_path / "out").symlink_to("real")
    made, _ = run(tmp_path, key)
    assert len(made) == 1
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o750


def test_the_summary_speaks_of_faces_and_counts(tmp_path, key):
    write_ct(tmp_path / "in", pixels(3))
    save(one_slice(Modality="US", SOPInstanceUID="1.9"), tmp_path / "in" / "us.dcm")
    said = deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    assert said.startswith("3 files of 1 patients and 1 series written to")
    assert "prone_to_text 1" in said
    assert said.count("Faces are not removed") == 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 7), (16, 12), (16, 16), (32, 20)])
@pytest.mark.parametrize("big_endian", [False, True])
def test_only_stored_bits_leave(tmp_path, key, signed, allocated, stored, big_endian):
    """Against the closed form: the stored bits as a number, and nothing above them but the sign."""
    values = np.random.default_rng(2).integers(0, 2**allocated, (12, 10), dtype=np.uint64)
    low = (values % 2**stored).astype(np.int64)
    expected = np.where(low >= 2 ** (stored - 1), low - 2**stored, low) if signed else low
    dataset = one_slice(BitsAllocated=allocated, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=int(signed))
    order = ">" if big_endian else "<"
    content = values.astype(f"{order}u{allocated // 8}").tobytes()
    if big_endian and allocated == 8:
        content = np.frombuffer(content, ">u2").astype("<u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big_endian else dataset.file_meta.TransferSyntaxUID
    dataset.add(DataElement(0x7FE00010, "OW", content))
    (tmp_path / "in").mkdir()
    pydicom.dcmwrite(tmp_path / "in" / "a.dcm", dataset, little_endian=not big_endian, implicit_vr=False)
    (made,), _ = run(tmp_path, key)
    kind = "i" if signed else "u"
    np.testing.assert_array_equal(np.frombuffer(made.PixelData, f"<{kind}{allocated // 8}").reshape(12, 10), expected)


def test_a_jpeg_comment_goes_and_the_picture_stays(tmp_path, key):
    pillow = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(0).integers(0, 256, (12, 10)).astype(np.uint8)
    buffer = io.BytesIO()
    pillow.fromarray(picture).save(buffer, "JPEG", comment=WORD.encode())
    dataset = one_slice(BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([buffer.getvalue() + b"\0" * (len(buffer.getvalue()) % 2)])
    dataset["PixelData"].VR = "OB"
    save(dataset, tmp_path / "in" / "a.dcm")
    assert WORD.encode() in (tmp_path / "in" / "a.dcm").read_bytes()
    (made,), _ = run(tmp_path, key)
    assert WORD.encode() not in made.PixelData
    assert made.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    np.testing.assert_array_equal(made.pixel_array, dataset.pixel_array)


def test_a_long_contour_is_written_as_the_standard_says(tmp_path, key):
    """A text over 64 KiB has no place in its own representation of Explicit VR."""
    outline = np.random.default_rng(0).uniform(-100, 100, (9000, 3)).round(2)
    path = write_rtstruct(tmp_path / "long.dcm", {"Liver": [outline]})
    dataset = pydicom.dcmread(path)
    (tmp_path / "in").mkdir()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "in" / "rt.dcm", implicit_vr=True, little_endian=True)
    (made,), _ = run(tmp_path, key)
    contour = made.ROIContourSequence[0].ContourSequence[0]
    np.testing.assert_allclose(np.array(contour.ContourData, float).reshape(-1, 3), outline)


def test_a_kept_sequence_written_as_an_unknown_element_is_treated_item_by_item(tmp_path, key):
    """PS3.5 section 6.2.2: a sequence of unknown representation holds implicit elements."""
    content = b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(text)) + text
        for tag, text in (
            (0x00081150, b"1.2.840.10008.5.1.4.1.1.2\0"),
            (0x00081155, b"1.2.3.4.5.6\0"),
            (0x00104000, WORD.encode() + b" "),
        )
    )
    dataset = one_slice()
    value = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    # written in the next group, since pydicom would not write a known sequence so
    dataset.add(DataElement(0x00091140, "UN", value))
    save(dataset, tmp_path / "in" / "a.dcm")
    written = (tmp_path / "in" / "a.dcm").read_bytes()
    assert written.count(b"\x09\x00\x40\x11UN") == 1
    (tmp_path / "in" / "a.dcm").write_bytes(written.replace(b"\x09\x00\x40\x11UN", b"\x08\x00\x40\x11UN"))
    save(one_slice(SOPInstanceUID="1.2.3.4.5.6"), tmp_path / "in" / "b.dcm")
    made, rejected = run(tmp_path, key)
    assert rejected == []
    (named,) = [one.ReferencedImageSequence[0] for one in made if "ReferencedImageSequence" in one]
    assert named.ReferencedSOPInstanceUID in {one.SOPInstanceUID for one in made}
    assert [element.keyword for element in named] == ["ReferencedSOPClassUID", "ReferencedSOPInstanceUID"]
    assert all(WORD.encode() not in path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm"))


def test_a_lookup_table_ends_where_its_descriptor_says(tmp_path, key):
    entries = np.arange(64, dtype="<u2")
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType, item.LUTExplanation = [64, 0, 16], "HU", WORD
    item.add(DataElement(0x00283006, "OW", entries.tobytes() + WORD.encode() + b" "))
    dataset = one_slice(RescaleSlope=None, RescaleIntercept=None)
    dataset.ModalityLUTSequence = Items([item])
    save(dataset, tmp_path / "in" / "a.dcm")
    (made,), _ = run(tmp_path, key)
    (table,) = made.ModalityLUTSequence
    assert (table.LUTDescriptor, table.ModalityLUTType) == ([64, 0, 16], "HU")
    np.testing.assert_array_equal(np.frombuffer(table.LUTData, "<u2"), entries)


def test_what_is_written_can_be_read_again_and_nothing_of_it_is_refused(tmp_path, key):
    """The lists of this program are no input; files that only bear their names, or lie deeper, are."""
    write_ct(tmp_path / "in", pixels(3))
    save(one_slice(Modality="US", SOPInstanceUID="1.9"), tmp_path / "in" / "us.dcm")
    out = tmp_path / "out"
    deidentify.run(tmp_path / "in", out, key_file=key)
    convert.run(out, tmp_path / "nifti", key_file=key)
    assert RejectionList.read(tmp_path / "nifti" / "rejected.json").rejected == ()
    shutil.copy(tmp_path / "nifti" / "index.json", out)
    deidentify.run(out, tmp_path / "again", key_file=key)
    assert RejectionList.read(tmp_path / "again" / "rejected.json").rejected == ()
    (out / "deeper").mkdir()
    shutil.move(out / "index.json", out / "deeper")
    for number, content in enumerate((b'{"rejected": "Kanari"}', b"[" * 100_000, b"\xff\xfe", b"")):
        (out / "rejected.json").write_bytes(content)
        convert.run(out, tmp_path / f"nifti{number}", key_file=key)
        rejected = RejectionList.read(tmp_path / f"nifti{number}" / "rejected.json").rejected
        assert [one.code for one in rejected] == ["not_dicom"] * 2


def test_a_hashed_region_is_one_class_over_all_patients(tmp_path, key):
    """Many digits in a hash, and other hashed regions beside it, change nothing; no name is counted through."""
    regions = [f"{WORD} {chr(97 + number)}" for number in range(24)]
    outline = np.array([[-10, -20, 30], [-4, -20, 30], [-4, -14, 30], [-10, -14, 30]], float)
    for patient, named in (("1", regions), ("2", regions[12:])):
        uids = {"SeriesInstanceUID": f"1.2.3.{patient}", "StudyInstanceUID": f"1.2.4.{patient}"}
        folder = tmp_path / "in" / patient
        write_ct(folder, pixels(3), PatientID=patient, **uids)
        path = write_rtstruct(tmp_path / "rt", {name: [outline] for name in named}, series=uids["SeriesInstanceUID"])
        structures = pydicom.dcmread(path)
        structures.PatientID, structures.SOPInstanceUID = patient, f"1.2.5.{patient}"
        save(structures, folder / "rt.dcm")
    deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    convert.run(tmp_path / "out", tmp_path / "nifti", key_file=key)
    hasher = Pseudonyms(key.read_bytes().strip())
    expected = [sorted(f"X{hasher.text(name).upper()}" for name in named) for named in (regions, regions[12:])]
    volumes = ConvertedIndex.read(tmp_path / "nifti" / "index.json").volumes
    assert sorted((sorted(one.label_classes.values()) for one in volumes), key=len) == sorted(expected, key=len)


def test_several_processes_give_the_same_bytes(tmp_path, key, monkeypatch):
    write_ct(tmp_path / "in", pixels(7))
    deidentify.run(tmp_path / "in", tmp_path / "one", key_file=key)
    monkeypatch.setattr(deidentify, "_CHUNK", 3)
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    deidentify.run(tmp_path / "in", tmp_path / "two", key_file=key)
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert len(one) == 8


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_a_validator_finds_no_new_error(tmp_path, key):
    import warnings

    from canaries import Canaries

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_talking_study(tmp_path / "in", Canaries())
    deidentify.run(tmp_path / "in", tmp_path / "out", key_file=key)
    before = set().union(*(errors_in(path) for path in (tmp_path / "in").rglob("*.dcm")))
    after = set().union(*(errors_in(path) for path in (tmp_path / "out").rglob("*.dcm")))
    assert after - before == set()


def errors_in(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    lines = (done.stdout + done.stderr).splitlines()
    return {line.split("<")[0] if "value" in line else line for line in lines if line.startswith("Error")}
