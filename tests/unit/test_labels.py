"""Structures of the input find their class."""

import pytest
from pydantic import ValidationError

from monai_tl.errors import LabelError
from monai_tl.labels import ClassSpec, LabelScheme

SCHEME = LabelScheme(
    classes=(
        ClassSpec(name="liver", structures=("Liver", "SCT|10200004")),
        ClassSpec(name="tumour", structures=("GTV", "SCT|108369006"), values=(2, 7)),
        ClassSpec(name="spleen"),
    )
)


@pytest.mark.parametrize(
    ("name", "codes", "value"),
    [
        ("Liver", (), 1),
        (" liver ", (), 1),
        ("GTV", (), 2),
        ("lesion", ("SCT|108369006",), 2),
        ("SPLEEN", (), 3),
        ("kidney", ("SCT|64033007",), None),
    ],
)
def test_structure_to_value(name, codes, value):
    assert SCHEME.value_of_structure(name, codes) == value


def test_a_structure_that_two_classes_claim_is_an_error():
    with pytest.raises(LabelError, match=r"liver, tumour"):
        SCHEME.value_of_structure("Liver", ("SCT|108369006",))


def test_value_map_and_outputs():
    assert SCHEME.value_map() == {1: 1, 2: 2, 7: 2, 3: 3}
    assert SCHEME.n_outputs == 4


@pytest.mark.parametrize("code", ["SCT|1", "", "SCT||Liver", "a|b|c|d"])
def test_codes_have_three_parts(code):
    with pytest.raises(ValidationError, match=r"SCHEME\|VALUE\|MEANING"):
        ClassSpec(name="x", type=code)
