"""Random numbers that nobody can foresee without the workspace's secret, and that come again to the bit with it.

Noise hides a patient only from those who cannot compute it, and sampling hides who was in a step likewise. A generator
seeded by params.yaml, or by torch's 32 bits, hides nothing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_tl.errors import PrivacyError

KEY_FILE = "privacy.key"
"""Below ``.monai_tl``."""
_N_BYTES = 32
_N_SUMMED = 4
_CHUNK = 1 << 20


class SecretNumbers:
    """Streams of one training: each a function of the secret, the training, a purpose and a step.

    SHAKE-256 over them gives the bits: a cryptographic generator without a state that could be lost.

    Args:
        secret: 32 bytes.
        training: What tells this training from all others: two that differ in data or settings must share no noise,
            or their difference would have none.
    """

    def __init__(self, secret: bytes, training: str) -> None:
        self._prefix = hashlib.sha3_256(b"monai_tl noise|" + secret + b"|" + training.encode()).digest()

    def __repr__(self) -> str:
        return f"SecretNumbers({self.identity})"

    @property
    def identity(self) -> str:
        """16 hex digits that tell secrets apart and say nothing about them."""
        return self._bits("identity", 0, 8).hex()

    def _bits(self, purpose: str, step: int, n_bytes: int, part: int = 0) -> bytes:
        head = self._prefix + step.to_bytes(8, "little") + part.to_bytes(8, "little")
        return hashlib.shake_256(head + purpose.encode()).digest(n_bytes)

    def _uniform(self, purpose: str, step: int, count: int, part: int = 0) -> NDArray[np.float64]:
        """(count,), above 0 and up to 1, 53 bits each."""
        words = np.frombuffer(self._bits(purpose, step, 8 * count, part), dtype="<u8")
        return ((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def chosen(self, step: int, count: int, rate: float) -> list[int]:
        """Poisson sampling: which of ``count`` are in a step, each with the chance ``rate`` by itself."""
        return np.flatnonzero(self._uniform("who", step, count) <= rate).tolist()

    def normal(self, name: str, step: int, count: int) -> NDArray[np.float64]:
        """(count,) standard normal numbers for a tensor in a step.

        Each is half the sum of four, so that the grid of floating-point numbers does not tell a sum from its noise.

        References:
            Holohan and Braghin 2021, arXiv:2107.10138; Opacus' ``secure_mode`` does the same.
        """
        parts = []
        for part, start in enumerate(range(0, count, _CHUNK)):
            size = min(_CHUNK, count - start)
            uniform = self._uniform(f"noise|{name}", step, size * _N_SUMMED, part)
            radius = np.sqrt(-2.0 * np.log(uniform[: size * 2]))
            angle = 2.0 * np.pi * uniform[size * 2 :]
            # Box and Muller: two from each pair
            sums = radius * (np.cos(angle) + np.sin(angle))
            parts.append((sums[:size] + sums[size:]) / 2.0)
        return np.concatenate(parts) if parts else np.zeros(0)


def load_secret(state: Path) -> bytes:
    """Read the workspace's secret, or make it.

    It is no output: nothing that leaves the workspace holds it. Whoever has it and the weights can take the noise away.

    Args:
        state: ``.monai_tl`` of the workspace.

    Raises:
        PrivacyError: Others may read it, or it is cut off.
    """
    path = state / KEY_FILE
    state.mkdir(parents=True, exist_ok=True)
    part = state / f"{KEY_FILE}.{os.getpid()}"
    if not path.exists():
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_N_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            # of two processes at once one wins, and both read the winner's
            os.link(part, path)
        except FileExistsError:
            pass
        finally:
            part.unlink()
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise PrivacyError(f"{path} can be read by others, and with it the noise be taken away; chmod 600 {path}")
    secret = path.read_bytes()
    if len(secret) != _N_BYTES:
        raise PrivacyError(f"{path} has {len(secret)} bytes and not {_N_BYTES}; remove it, and train again")
    return secret
