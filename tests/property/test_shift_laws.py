"""Laws of the shift: nothing against itself, the same both ways, growing with the difference, free of units."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import SCHEME, WINDOW, make_fingerprint, make_source

from monai_tl.config import IntensityConfig, PlanConfig
from monai_tl.dataset.case_scale import scale_case
from monai_tl.transfer.planning import make_plan
from monai_tl.transfer.shift import measure_shift

CONFIG = PlanConfig(source="s")
FEW = settings(max_examples=40, deadline=None)
lengths = st.floats(0.2, 50.0)
triples = st.tuples(lengths, lengths, lengths)
values = st.floats(-900.0, 3000.0)


@st.composite
def fingerprints(draw):
    mean, low = draw(values), draw(values)
    return make_fingerprint(
        spacing_mm_median=draw(triples),
        extent_mm_median=draw(triples),
        foreground_share=draw(st.floats(0.01, 1.0)),
        intensity={"mean": mean, "std": draw(st.floats(1.0, 500.0)), "p00_5": low, "p99_5": low + 100.0},
        class_volumes_ml={name: draw(st.floats(0.01, 5000.0)) for name in SCHEME.names},
    )


PLAN = make_plan(make_fingerprint(), SCHEME, CONFIG, make_source())


def shift(source, target, intensity=WINDOW):
    card = make_source(fingerprint=source, intensity=intensity).card
    return measure_shift(card, target, PLAN.model_copy(update={"intensity": intensity}))


@FEW
@given(fingerprints())
def test_nothing_is_shifted_against_itself(found):
    assert shift(found, found).score == 0.0
    assert {feature.distance for feature in shift(found, found).features} == {0.0}


@FEW
@given(fingerprints(), fingerprints())
def test_it_is_the_same_both_ways_and_above_zero(one, two):
    there, back = shift(one, two), shift(two, one)
    assert [feature.distance for feature in there.features] == [feature.distance for feature in back.features]
    assert there.score == back.score == max(feature.distance for feature in there.features)
    assert there.score >= 0.0


@FEW
@given(fingerprints(), st.lists(st.floats(0.0, 2000.0), min_size=2, max_size=6))
def test_it_grows_with_the_offset_of_intensities(found, offsets):
    scores = []
    for offset in sorted(offsets):
        moved = {**found.intensity, "mean": found.intensity["mean"] + offset}
        scores.append(shift(found, found.model_copy(update={"intensity": moved})).score)
    assert scores == sorted(scores)
    assert all(score > 0.0 for score, offset in zip(scores, sorted(offsets), strict=True) if offset > 1.0)


@FEW
@given(fingerprints(), st.lists(st.floats(1.0, 20.0), min_size=2, max_size=6), st.integers(0, 2))
def test_it_grows_with_the_factor_of_spacing(found, factors, axis):
    scores = []
    for factor in sorted(factors):
        spacing = tuple(step * (factor if k == axis else 1.0) for k, step in enumerate(found.spacing_mm_median))
        scores.append(shift(found, found.model_copy(update={"spacing_mm_median": spacing})).score)
    assert scores == sorted(scores)
    assert np.allclose(scores, np.log2(sorted(factors)), atol=1e-5)


@FEW
@given(fingerprints(), fingerprints(), st.floats(0.1, 10.0), st.floats(0.01, 100.0), st.floats(-1000.0, 1000.0))
def test_units_do_not_matter(one, two, length, gain, offset):
    """Another unit of length, and another scale of stored values that the window follows."""

    def in_other_units(found):
        stats = {name: value * gain + (0.0 if name == "std" else offset) for name, value in found.intensity.items()}
        return found.model_copy(
            update={
                "spacing_mm_median": tuple(step * length for step in found.spacing_mm_median),
                "extent_mm_median": tuple(size * length for size in found.extent_mm_median),
                "class_volumes_ml": {name: ml * length**3 for name, ml in found.class_volumes_ml.items()},
                "intensity": stats,
            }
        )

    window = IntensityConfig(rule="window", low=-150.0 * gain + offset, high=250.0 * gain + offset)
    plain = shift(one, two)
    for output in ((0.0, 1.0), (-1.0, 1.0)):
        rule = window.model_copy(update={"output": output})
        other = shift(in_other_units(one), in_other_units(two), intensity=rule)
        pairs = [(a.distance, b.distance) for a, b in zip(plain.features, other.features, strict=True)]
        assert all(abs(a - b) <= 1e-3 * max(1.0, a) for a, b in pairs)


@FEW
@given(st.integers(0, 2**16), st.floats(0.05, 50.0), st.floats(-500.0, 500.0))
def test_scaled_intensities_do_not_know_the_scanner_s_units(seed, gain, offset):
    generator = np.random.default_rng(seed)
    image = generator.normal(100.0, 20.0, (1, 12, 11, 10))
    inside = generator.random((12, 11, 10)) < 0.2
    plain, other = scale_case(image, inside), scale_case(image * gain + offset, inside)
    assert plain.keys() == other.keys()
    assert all(abs(plain[name] - other[name]) < 2e-3 for name in plain)
