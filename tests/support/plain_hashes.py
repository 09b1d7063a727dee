"""Hashes of texts that anybody can make again: without a key, or with a key that all know."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator

_NAMES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s")
# as long as the shortest name that is made of a hash here
_DIGITS = 12
_HEX = re.compile(rb"[0-9a-fA-F-]{12,}")
_BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{12,128}(?![A-Za-z0-9+/_-])")
# longer than any float is written
_NUMBER_DIGITS = 18
_NUMBER = re.compile(rb"(?<![0-9])[0-9]{18,}")


class PlainHashes:
    """The hashes of some texts, cut to what is enough to know them by, and the search for them.

    Args:
        texts: As they stand in a file; small and capital letters are tried too.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._hex: dict[bytes, str] = {}
        self._base64: dict[bytes, str] = {}
        self._numbers: dict[bytes, str] = {}
        for text in texts:
            for content in {one.encode(code, "replace") for one in _ways(text) for code in ("utf-8", "latin-1")}:
                for name, digest in _digests(content):
                    told = f"{name} of {text}"
                    self._hex[digest.hex()[:_DIGITS].encode()] = told
                    self._base64[base64.b64encode(digest).replace(b"+", b"-").replace(b"/", b"_")[:_DIGITS]] = told
                    # as UIDs and numbers of series are made: all of it, or the first 128 bits
                    for number in (int.from_bytes(digest, "big"), int.from_bytes(digest[:16], "big")):
                        self._numbers[str(number)[:_NUMBER_DIGITS].encode()] = told

    def found_in(self, content: bytes) -> set[str]:
        """E.g. ``md5 of KANARI``, for each that is there."""
        found = set()
        for run in _HEX.findall(content):
            digits = run.replace(b"-", b"").lower()
            found |= {self._hex[one] for one in _windows(digits) if one in self._hex}
        for run in _BASE64.findall(content):
            letters = run.replace(b"+", b"-").replace(b"/", b"_")
            found |= {self._base64[one] for one in _windows(letters) if one in self._base64}
        for run in _NUMBER.findall(content):
            if run[:_NUMBER_DIGITS] in self._numbers:
                found.add(self._numbers[run[:_NUMBER_DIGITS]])
        return found


def _ways(text: str) -> set[str]:
    return {text, text.lower(), text.upper(), text.strip()}


def _digests(content: bytes) -> Iterator[tuple[str, bytes]]:
    for name in _NAMES:
        yield name, hashlib.new(name, content, usedforsecurity=False).digest()
    text = content.decode("latin-1")
    for space in (uuid.NAMESPACE_DNS, uuid.NAMESPACE_OID, uuid.NAMESPACE_URL, uuid.NAMESPACE_X500):
        yield "uuid3", uuid.uuid3(space, text).bytes
        yield "uuid5", uuid.uuid5(space, text).bytes


def _windows(run: bytes) -> Iterator[bytes]:
    # each place, since letters of a name before it may be digits too: "face-" and then the hash
    return (run[at : at + _DIGITS] for at in range(len(run) - _DIGITS + 1))
