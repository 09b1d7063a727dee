"""Numbers that are no numbers: text as numbers, identifiers and true dates in other writings, tables of text."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import slice_dataset
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from monai_tl.dicom.deidentified_file import deidentify_file
from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.explicit_writing import element, join, sequence
from monai_tl.dicom.identifiers import identifying_numbers
from monai_tl.dicom.last_look import refuse_identity
from monai_tl.dicom.released_value import PatientContext
from monai_tl.dicom.repeated_identity import repeats_number, spells_word
from monai_tl.dicom.scrub import scrub
from monai_tl.errors import DicomError

WORD = b"KANARIVOGEL!"
LINE = b"Kanari, Hans, geb. 13.07.1934, MRN 1234567. "
PIXELS = (np.arange(120, dtype=np.uint16) * 37 % 4096).reshape(12, 10)


def image(**tags) -> Dataset:
    return slice_dataset(PIXELS, (0.0, 0.0, 0.0), 1, **{"PatientID": "P", "PatientName": "Nobody^X", **tags})


def released(dataset: Dataset, folder) -> tuple[bytes, Dataset]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(folder / "one.dcm", enforce_file_format=True)
    content = deidentify_file(folder / "one.dcm", "one.dcm", Pseudonyms(seeded_key(0))).content
    return content, pydicom.dcmread(io.BytesIO(content))


def numbers(code: str, text: bytes) -> list:
    return list(struct.unpack(f"<{len(text) // struct.calcsize(code)}{code}", text))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("AcquisitionMatrix", numbers("H", WORD)), ("AcquisitionMatrix", numbers("H", WORD[:8])),
     ("PixelPaddingValue", numbers("H", WORD)), ("RecommendedDisplayGrayscaleValue", numbers("H", WORD)),
     ("RecommendedDisplayCIELabValue", numbers("H", b"KANARI")), ("DiffusionBValue", numbers("d", b"KANARIVO")[0]),
     ("DiffusionGradientOrientation", numbers("d", (LINE * 6)[:240])),
     ("DiffusionGradientOrientation", numbers("d", LINE[:24])), ("DimensionIndexValues", numbers("I", WORD)),
     ("WindowCenter", [75, 65, 78, 65, 82, 73, 86, 79, 71]), ("WindowCenter", [75, 65, 78, 65, 82, 73]),
     ("ROIDisplayColor", [75, 65, 78, 65]), ("ROIDisplayColor", [7567, 7865, 8273])],
)  # fmt: skip
def test_text_as_numbers_does_not_leave(tmp_path, keyword, value):
    _, made = released(image(**{keyword: value}, PatientName="Kanari^Hans"), tmp_path)
    assert keyword not in made or made[keyword].is_empty


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("AcquisitionMatrix", [0, 256, 192, 0]), ("RecommendedDisplayCIELabValue", [45000, 40000, 39321]),
     ("DiffusionGradientOrientation", [0.6, -0.8, 6.1e-17]), ("DiffusionBValue", 1000.0), ("WindowCenter", [40, 400]),
     ("PixelPaddingValue", 63536), ("ROIDisplayColor", [255, 0, 10]), ("FocalSpots", [0.6, 1.2]),
     ("InversionTimes", [100.0, 2500.0]), ("DimensionIndexValues", [1, 20, 300]), ("WindowCenter", []),
     ("TransmitterFrequency", 127.76), ("FieldOfViewDimensions", [500])],
)  # fmt: skip
def test_plain_numbers_stay(tmp_path, keyword, value):
    _, made = released(image(**{keyword: value}), tmp_path)
    wanted = value if isinstance(value, list) else [value]
    given = made[keyword].value
    assert [float(one) for one in ([] if given is None else given if made[keyword].VM > 1 else [given])] == wanted


def test_short_numbers_that_spell_the_patient_do_not_leave(tmp_path):
    """Three numbers of two bytes are too few to tell text from colours, but not to tell the patient's name."""
    value = numbers("H", "Kanari".encode("utf-16-le"))
    _, made = released(image(ReferencedSegmentNumber=value[:4], PatientName="Nobody^X"), tmp_path)
    assert "ReferencedSegmentNumber" in made
    with pytest.raises(DicomError) as refused:
        released(image(ReferencedSegmentNumber=value, PatientName="Kanari^Hans"), tmp_path)
    assert refused.value.code == "identity_in_numbers"


@pytest.mark.parametrize("encoding", ["ascii", "utf-16-le", "utf-16-be"])
def test_a_word_is_found_in_any_writing(encoding):
    assert spells_word(b"\1\2" + "Kanari".encode(encoding), ["kanari"])
    assert not spells_word(b"\1\2" + "Kanary".encode(encoding), ["kanari"])
    assert spells_word("xM\u00fcllerin".encode("latin-1"), ["mullerin"])
    assert spells_word("xM\u00fcllerin".encode(), ["mullerin"])


@pytest.mark.parametrize(
    ("identifier", "keyword", "value"),
    [("0012345678", "SeriesNumber", "12345678"), ("12345678", "SeriesNumber", "+012345678"),
     ("12345678", "WindowCenter", "0.12345678"), ("12345678", "WindowCenter", "1234.5678"),
     ("12345678", "WindowWidth", "1.2345678e7"), ("12-345-678", "SeriesNumber", "12345678"),
     ("12 345 678", "SeriesNumber", "-12345678"), ("MRN12345678", "AcquisitionNumber", "123456781"),
     ("12345678", "DiffusionBValue", 12345678.0), ("12345678", "DiffusionBValue", 1234.5678),
     ("1234567", "EnergyWeightingFactor", 1234567.0), ("12345678", "ASLPulseTrainDuration", 12345678)],
)  # fmt: skip
def test_an_identifier_in_another_writing_does_not_leave(tmp_path, identifier, keyword, value):
    dataset = image(PatientID=identifier)
    dataset.add(DataElement(keyword, pydicom.datadict.dictionary_VR(keyword), value))
    _, made = released(dataset, tmp_path)
    assert keyword not in made or made[keyword].is_empty


@pytest.mark.parametrize(
    "keyword",
    ["AdmissionID", "RequestedProcedureID", "ScheduledProcedureStepID", "StudyID", "AccessionNumber", "PatientID",
     "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "ServiceEpisodeID"],
)  # fmt: skip
@pytest.mark.parametrize("sequence", [None, "RequestAttributesSequence", "ReferencedPatientSequence"])
def test_identifiers_of_orders_and_visits_count_wherever_they_stand(tmp_path, keyword, sequence):
    item = Dataset()
    dataset = image(SeriesNumber=87654321)
    setattr(dataset if sequence is None else item, keyword, "87654321")
    if sequence is not None:
        setattr(dataset, sequence, Items([item]))
    content, made = released(dataset, tmp_path)
    assert made["SeriesNumber"].is_empty
    assert b"87654321" not in content


@pytest.mark.parametrize(
    "keyword", ["StudyDate", "SeriesDate", "ContentDate", "PatientBirthDate", "AcquisitionDateTime"]
)
@pytest.mark.parametrize("written", ["20210315", "15032021", "03152021", "210315", "2021.0315"])
def test_a_true_date_as_a_number_would_undo_the_shift(tmp_path, keyword, written):
    time = "101112" if keyword.endswith("Time") else ""
    content, made = released(image(**{keyword: "20210315" + time, "WindowCenter": written}), tmp_path)
    assert made["WindowCenter"].is_empty
    assert b"20210315" not in content


def test_a_dotted_birth_date_counts_too():
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.PatientBirthDate = "1934.07.13"
    assert {"19340713", "340713", "13071934"} <= identifying_numbers(dataset)


@given(st.integers(10**4, 10**9), st.sampled_from(["{}", "-{}", "+00{}", "{}.0", "{}.", "{}e0"]))
def test_signs_zeros_and_points_hide_no_identifier(number, form):
    assert repeats_number([form.format(number)], [str(number)], is_bulk=True)
    assert not repeats_number([form.format(number + 1)], [str(number)], is_bulk=True)


def test_coordinates_meet_short_identifiers_by_chance_and_stay(tmp_path):
    """PatientID 12345 and a slice at 123.45 mm: no reason to lose the slice."""
    _, made = released(image(PatientID="12345", ImagePositionPatient=["-123.45", "0", "0"]), tmp_path)
    assert float(made.ImagePositionPatient[0]) == -123.45


def with_table(data: bytes, count: int, bits: int = 16, **tags) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [count, 0, bits], "HU"
    item.add(DataElement("LUTData", "OW", data))
    return image(RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=Items([item]), **tags)


@pytest.mark.parametrize(
    ("data", "count", "bits"),
    [((WORD * 11)[:128], 64, 16), (np.arange(63, dtype="<u2").tobytes(), 64, 16), (b"\x00\x10" * 64, 64, 12),
     ((WORD * 11)[:64], 64, 8), (b"", 64, 16)],
)  # fmt: skip
def test_a_table_that_is_none_refuses_the_file(tmp_path, data, count, bits):
    with pytest.raises(DicomError) as refused:
        released(with_table(data, count, bits), tmp_path)
    assert refused.value.code == "lookup_table"


@pytest.mark.parametrize(
    ("data", "count", "bits"),
    [(np.arange(64, dtype="<u2").tobytes(), 64, 16), (np.arange(64, dtype="<u2")[::-1].tobytes(), 64, 12),
     (bytes(range(64)), 64, 8), (np.arange(64, dtype="<u2").tobytes(), 64, 8)],
)  # fmt: skip
def test_a_table_that_rises_or_falls_stays(tmp_path, data, count, bits):
    _, made = released(with_table(data, count, bits), tmp_path)
    assert made.ModalityLUTSequence[0].LUTData == data


def test_palettes_are_removed(tmp_path):
    dataset = image(RedPaletteColorLookupTableDescriptor=[256, 0, 16])
    dataset.add(DataElement("RedPaletteColorLookupTableData", "OW", (WORD * 43)[:512]))
    content, made = released(dataset, tmp_path)
    assert WORD not in content
    assert not any("Palette" in element.keyword for element in made)


@pytest.mark.parametrize("encoding", ["ascii", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("word", ["Kanari", "12345678"])
def test_the_last_look_finds_the_patient_whatever_let_it_through(encoding, word):
    value = word.encode(encoding)
    item = join({0x00181310: element(0x00181310, "US", value)})
    for elements in (
        {0x00283006: element(0x00283006, "OW", b"\1\0" + value)},
        {0x52009229: sequence(0x52009229, [item])},
        {0x00080070: element(0x00080070, "LO", b"Maker of " + value)},
    ):
        refuse_identity(elements, frozenset(["canary"]), frozenset(["87654321"]))
        with pytest.raises(DicomError) as refused:
            refuse_identity(elements, frozenset(["kanari"]), frozenset(["12345678"]))
        assert refused.value.code == "identity_in_values"
        assert word not in str(refused.value)


def test_the_last_look_passes_hashes_and_words_of_the_standard():
    elements = {
        0x00080060: element(0x00080060, "CS", b"PRIMARY"),
        0x00081090: element(0x00081090, "LO", b"X12345678"),
        0x0020000D: element(0x0020000D, "UI", b"2.25.12345678"),
    }
    refuse_identity(elements, frozenset(["primary"]), frozenset(["12345678"]))


def test_a_label_map_in_palette_colours_becomes_one_in_grey(tmp_path):
    context = PatientContext(Pseudonyms(seeded_key(0)), "patient-0", 1, frozenset(), frozenset())
    made = scrub(image(PhotometricInterpretation="PALETTE COLOR"), context, signed=False)
    assert made[0x00280004].endswith(b"MONOCHROME2 ")
