"""``monai-tl inbox``: each study exactly once, whatever comes twice, half, damaged or while nobody looks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from inbox_world import (
    CANARIES,
    ball,
    segs,
    series_uid,
    sources_of,
    study_uid,
    write_model,
    write_params,
    write_study,
    write_workspace,
)

from monai_tl.commands import inbox, segment, whois
from monai_tl.errors import ConfigError, DicomError, MonaiTLError, SourceError
from monai_tl.files import read_json
from monai_tl.inbox.drift import pool
from monai_tl.records import Fingerprint


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    monkeypatch.setenv("MONAI_TL_JOBS", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def workspace(tmp_path: Path, model: Path) -> Path:
    return write_workspace(tmp_path, model)


def once(workspace: Path) -> str:
    told: list[str] = []
    inbox.run(workspace, once=True, tell=told.append)
    return told[0]


def found(workspace: Path) -> dict:
    return read_json(workspace / ".monai_tl/inbox.json")


def states(workspace: Path) -> dict[str, int]:
    return {state: count for state, count in found(workspace)["states"].items() if count}


def test_each_study_gets_its_seg_and_a_second_pass_does_nothing(workspace: Path) -> None:
    for number in range(3):
        write_study(workspace / f"inbox/any/{number}", number)
    text = once(workspace)
    assert "3 done" in text
    assert sources_of(segs(workspace)) == [series_uid(number) for number in range(3)]
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in segs(workspace)}
    once(workspace)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in segs(workspace)} == before
    assert found(workspace)["throughput"]["done_last_day"] == 3


def test_results_are_those_of_segment(workspace: Path, tmp_path: Path) -> None:
    write_study(workspace / "inbox/a", 1)
    once(workspace)
    segment.run(workspace / "inbox", tmp_path / "out", [workspace / "model"], key_file=tmp_path / "key")
    (theirs,) = (tmp_path / "out").rglob("*.dcm")
    assert segs(workspace)[0].read_bytes() == theirs.read_bytes()


def test_deliveries_of_the_same_are_one(workspace: Path) -> None:
    """Other names, another folder, another file meta group, in part twice; later and at once."""
    paths = write_study(workspace / "inbox/first", 1)
    shutil.copytree(workspace / "inbox/first", workspace / "inbox/second")
    once(workspace)
    assert states(workspace) == {"done": 1}
    stamp = segs(workspace)[0].stat().st_ino
    shutil.rmtree(workspace / "inbox/first")
    shutil.rmtree(workspace / "inbox/second")
    once(workspace)
    paths = write_study(workspace / "inbox/third", 1)
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
        dataset.file_meta.ImplementationVersionName = "OTHER_1"
        dataset.save_as(path.with_name(f"other_{number}.dcm"), enforce_file_format=True)
        path.unlink()
    once(workspace)
    assert states(workspace) == {"done": 1}
    assert segs(workspace)[0].stat().st_ino == stamp


def test_a_study_that_still_arrives_waits(tmp_path: Path, workspace: Path) -> None:
    write_params(tmp_path, settle_s=3600)
    paths = write_study(workspace / "inbox/a", 1)
    for path in paths:
        # what a sender says of the time is not believed
        os.utime(path, (0, 0))
    once(workspace)
    assert states(workspace) == {}
    assert found(workspace)["inbox"]["settling"] == 1
    (workspace / "inbox/a/.complete").touch()
    once(workspace)
    assert states(workspace) == {"done": 1}


def test_settling_ends_when_nothing_changes(tmp_path: Path, workspace: Path) -> None:
    write_params(tmp_path, settle_s=1.0)
    write_study(workspace / "inbox/a", 1)
    once(workspace)
    assert states(workspace) == {}
    time.sleep(1.1)
    once(workspace)
    assert states(workspace) == {"done": 1}


def test_what_comes_later_of_a_study_makes_its_seg_anew(workspace: Path) -> None:
    paths = write_study(workspace / "inbox/a", 1)
    # the slices at the end come later: a whole volume, only shorter
    late = sorted(paths, key=lambda path: path.name)[:2]
    (workspace / "later").mkdir()
    for path in late:
        shutil.move(path, workspace / "later")
    once(workspace)
    (seg,) = segs(workspace)
    assert len(pydicom.dcmread(seg).ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    for path in late:
        shutil.move(workspace / "later" / path.name, path)
    once(workspace)
    (seg,) = segs(workspace)
    assert len(pydicom.dcmread(seg).ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 8
    assert states(workspace) == {"done": 2}


def test_poison_goes_to_quarantine_at_once_and_the_others_go_on(workspace: Path) -> None:
    write_study(workspace / "inbox/gap", 1, leave_out=(4,))
    write_study(workspace / "inbox/mr", 2, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    cut = write_study(workspace / "inbox/cut", 3)
    for path in cut:
        path.write_bytes(path.read_bytes()[:400])
    good = write_study(workspace / "inbox/good", 4)
    (workspace / "inbox/readme.txt").write_text("no DICOM")
    text = once(workspace)
    assert states(workspace) == {"done": 1, "quarantined": 3}
    assert sources_of(segs(workspace)) == [series_uid(4)]
    refused = {row["code"]: row for row in found(workspace)["refused"]}
    assert {"missing_slice", "other_modality"} <= set(refused)
    assert all(row["attempts"] == 1 and row["reason"] for row in refused.values())
    assert "missing_slice" in text
    assert found(workspace)["inbox"]["no_dicom"] == 1
    assert sorted(path.name for path in (workspace / "outbox").iterdir() if path.name.startswith("study-")) == [
        row["study"] for row in found(workspace)["studies"]
    ]
    assert all(path.exists() for path in good)
    once(workspace)
    assert states(workspace) == {"done": 1, "quarantined": 3}


def test_mended_data_are_taken_and_quarantine_can_be_left(workspace: Path) -> None:
    write_study(workspace / "inbox/gap", 1, leave_out=(4,))
    once(workspace)
    (study,) = (row["study"] for row in found(workspace)["refused"])
    assert "1 released" in inbox.release(workspace, study)
    once(workspace)
    assert states(workspace) == {"quarantined": 1}
    write_study(workspace / "inbox/gap", 1)
    once(workspace)
    assert states(workspace) == {"done": 1, "quarantined": 1}
    with pytest.raises(ConfigError, match="is not in quarantine"):
        inbox.release(workspace, "study-000000000000")


def test_the_holder_of_the_key_finds_a_study_in_quarantine(workspace: Path) -> None:
    write_study(workspace / "inbox/good", 1)
    bad = write_study(workspace / "inbox/deep/gap", 2, leave_out=(4,))
    once(workspace)
    (study,) = (row["study"] for row in found(workspace)["refused"])
    lines = list(whois.run([study], workspace, workspace / "inbox", workspace.parent / "key"))
    assert lines[0] == f"{study}: {len(bad)} files"
    assert str(workspace / "inbox/deep/gap") in lines[1]


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> list[int]:
    """The writing of a SEG fails so many times."""
    calls = [0]
    real = segment.write_segmentation

    def write(*given, **more):
        calls[0] += 1
        if calls[0] <= times:
            raise error
        return real(*given, **more)

    monkeypatch.setattr(segment, "write_segmentation", write)
    return calls


def test_a_full_disk_is_tried_again_and_passes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "/secret/KANARI"), 1)
    write_study(workspace / "inbox/a", 1)
    text = once(workspace)
    # retry_s is 0, so the same pass has come back to it
    assert states(workspace) == {"done": 1}
    assert "KANARI" not in text


def test_a_disk_that_stays_full_ends_in_quarantine_with_the_reason(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device"), 99)
    write_study(workspace / "inbox/a", 1)
    once(workspace)
    (row,) = found(workspace)["refused"]
    assert (row["code"], row["attempts"], calls[0]) == ("machine", 5, 5)
    assert "No space left on device" in row["reason"]
    assert segs(workspace) == []
    assert not [path for path in (workspace / "outbox").iterdir() if path.name != ".ledger"]


def test_a_fault_of_ours_is_not_tried_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(monkeypatch, ValueError("the name is KANARI"), 99)
    write_study(workspace / "inbox/a", 1)
    text = once(workspace)
    assert calls[0] == 1
    assert states(workspace) == {"quarantined": 1}
    assert "KANARI" not in text


def test_files_that_nobody_may_read_are_tried_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import monai_tl.commands.segment as command

    real, calls = command.read_volume, [0]

    def read(*given):
        calls[0] += 1
        if calls[0] == 1:
            raise DicomError("a file of the series cannot be read: Stale file handle", "unreadable")
        return real(*given)

    monkeypatch.setattr(command, "read_volume", read)
    write_study(workspace / "inbox/a", 1)
    once(workspace)
    assert states(workspace) == {"done": 1}


def test_a_study_that_changes_under_the_work_is_done_as_it_is_then(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import monai_tl.commands.segment as command

    paths = write_study(workspace / "inbox/a", 1)
    real, calls = command.read_volume, [0]

    def read(*given):
        volume = real(*given)
        calls[0] += 1
        if calls[0] == 1:
            dataset = pydicom.dcmread(paths[0])
            dataset.PixelData = bytes(len(dataset.PixelData))
            dataset.save_as(paths[0])
        return volume

    monkeypatch.setattr(command, "read_volume", read)
    write_params(workspace.parent, retry_s=3600)
    once(workspace)
    assert states(workspace) == {"failed": 1}
    assert segs(workspace) == []
    once(workspace)
    assert states(workspace) == {"done": 1, "superseded": 1}


def test_an_order_to_stop_leaves_the_study_as_if_never_begun(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt(), 1)  # type: ignore[arg-type]
    write_study(workspace / "inbox/a", 1)
    with pytest.raises(KeyboardInterrupt):
        inbox.run(workspace, once=True, tell=print)
    base = sqlite3.connect(workspace / "outbox/.ledger/ledger.sqlite")
    assert base.execute("SELECT state, attempts FROM studies").fetchall() == [("seen", 0)]
    assert not [path for path in (workspace / "outbox").iterdir() if path.name != ".ledger"]
    once(workspace)
    assert states(workspace) == {"done": 1}


def test_a_lost_ledger_is_made_up_from_the_outbox(workspace: Path) -> None:
    for number in range(2):
        write_study(workspace / f"inbox/{number}", number)
    once(workspace)
    before = [path.stat().st_ino for path in segs(workspace)]
    shutil.rmtree(workspace / "outbox/.ledger")
    once(workspace)
    assert states(workspace) == {"done": 2}
    assert [path.stat().st_ino for path in segs(workspace)] == before


def test_nothing_of_a_patient_is_kept_but_in_the_seg(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(workspace / f"inbox/{CANARIES[0]}_{CANARIES[2]}", 1)
    write_study(workspace / f"inbox/{CANARIES[1]}", 2, leave_out=(3,))
    text = once(workspace) + inbox.report(workspace)
    captured = capsys.readouterr()
    kept = [
        path for path in workspace.rglob("*") if path.is_file() and "inbox/" not in str(path.relative_to(workspace))
    ]
    contents = [path.read_bytes() for path in kept if path.suffix != ".dcm"] + [str(kept).encode()]
    contents += [text.encode(), captured.out.encode(), captured.err.encode()]
    secrets = [*CANARIES, study_uid(1), study_uid(2), series_uid(1), series_uid(2)]
    assert [secret for secret in secrets for content in contents if secret.encode() in content] == []
    # the test can see: the SEG for the PACS has the name
    assert CANARIES[0].encode() in segs(workspace)[0].read_bytes()


def test_the_inbox_is_only_read(workspace: Path) -> None:
    write_study(workspace / "inbox/a", 1)
    write_study(workspace / "inbox/b", 2, leave_out=(3,))
    before = {path: path.stat().st_mtime_ns for path in (workspace / "inbox").rglob("*")}
    once(workspace)
    assert {path: path.stat().st_mtime_ns for path in (workspace / "inbox").rglob("*")} == before


def test_labels_alone_are_counted_and_left(workspace: Path) -> None:
    write_study(workspace / "inbox/a", 1)
    once(workspace)
    shutil.copyfile(segs(workspace)[0], workspace / "inbox/a/seg.dcm")
    (workspace / "inbox/labels").mkdir()
    dataset = pydicom.dcmread(segs(workspace)[0])
    dataset.StudyInstanceUID = study_uid(9)
    dataset.save_as(workspace / "inbox/labels/seg.dcm")
    once(workspace)
    assert states(workspace) == {"done": 1}
    assert found(workspace)["inbox"]["without_images"] == 1


def test_arguments_that_cannot_be_are_told(tmp_path: Path, workspace: Path) -> None:
    write_params(tmp_path, outbox="inbox/out")
    with pytest.raises(ConfigError, match=r"inbox\.outbox"):
        once(workspace)
    write_params(tmp_path, folder="nowhere")
    with pytest.raises(DicomError, match=r"inbox\.folder"):
        once(workspace)
    write_params(tmp_path, model="inbox")
    with pytest.raises(SourceError):
        once(workspace)
    write_params(tmp_path, pacs={"url": "http://name:secret@pacs"})
    with pytest.raises(ConfigError, match=r"inbox\.pacs\.url"):
        once(workspace)
    write_params(tmp_path, identity="pseudonymous", pacs={"url": "http://pacs"})
    with pytest.raises(ConfigError, match=r"needs inbox\.identity: source"):
        once(workspace)


def test_a_ledger_that_cannot_be_written_is_a_clear_error(workspace: Path) -> None:
    (workspace / "outbox/.ledger").mkdir(parents=True)
    (workspace / "outbox/.ledger/ledger.sqlite").mkdir()
    with pytest.raises(MonaiTLError, match=r"ledger.*cannot be used"):
        once(workspace)


def measured_in(workspace: Path) -> list[Fingerprint]:
    with closing(sqlite3.connect(workspace / "outbox/.ledger/ledger.sqlite")) as base:
        rows = base.execute("SELECT measures FROM studies").fetchall()
    measured = [one for row in rows for one in json.loads(row[0])]
    # of two classes no voxel can be less sure than a coin
    assert all(0.0 < one.pop("entropy") <= np.log(2.0) for one in measured)
    return [Fingerprint.model_validate(one) for one in measured]


def values_inside(workspace: Path, shift_hu: float) -> list[np.ndarray]:
    """HU in what the model has drawn on each of four studies, by NIfTI and the numbers that were written."""
    folders = {sources_of([path])[0]: path.parent for path in segs(workspace)}
    found = []
    for number in range(4):
        (path,) = folders[series_uid(number)].glob("*.nii.gz")
        image = nibabel.load(path)
        label = np.asanyarray(image.dataobj)
        # DICOM counts to the left and to the back, NIfTI to the right and to the front
        for axis in range(2):
            label = np.flip(label, axis) if image.affine[axis, axis] > 0 else label
        found.append((ball(number, shift_hu).astype(float) - 1024.0)[label.transpose(2, 1, 0) > 0])
    return found


def as_if_trained_on_them(tmp_path: Path, workspace: Path) -> list[np.ndarray]:
    """Four studies are what the model was trained on, and the inbox is empty then; HU of what it has drawn on each."""
    for number in range(4):
        write_study(workspace / f"inbox/{number}", number)
    once(workspace)
    usual = measured_in(workspace)
    assert {one.spacing_mm_median for one in usual} == {(4.0, 4.0, 4.0)}
    shutil.rmtree(workspace / "model")
    write_model(workspace / "model", pool(usual))
    write_params(tmp_path, drift_window=8)
    assert "no alarm" in inbox.report(workspace)
    values = values_inside(workspace, 0.0)
    shutil.rmtree(workspace / "outbox")
    shutil.rmtree(workspace / "inbox")
    return values


def test_studies_that_are_brighter_raise_an_alarm_by_their_intensities(tmp_path: Path, workspace: Path) -> None:
    """The same studies 300 HU brighter: the score is the shift of the mean by the deviation, as defined."""
    usual = as_if_trained_on_them(tmp_path, workspace)
    for number in range(4):
        write_study(workspace / f"inbox/{number}", number, shift_hu=300.0)
    text = once(workspace)
    brighter = values_inside(workspace, 300.0)
    # each study counts the same, and a mixture's variance is its mean square less the square of its mean
    means = [np.mean([part.mean() for part in parts]) for parts in (usual, brighter)]
    squares = [np.mean([(part**2).mean() for part in parts]) for parts in (usual, brighter)]
    variances = [square - mean**2 for square, mean in zip(squares, means, strict=True)]
    expected = (means[1] - means[0]) / np.sqrt(np.mean(variances))
    assert means[1] - means[0] == pytest.approx(300.0, abs=5.0)
    drift = found(workspace)["drift"]
    sizes = {one["name"]: one["distance"] for one in drift["features"]}
    assert sizes["foreground intensity, mean"] == pytest.approx(expected, rel=1e-4)
    assert drift["score"] == sizes["foreground intensity, mean"]
    assert [name for name, distance in sizes.items() if distance > drift["bound"]] == ["foreground intensity, mean"]
    assert drift["alarm"]
    assert "ALARM" in text
    assert "farthest from the training in foreground intensity, mean" in text


def test_drift_is_measured_against_the_training_cases(tmp_path: Path, workspace: Path) -> None:
    """The same studies with pixels of 10 mm in place of 4 mm: the score is the logarithm of the factor."""
    as_if_trained_on_them(tmp_path, workspace)
    for number in range(4):
        write_study(workspace / f"inbox/{number}", number, PixelSpacing=[10.0, 10.0])
    text = once(workspace)
    drift = found(workspace)["drift"]
    # 10 mm against 4 mm
    assert drift["score"] >= np.log2(2.5) - 1e-6
    sizes = {one["name"]: one["distance"] for one in drift["features"]}
    assert sizes["voxel size R-L"] == pytest.approx(np.log2(2.5), abs=1e-5)
    assert sizes["voxel size S-I"] == 0.0
    assert drift["alarm"]
    assert "ALARM" in text
    write_params(tmp_path, drift_window=9)
    # four are fewer than half of nine
    assert "no alarm" in inbox.report(workspace)
