"""Checkpoints: whole or absent, checked before use, enough to go on to the bit. And the lock of their folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_tl.errors import CheckpointError, TrainingError
from monai_tl.files import write_bytes

FORMAT = 1
N_KEPT = 2
"""Checkpoints kept: the newest and, should its disk block fail, the one before."""
_NAME = re.compile(r"step-(\d{9})\.([0-9a-f]{64})\.pt")


def write_checkpoint(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write a checkpoint whole and drop those older than the newest two.

    The name carries the sha256 of the bytes, so there is no second file that could disagree with the first.

    Args:
        folder: The run's own; made if absent.
        step: Optimiser steps done; orders the checkpoints (never the clock).
        state: Tensors and plain values only, so that it can be read with ``weights_only=True``.

    Raises:
        CheckpointError: The disk is full or not writable; older checkpoints are untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    content = buffer.getvalue()
    path = folder / f"step-{step:09d}.{hashlib.sha256(content).hexdigest()}.pt"
    try:
        write_bytes(path, content)
    except OSError as error:
        raise CheckpointError(
            f"a checkpoint of {len(content) / 2**20:.1f} MiB cannot be written to {folder} ({error.strerror}); "
            "make room or mend permissions, then run again: training goes on from the last one"
        ) from error
    others = [other for other in _found(folder) if other != path]
    kept = [other for other in others if not other.name.startswith(f"step-{step:09d}.")][: N_KEPT - 1]
    for old in set(others) - set(kept):
        old.unlink(missing_ok=True)
    return path


def read_newest(folder: Path, notes: list[str] | None = None) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; None when there is none.

    Args:
        folder: As given to ``write_checkpoint``; may be absent.
        notes: Takes a line for each checkpoint passed over as damaged.
    """
    for path in _found(folder):
        step, digest, _ = path.name.split(".")
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == digest:
                state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                if state.get("format") == FORMAT:
                    return state
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be read ({error.strerror}); check its permissions and disk"
            ) from error
        if notes is not None:
            notes.append(f"checkpoint of step {int(step.removeprefix('step-'))} is damaged and was passed over")
    return None


def _found(folder: Path) -> list[Path]:
    """Complete files by step, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Hold a training folder for this process alone; the kernel lets go when the process ends, however it ends.

    Raises:
        TrainingError: Another process holds it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the holder before us may have removed the folder between our open and our lock
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
        except OSError as error:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise TrainingError(
                f"{folder} is in use by process {owner or 'unknown'}; wait for it or end it, then run again"
            ) from None
        os.close(handle)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
        yield folder
    finally:
        os.close(handle)


def random_state() -> dict[str, Any]:
    """State of every global random number generator a network may draw from, as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - the global one is meant
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            [int(key) for key in keys],
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "python": [version, list(words), gauss],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators back to what ``random_state`` saw."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def seed_everything(seed: int) -> None:
    """Seed the same generators."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - networks may draw from the global one
    random.seed(seed)
