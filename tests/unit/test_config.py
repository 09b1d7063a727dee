"""params.yaml: all faults at once, with key paths."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from monai_tl.config import CurveConfig, Params, load_params, parse_params
from monai_tl.errors import ConfigError
from monai_tl.faults import parse_yaml
from monai_tl.stages import STAGE_NAMES

ROOT = Path(__file__).parents[2]


def good() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def test_demo_parameters_are_valid_and_every_section_is_a_stage():
    params = load_params(ROOT)
    # the curve is a pipeline of its own, inbox and serve are none; no such section need be there
    assert tuple(Params.model_fields) == (*STAGE_NAMES, "curve", "inbox", "serve")
    assert params.curve is None
    assert set(good()) == set(STAGE_NAMES)
    assert params.ingest.scheme.names == ("liver", "tumour")


def test_every_fault_is_reported_with_its_key_path():
    content = good()
    content["finetune"]["max_steps"] = -3
    content["finetune"]["optimiser"] = "adam"
    content["split"]["n_folds"] = "many"
    del content["ingest"]["source"]
    content["ingest"]["classes"][0]["type"] = "Liver"
    with pytest.raises(ConfigError) as caught:
        parse_params(content)
    paths = {fault.split(":")[0] for fault in caught.value.faults}
    assert paths == {
        "finetune.max_steps",
        "finetune.optimiser",
        "split.n_folds",
        "ingest.source",
        "ingest.classes.0.type",
    }
    assert caught.value.exit_code == 2
    for path in paths:
        assert path in str(caught.value)


@pytest.mark.parametrize(
    ("section", "changes", "words"),
    [
        ("finetune", {"folds": [9]}, "n_folds"),
        ("finetune", {"arms": ["transfer", "transfer"]}, "finetune.arms: must be given once each"),
        ("finetune", {"folds": []}, "finetune.folds: must be given once each"),
        ("finetune", {"seeds": []}, "finetune.seeds: must be given once each"),
        ("finetune", {"seeds": [3, 3]}, "finetune.seeds: must be given once each"),
        ("finetune", {"seeds": [-1]}, "finetune.seeds"),
        ("finetune", {"seeds": [2**32]}, "finetune.seeds"),
        ("finetune", {"learning_rate": 0.0}, "finetune.learning_rate"),
        ("finetune", {"learning_rate": 2.0}, "finetune.learning_rate"),
        ("finetune", {"head_learning_rate": 1e9}, "finetune.head_learning_rate"),
        ("finetune", {"max_steps": 10**9}, "finetune.max_steps"),
        ("finetune", {"seed": 0}, "finetune.seed"),
        ("finetune", {"head_steps": 500}, "finetune.head_steps: .* max_steps, which is 150"),
        ("finetune", {"max_steps": 15}, "finetune.head_steps: is 15"),
        ("finetune", {"strategy": "gradual", "head_steps": 150}, "head_steps: is 150, but gradual needs it below"),
        ("finetune", {"strategy": "l2_sp", "l2_sp_weight": 200.0}, "at most 1 / learning_rate, which is 100"),
        ("finetune", {"strategy": "lora", "lora_rank": 0}, "finetune.lora_rank"),
        ("finetune", {"layer_decay": 1.5}, "finetune.layer_decay"),
        ("finetune", {"ema_decay": 1.0}, "finetune.ema_decay"),
        ("finetune", {"average_power": 2, "ema_decay": 0.9}, "finetune.average_power: and ema_decay are two kinds"),
        ("finetune", {"strategy": "scratch"}, r"finetune.strategy: .*set arms: \[scratch\]"),
        ("evaluate", {"source_classes": []}, "evaluate.source_classes"),
        ("evaluate", {"source_classes": [{"name": "a"}, {"name": "A"}]}, "evaluate.source_classes: .*each class needs"),
        ("plan", {"source": None}, "plan.network: is needed"),
        ("plan", {"source": None, "network": {"name": "unet"}}, "finetune.arms: has 'transfer'"),
        ("plan", {"intensity": {"rule": "window", "low": 3.0, "high": 1.0}}, "low < high"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(section, changes, words):
    content = good()
    content[section] |= changes
    with pytest.raises(ConfigError, match=words):
        parse_params(content)


def test_a_set_of_the_source_s_task_needs_an_arm_that_could_forget():
    content = good()
    content["evaluate"]["source_set"] = "held"
    assert parse_params(content).evaluate.source_set == "held"
    content["finetune"]["arms"] = ["scratch"]
    content["plan"]["network"] = {"name": "unet"}
    with pytest.raises(ConfigError, match=r"evaluate.source_set: is given, but so is plan.network"):
        parse_params(content)
    del content["plan"]["network"]
    with pytest.raises(ConfigError, match=r"evaluate.source_set: is given, but finetune.arms has no 'transfer'"):
        parse_params(content)


def test_scratch_alone_may_use_its_own_strategy():
    content = good()
    content["finetune"] |= {"arms": ["scratch"], "strategy": "scratch"}
    assert parse_params(content).finetune.strategy == "scratch"


def test_faults_of_every_kind_are_told_at_once():
    """Unknown keys, repeated values, what does not fit within a section and between sections: none hides another."""
    content = good()
    content["ingest"]["classes"] += [dict(content["ingest"]["classes"][0])]
    content["split"]["n_folds"] = 3
    content["finetune"] |= {
        "arms": ["scratch", "scratch"],
        "folds": [1, 1, 7],
        "max_steps": 10,
        "head_steps": 10,
        "x": 1,
    }
    content["predict"]["overlap"] = 1.0
    with pytest.raises(ConfigError) as caught:
        parse_params(content)
    paths = [fault.split(":")[0] for fault in caught.value.faults]
    assert set(paths) == {
        "ingest.classes",
        "finetune.arms",
        "finetune.folds",
        "finetune.head_steps",
        "finetune.x",
        "predict.overlap",
    }
    # one line for the name, one for each structure; folds are repeated, and one is too high
    assert paths.count("ingest.classes") == 3
    assert paths.count("finetune.folds") == 2


@pytest.mark.parametrize("section", ["split", "plan", "finetune"])
@pytest.mark.parametrize("content", [None, 3, [1], {"n_folds": None, "folds": None, "arms": 5, "source": []}])
def test_a_broken_section_is_a_fault_and_no_crash(section, content):
    with pytest.raises(ConfigError, match=section):
        parse_params(good() | {section: content})
    with pytest.raises(ConfigError, match="plan: is missing"):
        parse_params({"ingest": good()["ingest"]})


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ("finetune", "max_steps", "true"),
        ("finetune", "max_steps", "12.0"),
        ("finetune", "learning_rate", ".inf"),
        ("finetune", "learning_rate", "yes"),
        ("finetune", "folds", "[false]"),
        ("split", "seed", "on"),
        ("evaluate", "surface_tolerance_mm", ".nan"),
        ("evaluate", "class_tolerances_mm", "{liver: true}"),
        ("plan", "intensity", "{rule: window, low: .nan, high: .inf}"),
        ("plan", "intensity", "{rule: window, low: -.inf, high: 3.0}"),
        ("plan", "spacing_mm", "[1.0, true, 1.0]"),
    ],
)
def test_values_that_only_look_like_numbers_are_refused(section, key, text):
    content = good()
    content[section][key] = yaml.safe_load(text)
    with pytest.raises(ConfigError, match=rf"{section}\.{key}"):
        parse_params(content)


def test_a_rate_may_be_written_without_a_dot():
    # YAML takes 1e-3 for text
    content = good()
    content["finetune"]["learning_rate"] = yaml.safe_load("1e-3")
    assert parse_params(content).finetune.learning_rate == 0.001


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (({"values": [2]}, {}), "NIfTI value 2 belongs to classes 1 and 2"),
        (({"values": [1, 3]}, {"values": [3]}), "NIfTI value 3 belongs to classes 1 and 2"),
        (({}, {"values": [0]}), "class 2 .* 0 is background"),
        (({}, {"structures": [" LIVER "]}), "structure 'liver' belongs to classes 1 and 2"),
        (({"structures": ["tumour"]}, {"structures": []}), "structure 'tumour' belongs to classes 1 and 2"),
        (({}, {"name": "Liver"}), "name 'liver' is given to classes 1 and 2"),
        (({"name": "Background"}, {}), "class 1 is called 'background'"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(changes, words):
    content = good()
    for spec, change in zip(content["ingest"]["classes"], changes, strict=True):
        spec |= change
    with pytest.raises(ConfigError, match=f"ingest.classes: .*{words}"):
        parse_params(content)


def test_an_unknown_key_is_answered_with_the_nearest_or_with_all():
    content = good()
    content["finetune"]["max_step"] = 3
    content["split"]["zzz"] = 3
    content["ingest"]["classes"][0]["structure"] = []
    content["splits"] = {}
    with pytest.raises(ConfigError) as caught:
        parse_params(content)
    told = dict(fault.split(": ", 1) for fault in caught.value.faults)
    assert "'max_steps'" in told["finetune.max_step"]
    assert all(key in told["split.zzz"] for key in ("seed", "n_folds", "test_fraction", "n_train_cases"))
    assert "'structures'" in told["ingest.classes.0.structure"]
    assert "'split'" in told["splits"]


def test_parameters_are_frozen():
    params = load_params(ROOT)
    with pytest.raises(ValueError, match="frozen"):
        params.finetune.max_steps = 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ingest: [", "no valid YAML"),
        ("- a\n- b\n", "no mapping"),
        ("split:\n  seed: 1\n  seed: 2\n", "given twice"),
        ("ingest: !!python/object/apply:os.system ['true']\n", "no valid YAML"),
    ],
)
def test_broken_files_say_where(tmp_path, text, words):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_params(tmp_path)


def test_a_file_that_is_no_text_says_what_to_do(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"ingest: \xff\n")
    with pytest.raises(ConfigError, match="byte 8 is no UTF-8"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").unlink()
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        load_params(tmp_path)


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="monai-tl init"):
        load_params(tmp_path)


CURVE = {"labels": [4, "all"], "strategies": ["full", "scratch"], "seeds": [0], "steps": [50], "steps_labels": "all"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": []}, "curve.labels"),
        ({"labels": [4, 4, "all"]}, "curve.labels: must be given once each"),
        ({"labels": [0, "all"]}, "curve.labels.0"),
        ({"labels": ["some", "all"]}, "curve.labels.0"),
        ({"strategies": ["wish"]}, "curve.strategies.0"),
        ({"steps": []}, "curve.steps"),
        ({"steps": [50, 150]}, r"curve.steps: has \[150\], but a full budget is 150"),
        ({"steps": [50], "training": {"max_steps": 50}}, r"curve.steps: has \[50\], but a full budget is 50"),
        ({"steps_labels": 8}, "curve.steps_labels: must be one of curve.labels"),
        ({"seeds": [-1]}, "curve.seeds.0"),
        ({"training": {"val_fraction": 1.0}}, "curve.training.val_fraction"),
        ({"point": 3}, "curve.point"),
    ],
)
def test_faults_of_a_curve_are_told_with_their_key_path(changes, words):
    with pytest.raises(ConfigError, match=words):
        parse_params({**good(), "curve": CURVE | changes})


def test_a_curve_without_a_source_has_nothing_to_transfer():
    content = good()
    content["plan"] = {"source": None, "network": {"name": "unet"}}
    content["finetune"] |= {"arms": ["scratch"], "strategy": "scratch"}
    with pytest.raises(ConfigError, match=r"curve\.strategies: plan\.source is null"):
        parse_params({**content, "curve": CURVE})
    assert parse_params({**content, "curve": CURVE | {"strategies": ["scratch"]}}).curve.labels == (4, "all")


def test_a_class_may_have_a_tolerance_of_its_own_and_must_be_there():
    content = good()
    name = content["ingest"]["classes"][0]["name"]
    content["evaluate"] = {"surface_tolerance_mm": 2, "class_tolerances_mm": {name: 0.5}}
    settings = parse_params(content).evaluate
    assert settings.tolerances_mm([name, "another"]) == (0.5, 2.0)
    assert settings.tolerance_words == f"2 mm ({name} 0.5 mm)"
    for wrong, words in (({"spleeen": 1.0}, "'spleeen' is none of ingest.classes"), ({name: 0.0}, "greater than 0")):
        content["evaluate"]["class_tolerances_mm"] = wrong
        with pytest.raises(ConfigError, match=f"evaluate.class_tolerances_mm.*{words}"):
            parse_params(content)


@pytest.mark.parametrize("level", ["[{}]", "{{b: [{}]}}"], ids=["lists", "mappings"])
def test_aliases_that_stand_for_more_than_anyone_writes_are_refused(level: str):
    lines = ["a0: &a0 {b: 1, c: 2}"]
    lines += [f"a{n}: &a{n} {level.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 7)]
    with pytest.raises(ConfigError, match=r"line 5: no valid YAML: aliases stand for more than 20000"):
        parse_yaml("\n".join(lines), "card.yaml")


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: [1, *a]}", "&a {*a : 1}"])
def test_an_anchor_that_holds_itself_is_refused(text: str):
    with pytest.raises(ConfigError, match="no valid YAML"):
        parse_yaml(text, "card.yaml")


def test_aliases_of_a_size_are_read():
    text = "a: &a {b: 1, c: &c [1, 2]}\ne: [*a, *c, *c]"
    assert parse_yaml(text, "card.yaml") == {"a": {"b": 1, "c": [1, 2]}, "e": [{"b": 1, "c": [1, 2]}, [1, 2], [1, 2]]}


def test_as_many_values_as_one_likes_are_read_without_aliases():
    assert parse_yaml(f"[{', '.join('1' * 21_000)}]", "labels.yaml") == [1] * 21_000


def test_seeds_of_the_curve_have_the_bound_of_all_seeds() -> None:
    content = {"labels": [4], "strategies": ["scratch"], "steps": [10], "steps_labels": 4}
    CurveConfig.model_validate({**content, "seeds": [2**32 - 1]})
    with pytest.raises(ValidationError, match="seeds"):
        CurveConfig.model_validate({**content, "seeds": [2**32]})
