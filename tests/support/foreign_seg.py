"""SEG objects by highdicom alone, from the files on disk."""

from __future__ import annotations

import highdicom
import pydicom


def foreign_seg(path, pixels, reference, kind="BINARY", labels=("liver", "tumour", "vessel"), numbers=None, **options):
    """A SEG of (frames, rows, columns[, segments]); ``options`` go to highdicom."""
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=highdicom.sr.CodedConcept(f"1020000{number}", "SCT", label),
            algorithm_type="MANUAL",
        )
        for number, label in zip(numbers or range(1, len(labels) + 1), labels, strict=True)
    ]
    highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(one) for one in reference.paths],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="else",
        manufacturer_model_name="else",
        software_versions="1",
        device_serial_number="1",
        **options,
    ).save_as(path)
    return path


def edited(path, change):
    """The file after a change to its data set."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path
