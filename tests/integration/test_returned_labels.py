"""Labels that come back through the inbox: into the data once, with their images, and what is refused and why."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import save, write_rtstruct
from inbox_world import segs, series_uid, study_uid, write_model, write_study, write_workspace
from label_kills import killed_take
from returned_labels import write_seg

from monai_tl.commands import corrections, inbox
from monai_tl.config import load_params
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.labelled_series import read_labelled_series
from monai_tl.files import read_json


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    monkeypatch.setenv("MONAI_TL_JOBS", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def workspace(tmp_path: Path, model: Path) -> Path:
    made = write_workspace(tmp_path, model, retrain_after=2)
    write_study(made / "data/first", 8)
    return made


def take(workspace: Path) -> dict[str, int]:
    return corrections.run(workspace, "take")["states"]


def rows(workspace: Path) -> list[corrections.Corrections]:
    with corrections.corrections_at(workspace / "outbox/.ledger/ledger.sqlite") as table:
        return table.rows()


def learnt(workspace: Path) -> dict[str, int]:
    """Series of the data → voxels of its label, as the ingest stage reads them."""
    params = load_params(workspace)
    hasher = Pseudonyms(load_key(Path(params.ingest.key_file)))
    index = index_folder(workspace / "data", hasher)
    assert index.rejected == ()
    found = {}
    for series in index.series:
        read = read_labelled_series(series, params.ingest.scheme, 2)
        assert read.refused == ()
        found[series.uid] = 0 if read.label is None else int(read.label.sum())
    return found


def voxels(path: Path) -> int:
    """Of a SEG, counted by pydicom alone."""
    return int(pydicom.dcmread(path).pixel_array.sum())


def test_a_label_alone_brings_the_images_of_its_study_that_was_segmented_before(workspace: Path) -> None:
    study = workspace / "inbox/a"
    write_study(study, 0)
    inbox.run(workspace, once=True, tell=lambda text: None)
    seg = write_seg(workspace / "inbox/later/corrected.dcm", study, 0)
    inbox.run(workspace, once=True, tell=lambda text: None)
    report = read_json(workspace / ".monai_tl/inbox.json")
    assert report["labels"]["states"]["seen"] == 1
    # the study is no new one for it
    assert report["states"]["done"] == 1
    assert take(workspace) == {"taken": 1}
    assert learnt(workspace) == {series_uid(0): voxels(seg), series_uid(8): 0}
    # the same again, under another name, is the same
    shutil.copyfile(seg, workspace / "inbox/later/again.dcm")
    before = sorted((workspace / "data").rglob("*"))
    assert take(workspace) == {"taken": 1}
    assert sorted((workspace / "data").rglob("*")) == before


def test_a_label_of_a_series_in_the_data_is_added_without_its_images(workspace: Path) -> None:
    seg = write_seg(workspace / "inbox/corrected.dcm", workspace / "data/first", 8)
    assert take(workspace) == {"taken": 1}
    assert learnt(workspace) == {series_uid(8): voxels(seg)}
    (added,) = (path for path in (workspace / "data/from_inbox").rglob("*") if path.is_file())
    assert added.read_bytes() == seg.read_bytes()


def test_the_latest_of_two_corrections_counts_and_a_label_of_the_data_stays(workspace: Path) -> None:
    first = write_seg(workspace / "inbox/one.dcm", workspace / "data/first", 8)
    assert take(workspace) == {"taken": 1}
    second = write_seg(workspace / "inbox/two.dcm", workspace / "data/first", 8, radius=2.0)
    assert voxels(second) != voxels(first)
    assert take(workspace) == {"taken": 2}
    assert learnt(workspace) == {series_uid(8): voxels(second)}
    assert corrections.run(workspace, "added")["n_cases"] == 1
    # what somebody put there by another way is not replaced
    shutil.rmtree(workspace / "data/from_inbox")
    shutil.copyfile(first, workspace / "data/label.dcm")
    write_seg(workspace / "inbox/three.dcm", workspace / "data/first", 8, radius=2.5)
    assert take(workspace) == {"added": 2, "refused": 1}
    assert [(row.code, "keep one" in row.reason) for row in rows(workspace) if row.state == "refused"] == [
        ("contested_class", True)
    ]
    assert learnt(workspace) == {series_uid(8): voxels(first)}


def test_what_no_person_drew_or_has_no_images_is_told(workspace: Path) -> None:
    write_study(workspace / "inbox/a", 0)
    inbox.run(workspace, once=True, tell=lambda text: None)
    shutil.copyfile(segs(workspace)[0], workspace / "inbox/own.dcm")
    machine = pydicom.dcmread(write_seg(workspace / "inbox/machine.dcm", workspace / "inbox/a", 0, by_hand=False))
    machine.Manufacturer = "ACME"
    save(machine, workspace / "inbox/machine.dcm")
    write_study(workspace.parent / "elsewhere", 5)
    orphan = write_seg(workspace / "inbox/orphan.dcm", workspace.parent / "elsewhere", 5)
    assert take(workspace) == {"refused": 2, "seen": 1}
    assert sorted(row.code for row in rows(workspace)) == ["automatic", "missing_series", "own"]
    inbox.run(workspace, once=True, tell=lambda text: None)
    told = read_json(workspace / ".monai_tl/inbox.json")["labels"]["told"]
    assert sorted((one["state"], one["code"]) for one in told) == [("refused", "automatic"), ("seen", "missing_series")]
    assert learnt(workspace) == {series_uid(8): 0}
    # its images come later
    shutil.copytree(workspace.parent / "elsewhere", workspace / "inbox/late")
    assert take(workspace) == {"refused": 2, "taken": 1}
    assert learnt(workspace) == {series_uid(5): voxels(orphan), series_uid(8): 0}


def test_outlines_of_an_rtstruct_come_back_as_well(workspace: Path) -> None:
    """A rectangle of 6 columns, 4 rows and 3 slices, drawn along the edges of voxels."""
    study = workspace / "inbox/a"
    images = sorted(
        (pydicom.dcmread(path) for path in write_study(study, 0)), key=lambda one: one.ImagePositionPatient[2]
    )
    outlines = []
    for image in images[2:5]:
        x, y, z = map(float, image.ImagePositionPatient)
        left, right, top, bottom = (edge * 4.0 for edge in (4 - 0.5, 9 + 0.5, 5 - 0.5, 8 + 0.5))
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        outlines.append(np.array([(x + column, y + row, z) for column, row in corners]))
    path = write_rtstruct(study / "corrected.dcm", {"Ball": outlines}, series=series_uid(0), frame=f"{study_uid(0)}.7")
    structures = pydicom.dcmread(path)
    structures.StudyInstanceUID = study_uid(0)
    save(structures, path)
    assert take(workspace) == {"taken": 1}
    assert learnt(workspace) == {series_uid(0): 6 * 4 * 3, series_uid(8): 0}
    assert corrections.run(workspace, "added")["n_cases"] == 1


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_no_label_and_adds_none_twice(workspace: Path) -> None:
    expected = {series_uid(8): 0}
    for number, moment in enumerate(("seen", "half_copied", "in_its_place", "noted")):
        study = workspace / f"inbox/{number}"
        write_study(study, number)
        expected[series_uid(number)] = voxels(write_seg(study / "label.dcm", study, number))
        process = multiprocessing.get_context("spawn").Process(target=killed_take, args=(workspace, moment))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, moment
    assert take(workspace) == {"taken": 4}
    assert learnt(workspace) == expected
    files = [path for path in (workspace / "data").rglob("*") if path.is_file()]
    digests = [path.read_bytes() for path in files]
    assert len(set(digests)) == len(digests)
    assert not list((workspace / "data").rglob(".*"))


def test_a_training_is_asked_for_once_and_again_only_when_it_did_not_end(workspace: Path) -> None:
    write_seg(workspace / "inbox/one.dcm", workspace / "data/first", 8)
    take(workspace)
    found = corrections.run(workspace, "added")
    key = found["key"]
    assert corrections.run(workspace, "look")["key"] == key
    assert corrections.run(workspace, "training", "run-1")["runs"] == ["run-1"]
    again = corrections.run(workspace, "again", "run-1")
    assert (again["n_cases"], again["runs"]) == (1, [])
    assert again["key"] != key
    corrections.run(workspace, "training", "run-2")
    # another run's end is not this one's
    assert corrections.run(workspace, "done", "run-1")["states"] == {"training": 1}
    assert corrections.run(workspace, "done", "run-2")["states"] == {"used": 1}


def test_a_training_that_fails_is_asked_for_again_after_growing_pauses_and_then_a_person_is(workspace: Path) -> None:
    """Three attempts with 10 s: pauses of 40 and 160 s, then nothing until somebody releases the labels."""
    write_seg(workspace / "inbox/one.dcm", workspace / "data/first", 8)
    take(workspace)
    corrections.run(workspace, "added")
    path = workspace / "outbox/.ledger/ledger.sqlite"
    now = 1000.0
    with corrections.corrections_at(path, lambda: now) as table:
        (row,) = table.rows("added")
        for attempt, pause in ((1, 40.0), (2, 160.0), (3, None)):
            assert [one.content for one in table.due(3)] == [row.content], attempt
            table.start([row.content], f"run-{attempt}")
            assert table.due(3) == []
            # another run's failure is not this one's
            table.fail("run-0", 3, 10.0)
            assert [one.state for one in table.rows()] == ["training"]
            table.fail(f"run-{attempt}", 3, 10.0)
            (failed,) = table.rows("added")
            assert (failed.run, failed.attempts) == (f"run-{attempt}", attempt)
            if pause is not None:
                assert f"attempt {attempt} of 3 failed; the next comes in {pause:g} s" in failed.reason
                now += pause - 0.001
                assert table.due(3) == []
                now += 0.002
        assert "given up after 3 attempts; look at run run-3" in failed.reason
        now += 1e9
        assert table.due(3) == []
    found = corrections.run(workspace, "look")
    assert (found["n_cases"], found["failed"]) == (1, [failed.reason])
    assert "given up after 3 attempts" in inbox.report(workspace)
    # its max_attempts is the one of params.yaml
    with corrections.corrections_at(path) as table:
        for number in range(4, 6):
            table.start([row.content], f"run-{number}")
            table.fail(f"run-{number}", 5, 0.0)
    assert corrections.run(workspace, "look")["n_cases"] == 0
    assert "1 released" in inbox.release(workspace, "all")
    assert corrections.run(workspace, "look")["n_cases"] == 1
    corrections.run(workspace, "training", "run-6")
    assert corrections.run(workspace, "failed", "run-6")["failed"] == [
        "the training with it: attempt 1 of 5 failed; the next comes in 0 s at the earliest"
    ]
    corrections.run(workspace, "training", "run-7")
    assert corrections.run(workspace, "done", "run-7")["states"] == {"used": 1}


def test_a_table_of_an_earlier_version_is_brought_up_to_date(workspace: Path) -> None:
    write_seg(workspace / "inbox/one.dcm", workspace / "data/first", 8)
    take(workspace)
    with closing(sqlite3.connect(workspace / "outbox/.ledger/ledger.sqlite")) as base:
        for name in ("attempts", "not_before"):
            base.execute(f"ALTER TABLE corrections DROP COLUMN {name}")
        base.commit()
    assert corrections.run(workspace, "added")["n_cases"] == 1
    assert [row.attempts for row in rows(workspace)] == [0]
