"""The fingerprint against a second, direct computation, and its independence of order and processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ingested import make_case, write_cases

from monai_tl.dataset.case_scale import scale_case
from monai_tl.dataset.fingerprint import _weighted_percentiles, fingerprint
from monai_tl.dataset.manifest import read_manifest
from monai_tl.errors import DataError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("cases")
    write_cases(workspace, 5)
    return read_manifest(workspace / "artifacts/cases")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


def test_numbers_agree_with_a_direct_computation(manifest):
    found = fingerprint(manifest.cases, manifest)
    cases = [make_case(number) for number in range(5)]
    values = np.concatenate([image[label > 0] for image, label, _ in cases]).astype(float)
    assert found.intensity["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert found.intensity["std"] == pytest.approx(values.std(), rel=1e-5)
    assert (found.intensity["min"], found.intensity["max"]) == (values.min(), values.max())
    assert found.intensity["p00_5"] == pytest.approx(np.percentile(values, 0.5), abs=2.0)
    assert found.intensity["p99_5"] == pytest.approx(np.percentile(values, 99.5), abs=2.0)
    assert found.intensity["body_min"] == -1000
    spacings = np.array([np.diag(affine)[:3] for *_, affine in cases])
    assert found.spacing_mm_median == tuple(np.median(spacings, axis=0))
    assert found.spacing_mm_max == (3.0, 3.0, 5.0)
    volumes = [(label == 2).sum() * np.prod(np.diag(affine)[:3]) / 1000 for _, label, affine in cases]
    assert found.class_volumes_ml["tumour"] == pytest.approx(np.median([v for v in volumes if v]), rel=1e-5)
    assert found.class_present == {"liver": 5, "tumour": 4}
    boxes = []
    for image, _, affine in cases:
        places = np.argwhere(image > -500)
        boxes.append((places.max(axis=0) - places.min(axis=0) + 1) * np.diag(affine)[:3])
    assert found.extent_mm_median == tuple(np.median(boxes, axis=0))
    assert 0.4 < found.foreground_share < 0.7


def test_order_and_processes_do_not_matter(manifest, monkeypatch):
    first = fingerprint(manifest.cases, manifest)
    assert fingerprint(manifest.cases[::-1], manifest) == first
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "loky")
    monkeypatch.setenv("MONAI_TL_JOBS", "2")
    assert fingerprint(manifest.cases, manifest) == first


def test_only_the_given_cases_are_seen(manifest):
    one = fingerprint(manifest.cases[:1], manifest)
    assert one.n_cases == 1
    assert one.spacing_mm_max == (3.0, 3.0, 5.0)
    with pytest.raises(DataError, match="no training case"):
        fingerprint((), manifest)


def test_weighted_percentiles_are_those_of_repeated_samples():
    samples = np.array([5, 1, 3], dtype=np.float32)
    weights = np.array([2.0, 1.0, 5.0])
    repeated = np.repeat(samples, weights.astype(int))
    for percentile in (1, 20, 50, 80, 99):
        expected = np.percentile(repeated, percentile, method="inverted_cdf")
        assert _weighted_percentiles(samples, weights, (percentile,)) == [expected]


def test_smallest_sizes_are_along_each_axis(manifest):
    found = fingerprint(manifest.cases, manifest)
    cases = [make_case(number) for number in range(5)]
    sizes = np.array([np.array(image.shape) * np.diag(affine)[:3] for image, _, affine in cases])
    assert found.image_mm_min == pytest.approx(sizes.min(axis=0))
    assert np.all(np.array(found.extent_mm_min) <= found.extent_mm_median)
    assert np.all(np.array(found.extent_mm_min) <= found.image_mm_min)


def test_scaled_intensities_agree_with_the_preparation_of_cases(manifest):
    """Against what preprocess makes of each case on its own grid: the same numbers on the network's scale."""
    from monai_tl.config import IntensityConfig, NetworkConfig, PreprocessConfig
    from monai_tl.dataset.transforms import prepare_case
    from monai_tl.records import Plan

    found = fingerprint(manifest.cases, manifest)
    for name, limits in (("zscore", {"low": 0.5, "high": 99.5}), ("minmax", {})):
        means, deviations = [], []
        for number in range(5):
            image, label, affine = make_case(number)
            plan = Plan(
                modality="CT", n_channels=1, scheme=manifest.dataset.scheme, spacing_mm=tuple(np.diag(affine)[:3]),
                intensity=IntensityConfig(rule=name, **limits), patch_size_vox=(8, 8, 8),
                network=NetworkConfig(name="unet"), source=None,
            )  # fmt: skip
            prepared, _, _ = prepare_case(image, affine, plan, PreprocessConfig())
            inside = prepared[0][label > 0].astype(float)
            means.append(inside.mean())
            deviations.append(inside.std())
        assert found.scaled[f"{name}_mean"] == pytest.approx(np.median(means), rel=1e-4)
        assert found.scaled[f"{name}_std"] == pytest.approx(np.median(deviations), rel=1e-4)
    assert found.scaled["n_squashed"] == 0


def test_a_few_bright_voxels_are_told():
    image = np.random.default_rng(0).normal(100.0, 10.0, (1, 20, 20, 20))
    inside = np.zeros((20, 20, 20), dtype=bool)
    inside[:5] = True
    assert scale_case(image, inside)["squashed"] == 0.0
    image[0, 0, 0, :5] = 10_000.0
    assert scale_case(image, inside)["squashed"] == 1.0
    # a constant channel has no scale, and no foreground no statistics
    assert scale_case(np.ones((1, 4, 4, 4)), inside[:4, :4, :4]) == {}
    assert set(scale_case(image, ~np.ones_like(inside))) == {"squashed"}


def test_echo_times_and_channel_names_come_from_the_cases(manifest):
    assert fingerprint(manifest.cases, manifest).echo_time_ms == {}

    def with_echo(case, time):
        provenance = case.provenance.model_copy(update={"scanner": {"EchoTime": time} if time else {}})
        return case.model_copy(update={"modality": "MR", "provenance": provenance})

    cases = [with_echo(case, time) for case, time in zip(manifest.cases, ("3", "", "110", "3.5", "4"), strict=True)]
    named = replace(manifest, dataset=manifest.dataset.model_copy(update={"channels": ("T1",)}))
    found = fingerprint(cases, named)
    assert found.echo_time_ms == {"n": 4, "min": 3.0, "median": 3.75, "max": 110.0}
    assert found.channels == ("T1",)
