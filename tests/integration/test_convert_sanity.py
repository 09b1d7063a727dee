"""Headers that lie about sizes and places are refused before memory or time is spent on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import write_ct
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from monai_tl.commands import convert
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import ConfigError, DataError

STACK = np.arange(6 * 8 * 10, dtype=np.uint16).reshape(6, 8, 10)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


def run(tmp_path: Path, **options: Any) -> dict[str, Any]:
    if not (tmp_path / "secret.key").exists():
        create_key(tmp_path / "secret.key", seed=0)
    convert.run(tmp_path / "in", tmp_path / "out", key_file=tmp_path / "secret.key", **options)
    return json.loads((tmp_path / "out/index.json").read_text())["volumes"]


def refusal(tmp_path: Path) -> dict[str, Any]:
    with pytest.raises(DataError):
        run(tmp_path)
    (found,) = json.loads((tmp_path / "out/rejected.json").read_text())["rejected"]
    return found


@pytest.mark.parametrize(
    ("spacing", "drift_mm", "says"),
    [
        ([0.3, 0.3], 100.0, "degrees"),
        ([0.02, 0.02], 2.0, "grid of"),
    ],
)
def test_a_stack_that_drifts_beyond_any_gantry_is_refused(tmp_path, spacing, drift_mm, says):
    stack = np.zeros((700, 2, 2), dtype=np.uint16) if drift_mm < 10 else STACK
    write_ct(tmp_path / "in", stack, step=(0.0, drift_mm, 2.5), PixelSpacing=spacing)
    found = refusal(tmp_path)
    assert found["code"] == "tilt"
    assert says in found["reason"]


@pytest.mark.parametrize("tags", [{"Columns": 20}, {"Rows": 32}])
def test_more_pixels_than_the_header_says_are_refused(tmp_path, tags):
    big = np.zeros((6, 64, 40), dtype=np.uint16)
    write_ct(tmp_path / "in", big, **tags)
    assert refusal(tmp_path)["code"] == "pixel_length"


@pytest.mark.parametrize(
    "tags", [{"SliceThickness": "7,77"}, {"KVP": "120k"}, {"MagneticFieldStrength": "1.5T"}, {"EchoTime": "n/a"}]
)
def test_a_number_that_is_none_where_none_is_needed_costs_nothing(tmp_path, tags):
    write_ct(tmp_path / "in", STACK)
    ((keyword, text),) = tags.items()
    for path in (tmp_path / "in").iterdir():
        _put(path, keyword, text)
    (volume,) = run(tmp_path)
    assert volume["n_slices"] == 6
    assert text not in json.dumps(volume)


@pytest.mark.parametrize("thickness", [-5.0, 0.0, 1e30])
def test_an_insane_thickness_of_a_single_slice_is_not_taken(tmp_path, thickness):
    write_ct(tmp_path / "in", STACK[:1], SliceThickness=thickness)
    (volume,) = run(tmp_path)
    assert volume["spacing_mm"][2] == 1.0
    assert any("SliceThickness" in note for note in volume["notes"])


def test_what_an_earlier_run_made_of_a_series_goes_when_it_is_refused(tmp_path):
    paths = write_ct(tmp_path / "in", STACK)
    (volume,) = run(tmp_path)
    assert (tmp_path / "out" / volume["file"]).exists()
    paths[2].unlink()
    assert refusal(tmp_path)["code"] == "missing_slice"
    assert list((tmp_path / "out").glob("*.nii.gz")) == []


def test_a_place_that_cannot_be_written_is_no_fault_of_the_series(tmp_path):
    write_ct(tmp_path / "in", STACK)
    (volume,) = run(tmp_path)
    (tmp_path / "out" / volume["file"]).unlink()
    (tmp_path / "out" / volume["file"]).mkdir()
    with pytest.raises(OSError):
        run(tmp_path)


def test_names_that_are_too_long_are_a_fault_of_the_arguments(tmp_path):
    write_ct(tmp_path / "in", STACK)
    with pytest.raises(ConfigError, match="letters"):
        run(tmp_path, names="{case}" * 16)


def _put(path: Path, keyword: str, text: str) -> None:
    """A text that pydicom would not write as a number."""
    ds = pydicom.dcmread(path)
    tag = Tag(tag_for_keyword(keyword))
    raw = text.encode() + b" " * (len(text) % 2)
    ds[tag] = RawDataElement(tag, "DS", len(raw), raw, 0, False, True)
    ds.save_as(path)
