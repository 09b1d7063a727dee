"""The search that row 5 rests on: a text is found in each form in which a run could leave it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import sqlite3
import urllib.parse
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.uid
import pytest
from decoded_search import found_in

TEXT = "KANARI^Änne07B"
RAW = f"before {TEXT} after".encode()


def _zip(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", content)
    return made.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {
    "raw": lambda: RAW,
    "latin-1": lambda: RAW.decode().encode("latin-1"),
    "upper case": lambda: RAW.decode().upper().encode(),
    "UTF-16": lambda: RAW.decode().encode("utf-16-le"),
    "gzip": lambda: gzip.compress(RAW),
    "gzip in other bytes": lambda: b"head" + gzip.compress(RAW) + b"tail",
    "zlib": lambda: zlib.compress(RAW),
    "base64": lambda: b'{"result": "' + base64.b64encode(RAW) + b'"}',
    "base64 of an address": lambda: base64.urlsafe_b64encode(RAW * 3),
    "base64 after letters": lambda: b"ab" + base64.b64encode(RAW),
    "gzip in base64": lambda: base64.b64encode(gzip.compress(RAW)),
    "hexadecimal": lambda: RAW.hex().encode(),
    "JSON": lambda: json.dumps({"name": TEXT}).encode(),
    "JSON in JSON": lambda: json.dumps(json.dumps({"name": TEXT})).encode(),
    "percent": lambda: urllib.parse.quote(f"/data/{TEXT}/a").encode(),
    # as a code of a fixed form is made of a free text
    "letters and digits": lambda: b"KANARINNE07B",
    "zip": lambda: _zip(RAW),
    "base64 in gzip in zip": lambda: _zip(gzip.compress(base64.b64encode(RAW))),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_text_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.bin").write_bytes(FORMS[form]())
    assert found_in(tmp_path, (TEXT,)) == [f"{TEXT} in a.bin"]
    assert found_in(tmp_path, ("KANARI^Otto07B",)) == []


def test_names_databases_and_arrays(tmp_path: Path) -> None:
    (tmp_path / TEXT).mkdir()
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table log (id, line)")
        # longer than a page, so that it lies in pieces in the file
        database.execute("insert into log values (1, ?)", ("x" * 5000 + TEXT + "y" * 9000,))
        database.commit()
        np.save(tmp_path / "a.npy", np.frombuffer(RAW, np.uint8))
        found = found_in(tmp_path, (TEXT,))
    assert {f"{TEXT} in {name}" for name in (TEXT, "a.db", "a.npy")} <= set(found)


SHA = hashlib.sha256(TEXT.encode()).digest()
HASHES: dict[str, Callable[[], bytes]] = {
    "sha256 of": lambda: SHA.hex().encode(),
    # cut short, as case ids are
    "sha256  of": lambda: b"case-" + SHA.hex()[:12].encode(),
    "sha256 of ": lambda: b'{"who": "' + base64.b64encode(SHA) + b'"}',
    "sha256 of  ": lambda: gzip.compress(b"2.25." + str(int.from_bytes(SHA[:16], "big")).encode()),
    "md5 of": lambda: hashlib.md5(TEXT.encode("latin-1")).hexdigest().upper().encode(),
    "sha1 of": lambda: base64.urlsafe_b64encode(hashlib.sha1(TEXT.lower().encode()).digest()),
    "uuid5 of": lambda: str(uuid.uuid5(uuid.NAMESPACE_OID, TEXT)).encode(),
    # how pydicom makes one of a text
    "sha512 of": lambda: pydicom.uid.generate_uid(entropy_srcs=[TEXT]).encode(),
}


@pytest.mark.parametrize("form", HASHES)
def test_a_hash_without_a_key_is_found(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.bin").write_bytes(HASHES[form]())
    assert f"{' '.join(form.split())} {TEXT} in a.bin" in found_in(tmp_path, (TEXT,))
    assert found_in(tmp_path, ("KANARI^Otto07B",)) == []
