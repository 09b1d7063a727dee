"""The allow-list against the published table of the Basic Profile, and every attribute of the dictionary against it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pydicom
import pytest
from dicom_files import slice_dataset
from pydicom.datadict import DicomDictionary, dictionary_keyword, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from talking_study import stored_pixels

from monai_tl.dicom.deidentified_file import deidentify_file
from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.profile import BASIC_PROFILE, RULES
from monai_tl.errors import DicomError

HASHER = Pseudonyms(seeded_key(0))
_TABLE = Path(__file__).parents[1] / "support" / "ps3_15_table_e1_1.txt"
_MOVED = {"date", "time", "datetime"}
# what PS3.15 E.2.1 lets stand for an attribute by its action; dates by the option for modified dates (113107), the name
# of a region by the one for clean descriptors (113105)
_PERMITTED = {
    "X": _MOVED,
    "X/Z": {"zero"} | _MOVED,
    "X/D": {"hash", "dummy"} | _MOVED,
    "X/Z/D": {"zero", "hash", "dummy"} | _MOVED,
    "Z": {"zero", "pseudonym", "name"} | _MOVED,
    "Z/D": {"zero", "pseudonym", "hash", "dummy"} | _MOVED,
    "D": {"dummy", "hash"} | _MOVED,
    "U": {"uid"},
    "X/Z/U*": {"items"},
}
_TEXT = frozenset(("AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))


def published() -> dict[int, str]:
    rows = (line.split() for line in _TABLE.read_text().splitlines() if not line.startswith("#"))
    return {int(tag, 16): action for action, *tags in rows for tag in tags}


def test_the_actions_are_those_of_the_published_table():
    table = published()
    assert len(table) > 600
    assert {keyword_for_tag(tag): table[tag] for tag in RULES if tag in table} == {
        keyword_for_tag(tag): action for tag, action in BASIC_PROFILE.items()
    }


def test_every_kept_attribute_is_treated_as_its_action_permits():
    wrong = [
        (keyword_for_tag(tag), RULES[tag], action)
        for tag, action in BASIC_PROFILE.items()
        if RULES[tag] not in _PERMITTED[action]
    ]
    assert wrong == []


def test_free_text_is_never_kept_as_it_is():
    """Only closed lists, hashes and numbers stand for attributes that can hold text."""
    for tag, kind in RULES.items():
        representation = dictionary_VR(tag)
        if representation in ("LO", "SH", "UT", "PN", "CS"):
            assert kind in ("pseudonym", "zero", "dummy", "hash", "name", "device", "kernel", "label", "term", "token")
        assert representation not in ("LT", "ST", "UC", "UR", "AE", "AS", "UN", "OB")


def test_no_group_of_private_elements_overlays_or_curves_is_on_the_list():
    assert not any((tag >> 16) % 2 or (tag >> 24) in (0x50, 0x60) for tag in RULES)


def test_mandatory_attributes_of_the_kinds_written_are_on_the_list():
    """Type 1 and 2 of mandatory modules, at top level, by another table of the standard than ours."""
    standard = pytest.importorskip("highdicom._standard_utils")
    kinds, modules, attributes = (
        standard.get_sop_class_iod_map(), standard.get_iod_module_map(), standard.get_module_attribute_map()
    )  # fmt: skip
    from monai_tl.dicom.admission import IMAGE_CLASSES, LABEL_CLASSES

    composed = {"PixelData", "AcquisitionContextSequence"}
    missing = {
        (uid, entry["keyword"])
        for uid in (*IMAGE_CLASSES, *LABEL_CLASSES)
        for module in modules[kinds[uid]]
        if module["usage"] == "M"
        for entry in attributes[module["key"]]
        if not entry["path"] and entry["type"] in ("1", "2")
        if tag_for_keyword(entry["keyword"]) not in RULES and entry["keyword"] not in composed
    }
    assert missing == set()


def deidentified(dataset: Dataset, folder: Path) -> tuple[bytes, Dataset]:
    path = folder / "one.dcm"
    dataset.save_as(path, enforce_file_format=True)
    content = deidentify_file(path, "one.dcm", HASHER).content
    return content, pydicom.dcmread(io.BytesIO(content))


def words_in_all_attributes(dataset: Dataset, count: int) -> list[str]:
    """One word of its own in each attribute of the standard that holds text; identifiers and dates too."""
    words = []
    for tag, (representation, _, _, _, keyword) in DicomDictionary.items():
        if not keyword or tag >> 16 in (0, 2, 4, 0x7FE0, 0xFFFE) or keyword in _NEEDED:
            continue
        word = f"KANARI{count + len(words):05d}"
        if representation in _TEXT:
            dataset.add(DataElement(tag, representation, word))
        elif representation == "UI":
            word = f"1.2.826.0.1.3680043.{count + len(words) + 10000}.7"
            dataset.add(DataElement(tag, "UI", word))
        elif representation in ("OB", "OW", "OB or OW", "US or OW"):
            dataset.add(DataElement(tag, "OB", word.encode() + b" "))
        else:
            continue
        words.append(word)
    return words


_NEEDED = frozenset(
    ("Modality", "ImageType", "PhotometricInterpretation", "SOPClassUID", "BurnedInAnnotation",
     "RecognizableVisualFeatures", "SpecificCharacterSet",
     "PixelData", "DataSetTrailingPadding", "QueryRetrieveLevel", "LUTData")
)  # fmt: skip


def test_no_word_in_any_attribute_of_the_standard_leaves(tmp_path):
    dataset = slice_dataset(stored_pixels()[0], (0, 0, 0), 1)
    # not the identity of the file: a word that repeats it would be refused for another reason
    del dataset.PatientID, dataset.PatientName
    words = words_in_all_attributes(dataset, 0)
    # all of them again below a kept sequence, and one below each other sequence of the standard
    item = Dataset()
    words += words_in_all_attributes(item, len(words))
    small = Dataset()
    small.PatientComments, small.ROIName, small.Manufacturer = ("KANARIA", "KANARIB", "KANARIC")
    words += ["KANARIA", "KANARIB", "KANARIC"]
    for tag, (representation, *_) in DicomDictionary.items():
        if representation == "SQ":
            dataset.add(DataElement(tag, "SQ", Items([small])))
    dataset.PerFrameFunctionalGroupsSequence = Items([item])
    assert len(words) > 3000
    raw = io.BytesIO()
    dataset.save_as(raw, enforce_file_format=True)
    assert all(word.encode() in raw.getvalue() for word in words)
    content, made = deidentified(dataset, tmp_path)
    assert [word for word in words if word.encode() in content] == []
    assert "KANARI" not in str(made)


def test_no_number_in_any_attribute_is_the_record_number(tmp_path):
    """An identifier of digits, typed or copied into attributes that hold numbers."""
    number = "73409182"
    dataset = slice_dataset(stored_pixels()[0], (0, 0, 0), 1, PatientID=number)
    for tag, (representation, _, _, _, keyword) in DicomDictionary.items():
        if keyword and representation in ("DS", "IS", "UL", "SL", "FL", "FD") and tag >> 16 not in (0, 2, 4):
            value = number if representation in ("DS", "IS") else int(number)
            if RULES.get(tag) not in ("essential", "vital"):
                dataset.add(DataElement(tag, representation, value))
    content, made = deidentified(dataset, tmp_path)
    assert number.encode() not in content
    assert not any(str(element.value).startswith(number) for element in made.iterall())


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("RescaleIntercept", "-10000"), ("ImagePositionPatient", ["10000", "0", "0"]), ("PixelSpacing", ["10000", "1"]),
     ("ROINumber", "10000"), ("PixelPaddingValue", 10000)],
)  # fmt: skip
def test_an_identifier_where_the_image_needs_the_number_refuses_the_file(tmp_path, keyword, value):
    dataset = slice_dataset(stored_pixels()[0], (0, 0, 0), 1, PatientID="10000")
    setattr(dataset, keyword, value)
    with pytest.raises(DicomError) as refused:
        deidentified(dataset, tmp_path)
    assert refused.value.code == "identity_in_numbers"
    assert "10000" not in str(refused.value)


@pytest.mark.parametrize("keyword", ["KVP", "EchoTime", "SliceLocation", "InstanceNumber", "WindowCenter"])
@pytest.mark.parametrize("text", ["KANARI", "12 Main St", "1e5x", "٣٤", "1_000", "nan", "12\\KANARI", "1" * 40])
def test_what_is_no_number_leaves_a_number_empty(tmp_path, keyword, text):
    dataset = slice_dataset(stored_pixels()[0], (0, 0, 0), 1, SpecificCharacterSet="ISO_IR 192")
    dataset.add(DataElement(keyword, "LO", text))
    _, made = deidentified(dataset, tmp_path)
    assert made[keyword].is_empty


@pytest.mark.parametrize("text", ["1.5", "-0.25", "+3", "1e-3", ".5", "2.", "0000012"])
def test_numbers_stay_as_they_were_written(tmp_path, text):
    dataset = slice_dataset(stored_pixels()[0], (0, 0, 0), 1)
    dataset.add(DataElement("SliceLocation", "DS", text))
    content, made = deidentified(dataset, tmp_path)
    assert float(made.SliceLocation) == float(text)
    assert text.encode() in content


def test_the_table_of_the_documentation_is_the_list(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "deidentification.md").read_text()
    listed = set(re.findall(r"\b[A-Za-z0-9]+\b", text.split("<!-- profile -->")[1]))
    kept = {dictionary_keyword(tag) for tag in RULES}
    assert {word for word in listed if tag_for_keyword(word) is not None} == kept
    for kind in set(RULES.values()):
        assert f"`{kind}` ({sum(one == kind for one in RULES.values())})" in text
