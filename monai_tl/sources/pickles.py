"""A look into torch files before torch opens them: what they name and call, how many records, how far they inflate.

``torch.load(weights_only=True)`` runs no code, but what it lets a file call can still fill the memory: a pickle of
fifty bytes asks for a ``bytearray`` of any size, or has a text encoded as hex again and again. So fewer names are let
through here, and what stands in the file bounds what is read from it. All is checked before torch reads anything, and
what cannot be read here to its end torch does not get.
"""

from __future__ import annotations

import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from monai_tl.errors import WeightsError
from monai_tl.sources.rehearsal import RefusedError, rehearse

_INFLATION_CAP = 4
"""A torch file stores its records uncompressed; one that inflates to more than so many times its size is a bomb."""
_MOST_RECORDS = 1 << 16
_RECORD_MARK = b"PK\x01\x02"
"""Stands before each entry of an archive's list, so that entries can be counted before the list is read."""
_END = struct.Struct("<4s6xHIIH")
_WIDE_PLACE = struct.Struct("<4s4xQ4x")
_WIDE_END = struct.Struct("<4s20xQQQQ")


def allowed_bytes(n_bytes: int) -> int:
    """How much a file of so many bytes may claim to hold."""
    return _INFLATION_CAP * n_bytes + (1 << 20)


def check_torch_file(content: bytes, path: Path) -> None:
    """Refuse what names more than tensors need, or would grow beyond its size.

    Args:
        content: The file's bytes: a zip archive, or pickles one after another.
        path: For the message.

    Raises:
        WeightsError: The file is damaged, would inflate, or names something else.
    """
    if content[:2] == b"PK":
        for record in _archived_pickles(content, path):
            _check_pickles(record, path, n_most=1)
    else:
        # the old form has a number, a version, facts of the machine, the content and the keys of what follows
        _check_pickles(content, path, n_most=5)


def _archived_pickles(content: bytes, path: Path) -> Iterator[bytes]:
    if content.count(_RECORD_MARK) > _MOST_RECORDS:
        raise WeightsError(f"{path}: is an archive of more than {_MOST_RECORDS} records; do not use this file")
    if not _has_one_list(content):
        raise WeightsError(
            f"{path}: is a truncated or damaged torch file (its list of records is not at its end); fetch it again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = archive.infolist()
            # as they stand in the file: torch knows no other forms of a name, and looks it up without regard to case
            names = [record.orig_filename.casefold() for record in records]
            inflated = sum(record.file_size for record in records)
            if inflated > allowed_bytes(len(content)):
                raise WeightsError(
                    f"{path}: would inflate from {len(content)} to {inflated} bytes; do not use this file"
                )
            if len(set(names)) < len(names):
                raise WeightsError(f"{path}: holds two records of one name; do not use this file")
            for record, name in zip(records, names, strict=True):
                if name.endswith(".pkl"):
                    yield archive.read(record)
    except (
        zipfile.BadZipFile, ValueError, OverflowError, OSError, EOFError, NotImplementedError, RuntimeError,
        zlib.error, lzma.LZMAError,
    ) as error:  # fmt: skip
        raise WeightsError(f"{path}: is a truncated or damaged torch file ({error}); fetch it again") from None


def _has_one_list(content: bytes) -> bool:
    """Whether an archive ends with its list of records, at the place the end gives for it.

    Python's reader makes up for bytes before the archive and looks for the wide form of the end where it should be;
    torch's goes where it is sent. Whoever makes the two differ has one archive checked and another read.
    """
    at = len(content) - _END.size
    if at < 0:
        return False
    mark, _, size, place, n_comment = _END.unpack_from(content, at)
    wide = at - _WIDE_PLACE.size
    if wide >= _WIDE_END.size and content[wide : wide + 4] == b"PK\x06\x07":
        at = wide - _WIDE_END.size
        _, named = _WIDE_PLACE.unpack_from(content, wide)
        wide_mark, _, _, size, place = _WIDE_END.unpack_from(content, at)
        if named != at or wide_mark != b"PK\x06\x06":
            return False
    return bool(mark == b"PK\x05\x06" and n_comment == 0 and place + size == at)


def _check_pickles(content: bytes, path: Path, n_most: int) -> None:
    stream = io.BytesIO(content)
    try:
        for _ in range(n_most):
            rehearse(stream)
    except RefusedError as refused:
        raise WeightsError(
            f"{path}: is a pickle that would run code or holds more than tensors, so it is not opened "
            f"({str(refused)[:160]!r}); ask its maker for safetensors, or convert it on an "
            "isolated machine"
        ) from None
    except (ValueError, IndexError, KeyError, EOFError, pickle.UnpicklingError) as error:
        # torch runs all that stands before the fault
        raise WeightsError(
            f"{path}: is a truncated or damaged torch file ({str(error)[:160]}); fetch it again"
        ) from None
