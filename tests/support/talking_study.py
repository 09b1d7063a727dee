"""A study of one patient that says who they are in every place DICOM has for it: CT, enhanced CT, RTSTRUCT and SEG."""

from __future__ import annotations

import struct
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from canaries import Canaries, bits_of
from dicom_files import CT_CLASS, save, slice_dataset, write_rtstruct
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

SHAPE = (6, 32, 40)
STEP = 2.5
STUDY_DATE, LATER_DATE = "19340712", "19340930"
PATIENT_NUMBER = "7340918265"
_ROOT = "1.2.826.0.1.3680043.10.5431"
_TEXTS = {
    "AE": ("StationAETitle", "RetrieveAETitle", "ScheduledStationAETitle"),
    "CS": ("BodyPartExamined", "ScanOptions", "PatientSexNeutered", "ImageLaterality"),
    "LO": (
        "InstitutionName", "StudyDescription", "SeriesDescription", "Manufacturer", "ManufacturerModelName",
        "ProtocolName",
        "DeviceSerialNumber", "SoftwareVersions", "IssuerOfPatientID", "OtherPatientIDs", "MedicalAlerts", "Allergies",
        "InstitutionalDepartmentName", "RequestedProcedureDescription", "CurrentPatientLocation",
        "ClinicalTrialSponsorName",
        "WindowCenterWidthExplanation", "ContrastBolusAgent",
    ),
    "LT": ("PatientComments", "ImageComments", "AdditionalPatientHistory"),
    "PN": ("ReferringPhysicianName", "OperatorsName", "PatientMotherBirthName", "NameOfPhysiciansReadingStudy"),
    "SH": ("AccessionNumber", "StudyID", "StationName", "FilterType", "Occupation", "EthnicGroup"),
    "ST": ("InstitutionAddress", "DerivationDescription"),
    "UC": ("LongCodeValue",),
    "UR": ("RetrieveURL",),
    "UT": ("ReasonForVisit",),
}  # fmt: skip


def stored_pixels() -> np.ndarray:
    """(K, rows, columns) of 12-bit values, the same in every encoding."""
    return np.random.default_rng(3).integers(0, 4096, SHAPE).astype(np.uint16)


def write_talking_study(root: Path, canaries: Canaries) -> None:
    """All objects below a folder that is named after the patient too."""
    folder = root / canaries.plant("folder name")
    series = _write_series(folder / "ct", canaries)
    _write_structures(folder / "rt.dcm", series, canaries)
    _write_segmentation(folder / "seg.dcm", series, canaries)
    _write_enhanced(folder / "enhanced.dcm", series, canaries)
    save(_followup(series[0], canaries), folder / "later.dcm")


def _write_series(folder: Path, canaries: Canaries) -> list[Dataset]:
    """One slice an encoding; identifiers are those of one patient, study and series."""
    pixels = stored_pixels()
    study = canaries.keep("study uid", f"{_ROOT}.1")
    series_uid = canaries.keep("series uid", f"{_ROOT}.2")
    frame = canaries.keep("frame of reference uid", f"{_ROOT}.3")
    name = _person(canaries)
    made = []
    writers = (_plain, _implicit, _big_endian, _deflated, _run_length, _jpeg_2000)
    for k, write in enumerate(writers):
        instance = canaries.keep(f"instance uid {k}", f"{_ROOT}.4.{k + 11}")
        dataset = slice_dataset(
            pixels[k], (-10.0, -20.0, 30.0 + STEP * k), k + 1, StudyInstanceUID=study, SeriesInstanceUID=series_uid,
            FrameOfReferenceUID=frame, SOPInstanceUID=instance, PatientID=PATIENT_NUMBER, PatientName=name,
            SpecificCharacterSet=["ISO 2022 IR 6", "ISO 2022 IR 87"], StudyDate=STUDY_DATE, StudyTime="101112",
            SeriesNumber=5,
            AcquisitionDate="19340713", PatientBirthDate="18770102", PatientSex="F", InstitutionName=None,
            StationName=None, Manufacturer="SIEMENS", ManufacturerModelName="Sensation 64", ReferringPhysicianName="",
            AccessionNumber="", StudyID="", PositionReferenceIndicator="",
        )  # fmt: skip
        path = folder / f"{canaries.plant(f'file name {k}')}.dcm"
        if k == 0:
            _plant_everywhere(dataset, canaries)
        write(dataset, path, canaries)
        made.append(dataset)
    for place, text in (("patient number", PATIENT_NUMBER), ("study date", STUDY_DATE), ("birth date", "18770102"),
                        ("acquisition date", "19340713")):  # fmt: skip
        canaries.keep(place, text)
    return made


def _person(canaries: Canaries) -> str:
    family, given = canaries.keep("ideographic family name", "山田"), canaries.keep("ideographic given name", "太郎")
    plain = f"{canaries.plant('family name')}^{canaries.plant('given name')}"
    return f"{plain}={family}^{given}={canaries.keep('phonetic name', 'やまだ')}"


def _plant_everywhere(dataset: Dataset, canaries: Canaries) -> None:
    """Standard attributes of all text representations, and everything that may hold something below them."""
    for representation, keywords in _TEXTS.items():
        for keyword in keywords:
            word = canaries.plant(f"{representation} {keyword}")
            setattr(dataset, keyword, word if representation != "CS" else word[:16])
    # words that look like other representations
    dataset.add(DataElement("SliceLocation", "LO", canaries.plant("text in the place of a number")))
    dataset.add(DataElement("KVP", "IS", PATIENT_NUMBER))
    dataset.StudyDate, dataset.AcquisitionDateTime = (
        STUDY_DATE,
        canaries.keep("date and time", "19340714") + "101112+0100",
    )
    dataset.SeriesDate = canaries.keep("series date", "19340716")
    _plant_sequences(dataset, canaries)
    _plant_binary(dataset, canaries)


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _plant_sequences(dataset: Dataset, canaries: Canaries) -> None:
    plant = canaries.plant
    deep = _item(
        CodeValue=plant("nested code value")[:16], CodingSchemeDesignator="99HOSP", CodeMeaning=plant("meaning")
    )
    dataset.RequestAttributesSequence = Items(
        [_item(RequestedProcedureID=plant("request id")[:16], ScheduledProtocolCodeSequence=Items([deep]))]
    )
    dataset.OtherPatientIDsSequence = Items([_item(PatientID=plant("other id"), TypeOfPatientID="TEXT")])
    # kept sequences, with words below them that are not on the list or are no codes of the standard
    dataset.AnatomicRegionSequence = Items([
        _item(
            CodeValue=plant("code value of a kept sequence")[:16], CodingSchemeDesignator="SCT",
            CodeMeaning=plant("code meaning of a kept sequence"), CodingSchemeVersion=plant("scheme version")[:16],
            AnatomicRegionModifierSequence=Items(
                [_item(CodeMeaning=plant("modifier"), PatientComments=plant("nested text"))]
            ),
        )
    ])  # fmt: skip
    reference = _item(
        ReferencedSOPClassUID=CT_CLASS, ReferencedSOPInstanceUID=canaries.keep("referenced uid", f"{_ROOT}.9"),
        PurposeOfReferenceCodeSequence=Items(
            [_item(CodeValue="121311", CodingSchemeDesignator="DCM", CodeMeaning=plant("another meaning"))]
        ),
    )  # fmt: skip
    dataset.ReferencedImageSequence = Items([reference])
    dataset.DigitalSignaturesSequence = Items(
        [_item(CertificateOfSigner=plant("certificate").encode(), Signature=plant("signature").encode(),
               DigitalSignatureUID=canaries.keep("signature uid", f"{_ROOT}.8"), DigitalSignatureDateTime="19340715")]
    )  # fmt: skip
    canaries.keep("signature date", "19340715")
    dataset.IconImageSequence = Items(
        [_item(Rows=8, Columns=8, BitsAllocated=8, PixelData=plant("icon").encode().ljust(64, b"\0"))]
    )
    block = dataset.private_block(0x0019, plant("private creator"), create=True)
    block.add_new(0x01, "LO", plant("private text"))
    inner = Dataset()
    inner_block = inner.private_block(0x0021, "ACME", create=True)
    inner_block.add_new(0x02, "UT", plant("private in a private sequence"))
    inner.PatientName = plant("standard in a private sequence")
    block.add_new(0x03, "SQ", Items([inner]))
    # an unknown representation that holds a sequence, as implicit elements (PS3.5 section 6.2.2)
    word = plant("sequence as UN").encode() + b" "
    content = struct.pack("<HHI", 0x0010, 0x4000, len(word)) + word
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    dataset.add(DataElement(0x00231001, "UN", item))
    dataset.add(DataElement(0x00081140 + 0x2, "UN", plant("unknown standard element").encode() + b" "))


def _plant_binary(dataset: Dataset, canaries: Canaries) -> None:
    plant = canaries.plant
    dataset.preamble = plant("preamble").encode().ljust(128, b"\0")
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = plant("source title")[:16]
    meta.SendingApplicationEntityTitle = plant("sending title")[:16]
    meta.ReceivingApplicationEntityTitle = plant("receiving title")[:16]
    meta.PrivateInformationCreatorUID = canaries.keep("private information creator", f"{_ROOT}.7")
    meta.PrivateInformation = plant("private information").encode() + b" "
    meta.ImplementationVersionName = plant("implementation name")[:16]
    dataset.add_new(0x60000010, "US", 16)
    dataset.add_new(0x60000011, "US", 24)
    dataset.add_new(0x60000022, "LO", plant("overlay description"))
    dataset.add_new(0x60003000, "OW", np.packbits(bits_of(plant("overlay bits"), 384)).tobytes())
    dataset.add_new(0x50000022, "LO", plant("curve description"))
    dataset.add_new(0x50003000, "OW", plant("curve data").encode() + b" ")
    dataset.add_new(0xFFFCFFFC, "OB", plant("trailing padding").encode() + b" ")
    # an overlay in the pixels' unused bits, and bytes behind the last pixel
    pixels = np.frombuffer(dataset.PixelData, "<u2").copy()
    pixels |= (bits_of(plant("bits above the stored ones"), pixels.size).astype(np.uint16)) << 13
    dataset.PixelData = pixels.tobytes() + plant("bytes behind the pixels").encode() + b" "
    dataset.LargestImagePixelValue = 4095


def _plain(dataset: Dataset, path: Path, canaries: Canaries) -> None:
    save(dataset, path)


def _implicit(dataset: Dataset, path: Path, canaries: Canaries) -> None:
    encoded = _copy(dataset)
    encoded.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    encoded.PatientComments = canaries.plant("text in an implicit file")
    encoded.save_as(path, implicit_vr=True, little_endian=True)


def _big_endian(dataset: Dataset, path: Path, canaries: Canaries) -> None:
    encoded = _copy(dataset)
    encoded.PatientComments = canaries.plant("text in a big endian file")
    encoded.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    encoded.PixelData = np.frombuffer(encoded.PixelData, "<u2").astype(">u2").tobytes()
    pydicom.dcmwrite(path, encoded, little_endian=False, implicit_vr=False)


def _deflated(dataset: Dataset, path: Path, canaries: Canaries) -> None:
    encoded = _copy(dataset)
    encoded.PatientComments = canaries.plant("text in a deflated file")
    encoded.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    encoded.save_as(path)


def _run_length(dataset: Dataset, path: Path, canaries: Canaries) -> None:
    compressed = _copy(dataset)
    compressed.compress(RLELossless, generate_instance_uid=False)
    frame = pydicom.encaps.get_frame(compressed.PixelData, 0, number_of_frames=1)
    word = canaries.plant("behind run lengths").encode()
    compressed.PixelData = pydicom.encaps.encapsulate([frame + word + b"\0" * (len(frame + word) % 2)])
    save(compressed, path)


def _jpeg_2000(dataset: Dataset, path: Path, canaries: Canaries) -> None:
    compressed = _copy(dataset)
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    stream = pydicom.encaps.get_frame(compressed.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    comment = b"\0\1" + canaries.plant("JPEG 2000 comment").encode()
    # behind the size segment, which must be the first
    at = 4 + int.from_bytes(stream[4:6], "big")
    stream = stream[:at] + b"\xff\x64" + struct.pack(">H", len(comment) + 2) + comment + stream[at:]
    stream += canaries.plant("behind the codestream").encode()
    compressed.PixelData = pydicom.encaps.encapsulate([stream + b"\0" * (len(stream) % 2)])
    save(compressed, path)


def _copy(dataset: Dataset) -> Dataset:
    copied = pydicom.dcmread(_in_memory(dataset))
    copied.preamble = dataset.preamble
    return copied


def _in_unicode(dataset: Dataset) -> Dataset:
    copied = _copy(dataset)
    name = str(copied.PatientName)
    copied.SpecificCharacterSet = "ISO_IR 192"
    copied.PatientName = name
    return copied


def _in_memory(dataset: Dataset):
    buffer = pydicom.filebase.DicomBytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return buffer


def _write_structures(path: Path, series: list[Dataset], canaries: Canaries) -> None:
    first = series[0]
    square = np.array([[-8.0, -18.0, 30.0], [0.0, -18.0, 30.0], [0.0, -12.0, 30.0], [-8.0, -12.0, 30.0]])
    named = canaries.plant("structure name")
    write_rtstruct(
        path, {"GTV-1": [square], named: [square + np.array([1, 1, STEP])]}, series=first.SeriesInstanceUID,
        frame=first.FrameOfReferenceUID, instances={0: series[0].SOPInstanceUID, 1: series[1].SOPInstanceUID},
    )  # fmt: skip
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID, dataset.PatientID = first.StudyInstanceUID, PATIENT_NUMBER
    dataset.StructureSetLabel = canaries.plant("structure set label")[:16]
    dataset.StructureSetName = canaries.plant("structure set name")
    dataset.StructureSetDescription = canaries.plant("structure set description")
    dataset.StructureSetDate, dataset.StructureSetTime = LATER_DATE, "111213"
    dataset.ApprovalStatus, dataset.ReviewerName = "APPROVED", canaries.plant("reviewer")
    for roi in dataset.StructureSetROISequence:
        roi.ROIDescription = canaries.plant(f"ROI description {roi.ROINumber}")
        roi.ROIGenerationAlgorithm = "MANUAL"
    dataset.RTROIObservationsSequence = Items(
        [_item(ObservationNumber=1, ReferencedROINumber=1, ROIObservationLabel=canaries.plant("observation label")[:16],
               RTROIInterpretedType="GTV", ROIInterpreter=canaries.plant("interpreter"))]
    )  # fmt: skip
    dataset.save_as(path, enforce_file_format=True)


def _write_segmentation(path: Path, series: list[Dataset], canaries: Canaries) -> None:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=canaries.plant("algorithm name"), version=canaries.plant("algorithm version"),
        family=codes.DCM.ArtificialIntelligence,
    )  # fmt: skip
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number, segment_label=label, segmented_property_category=codes.SCT.Organ,
            segmented_property_type=kind, algorithm_type="AUTOMATIC", algorithm_identification=algorithm,
            tracking_id=canaries.plant(f"tracking id {number}"),
            tracking_uid=canaries.keep(f"tracking uid {number}", f"{_ROOT}.6.{number}"),
        )
        for number, (label, kind) in enumerate(
            (("Liver", codes.SCT.Liver), (canaries.plant("segment label"), codes.SCT.Kidney)), start=1
        )
    ]  # fmt: skip
    array = np.random.default_rng(5).integers(0, 3, SHAPE).astype(np.uint8)
    made = highdicom.seg.Segmentation(
        source_images=[_in_unicode(dataset) for dataset in series], pixel_array=array, segmentation_type="BINARY",
        segment_descriptions=segments, series_instance_uid=f"{_ROOT}.5", series_number=300,
        sop_instance_uid=f"{_ROOT}.5.1", instance_number=1, manufacturer=canaries.plant("SEG manufacturer"),
        manufacturer_model_name=canaries.plant("SEG model"), software_versions=canaries.plant("SEG software"),
        device_serial_number=canaries.plant("SEG serial number"),
        content_description=canaries.plant("content description"),
        content_creator_name=canaries.plant("content creator"), omit_empty_frames=False,
    )  # fmt: skip
    made.SegmentSequence[0].SegmentDescription = canaries.plant("segment description")
    made.ContentDate, made.ContentTime = LATER_DATE, "111213"
    made.save_as(path)
    canaries.keep("later date", LATER_DATE)


def _write_enhanced(path: Path, series: list[Dataset], canaries: Canaries) -> None:
    sources = [_in_unicode(dataset) for dataset in series[1:4]]
    for k, source in enumerate(sources):
        source.ImageComments = canaries.plant(f"unassigned comment {k}")
    made = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=sources, series_instance_uid=f"{_ROOT}.20", series_number=20, sop_instance_uid=f"{_ROOT}.20.1",
        instance_number=1,
    )  # fmt: skip
    made.BurnedInAnnotation = "NO"
    shared = made.SharedFunctionalGroupsSequence[0]
    shared.add_new(0x00201500, "LO", canaries.plant("unknown element in a functional group"))
    made.save_as(path)


def _followup(first: Dataset, canaries: Canaries) -> Dataset:
    """Another study of the patient, 80 days later, from a machine with another character set and no name."""
    dataset = _copy(first)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("PatientName", "AcquisitionDateTime", "SeriesDate"):
        delattr(dataset, keyword)
    dataset.StudyDate = dataset.AcquisitionDate = LATER_DATE
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (
        f"{_ROOT}.30",
        f"{_ROOT}.31",
        f"{_ROOT}.32",
    )
    return dataset
