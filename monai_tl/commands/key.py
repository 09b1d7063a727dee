"""``monai-tl key``: make the secret behind all pseudonyms, or say that it is there."""

from __future__ import annotations

from pathlib import Path

from monai_tl.dicom.deidentify import Pseudonyms, create_key, load_key, seeded_key
from monai_tl.errors import ConfigError, PrivacyError

_NAME = "pseudonym.key"


def run(path: Path, seed: int | None = None) -> str:
    """Make a pseudonym key where there is none, and check the one that is there.

    Args:
        path: The key file; outside every git repository.
        seed: Derives a key that everyone can derive, for synthetic data only; None makes a secret one.

    Returns:
        One sentence for the user.

    Raises:
        ConfigError: The path is a folder's.
        PrivacyError: The existing key is unsafe, or is another one than the seed gives.
    """
    path = path.expanduser()
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the file to keep the key in, e.g. {path / _NAME}", "arguments")
    if path.exists():
        key = load_key(path)
        if seed is not None and key != seeded_key(seed):
            raise PrivacyError(f"the key at {path} is not the one of seed {seed}; give another path for the demo's key")
        return f"Pseudonym key {Pseudonyms(key).key_id} is at {path} already; nothing was changed."
    create_key(path, seed)
    try:
        key = load_key(path)
    except PrivacyError:
        # e.g. inside a repository: do not leave a secret in a place where it would be refused
        path.unlink()
        raise
    if seed is not None:
        return f"Made the public key {Pseudonyms(key).key_id} of seed {seed} at {path}: for synthetic data only."
    return (
        f"Made pseudonym key {Pseudonyms(key).key_id} at {path}. Keep a safe copy: without it new studies of a patient "
        "get other pseudonyms; deleting it makes the pseudonyms anonymous for good."
    )
