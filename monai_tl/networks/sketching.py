"""Networks built without memory, and within bounds: what is stated in a file may be larger than any machine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MOST_TENSORS = 10_000
"""A network has at most a few thousand; each takes time, however small it is."""
_MOST_VALUES = 1 << 31
_BYTES_OF_A_VALUE = 4
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_COUNTED_OUT = (torch.linspace, torch.arange)


class TooLargeError(Exception):
    """A network is larger than what may be built here."""


def most_values() -> int:
    """How many numbers a network may hold: two thousand million, and no more than half of this machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_MOST_VALUES, memory // (2 * _BYTES_OF_A_VALUE))


class Weightless(TorchFunctionMode):
    """Makes new tensors without memory, as ``torch.device("meta")`` does, but leaves numbers that are counted out.

    Constructors make weights by ``empty`` and the like; what they compute from (rates along the depth, indices of a
    window) comes from ``linspace`` and ``arange``, and they look at it.

    Raises:
        TooLargeError: From within a constructor, as soon as it asks for more than may be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.limit = most_values()
        self.n_values = 0
        self.n_tensors = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Send the factories of weights to the meta device, and count what they make."""
        options = dict(kwargs or {})
        if func in _FACTORIES and options.get("device") is None:
            made = func(*args, **{**options, "device": "meta"})
            self.n_values += made.numel()
            self.n_tensors += 1
            self._check(self.n_values)
            return made
        if func in _COUNTED_OUT:
            self._check(func(*args, **{**options, "device": "meta"}).numel())
        elif func is torch.meshgrid:
            self._check(math.prod(one.numel() for one in args if isinstance(one, Tensor)))
        else:
            self._check(_broadcast_size(args))
        return func(*args, **options)

    def _check(self, n_values: int) -> None:
        if n_values > self.limit:
            raise TooLargeError(f"ask for more than {self.limit:,} numbers, which this machine does not build")
        if self.n_tensors > MOST_TENSORS:
            raise TooLargeError(f"ask for more than {MOST_TENSORS:,} tensors, which no network has")


def _broadcast_size(args: tuple[Any, ...]) -> int:
    """Entries of what comes of tensors that are combined entry by entry, 0 where they cannot be."""
    shapes = [one.shape for one in args if isinstance(one, Tensor)]
    if len(shapes) < 2:
        return 0
    try:
        return math.prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return 0
