"""Rows 5 and 8 over whole runs of real stages: nothing of a patient is left anywhere, and DVC's cache is not believed.

Words are planted in every input that comes with patients: tags of DICOM in all representations, private ones and deep
sequences, texts of SEG and RTSTRUCT, names of files and folders, headers and descriptions of NIfTI, the table of
patients, deliveries to the inbox. params.yaml and the card of a source are the user's own words, and stand in reports
on purpose. Each stage fails once after its work, with an error whose text is a patient's; the run after it goes on.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import stat
import urllib.error
import urllib.parse
import urllib.request
import warnings
from pathlib import Path

import pytest
import yaml
from canaries import Canaries
from decoded_search import found_in
from inbox_world import CANARIES as OF_INBOX
from inbox_world import write_study
from left_behind import left_in
from talking_study import PATIENT_NUMBER, write_talking_study
from talking_volumes import N_CASES, write_talking_volumes
from workspaces import CURVE as CURVE_SECTION
from workspaces import Place, make_real, make_site, until

from monai_tl.commands import key
from monai_tl.commands.phantom import canaries
from monai_tl.config import parse_params
from monai_tl.stages import CURVE, STAGES, ingest

# minutes, and longer on a busy machine: a dozen runs of the whole pipeline
pytestmark = pytest.mark.long

# found by Python itself in every process of the workspace
BREAKS = """
import os
from monai_tl import stages

if os.environ.get("BREAK_STAGE"):
    work = stages.run_stage

    def run_stage(name, workspace, params, matrix):
        work(name, workspace, params, matrix)
        if name == os.environ["BREAK_STAGE"]:
            text = os.environ["BREAK_TEXT"]
            kind = OSError if os.environ["BREAK_KIND"] == "OSError" else ValueError
            error = kind(2, text, f"/data/{text}/a.dcm")
            error.add_note(text)
            raise error from LookupError(text)

    stages.run_stage = run_stage
"""
GROUPS = "groups.csv"


@pytest.fixture(scope="module")
def planted() -> Canaries:
    return Canaries()


@pytest.fixture(scope="module")
def texts(run, planted) -> tuple[str, ...]:
    """Of all inputs, and the key; what is told of whoever ran it is no patient's."""
    _, root = run
    words = (*canaries(0, 1, 8), *planted.texts.values(), *OF_INBOX, (root / "pseudonym.key").read_text().strip())
    # eight digits of a date stand by chance among the numbers of a run; a SEG refers to its source by UIDs on purpose
    known = {word for word in words if len(word) >= 6 and any(letter.isalpha() for letter in word)}
    # the patient's number, and what rounding leaves of it: it stands in the place of a number too
    return tuple(sorted(known | {PATIENT_NUMBER, f"{float(PATIENT_NUMBER):g}"}))


@pytest.fixture(scope="module")
def run(tmp_path_factory, planted) -> tuple[Place, Path]:
    """A workspace in which every stage has failed once and then worked, and all that was said meanwhile."""
    root = tmp_path_factory.mktemp("whole")
    site = make_site(root / "site")
    place = make_real(root / "workspace", site)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_talking_study(place.folder / "data", planted)
    params = place.folder / "params.yaml"
    # that study's pixels are noise
    params.write_text(params.read_text().replace("plan:\n", "plan:\n  accept_broken: [intensity]\n"))
    place.run("dvc", "add", "-q", "data")
    place.commit("A study that says who it is of")
    (site / "sitecustomize.py").write_text(BREAKS)
    said = root / "said"
    for name in ("home", "tmp", "said"):
        (root / name).mkdir()
    # the name of whoever runs it is no patient's
    place.extra |= {"HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "MONAI_TL_EXECUTOR": "sequential"}
    name = next(text for text in canaries(0, 1, 8) if "Änne" in text)
    for stage in STAGES:
        (said / f"{stage.name}.txt").write_text(_break(place, stage.name, name, "run"))
        if stage.name == "split":
            _write_groups(place, planted)
    # the stage alone, without what relays its output
    alone = place.run("monai_tl", "stage", "export", check=False)
    assert "monai-tl:" in alone
    (said / "alone.txt").write_text(alone)
    params.write_text(params.read_text() + CURVE_SECTION)
    for stage in CURVE:
        (said / f"{stage.name}.txt").write_text(_break(place, stage.name, name, "curve"))
    place.extra = {key: value for key, value in place.extra.items() if not key.startswith("BREAK")}
    (said / "points.txt").write_text(place.run("monai_tl", "curve", "--plain"))
    assert list((place.folder / "reports/curve").iterdir())
    (said / "last.txt").write_text(place.run("monai_tl", "run", "--plain"))
    assert (place.folder / "artifacts/export/bundle").is_dir()
    (said / "inbox.txt").write_text(_work_on_inbox(place))
    _look_at_reports(place, said / "reports.txt", name)
    return place, root


def _break(place: Place, stage: str, name: str, verb: str) -> str:
    """What is said when a stage fails after its work, with an error of one kind or of the other."""
    kind = ("ValueError", "OSError")[[one.name for one in (*STAGES, *CURVE)].index(stage) % 2]
    place.extra |= {"BREAK_STAGE": stage, "BREAK_TEXT": name, "BREAK_KIND": kind}
    text = place.run("monai_tl", verb, "--plain", check=False)
    assert stage in text
    assert "failed" in text or "unexpected" in text or "No such file" in text, text
    return text


def _write_groups(place: Place, planted: Canaries) -> None:
    """The user's table about the cases: whose they are goes nowhere."""
    cases = json.loads((place.folder / "artifacts/cases/dataset.json").read_text())["case_ids"]
    with (place.folder / GROUPS).open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "patient", "sex"])
        rows.writerows([case, planted.plant(f"patient of {case}"), "FM"[k % 2]] for k, case in enumerate(cases))
    params = place.folder / "params.yaml"
    content = yaml.safe_load(params.read_text())
    content["evaluate"]["groups"] = GROUPS
    params.write_text(yaml.safe_dump(content, sort_keys=False))
    place.run("monai_tl", "init", "--refresh", ".")


def _work_on_inbox(place: Place) -> str:
    """One study that is segmented and one that comes to quarantine."""
    params = place.folder / "params.yaml"
    content = yaml.safe_load(params.read_text())
    model = {"model": "artifacts/export/model", "settle_s": 0, "retry_s": 0, "max_attempts": 1}
    content["inbox"] = {**model, "identity": "pseudonymous"}
    params.write_text(yaml.safe_dump(content, sort_keys=False))
    write_study(place.folder / f"inbox/{OF_INBOX[1]}", 1)
    write_study(place.folder / f"inbox/{OF_INBOX[1]} later", 2, leave_out=(4,))
    (place.folder / f"inbox/{OF_INBOX[1]}.txt").write_text(OF_INBOX[0])
    told = place.run("monai_tl", "inbox", "--once") + place.run("monai_tl", "inbox", "--report")
    assert "1 done" in told
    assert "1 quarantined" in told
    assert list((place.folder / "outbox").rglob("*.dcm"))
    return told


def _look_at_reports(place: Place, log: Path, name: str) -> None:
    """Requests that name a patient, with the password and without, to what serves the reports."""
    port_file = place.folder.parent / "port"
    place.extra["MONAI_TL_REPORT_AUTH"] = "reader:password"
    arguments = ("monai_tl.commands.report_server", "reports", "--port", "0", "--port-file", str(port_file))
    server = place.start(*arguments, output=log)
    try:
        until(port_file.is_file, 60, "the reports are served")
        host = f"http://127.0.0.1:{port_file.read_text().strip()}"
        password = "Basic " + base64.b64encode(b"reader:password").decode()
        found = []
        for path, header in (("report.html", password), (f"{name}.html?who={name}", password), (name, "Basic x")):
            address = f"{host}/{urllib.parse.quote(path, safe='?=')}"
            request = urllib.request.Request(address, headers={"Authorization": header, "Referer": "http://KANARI"})
            found.append(_status_of(request))
    finally:
        server.terminate()
        server.wait(40)
        del place.extra["MONAI_TL_REPORT_AUTH"]
    assert found == [200, 404, 401]


def _status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def volumes(run, tmp_path_factory) -> tuple[Place, Canaries]:
    """The same stages from NIfTI files in the Decathlon's layout, of which one is damaged."""
    planted, root = Canaries(), tmp_path_factory.mktemp("volumes")
    place = make_real(root / "workspace", run[0].site)
    shutil.rmtree(place.folder / "data")
    write_talking_volumes(place.folder / "data", planted)
    path = sorted((place.folder / "data/imagesTr").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-9])
    params = place.folder / "params.yaml"
    content = yaml.safe_load(params.read_text())
    for number, one in enumerate(content["ingest"]["classes"], start=1):
        one["values"] = [number]
    params.write_text(yaml.safe_dump(content, sort_keys=False))
    place.run("dvc", "add", "-q", "data")
    place.commit("Volumes")
    place.extra |= {"MONAI_TL_EXECUTOR": "sequential"}
    (root / "said.txt").write_text(place.run("monai_tl", "run", "--plain"))
    return place, planted


def test_nothing_of_a_patient_is_left_anywhere(run, texts) -> None:
    """Neither a text nor a hash of it that anybody could make."""
    place, root = run
    assert left_in(place.folder, texts, ("inbox", GROUPS)) == []
    for name in ("home", "tmp", "said"):
        assert found_in(root / name, texts) == []


def test_the_study_that_says_who_it_is_of_was_used(run, planted, tmp_path) -> None:
    """Else its words would be absent for the wrong reason."""
    place, _ = run
    cases = place.folder / "artifacts/cases"
    facts = [json.loads(path.read_text()) for path in cases.glob("case-*/case.json")]
    talking = [one for one in facts if len(one["provenance"]["instances"]) == 6 and one["has_label"]]
    assert talking
    refused = json.loads((cases / "rejected.json").read_text())["rejected"]
    assert {"series", "label"} <= {one["kind"] for one in refused}
    # the study's own, known by writing it once more, and the user's word for each patient
    own = Canaries()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_talking_study(tmp_path, own)
    assert len(own.texts) > 140
    listed = {f"patient of {case}" for case in json.loads((cases / "dataset.json").read_text())["case_ids"]}
    assert len(listed) == len(facts)
    assert planted.texts.keys() == own.texts.keys() | listed
    metrics = (place.folder / "reports/metrics.json").read_text()
    assert '"sex"' in metrics


def test_nothing_of_a_data_set_of_volumes_is_left_anywhere(volumes) -> None:
    place, planted = volumes
    dataset = json.loads((place.folder / "artifacts/cases/dataset.json").read_text())
    assert len(dataset["case_ids"]) == N_CASES - 1
    words = tuple(planted.texts.values())
    assert left_in(place.folder, words) == []
    assert found_in(place.folder.parent, words, lambda path: place.folder in (path, *path.parents)) == []
    seen = {one.split(" in ")[0] for one in found_in(place.folder / "data", words)}
    # the search would see them: all but what the damaged file holds
    assert len(seen) > 0.8 * len(words)


def test_other_keys_give_other_names_and_the_same_key_the_same(volumes, tmp_path: Path, monkeypatch) -> None:
    place, _ = volumes
    ids = {}
    for seed in (0, 1):
        key.run(tmp_path / f"key{seed}", seed=seed)
        content = yaml.safe_load((place.folder / "params.yaml").read_text())
        content["ingest"] |= {"key_file": str(tmp_path / f"key{seed}"), "source": str(place.folder / "data")}
        monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
        ingest.run(tmp_path / f"{seed}", parse_params(content))
        facts = [json.loads(path.read_text()) for path in tmp_path.glob(f"{seed}/artifacts/cases/case-*/case.json")]
        ids[seed] = {(one["case_id"], one["patient_key"]) for one in facts}
    now = [json.loads(path.read_text()) for path in (place.folder / "artifacts/cases").glob("case-*/case.json")]
    # make_real's key is that of seed 0
    assert ids[0] == {(one["case_id"], one["patient_key"]) for one in now}
    for part in (0, 1):
        assert {one[part] for one in ids[0]}.isdisjoint({one[part] for one in ids[1]})
    # two cases of one patient
    assert len({patient for _, patient in ids[0]}) == len(ids[0]) - 1


def test_the_search_sees_what_it_must(run, texts) -> None:
    place, _ = run
    seen = {one.split(" in ")[0] for one in found_in(place.folder / "data", texts)}
    assert seen >= {text for text in canaries(0, 1, 8) if "Änne" in text}
    # words that are there, in what Prefect keeps and in what was packed
    state = place.folder / ".monai_tl"
    assert "finetune@transfer-0-0 in prefect/prefect.db" in found_in(state, ("finetune@transfer-0-0",))
    assert [one for one in found_in(state, ("failed to reproduce",)) if "prefect/storage" in one]
    assert list((place.folder / "artifacts/export").rglob("*.dcm"))


def test_a_copy_that_was_changed_in_dvcs_cache_is_not_used(run) -> None:
    place, _ = run
    prepared = place.folder / "artifacts/prepared"
    target = sorted(prepared.rglob("image.npy"))[0]
    listed = yaml.safe_load(place.lock)["stages"]["preprocess"]["outs"][0]["md5"]
    objects = place.folder / ".dvc/cache/files/md5"
    names = {one["relpath"]: one["md5"] for one in json.loads((objects / listed[:2] / listed[2:]).read_text())}
    name = names[target.relative_to(prepared).as_posix()]
    copy = objects / name[:2] / name[2:]
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.chmod(0o644)
    copy.write_bytes(content)
    copy.chmod(0o444)
    shutil.rmtree(prepared)
    # DVC brings it back without a word, and finds nothing changed
    place.run("dvc", "checkout", "preprocess")
    assert (prepared / target.relative_to(prepared)).read_bytes() == bytes(content)
    params = place.folder / "params.yaml"
    params.write_text(params.read_text().replace("max_steps: 4", "max_steps: 5"))
    text = place.run("monai_tl", "run", "--plain", check=False)
    assert "image.npy has other content since the stage wrote it" in " ".join(text.split())
    # the way out that the message names
    told = place.run("monai_tl", "doctor", "--cache", check=False)
    assert name[2:] in told.replace("\n", "")
    copy.unlink()
    shutil.rmtree(prepared)
    text = place.run("monai_tl", "run", "--plain")
    assert "finetune@transfer-0-0: ran" in text
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o444
    assert copy.read_bytes() != bytes(content)
