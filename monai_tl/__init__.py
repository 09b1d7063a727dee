"""Transfer learning for medical image segmentation: DICOM in, a judged fine-tuned network and DICOM SEG out."""

__version__ = "0.1.0"
