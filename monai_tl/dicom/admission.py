"""Which objects may be de-identified at all: what may show text in its pixels is held back, unknown kinds refused."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_tl.errors import DicomError

_STORAGE = "1.2.840.10008.5.1.4.1.1"
IMAGE_CLASSES = {
    f"{_STORAGE}.2": "CT",
    f"{_STORAGE}.2.1": "CT",
    f"{_STORAGE}.2.2": "CT",
    f"{_STORAGE}.4": "MR",
    f"{_STORAGE}.4.1": "MR",
    f"{_STORAGE}.4.4": "MR",
    f"{_STORAGE}.128": "PT",
    f"{_STORAGE}.130": "PT",
    f"{_STORAGE}.128.1": "PT",
}
"""CT, MR and PET: single frame, enhanced, legacy converted."""
LABEL_CLASSES = {f"{_STORAGE}.66.4": "SEG", f"{_STORAGE}.66.7": "SEG", f"{_STORAGE}.481.3": "RTSTRUCT"}
_PRONE_CLASSES = (
    f"{_STORAGE}.1", f"{_STORAGE}.3", f"{_STORAGE}.5", f"{_STORAGE}.6", f"{_STORAGE}.7", f"{_STORAGE}.12",
    f"{_STORAGE}.13", f"{_STORAGE}.14", f"{_STORAGE}.20", f"{_STORAGE}.77", f"{_STORAGE}.104", f"{_STORAGE}.481.1",
)  # fmt: skip
"""CR, DX, ultrasound, secondary capture, XA, XRF, 3D angiography, NM, visible light, documents, RT image."""
_PRONE_MODALITIES = frozenset((
    "CR", "DX", "IO", "MG", "PX", "RG", "RF", "XA", "BI", "CD", "CF", "DD", "DF", "DG", "DM", "DS", "EC", "ES", "FA",
    "FS", "GM", "HC", "HD", "IVOCT", "IVUS", "LP", "LS", "MA", "NM", "OP", "OPT", "OT", "SC", "SM", "ST", "TG", "US",
    "VF", "XC", "DOC", "RTIMAGE", "SR"
))  # fmt: skip
_PRONE_IMAGE_TYPES = frozenset(
    ("SECONDARY", "SCREEN SAVE", "SCREENSHOT", "SCREEN", "CAPTURE", "REPORT", "DOSE", "DOSE_INFO", "PROTOCOL", "PASTED",
     "SUMMARY", "EVIDENCE", "DISPLAY", "RENDERED", "VRT", "SSD")
)  # fmt: skip
_DICOMDIR = "1.2.840.10008.1.3.10"


def admit(dataset: Dataset, sop_class: str) -> bool:
    """Whether an object may be written once it is scrubbed.

    Args:
        dataset: As read.
        sop_class: Its class.

    Returns:
        Whether it has pixels.

    Raises:
        DicomError: Codes ``dicomdir`` and ``other_object`` for classes that are not on the list; ``prone_to_text``,
            ``burned_in``, ``burned_in_unknown``, ``screen_capture`` and ``recognizable_features`` for pixels that may
            show who it is.
    """
    modality = _text(dataset, "Modality")
    if sop_class == _DICOMDIR:
        raise DicomError("a DICOMDIR names patients and files; it is never written", "dicomdir")
    if modality in _PRONE_MODALITIES or _is_prone(sop_class):
        raise DicomError(
            "images and documents of this kind mostly show text in their pixels; look at them one by one",
            "prone_to_text",
        )
    expected = IMAGE_CLASSES.get(sop_class) or LABEL_CLASSES.get(sop_class)
    if not sop_class and modality in ("CT", "MR", "PT"):
        raise DicomError("the file does not say which kind of object it is; export it again", "other_object")
    if expected is None or modality != expected:
        raise DicomError(
            "the object is of a kind that is not on the list (CT, MR, PET, SEG, RTSTRUCT); it is not written",
            "other_object",
        )
    if expected == "RTSTRUCT":
        return False
    _check_pixels_are_clean(dataset, is_label=expected == "SEG")
    return True


def _is_prone(sop_class: str) -> bool:
    return any(sop_class == root or sop_class.startswith(f"{root}.") for root in _PRONE_CLASSES)


def _check_pixels_are_clean(dataset: Dataset, is_label: bool) -> None:
    burned_in = _text(dataset, "BurnedInAnnotation")
    if burned_in not in ("", "NO"):
        raise DicomError(
            "the header says that text is burned into the pixels, or does not rule it out; look at the image",
            "burned_in",
        )
    if _text(dataset, "RecognizableVisualFeatures") not in ("", "NO"):
        raise DicomError(
            "the header says that a person can be recognised in the image (RecognizableVisualFeatures); take it off",
            "recognizable_features",
        )
    image_type = [part.strip().upper() for part in _text(dataset, "ImageType").split("\\")]
    if any(part.startswith(word) for part in image_type for word in _PRONE_IMAGE_TYPES):
        raise DicomError(
            "the image was made after the examination, as screenshots are; look at it before it leaves",
            "screen_capture",
        )
    if is_label:
        return
    if _text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise DicomError(
            "a colour image of this kind is mostly a screenshot or a report with text in its pixels; it is held back",
            "colour",
        )
    if not burned_in and image_type[:2] != ["ORIGINAL", "PRIMARY"]:
        raise DicomError(
            "a derived image that does not say whether text is burned into its pixels (BurnedInAnnotation); look at it",
            "burned_in_unknown",
        )


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, (str, UID)) or not hasattr(value, "__iter__") else list(value)
    return "\\".join(str(part) for part in parts).strip().upper()
