"""Modality look-up tables (PS3.3, C.11.1): a table of output values in the place of slope and intercept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.dicom.reading import BIG_ENDIAN, dicom_faults, read_file
from monai_tl.errors import DicomError


@dataclass(frozen=True)
class LookupTable:
    """Attributes:
    first: Stored value that the first entry is for.
    entries: Output values, uint16 little endian.
    """

    first: int
    entries: bytes

    def apply(self, stored: NDArray[Any]) -> NDArray[np.uint16]:
        """Output values of stored values of any shape; those before and after the table take its ends."""
        table = np.frombuffer(self.entries, dtype="<u2")
        index = np.clip(stored.astype(np.int32) - self.first, 0, len(table) - 1)
        return np.asarray(table[index], dtype=np.uint16)


def read_lookup(path: Path, is_signed: bool) -> LookupTable:
    """Read the table of a file.

    Args:
        path: A DICOM file with a ModalityLUTSequence.
        is_signed: Whether the stored values are.

    Raises:
        DicomError: Code ``lookup_table``: the table contradicts its own description.
    """
    dataset, meta = read_file(path, ("ModalityLUTSequence", "PixelRepresentation"))
    with dicom_faults("the modality look-up table cannot be read", "export with a rescale"):
        item = dataset.ModalityLUTSequence[0]
        count, first, bits = (int(value) for value in item.LUTDescriptor)
        # three values of one representation (US or SS) of which the second alone may be signed
        count, first = (
            (count & 0xFFFF) or 1 << 16,
            (first + (1 << 15)) % (1 << 16) - (1 << 15) if is_signed else first & 0xFFFF,
        )
        data = item.LUTData
        raw = data if isinstance(data, bytes) else np.asarray(data, dtype="<i4").astype("<u2").tobytes()
        if isinstance(data, bytes) and meta.transfer_syntax_uid == BIG_ENDIAN and item["LUTData"].VR == "OW":
            # pydicom leaves the order of words as it is in the file
            raw = np.frombuffer(raw, np.uint16).byteswap().tobytes()
    if bits == 8 and len(raw) in (count, count + count % 2):
        raw = np.frombuffer(raw[:count], dtype=np.uint8).astype("<u2").tobytes()
    if not 8 <= bits <= 16 or len(raw) < 2 * count:
        raise DicomError(
            f"the modality look-up table has {len(raw)} bytes for {count} entries of {bits} bits; export with a "
            "rescale",
            "lookup_table",
        )
    return LookupTable(first, raw[: 2 * count])
