"""What an nnU-Net checkpoint holds beside tensors is left out, so that torch's safe reader takes the rest.

nnU-Net saves its training log with the weights: numpy numbers, whose reconstruction ``torch.load(weights_only=True)``
refuses. Here each of numpy's few reconstructors is replaced by one that keeps nothing. Nothing of numpy is called, and
any other name is still refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_PLACES = ("numpy._core.multiarray", "numpy.core.multiarray")
"""numpy 2 and 1."""
_NUMBERS = (
    *("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    *("Float16", "Float32", "Float64"),
)


class LeftOut:
    """Takes the place of a number, an array or its type."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def _nothing(*_: object) -> LeftOut:
    return LeftOut()


def _stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    names = [f"{place}.{name}" for place in _PLACES for name in ("scalar", "_reconstruct")]
    kinds = ["numpy.dtype", "numpy.ndarray", *(f"numpy.dtypes.{name}DType" for name in _NUMBERS)]
    return [*((_nothing, name) for name in [*names, "_codecs.encode"]), *((LeftOut, name) for name in kinds), LeftOut]


@contextmanager
def records_left_out() -> Iterator[None]:
    """Within this block ``torch.load(weights_only=True)`` reads numpy's numbers and arrays as nothing."""
    with torch.serialization.safe_globals(_stand_ins()):
        yield
