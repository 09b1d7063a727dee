"""``monai-tl rank`` on balls: a source that learnt the task, the same weights shuffled, and a fresh network."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rankable import write_fresh, write_rankable, write_shuffled, write_trained
from rich.console import Console

from monai_tl.commands import rank
from monai_tl.config import Params
from monai_tl.errors import ConfigError, DataError, SourceError
from monai_tl.records import Split
from monai_tl.report.ranking import ranking_page, ranking_table
from monai_tl.sources.card import read_source, write_source
from monai_tl.sources.weights import load_state
from monai_tl.transfer.rank import SCORES, Ranking

ROOT = Path(__file__).parents[2]
SETTINGS = {"n_cases": 12, "steps": 8}


class Place:
    """A workspace, its parameters and sources."""

    def __init__(self, folder: Path) -> None:
        trained = write_trained(folder / "training", n_steps=40)
        self.sources = folder / "sources"
        shutil.copytree(trained, self.sources / "trained")
        write_shuffled(self.sources / "shuffled", trained)
        write_fresh(self.sources / "fresh", trained)
        card = read_source(trained).card
        other = card.model_copy(update={"input": card.input.model_copy(update={"modality": "MR", "channels": ("T1",)})})
        write_source(self.sources / "magnetic", other, load_state(trained / card.weights.file, None).tensors)
        self.workspace = folder / "workspace"
        self.params: Params = write_rankable(self.workspace)
        split = Split.read(self.workspace / "artifacts/split/split.json")
        self.test = split.test
        # whoever opens a test case fails
        for case_id in split.test:
            (self.workspace / "artifacts/cases" / case_id / "image.nii.gz").write_bytes(b"not to be read")
            (self.workspace / "artifacts/cases" / case_id / "label.nii.gz").write_bytes(b"not to be read")

    def rank(self, *names: str, **changes: object) -> Ranking:
        settings = {**SETTINGS, **changes}
        return rank.run([self.sources / name for name in names], self.workspace, self.params, **settings)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("rank"))


@pytest.fixture(scope="module")
def ranking(place: Place) -> Ranking:
    return place.rank("shuffled", "fresh", "trained", "absent", "magnetic")


def test_what_learnt_the_task_is_first_in_the_probe_and_in_every_score(ranking: Ranking) -> None:
    assert ranking.sources[0].name == "trained"
    assert {source.name for source in ranking.sources[1:]} == {"shuffled", "fresh"}
    best = ranking.sources[0]
    for score in SCORES:
        assert all(best.scores[score] > other.scores[score] for other in ranking.sources[1:])
    assert best.probe is not None
    assert best.probe.mean > 0.8
    assert best.gain is not None
    assert best.gain.decided
    assert best.gain.mean > 0.2
    assert all(other.gain is None or not other.gain.decided or other.gain.mean < 0 for other in ranking.sources[1:])
    assert any(line.startswith("Better in the probe") and "trained" in line for line in ranking.findings)


def test_the_others_are_listed_with_their_reason_and_no_place(place: Place, ranking: Ranking) -> None:
    reasons = {one.name: one.reason for one in ranking.refused}
    assert set(reasons) == {"absent", "magnetic"}
    assert "absent is no source" in reasons["absent"]
    assert "modality" in reasons["magnetic"]
    folder = place.workspace / "reports/rank"
    written = (folder / "rank.json").read_text() + (folder / "rank.md").read_text()
    assert Ranking.model_validate_json((folder / "rank.json").read_text()) == ranking
    assert str(place.sources.parent) not in written
    assert not re.search(r"case-[0-9a-f]|patient-[0-9a-f]|/tmp|/home", written)


def test_a_table_fits_a_terminal_of_80_columns_and_cuts_no_word(ranking: Ranking) -> None:
    text = io.StringIO()
    sources = tuple(one.model_copy(update={"name": f"abdomen_{one.name}"}) for one in ranking.sources)
    Console(file=text, width=80).print(ranking_table(ranking.model_copy(update={"sources": sources})))
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("Source", "probe", "minus", *SCORES, "Contract", *(one.name for one in sources)):
        assert word in shown
    best = ranking.sources[0]
    assert f"{best.probe.mean:.3f}" in shown
    assert f"({best.gain.low:+.2f} to {best.gain.high:+.2f})" in shown
    assert f"| {best.probe.mean:.3f} ({best.probe.low:.3f} to {best.probe.high:.3f}) |" in ranking_page(ranking)


def test_a_model_of_this_workspace_is_named_as_one_that_knows_the_cases(place: Place, ranking: Ranking) -> None:
    assert not any("Trained in this workspace" in line for line in ranking.findings)
    own = place.workspace / "artifacts/models/own"
    shutil.copytree(place.sources / "trained", own)
    try:
        found = rank.run([own, place.sources / "fresh"], place.workspace, place.params, **SETTINGS)
    finally:
        shutil.rmtree(own)
    (line,) = [line for line in found.findings if "Trained in this workspace" in line]
    assert ": own." in line


def test_training_cases_alone_are_looked_at_and_halved_by_patient(ranking: Ranking) -> None:
    conditions = ranking.conditions
    assert conditions.n_cases == 12
    assert (conditions.n_train_cases, conditions.n_val_cases, conditions.n_val_patients) == (6, 6, 6)
    assert conditions.seeds == (0, 1, 2)


def test_a_second_run_computes_nothing_and_says_the_same(
    place: Place, ranking: Ranking, capsys: pytest.CaptureFixture[str]
) -> None:
    again = place.rank("shuffled", "fresh", "trained", "absent", "magnetic")
    assert again == ranking
    assert capsys.readouterr().out == ""
    # neither arrays nor models stay behind
    state = place.workspace / ".monai_tl/rank"
    assert [path.suffix for path in state.iterdir()] == [".json"] * len(list(state.iterdir()))


def test_a_new_source_costs_its_own_probe_alone(
    place: Place, ranking: Ranking, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place.sources / "shuffled", place.sources / "again")
    renamed = place.rank("trained", "again")
    # the same weights under another name are known already
    assert capsys.readouterr().out == ""
    by_name = {source.name: source for source in ranking.sources}
    assert renamed.sources[1].probe == by_name["shuffled"].probe
    write_shuffled(place.sources / "again", place.sources / "trained", seed=5)
    place.rank("trained", "again", n_seeds=1)
    shown = capsys.readouterr().out
    assert "finetune transfer-0-0: " in shown
    assert "finetune scratch-0-0: " not in shown


def test_a_changed_weights_file_is_not_answered_from_memory(place: Place, ranking: Ranking) -> None:
    assert ranking.sources[0].name == "trained"
    shutil.copytree(place.sources / "trained", place.sources / "changed")
    path = place.sources / "changed" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    found = place.rank("fresh", "changed")
    assert [one.name for one in found.refused] == ["changed"]
    assert "sha256" in found.refused[0].reason


def test_scores_alone_say_that_they_are_unreliable(place: Place, ranking: Ranking, tmp_path: Path) -> None:
    found = place.rank("fresh", "trained", "shuffled", steps=0, out=tmp_path / "scores.json")
    assert found.sources[0].name == "trained"
    assert found.sources[0].probe is None
    assert found.sources[0].scores == ranking.sources[0].scores
    assert "No score is known to tell reliably" in " ".join(found.findings)
    assert "probe |" not in (tmp_path / "scores.md").read_text()
    assert json.loads((tmp_path / "scores.json").read_text())["conditions"]["steps"] == 0


def test_faults_come_before_work(place: Place, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none of the sources[\s\S]*absent"):
        place.rank("absent", "magnetic")
    with pytest.raises(ConfigError, match=r"3 faults"):
        place.rank("trained", n_cases=1, steps=1, n_seeds=0)
    with pytest.raises(DataError, match=r"artifacts/cases is missing.*stage ingest"):
        rank.run([place.sources / "trained"], tmp_path, place.params)
    shutil.copytree(place.workspace / "artifacts/cases", tmp_path / "artifacts/cases")
    with pytest.raises(DataError, match=r"artifacts/split is missing.*stage split"):
        rank.run([place.sources / "trained"], tmp_path, place.params)


@pytest.mark.slow
def test_the_verb_prints_the_table_and_ends_well_if_one_could_be_ranked(place: Place, ranking: Ranking) -> None:
    assert ranking.sources
    command = [sys.executable, "-m", "monai_tl", "rank", "-w", str(place.workspace), "--no-probe", "--n-cases", "12"]
    done = subprocess.run(
        [*command, str(place.sources / "trained"), str(place.sources / "absent")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "LogME" in done.stdout
    assert "Not ranked: absent" in done.stdout
