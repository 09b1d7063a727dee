"""``init`` and ``doctor``, and the check that the installed package is the one a workspace names."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from targets import SCHEME, make_fingerprint, make_source

from monai_tl import workspace
from monai_tl.commands import doctor, init, key, run
from monai_tl.config import PlanConfig, load_params
from monai_tl.errors import ConfigError
from monai_tl.pipeline_file import check_sections
from monai_tl.records import SizeRule
from monai_tl.stages import STAGE_NAMES
from monai_tl.transfer.planning import make_plan
from monai_tl.workspace import VERSION_FILE, check_installed_version

QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "my studies"
    init.run(folder, console=QUIET)
    return folder


@pytest.fixture
def here(made, tmp_path) -> Path:
    """A copy that a test may spoil."""
    subprocess.run(["cp", "-r", made, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def problems(folder: Path) -> dict[str, str]:
    return {item.subject: f"{item.note} | {item.mend}" for item in doctor.examine(folder) if item.mend}


def test_a_workspace_is_valid_committed_and_clean(made):
    check_sections(made)
    assert load_params(made).plan.source == "sources/pretrained"
    assert git(made, "status", "--porcelain") == ""
    assert git(made, "log", "--oneline").count("\n") == 1
    tracked = set(git(made, "ls-files").split())
    assert {"dvc.yaml", "params.yaml", "prefect.yaml", VERSION_FILE, "flows/pipeline.py", ".dvc/config"} <= tracked
    assert not [name for name in tracked if "__pycache__" in name or name.startswith(".monai_tl")]


def test_its_pipeline_is_read_by_dvc(made):
    import sys

    done = subprocess.run([sys.executable, "-m", "dvc", "stage", "list"], cwd=made, capture_output=True, text=True)
    found = [line.split()[0].split("@")[0] for line in done.stdout.splitlines()]
    assert tuple(dict.fromkeys(found)) == STAGE_NAMES


def test_params_hold_only_what_exists_and_defaults_are_told_as_they_are(made):
    text = (made / "params.yaml").read_text()
    assert load_params(made).ingest.key_file == "~/.config/monai_tl/pseudonym.key"
    assert all(section in yaml.safe_load(text) for section in STAGE_NAMES)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not empty"):
        init.run(tmp_path, console=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="no workspace"):
        init.run(tmp_path, refresh=True, console=QUIET)


def test_after_a_failure_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(Exception, match="git is not installed"):
        init.run(tmp_path / "new", console=QUIET)
    assert not (tmp_path / "new").exists()


def test_another_installed_source_is_refused_until_refresh(here, monkeypatch):
    check_installed_version(here)
    monkeypatch.setattr(workspace, "installed_digest", lambda: "0" * 64)
    with pytest.raises(ConfigError, match="init --refresh"):
        check_installed_version(here)
    own = (here / "flows/pipeline.py").read_text() + "# mine\n"
    (here / "flows/pipeline.py").write_text(own)
    init.run(here, refresh=True, console=QUIET)
    check_installed_version(here)
    assert (here / "flows/pipeline.py").read_text() == own


def test_a_checkout_has_nothing_to_check():
    check_installed_version(Path(__file__).parents[2])


def test_any_changed_byte_of_the_package_is_another_version(tmp_path, monkeypatch):
    before = workspace.installed_digest()
    subprocess.run(["cp", "-r", Path(workspace.__file__).parent, tmp_path / "monai_tl"], check=True)
    monkeypatch.setattr(workspace, "_PACKAGE", tmp_path / "monai_tl")
    assert workspace.installed_digest() == before
    # templates of workspaces are no code of a stage
    (tmp_path / "monai_tl/template/README.md").write_text("other")
    assert workspace.installed_digest() == before
    style = tmp_path / "monai_tl/report/report.css"
    style.write_text(style.read_text() + "\n")
    changed = workspace.installed_digest()
    assert changed != before
    style.rename(style.with_name("renamed.css"))
    assert workspace.installed_digest() not in {before, changed}


def test_doctor_on_a_new_workspace_asks_for_its_inputs_alone(made, tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert set(problems(made)) == {"pseudonym key", "ingest.source", "plan.source"}
    assert "dvc add data" in problems(made)["ingest.source"]
    assert doctor.run(made, QUIET) == 1


def test_doctor_finds_what_is_spoilt(here, monkeypatch, tmp_path):
    (here / "data").mkdir()
    (here / "data/a.dcm").write_bytes(b"x")
    secret = tmp_path / "key"
    key.run(secret, seed=0)
    text = (here / "params.yaml").read_text().replace("~/.config/monai_tl/pseudonym.key", str(secret))
    (here / "params.yaml").write_text(text)
    assert set(problems(here)) == {"plan.source"}
    secret.chmod(0o644)
    assert "chmod 600" in problems(here)["pseudonym key"]
    (here / ".dvc/tmp").mkdir(exist_ok=True)
    (here / ".dvc/tmp/rwlock").write_text('{"read": {}, "write": {"/a": {"pid": 4194000, "cmd": "repro"}}}')
    assert "gone" in problems(here)["DVC lock"]
    (here / VERSION_FILE).write_text("monai_tl 0.0.1\nsha256 0\n")
    (here / "dvc.yaml").write_text("stages: {}\n")
    assert {VERSION_FILE, "dvc.yaml"} <= set(problems(here))
    (here / "params.yaml").write_text(text.replace("patience: 8", "patienze: 8\n  seed2: 1"))
    found = [item.note for item in doctor.examine(here) if item.subject == "params.yaml"]
    assert len(found) == 2
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert "no answer" in problems(here)["Prefect server"]


def test_doctor_tells_what_of_the_contract_is_broken(here):
    def told():
        return [item for item in doctor.examine(here) if item.subject == "contract"]

    assert told() == []
    source = make_source(size_rule=SizeRule(min_vox=(256, 256, 256)))
    config = PlanConfig(source="s", accept_broken=("field of view",))
    plan = make_plan(make_fingerprint(), SCHEME, config, source)
    (here / "artifacts/plan").mkdir(parents=True)
    plan.write(here / "artifacts/plan/plan.json")
    (accepted,) = told()
    assert accepted.mend == ""
    assert accepted.note.startswith("broken, and accepted in params.yaml: field of view: the source looks at 256")
    # as an earlier version wrote it
    lines = tuple(line.model_copy(update={"accepted": False}) for line in plan.adaptations)
    plan.model_copy(update={"adaptations": lines}).write(here / "artifacts/plan/plan.json")
    assert "plan stage again" in told()[0].mend
    make_plan(make_fingerprint(), SCHEME, config, make_source()).write(here / "artifacts/plan/plan.json")
    assert told()[0].note == "no line is broken in artifacts/plan/plan.json"


def break_pipeline_file(folder: Path) -> None:
    (folder / "dvc.yaml").unlink()


def damage_pipeline_file(folder: Path) -> None:
    (folder / "dvc.yaml").write_bytes(b"stages: \xff")


def empty_pipeline_file(folder: Path) -> None:
    (folder / "dvc.yaml").write_text("- 1\n")


def damage_params(folder: Path) -> None:
    (folder / "params.yaml").write_bytes(b"ingest: \xff")


def replace_params_by_a_folder(folder: Path) -> None:
    (folder / "params.yaml").unlink()
    (folder / "params.yaml").mkdir()


def damage_version(folder: Path) -> None:
    (folder / VERSION_FILE).write_bytes(b"\xff")


def write_a_server_file_that_is_a_list(folder: Path) -> None:
    (folder / ".monai_tl").mkdir()
    (folder / ".monai_tl/server.json").write_text("[]")


def replace_lock_by_a_folder(folder: Path) -> None:
    (folder / ".dvc/tmp/rwlock").mkdir(parents=True)


REFRESH = "monai-tl init --refresh"


@pytest.mark.parametrize(
    ("break_it", "subject", "mend"),
    [
        (break_pipeline_file, "dvc.yaml", REFRESH),
        (damage_pipeline_file, "dvc.yaml", REFRESH),
        (empty_pipeline_file, "dvc.yaml", REFRESH),
        (damage_params, "params.yaml", "UTF-8 text"),
        (replace_params_by_a_folder, "params.yaml", "readable file"),
        (damage_version, VERSION_FILE, REFRESH),
        (replace_lock_by_a_folder, "DVC lock", "remove"),
        (write_a_server_file_that_is_a_list, None, None),
    ],
)
def test_a_broken_workspace_is_a_finding_with_what_mends_it(here, monkeypatch, break_it, subject, mend):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before = set(problems(here))
    break_it(here)
    found = problems(here)
    assert set(found) - before == ({subject} if subject else set())
    if mend:
        assert mend in found[subject].split(" | ")[1]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (break_pipeline_file, "dvc.yaml: 1 fault\n  is missing or damaged; run 'monai-tl init --refresh"),
        (damage_pipeline_file, "dvc.yaml: 1 fault\n  is missing or damaged; run 'monai-tl init --refresh"),
        (empty_pipeline_file, "plan.source: dvc.yaml was written for another choice; run 'monai-tl init --refresh"),
        (damage_params, "params.yaml: 1 fault\n  byte 8 is no UTF-8"),
        (replace_params_by_a_folder, "params.yaml: 1 fault\n  cannot be read: Is a directory"),
        (damage_version, "names another version"),
    ],
)
def test_run_refuses_a_broken_workspace_in_words(here, break_it, words):
    break_it(here)
    with pytest.raises(ConfigError) as caught:
        run.run(here)
    assert words in str(caught.value)


def test_doctor_knows_the_broken_pins(monkeypatch, tmp_path):
    from importlib import metadata

    newest = {"fastapi": "0.165.0", "sqlalchemy": "2.1.9"}
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: newest.get(name) or real(name))
    found = problems(tmp_path)
    assert "does not start" in found["fastapi"]
    assert "never fire" in found["sqlalchemy"]


def test_sections_left_out_are_named(here):
    content = yaml.safe_load((here / "params.yaml").read_text())
    del content["split"], content["finetune"]["folds"]
    (here / "params.yaml").write_text(yaml.safe_dump(content))
    load_params(here)  # valid with defaults, but DVC reads the file
    with pytest.raises(ConfigError) as caught:
        check_sections(here)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["split", "finetune.folds"]


@pytest.mark.parametrize(
    ("source", "beside"),
    [
        ("sources/mini.zip", ["sources/mini.card.yaml"]),
        ("sources/T__P__3d_fullres/fold_0", [f"sources/T__P__3d_fullres/{n}.json" for n in ("plans", "dataset")]),
        ("sources/other/card.yaml", ["sources/other"]),
    ],
)
def test_what_lies_beside_a_source_and_decides_about_it_is_a_dependency(here, source, beside):
    """A line added to NAME.card.yaml changes the contract, and DVC must not call the old plan fresh."""
    (here / source).parent.mkdir(parents=True)
    if source.endswith("fold_0"):
        (here / source).mkdir()
    else:
        (here / source).write_text("input: {orientation: LPS}\n")
    text = (here / "params.yaml").read_text()
    (here / "params.yaml").write_text(text.replace("source: sources/pretrained", f"source: {source}"))
    for name in beside:
        if not (here / name).exists():
            (here / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"beside it .* decides about it.*init --refresh"):
        check_sections(here)
    init.run(here, refresh=True, console=QUIET)
    check_sections(here)
    stages = yaml.safe_load((here / "dvc.yaml").read_text())["stages"]
    for stage in ("plan", "finetune"):
        assert set(beside) <= set(stages[stage]["deps"])
    assert not set(beside) & set(stages["ingest"]["deps"])


def test_a_pipeline_file_that_misses_the_source_is_a_fault(here):
    text = (here / "params.yaml").read_text()
    without = text.replace("source: sources/pretrained", "source: null\n  network: {name: unet}")
    (here / "params.yaml").write_text(without.replace("[transfer, scratch]", "[scratch]"))
    with pytest.raises(ConfigError, match="init --refresh"):
        check_sections(here)
    init.run(here, refresh=True, console=QUIET)
    check_sections(here)
    (here / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match="init --refresh"):
        check_sections(here)
