"""The test set's use is counted: once for each set of models, case by case, and never forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monai_tl.config import PredictConfig
from monai_tl.errors import DataError
from monai_tl.looks import LOOKS_FILE, bring_looks, read_looks, record_look
from monai_tl.records import CaseRecord, Provenance


def case(name: str, image: str = "", label: str = "x") -> CaseRecord:
    return CaseRecord(
        case_id=name,
        patient_key="patient-x",
        site="a",
        modality="CT",
        has_label=True,
        spacing_mm=(1.0, 1.0, 1.0),
        spatial_shape=(2, 2, 2),
        affine=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
        provenance=Provenance(
            kind="nifti", study="s", series="s", input_sha256=f"{name}{label}", image_sha256=image or f"image of {name}"
        ),
    )


CASES = [case("case-a"), case("case-b")]


def look(workspace: Path, models: dict[str, str] | str, cases: Sequence[CaseRecord] = CASES, **predict: object) -> int:
    """Number of the look that the stage evaluate makes."""
    given = {"m": models} if isinstance(models, str) else models
    return record_look(workspace, cases, given, PredictConfig.model_validate(predict), "evaluate").number


def test_each_set_of_models_is_one_look(tmp_path: Path) -> None:
    assert look(tmp_path, {"transfer-0-0": "aa", "scratch-0-0": "bb"}) == 1
    assert look(tmp_path, {"transfer-0-0": "cc", "scratch-0-0": "bb"}) == 2
    written = (tmp_path / LOOKS_FILE).read_bytes()
    # again, under other names and in another order: nothing new is seen
    assert look(tmp_path, {"x": "bb", "y": "aa"}, CASES[::-1]) == 1
    assert (tmp_path / LOOKS_FILE).read_bytes() == written
    assert record_look(tmp_path, CASES, {"labels-4": "dd"}, PredictConfig(), "curve").number == 3
    assert [one.by for one in read_looks(tmp_path).looks] == ["evaluate", "evaluate", "curve"]


def test_the_same_weights_that_predict_otherwise_are_another_look(tmp_path: Path) -> None:
    assert look(tmp_path, "aa") == 1
    assert look(tmp_path, "aa", flips=("LR",)) == 2
    assert look(tmp_path, "aa", flips=("LR", "AP")) == 3
    assert look(tmp_path, "aa", flips=("AP", "LR")) == 3
    assert look(tmp_path, "aa", overlap=0.25) == 4
    assert look(tmp_path, "aa", blending="constant") == 5
    assert look(tmp_path, "aa", mode="fast") == 6
    assert look(tmp_path, "aa", mode="fast", memory_gib=4.0) == 7
    # what changes the last bits at most, what the mode does not heed, and what is counted besides, show nothing new
    for same in ({"n_threads": 1}, {"batch_size": 7}, {"calibration": False}, {"disagreement": False}):
        assert look(tmp_path, "aa", **same) == 1
    assert look(tmp_path, "aa", memory_gib=4.0) == 1
    assert look(tmp_path, "aa", mode="fast", overlap=0.25) == 6


def test_another_case_or_a_redrawn_label_does_not_begin_the_count_anew(tmp_path: Path) -> None:
    for models in ("aa", "bb", "cc"):
        look(tmp_path, models)
    assert look(tmp_path, "dd", [*CASES, case("case-c")]) == 4
    assert look(tmp_path, "ee", CASES[:1]) == 5
    redrawn = [case(one.case_id, label="redrawn") for one in CASES]
    assert look(tmp_path, "ff", redrawn) == 6
    # another key gives other names, and the images are those that were seen
    assert look(tmp_path, "gg", [case("case-x", "image of case-a"), case("case-y", "image of case-b")]) == 7
    # known models on more cases: nothing was learnt that they were not known for
    assert look(tmp_path, "hh", [case("case-n")]) == 1
    assert look(tmp_path, "aa", [case("case-n"), case("case-o")]) == 2
    # the case that was looked at most counts: both aa and hh met case-n, no one met case-p
    assert look(tmp_path, "ii", [case("case-n"), case("case-p")]) == 3


def test_a_test_set_of_other_images_is_counted_by_itself(tmp_path: Path) -> None:
    look(tmp_path, "aa")
    look(tmp_path, "bb")
    assert look(tmp_path, "bb", [case("case-c"), case("case-d")]) == 1
    assert look(tmp_path, "cc", [case("case-c"), case("case-d")]) == 2


@pytest.mark.parametrize(
    "content",
    [
        '{"looks": [',
        '{"looks": [{"number": 1, "test_set": "00", "models": {}, "models_sha256": "1", "by": "evaluate"}]}',
    ],
)
def test_a_damaged_record_is_not_begun_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / LOOKS_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{LOOKS_FILE}.*git checkout"):
        look(tmp_path, "aa")
    assert (tmp_path / LOOKS_FILE).read_text(encoding="utf-8") == content


def test_looks_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: look(tmp_path, str(n)), range(24)))
    assert sorted(numbers) == list(range(1, 25))


def test_nobody_is_named_in_it(tmp_path: Path) -> None:
    look(tmp_path, "aa")
    text = (tmp_path / LOOKS_FILE).read_text(encoding="utf-8")
    assert "patient" not in text
    assert "case-" not in text


def test_looks_in_another_copy_of_the_workspace_come_along_once(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    look(here, "aa")
    bring_looks(here, there)
    assert look(there, "bb") == 2
    # meanwhile somebody looked here
    assert look(here, "cc") == 2
    bring_looks(there, here)
    written = (here / LOOKS_FILE).read_bytes()
    bring_looks(there, here)
    bring_looks(tmp_path / "nowhere", here)
    assert (here / LOOKS_FILE).read_bytes() == written
    assert [(one.models["m"], one.number) for one in read_looks(here).looks] == [("aa", 1), ("cc", 2), ("bb", 3)]
    assert [one.models["m"] for one in read_looks(there).looks] == ["aa", "bb"]
    assert look(here, "dd") == 4


def test_what_a_killed_process_left_goes_though_nothing_is_new(tmp_path: Path) -> None:
    """Of two that looked at once one was killed while it wrote."""
    assert look(tmp_path, "aa") == 1
    (tmp_path / f".{LOOKS_FILE}.abcd_123.part").write_text("{")
    assert look(tmp_path, "aa") == 1
    assert [path.name for path in tmp_path.iterdir()] == [LOOKS_FILE]
