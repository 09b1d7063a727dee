"""Features of a frozen body: the same bits as the network's own, made once, and never trusted unchecked."""

from __future__ import annotations

import os
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ladder_runs import make_sampler, make_settings, make_trained_network, make_trainer, make_unet, train
from torch import Tensor, nn

from monai_tl.config import NetworkConfig
from monai_tl.errors import CheckpointError
from monai_tl.networks.builders import build_network, groups_of
from monai_tl.networks.device import place_network
from monai_tl.networks.groups import LayerGroup, set_trainable
from monai_tl.training.features import VALUES_FILE, FeatureCache, keep_features
from monai_tl.training.head_input import find_head

N_CASES = 3
NETWORKS = {
    "unet": make_unet(),
    "segresnet": NetworkConfig(
        name="segresnet", arguments={"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "dropout_prob": 0.2}
    ),
    "dynunet": NetworkConfig(
        name="dynunet",
        arguments={
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 8, 8],
        },
    ),
}


def _freeze(config: NetworkConfig) -> tuple[nn.Module, tuple[LayerGroup, ...]]:
    module = place_network(build_network(config, 1, 2, seed=0), torch.device("cpu"))
    groups = groups_of(config, module)
    set_trainable(module, groups, [groups[-1].name])
    return module.train(), groups


def _cache(folder: Path, config: NetworkConfig = NETWORKS["unet"], **options: Any) -> FeatureCache:
    network, groups = _freeze(config)
    cache = keep_features(folder, make_sampler(), network, groups, make_settings("feature_extraction", **options))
    assert isinstance(cache, FeatureCache)
    return cache


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_on_kept_features_is_the_network_on_the_image(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    cache = _cache(tmp_path, NETWORKS[name])
    sampler = make_sampler()
    for _ in range(2):
        # made, then read
        (batch,) = cache.stream(2, 1, 2)
        images, labels = zip(*(sampler.make(number) for number in (2, 3)), strict=True)
        cache.network.eval()
        with torch.no_grad():
            for k, image in enumerate(images):
                whole = cache.network(torch.from_numpy(image[None]))
                assert torch.equal(cache.head(batch.image[k : k + 1]), whole)
        cache.network.train()
        assert np.array_equal(batch.label.numpy(), np.stack(labels))
        assert batch.case_ids == tuple(sampler.case_of(number).case_id for number in (2, 3))


def test_samples_come_again_after_the_variants_and_the_body_is_asked_once(tmp_path: Path) -> None:
    cache = _cache(tmp_path, feature_variants=2)
    assert cache.n_records == 2 * N_CASES
    calls: Counter[str] = Counter()
    cache.network.get_submodule("model.0").register_forward_hook(lambda *_: calls.update(["body"]))
    batches = list(cache.stream(3, 0, 6))
    # each epoch is one batch here; the third is the first again
    for k in (2, 4):
        assert torch.equal(batches[k].image, batches[0].image)
        assert torch.equal(batches[k + 1].image, batches[1].image)
    assert not torch.equal(batches[0].image, batches[1].image)
    # two steps are gathered ahead, so the first two batches may be made twice, no more
    assert calls["body"] <= 2 * cache.n_records
    calls.clear()
    assert torch.equal(next(cache.stream(3, 0, 1)).image, batches[0].image)
    assert calls["body"] == 0


@pytest.mark.parametrize("place", ["values", "digest", "cut", "gone"])
def test_a_damaged_record_is_made_again(place: str, tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    expected = [batch.image.clone() for batch in cache.stream(3, 0, 2)]
    values, digests = tmp_path / VALUES_FILE, tmp_path / "features.sha256"
    if place == "values":
        content = bytearray(values.read_bytes())
        content[cache.n_record_bytes + 5] ^= 1
        values.write_bytes(content)
    elif place == "digest":
        content = bytearray(digests.read_bytes())
        content[33] ^= 1
        digests.write_bytes(content)
    elif place == "cut":
        values.write_bytes(values.read_bytes()[: cache.n_record_bytes // 2])
    else:
        digests.unlink()
    fresh = _cache(tmp_path)
    made: list[int] = []
    compute = fresh._compute
    fresh._compute = lambda image: (made.append(1), compute(image))[1]  # type: ignore[method-assign]
    again = [batch.image for batch in fresh.stream(3, 0, 2)]
    assert all(torch.equal(one, two) for one, two in zip(again, expected, strict=True))
    assert bool(made)
    assert len(made) == 1 or place in ("cut", "gone")


def test_another_body_takes_none_of_them(tmp_path: Path) -> None:
    first = next(_cache(tmp_path).stream(3, 0, 1)).image
    cache = _cache(tmp_path)
    with torch.no_grad():
        next(cache.network.get_submodule("model.0").parameters()).add_(0.1)
    set_trainable(cache.network, groups_of(NETWORKS["unet"], cache.network), ["head"])
    other = FeatureCache(tmp_path, make_sampler(), cache.network, cache.head, 2, 64)
    assert not torch.equal(next(other.stream(3, 0, 1)).image, first)


def test_fewer_variants_are_kept_where_the_disk_allows_no_more(tmp_path: Path) -> None:
    network, groups = _freeze(NETWORKS["unet"])
    head = find_head(network, groups, torch.zeros(1, 1, 16, 16, 16))
    assert head is not None
    record = FeatureCache(tmp_path, make_sampler(), network, head, 1, 64).n_record_bytes
    assert FeatureCache(tmp_path, make_sampler(), network, head, 1000, 1).n_variants == (1 << 20) // (N_CASES * record)


def test_a_disk_that_fills_up_makes_it_slower_not_wrong(tmp_path: Path) -> None:
    expected = [batch.image.clone() for batch in _cache(tmp_path / "room").stream(3, 0, 4)]
    cache = _cache(tmp_path / "full")
    open_files = cache._open

    def open_on_a_full_disk() -> None:
        open_files()
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, cache.values)
        os.close(full)

    cache._open = open_on_a_full_disk  # type: ignore[method-assign]
    assert all(torch.equal(b.image, e) for b, e in zip(cache.stream(3, 0, 4), expected, strict=True))
    assert cache.is_full
    assert not cache.checked


def test_a_folder_that_cannot_hold_them_is_named(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache = _cache(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"MiB of features cannot be kept in .*feature_cache_mib"):
            next(cache.stream(3, 0, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class _AddsItsInput(nn.Module):
    """Goes on after its head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv3d(1, 2, 1), nn.Conv3d(2, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image)) + image  # type: ignore[no-any-return]


class _TwoInputs(_AddsItsInput):
    """A head that takes more than the features."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Bilinear(2, 1, 2)  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Tensor:
        features = self.body(image).movedim(1, -1)
        return self.head(features, image.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [_AddsItsInput, _TwoInputs])
def test_a_network_whose_head_is_not_the_last_word_has_none(kind: type[nn.Module]) -> None:
    network = kind()
    groups = (LayerGroup("body", ("body",)), LayerGroup("head", ("head",)))
    assert find_head(network, groups, torch.ones(1, 1, 4, 4, 4)) is None
    assert network.training


def test_without_features_it_trains_the_plain_way_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_settings("feature_extraction", augmentation="none", feature_variants=1)
    trainer = make_trainer(tmp_path / "plain", config)
    trainer.groups = (*trainer.groups[:-1], LayerGroup("head", ("model.2.0", "model.2.1")))
    outcome = trainer.run()
    assert outcome.facts["features"] == {
        "n_records": 0,
        "reason": "the head alone does not give the network's output",
    }
    assert trainer.cache is None


def test_the_first_epochs_train_as_the_network_would(tmp_path: Path) -> None:
    """Sample by sample the features are the body's, so within the variants nothing but rounding may differ."""
    config = make_settings("feature_extraction", batch_size=1, max_steps=6, feature_variants=2)
    network = make_unet(dropout=0.0)
    kept = train(tmp_path / "kept", config, network)
    plain = make_trainer(tmp_path / "plain", config, network)
    plain.strategy = type(plain.strategy)("feature_extraction", plain.strategy.phases)
    outcome = plain.run()
    assert kept.outcome.facts["features"]["n_records"] == 6
    assert "features" not in outcome.facts
    pairs = zip(kept.outcome.position.history, outcome.position.history, strict=True)
    assert all(one.train_loss == pytest.approx(two.train_loss, abs=1e-5) for one, two in pairs)
    start = make_trained_network(network).state_dict()
    moved = {name for name, tensor in outcome.state_dict.items() if not torch.equal(tensor, start[name])}
    assert all(torch.allclose(kept.outcome.state_dict[name], outcome.state_dict[name], atol=1e-4) for name in moved)
    assert moved
