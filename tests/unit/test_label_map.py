"""Classes from a map in YAML, and classes of everything that is drawn."""

from __future__ import annotations

import itertools

import pydicom
import pytest
from dicom_files import write_rtstruct
from foreign_seg import foreign_seg
from outlines import circle, in_world, slices
from pydicom.dataset import Dataset
from seg_series import make_series, random_labels

from monai_tl.dicom.joined_labels import read_structures
from monai_tl.dicom.label_object import read_label_object
from monai_tl.dicom.structures import Structure, authors_words, scheme_of
from monai_tl.errors import ConfigError, LabelError
from monai_tl.labels import ClassSpec, LabelScheme, read_scheme

LONG = """
classes:
  - name: liver
    structures: [Liver, SCT|10200004]
    type: SCT|10200004|Liver
  - name: tumour
    structures: [GTV]
"""
SHORT = """
liver: [Liver, "SCT|10200004"]
tumour: GTV
spleen:
"""


def faults(tmp_path, text):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_scheme(path)
    assert caught.value.exit_code == 2
    assert "map.yaml" in str(caught.value)
    return caught.value.faults


def test_both_forms(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text(LONG)
    assert read_scheme(path) == LabelScheme(
        classes=(
            ClassSpec(name="liver", structures=("Liver", "SCT|10200004"), type="SCT|10200004|Liver"),
            ClassSpec(name="tumour", structures=("GTV",)),
        )
    )
    path.write_text(SHORT)
    scheme = read_scheme(path)
    assert scheme.names == ("liver", "tumour", "spleen")
    assert [scheme.value_of_structure(name) for name in ("LIVER", "gtv", "Spleen", "cyst")] == [1, 2, 3, None]
    assert scheme.value_of_structure("x", ("SCT|10200004",)) == 1


def test_a_class_may_be_called_classes(tmp_path):
    (tmp_path / "map.yaml").write_text("classes: [all of it]\n")
    assert read_scheme(tmp_path / "map.yaml").names == ("classes",)


def test_every_fault_is_told_with_its_key(tmp_path):
    lines = faults(tmp_path, "liver: [3]\nyes: [a]\n2nd: [b]\ntumour: {a: b}\n")
    assert [line.split(":")[0] for line in lines] == [
        "liver.structures.0", "True.name", "2nd.name", "tumour.structures.0",
    ]  # fmt: skip
    lines = faults(tmp_path, "classes:\n  - name: liver\n    structure: [a]\n  - structures: [b]\n  - 3\n")
    assert [line.split(":")[0] for line in lines] == ["classes.0.structure", "classes.1.name", "classes.2"]
    assert "did you mean 'structures'" in lines[0]
    assert faults(tmp_path, "".join(f"c{n}:\n" for n in range(255))) == ["classes: 255 classes; 1 to 254 are possible"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is needed"),
        ("- liver\n", "is needed"),
        ("liver: [a\n", "no valid YAML"),
        ("liver: a\nliver: b\n", "given twice"),
        ("classes: []\n", "classes"),
        ("liver: [a]\ntumour: [A]\n", "belongs to classes 1 and 2"),
        ("background: [a]\n", "background"),
        ("classes:\n", "classes"),
    ],
)
def test_maps_that_cannot_be_used(tmp_path, text, says):
    assert any(says in line for line in faults(tmp_path, text))


def test_a_map_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_scheme(tmp_path / "map.yaml")


def drawn(*names):
    return [Structure(number, name, (), 1) for number, name in enumerate(names, start=1)]


def test_each_structure_is_a_class_in_the_order_of_names():
    for order in itertools.permutations(("Lung_L", "heart", "Lung_R")):
        assert scheme_of(drawn(*order), ()).names == ("heart", "Lung_L", "Lung_R")


def test_what_differs_in_case_or_blanks_alone_is_one_class():
    scheme = scheme_of(drawn("Liver", "liver ", "LIVER"), ())
    assert scheme.names == ("LIVER",)
    assert scheme.value_of_structure(" liver") == 1


def test_names_that_may_identify_somebody_or_are_not_plain_are_replaced():
    names = ("Liver", "GTV Canary", "lésion", "GTV+5mm", "PTV 2024-01-02", "", "x" * 65, "Background", "PTV_5040")
    scheme = scheme_of(drawn(*names), ("canary", "4711"))
    assert scheme.names == ("Liver", "PTV_5040", *(f"structure-{n}" for n in range(1, 8)))
    again = scheme_of(drawn(*reversed(names)), ("canary", "4711"))
    assert {name: again.value_of_structure(name) for name in names} == {
        name: scheme.value_of_structure(name) for name in names
    }
    assert len({scheme.value_of_structure(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["X12345678", "X1234567F", "XABCDEF01"])
def test_a_hash_that_deidentification_put_there_is_a_name(name):
    # the patient's own hash holds some of its digits
    words = frozenset(("patient", "c1234567d8ab", "1234567"))
    assert scheme_of(drawn(name), words).names == (name,)
    assert scheme_of(drawn(name), ()).names == (name,)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("X12345678", ("12345678",)),
        ("X12345678", ("patient", "4567")),
        ("X123456789", ()),
        ("Y12345678", ()),
        ("x12345678", ()),
        ("X12345678 GTV", ()),
        ("X1234567G", ()),
    ],
)
def test_what_is_no_such_hash_or_repeats_a_record_number_is_replaced(name, words):
    assert scheme_of(drawn(name), words).names == ("structure-1",)


def test_a_stand_in_takes_no_name_that_is_there():
    assert scheme_of(drawn("structure-1", "?"), ()).names == ("structure-1", "structure-2")


def test_what_is_not_drawn_is_no_class():
    assert scheme_of([Structure(1, "liver", (), 0), Structure(2, "spleen", (), 3)], ()).names == ("spleen",)
    with pytest.raises(LabelError) as caught:
        scheme_of([Structure(1, "liver", (), 0)], ())
    assert caught.value.code == "no_outline"


def test_more_structures_than_values_are_refused():
    assert len(scheme_of(drawn(*(f"s{n}" for n in range(254))), ()).classes) == 254
    with pytest.raises(LabelError) as caught:
        scheme_of(drawn(*(f"s{n}" for n in range(255))), ())
    assert caught.value.code == "too_many_classes"


def test_structures_of_label_objects(tmp_path):
    geometry = slices(8, 40, 50)
    outlines = [in_world(circle(20, 18, 6), k, geometry) for k in (2, 3)]
    path = write_rtstruct(tmp_path / "rs.dcm", {"Liver": outlines, "empty": [], "GTV": outlines[:1]})
    found = read_structures(read_label_object(path))
    assert [(one.number, one.name, one.n_parts) for one in found] == [(1, "Liver", 2), (2, "empty", 0), (3, "GTV", 1)]
    labels = random_labels()
    seg = foreign_seg(tmp_path / "seg.dcm", labels, make_series(tmp_path))
    found = read_structures(read_label_object(seg))
    frames = [int((labels == value).any(axis=(1, 2)).sum()) for value in (1, 2, 3)]
    assert [(one.number, one.name, one.codes, one.n_parts) for one in found] == [
        (1, "liver", ("SCT|10200001",), frames[0]),
        (2, "tumour", ("SCT|10200002",), frames[1]),
        (3, "vessel", ("SCT|10200003",), frames[2]),
    ]


def test_who_drew_or_approved_is_known_by_name():
    dataset, item = Dataset(), Dataset()
    dataset.PatientName, dataset.ReviewerName = "Canary^Anna", "Approver^Bert"
    item.ROIInterpreter = "Painter^Carl"
    dataset.RTROIObservationsSequence = pydicom.Sequence([item])
    assert {"canary", "anna", "approver", "bert", "painter", "carl"} <= authors_words(dataset)
