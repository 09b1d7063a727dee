"""Several processes that train one network, each on its share of every batch; torchrun starts them.

Parameters, optimiser and average are the same in all of them, bit by bit, because each takes the same steps from the
same summed gradients. The first alone writes.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from monai_tl.errors import ConfigError, RankLostError
from monai_tl.torchrun import started_ranks

T = TypeVar("T")

TIMEOUT = datetime.timedelta(hours=2)
"""The others wait for the first while it validates, writes or looks for a rate. One that died is noticed at once."""


class Ranks:
    """This process among those that train together; as it is made, the only one.

    Args:
        rank: Number of this process, from 0.
        n_ranks: How many there are.
    """

    def __init__(self, rank: int = 0, n_ranks: int = 1) -> None:
        self.rank = rank
        self.n_ranks = n_ranks

    @property
    def is_first(self) -> bool:
        """Whether this process writes for all."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether anything has to be agreed on."""
        return self.n_ranks > 1

    def share(self, batch_size: int) -> slice:
        """Which samples of a batch are this process's; all shares have the same size."""
        size = batch_size // self.n_ranks
        return slice(self.rank * size, (self.rank + 1) * size)

    def mean_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> float:
        """Put the mean over all shares in place of the gradients, in one transfer.

        Args:
            parameters: Those that train, in the same order everywhere; without a gradient in one process is without
                in all.
            loss: Of this share; scalar.

        Returns:
            The loss of the whole batch: the mean over the shares.
        """
        value = loss.detach()
        if not self.are_several:
            return float(value)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), value.reshape(1).to(gradients[0].dtype)])
        with _noticing_loss():
            dist.all_reduce(flat)
        flat /= self.n_ranks
        parts = torch.split(flat[:-1], [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return float(flat[-1])

    def largest(self, *values: int) -> tuple[int, ...]:
        """Of each value the largest that any process gives."""
        if not self.are_several:
            return values
        tensor = torch.tensor(values)
        with _noticing_loss():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tuple(tensor.tolist())

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, which alone calls it."""
        if not self.are_several:
            return make()
        box: list[Any] = [make() if self.is_first else None]
        with _noticing_loss():
            dist.broadcast_object_list(box, src=0)
        return cast("T", box[0])

    def from_all(self, value: T) -> list[T]:
        """What each process gives, in the order of their numbers."""
        if not self.are_several:
            return [value]
        found: list[Any] = [None] * self.n_ranks
        with _noticing_loss():
            dist.all_gather_object(found, value)
        return found

    def check(self, batch_size: int, key: str) -> None:
        """See that the processes can do this training together.

        Args:
            batch_size: Of all shares together.
            key: Hash of what decides the result.

        Raises:
            ConfigError: The batch cannot be shared evenly, or another process has other data, settings or code.
        """
        if batch_size % self.n_ranks:
            raise ConfigError(
                f"finetune.batch_size: is {batch_size}, which {self.n_ranks} processes cannot share evenly; set a "
                f"multiple of {self.n_ranks}, or start fewer processes"
            )
        if len(set(self.from_all(key))) > 1:
            raise ConfigError(
                "the processes have different data, settings, code or versions; give all of them the same workspace "
                "and the same installation",
                "torchrun",
            )


@contextmanager
def _noticing_loss() -> Iterator[None]:
    try:
        yield
    # gloo and NCCL tell of a lost peer by nothing finer
    except RuntimeError as error:
        raise RankLostError(
            "another of the processes that train together ended; what it said is above. Nothing is lost: start all of "
            "them again with the same command, and training goes on from the last checkpoint"
        ) from error


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the other processes where torchrun started this one; else it trains alone."""
    _, n_ranks = started_ranks()
    if n_ranks == 1:
        yield Ranks()
        return
    # small things are agreed on between processors also where gradients travel between GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), n_ranks)
    finally:
        dist.destroy_process_group()


def refuse_batch_statistics(network: nn.Module) -> None:
    """See that no layer normalises by, or gathers, statistics of a share where alone it would by those of the batch.

    Args:
        network: In training mode, frozen as it trains.

    Raises:
        ConfigError: One does.
    """
    if moving := layers_with_batch_statistics(network):
        raise ConfigError(
            f"finetune.norm_statistics: layer {moving[0]} takes statistics of its batch, and each process sees only a "
            "share of it; set finetune.norm_statistics to source where the source has statistics, take a network with "
            "instance or group normalisation, or train in one process"
        )


def layers_with_batch_statistics(network: nn.Module) -> list[str]:
    """Names of the layers that normalise by statistics over their batch, or gather them.

    Args:
        network: In training mode, frozen as it trains.
    """
    # the base classes of all kinds are exported nowhere
    any_norm, batch_norm = nn.modules.batchnorm._NormBase, nn.modules.batchnorm._BatchNorm
    return [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, any_norm)
        and layer.training
        and (isinstance(layer, batch_norm) or layer.track_running_stats)
    ]
