"""The test set's use is counted: once for each set of models, apart for each test set, and never forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monai_tl.errors import DataError
from monai_tl.looks import LOOKS_FILE, hash_of_test_set, read_looks, record_look
from monai_tl.records import CaseRecord, Provenance


def case(name: str, content: str = "x") -> CaseRecord:
    return CaseRecord(
        case_id=name,
        patient_key="patient-x",
        site="a",
        modality="CT",
        has_label=True,
        spacing_mm=(1.0, 1.0, 1.0),
        spatial_shape=(2, 2, 2),
        affine=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
        provenance=Provenance(kind="nifti", study="s", series="s", input_sha256=content, image_sha256="y"),
    )


CASES = [case("case-a"), case("case-b")]


def test_each_set_of_models_is_one_look(tmp_path: Path) -> None:
    assert record_look(tmp_path, CASES, {"transfer-0-0": "aa", "scratch-0-0": "bb"}, "evaluate").number == 1
    assert record_look(tmp_path, CASES, {"transfer-0-0": "cc", "scratch-0-0": "bb"}, "evaluate").number == 2
    written = (tmp_path / LOOKS_FILE).read_bytes()
    # again, under other names and in another order: nothing new is seen
    again = record_look(tmp_path, CASES[::-1], {"x": "bb", "y": "aa"}, "evaluate")
    assert again.number == 1
    assert (tmp_path / LOOKS_FILE).read_bytes() == written
    assert record_look(tmp_path, CASES, {"labels-4": "dd"}, "curve").number == 3
    assert [look.by for look in read_looks(tmp_path).looks] == ["evaluate", "evaluate", "curve"]


def test_another_test_set_is_counted_by_itself(tmp_path: Path) -> None:
    record_look(tmp_path, CASES, {"m": "aa"}, "evaluate")
    for other in ([*CASES, case("case-c")], [CASES[0], case("case-b", "redrawn")]):
        assert hash_of_test_set(other) != hash_of_test_set(CASES)
        assert record_look(tmp_path, other, {"m": "aa"}, "evaluate").number == 1
    assert len(read_looks(tmp_path).looks) == 3


def test_a_damaged_record_is_not_begun_anew(tmp_path: Path) -> None:
    (tmp_path / LOOKS_FILE).write_text('{"looks": [', encoding="utf-8")
    with pytest.raises(DataError, match=LOOKS_FILE):
        record_look(tmp_path, CASES, {"m": "aa"}, "evaluate")
    assert (tmp_path / LOOKS_FILE).read_text(encoding="utf-8") == '{"looks": ['


def test_looks_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: record_look(tmp_path, CASES, {"m": str(n)}, "curve").number, range(24)))
    assert sorted(numbers) == list(range(1, 25))


def test_nobody_is_named_in_it(tmp_path: Path) -> None:
    record_look(tmp_path, CASES, {"m": "aa"}, "evaluate")
    text = (tmp_path / LOOKS_FILE).read_text(encoding="utf-8")
    assert "patient" not in text
    assert "case-" not in text
