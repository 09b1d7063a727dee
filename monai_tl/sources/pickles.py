"""A look into torch files before torch opens them: what they name, how many records they have, how far they inflate.

``torch.load(weights_only=True)`` runs no code, but what it lets a file call can still fill the memory: a pickle of
fifty bytes asks for a ``bytearray`` of any size, or has a text encoded as hex again and again. So fewer names are let
through here, and what stands in the file bounds what is read from it.
"""

from __future__ import annotations

import io
import lzma
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from monai_tl.errors import WeightsError

_INFLATION_CAP = 4
"""A torch file stores its records uncompressed; one that inflates to more than so many times its size is a bomb."""
_MOST_RECORDS = 1 << 16
_RECORD_MARK = b"PK\x01\x02"
"""Stands before each entry of an archive's list, so that entries can be counted before the list is read."""
_MOST_NAMES = 1 << 20
_ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.nn\.parameter Parameter"
    r"|torch (Size|device|[a-z][a-z0-9_]*|[A-Z][A-Za-z0-9]*Storage)"
    r"|torch\.storage (UntypedStorage|TypedStorage|_LegacyStorage)"
    r"|torch\.serialization _get_layout"
    r"|(builtins|__builtin__) (set|complex)"
    r"|_codecs encode"
    # torch refuses these unless the caller allows them
    r"|numpy(\._?core\.multiarray)? (scalar|dtype|ndarray|_reconstruct)|numpy\.dtypes [A-Za-z0-9]+"
)
"""Module and name of what a file of plain tensors may name; what is lower-case in torch itself, torch checks."""
_GROWING_CODECS = re.compile(r"(base64|bz2|hex|quopri|quotedprintable|uu|zip|zlib)(codec)?")
"""Encodings from bytes to bytes, which can be applied again to what they gave."""


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
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = archive.infolist()
            names = {record.filename.casefold() for record in records}
            inflated = sum(record.file_size for record in records)
            if inflated > allowed_bytes(len(content)):
                raise WeightsError(
                    f"{path}: would inflate from {len(content)} to {inflated} bytes; do not use this file"
                )
            if len(names) < len(records):
                raise WeightsError(f"{path}: holds two records of one name; do not use this file")
            # torch looks names up without regard to case
            for record in records:
                if record.filename.casefold().endswith(".pkl"):
                    yield archive.read(record)
    except (
        zipfile.BadZipFile, ValueError, OverflowError, OSError, EOFError, NotImplementedError, RuntimeError,
        zlib.error, lzma.LZMAError,
    ) as error:  # fmt: skip
        raise WeightsError(f"{path}: is a truncated or damaged torch file ({error}); fetch it again") from None


def _check_pickles(content: bytes, path: Path, n_most: int) -> None:
    stream = io.BytesIO(content)
    for _ in range(n_most):
        try:
            names, growing = _read_names(stream)
        except (ValueError, IndexError, KeyError, EOFError, pickle.UnpicklingError):
            return  # torch says what is wrong with it, and reads no further than this
        refused = sorted(name for name in names if not _ALLOWED.fullmatch(name))
        if growing and "_codecs encode" in names:
            refused.append(f"_codecs encode as {growing}")
        if refused:
            raise WeightsError(
                f"{path}: is a pickle that would run code or holds more than tensors, so it is not opened "
                f"({refused[0][:160].replace(' ', '.', 1)!r}); ask its maker for safetensors, or convert it on an "
                "isolated machine"
            )


def _read_names(stream: io.BytesIO) -> tuple[set[str], str]:
    """All that one pickle names, and an encoding in it that grows what it is applied to."""
    names: set[str] = set()
    growing = ""
    for n_read, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if n_read > 16 * _MOST_NAMES:
            raise ValueError("too long")
        if code.name in ("GLOBAL", "INST"):
            names.add(str(argument))
        elif code.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            names.add(code.name)
        elif isinstance(argument, str | bytes) and len(argument) < 32:
            text = argument if isinstance(argument, str) else argument.decode("latin-1")
            if _GROWING_CODECS.fullmatch(re.sub(r"[^a-z0-9]", "", text.casefold())):
                growing = text
    return names, growing
