"""Forgetting on balls: a source that finds them, tuned gently and ruthlessly, on balls that nobody saw."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from balls import make_arrays, make_config, make_plan, train_scratch, write_workspace
from torch import nn

from monai_tl.commands import forgetting
from monai_tl.config import PredictConfig
from monai_tl.dataset.manifest import Manifest
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import ConfigError, ContractError, DataError
from monai_tl.inference import load_models
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.groups import assign_groups, named_tensors
from monai_tl.records import CaseRecord, Dataset, Plan, Split
from monai_tl.sources.audit import load_trained
from monai_tl.sources.card import read_source, write_source
from monai_tl.sources.ensemble import InferenceSettings, write_ensemble
from monai_tl.sources.grafting import WithBackground, grafted_network, source_network
from monai_tl.stages.finetune import finetune
from monai_tl.stages.forgetting import check_held_set, task_scheme

N_HELD = 6


def held_ball(number: int) -> tuple[np.ndarray, np.ndarray]:
    image, label = make_arrays(100 + number)
    return image[0], label


def write_held_set(folder: Path, values: tuple[int, ...] = (1,)) -> Path:
    """Balls in Decathlon layout, in the HU that the source's window turns back into its input."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for number in range(N_HELD):
        image, label = held_ball(number)
        hu = (image * 400.0 - 100.0).astype(np.float32)
        drawn = np.where(label, values[number % len(values)], 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(hu, affine), folder / f"imagesTr/ball_{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(drawn, affine), folder / f"labelsTr/ball_{number}.nii.gz")
    pairs = [{"image": f"./imagesTr/ball_{n}.nii.gz", "label": f"./labelsTr/ball_{n}.nii.gz"} for n in range(N_HELD)]
    text = {"name": "balls", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "ball"}, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps({**text, "test": []}))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``source`` (finds balls), ``held`` and ``key``; and three models tuned from it for what is *not* a ball:
    ``frozen`` and ``ruthless`` call it "outside", ``renamed`` calls it "ball"."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_TL_EXECUTOR", "sequential")
        train_scratch(write_workspace(folder / "first"), max_steps=60).rename(folder / "source")
        write_held_set(folder / "held")
        create_key(folder / "key", seed=0)
        tune(folder, "frozen", "outside", strategy="feature_extraction")
        tune(folder, "ruthless", "outside", strategy="full", learning_rate=0.1)
        tune(folder, "renamed", "ball", strategy="full", learning_rate=0.1)
        yield folder


def tune(folder: Path, name: str, class_name: str, **settings: object) -> None:
    scheme = LabelScheme(classes=(ClassSpec(name=class_name),))
    plan = make_plan(source="source").model_copy(update={"scheme": scheme})
    workspace = write_workspace(folder / f"work-{name}", plan)
    for path in workspace.glob("artifacts/prepared/*/label.npy"):
        np.save(path, 1 - np.load(path))
    fold = Split.read(workspace / "artifacts/split/split.json").folds[0]
    config = make_config(**settings, max_steps=25, head_steps=0, validate_every=25)
    finetune(workspace, plan, fold, config, read_source(folder / "source"), "transfer", 0)
    settings = InferenceSettings(predict=PredictConfig(n_threads=1))
    write_ensemble(folder / name, [workspace / "artifacts/models/transfer-0-0"], settings)


def measure(place: Path, model: str, tmp_path: Path, **options: Path) -> tuple[dict, str]:
    out = tmp_path / "forgetting.json"
    given = {"data": place / "held", **options}
    text = forgetting.run(place / model, place / "source", out=out, key_file=place / "key", **given)
    return json.loads(out.read_text()), text


def naive_dice(predictor_folder: Path) -> list[float]:
    """Dice of the source on the held balls, without ingest, files, planning or grafting."""
    predictor, dices = load_models([predictor_folder], 1), []
    for number in range(N_HELD):
        image, label = held_ball(number)
        found = predictor.predict_probabilities(image[None].astype(np.float32), 0.5).argmax(0)
        dices.append(2 * (found * label).sum() / (found.sum() + label.sum()))
    return dices


def test_a_frozen_body_forgets_nothing_at_all(place: Path, tmp_path: Path) -> None:
    found, text = measure(place, "frozen", tmp_path)
    (change,) = found["changes"]
    assert change["before"] == pytest.approx(np.mean(naive_dice(place / "source")), abs=0.005)
    assert change["before"] > 0.85
    assert (change["difference"], change["low"], change["high"]) == (0.0, 0.0, 0.0)
    assert change["after"] == change["before"]
    assert (change["n_cases"], change["n_patients"], found["n_failed"]) == (N_HELD, N_HELD, 0)
    assert "Nothing was forgotten" in text


def test_a_ruthless_rate_forgets_and_the_interval_says_so(place: Path, tmp_path: Path) -> None:
    found, text = measure(place, "ruthless", tmp_path)
    (change,) = found["changes"]
    assert change["head"] == "source"
    assert change["after"] < change["before"] - 0.2
    assert change["high"] < 0
    assert change["difference"] == pytest.approx(change["after"] - change["before"])
    assert text.startswith("Forgotten: mean Dice on the source's task 0.")


def test_a_class_that_both_name_is_measured_with_the_tuned_head_too(place: Path, tmp_path: Path) -> None:
    """The tuned head calls everything but balls a ball, so on balls it has nothing right."""
    found, text = measure(place, "renamed", tmp_path)
    assert [change["head"] for change in found["changes"]] == ["source", "own"]
    own = found["changes"][1]
    assert own["after"] == pytest.approx(np.mean(naive_dice(place / "renamed/transfer-0-0")), abs=0.01)
    assert own["after"] < 0.1
    assert "the tuned head, ball" in text


def test_a_graft_is_the_tuned_body_and_the_source_s_head_tensor_by_tensor(place: Path) -> None:
    source = read_source(place / "source")
    graft = grafted_network(source, place / "ruthless/transfer-0-0")
    groups = groups_of(source.card.network.config, graft)
    assigned = assign_groups(graft, groups)
    own, tuned = named_tensors(source_network(source)), named_tensors(load_trained(place / "ruthless/transfer-0-0")[0])
    n_changed = 0
    for name, tensor in named_tensors(graft).items():
        expected = own if assigned[name] == groups[-1].name else tuned
        assert torch.equal(tensor, expected[name]), name
        n_changed += not torch.equal(tensor, own[name])
    assert n_changed > 0


@pytest.mark.parametrize(("name", "value"), [("channels", [5, 9]), ("act", "tanh")])
def test_a_body_of_another_network_is_refused(place: Path, tmp_path: Path, name: str, value: object) -> None:
    """By shapes alone a function that was never trained would be judged: tanh and what the source has fit alike."""
    plan = make_plan()
    network = plan.network.model_copy(update={"arguments": {**plan.network.arguments, name: value}})
    other = train_scratch(write_workspace(tmp_path, plan.model_copy(update={"network": network})), max_steps=5)
    with pytest.raises(ContractError, match=rf"scratch-0-0 was tuned in another network than .* states \({name};"):
        grafted_network(read_source(place / "source"), other)


def test_a_body_of_other_channels_is_refused(place: Path, tmp_path: Path) -> None:
    source = read_source(place / "source")
    stated = source.card.network.model_copy(update={"n_channels": 2})
    module = build_network(stated.config, 2, stated.n_outputs, seed=0)
    card = source.card.model_copy(
        update={"network": stated, "input": source.card.input.model_copy(update={"channels": ("CT", "CT")})}
    )
    write_source(tmp_path / "two", card, named_tensors(module))
    with pytest.raises(ContractError, match=r"the body of .* is not that of"):
        grafted_network(source, tmp_path / "two")


def test_label_values_come_from_the_classes_given(place: Path, tmp_path: Path) -> None:
    """A set whose balls are drawn as 4 and 7: with its classes told it scores as the other."""
    data = write_held_set(tmp_path / "held", values=(4, 7))
    (tmp_path / "classes.yaml").write_text("classes:\n  - {name: Ball, values: [4, 7]}\n")
    found, _ = measure(place, "frozen", tmp_path, data=data, classes=tmp_path / "classes.yaml")
    plain, _ = measure(place, "frozen", tmp_path)
    assert found["changes"][0]["before"] == plain["changes"][0]["before"]
    with pytest.raises(DataError, match="no case of the set to measure forgetting on has a label"):
        measure(place, "frozen", tmp_path, data=data)
    with pytest.raises(ConfigError, match=r"source_classes: liver is no class of .*; it has ball"):
        task_scheme(read_source(place / "source").card, (ClassSpec(name="ball"), ClassSpec(name="liver")))


def test_a_class_that_no_case_of_the_set_holds_is_refused_and_not_scored_as_forgotten(
    place: Path, tmp_path: Path
) -> None:
    """A class may have another name in the set: then nothing is drawn under it, and every Dice would be 0."""
    held = read_source(place / "source").card
    scheme = LabelScheme(classes=(ClassSpec(name="ball"), ClassSpec(name="outside")))
    cases = [case_with({"ball": 0, "outside": 5}), case_with({"ball": 0, "outside": 0}), case_with({}, has_label=False)]
    dataset = Dataset(modality="CT", n_channels=1, scheme=scheme, key_id="0" * 12, case_ids=())
    with pytest.raises(DataError, match=r"no case of it has ball\b.*source_classes"):
        check_held_set(Manifest(tmp_path, dataset, tuple(cases)), held)
    cases.append(case_with({"ball": 3, "outside": 0}))
    check_held_set(Manifest(tmp_path, dataset, tuple(cases)), held)


def case_with(class_voxels: dict[str, int], has_label: bool = True) -> CaseRecord:
    return CaseRecord.model_construct(class_voxels=class_voxels, has_label=has_label)


def test_sigmoid_and_a_background_of_zero_are_one() -> None:
    class Two(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image

    logits = torch.linspace(-3, 3, 2 * 27).reshape(1, 2, 3, 3, 3)
    one = WithBackground(Two())(logits[:, :1]).softmax(1)
    assert torch.allclose(one[:, 1], logits[:, 0].sigmoid())
    both = WithBackground(Two())(logits).argmax(1)
    likely = logits.sigmoid()
    expected = torch.where(likely.amax(1) > 0.5, 1 + likely.argmax(1), 0)
    assert torch.equal(both, expected)


def test_the_plan_of_the_tuned_model_does_not_decide_the_source_s_input(place: Path) -> None:
    from monai_tl.stages.forgetting import plan_of_source

    source = read_source(place / "source")
    tuned = Plan.read(place / "frozen/transfer-0-0/plan.json").model_copy(
        update={"spacing_mm": (1.0, 1.0, 3.0), "orientation": "LPS", "patch_size_vox": (3, 3, 3), "foreground": "above"}
    )
    plan = plan_of_source(source, tuned)
    assert (plan.spacing_mm, plan.orientation, plan.intensity) == (
        source.card.input.spacing_mm, source.card.input.orientation, source.card.input.intensity,
    )  # fmt: skip
    assert plan.patch_size_vox == (4, 4, 4)
