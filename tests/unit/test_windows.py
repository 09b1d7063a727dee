from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import nn

from monai_tl.networks.windows import network_size, predict_probabilities, window_size
from monai_tl.records import SizeRule


def _network(seed: int, n_outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, n_outputs, 3, padding=1)).eval()


def _image(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)


@pytest.mark.parametrize(("overlap", "blending"), [(0.5, "gaussian"), (0.25, "constant")])
def test_equals_monai_s_own_inferer(overlap: float, blending: str) -> None:
    network, image = _network(0), _image((30, 25, 19))
    found = predict_probabilities([network], image, (12, 12, 8), SizeRule(), overlap, blending, 2)  # type: ignore[arg-type]
    inferer = SlidingWindowInferer((12, 12, 8), sw_batch_size=3, overlap=overlap, mode=blending)
    with torch.inference_mode():
        expected = inferer(torch.from_numpy(image)[None], lambda x: torch.softmax(network(x), 1))
    assert np.abs(found - expected[0].numpy()).max() < 1e-5


def test_a_case_little_larger_than_the_window_is_one_pass_without_seams() -> None:
    network, image = _network(0), _image((14, 12, 11))
    found = predict_probabilities([network], image, (12, 12, 12), SizeRule())
    with torch.inference_mode():
        expected = torch.softmax(network(torch.from_numpy(image)[None]), 1)[0].numpy()
    # the padding to the window's size along K touches the last planes only
    assert np.abs(found - expected)[..., :-2].max() < 1e-6
    assert found.shape == expected.shape


def test_probabilities_sum_to_one_and_folds_are_averaged() -> None:
    image = _image((20, 20, 20))
    networks = [_network(seed) for seed in range(3)]
    together = predict_probabilities(networks, image, (8, 8, 8), SizeRule())
    alone = [predict_probabilities([network], image, (8, 8, 8), SizeRule()) for network in networks]
    assert together == pytest.approx(np.mean(alone, axis=0), abs=1e-5)
    assert together.sum(axis=0) == pytest.approx(1.0, abs=1e-5)
    assert together.dtype == np.float32


@pytest.mark.parametrize("padding", ["constant", "edge"])
def test_a_small_case_is_padded_by_the_rule_and_cut_back(padding: str) -> None:
    seen: list[torch.Tensor] = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return torch.cat([x, 1 - x], dim=1)

    image = _image((5, 9, 7)) + 10
    rule = SizeRule(divisor=4, min_vox=(12, 8, 8), padding=padding)  # type: ignore[arg-type]
    found = predict_probabilities([Recorder()], image, (4, 8, 4), rule)
    assert found.shape == (2, 5, 9, 7)
    assert {tuple(x.shape[2:]) for x in seen} == {(12, 12, 8)}
    corner = float(seen[0][0, 0, 0, 0, 0])
    assert corner == (0.0 if padding == "constant" else float(image[0, 0, 0, 0]))


def test_memory_mapped_half_precision_is_taken(tmp_path: object) -> None:
    image = _image((10, 10, 10)).astype(np.float16)
    path = f"{tmp_path}/image.npy"
    np.save(path, image)
    found = predict_probabilities([_network(0)], np.load(path, mmap_mode="r"), (8, 8, 8), SizeRule())
    assert np.array_equal(found, predict_probabilities([_network(0)], image.astype(np.float32), (8, 8, 8), SizeRule()))


@pytest.mark.parametrize(
    ("shape", "rule", "expected"),
    [
        ((17, 16, 3), SizeRule(divisor=8), (24, 16, 8)),
        ((17, 16, 3), SizeRule(divisor=8, min_vox=(8, 20, 16)), (24, 24, 16)),
        ((17, 16, 3), SizeRule(), (17, 16, 3)),
        ((17, 16, 3), SizeRule(divisor=(8, 4, 1)), (24, 16, 3)),
        ((17, 16, 3), SizeRule(divisor=(8, 4, 2), min_vox=(8, 18, 8)), (24, 20, 8)),
        ((17, 16, 3), SizeRule(divisor=16, min_vox=(16, 16, 16), fixed=True), (16, 16, 16)),
    ],
)
def test_network_size(shape: tuple[int, int, int], rule: SizeRule, expected: tuple[int, int, int]) -> None:
    assert network_size(shape, rule) == expected


def test_window_grows_to_the_case_only_when_little_is_added() -> None:
    rule = SizeRule(divisor=4)
    assert window_size((14, 16, 16), (16, 16, 16), rule) == (16, 16, 16)
    assert window_size((18, 16, 9), (16, 16, 16), rule) == (20, 16, 16)
    # 20 x 20 x 16 is 1.56 times the patch
    assert window_size((18, 19, 16), (16, 16, 16), rule) == (16, 16, 16)


def test_a_network_of_one_size_sees_no_other() -> None:
    seen: set[tuple[int, ...]] = set()

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.add(tuple(x.shape[2:]))
            return torch.cat([x, 1 - x], dim=1)

    rule = SizeRule(divisor=16, min_vox=(16, 16, 16), fixed=True)
    for shape in ((18, 18, 16), (9, 40, 16), (5, 5, 5)):
        # as one image of one voxel's reach, the windows must agree with the function itself
        image = _image(shape)
        found = predict_probabilities([Recorder()], image, (16, 16, 16), rule)
        direct = torch.softmax(torch.from_numpy(np.concatenate([image, 1 - image])), dim=0).numpy()
        assert found == pytest.approx(direct, abs=1e-5)
    assert seen == {(16, 16, 16)}


@pytest.mark.parametrize(
    ("rule", "good", "bad", "words"),
    [
        (SizeRule(divisor=8, min_vox=(16, 8, 8)), [(16, 8, 8), (24, 16, 8)], [(8, 8, 8), (20, 8, 8)], "multiples of 8"),
        (SizeRule(divisor=(8, 8, 2), min_vox=(8, 8, 4)), [(8, 8, 6)], [(8, 8, 2), (8, 10, 4)], "of 8 x 8 x 2 of at"),
        (SizeRule(divisor=4, min_vox=(8, 8, 4), fixed=True), [(8, 8, 4)], [(8, 8, 8), (4, 8, 4)], "and no other"),
    ],
)
def test_a_rule_says_what_it_accepts(
    rule: SizeRule, good: list[tuple[int, int, int]], bad: list[tuple[int, int, int]], words: str
) -> None:
    assert all(rule.accepts(shape) for shape in good)
    assert not any(rule.accepts(shape) for shape in bad)
    assert words in str(rule)
    assert SizeRule.model_validate_json(rule.model_dump_json()) == rule
    assert all(rule.accepts(network_size(shape, rule)) for shape in bad)
