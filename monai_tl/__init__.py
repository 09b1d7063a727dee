"""Transfer learning for medical image segmentation: DICOM in, a judged fine-tuned network and DICOM SEG out."""

__version__ = "0.1.0"

DEFAULT_KEY_FILE = "~/.config/monai_tl/pseudonym.key"
"""Where the secret behind all pseudonyms lies unless it is said otherwise."""
