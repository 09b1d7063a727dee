"""Laws of splitting, whatever the cohort."""

from __future__ import annotations

import random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monai_tl.config import SplitConfig
from monai_tl.dataset.splits import split_patients
from monai_tl.errors import DataError
from monai_tl.records import CaseRecord, Provenance

IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@st.composite
def cohorts(draw):
    """Patients with one to three cases, at two sites, some without a label, with any of two classes."""
    cases = []
    for patient in range(draw(st.integers(2, 25))):
        for _ in range(draw(st.integers(1, 3))):
            labelled = draw(st.booleans()) or draw(st.booleans())
            voxels = {"liver": draw(st.integers(0, 1)), "tumour": draw(st.integers(0, 1))} if labelled else {}
            cases.append(
                CaseRecord(
                    case_id=f"case-{len(cases):012x}",
                    patient_key=f"p{patient}",
                    site=draw(st.sampled_from(["a", "b"])),
                    modality="MR",
                    has_label=labelled,
                    spacing_mm=(1.0, 1.0, 1.0),
                    spatial_shape=(4, 4, 4),
                    affine=IDENTITY,
                    class_voxels=voxels,
                    provenance=Provenance(
                        kind="nifti", study="", series="", input_sha256="", image_sha256=f"{len(cases):064x}"
                    ),
                )
            )
    return cases


CONFIGS = st.builds(
    SplitConfig, seed=st.integers(0, 99), n_folds=st.integers(2, 5), test_fraction=st.sampled_from([0.0, 0.2, 0.5])
)


def split_or_skip(cases, config):
    try:
        return split_patients(cases, config)
    except DataError:
        assume(False)
        raise


@given(cohorts(), CONFIGS)
@settings(max_examples=80, deadline=None)
def test_each_labelled_case_is_tested_once_or_validated_once(cases, config):
    split = split_or_skip(cases, config)
    seen = [*split.test, *(case_id for fold in split.folds for case_id in fold.val)]
    assert sorted(seen) == sorted(case.case_id for case in cases if case.has_label)
    pool = set(seen) - set(split.test)
    for fold in split.folds:
        assert set(fold.train) | set(fold.val) == pool
        assert not set(fold.train) & set(fold.val)
        assert fold.train
        assert fold.val


@given(cohorts(), CONFIGS)
@settings(max_examples=80, deadline=None)
def test_no_patient_is_on_two_sides(cases, config):
    split = split_or_skip(cases, config)
    patient = {case.case_id: case.patient_key for case in cases}
    for fold in split.folds:
        sides = [{patient[i] for i in ids} for ids in (split.test, fold.train, fold.val)]
        assert sum(len(side) for side in sides) == len(set.union(*sides))


@given(cohorts(), CONFIGS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_input_does_not_matter(cases, config, rng: random.Random):
    split = split_or_skip(cases, config)
    shuffled = list(cases)
    rng.shuffle(shuffled)
    assert split_patients(shuffled, config) == split


@given(cohorts(), CONFIGS, st.integers(2, 6), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_fewer_training_cases_are_a_subset(cases, config, n_small, n_more):
    pools = []
    for n_train in (n_small, n_small + n_more):
        split = split_or_skip(cases, config.model_copy(update={"n_train_cases": n_train, "n_folds": 2}))
        pools.append({case_id for fold in split.folds for case_id in fold.val})
        assert len(pools[-1]) == n_train
    assert pools[0] <= pools[1]
