"""params.yaml: all faults at once, with key paths."""

from pathlib import Path

import pytest
import yaml

from monai_tl.config import Params, load_params, parse_params
from monai_tl.errors import ConfigError
from monai_tl.stages import STAGE_NAMES

ROOT = Path(__file__).parents[2]


def good() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def test_demo_parameters_are_valid_and_every_section_is_a_stage():
    params = load_params(ROOT)
    assert tuple(Params.model_fields) == STAGE_NAMES
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
        ("finetune", {"arms": ["transfer", "transfer"]}, "once each"),
        ("finetune", {"head_steps": 500}, "head_steps"),
        ("plan", {"source": None}, "network"),
        ("plan", {"source": None, "network": {"name": "unet"}}, "transfer"),
        ("plan", {"intensity": {"rule": "window", "low": 3.0, "high": 1.0}}, "low < high"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(section, changes, words):
    content = good()
    content[section] |= changes
    with pytest.raises(ConfigError, match=words):
        parse_params(content)


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


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="monai-tl init"):
        load_params(tmp_path)
