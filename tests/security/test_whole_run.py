"""Rows 5 and 8 over whole runs of real stages: nothing of a patient is left anywhere, and DVC's cache is not believed.

Each stage fails once after its work, with an error whose text is a patient's; the run after it goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import yaml
from decoded_search import found_in
from workspaces import Place, make_real, make_site

from monai_tl.commands.phantom import canaries

# minutes, and longer on a busy machine: nine runs of the whole pipeline
pytestmark = pytest.mark.long

STAGES = ("ingest", "split", "plan", "preprocess", "finetune", "predict", "evaluate", "export")
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
            raise kind(2, text, f"/data/{text}/a.dcm")

    stages.run_stage = run_stage
"""


@pytest.fixture(scope="module")
def texts() -> tuple[str, ...]:
    # eight digits of a date stand by chance among the numbers of a run, and UIDs are of the standard
    return tuple(text for text in canaries(0, 1, 8) if any(letter.isalpha() for letter in text))


@pytest.fixture(scope="module")
def run(tmp_path_factory, texts) -> tuple[Place, Path]:
    """A workspace in which every stage has failed once and then worked, and all that was said meanwhile."""
    root = tmp_path_factory.mktemp("whole")
    site = make_site(root / "site")
    place = make_real(root / "workspace", site)
    (site / "sitecustomize.py").write_text(BREAKS)
    said = root / "said"
    for name in ("home", "tmp", "said"):
        (root / name).mkdir()
    # the name of whoever runs it is no patient's
    place.extra |= {"HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "MONAI_TL_EXECUTOR": "sequential"}
    name = next(text for text in texts if "Änne" in text)
    for number, stage in enumerate(STAGES):
        place.extra |= {"BREAK_STAGE": stage, "BREAK_TEXT": name, "BREAK_KIND": ("ValueError", "OSError")[number % 2]}
        text = place.run("monai_tl", "run", "--plain", check=False)
        assert f"{stage}" in text
        assert "failed" in text or "unexpected" in text or "No such file" in text, text
        (said / f"{stage}.txt").write_text(text)
    place.extra = {key: value for key, value in place.extra.items() if not key.startswith("BREAK")}
    (said / "last.txt").write_text(place.run("monai_tl", "run", "--plain"))
    assert (place.folder / "artifacts/export/bundle").is_dir()
    return place, root


def _objects_of_data(workspace: Path) -> set[Path]:
    """The inputs themselves, as DVC keeps them, and the list of their names: `data` is the user's own."""
    objects = workspace / ".dvc/cache/files/md5"
    listed = yaml.safe_load((workspace / "data.dvc").read_text())["outs"][0]["md5"]
    folder = objects / listed[:2] / listed[2:]
    names = [one["md5"] for one in json.loads(folder.read_text())]
    return {folder, *(objects / name[:2] / name[2:] for name in names)}


def test_nothing_of_a_patient_is_left_anywhere(run, texts) -> None:
    place, root = run
    inputs = _objects_of_data(place.folder)
    data = place.folder / "data"

    def is_left_out(path: Path) -> bool:
        return path in inputs or data in (path, *path.parents)

    assert found_in(place.folder, texts, is_left_out) == []
    for name in ("home", "tmp", "said"):
        assert found_in(root / name, texts) == []


def test_the_search_sees_what_it_must(run, texts) -> None:
    place, _ = run
    assert {one.split(" in ")[0] for one in found_in(place.folder / "data", texts)} >= {
        text for text in texts if "Änne" in text
    }
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
