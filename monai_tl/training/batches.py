"""Batches by number, made one step ahead in the background. Numbers, not state, decide what is in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from monai_tl.dataset.patches import PatchSampler

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """What one optimiser step sees.

    Attributes:
        case_ids: Of each sample.
        image: (B, C, I, J, K) float32.
        label: (B, I, J, K) uint8.
    """

    case_ids: tuple[str, ...]
    image: Tensor
    label: Tensor


def make_batch(sampler: PatchSampler, batch_size: int, step: int) -> Batch:
    """The batch of optimiser step ``step`` (from 0): the next ``batch_size`` samples in order."""
    samples = range(step * batch_size, (step + 1) * batch_size)
    images, labels = zip(*(sampler.make(sample) for sample in samples), strict=True)
    return Batch(
        case_ids=tuple(sampler.case_of(sample).case_id for sample in samples),
        image=torch.from_numpy(np.stack(images)),
        label=torch.from_numpy(np.stack(labels)),
    )


def stream_batches(sampler: PatchSampler, batch_size: int, first: int, stop: int, n_ahead: int = 2) -> Generator[Batch]:
    """Yield the batches of steps ``first`` to ``stop - 1``, the next ``n_ahead`` being made meanwhile."""
    yield from make_ahead(partial(make_batch, sampler, batch_size), first, stop, n_ahead)


def make_ahead(make: Callable[[int], T], first: int, stop: int, n_ahead: int = 2) -> Generator[T]:
    """Yield ``make(first)`` to ``make(stop - 1)``, the next ``n_ahead`` being made meanwhile.

    Making a batch is NumPy and SciPy outside the interpreter's lock, so one thread hides it behind the network's step.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for step in range(first, stop + n_ahead):
                if step < stop:
                    waiting.append(pool.submit(make, step))
                if step >= first + n_ahead:
                    yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
