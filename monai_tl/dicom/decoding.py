"""One compressed frame to stored values: what decoders do to odd and hostile streams stops here."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from monai_tl.dicom.codestream import declared_components, declared_size, is_cut
from monai_tl.errors import DicomError

# in order: pydicom's own RLE decoder is slow, and reads streams with slack that the fast one refuses
_PLUGINS = ("pyjpegls", "pylibjpeg", "pydicom")
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
"""Baseline, extended and lossless: their decoder is under the GPL, so the package does not require it."""
_UID = re.compile(r"[0-9.]{1,64}")
_MEND = "transfer the series again, uncompressed"


@dataclass(frozen=True)
class FrameForm:
    """What the header says of each frame of grey values."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    photometric: str = "MONOCHROME2"


def name_of(syntax: str) -> str:
    """A transfer syntax in words; private and unknown ones are ``unknown``, as their text could be anything."""
    uid = UID(syntax, IGNORE)
    return str(uid.name) if uid.is_transfer_syntax and not uid.is_private else "unknown"


def check_decoder(syntax: str) -> None:
    """See that frames of a transfer syntax can be decoded here.

    Raises:
        DicomError: Code ``unsupported_syntax``.
    """
    try:
        # pydicom's warning would quote what is no UID
        is_known = bool(_UID.fullmatch(syntax)) and bool(_plugins(get_decoder(UID(syntax))))
    except NotImplementedError:
        is_known = False
    if not is_known and syntax in _JPEG:
        raise DicomError(
            f"the pixels (transfer syntax {name_of(syntax)}) need a decoder that is not installed: pip install "
            f"'monai_tl[jpeg]' and ingest again (it is under the GPL), or {_MEND}",
            "unsupported_syntax",
        )
    if not is_known:
        raise DicomError(
            f"the pixels (transfer syntax {name_of(syntax)}) cannot be decoded; {_MEND}", "unsupported_syntax"
        )


def _plugins(decoder: Any) -> list[str]:
    """This package's own dependencies: another that happens to be installed may give other values, or abort."""
    return [name for name in _PLUGINS if name in decoder.available_plugins]


def decode_frame(frame: bytes, syntax: str, form: FrameForm) -> NDArray[Any]:
    """Decode one frame.

    Args:
        frame: Its stream, without items.
        syntax: Transfer syntax UID, one of ``check_decoder``.
        form: As the header says; the stream must agree.

    Returns:
        (rows, columns) integers as the decoder gives them; bits above BitsStored are not cleared.

    Raises:
        DicomError: Codes ``undecodable_pixels``, ``truncated_pixels``, ``colour``.
    """
    # what the stream itself says is allocated by the decoder: a bomb must be seen before
    declared = declared_size(frame)
    if declared is not None and declared[0] and declared != (form.rows, form.columns):
        raise DicomError(
            f"the compressed image has {declared[0]} x {declared[1]} pixels and the header says {form.rows} x "
            f"{form.columns}; transfer the series again",
            "undecodable_pixels",
        )
    if (declared_components(frame) or 1) != 1:
        # some decoders give one of the colours, others a picture of them in a row
        raise DicomError(
            "the compressed image is in colour and the header says grey values; it is mostly a screenshot", "colour"
        )
    if is_cut(frame):
        raise DicomError(
            f"the pixels (transfer syntax {name_of(syntax)}) are cut off before their end; transfer the series again",
            "truncated_pixels",
        )
    decoder = get_decoder(UID(syntax))
    for plugin in _plugins(decoder):
        values = _decoded(decoder, plugin, frame, syntax, form)
        if values is not None and values.shape == (form.rows, form.columns):
            return values
    raise DicomError(
        f"the pixels (transfer syntax {name_of(syntax)}) are damaged and cannot be decoded; {_MEND}",
        "undecodable_pixels",
    )


def _decoded(decoder: Any, plugin: str, frame: bytes, syntax: str, form: FrameForm) -> NDArray[Any] | None:
    facts = {
        "transfer_syntax_uid": UID(syntax),
        "rows": form.rows,
        "columns": form.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": form.bits_allocated,
        "bits_stored": form.bits_stored,
        "pixel_representation": int(form.is_signed),
        "photometric_interpretation": form.photometric,
        "pixel_keyword": "PixelData",
    }
    try:
        with warnings.catch_warnings():
            # about odd streams that are decoded all the same
            warnings.simplefilter("ignore")
            values, _ = decoder.as_array(encapsulate([frame]), raw=True, decoding_plugin=plugin, **facts)
    except (RuntimeError, ValueError, NotImplementedError, AttributeError, EOFError):
        return None
    except BaseException as error:
        # the RLE decoder panics over a segment that holds too much; that is no Exception
        if type(error).__name__ == "PanicException":
            return None
        raise
    return np.asarray(values)
