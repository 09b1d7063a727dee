"""Row 5: what a data set of volumes says of its patients does not go on into what the first stage writes.

The whole run is searched in test_whole_run.py (long); there the images must be CT, since its source is.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from canaries import Canaries
from decoded_search import found_in
from talking_volumes import N_CASES, write_talking_volumes

from monai_tl.config import Params
from monai_tl.dicom.deidentify import create_key
from monai_tl.stages import ingest


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_no_word_of_the_data_set_is_in_the_cases(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    planted = Canaries()
    write_talking_volumes(tmp_path / "data", planted, modality="")
    if layout == "nnunet":
        _list_as_nnunet(tmp_path / "data/dataset.json")
    create_key(tmp_path / "secret.key", seed=0)
    source = {"source": "data", "key_file": str(tmp_path / "secret.key"), "classes": [{"name": "liver"}]}
    plan = {"source": None, "network": {"name": "unet", "arguments": {}}}
    ingest.run(tmp_path, Params.model_validate({"ingest": source, "plan": plan, "finetune": {"arms": ["scratch"]}}))
    words = tuple(planted.texts.values())
    assert found_in(tmp_path / "artifacts", words) == []
    dataset = json.loads((tmp_path / "artifacts/cases/dataset.json").read_text())
    assert (len(dataset["case_ids"]), dataset["modality"]) == (N_CASES, "OT")
    seen = {one.split(" in ")[0] for one in found_in(tmp_path / "data", words)}
    assert {text for place, text in planted.texts.items() if "of the data set" in place} <= seen


def _list_as_nnunet(path: Path) -> None:
    content = json.loads(path.read_text())
    pairs = content.pop("training")
    listed = {one["image"][11:-7]: {"images": [one["image"]], "label": one["label"]} for one in pairs}
    path.write_text(json.dumps({**content, "dataset": listed}))
