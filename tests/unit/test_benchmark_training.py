"""Turns of training: our own loop is timed by its steps alone, and not by batches that were made before them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import training
from benchmarks.training import Task, prepare_limit, prepare_ours
from monai_tl.config import NetworkConfig
from monai_tl.dataset.patches import PatchSampler

BATCH_S = 0.03


@pytest.fixture
def task(tmp_path: Path) -> Task:
    generator = np.random.default_rng(0)
    for number in range(2):
        folder = tmp_path / f"case-{number}"
        folder.mkdir()
        np.save(folder / "image.npy", generator.normal(size=(1, 8, 8, 8)).astype(np.float32))
        np.save(folder / "label.npy", generator.integers(0, 2, (8, 8, 8)).astype(np.uint8))
    network = NetworkConfig(name="unet", arguments={"channels": [2, 2], "strides": [2]})
    return Task(tmp_path, network, 2, (8, 8, 8), (1.0, 1.0, 1.0), 1, 1, 6, augmentation="none")


class Slow(PatchSampler):
    """A batch of one takes at least ``BATCH_S`` to make."""

    def make(self, sample: int) -> Any:
        time.sleep(BATCH_S)
        return super().make(sample)


def test_our_turn_and_the_limit_give_seconds_again_and_again(task: Task) -> None:
    ours, limit = prepare_ours(task), prepare_limit(task)
    for turn in (ours, ours, limit):
        seconds, remark = turn()
        assert 0.0 < seconds < 5.0
        assert "of processor a step" in remark


def test_a_drained_turn_makes_as_many_batches_as_it_uses(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = training._sampler
    monkeypatch.setattr(training, "_sampler", lambda given: Slow(**vars(plain(given))))
    seconds, _ = prepare_ours(replace(task, n_drain=4))()
    # the network takes next to nothing, so a step waits for its batch
    assert seconds >= 0.97 * task.n_steps * BATCH_S
