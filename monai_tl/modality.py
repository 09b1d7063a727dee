"""Modality, as far as the standard knows it: any other text may be a name, and is not passed on."""

from __future__ import annotations

MODALITY_OF = {
    f"1.2.840.10008.5.1.4.1.1.{tail}": modality
    for modality, tails in {
        "CT": ("2", "2.1", "2.2"), "MR": ("4", "4.1", "4.4"), "PT": ("128", "130", "128.1"),
    }.items()
    for tail in tails
}  # fmt: skip
"""SOP class → modality, for files whose Modality was blanked."""
# PS3.3, C.7.3.1.1.1, with the retired ones
_TERMS = frozenset((
    "ANN", "AR", "AS", "ASMT", "AU", "BDUS", "BI", "BMD", "CD", "CF", "CFM", "CP", "CR", "CS", "CT", "CTPROTOCOL", "DD",
    "DF", "DG", "DM", "DMS", "DOC", "DS", "DX", "EC", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FA", "FID", "FS", "GM",
    "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LP", "LS", "M3D", "MA", "MG", "MR", "MS", "NM",
    "OAM", "OCT", "OP", "OPM", "OPR", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT",
    "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN",
    "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "ST", "STAIN", "TEXTUREMAP", "TG", "TH", "US", "VA", "VF", "XA",
    "XAPROTOCOL", "XC",
))  # fmt: skip


def known_modality(text: str, sop_class: str = "") -> str:
    """A defined term, from Modality or else from the kind of object; empty where neither tells."""
    return text if text in _TERMS else MODALITY_OF.get(sop_class, "")
