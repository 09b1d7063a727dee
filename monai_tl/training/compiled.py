"""A network as compiled code: torch.compile, with a cache that its user alone can write, and bits that repeat."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_tl.errors import ConfigError
from monai_tl.files import sha256_of

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
CODE_FOLDER = "compiled"
"""Beside the folders of checkpoints: code of one run serves the next, and a scratch twin has its partner's."""


class CompiledNetwork:
    """Stands in for a network's forward pass in training; weights, mode and gradients stay the network's.

    Code is compiled when the first batch comes, forward and backward pass together, for what trains then and for the
    shape of that batch; ``restart`` before anything of that changes. Code that an earlier process made comes from the
    cache, and gives the same bits.

    Args:
        network: On its device; its input has one shape.
        folder: The cache is in its folder ``compiled``, made for this user alone: code is run from there.
            ``TORCHINDUCTOR_CACHE_DIR`` of the environment goes first.

    Raises:
        ConfigError: The folder's path has a blank, at which torch cuts the compiler's command.
    """

    def __init__(self, network: nn.Module, folder: Path) -> None:
        # seconds to import, which a training without them need not wait for
        import torch._dynamo
        import torch._functorch.config
        import torch._inductor.config

        self.network = network
        _keep_code_in(folder / CODE_FOLDER / _machine())
        # a pool of processes would outlive a kill
        torch._inductor.config.compile_threads = 1
        # beyond a number of compilations torch goes on without: a run that was resumed would reach it elsewhere
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        # else it comes after the forward pass has moved running statistics, and a stop must find all as it was
        torch._functorch.config.force_non_lazy_backward_lowering = True
        self.restart()
        self._compiled = torch.compile(network, dynamic=False)

    def restart(self) -> None:
        """Forget what is compiled: other layers train from now on, or other networks were compiled before."""
        torch._dynamo.reset()

    def __call__(self, image: Tensor) -> Tensor:
        """The network's output.

        Args:
            image: Shape (batch, channels, x, y, z).

        Raises:
            NotCompiledError: There is no compiler, or it cannot compile this network.
        """
        faults = torch._dynamo.exc
        try:
            result: Tensor = self._compiled(image)
            return result
        except (faults.TorchDynamoException, faults.FailOnRecompileLimitHit) as error:
            cause = getattr(error, "inner_exception", error)
            raise NotCompiledError(
                f"finetune.compile: {type(self.network).__name__} cannot be compiled here ({type(cause).__name__}); "
                "torch.compile needs a C++ compiler (g++, or its path in CXX); install one, or set it to false"
            ) from error


def _keep_code_in(folder: Path) -> None:
    """Set the cache's folder, unless the environment has one that is not torch's own.

    That one has a name that all can guess, below a folder that all can write.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # set as soon as any part of torch.compile is imported
    if os.environ.get(CACHE_VARIABLE) not in (None, default_cache_dir()):
        return
    if any(letter.isspace() for letter in str(folder.resolve())):
        raise ConfigError(
            "finetune.compile: the path of this workspace has a blank, at which torch cuts the compiler's command; set "
            f"{CACHE_VARIABLE} to a folder without one that you alone can write, or set it to false"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # below it all is closed too, whatever its mode; and one that was there may have been open
    folder.chmod(0o700)
    os.environ[CACHE_VARIABLE] = str(folder.resolve())


class NotCompiledError(ConfigError):
    """torch.compile failed; nothing of the network or of the random state has changed."""


def _machine() -> str:
    """A name for the kind of processor: code is made for the one it is compiled on, and a disk may be shared."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return sha256_of(torch.__version__, torch.backends.cpu.get_cpu_capability(), *kind)[:16]
