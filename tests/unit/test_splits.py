"""Splits: known answers, refusals, stratification."""

from __future__ import annotations

import json

import pytest

from monai_tl.config import SplitConfig
from monai_tl.dataset.splits import check_split, read_test_ids, split_patients
from monai_tl.errors import DataError, LeakageError
from monai_tl.records import CaseRecord, Fold, Provenance, Split

IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def make_case(number, patient=None, site="a", classes=("liver",), labelled=True, content=None):
    return CaseRecord(
        case_id=f"case-{number:012x}",
        patient_key=f"patient-{number if patient is None else patient}",
        site=site,
        modality="CT",
        has_label=labelled,
        spacing_mm=(1.0, 1.0, 1.0),
        spatial_shape=(4, 4, 4),
        affine=IDENTITY,
        class_voxels=dict.fromkeys(classes, 5) | {"tumour": 0} if labelled else {},
        provenance=Provenance(
            kind="dicom", study="s", series="x", input_sha256=f"{number:064x}", image_sha256=content or f"{number:064x}"
        ),
    )


def test_a_patient_with_several_cases_stays_together():
    cases = [make_case(number, patient=number // 3) for number in range(24)]
    split = split_patients(cases, SplitConfig(n_folds=3, test_fraction=0.25))
    assert len(split.test) == 6
    for fold in split.folds:
        assert len(fold.train) + len(fold.val) == 18
    check_split(split, cases)


def test_each_stratum_gives_its_share():
    cases = [make_case(n, site="a" if n < 20 else "b") for n in range(30)]
    split = split_patients(cases, SplitConfig(n_folds=4, test_fraction=0.4))
    site = {case.case_id: case.site for case in cases}
    assert sum(site[i] == "a" for i in split.test) == 8
    assert sum(site[i] == "b" for i in split.test) == 4
    for fold in split.folds:
        assert sum(site[i] == "a" for i in fold.val) == 3
        assert sum(site[i] == "b" for i in fold.val) in (1, 2)


def test_classes_present_are_a_stratum():
    cases = [make_case(n, classes=("liver", "tumour") if n % 2 else ("liver",)) for n in range(20)]
    split = split_patients(cases, SplitConfig(n_folds=2, test_fraction=0.5))
    have = {case.case_id: case.class_voxels["tumour"] > 0 for case in cases}
    # make_case puts a zero count last, which must not count as present
    assert set(have.values()) == {False}
    tumours = [
        make_case(n, classes=("liver",)).model_copy(update={"class_voxels": {"tumour": n % 2}}) for n in range(20)
    ]
    split = split_patients(tumours, SplitConfig(n_folds=2, test_fraction=0.5))
    value = {case.case_id: case.class_voxels["tumour"] for case in tumours}
    assert sum(value[i] for i in split.test) == 5


def test_the_seed_matters():
    cases = [make_case(n) for n in range(20)]
    assert split_patients(cases, SplitConfig(seed=0)).test != split_patients(cases, SplitConfig(seed=1)).test


def test_smaller_training_sets_lie_in_larger_ones_and_the_test_set_stays():
    cases = [make_case(n, patient=n // 2, site="ab"[n % 4 // 2]) for n in range(40)]
    pools, tests = [], []
    for n_train in (4, 8, 13, None):
        split = split_patients(cases, SplitConfig(n_folds=2, test_fraction=0.3, n_train_cases=n_train))
        pools.append(set(split.folds[0].train) | set(split.folds[0].val))
        tests.append(split.test)
    assert [len(pool) for pool in pools[:3]] == [4, 8, 13]
    assert pools[0] < pools[1] < pools[2] < pools[3]
    assert len(set(tests)) == 1
    site = {case.case_id: case.site for case in cases}
    assert sum(site[i] == "a" for i in pools[0]) == 2


def test_a_small_training_set_keeps_the_shares_of_the_sites():
    cases = [make_case(n, site="a" if n < 24 else "b") for n in range(32)]
    site = {case.case_id: case.site for case in cases}
    for seed in range(5):
        config = SplitConfig(seed=seed, n_folds=2, test_fraction=0.0, n_train_cases=8)
        split = split_patients(cases, config)
        assert sum(site[i] == "b" for i in (*split.folds[0].train, *split.folds[0].val)) == 2


def test_unlabelled_cases_are_listed_apart():
    cases = [make_case(n, labelled=n != 3) for n in range(10)]
    split = split_patients(cases, SplitConfig(n_folds=2))
    assert split.unlabelled == (cases[3].case_id,)
    everything = {*split.test, *split.folds[0].train, *split.folds[0].val}
    assert everything == {case.case_id for case in cases} - {cases[3].case_id}


def test_copies_under_two_patient_keys_stay_together():
    cases = [make_case(n, content="f" * 64 if n in (2, 7) else None) for n in range(12)]
    for seed in range(10):
        split = split_patients(cases, SplitConfig(seed=seed, n_folds=2, test_fraction=0.5))
        sides = [set(split.test), set(split.folds[0].val), set(split.folds[1].val)]
        pair = {cases[2].case_id, cases[7].case_id}
        assert any(pair <= side for side in sides)
        (note,) = split.notes
        assert all(case_id in note for case_id in pair)
    ids = [cases[2].case_id]
    with pytest.raises(LeakageError, match=cases[7].case_id):
        split_patients(cases, SplitConfig(n_folds=2), ids)
    with pytest.raises(LeakageError, match="train 0 and in val 0"):
        check_split(Split(test=(), folds=(Fold(train=(cases[2].case_id,), val=(cases[7].case_id,)),)), cases)


def test_an_unlabelled_copy_ties_two_patients_together():
    """Patient 1 has an image of patient 0 (without a label): whoever they are, they are one."""
    cases = [
        make_case(n, patient=n // 2, labelled=n != 2, content="f" * 64 if n in (0, 2) else None) for n in range(12)
    ]
    for seed in range(10):
        split = split_patients(cases, SplitConfig(seed=seed, n_folds=2, test_fraction=0.5))
        sides = [set(split.test), set(split.folds[0].val), set(split.folds[1].val)]
        assert any({cases[n].case_id for n in (0, 1, 3)} <= side for side in sides)
        assert len(split.notes) == 1


def test_without_copies_there_is_nothing_to_note():
    assert split_patients([make_case(n) for n in range(12)], SplitConfig(n_folds=2)).notes == ()


def test_a_cohort_without_any_label_is_told_so():
    with pytest.raises(DataError, match=r"none of the 6 cases has a usable label.*rejected\.json"):
        split_patients([make_case(n, labelled=False) for n in range(6)], SplitConfig(n_folds=2))


def test_given_test_ids_are_the_test_set():
    cases = [make_case(n, patient=n // 2) for n in range(12)]
    ids = tuple(cases[n].case_id for n in (5, 4, 9, 8))
    assert split_patients(cases, SplitConfig(n_folds=2), ids).test == tuple(sorted(ids))


def test_a_patient_partly_in_the_test_ids_is_leakage():
    cases = [make_case(n, patient=n // 2) for n in range(12)]
    with pytest.raises(LeakageError, match=cases[5].case_id):
        split_patients(cases, SplitConfig(n_folds=2), [cases[4].case_id])


def test_unusable_test_ids_are_refused_without_repeating_what_they_say():
    cases = [make_case(n, labelled=n != 3) for n in range(10)]
    with pytest.raises(DataError, match="entries 2") as caught:
        split_patients(cases, SplitConfig(n_folds=2), [cases[0].case_id, "DOE^JANE"])
    assert "DOE" not in str(caught.value)
    with pytest.raises(DataError, match=f"without a label.*{cases[3].case_id}"):
        split_patients(cases, SplitConfig(n_folds=2), [cases[3].case_id])
    with pytest.raises(DataError, match="twice"):
        split_patients(cases, SplitConfig(n_folds=2), [cases[0].case_id, cases[0].case_id])


def test_too_few_patients_are_refused_with_the_numbers():
    cases = [make_case(n, patient=n // 4) for n in range(12)]
    with pytest.raises(
        DataError, match=r"4 folds need as many patients, but of the 3 .* 1 are for testing and 2 are left"
    ):
        split_patients(cases, SplitConfig(n_folds=4))
    with pytest.raises(DataError, match="n_train_cases is 9, but 8"):
        split_patients(cases, SplitConfig(n_folds=2, n_train_cases=9))


def test_check_split_sees_a_patient_on_two_sides():
    cases = [make_case(n, patient=n // 2) for n in range(4)]
    ids = [case.case_id for case in cases]
    with pytest.raises(LeakageError, match="train 0 and in val 0"):
        check_split(Split(test=(), folds=(Fold(train=(ids[0],), val=(ids[1],)),)), cases)
    with pytest.raises(LeakageError, match="test"):
        check_split(Split(test=(ids[0],), folds=(Fold(train=(ids[1],), val=(ids[2],)),)), cases)
    with pytest.raises(DataError, match="not there"):
        check_split(Split(test=("case-x",), folds=(Fold(train=(ids[1],), val=(ids[2],)),)), cases)


def test_test_ids_come_from_a_json_list(tmp_path):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(["a", "b"]))
    assert read_test_ids(path) == ("a", "b")
    for content in ('{"a": 1}', "[1]", "nonsense"):
        path.write_text(content)
        with pytest.raises(DataError, match=r"ids\.json"):
            read_test_ids(path)
    with pytest.raises(DataError, match="not there"):
        read_test_ids(tmp_path / "none.json")
