"""The phantom's arrays: reproducible, realistic enough, and with the tumour that can be learnt."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from monai_tl.dataset.anatomy import IntegerDraws
from monai_tl.dataset.cohort import HOSPITALS, plan_studies
from monai_tl.dataset.phantom import render

ORGANS = ("body", "liver", "spleen", "kidney_left", "kidney_right", "spine", "tumour")


def rendered(plan):
    return render(plan.anatomy, plan.scan, IntegerDraws(0, 9, plan.index), ORGANS)


@pytest.fixture(scope="module")
def studies():
    return {name: [(plan, *rendered(plan)) for plan in plan_studies(name, 0, 4)] for name in ("a", "b")}


def test_draws_are_the_published_stream_of_pcg64():
    """numpy's own Generator on the same bits is the second implementation: 64-bit integers are its raw stream."""
    draws = IntegerDraws(3, 5)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 5])))
    whole = generator.integers(0, 2**64, size=200, dtype=np.uint64)
    assert [draws.between(0, 99) for _ in range(200)] == [int(value >> np.uint64(32)) * 100 >> 32 for value in whole]


def test_draws_cover_their_range_and_noise_has_its_spread():
    draws = IntegerDraws(1)
    assert {draws.between(-2, 2) for _ in range(300)} == {-2, -1, 0, 1, 2}
    noise = draws.noise((40, 50, 60))
    assert abs(noise.mean()) < 3 * 209 / np.sqrt(noise.size)
    # the sum of 8 uniform bytes has the variance 8 (256² - 1) / 12
    assert noise.std() == pytest.approx(np.sqrt(8 * (256**2 - 1) / 12), rel=0.01)


def test_bytes_are_pinned():
    """Any change of the arithmetic changes the demo data everywhere: it must be seen and meant."""
    plan = plan_studies("b", 0, 4, coarse=3)[2]
    image, masks = rendered(plan)
    digest = hashlib.sha256(image.astype("<i2").tobytes() + masks["tumour"].tobytes()).hexdigest()
    assert digest[:16] == "151d73d2cb884bac"


def test_studies_do_not_depend_on_how_many_there_are():
    few, many = plan_studies("a", 0, 2), plan_studies("a", 0, 9)
    for one, other in zip(few, many, strict=False):
        assert one.anatomy == other.anatomy
        assert np.array_equal(one.scan.affine_lps, other.scan.affine_lps)
    assert plan_studies("a", 1, 1)[0].anatomy != few[0].anatomy


def test_cohort_has_what_the_demo_needs():
    a, b = plan_studies("a", 0, 32), plan_studies("b", 0, 24)
    assert len(b) == 25
    assert {plan.position for plan in b} == {"HFS", "FFS", "HFP", "FFP"}
    assert [plan.index for plan in b if plan.is_tilted] == [2]
    assert [plan.index for plan in b if plan.label is None] == [23]
    assert sorted(kind for plan in b for kind in plan.dirt) == ["duplicate", "gap", "localizer", "no_dicom"]
    assert len({plan.patient for plan in b}) == 22
    kinds = [plan.label for plan in b if plan.label and "gap" not in plan.dirt]
    assert (kinds.count("seg"), kinds.count("rtstruct")) == (12, 11)
    assert len({plan.scan.affine_lps[2, 2] for plan in b}) >= 4
    for studies in (a, b):
        first = {}
        for plan in studies:
            # a second study shows the same patient
            assert plan.anatomy == first.setdefault(plan.patient, plan.anatomy)
            assert 64 <= plan.scan.rows <= 84
            assert 20 <= plan.scan.n_slices <= 43


def test_dirt_comes_along_however_small_the_cohort():
    kinds = sorted(kind for plan in plan_studies("b", 0, 1) for kind in plan.dirt)
    assert kinds == ["duplicate", "gap", "localizer", "no_dicom"]


def test_organs_have_their_attenuation_and_place(studies):
    for name, found in studies.items():
        offset = HOSPITALS[name].offset_hu
        for plan, image, masks in found:
            assert image.dtype == np.int16
            volume_ml = abs(np.linalg.det(plan.scan.affine_lps[:3, :3])) / 1000.0
            assert 900 < masks["liver"].sum() * volume_ml < 2400
            assert 90 < masks["spleen"].sum() * volume_ml < 700
            liver = image[masks["liver"] & ~masks["tumour"]]
            assert 90 + offset < np.median(liver) < 122 + offset
            assert not (masks["liver"] & ~masks["body"]).any()
            centre = {
                key: plan.scan.affine_lps @ [*np.argwhere(masks[key]).mean(axis=0)[::-1], 1.0]
                for key in ("liver", "spleen", "kidney_left", "kidney_right", "spine")
            }
            # LPS: the liver is on the right, the spleen on the left, the spine behind, whatever the position
            assert centre["liver"][0] < -20 < 20 < centre["spleen"][0]
            assert centre["kidney_right"][0] < 0 < centre["kidney_left"][0]
            assert centre["spine"][1] > centre["liver"][1] + 40
            assert centre["liver"][2] > centre["kidney_right"][2]


def test_tumours_are_in_the_livers_of_hospital_b_only(studies):
    for _, _, masks in studies["a"]:
        assert not masks["tumour"].any()
    for plan in plan_studies("b", 0, 24):
        image, masks = rendered(plan)
        voxel_ml = abs(np.linalg.det(plan.scan.affine_lps[:3, :3])) / 1000.0
        assert masks["tumour"].sum() * voxel_ml > 3.0
        assert not (masks["tumour"] & ~masks["liver"]).any()
        if masks["tumour"].sum() > 200:
            contrast = np.median(image[masks["liver"] & ~masks["tumour"]]) - np.median(image[masks["tumour"]])
            assert 30 < contrast < 70


def test_noise_has_the_scanners_spread(studies):
    for found in studies.values():
        for plan, image, masks in found:
            core = ndimage.binary_erosion(masks["liver"] & ~masks["tumour"], iterations=3)
            # the median deviation passes over the few vessels
            liver = image[core].astype(float)
            spread = 1.4826 * np.median(np.abs(liver - np.median(liver)))
            assert spread == pytest.approx(plan.scan.noise_hu, rel=0.2)


def test_same_part_at_another_resolution_has_the_same_volume():
    """Partial volume: the share of a voxel, not its centre, decides; halving the voxels changes volumes little."""
    fine, coarse = plan_studies("a", 0, 1)[0], plan_studies("a", 0, 1, coarse=2)[0]
    volumes = []
    for plan in (fine, coarse):
        _, masks = rendered(plan)
        volumes.append(masks["spleen"].sum() * abs(np.linalg.det(plan.scan.affine_lps[:3, :3])))
    assert volumes[1] == pytest.approx(volumes[0], rel=0.06)
