"""The fingerprint against a second, direct computation, and its independence of order and processes."""

from __future__ import annotations

import numpy as np
import pytest
from ingested import make_case, write_cases

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
    monkeypatch.setenv("MONAI_TL_BACKEND", "sequential")


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
    monkeypatch.setenv("MONAI_TL_BACKEND", "loky")
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
