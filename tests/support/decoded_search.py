"""Every form in which a text can lie in a file: raw, packed, encoded, in a database, an archive, a DICOM value."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import json
import re
import sqlite3
import tempfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydicom
from plain_hashes import PlainHashes

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_ESCAPED = re.compile(rb"\\u[0-9a-fA-F]{4}|%[0-9a-fA-F]{2}|=[0-9A-F]{2}|\\x[0-9a-f]{2}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){12,}")
_GZIP, _SQLITE, _ZIP = b"\x1f\x8b\x08", b"SQLite format 3\0", b"PK\x03\x04"
_PRINTABLE = bytes(range(32, 127)) + b"\t\n\r\0"
_GUESSES = ("base64", "hex")
_MOST_TIMES = {"hex": 1, "escapes": 1, "utf-16": 1, "dicom": 1, "sqlite": 1}
_MAX_DEPTH = 4
_MAX_BYTES = 256 << 20


def all_forms(content: bytes, kinds: tuple[str, ...] = ()) -> Iterator[bytes]:
    """The bytes, and everything that can be decoded from them, and from that.

    Args:
        content: Of a file.
        kinds: How it was decoded so far; no way is taken more than twice.
    """
    yield content
    if len(kinds) >= _MAX_DEPTH or len(content) > _MAX_BYTES:
        return
    for kind, decode in _DECODERS.items():
        if kinds.count(kind) >= _MOST_TIMES.get(kind, 2):
            continue
        for found in decode(content):
            if not found or found == content:
                continue
            if kind in _GUESSES and not _means_something(found):
                # most of what looks like base64 is none, and decodes to noise
                yield found
            else:
                yield from all_forms(found, (*kinds, kind))


def _means_something(content: bytes) -> bool:
    """Whether bytes are packed, a database, or mostly text."""
    if content.startswith((_GZIP, _SQLITE, _ZIP, b"\x78")):
        return True
    head = content[:4096]
    return len(head.translate(None, _PRINTABLE)) < len(head) // 8


def _gunzipped(content: bytes) -> Iterator[bytes]:
    place = content.find(_GZIP)
    while place >= 0:
        unpacker = zlib.decompressobj(31)
        with contextlib.suppress(zlib.error):
            yield unpacker.decompress(content[place:], _MAX_BYTES)
        place = content.find(_GZIP, place + 1)
    if content[:1] == b"\x78":
        try:
            yield zlib.decompressobj().decompress(content, _MAX_BYTES)
        except zlib.error:
            return


def _unzipped(content: bytes) -> Iterator[bytes]:
    if not content.startswith(_ZIP):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield "\n".join(archive.namelist()).encode()
            for item in archive.infolist():
                yield archive.read(item)
    except (zipfile.BadZipFile, zlib.error, ValueError):
        return


def _rows(content: bytes) -> Iterator[bytes]:
    """Cells of all tables: a long one lies in pieces over pages of the file."""
    if not content.startswith(_SQLITE):
        return
    with tempfile.NamedTemporaryFile(suffix=".db") as copy:
        copy.write(content)
        copy.flush()
        # a copy that was cut, or whose log is missing, has been searched as bytes
        with contextlib.suppress(sqlite3.Error):
            yield from database_rows(Path(copy.name))


def database_rows(path: Path) -> Iterator[bytes]:
    """All cells of a SQLite file as bytes, what is still in its write-ahead log included."""
    with sqlite3.connect(path) as database:
        database.text_factory = bytes
        tables = [row[0].decode() for row in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            try:
                rows = database.execute(f'select * from "{table}"')
                yield b"\n".join(_bytes(cell) for row in rows for cell in row)
            except sqlite3.Error:
                continue
    database.close()


def _bytes(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()


def _from_base64(content: bytes) -> Iterator[bytes]:
    for found in _BASE64.findall(content):
        plain = found.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4 if len(plain) < 4096 else 1):
            part = plain[start:]
            part = part[: len(part) - (len(part) % 4 == 1)]
            try:
                yield base64.b64decode(part + b"=" * (-len(part) % 4), validate=True)
            except (binascii.Error, ValueError):
                continue


def _from_hex(content: bytes) -> Iterator[bytes]:
    for found in _HEX.findall(content):
        yield binascii.unhexlify(found)


def _unescaped(content: bytes) -> Iterator[bytes]:
    if not _ESCAPED.search(content):
        return
    text = content.decode("utf-8", "replace")
    yield urllib.parse.unquote(text).encode("utf-8", "replace")
    yield re.sub(r"\\+u([0-9a-fA-F]{4})", lambda one: chr(int(one[1], 16)), text).encode("utf-8", "replace")
    yield re.sub(rb"\\x([0-9a-f]{2})", lambda one: bytes([int(one[1], 16)]), content)
    yield re.sub(rb"=([0-9A-F]{2})", lambda one: bytes([int(one[1], 16)]), content)


def _from_utf16(content: bytes) -> Iterator[bytes]:
    if content.count(0) > len(content) // 8:
        yield content.replace(b"\0", b"")


def _dicom_values(content: bytes) -> Iterator[bytes]:
    if content[128:132] != b"DICM":
        return
    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
        yield "\n".join(str(element.value) for element in dataset.iterall()).encode("utf-8", "replace")
    except Exception:
        return


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "zip": _unzipped,
    "gzip": _gunzipped,
    "sqlite": _rows,
    "escapes": _unescaped,
    "base64": _from_base64,
    "hex": _from_hex,
    "utf-16": _from_utf16,
    "dicom": _dicom_values,
}


def found_in(
    folder: Path, texts: tuple[str, ...], is_left_out: Callable[[Path], bool] = lambda path: False
) -> list[str]:
    """Texts found below a folder: ``text in path``, or ``md5 of text in path``; names of files count.

    Args:
        folder: Searched whole, links not followed.
        texts: Of at least 8 characters.
        is_left_out: Paths that are not looked at.
    """
    forms: dict[bytes, str] = {}
    for text in texts:
        written = {text.encode(code, "replace") for code in ("utf-8", "latin-1")} | {json.dumps(text)[1:-1].encode()}
        forms |= {one.lower(): text for one in (*written, *_as_code(text))}
    # what all have in common is looked for first: one pass in place of hundreds
    stems, hashes = _stems(forms), PlainHashes(texts)
    found = set()
    for path in sorted(folder.rglob("*")):
        if is_left_out(path) or path.is_symlink():
            continue
        name = str(path.relative_to(folder))
        blobs = [name.encode("utf-8", "surrogateescape")]
        if path.is_file():
            blobs.append(path.read_bytes())
            if path.suffix == ".db":
                blobs += database_rows(path)
        for blob in blobs:
            for form in all_forms(blob):
                found |= {f"{one} in {name}" for one in hashes.found_in(form)}
                lower = form.lower()
                if any(stem in lower for stem in stems):
                    found |= {f"{text} in {name}" for one, text in forms.items() if one in lower}
    return sorted(found)


def _as_code(text: str) -> Iterator[bytes]:
    """Its letters and digits, cut to what DICOM's codes hold; none where chance makes such digits too."""
    plain = re.sub(r"[^A-Z0-9]", "", text.upper())[:16]
    if len(plain) >= 8 and re.search(r"[G-Z]", plain):
        yield plain.encode()


def _stems(forms: Iterable[bytes]) -> set[bytes]:
    """A few short pieces of which each form holds one."""
    stems: set[bytes] = set()
    for form in sorted(forms, key=len):
        if not any(stem in form for stem in stems):
            stems.add(form)
    return stems
