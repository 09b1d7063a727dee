"""The codes that the project gives its classes are those of the standard, and a mistyped one is seen in time."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from pydicom.sr._concepts_dict import concepts

from monai_tl.commands.phantom import SCHEMES
from monai_tl.config import parse_params
from monai_tl.errors import ConfigError
from monai_tl.labels import ClassSpec, LabelScheme

ROOT = Path(__file__).parents[2]
SNOMED = {code: (meaning, groups) for words in concepts["SCT"].values() for code, (meaning, groups) in words.items()}
CATEGORIES = 7150
"""Context group of PS3.16: segmentation property categories."""
MORE = {"18639004": {"Left kidney"}, "9846003": {"Right kidney"}, "421060004": {"Vertebral column"}}
"""SNOMED CT has a concept for each kidney, PS3.16 the kidney and a modifier; and another name of the spine."""


def schemes() -> dict[str, LabelScheme]:
    found = {f"phantom {name}": scheme for name, scheme in SCHEMES.items()}
    found["defaults"] = LabelScheme(classes=(ClassSpec(name="x"),))
    for path in ("params.yaml", "monai_tl/template/params.yaml", "sources/abdomen_a/pretrain.yaml"):
        content = yaml.safe_load((ROOT / path).read_text())
        ingest = content.get("ingest", content)
        found[path] = LabelScheme(classes=tuple(ClassSpec(**one) for one in ingest["classes"]))
    return found


@pytest.mark.parametrize("name", schemes())
def test_codes_are_the_standards(name):
    for spec in schemes()[name].classes:
        for text in filter(None, (spec.category, spec.type, spec.anatomic_region)):
            designator, value, meaning = text.split("|")
            assert designator == "SCT"
            meanings = {words[value][0] for words in concepts["SCT"].values() if value in words}
            assert meaning in meanings | MORE.get(value, set()), text
        value = spec.category.split("|")[1]
        assert any(value in words and CATEGORIES in words[value][1] for words in concepts["SCT"].values()), value


@pytest.mark.parametrize("name", schemes())
def test_a_class_has_a_region_when_its_type_is_no_place(name):
    for spec in schemes()[name].classes:
        is_lesion = spec.category.split("|")[1] == "49755003"
        assert (spec.anatomic_region is not None) == is_lesion


def check_digit_holds(value: str) -> bool:
    try:
        ClassSpec(name="x", type=f"SCT|{value}|x")
    except ValidationError:
        return False
    return True


def test_the_check_digit_agrees_with_the_codes_of_the_standard():
    """All of some 8,000 but one, which the dictionary itself has wrong."""
    wrong = [code for code in SNOMED if not check_digit_holds(code)]
    assert len(SNOMED) > 8000
    assert set(wrong) <= {"115347700"}


def test_a_slip_of_one_digit_or_of_two_neighbours_is_always_seen():
    for code in ("10200004", "108369006", "49755003", "91723000", "999000011000001104"):
        assert check_digit_holds(code)
        for place, digit in enumerate(code):
            for other in "0123456789":
                slip = code[:place] + other + code[place + 1 :]
                assert check_digit_holds(slip) == (other == digit)
        for place in range(len(code) - 1):
            swapped = code[:place] + code[place + 1] + code[place] + code[place + 2 :]
            assert check_digit_holds(swapped) == (swapped == code)


@pytest.mark.parametrize(
    "code",
    [
        "SCT|10200005|Liver",
        "SCT|liver|Liver",
        "SCT|1020|Liver",
        "SCT|１０２００００４|Liver",
        "A-SCHEME-OF-17-CH|1|x",
        "99LOCAL|1|" + "x" * 65,
        "99LOCAL|1|back\\slash",
        "99LOCAL|1|two\nlines",
        "SCT|10200004",
    ],
)
def test_what_dicom_cannot_hold_is_refused(code):
    with pytest.raises(ValidationError):
        ClassSpec(name="x", anatomic_region=code)


def test_other_schemes_have_no_check_digit():
    for code in ("SRT|T-62000|Liver", "FMA|7197|Liver", "99LOCAL|L1|Some liver"):
        assert ClassSpec(name="x", type=code).type == code


def test_a_mistyped_code_in_params_is_named_with_its_key():
    classes = [{"name": "liver", "type": "SCT|10200040|Liver"}]
    with pytest.raises(ConfigError, match=r"ingest\.classes.*type") as caught:
        parse_params({"ingest": {"source": "data/x", "classes": classes}, "plan": {"source": "sources/any"}})
    assert "10200040" in str(caught.value)
    assert caught.value.exit_code == 2
