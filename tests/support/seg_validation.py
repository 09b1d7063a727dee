"""What is wrong with a DICOM SEG by the standard's own tables, and by dciodvfy where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def table_faults(path: Path) -> list[str]:
    """Offences against the tables of PS3.3 for the Segmentation IOD.

    An attribute must be of one of its modules, at its place; a mandatory module's attributes of type 1 must be there
    with a value, of type 2 be there; and the same in each item of each sequence that is there. Of the functional
    groups, each frame has each of its kind or shares it.
    """
    dataset = pydicom.dcmread(path)
    known: dict[tuple[str, ...], set[str]] = {}
    needed: dict[tuple[str, ...], dict[str, str]] = {}
    for module in get_iod_module_map()["segmentation"]:
        for attribute in get_module_attribute_map()[module["key"]]:
            place, keyword, kind = tuple(attribute["path"]), attribute["keyword"], attribute["type"]
            known.setdefault(place, set()).add(keyword)
            # inside a sequence it counts whenever the sequence is there
            if kind in ("1", "2") and (module["usage"] == "M" or place) and place not in ((_GROUPS[0],), (_GROUPS[1],)):
                kinds = needed.setdefault(place, {})
                kinds[keyword] = min(kind, kinds.get(keyword, kind))
    faults: list[str] = []
    _check(dataset, (), known, needed, faults)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1):
        for group in (
            "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "FrameContentSequence",
            "DerivationImageSequence", "SegmentIdentificationSequence",
        ):  # fmt: skip
            if (group in frame) == (group in shared):
                faults.append(f"frame {number}: {group} must be its own or shared")
    return faults


def _check(
    dataset: Dataset,
    place: tuple[str, ...],
    known: dict[tuple[str, ...], set[str]],
    needed: dict[tuple[str, ...], dict[str, str]],
    faults: list[str],
) -> None:
    for keyword, kind in needed.get(place, {}).items():
        if keyword not in dataset or (kind == "1" and dataset[keyword].value in (None, "", [])):
            faults.append(f"{'.'.join((*place, keyword))} is of type {kind}")
    for element in dataset:
        keyword = keyword_for_tag(element.tag)
        if keyword not in known.get(place, set()) and keyword != "PixelData":
            faults.append(f"{'.'.join((*place, keyword))} is of no module")
        if element.VR == "SQ":
            for item in element.value:
                _check(item, (*place, keyword), known, needed, faults)


def dciodvfy_lines(path: Path) -> list[str]:
    """Errors and warnings of dciodvfy (dicom3tools); the test is skipped where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert "Segmentation" in lines, "dciodvfy took it for another object"
    return [line for line in lines if line != "Segmentation"]
