"""Windows summed slab by slab: MONAI's inferer is the oracle, on all axes, and nothing outlives its slab."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from monai_tl.networks.passes import Passing
from monai_tl.networks.slabs import Blend, Skip, stream_probabilities
from monai_tl.networks.tiling import Tiling, exact_tiling
from monai_tl.networks.windows import collect_probabilities


def _network(seed: int = 0, n_outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, n_outputs, 3, padding=1)).eval()


def _image(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)


def _monai(
    network: nn.Module, image: np.ndarray, window: tuple[int, int, int], overlap: float, mode: str
) -> np.ndarray:
    inferer = SlidingWindowInferer(window, sw_batch_size=2, overlap=overlap, mode=mode)
    with torch.inference_mode():
        return inferer(torch.from_numpy(image)[None], lambda x: torch.softmax(network(x), 1))[0].numpy()


@pytest.mark.parametrize("shape", [(30, 13, 9), (11, 29, 14), (9, 12, 31), (5, 30, 7)])
@pytest.mark.parametrize(
    ("overlap", "blending", "dtype"),
    [(0.5, "gaussian", torch.float32), (0.8, "constant", torch.float32), (0.25, "gaussian", torch.float16)],
)
def test_slabs_together_are_monai_s_probabilities(
    shape: tuple[int, int, int], overlap: float, blending: str, dtype: torch.dtype
) -> None:
    network, image, window = _network(), _image(shape), (10, 8, 6)
    tiling = exact_tiling(shape, window, overlap)
    slabs = [
        (slab.start, slab.values.shape[1 + slab.axis], slab.values.copy())
        for slab in stream_probabilities(
            Passing([network]),
            image,
            tiling,
            Blend(blending, 2, dtype=dtype),  # type: ignore[arg-type]
        )
    ]
    assert len(slabs) == len(tiling.starts[tiling.axis])
    assert [start for start, _, _ in slabs] == [0, *np.cumsum([n for _, n, _ in slabs])[:-1]]
    found = np.concatenate([values for *_, values in slabs], axis=1 + tiling.axis)
    expected = _monai(network, image, window, overlap, blending)
    assert np.abs(found - expected).max() < (1e-5 if dtype == torch.float32 else 2e-3)


def test_the_same_case_twice_gives_the_same_bits() -> None:
    network, image = _network(), _image((30, 20, 12))
    tiling = exact_tiling((30, 20, 12), (10, 8, 6), 0.5)
    found = [
        collect_probabilities(stream_probabilities(Passing([network]), image, tiling, Blend()), (30, 20, 12))
        for _ in range(2)
    ]
    assert np.array_equal(*found)


class _Counting(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.network(x)


def test_windows_outside_the_body_are_background_and_dark_ones_within_are_passed() -> None:
    """A body with a cavity larger than a window: the windows of air around it are left out, the cavity's is not."""
    shape, window = (48, 48, 48), (8, 8, 8)
    image = np.zeros((1, *shape), dtype=np.float32)
    image[:, 12:36, 12:36, 12:36] = 1.0
    image[:, 16:32, 16:32, 16:32] = 0.0
    tiling = exact_tiling(shape, window, 0.5)
    network = _Counting(_network())
    skipped = collect_probabilities(
        stream_probabilities(Passing([network]), image, tiling, Blend(skip=Skip(0.0, 3))), shape
    )
    whole = collect_probabilities(stream_probabilities(Passing([network.network]), image, tiling, Blend()), shape)
    # by hand: of the starts 0, 4 … 40 along an axis those of 8 to 32 meet the body's box, and all of these 7³ blocks
    # have the body in them or on all six sides
    assert network.seen == 7**3
    assert np.abs(skipped - whole)[:, 12:36, 12:36, 12:36].max() < 1e-6
    assert np.array_equal(skipped[:, :8, :8, :8], np.stack([np.ones((8, 8, 8)), *np.zeros((2, 8, 8, 8))]))
    assert skipped.sum(axis=0) == pytest.approx(1.0, abs=1e-5)


def test_an_empty_image_is_all_background() -> None:
    network = _Counting(_network())
    image = np.full((1, 20, 20, 20), -1.0, dtype=np.float32)
    tiling = exact_tiling((20, 20, 20), (8, 8, 8), 0.5)
    found = collect_probabilities(
        stream_probabilities(Passing([network]), image, tiling, Blend(skip=Skip(-1.0, 3))), (20, 20, 20)
    )
    assert network.seen == 0
    assert np.array_equal(found.argmax(axis=0), np.zeros((20, 20, 20)))


def test_mirrored_passes_are_mirrored_back_and_averaged() -> None:
    network, image = _network(), _image((8, 8, 8))
    windows = torch.from_numpy(image)[None]
    with torch.inference_mode():
        expected = torch.stack(
            [torch.softmax(network(windows.flip(dims)), 1).flip(dims) for dims in ([], [2], [4], [2, 4])]
        ).mean(0)
    found = Passing([network], mirrored_axes=(2, 0))(windows)
    assert (found - expected).abs().max() < 1e-6
    assert (Passing([network])(windows) - expected).abs().max() > 1e-4, "a network that does not see the mirror"


def test_folds_and_mirrored_passes_together_are_one_mean() -> None:
    networks = [_network(seed) for seed in range(3)]
    windows = torch.from_numpy(_image((8, 8, 8)))[None]
    alone = [Passing([network], mirrored_axes=(1,))(windows) for network in networks]
    together = Passing(networks, mirrored_axes=(1,))(windows)
    assert (together - torch.stack(alone).mean(0)).abs().max() < 1e-6


def test_sums_take_one_window_s_thickness_only() -> None:
    shape, n_outputs = (10, 10, 400), 12
    tiling: Tiling = exact_tiling(shape, (10, 10, 8), 0.5)
    largest = 0
    image = _image(shape)
    for slab in stream_probabilities(Passing([_network(0, n_outputs)]), image, tiling, Blend()):
        base = slab.values
        while isinstance(base.base, np.ndarray):
            base = base.base
        largest = max(largest, base.size)
    assert largest <= n_outputs * 10 * 10 * 8
