from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from balls import make_arrays

from monai_tl.dataset.patches import PatchSampler, TrainingCase, cut, find_foreground, load_case
from monai_tl.errors import DataError
from monai_tl.records import SizeRule


def _case(number: int, shape: tuple[int, int, int] = (20, 22, 18)) -> TrainingCase:
    image, label = make_arrays(number, shape)
    return TrainingCase(f"case-{number}", image, label, find_foreground(label))


def _sampler(n_cases: int = 5, **changes: object) -> PatchSampler:
    sampler = PatchSampler(
        cases=tuple(_case(number) for number in range(n_cases)),
        patch_size_vox=(8, 8, 8),
        size_rule=SizeRule(),
        spacing_mm=(1.0, 1.0, 1.0),
        foreground_fraction=0.5,
        augmentation="none",
        seed=3,
    )
    return replace(sampler, **changes)  # type: ignore[arg-type]


def test_each_epoch_sees_each_case_once_in_its_own_order() -> None:
    sampler = _sampler()
    epochs = [[sampler.case_of(epoch * 5 + position).case_id for position in range(5)] for epoch in range(6)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_a_sample_does_not_depend_on_those_before_it() -> None:
    first, second = _sampler(augmentation="light"), _sampler(augmentation="light")
    in_order = [first.make(number) for number in range(6)]
    for number in (4, 1, 5, 0):
        image, label = second.make(number)
        assert np.array_equal(image, in_order[number][0])
        assert np.array_equal(label, in_order[number][1])
    other_seed = _sampler(augmentation="light", seed=4).make(0)
    assert not np.array_equal(other_seed[0], in_order[0][0])


def test_foreground_samples_hold_foreground_of_every_class_alike() -> None:
    label = np.zeros((40, 40, 40), dtype=np.uint8)
    label[:20, :20, :20] = 1
    label[37, 37, 37] = 2
    case = TrainingCase("case-0", label[np.newaxis].astype(np.float32), label, find_foreground(label))
    sampler = _sampler(cases=(case,), foreground_fraction=1.0)
    labels = [sampler.make(number)[1] for number in range(200)]
    assert all(patch.any() for patch in labels)
    # one voxel of class 2 against 8000 of class 1, yet half of the patches are centred on it
    assert 70 < sum((patch == 2).any() for patch in labels) < 130


def test_a_patch_is_the_case_s_own_voxels() -> None:
    # each voxel holds its own index, so a patch tells where it was cut
    shape = (20, 22, 18)
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    case = TrainingCase("case-0", image, np.zeros(shape, dtype=np.uint8), {})
    sampler = _sampler(cases=(case,))
    starts = set()
    for number in range(30):
        patch, _ = sampler.make(number)
        start = np.unravel_index(int(patch[0, 0, 0, 0]), shape)
        box = tuple(slice(int(s), int(s) + 8) for s in start)
        assert np.array_equal(patch[0], image[0][box])
        starts.add(start)
    assert len(starts) > 20


@pytest.mark.parametrize("padding", ["constant", "edge"])
def test_cut_equals_numpy_pad_then_slice(padding: str) -> None:
    array = np.random.default_rng(0).normal(size=(2, 5, 6, 7))
    padded = np.pad(array, [(0, 0)] + [(20, 20)] * 3, mode=padding)  # type: ignore[call-overload]
    generator = np.random.default_rng(1)
    for _ in range(50):
        start, size = generator.integers(-12, 12, 3), tuple(int(n) for n in generator.integers(1, 9, 3))
        box = tuple(slice(20 + s, 20 + s + n) for s, n in zip(start, size, strict=True))
        assert np.array_equal(cut(array, [int(s) for s in start], size, padding), padded[(slice(None), *box)])


def test_a_case_smaller_than_the_patch_lies_whole_within_it() -> None:
    case = _case(0, (6, 20, 5))
    sampler = _sampler(cases=(case,), patch_size_vox=(12, 12, 12), size_rule=SizeRule(divisor=4))
    for number in range(10):
        image, label = sampler.make(number)
        assert image.shape == (1, 12, 12, 12)
        assert label.shape == (12, 12, 12)
        present = image[0] != 0.0
        assert present.sum() == 6 * 12 * 5


def test_positions_are_thinned_but_span_the_class() -> None:
    label = np.ones((40, 40, 40), dtype=np.uint8)
    positions = find_foreground(label)[1]
    assert len(positions) == 20_000
    assert positions[0] == 0
    assert positions[-1] == 40**3 - 1


def test_load_case_refuses_what_does_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "case-000000000001"
    folder.mkdir()
    np.save(folder / "image.npy", np.zeros((1, 4, 4, 4), dtype=np.float32))
    with pytest.raises(DataError, match="case-000000000001"):
        load_case(folder)
    np.save(folder / "label.npy", np.zeros((4, 4, 5), dtype=np.uint8))
    with pytest.raises(DataError, match="share no grid"):
        load_case(folder)
    np.save(folder / "label.npy", np.zeros((4, 4, 4), dtype=np.uint8))
    assert isinstance(load_case(folder).image, np.memmap)
    (folder / "image.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="cannot be read"):
        load_case(folder)
