"""``monai-tl whois``: from the items of rejected.json back to the files, and nothing is written on the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from dicom_files import save as save_file
from dicom_files import slice_dataset, write_ct, write_rtstruct
from pydicom.dataset import FileDataset
from typer.testing import CliRunner

from monai_tl.cli import app
from monai_tl.commands import convert, deidentify, whois
from monai_tl.config import load_params
from monai_tl.conversion_records import ConvertedIndex
from monai_tl.dataset.nifti import write_image
from monai_tl.dicom.deidentify import Pseudonyms, create_key, seeded_key
from monai_tl.errors import ConfigError, DataError, PrivacyError
from monai_tl.files import write_json
from monai_tl.records import RejectionList
from monai_tl.stages import ingest

STACK = np.arange(6 * 5 * 7, dtype=np.uint16).reshape(6, 5, 7)
OUTLINE = np.array([[-10, -20, 30], [-8, -20, 30], [-8, -18, 30]], dtype=float)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


@pytest.fixture
def workspace(tmp_path) -> Path:
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    create_key(tmp_path / "secret.key", seed=0)
    sections = {
        "ingest": {
            "source": "data", "key_file": str(tmp_path / "secret.key"), "max_rejected_fraction": 1.0,
            "classes": [{"name": "tumour", "structures": ["GTV"]}],
        },
        "split": {}, "plan": {"source": None, "network": {"name": "unet"}}, "preprocess": {},
        "finetune": {"arms": ["scratch"]}, "predict": {}, "evaluate": {}, "export": {},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))
    return folder


def refused(workspace: Path) -> dict[str, str]:
    """Item by code, after the ingest stage."""
    ingest.run(workspace, load_params(workspace))
    return {one.code: one.item for one in RejectionList.read(workspace / "artifacts/cases/rejected.json").rejected}


def told(workspace: Path, *items: str) -> str:
    return "\n".join(whois.run(items, workspace))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))}


def dicom(data: Path) -> None:
    write_ct(data / "good", STACK, SeriesInstanceUID="1.2.1")
    write_ct(data / "CANARY gap", STACK, leave_out=[3], SeriesInstanceUID="1.2.2")
    (data / "spread").mkdir()
    for number, path in enumerate(write_ct(data / "twice", STACK, SeriesInstanceUID="1.2.3")):
        if number < 2:
            path.rename(data / "spread" / path.name)
    save_file(slice_dataset(STACK[0], (-10, -20, 30), 9, SeriesInstanceUID="1.2.3", SOPInstanceUID="1.2.3.4"),
              data / "twice" / "extra.dcm")  # fmt: skip
    write_ct(data / "mr", STACK, SeriesInstanceUID="1.2.5", Modality="MR")
    (data / "CANARY letter.txt").write_text("hello")
    (data / "CANARY link").symlink_to(data / "gone")
    write_rtstruct(data / "rs.dcm", {"spine": [OUTLINE]}, series="1.2.1")
    write_ct(data / "more", STACK, SeriesInstanceUID="1.2.6", StudyInstanceUID="1.2.6.0")


def test_every_refused_item_of_dicom_leads_to_its_files(workspace):
    data = workspace / "data"
    dicom(data)
    items = refused(workspace)
    assert sorted(items) == ["broken_link", "conflicting_instance", "missing_slice", "no_class", "not_dicom",
                             "other_modality"]  # fmt: skip
    assert told(workspace, items["not_dicom"]) == f"{items['not_dicom']}: {data / 'CANARY letter.txt'}"
    assert told(workspace, items["broken_link"]) == f"{items['broken_link']}: {data / 'CANARY link'}"
    assert told(workspace, items["no_class"]) == f"{items['no_class']}: {data / 'rs.dcm'}"
    gap = told(workspace, items["missing_slice"]).splitlines()
    assert gap == [f"{items['missing_slice']}: 5 files", f"  5 in {data / 'CANARY gap'}, e.g. 001.dcm"]
    assert f"  6 in {data / 'mr'}, e.g. 001.dcm" in told(workspace, items["other_modality"])
    both = told(workspace, items["conflicting_instance"])
    assert f"  2 in {data / 'spread'}" in both
    assert f"  5 in {data / 'twice'}" in both


def test_a_case_leads_to_its_series(workspace):
    dicom(workspace / "data")
    refused(workspace)
    case_id = Pseudonyms(seeded_key(0)).case_id("1.2.6.0", "1.2.6")
    assert (workspace / "artifacts/cases" / case_id).is_dir()
    assert f"6 in {workspace / 'data/more'}" in told(workspace, case_id)


def test_items_of_a_nifti_data_set(workspace):
    data = workspace / "data"
    entries = []
    for number in range(3):
        image = np.arange(6 * 7 * 8 * (1 + number // 2)).reshape(6, 7, -1).astype(np.int16)
        label = np.zeros(image.shape if number != 1 else (6, 7, 9), np.uint8)
        for kind, array in (("images", image), ("labels", label)):
            write_image(data / f"{kind}Tr/CANARY_{number}.nii.gz", array, np.eye(4))
        entries.append({kind[:-1]: f"./{kind}Tr/CANARY_{number}.nii.gz" for kind in ("images", "labels")})
    write_json(data / "dataset.json", {"name": "demo", "modality": {"0": "CT"}, "training": entries})
    items = refused(workspace)
    answer = told(workspace, items["geometry"])
    assert f"1 in {data / 'imagesTr'}, e.g. CANARY_1.nii.gz" in answer
    assert f"1 in {data / 'labelsTr'}, e.g. CANARY_1.nii.gz" in answer


def test_nothing_is_written(workspace):
    dicom(workspace / "data")
    items = refused(workspace)
    before = state(workspace.parent)
    told(workspace, *items.values())
    with pytest.raises(DataError):
        told(workspace, "series-000000000000")
    assert state(workspace.parent) == before


def test_the_command_tells_what_it_finds_before_it_fails(workspace):
    dicom(workspace / "data")
    items = refused(workspace)
    done = CliRunner().invoke(app, ["whois", "file-000000000000", items["not_dicom"], "-w", str(workspace)])
    assert "CANARY letter.txt" in done.output
    assert isinstance(done.exception, DataError)
    assert str(done.exception).startswith("file-000000000000: not in data, where ingest.source points")


def test_what_cannot_be_answered_is_a_clear_error(workspace):
    dicom(workspace / "data")
    items = refused(workspace)
    with pytest.raises(ConfigError, match="argument 2 is no item") as caught:
        told(workspace, items["not_dicom"], "Kanari")
    assert "Kanari" not in str(caught.value)
    key = workspace.parent / "secret.key"
    key.unlink()
    with pytest.raises(PrivacyError, match="there is no pseudonym key"):
        told(workspace, items["not_dicom"])
    create_key(key, seed=1)
    with pytest.raises(PrivacyError, match="not the one"):
        told(workspace, items["not_dicom"])


def test_names_that_steer_a_terminal_are_shown_harmless(workspace):
    name = b"CANARY\x1b[2J\xe4.txt"
    with open(os.fsencode(workspace / "data") + b"/" + name, "wb") as stream:
        stream.write(b"hello")
    write_ct(workspace / "data/good", STACK)
    answer = told(workspace, refused(workspace)["not_dicom"])
    assert answer.isprintable()
    assert "CANARY" in answer


def test_items_of_a_conversion_are_found_without_a_workspace(tmp_path):
    write_ct(tmp_path / "in/good", STACK)
    (tmp_path / "in/note.txt").write_text("no image")
    key_file = tmp_path / "secret.key"
    create_key(key_file, seed=0)
    convert.run(tmp_path / "in", tmp_path / "out", key_file=key_file)
    (item,) = (one.item for one in RejectionList.read(tmp_path / "out/rejected.json").rejected)
    (volume,) = ConvertedIndex.read(tmp_path / "out/index.json").volumes
    found = "\n".join(whois.run([item, volume.case_id], tmp_path / "nowhere", tmp_path / "in", key_file))
    assert f"{item}: {tmp_path / 'in/note.txt'}" in found
    assert f"{volume.case_id}: 6 files" in found
    with pytest.raises(DataError, match="another key"):
        list(whois.run(["series-000000000000"], tmp_path / "nowhere", tmp_path / "in", key_file))


def talkative(**tags: object) -> FileDataset:
    return slice_dataset(STACK[0], (-10, -20, 30), 1, **tags)


REFUSED_BY_DEIDENTIFY = {
    "burned_in": {"BurnedInAnnotation": "YES"},
    "burned_in_unknown": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
    "screen_capture": {"ImageType": ["DERIVED", "SECONDARY"]},
    "prone_to_text": {"Modality": "US"},
    "colour": {"SamplesPerPixel": 3},
    "other_object": {"SOPClassUID": "1.2.3.4"},
    "truncated_pixels": {"Rows": 20000},
    "bits": {"BitsStored": 17},
    "no_pixels": {"PixelData": None},
    "identity_in_pixels": {"PatientName": "KANARIVOGEL", "BitsStored": 16, "HighBit": 15,
                           "PixelData": b"KANARIVOGEL!" + bytes(58)},
    "dicomdir": {"SOPClassUID": "1.2.840.10008.1.3.10"},
}  # fmt: skip


def test_every_item_that_deidentify_refuses_leads_to_its_file(tmp_path):
    """Each file bears the code that it is refused with as its name."""
    source, key_file = tmp_path / "in", tmp_path / "secret.key"
    create_key(key_file)
    write_ct(source / "good", STACK)
    for number, (code, tags) in enumerate(REFUSED_BY_DEIDENTIFY.items()):
        save_file(talkative(**{"SOPInstanceUID": f"1.9.{number}", "SeriesInstanceUID": f"1.8.{number}", **tags}),
                  source / code / "x")  # fmt: skip
    for folder, patient in (("conflicting_instance", "a"), ("conflicting_instance/b", "b")):
        save_file(talkative(SOPInstanceUID="1.9.99", PatientID=patient), source / folder / "x")
    (source / "not_dicom").mkdir()
    (source / "not_dicom/x").write_text("hello")
    (source / "broken_link").mkdir()
    (source / "broken_link/x").symlink_to(source / "gone")
    deidentify.run(source, tmp_path / "out", key_file=key_file)
    rejected = RejectionList.read(tmp_path / "out/rejected.json").rejected
    codes = {*REFUSED_BY_DEIDENTIFY, "conflicting_instance", "not_dicom", "broken_link"}
    assert {one.code for one in rejected} == codes
    lines = list(whois.run([one.item for one in rejected], tmp_path, source, key_file))
    places = dict(line.split(": ") for line in lines)
    assert all(Path(places[one.item]).relative_to(source).parts[0] == one.code for one in rejected)
    assert len(set(places.values())) == len(rejected) == len(codes) + 1
    # beside a series, which needs the headers
    item = Pseudonyms(key_file.read_bytes().strip()).item("series", "1.8.0")
    more = list(whois.run([item, *(one.item for one in rejected)], tmp_path, source, key_file))
    assert len(more) == len(rejected) + 1
