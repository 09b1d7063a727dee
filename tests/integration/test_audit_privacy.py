"""The membership audit finds members of an overfitted network, and nobody where there is nobody to find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from remembered import case_name, make_params, write_cases, write_split
from typer.testing import CliRunner

from monai_tl.cli import app
from monai_tl.commands import audit_privacy
from monai_tl.commands.audit_references import Losses, half_patients
from monai_tl.config import Params
from monai_tl.errors import ConfigError, DataError
from monai_tl.fast_records import FAST_FILE, FastRecord
from monai_tl.privacy_records import Attack, ModelAudit, PrivacyAudit
from monai_tl.progress import Progress
from monai_tl.records import Split
from monai_tl.sources.bundle import write_bundle
from monai_tl.sources.card import read_source
from monai_tl.sources.privacy_text import describe_privacy
from monai_tl.stages import finetune
from monai_tl.stages.export import privacy_section

MEMBERS, HELD, TEST = range(8), range(8, 16), range(16, 28)


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds that swap members and validation cases, each known by heart; twelve test cases."""
    workspace = write_cases(tmp_path_factory.mktemp("remembered"), 28)
    write_split(workspace, TEST, (MEMBERS, HELD), (HELD, MEMBERS))
    for fold in ("0", "1"):
        finetune.run(workspace, make_params(2), "scratch", fold, "0")
    return workspace


@pytest.fixture(scope="module")
def audit(overfitted: Path) -> PrivacyAudit:
    return audit_privacy.run(overfitted, make_params(2))


def _attacks(model: ModelAudit) -> dict[str, Attack]:
    return {attack.name: attack for attack in model.attacks}


def test_members_of_an_overfitted_network_are_found(audit: PrivacyAudit, overfitted: Path) -> None:
    assert [one.model for one in audit.models] == ["scratch-0-0", "scratch-1-0"]
    for model in audit.models:
        loss, ratio = _attacks(model)["loss"], _attacks(model)["likelihood_ratio"]
        assert loss.auc.value > 0.95
        assert loss.auc.low > 0.75
        assert loss.true_positive_rate.value > 0.7
        assert (loss.n_members, loss.n_others) == (8, 12)
        # the other fold never saw these members; nor the test cases
        assert ratio.auc.value > 0.95
        assert (ratio.n_references, ratio.has_members_in_references) == (1.0, False)
        assert model.guarantee is None
        assert model.others == "test"
        folder = overfitted / "artifacts/models" / model.model
        assert model.weights_sha256 == read_source(folder).card.weights.sha256


def test_nobody_is_found_among_patients_of_whom_none_was_trained_on(overfitted: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(overfitted, tmp_path / "w"))
    # fold 0 was trained on 0 to 7; these two sides are both strangers to it
    write_split(workspace, range(18, 28), (range(8, 18), range(2)))
    (model,) = audit_privacy.run(workspace, make_params(1)).models
    loss = _attacks(model)["loss"]
    # ten against ten: two standard deviations of an AUC of chance are 0.26
    assert abs(loss.auc.value - 0.5) < 0.27
    assert loss.auc.low < 0.5 < loss.auc.high
    assert list(_attacks(model)) == ["loss"]
    assert any("No calibrated attack" in note for note in model.notes)


def test_what_few_patients_cannot_show_is_said(audit: PrivacyAudit) -> None:
    (attack, *_), notes = audit.models[0].attacks, " ".join(audit.models[0].notes)
    assert attack.finest_rate == pytest.approx(1 / 12, abs=1e-6)
    assert attack.rate_bound == pytest.approx(1 - 0.05 ** (1 / 12), abs=1e-6)
    assert "cannot be seen with 12 patients" in notes
    assert "22.1%" in notes


def test_the_file_holds_numbers_and_no_case(audit: PrivacyAudit, overfitted: Path) -> None:
    path = overfitted / "reports/privacy.json"
    assert PrivacyAudit.read(path) == audit
    text = path.read_text()
    assert case_name(0) not in text
    assert "patient-" not in text
    assert json.loads(text)["false_positive_rate"] == 0.01


def test_the_card_says_it(audit: PrivacyAudit) -> None:
    text = describe_privacy(None, audit.models[0])
    assert text.startswith("## Privacy\n\nTrained without differential privacy")
    assert f"AUC {audit.models[0].attacks[0].auc.value:.3f} (" in text
    assert "8 patients trained on, 12 of test" in text
    assert "No attack was tried" in describe_privacy(None, None)


def test_halves_put_each_patient_in_and_out_equally_often() -> None:
    patients = [f"p{index}" for index in range(9)]
    halves = half_patients(patients, 6, seed=3)
    assert len(halves) == 6
    assert {patient: sum(patient in half for half in halves) for patient in patients} == dict.fromkeys(patients, 3)
    assert len(set(halves)) == 6


@pytest.mark.parametrize("is_within", [True, False])
def test_a_model_s_own_fast_mode_does_not_tell_it_from_the_references(
    overfitted: Path, tmp_path: Path, is_within: bool
) -> None:
    """These have no trial of it; another number format alone would show who was trained on."""
    params = make_params(2)
    params = params.model_copy(update={"predict": params.predict.model_copy(update={"mode": "fast"})})
    model = shutil.copytree(overfitted / "artifacts/models/scratch-0-0", tmp_path / "model")
    (model / FAST_FILE).unlink(missing_ok=True)
    cases = [case_name(index) for index in range(4)]

    def losses() -> dict[str, float]:
        return Losses(overfitted / "artifacts/prepared", params, Progress("test")).of(model, cases)

    without = losses()
    FastRecord(windows="exact", precision="float32", n_cases=8, is_within=is_within).write(model / FAST_FILE)
    assert losses() == without


def test_references_trained_for_the_attack_are_kept_and_used_again(
    overfitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Path(shutil.copytree(overfitted, tmp_path / "w"))
    split = Split.read(workspace / "artifacts/split/split.json")
    split.model_copy(update={"folds": split.folds[:1]}).write(workspace / "artifacts/split/split.json")
    # shorter than the network attacked, which is known by heart: a weaker reference is one all the same
    params = make_params(1, max_steps=50)
    (model,) = audit_privacy.run(workspace, params, n_references=4).models
    ratio = _attacks(model)["likelihood_ratio"]
    assert (ratio.n_references, ratio.has_members_in_references) == (4.0, True)
    assert ratio.auc.value > 0.95
    assert not list((workspace / ".monai_tl/privacy/models").iterdir())
    # nothing is trained a second time
    monkeypatch.setattr("monai_tl.commands.audit_references.finetune", None)
    assert audit_privacy.run(workspace, params, n_references=4).models == (model,)


def test_what_cannot_be_audited_is_refused(overfitted: Path, tmp_path: Path) -> None:
    params = make_params(2)
    with pytest.raises(ConfigError, match=r"--arm: 'transfer' is none of finetune\.arms"):
        audit_privacy.run(overfitted, params, ["transfer"])
    with pytest.raises(ConfigError, match="must be even"):
        audit_privacy.run(overfitted, params, n_references=3)
    workspace = Path(shutil.copytree(overfitted, tmp_path / "w"))
    write_split(workspace, range(0), (MEMBERS, HELD), (HELD, MEMBERS))
    with pytest.raises(DataError, match="there are 0 to hold against them"):
        audit_privacy.run(workspace, params)
    (workspace / "artifacts/models/scratch-0-0/training.json").write_text("[]")
    with pytest.raises(DataError, match="no readable"):
        audit_privacy.run(workspace, params)


def test_the_card_of_the_bundle_takes_the_audit_of_its_own_weights_and_no_other(
    audit: PrivacyAudit, overfitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Path(shutil.copytree(overfitted, tmp_path / "w"))
    audit.write(workspace / "reports/privacy.json")
    model, other = (workspace / f"artifacts/models/scratch-{fold}-0" for fold in (0, 1))
    given = {
        "ingest": make_params().ingest,
        "plan": make_params().plan,
        "export": {"privacy_audit": "reports/privacy.json"},
    }
    params = Params.model_validate(given)
    write_bundle(model, tmp_path / "bundle", privacy=privacy_section(workspace, params, model, 2, Progress("export")))
    text = (tmp_path / "bundle/docs/README.md").read_text()
    assert describe_privacy(None, audit.models[0]) in text
    # trained anew, the old audit says nothing of it
    shutil.copyfile(other / "weights.safetensors", model / "weights.safetensors")
    shutil.copyfile(other / "card.yaml", model / "card.yaml")
    PrivacyAudit(**{**dict(audit), "models": audit.models[:1]}).write(workspace / "reports/privacy.json")
    assert "No attack was tried" in privacy_section(workspace, params, model, 2, Progress("export"))
    assert "other weights" in "".join(capsys.readouterr())
    # and where none is asked for, none is looked for
    (workspace / "reports/privacy.json").unlink()
    plain = params.model_copy(update={"export": params.export.model_copy(update={"privacy_audit": None})})
    assert "No attack was tried" in privacy_section(workspace, plain, model, 2, Progress("export"))
    with pytest.raises(DataError, match=r"privacy\.json is missing"):
        privacy_section(workspace, params, model, 2, Progress("export"))


def test_the_command_prints_the_numbers(overfitted: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(overfitted, tmp_path / "w"))
    (workspace / "params.yaml").write_text(yaml.safe_dump(make_params(2).model_dump(mode="json")))
    done = CliRunner().invoke(app, ["audit-privacy", "--workspace", str(workspace)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "scratch-0-0 (no differential privacy)" in lines
    assert any(line.startswith("  by loss alone: AUC 1.000 (") for line in lines)
    assert any("calibrated likelihood ratio, against 1 networks not trained on the case: AUC" in line for line in lines)
    assert (workspace / "reports/privacy.json").is_file()
