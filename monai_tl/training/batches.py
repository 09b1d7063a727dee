"""Batches by number, made ahead in the background. Numbers, not state, decide what is in them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_tl.dataset.patches import PatchSampler
from monai_tl.errors import ConfigError
from monai_tl.training.device_augmentation import augment_tensors, draw

T = TypeVar("T")

LOADERS_VARIABLE = "MONAI_TL_LOADERS"
"""Threads that make batches; unset: 1. Of the environment, as the number of processes is: no result depends on it."""
_MAX_LOADERS = 64


def n_loaders() -> int:
    """Threads that make batches ahead; 0 makes each one when it is asked for.

    Raises:
        ConfigError: MONAI_TL_LOADERS is no number from 0 to 64.
    """
    text = os.environ.get(LOADERS_VARIABLE) or "1"
    if not text.isdecimal() or int(text) > _MAX_LOADERS:
        raise ConfigError(
            f"{LOADERS_VARIABLE}: {text!r} is no number from 0 to {_MAX_LOADERS}; mend or unset it", "environment"
        )
    return int(text)


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


def make_batch(sampler: PatchSampler, batch_size: int, step: int, share: slice = slice(None)) -> Batch:
    """The batch of optimiser step ``step`` (from 0), or a share: of the next ``batch_size`` samples in order."""
    samples = range(step * batch_size, (step + 1) * batch_size)[share]
    images, labels = zip(*(sampler.make(sample) for sample in samples), strict=True)
    return _stack(sampler, samples, images, labels)


def _stack(
    sampler: PatchSampler, samples: range, images: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.uint8]]
) -> Batch:
    return Batch(
        case_ids=tuple(sampler.case_of(sample).case_id for sample in samples),
        image=torch.from_numpy(np.stack(images)),
        label=torch.from_numpy(np.stack(labels)),
    )


def make_batch_on(
    sampler: PatchSampler, batch_size: int, step: int, device: torch.device, share: slice = slice(None)
) -> Batch:
    """``make_batch``, but the device changes the patches: what is copied to it is what was read, and what was drawn.

    Same cases, places and changes as ``make_batch``; values agree within rounding, but for noise.
    """
    samples = range(step * batch_size, (step + 1) * batch_size)[share]
    size, spacing, preset = sampler.patch_size_vox, sampler.spacing_mm, sampler.augmentation
    images, labels, generators = zip(*(sampler.read(sample) for sample in samples), strict=True)
    draws = [draw(images[0].shape, size, spacing, preset, generator) for generator in generators]
    read = place_batch(_stack(sampler, samples, images, labels), device)
    made = [
        augment_tensors(image, label, size, spacing, preset, one)
        for image, label, one in zip(read.image, read.label, draws, strict=True)
    ]
    return replace(read, image=torch.stack([image for image, _ in made]), label=torch.stack([one for _, one in made]))


def stream_batches(
    sampler: PatchSampler,
    batch_size: int,
    first: int,
    stop: int,
    n_workers: int | None = None,
    device: torch.device | None = None,
    share: slice = slice(None),
) -> Generator[Batch]:
    """Yield the batches of steps ``first`` to ``stop - 1`` on a device, the CPU if none; see ``make_ahead``.

    A GPU changes the patches itself.
    """

    def make(step: int) -> Batch:
        if device is not None and device.type == "cuda":
            return make_batch_on(sampler, batch_size, step, device, share)
        return place_batch(make_batch(sampler, batch_size, step, share), device or torch.device("cpu"))

    yield from make_ahead(make, first, stop, n_workers)


def place_batch(batch: Batch, device: torch.device) -> Batch:
    """A batch on its device; to a GPU from pinned memory, so that the copy runs beside the step before."""
    if device.type == "cpu":
        return batch
    is_pinned = device.type == "cuda"
    image, label = (
        (values.pin_memory() if is_pinned else values).to(device, non_blocking=is_pinned)
        for values in (batch.image, batch.label)
    )
    return replace(batch, image=image, label=label)


def make_ahead(make: Callable[[int], T], first: int, stop: int, n_workers: int | None = None) -> Generator[T]:
    """Yield ``make(first)`` to ``make(stop - 1)`` in order, later ones being made meanwhile.

    Making a batch is NumPy and SciPy outside the interpreter's lock, so threads hide it behind the network's step
    (docs/decisions/0012-engine.md has the figures).

    Args:
        make: Pure, so that neither the number of workers nor their order changes what is yielded.
        first: Number to begin with.
        stop: Number after the last.
        n_workers: Threads, each with two batches ahead; 0 makes each batch when it is asked for. None takes
            ``n_loaders``.
    """
    n_workers = n_loaders() if n_workers is None else n_workers
    if n_workers == 0:
        yield from map(make, range(first, stop))
        return
    n_ahead = 2 * n_workers
    with ThreadPoolExecutor(max_workers=n_workers, thread_name_prefix="batches") as pool:
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
