"""A real Orthanc: studies are put in, found, segmented; the SEG is stored there and refers to the right series."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from inbox_world import CANARIES, series_uid, study_uid, write_model, write_params, write_study, write_workspace
from orthanc import AUTH, Orthanc, orthanc_in
from workspaces import free_port

from monai_tl.commands import inbox
from monai_tl.errors import ConfigError, PacsError
from monai_tl.files import read_json

pytestmark = pytest.mark.pipeline


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    monkeypatch.setenv("MONAI_TL_JOBS", "1")
    monkeypatch.setenv("MONAI_TL_PACS_AUTH", AUTH)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc_in(tmp_path / "pacs") as running:
        yield running


def settings(pacs: Orthanc, **more: object) -> dict[str, object]:
    return {"url": pacs.url, "days": None, "timeout_s": 20, **more}


def once(workspace: Path) -> str:
    told: list[str] = []
    inbox.run(workspace, once=True, tell=told.append)
    return told[0]


def states(workspace: Path) -> dict[str, int]:
    return {state: n for state, n in read_json(workspace / ".monai_tl/inbox.json")["states"].items() if n}


def referred(pacs: Orthanc) -> list[tuple[str, str]]:
    """Study and referred series of each SEG that Orthanc has."""
    return sorted(
        (tags["StudyInstanceUID"], tags["ReferencedSeriesSequence"][0]["SeriesInstanceUID"])
        for tags in pacs.instances("SEG")
    )


def test_from_the_pacs_and_back_exactly_once(tmp_path: Path, model: Path, pacs: Orthanc) -> None:
    workspace = write_workspace(tmp_path, model, pacs=settings(pacs))
    for number in range(2):
        pacs.put(write_study(tmp_path / f"made/{number}", number))
    pacs.put(write_study(tmp_path / "made/mr", 5, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))
    text = once(workspace)
    assert states(workspace) == {"done": 2}, text
    assert referred(pacs) == [(study_uid(number), series_uid(number)) for number in range(2)]
    (name,) = {tags["PatientName"] for tags in pacs.instances("SEG")}
    assert CANARIES[0] in name
    fetched = {path: path.stat().st_mtime_ns for path in (workspace / "inbox").rglob("*.dcm")}
    assert len(fetched) == 16
    # nothing is fetched, segmented or stored again: not even for the SEG that its studies have now
    once(workspace)
    assert {path: path.stat().st_mtime_ns for path in (workspace / "inbox").rglob("*.dcm")} == fetched
    assert states(workspace) == {"done": 2}
    assert len(pacs.instances("SEG")) == 2
    assert [secret for secret in (*CANARIES, study_uid(0), series_uid(0)) if secret in text] == []
    # and by its studies' names in the folder nobody is found
    assert not [path for path in (workspace / "inbox").rglob("*") for secret in CANARIES if secret in path.name]


def test_the_same_study_from_the_pacs_and_the_folder_is_one(tmp_path: Path, model: Path, pacs: Orthanc) -> None:
    workspace = write_workspace(tmp_path, model, pacs=settings(pacs))
    pacs.put(write_study(workspace / "inbox/by_hand", 1))
    once(workspace)
    assert states(workspace) == {"done": 1}
    assert referred(pacs) == [(study_uid(1), series_uid(1))]


def test_a_study_that_grows_in_the_pacs_waits_and_comes_whole(tmp_path: Path, model: Path, pacs: Orthanc) -> None:
    workspace = write_workspace(tmp_path, model, settle_s=1.5, pacs=settings(pacs))
    paths = sorted(write_study(tmp_path / "made", 1))
    pacs.put(paths[2:])
    once(workspace)
    assert states(workspace) == {}
    pacs.put(paths[:2])
    once(workspace)
    assert states(workspace) == {}
    time.sleep(1.6)
    once(workspace)
    assert states(workspace) == {"done": 1}
    assert len(list((workspace / "inbox").rglob("*.dcm"))) == 8


def test_a_pacs_that_is_away_keeps_nobody_from_the_folder_and_is_caught_up_with(tmp_path: Path, model: Path) -> None:
    port = free_port()
    workspace = write_workspace(tmp_path, model, pacs=settings(Orthanc(port)))
    write_study(workspace / "inbox/by_hand", 1)
    with pytest.raises(PacsError, match="cannot be reached"):
        once(workspace)
    assert states(workspace) == {"done": 1}
    report = inbox.report(workspace)
    assert "not in the PACS: the PACS cannot be reached" in report
    with orthanc_in(tmp_path / "pacs", port) as pacs:
        pacs.put(write_study(tmp_path / "made", 2))
        # the series that the waiting SEG refers to is not there yet
        with pytest.raises(PacsError, match="has not the series"):
            once(workspace)
        pacs.put(sorted((workspace / "inbox/by_hand").iterdir()))
        once(workspace)
        assert states(workspace) == {"done": 2}
        assert referred(pacs) == [(study_uid(number), series_uid(number)) for number in (1, 2)]
    assert "not in the PACS" not in inbox.report(workspace)


def test_a_wrong_password_and_a_wrong_address_are_told(
    tmp_path: Path, model: Path, pacs: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = write_workspace(tmp_path, model, pacs=settings(pacs))
    monkeypatch.setenv("MONAI_TL_PACS_AUTH", "tester:wrong")
    with pytest.raises(PacsError, match=r"answered 401.*MONAI_TL_PACS_AUTH"):
        once(workspace)
    monkeypatch.setenv("MONAI_TL_PACS_AUTH", "geheim")
    with pytest.raises(ConfigError, match="name:password") as caught:
        once(workspace)
    assert "geheim" not in str(caught.value)
    monkeypatch.setenv("MONAI_TL_PACS_AUTH", AUTH)
    write_params(tmp_path, pacs=settings(pacs, url=pacs.url.replace("dicom-web", "elsewhere")))
    with pytest.raises(PacsError, match="answered 404"):
        once(workspace)


def test_a_study_that_the_pacs_cannot_give_holds_up_no_other(tmp_path: Path, model: Path) -> None:
    with orthanc_in(tmp_path / "pacs", MaximumStorageCacheSize=0) as pacs:
        workspace = write_workspace(tmp_path, model, pacs=settings(pacs))
        for number in range(3):
            pacs.put(write_study(tmp_path / f"made/{number}", number))
        # a file of the first is gone from its disk; its index still has it
        for name in pacs.call("/instances"):
            tags = pacs.call(f"/instances/{name}/simplified-tags")
            if tags["StudyInstanceUID"] == study_uid(0) and tags["InstanceNumber"] == "4":
                stored = pacs.call(f"/instances/{name}/attachments/dicom/info")["Uuid"]
                (tmp_path / "pacs/storage" / stored[:2] / stored[2:4] / stored).unlink()
        with pytest.raises(PacsError, match="study-"):
            once(workspace)
        assert states(workspace) == {"done": 2}
        assert [row["sent"] for row in read_json(workspace / ".monai_tl/inbox.json")["studies"]] == ["stored"] * 2


def test_a_pacs_that_ends_in_the_middle_leaves_no_half_study(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import monai_tl.dicom.web as web

    port = free_port()
    workspace = write_workspace(tmp_path, model, pacs=settings(Orthanc(port)))
    with orthanc_in(tmp_path / "pacs", port) as pacs:
        pacs.put(write_study(tmp_path / "made", 1))
        real, n_written = web.dcmwrite, [0]

        def write(*given, **more):
            n_written[0] += 1
            if n_written[0] == 5:
                raise OSError(28, "No space left on device")
            return real(*given, **more)

        monkeypatch.setattr(web, "dcmwrite", write)
        with pytest.raises((PacsError, OSError)):
            once(workspace)
        assert list((workspace / "inbox").rglob("*.dcm")) == []
        once(workspace)
        assert states(workspace) == {"done": 1}
        assert referred(pacs) == [(study_uid(1), series_uid(1))]
