"""Dates, words and codes as they may leave."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key
from monai_tl.dicom.released_value import PatientContext, release_text
from monai_tl.dicom.shifting import clean_time, shift_date, shift_datetime
from monai_tl.dicom.terms import is_device, is_kernel, is_structure, is_term, known_code


@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.integers(1, 3650))
def test_a_date_moves_by_the_days(day, days):
    moved = shift_date(day.strftime("%Y%m%d"), days)
    assert moved == (day - timedelta(days=days)).strftime("%Y%m%d").zfill(8)
    assert shift_date(day.strftime("%Y.%m.%d"), days) == moved


@pytest.mark.parametrize(
    "text", ["", "KANARI", "1934", "193407", "19340230", "00010101", "19340712x", "1934-07-12", "193407121"]
)
def test_what_is_no_day_does_not_leave(text):
    assert shift_date(text, 400) is None
    assert shift_datetime(text, 400) is None


@pytest.mark.parametrize(
    ("text", "moved"),
    [("20200301", "20200229"), ("20200301101112.123456+0100", "20200229101112.123"),
     ("2020030110-0500", "2020022910"),
     ("20200301101112 ", "20200229101112"),
     ("20200301KANARI", None), ("20200301101112.1+01KANARI", None), ("2020", None)],
)  # fmt: skip
def test_a_date_with_a_time_moves_by_days_and_loses_its_zone(text, moved):
    assert shift_datetime(text, 1) == moved


@pytest.mark.parametrize(
    ("text", "kept"),
    [("101112", "101112"), ("10", "10"), ("1011", "1011"), ("101112.000001", "101112.000"), ("10:11:12", "101112"),
     ("246060", None), ("KANARI", None), ("101112KANARI", None), ("", None)],
)  # fmt: skip
def test_a_time_stays_when_it_is_one(text, kept):
    assert clean_time(text) == kept


@pytest.mark.parametrize(
    "name",
    [
        "GTV-1",
        "Lung_L",
        "LungLeft",
        "Spinal Cord",
        "BRAINSTEM",
        "Parotid (R)",
        "PTV 70Gy",
        "femoral heads",
        "kidneys",
        "White matter",
        "gray_matter L",
        "GTVp1",
    ],
)
def test_words_of_anatomy_name_a_structure(name):
    assert is_structure(name, [])


@pytest.mark.parametrize(
    "name",
    ["Meier tumour", "GTV Smith", "Liver 19340712", "12 03 45", "heart@clinic",
     "Lunge", "Dr Miller", "", "Lüng", "PTV\\Liver",
     "Boyd", "Willis", "GTV 12.03", "PTV 03/21", "Liver 19 34", "GTV1-2", "Liver male 87", "White Hand", "Gray",
     "female", "P R I S"],
)  # fmt: skip
def test_other_words_name_none(name):
    assert not is_structure(name, [])


def test_a_word_of_anatomy_that_is_the_patients_name_names_none():
    assert is_structure("Heart", [])
    assert not is_structure("Heart", ["heart"])


@pytest.mark.parametrize("text", ["SIEMENS", "GE MEDICAL SYSTEMS", "Biograph40_mCT 4R", "LightSpeed Ultra"])
def test_makers_and_models_are_known(text):
    assert is_device(text, [])


@pytest.mark.parametrize("text", ["Br38f", "FC18", "B30f", "STANDARD", "YA"])
def test_kernels_are_known(text):
    assert is_kernel(text, [])
    assert not is_kernel(f"{text} Meier", [])


@pytest.mark.parametrize("text", ["Meier", "SIEMENS Meier", "CT Room of Dr Miller", "4711000", "", "Smith12"])
def test_other_words_are_no_device(text):
    assert not is_device(text, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [("Vida Sola", ["sola"]), ("SIEMENS Vida", ["vida"]), ("Kim47", ["kim"]), ("Br38f", ["br38f"]),
     ("A S 1", ["as1"]), ("S P R I N G", ["spring"])],
)  # fmt: skip
def test_known_words_of_devices_that_are_the_patients_are_none(text, words):
    assert not is_device(text, words)
    assert not is_kernel(text, words)


@pytest.mark.parametrize("text", ["Vida 1 9 3 4 0 7 1 3", "A E F L", "LightSpeed 1 2 3"])
def test_digits_and_letters_one_by_one_are_no_device(text):
    assert not is_device(text, [])


def test_a_fraction_of_a_second_is_no_record_number():
    assert clean_time("101112.471147") == "101112.471"
    assert clean_time("101112.471147", {"471147"}) == "101112"
    assert clean_time("101112.071147", {"71147"}) == "101112"
    assert clean_time("101112", {"101112"}) is None
    assert clean_time("101112.4711", {"1011124711"}) is None
    assert shift_datetime("20200301101112.471147", 1, {"471147"}) == "20200229101112"


def test_equal_texts_in_different_attributes_have_unrelated_marks():
    context = PatientContext(Pseudonyms(seeded_key(0)), "patient-0", 1, frozenset(), frozenset())
    marks = [release_text("hash", "4711", context, place) for place in ("00181000", "00189005")]
    assert marks[0] != marks[1]
    assert marks[0] == release_text("hash", " 4711", context, "00181000")
    names = {release_text("name", "Zorgan", context, place) for place in ("30060026", "00620005")}
    assert names == {context.mark("Zorgan")}


def test_terms_are_whole_words():
    assert is_term("ORIGINAL")
    assert is_term("PALETTE COLOR")
    assert is_term("AFL")
    assert not is_term("ORIGINALS")
    assert not is_term("ORIGINAL MEIER")
    assert not is_term("P R I M U L")
    assert not is_term("")


def test_codes_of_the_standard_have_the_meaning_of_the_standard():
    assert known_code("SCT", "10200004") == "Liver"
    assert known_code("SRT", "T-62000") == "Liver"
    assert known_code("DCM", "121311") == "Localizer"
    assert known_code("SCT", "4711000815") is None
    assert known_code("99HOSP", "10200004") is None


def test_the_days_of_a_patient_are_of_the_key():
    one, other = Pseudonyms(seeded_key(0)), Pseudonyms(seeded_key(1))
    days = [one.days_back(f"patient {number}") for number in range(300)]
    assert days == [one.days_back(f"patient {number}") for number in range(300)]
    assert min(days) >= 1
    assert max(days) <= 3650
    assert len(set(days)) > 250
    assert days != [other.days_back(f"patient {number}") for number in range(300)]


def test_kinds_of_pseudonym_are_separate():
    """No hash of one kind is a part of another's: what is written in one place says nothing of another place."""
    names = Pseudonyms(seeded_key(0))
    found = [names.hash_uid("1.2"), names.text("1.2"), names.place("1.2"), names.patient_key("1.2")[8:]]
    as_hex = [f"{int(uid.removeprefix('2.25.')):032x}" for uid in (names.replaced_uid("1.2"), names.uid("1.2"))]
    heads = {text[:8] for text in (*found[1:], as_hex[0])}
    assert len(heads) == 4
    assert found[0][:8] not in heads
    assert as_hex[0] != as_hex[1]
