"""A network as compiled code: torch.compile, with a cache that its user alone can write, and bits that repeat."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_tl.errors import ConfigError
from monai_tl.files import sha256_of

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
CODE_FOLDER = "compiled"
"""Beside the folders of checkpoints: code of one run serves the next, and a scratch twin has its partner's."""
_MARK = "compiling."


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
        ConfigError: The folder's path has a blank, at which torch cuts the compiler's command; others can write it.
        NotCompiledError: There is no compiler.
    """

    def __init__(self, network: nn.Module, folder: Path) -> None:
        # seconds to import, which a training without them need not wait for
        import torch._dynamo
        import torch._functorch.config
        import torch._inductor.config
        from torch._inductor import codecache

        self.network = network
        self.folder = _keep_code_in(folder / CODE_FOLDER / _machine())
        # a pool of processes would outlive a kill
        torch._inductor.config.compile_threads = 1
        # else they are in torch's own place, see below, whatever folder is set
        headers = str(self.folder / "headers")
        codecache._HEADER_DIR, codecache._HEADER_LOCK_DIR = headers, f"{headers}/locks"
        # beyond a number of compilations torch goes on without: a run that was resumed would reach it elsewhere
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        # else it comes after the forward pass has moved running statistics
        torch._functorch.config.force_non_lazy_backward_lowering = True
        self._find_instructions()
        self.restart()
        self._compiled = torch.compile(network, dynamic=False)

    def restart(self) -> None:
        """Forget what is compiled: other layers train from now on, or other networks were compiled before."""
        torch._dynamo.reset()
        self._is_made = False

    def __call__(self, image: Tensor) -> Tensor:
        """The network's output.

        Args:
            image: Shape (batch, channels, x, y, z).

        Raises:
            NotCompiledError: There is no compiler, or it cannot compile this network.
        """
        with self._explained(), nullcontext() if self._is_made else _marked(self.folder):
            result: Tensor = self._compiled(image)
        self._is_made = True
        return result

    def _find_instructions(self) -> None:
        """Let torch try what the processor's vector instructions are, which it asks once.

        A signal of the terminal that ended the trial would else be taken for a processor that has none.
        """
        from torch._inductor.cpu_vec_isa import invalid_vec_isa, pick_vec_isa
        from torch._inductor.exc import InvalidCxxCompiler

        with self._explained(), _marked(self.folder):
            if pick_vec_isa() is invalid_vec_isa and torch.backends.cpu.get_cpu_capability() != "DEFAULT":
                raise InvalidCxxCompiler

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from torch._dynamo import exc as faults
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

        try:
            yield
        except (
            faults.TorchDynamoException,
            faults.FailOnRecompileLimitHit,
            CppCompileError,
            InvalidCxxCompiler,
            FileNotFoundError,
        ) as error:
            cause = getattr(error, "inner_exception", error)
            is_compiler = isinstance(cause, CppCompileError | InvalidCxxCompiler | FileNotFoundError)
            advice = "torch.compile needs a C++ compiler: install g++, or give its path in CXX" if is_compiler else ""
            raise NotCompiledError(
                f"finetune.compile: {type(self.network).__name__} cannot be compiled here ({type(cause).__name__}); "
                f"{advice or f'remove {self.folder} and run again'}, or set it to false"
            ) from error


def _keep_code_in(folder: Path) -> Path:
    """Set the cache's folder, unless the environment has one that is not torch's own.

    That one has a name that all can guess, below a folder that all can write.

    Returns:
        The folder.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # set as soon as any part of torch.compile is imported
    given = os.environ.get(CACHE_VARIABLE)
    if given not in (None, default_cache_dir()):
        if _was_cut_off(Path(given)):
            raise ConfigError(
                f"{CACHE_VARIABLE}: a run was killed or failed while it compiled, and what it left half-written "
                f"would be run; empty {given}",
                "environment",
            )
        return Path(given)
    # not resolved: a link in its place would be followed
    folder = folder.absolute()
    if any(letter.isspace() for letter in str(folder)):
        raise ConfigError(
            "finetune.compile: the path of this workspace has a blank, at which torch cuts the compiler's command; set "
            f"{CACHE_VARIABLE} to a folder without one that you alone can write, or set it to false"
        )
    _close(folder.parent)
    if _was_cut_off(folder):
        # another process may be at it, too: it keeps what it has loaded
        gone = folder.with_name(f"{folder.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    _close(folder)
    os.environ[CACHE_VARIABLE] = str(folder)
    return folder


def _close(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"finetune.compile: others can write {folder}, and code is run from there; remove it, or set it to false"
        )


@contextmanager
def _marked(folder: Path) -> Iterator[None]:
    """Mark the folder while code is made: what a kill leaves half-written, torch would run without a look.

    The mark stays where making it fails, and is held as long as this process lives.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = folder / f"{_MARK}{os.getpid()}"
    # not seen before it is held
    unheld = folder / f"marking.{os.getpid()}"
    with unheld.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        unheld.rename(mark)
        yield
        mark.unlink(missing_ok=True)


def _was_cut_off(folder: Path) -> bool:
    for mark in folder.glob(f"{_MARK}*"):
        with suppress(FileNotFoundError), mark.open("r") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            # none: its process was done between our open and our lock
            if os.fstat(stream.fileno()).st_nlink:
                return True
    return False


class NotCompiledError(ConfigError):
    """torch.compile failed; the step was not taken."""


def _machine() -> str:
    """A name for the kind of processor: code is made for the one it is compiled on, and a disk may be shared."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return sha256_of(torch.__version__, torch.backends.cpu.get_cpu_capability(), *kind)[:16]
