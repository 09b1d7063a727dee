"""Corrected labels come back, lie in the data, are pinned, and start one training: on a real server, in a clone."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml
from inbox_world import series_uid, write_model, write_study
from prefect_server import Server, serving
from returned_labels import write_seg
from workspaces import Place, make_site, make_stand_in, until

from monai_tl.dicom.deidentify import create_key
from monai_tl.inbox.corrections import Correction, corrections_at

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


def git(place: Place, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=place.folder, env=place.environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("retraining")
    place = make_stand_in(root / "ws", make_site(root / "site"))
    create_key(root / "key", seed=0)
    write_model(root / "model")
    params = yaml.safe_load((place.folder / "params.yaml").read_text())
    params["ingest"] |= {"key_file": str(root / "key"), "classes": [{"name": "ball", "structures": ["Ball"]}]}
    params["inbox"] = {
        "folder": str(root / "inbox"), "outbox": str(root / "outbox"), "model": str(root / "model"), "settle_s": 0,
        "every_s": 86400, "retrain_after": 2, "retry_s": 0,
    }  # fmt: skip
    (root / "inbox").mkdir()
    (place.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    place.commit("An inbox")
    place.extra |= {"MONAI_TL_EXECUTOR": "sequential"}
    with serving(place, root / "serve.log", "--interval", "86400") as server:
        until(lambda: {"inbox", "training-in-clone"} <= set(server.deployments()), 60, "both flows are served")
        yield server


def labels(server: Server) -> list[Correction]:
    with corrections_at(server.place.folder.parent / "outbox/.ledger/ledger.sqlite") as table:
        return table.rows()


def trainings(server: Server) -> list[str]:
    """Runs that labels asked for, and not the schedule."""
    found = server.post("flow_runs/filter", {"flow_runs": {"tags": {"all_": ["new labels"]}}, "limit": 50})
    return [run["id"] for run in found]


def pinned(place: Place, revision: str) -> str:
    return str(yaml.safe_load(git(place, "show", f"{revision}:data.dvc"))["outs"][0]["md5"])


def test_two_corrections_start_one_training_on_the_data_with_both(served: Server) -> None:
    place, folder = served.place, served.place.folder.parent
    before, parent = pinned(place, "HEAD"), git(place, "rev-parse", "HEAD")
    # staged by the user, and no part of what is committed for the labels
    (place.folder / "mine.txt").write_text("half a thought")
    git(place, "add", "mine.txt")
    for number in range(2):
        write_study(folder / f"inbox/{number}", number)
        write_seg(folder / f"inbox/{number}/corrected.dcm", folder / f"inbox/{number}", number)
    first = served.ended(served.start("inbox", training=served_training(served)))
    assert first["state_type"] == "COMPLETED", first["state"]["message"]
    assert {row.state for row in labels(served)} == {"training"}
    assert git(place, "rev-parse", "HEAD^") == parent
    assert git(place, "diff", "--name-only", "HEAD^", "HEAD") == "data.dvc"
    assert git(place, "diff", "--cached", "--name-only") == "mine.txt"
    assert pinned(place, "HEAD") != before
    (run,) = trainings(served)
    assert served.ended(run)["state_type"] == "COMPLETED"
    (branch,) = git(place, "for-each-ref", "--format=%(refname:short)", "refs/heads/runs", "--contains", "HEAD").split()
    lock = yaml.safe_load(git(place, "show", f"{branch}:dvc.lock"))
    (used,) = (one["md5"] for one in lock["stages"]["ingest"]["deps"] if one["path"] == "data")
    assert used == pinned(place, "HEAD")
    listed = "".join(path.read_text(errors="replace") for path in (place.folder / ".dvc/cache").rglob("*.dir"))
    assert listed.count("from_inbox") == 2 * (8 + 1)
    # the next pass asks for nothing more
    second = served.ended(served.start("inbox", training=served_training(served)))
    assert second["state_type"] == "COMPLETED"
    assert {row.state for row in labels(served)} == {"used"}
    assert trainings(served) == [run]


def served_training(server: Server) -> str:
    """As the schedule gives it; a run started by hand has what it is given."""
    return str(server.deployments()["inbox"]["parameters"]["training"])


def test_nothing_of_a_patient_is_in_the_names_of_the_data(served: Server) -> None:
    files = [str(path) for path in (served.place.folder / "data").rglob("*")]
    assert any("from_inbox" in name for name in files)
    assert [name for name in files if series_uid(0) in name or series_uid(1) in name] == []


def test_one_label_alone_waits_for_another(served: Server) -> None:
    folder = served.place.folder.parent
    write_study(folder / "inbox/2", 2)
    write_seg(folder / "inbox/2/corrected.dcm", folder / "inbox/2", 2)
    ended = served.ended(served.start("inbox", training=served_training(served)))
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    assert sorted(row.state for row in labels(served)) == ["added", "used", "used"]
    assert len(trainings(served)) == 1


def test_a_run_that_is_killed_in_the_middle_loses_no_label_and_trains_once(served: Server) -> None:
    place, folder = served.place, served.place.folder.parent
    for number in (3, 4):
        write_study(folder / f"inbox/{number}", number)
        write_seg(folder / f"inbox/{number}/corrected.dcm", folder / f"inbox/{number}", number)
    n_before, known = len(trainings(served)), {process.pid for process in place.processes()}
    run = served.start("inbox", training=served_training(served))
    # the files lie in the data, and DVC does not know them yet
    until(lambda: place.find("-m dvc add"), 120, "DVC is told of the data")
    for process in place.processes():
        if process.pid not in known and process.ppid() in known:
            process.kill()
    assert served.ended(run)["state_type"] == "CRASHED"
    until(lambda: place.find("-m dvc add") is None, 30, "nothing of it goes on")
    again = served.ended(served.start("inbox", training=served_training(served)))
    assert again["state_type"] == "COMPLETED", again["state"]["message"]
    assert sorted(row.state for row in labels(served)) == ["training"] * 3 + ["used"] * 2
    assert len(trainings(served)) == n_before + 1
    added = [path for path in (place.folder / "data/from_inbox").rglob("*") if path.is_file()]
    assert len(added) == len({path.read_bytes() for path in added}) == 5 * (8 + 1)
    assert git(place, "status", "--porcelain", "--", "data.dvc") == ""
    served.ended(next(one for one in trainings(served) if served.run_of(one)["state_type"] != "COMPLETED"))


def test_whoever_asks_for_the_same_training_again_gets_the_same_run(served: Server) -> None:
    place, n_before = served.place, len(trainings(served))
    code = (
        "import sys; from flows.retraining import _ask_for_training as ask; "
        "print('RUN', ask(sys.argv[1], 'a key', 2, lambda *words: None))"
    )
    environment = {**place.environment, "PREFECT_API_URL": served.url, "PREFECT_API_AUTH_STRING": served.auth}

    def ask() -> str:
        command = [sys.executable, "-c", code, served_training(served)]
        done = subprocess.run(command, cwd=place.folder, env=environment, check=True, capture_output=True, text=True)
        return next(line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("RUN"))

    first = ask()
    assert ask() in (first, "")
    served.ended(first)
    assert ask() == first
    assert len(trainings(served)) == n_before + 1


def test_labels_of_a_training_that_failed_are_asked_for_again(served: Server) -> None:
    """It fails for what passes: somebody works in the clone."""
    folder = served.place.folder.parent
    for number in (5, 6):
        write_study(folder / f"inbox/{number}", number)
        write_seg(folder / f"inbox/{number}/corrected.dcm", folder / f"inbox/{number}", number)
    known = set(trainings(served))
    with (served.place.folder / ".monai_tl/clone/.monai_tl/run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        served.ended(served.start("inbox", training=served_training(served)))
        (failed,) = set(trainings(served)) - known
        ended = served.ended(failed)
        assert ended["state_type"] == "FAILED"
        assert "another run of this workspace is going on" in ended["state"]["message"]
    run = served.start("inbox", training=served_training(served))
    assert served.ended(run)["state_type"] == "COMPLETED"
    assert "| training | 2 |" in served.artifacts(run)["inbox-labels"]["data"]
    (again,) = set(trainings(served)) - known - {failed}
    assert served.ended(again)["state_type"] == "COMPLETED"
    served.ended(served.start("inbox", training=served_training(served)))
    assert {row.state for row in labels(served)} == {"used"}
    assert set(trainings(served)) == {*known, failed, again}
