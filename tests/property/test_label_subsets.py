"""Laws of the nested subsets of labels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_tl.dataset.label_subsets import nested_subset
from monai_tl.errors import DataError

CASES = st.lists(st.integers(1, 4), min_size=1, max_size=30).map(
    lambda sizes: {f"case-{p:03d}-{k}": f"patient-{p:03d}" for p, size in enumerate(sizes) for k in range(size)}
)
FRACTIONS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])


@settings(max_examples=150, deadline=None)
@given(cases=CASES, fraction=FRACTIONS, seed=st.integers(0, 50), data=st.data())
def test_smaller_budgets_lie_in_larger_ones_and_patients_on_one_side(cases, fraction, seed, data):
    larger = data.draw(st.integers(1, len(cases)))
    smaller = data.draw(st.integers(1, larger))
    one, other = (nested_subset(cases, n, fraction, seed) for n in (smaller, larger))
    assert set(one.train) <= set(other.train)
    assert set(one.val) <= set(other.val)
    for n, fold in ((smaller, one), (larger, other)):
        assert len(fold.train) + len(fold.val) == n == len({*fold.train, *fold.val})
        assert not {cases[one] for one in fold.train} & {cases[one] for one in fold.val}
        assert fold.train
        assert list(fold.train) == sorted(fold.train)
        # at most one patient is cut
        cut = {cases[c] for c in (*fold.train, *fold.val)} & {
            p for c, p in cases.items() if c not in {*fold.train, *fold.val}
        }
        assert len(cut) <= 1


@settings(max_examples=50, deadline=None)
@given(cases=CASES, seed=st.integers(0, 50), data=st.data())
def test_neither_the_order_of_cases_nor_another_patient_moves_anyone(cases, seed, data):
    shuffled = dict(data.draw(st.permutations(sorted(cases.items()))))
    whole = nested_subset(cases, "all", 0.25, seed)
    assert nested_subset(shuffled, "all", 0.25, seed) == whole
    assert set(whole.train) | set(whole.val) == set(cases)
    # with one more patient the others keep their order: what was drawn stays, or gives way to the new one
    more = {**cases, "case-new": "patient-new"}
    n = data.draw(st.integers(1, len(cases)))
    before, after = (nested_subset(pool, n, 0.0, seed).train for pool in (cases, more))
    assert len(set(before) - set(after)) <= 1


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 80), seed=st.integers(0, 5))
def test_with_one_case_each_a_quarter_validates(n, seed):
    pool = {f"c{k:02d}": f"p{k:02d}" for k in range(80)}
    assert len(nested_subset(pool, n, 0.25, seed).val) == n // 4
    assert nested_subset(pool, n, 0.0, seed).val == ()


def test_seeds_draw_different_patients():
    pool = {f"c{k:02d}": f"p{k:02d}" for k in range(40)}
    drawn = {nested_subset(pool, 4, 0.0, seed).train for seed in range(20)}
    assert len(drawn) == 20
    # each patient comes first about equally often: 20 would be 20 times the expectation
    first = [nested_subset(pool, 1, 0.0, seed).train[0] for seed in range(400)]
    assert max(first.count(case) for case in pool) < 30
    assert len(set(first)) == 40


@pytest.mark.parametrize(("pool", "n"), [({}, "all"), ({"a": "p"}, 2)])
def test_more_labels_than_there_are_is_an_error(pool, n):
    with pytest.raises(DataError, match=r"curve\.labels"):
        nested_subset(pool, n, 0.25, 0)
