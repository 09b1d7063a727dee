"""What a frozen body makes of each sample, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_tl.config import FinetuneConfig
from monai_tl.dataset.patches import PatchSampler
from monai_tl.errors import CheckpointError
from monai_tl.networks.groups import LayerGroup
from monai_tl.training.batches import Batch, make_ahead
from monai_tl.training.head_input import body_output, find_head

VALUES_FILE, DIGESTS_FILE = "features.bin", "features.sha256"
_DIGEST = 32
_MIB = 1 << 20


@dataclass(frozen=True)
class _Sample:
    """One sample on its way: its features from disk, or its image, of which they are still to be made."""

    record: int
    image: NDArray[np.float32] | None
    features: Tensor | None
    label: NDArray[np.uint8]


def keep_features(
    folder: Path, sampler: PatchSampler, network: nn.Module, groups: Sequence[LayerGroup], config: FinetuneConfig
) -> FeatureCache | str:
    """A cache for a network whose body is frozen.

    Returns:
        Why there is none: the head alone does not give the network's output, or not one epoch fits the disk allowed.
    """
    device = next(network.parameters()).device
    head = find_head(network, groups, torch.from_numpy(sampler.make(0)[0][np.newaxis]).to(device))
    if head is None:
        return "the head alone does not give the network's output"
    cache = FeatureCache(folder, sampler, network, head, config.feature_variants, config.feature_cache_mib)
    if not cache.n_records:
        return f"an epoch of them takes more than finetune.feature_cache_mib, {config.feature_cache_mib}"
    return cache


class FeatureCache:
    """The body's output for the first epochs of samples, which then come again.

    Sample n is record ``n % n_records``, whether it is read or made: a record is a function of its number, the body
    and the sampler alone, and made alone (never as part of a batch, which could round otherwise). So it does not matter
    to the result which records a killed run has left, or whether one is lost. Each has a sha256 that a process checks
    at its first use; a record without, or with a wrong one, is made again. The digest covers body
    and sampler, so records of others are never taken.

    Args:
        folder: Of the run's checkpoints.
        sampler: Makes patches by number.
        network: The body frozen.
        head: Of it, as ``find_head`` found it.
        n_variants: Epochs of samples that differ; see ``n_records``.
        budget_mib: Disk that values may take: fewer epochs are kept where they do not fit.
    """

    def __init__(
        self,
        folder: Path,
        sampler: PatchSampler,
        network: nn.Module,
        head: nn.Module,
        n_variants: int,
        budget_mib: int,
    ) -> None:
        self.folder = folder
        self.sampler = sampler
        self.network = network
        self.head = head
        self.device = next(network.parameters()).device
        image, label = sampler.make(0)
        example = self._compute(image)
        self.shape = tuple(example.shape[1:])
        self.strides_last = example.is_contiguous(memory_format=torch.channels_last_3d)
        self.label_shape = label.shape
        self.n_feature_bytes = example.numel() * 4
        self.n_record_bytes = self.n_feature_bytes + label.size
        fits = all(n <= m for case in sampler.cases for n, m in zip(case.label.shape, label.shape, strict=True))
        # a whole case that nothing augments differs between epochs by a small shift alone
        wanted = 1 if sampler.augmentation == "none" and fits else n_variants
        n_cases = len(sampler.cases)
        self.n_variants = min(wanted, budget_mib * _MIB // (n_cases * self.n_record_bytes))
        self.n_records = self.n_variants * n_cases
        self.key = hashlib.sha256(f"{self._body_digest()}\n{self._sampler_digest()}\n{self.shape}".encode()).digest()
        self.checked: set[int] = set()
        self.is_full = False

    @property
    def facts(self) -> dict[str, Any]:
        """For ``training.json``."""
        return {
            "n_records": self.n_records,
            "n_variants": self.n_variants,
            "mib": round(self.n_records * self.n_record_bytes / _MIB, 3),
        }

    def stream(self, batch_size: int, first: int, stop: int) -> Generator[Batch]:
        """Yield the batches of steps ``first`` to ``stop - 1``; their ``image`` is the input of the head."""
        self._open()
        try:
            with closing(make_ahead(partial(self._gather, batch_size), first, stop)) as gathered:
                for samples in gathered:
                    yield self._complete(samples)
        finally:
            os.close(self.values)
            os.close(self.digests)

    def _open(self) -> None:
        size = self.n_records * self.n_record_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.values = os.open(self.folder / VALUES_FILE, os.O_RDWR | os.O_CREAT, 0o644)
            self.digests = os.open(self.folder / DIGESTS_FILE, os.O_RDWR | os.O_CREAT, 0o644)
            # a map must not reach beyond the file; where nothing was written it takes no room
            os.ftruncate(self.values, size)
            os.ftruncate(self.digests, self.n_records * _DIGEST)
        except OSError as error:
            raise CheckpointError(
                f"{size / _MIB:.0f} MiB of features cannot be kept in {self.folder} ({error.strerror}); make room, "
                "mend permissions or lower finetune.feature_cache_mib, then run again"
            ) from error
        self.map = np.memmap(
            self.folder / VALUES_FILE, dtype=np.uint8, mode="r", shape=(self.n_records, self.n_record_bytes)
        )

    def _gather(self, batch_size: int, step: int) -> list[_Sample]:
        """The samples of a step as far as they can be had without the network; runs in the background."""
        return [self._find(number % self.n_records) for number in range(step * batch_size, (step + 1) * batch_size)]

    def _find(self, record: int) -> _Sample:
        content = self.map[record]
        if record not in self.checked:
            if os.pread(self.digests, _DIGEST, record * _DIGEST) != self._digest(record, content):
                image, label = self.sampler.make(record)
                return _Sample(record, image, None, label)
            self.checked.add(record)
        values = content[: self.n_feature_bytes].view(np.float32)
        label = content[self.n_feature_bytes :].reshape(self.label_shape)
        return _Sample(record, None, self._as_tensor(values), label)

    def _complete(self, samples: list[_Sample]) -> Batch:
        features = []
        for sample in samples:
            if sample.image is None:
                features.append(sample.features)
            else:
                made = self._compute(sample.image)
                features.append(made.cpu())
                self._store(sample, made)
        image = torch.cat([tensor for tensor in features if tensor is not None])
        label = torch.from_numpy(np.stack([sample.label for sample in samples]))
        case_ids = tuple(self.sampler.case_of(sample.record).case_id for sample in samples)
        return Batch(case_ids, image, label)

    def _compute(self, image: NDArray[np.float32]) -> Tensor:
        made = body_output(self.network, self.head, torch.from_numpy(image[np.newaxis]).to(self.device))
        if made is None:
            raise TypeError("the head takes no single tensor")
        return made

    def _store(self, sample: _Sample, made: Tensor) -> None:
        if self.is_full:
            return
        layout = made.permute(0, 2, 3, 4, 1) if self.strides_last else made
        values = np.ascontiguousarray(layout.to("cpu", torch.float32).numpy()).view(np.uint8).ravel()
        content = np.concatenate([values, np.ascontiguousarray(sample.label).view(np.uint8).ravel()])
        try:
            os.pwrite(self.values, content.data, sample.record * self.n_record_bytes)
            os.pwrite(self.digests, self._digest(sample.record, content), sample.record * _DIGEST)
        except OSError:
            # slower, not wrong: what is not kept is made again
            self.is_full = True

    def _as_tensor(self, values: NDArray[np.float32]) -> Tensor:
        channels, *spatial = self.shape
        shape = (1, *spatial, channels) if self.strides_last else (1, channels, *spatial)
        # a copy: the map must not be written to, and may be unmapped
        tensor = torch.from_numpy(values.reshape(shape).copy())
        return tensor.permute(0, 4, 1, 2, 3) if self.strides_last else tensor

    def _digest(self, record: int, content: NDArray[np.uint8]) -> bytes:
        digest = hashlib.sha256(self.key + record.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(content).data)
        return digest.digest()

    def _body_digest(self) -> str:
        digest = hashlib.sha256()
        of_head = {id(tensor) for tensor in self.head.state_dict(keep_vars=True).values()}
        for name, tensor in self.network.state_dict(keep_vars=True).items():
            if id(tensor) not in of_head:
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _sampler_digest(self) -> str:
        """Of its settings; the arrays of its cases are the run's own, as the folder is."""
        sampler = self.sampler
        case_ids = [case.case_id for case in sampler.cases]
        settings = (sampler.patch_size_vox, sampler.size_rule, sampler.spacing_mm, sampler.foreground_fraction)
        return repr((case_ids, *settings, sampler.augmentation, sampler.seed))
