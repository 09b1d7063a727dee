"""Batches by number: any number of makers gives the same tensors in order, and a loop may leave at any time."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from ladder_runs import make_sampler

from monai_tl.dataset.augmentation import PRESETS
from monai_tl.errors import ConfigError
from monai_tl.training.batches import (
    LOADERS_VARIABLE,
    make_ahead,
    make_batch,
    make_batch_on,
    n_loaders,
    place_batch,
    stream_batches,
)


@pytest.mark.parametrize("augmentation", ["light", "elastic", "strong"])
@pytest.mark.parametrize("n_workers", [0, 1, 2, 3])
def test_any_number_of_workers_gives_the_same_tensors(augmentation: str, n_workers: int) -> None:
    sampler = make_sampler(augmentation)
    expected = [make_batch(sampler, 2, step) for step in range(3, 9)]
    streamed = list(stream_batches(sampler, 2, 3, 9, n_workers=n_workers))
    assert len(streamed) == len(expected)
    for one, two in zip(streamed, expected, strict=True):
        assert one.case_ids == two.case_ids
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.label, two.label)
    assert not any(torch.equal(expected[0].image, other.image) for other in expected[1:])


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_order_is_kept_though_later_ones_are_ready_first(n_workers: int) -> None:
    def make(step: int) -> int:
        time.sleep(0.02 if step % 2 == 0 else 0.0)
        return step

    assert list(make_ahead(make, 5, 13, n_workers=n_workers)) == list(range(5, 13))
    assert list(make_ahead(make, 5, 5, n_workers=n_workers)) == []


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_no_more_is_made_than_is_asked_for_ahead(n_workers: int) -> None:
    made: list[int] = []
    with closing(make_ahead(lambda step: made.append(step) or step, 0, 1000, n_workers=n_workers)) as steps:
        assert next(steps) == 0
        assert next(steps) == 1
    # nothing but what was asked for is still waiting, and no thread is left behind
    assert len(made) <= (2 if n_workers == 0 else 2 + 2 * n_workers)
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_making_a_batch_draws_from_no_global_generator() -> None:
    state = torch.get_rng_state(), np.random.get_state(legacy=True)[1].copy()  # noqa: NPY002 - the global one is meant
    list(stream_batches(make_sampler("strong"), 2, 0, 4, n_workers=2))
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state(legacy=True)[1])  # noqa: NPY002


def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOADERS_VARIABLE, raising=False)
    assert n_loaders() == 1
    monkeypatch.setenv(LOADERS_VARIABLE, "0")
    threads: list[str] = []
    list(make_ahead(lambda _: threads.append(threading.current_thread().name), 0, 2))
    assert threads == [threading.current_thread().name] * 2
    monkeypatch.setenv(LOADERS_VARIABLE, "two")
    with pytest.raises(ConfigError, match=r"MONAI_TL_LOADERS.*'two'"):
        n_loaders()


def test_a_batch_goes_to_the_device_of_the_network() -> None:
    batch = make_batch(make_sampler(), 2, 0)
    assert place_batch(batch, torch.device("cpu")) is batch
    moved = place_batch(batch, torch.device("meta"))
    assert (moved.image.device.type, moved.label.device.type) == ("meta", "meta")
    assert (moved.image.shape, moved.label.dtype, moved.case_ids) == (batch.image.shape, torch.uint8, batch.case_ids)


@pytest.mark.parametrize("augmentation", ["none", "elastic"])
def test_a_device_that_changes_patches_gets_the_same_cases_and_places(
    augmentation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if augmentation != "none":
        monkeypatch.setitem(PRESETS, augmentation, replace(PRESETS[augmentation], p_noise=0.0))
    sampler = make_sampler(augmentation)
    for step in range(4):
        found, expected = make_batch_on(sampler, 2, step, torch.device("cpu")), make_batch(sampler, 2, step)
        assert found.case_ids == expected.case_ids
        assert torch.allclose(found.image, expected.image, atol=1e-3 * float(expected.image.std()))
        assert torch.mean((found.label != expected.label).float()) < 1e-3
    share = make_batch_on(sampler, 2, 3, torch.device("cpu"), slice(1, 2))
    assert torch.equal(share.image, found.image[1:2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_changes_the_patches_itself() -> None:
    sampler, device = make_sampler("elastic"), torch.device("cuda", 0)
    for step, batch in enumerate(stream_batches(sampler, 2, 0, 4, device=device)):
        assert batch.image.device == device
        expected = make_batch_on(sampler, 2, step, torch.device("cpu"))
        # noise is the device's own
        assert torch.mean((batch.image.cpu() - expected.image).abs()) < 0.2 * expected.image.std()
        assert torch.mean((batch.label.cpu() != expected.label).float()) < 1e-3
