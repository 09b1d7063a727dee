"""Pseudonyms by keyed hash: equal input and key give an equal pseudonym; without the key none can be reversed.

An unkeyed hash of a hospital number is undone in seconds by trying all numbers. Each kind of text has its own domain,
so that equal texts of different kinds give unrelated pseudonyms.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from functools import cache
from pathlib import Path
from typing import Literal

from monai_tl.errors import PrivacyError
from monai_tl.records import UNKNOWN_SITE

MIN_KEY_BYTES = 32

Domain = Literal["patient", "case", "uid", "file", "site", "replaced uid", "days", "text", "place", "cache"]
_MAX_DAYS = 3650
_PUBLIC_SEEDS = 10_000
_MIN_DIFFERENT_BYTES = 8
"""Of 64 random hex digits, 8 or more differ in all but one of 10¹⁸ keys."""


class Pseudonyms:
    """Keyed hashes of one project.

    Args:
        key: The secret, at least 32 bytes.

    Raises:
        PrivacyError: The key is too short.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise PrivacyError(
                f"the pseudonym key has {len(key)} bytes and needs {MIN_KEY_BYTES}; make one with 'monai-tl key'"
            )
        self._key = key

    def __repr__(self) -> str:
        return f"Pseudonyms({self.key_id})"

    @property
    def key_id(self) -> str:
        """8 hex digits that tell keys apart and say nothing about them."""
        return hashlib.sha256(b"monai_tl key id|" + self._key).hexdigest()[:8]

    def case_id(self, study_uid: str, series_uid: str) -> str:
        """``case-`` and 12 hex digits."""
        return f"case-{self._hex('case', f'{study_uid}|{series_uid}', 12)}"

    def patient_key(self, patient: str) -> str:
        """``patient-`` and 12 hex digits; for splitting only."""
        return f"patient-{self._hex('patient', patient, 12)}"

    def site(self, text: str) -> str:
        """``site-`` and 6 hex digits of an institution's name in any case and spacing; UNKNOWN_SITE without one."""
        name = " ".join(text.split()).casefold()
        return f"site-{self._hex('site', name, 6)}" if name else UNKNOWN_SITE

    def hash_uid(self, uid: str) -> str:
        """16 hex digits for a UID."""
        return self._hex("uid", uid, 16)

    def item(self, kind: str, text: str) -> str:
        """A name for rejected.json, e.g. ``series-`` and 12 hex digits."""
        return f"{kind}-{self._hex('file' if kind == 'file' else 'uid', text, 12)}"

    def uid(self, text: str) -> str:
        """A valid DICOM UID (``2.25.`` and a 128-bit number) derived from a text."""
        return f"2.25.{int.from_bytes(self._digest('uid', text)[:16], 'big')}"

    def replaced_uid(self, uid: str) -> str:
        """The UID that stands for another one wherever it is named: ``2.25.`` and a 128-bit number."""
        return f"2.25.{int.from_bytes(self._digest('replaced uid', uid)[:16], 'big')}"

    def days_back(self, patient: str) -> int:
        """By how many days (1 to 3650) the dates of a patient are moved into the past; the same in every run."""
        return 1 + int.from_bytes(self._digest("days", patient)[:8], "big") % _MAX_DAYS

    def text(self, text: str) -> str:
        """8 hex digits that stand for a text nobody may read: equal texts stay equal."""
        return self._hex("text", text, 8)

    def place(self, text: str) -> str:
        """16 hex digits: the name of a file or folder."""
        return self._hex("place", text, 16)

    def cache_key(self, *parts: str) -> str:
        """64 hex digits: the name of a result that was made of these texts, of which some may identify."""
        return self._hex("cache", json.dumps(parts), 64)

    def _hex(self, domain: Domain, text: str, digits: int) -> str:
        return self._digest(domain, text).hex()[:digits]

    def _digest(self, domain: Domain, text: str) -> bytes:
        # surrogateescape: a file name need not be valid UTF-8
        message = f"{domain}|{text}".encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, message, "sha256")


def load_key(path: Path) -> bytes:
    """Read the project's secret.

    Raises:
        PrivacyError: It is missing, others may read it, it lies in a git repository, or it is too short.
    """
    path = path.expanduser()
    if path.is_dir():
        raise PrivacyError(f"the pseudonym key {path} is a folder; give the file in it that holds the key")
    if not path.is_file():
        raise PrivacyError(f"there is no pseudonym key at {path}; make one with 'monai-tl key {path}'")
    repository = next((parent for parent in path.resolve().parents if (parent / ".git").exists()), None)
    if repository is not None:
        raise PrivacyError(
            f"the pseudonym key {path} lies inside the git repository {repository}, where it could be shared; "
            "move it out and give its new place with --key-file (in a workspace: ingest.key_file of params.yaml)"
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PrivacyError(f"others may read the pseudonym key {path} (mode {mode:04o}); run 'chmod 600 {path}'")
    key = path.read_bytes().strip()
    if len(key) < MIN_KEY_BYTES:
        raise PrivacyError(
            f"the pseudonym key {path} has {len(key)} bytes and needs {MIN_KEY_BYTES}; "
            f"remove it and make one with 'monai-tl key {path}'"
        )
    return key


def create_key(path: Path, seed: int | None = None) -> bytes:
    """Write a new secret, mode 0600; never over an existing file.

    Args:
        path: Where; folders are made (mode 0700).
        seed: None takes 256 random bits. A number derives a key that everyone can derive: for synthetic data only, so
            that a demo has the same case ids everywhere.

    Raises:
        PrivacyError: The file is there already.
    """
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = (secrets.token_hex(MIN_KEY_BYTES) if seed is None else seeded_key(seed).decode("ascii")) + "\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise PrivacyError(
            f"there is a pseudonym key at {path} already; a new one would give every patient a new pseudonym. "
            "Remove it by hand if that is wanted"
        ) from None
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return content.strip().encode("ascii")


def seeded_key(seed: int) -> bytes:
    """The public key of a seed: no secret at all; for synthetic data only."""
    return hashlib.sha256(f"monai_tl synthetic data key|{seed}".encode("ascii")).hexdigest().encode("ascii")


def check_secret(key: bytes) -> None:
    """Refuse a key under which anybody can undo the pseudonyms, where real patients' are made.

    Raises:
        PrivacyError: It is one of the public keys of a seed (0 to 9999), or hardly anything to guess.
    """
    if key.lower() in _public_keys():
        raise PrivacyError(
            "the pseudonym key is a public one, made with --demo-seed for synthetic data: anybody could undo the "
            "pseudonyms; make a secret one with 'monai-tl key FILE' and give it with --key-file FILE"
        )
    n_different = len(set(key))
    if n_different < _MIN_DIFFERENT_BYTES:
        raise PrivacyError(
            f"the pseudonym key has only {n_different} different characters and can be guessed; make one with "
            "'monai-tl key FILE' and give it with --key-file FILE"
        )


@cache
def _public_keys() -> frozenset[bytes]:
    return frozenset(map(seeded_key, range(_PUBLIC_SEEDS)))
