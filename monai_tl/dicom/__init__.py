"""The DICOM edge: LPS, pydicom and highdicom end here."""
